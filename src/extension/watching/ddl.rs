//! The change that a DDL command makes to partitions, as its parse tree says.
//!
//! Most commands on a partitioned table bring no partition and take none away. In a restore of a dump, such
//! commands come between the triggers of one partition and those of the next: a trigger that is missing then is
//! about to come.

use pgrx::pg_sys;

/// A command as an event trigger is told of it, in a column of type `pg_ddl_command`.
#[derive(Clone, Copy)]
pub(super) struct Command(*const pg_sys::CollectedCommand);

/// What a command may have done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It brought a partition: the table that it made, or one that it attached to the table. Or it gave a partition another
    /// owner, perhaps that of its table, which alone can make triggers on it.
    Came,
    /// It detached a partition from the table.
    Went,
}

impl Command {
    pub(super) const TYPE: pg_sys::Oid = pg_sys::PG_DDL_COMMANDOID;

    /// # Safety
    /// `datum` is a value of [`Command::TYPE`], of the event trigger that is running, and is used no longer than it runs.
    pub(super) unsafe fn new(datum: pg_sys::Datum) -> Command {
        Command(datum.cast_mut_ptr())
    }

    /// What the command does to partitions, if it does anything to them.
    pub(super) fn change(self) -> Option<Change> {
        // SAFETY: `new` vouches for the command, whose tree is whole; what a tag says of a node is true.
        unsafe {
            let tree = (*self.0).parsetree;
            if pgrx::is_a(tree, pg_sys::NodeTag::T_CreateStmt) {
                return Some(Change::Came);
            }
            if !pgrx::is_a(tree, pg_sys::NodeTag::T_AlterTableStmt) {
                return None;
            }
            let parts = (*tree.cast::<pg_sys::AlterTableStmt>()).cmds;
            let count =
                if parts.is_null() { 0 } else { usize::try_from((*parts).length).unwrap_or_default() };
            (0..count).find_map(|index| {
                let part = (*(*parts).elements.add(index)).ptr_value.cast::<pg_sys::AlterTableCmd>();
                match (*part).subtype {
                    pg_sys::AlterTableType::AT_AttachPartition | pg_sys::AlterTableType::AT_ChangeOwner => {
                        Some(Change::Came)
                    }
                    pg_sys::AlterTableType::AT_DetachPartition
                    | pg_sys::AlterTableType::AT_DetachPartitionFinalize => Some(Change::Went),
                    _ => None,
                }
            })
        }
    }
}
