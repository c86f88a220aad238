//! What is written down when a transaction commits, and holds up no other before.
//!
//! A row that is written in the middle of a transaction is locked up to its end, which may be long, and other sessions that would
//! write the same row wait for that. The end of a commit is near.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::Once;

use pgrx::pg_sys;

use crate::error::Error;
use crate::refusal::{Reason, refuse};
use crate::spi::Spi;
use crate::watch::extension_schema::{ExtensionSchema, Installed};

/// What is to be written down.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// The model that made the first vectors of the target of a source, as the target's model column has it.
    FirstModel { source: pg_sys::Oid, model: String },
    /// The model of the database, where role `by`, which watched `source`, has the rights of its owner.
    DatabaseModel { source: pg_sys::Oid, model: String, by: pg_sys::Oid },
}

/// How a note is written down.
pub(crate) type Writer = fn(&Spi, &ExtensionSchema, &Note) -> Result<(), Error>;

/// A note, with the nest level of its subtransaction.
struct Noted {
    level: i32,
    note: Note,
    write: Writer,
}

thread_local! {
    /// The notes of the current transaction.
    static NOTES: RefCell<Vec<Noted>> = const { RefCell::new(Vec::new()) };
}

/// Has a note written down when the current transaction commits.
pub(crate) fn write_down(note: Note, write: Writer) {
    static REGISTER: Once = Once::new();
    // SAFETY: the callbacks are functions of this library, which is never unloaded.
    REGISTER.call_once(|| unsafe {
        pg_sys::RegisterXactCallback(Some(at_end_of_transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_end_of_subtransaction), std::ptr::null_mut());
    });
    // SAFETY: a plain read of this backend's state.
    let level = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
    NOTES.with_borrow_mut(|notes| {
        if !notes.iter().any(|other| other.note == note) {
            notes.push(Noted { level, note, write });
        }
    });
}

/// The model of which the current transaction has made the first vectors of the target of a source.
pub(crate) fn first_model(source: pg_sys::Oid) -> Option<String> {
    NOTES.with_borrow(|notes| {
        notes.iter().find_map(|noted| match &noted.note {
            Note::FirstModel { source: of, model } if *of == source => Some(model.clone()),
            _ => None,
        })
    })
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_end_of_transaction(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{
        XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PRE_COMMIT, XACT_EVENT_PRE_PREPARE,
        XACT_EVENT_PREPARE,
    };
    match event {
        XACT_EVENT_PRE_COMMIT => {
            let notes = NOTES.take();
            if !notes.is_empty()
                && let Err(error) = write_all(notes)
            {
                error.raise();
            }
        }
        XACT_EVENT_PRE_PREPARE => {
            let notes = NOTES.take();
            if notes.iter().any(|noted| matches!(noted.note, Note::FirstModel { .. })) {
                not_prepared().raise();
            }
        }
        XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE => NOTES.with_borrow_mut(Vec::clear),
        _ => {}
    }
}

/// What a subtransaction that is rolled back has noted is forgotten; what another one has is that of the one around it.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_end_of_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    _own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    use pg_sys::SubXactEvent::{SUBXACT_EVENT_ABORT_SUB, SUBXACT_EVENT_COMMIT_SUB};
    // SAFETY: a plain read of this backend's state. The subtransaction is the current one still.
    let level = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
    NOTES.with_borrow_mut(|notes| match event {
        SUBXACT_EVENT_ABORT_SUB => notes.retain(|noted| noted.level < level),
        SUBXACT_EVENT_COMMIT_SUB => {
            notes.iter_mut().for_each(|noted| noted.level = noted.level.min(level - 1));
        }
        _ => {}
    });
}

/// What is written down would be locked until the second phase, and each photo of the table would wait for that.
fn not_prepared() -> Error {
    let message = "a transaction with the first vectors of a table cannot be prepared";
    refuse(Reason::NotSupported, message).with_hint("Store a photo in a transaction of one phase first.")
}

fn write_all(notes: Vec<Noted>) -> Result<(), Error> {
    // SAFETY: called inside of a transaction; the snapshot is pushed and popped here, and by an abort.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    let spi = Spi::connect()?;
    if let Installed::Here(extension) = ExtensionSchema::installed() {
        for Noted { note, write, .. } in notes {
            write(&spi, &extension, &note)?;
        }
    }
    drop(spi);
    // SAFETY: the snapshot from above.
    unsafe { pg_sys::PopActiveSnapshot() };
    Ok(())
}
