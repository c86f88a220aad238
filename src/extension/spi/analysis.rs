//! What the statements of pg_clip stand for.
//!
//! A statement names its tables and operators. pg_clip has looked them up by their numbers, and has locked the tables. But the
//! owner of a schema can rename it at any time, also within a trigger that the statement before has fired: no lock on a table
//! keeps it from that. Another schema of the old name can then hold a namesake, with triggers, rules or functions of that
//! role, and the statement would run them with the rights of the role that it runs as.
//!
//! So PostgreSQL calls this module each time that it has analyzed a statement of ours, also where it analyzes a kept plan anew.
//! Refused are a relation that the role of the statement does not own, and an operator or a function that neither this role nor a
//! superuser nor the owner of a type of its arguments owns. After its analysis a statement knows its objects by their numbers: until
//! one of them changes, and it is analyzed again, it stands for the same ones.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;

use pgrx::pg_guard;
use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

use crate::catalog::{
    function_name, name_of, operator_name, operator_with_owner, owner_of, owner_of_function, owner_of_type,
    type_name,
};
use crate::error::Error;

/// Has PostgreSQL call this module; once a process.
pub(crate) fn install_hook() {
    // SAFETY: the library is loaded once, by the only thread of a process that analyzes no statement meanwhile; the hook is a
    // function, which stays where it is.
    unsafe {
        PREVIOUS.set(pg_sys::post_parse_analyze_hook);
        pg_sys::post_parse_analyze_hook = Some(after_analysis);
    }
}

/// A statement of ours, for as long as PostgreSQL may analyze it.
pub(crate) struct Analyzed<'a> {
    text: PhantomData<&'a CStr>,
}

impl<'a> Analyzed<'a> {
    pub(crate) fn begin(text: &'a CStr) -> Analyzed<'a> {
        let statement = Statement { text, is_by_name: BY_NAME.get() };
        STATEMENTS.with_borrow_mut(|statements| statements.push(statement));
        Analyzed { text: PhantomData }
    }
}

/// Also where an error unwinds.
impl Drop for Analyzed<'_> {
    fn drop(&mut self) {
        STATEMENTS.with_borrow_mut(Vec::pop);
    }
}

/// Whether statements stand for whatever their names say: those of a trigger that a user wrote by hand. It runs as its caller, and
/// its target is whatever table has the name.
pub(crate) struct ByName {
    before: bool,
}

impl ByName {
    pub(crate) fn begin(is_by_name: bool) -> ByName {
        ByName { before: BY_NAME.replace(is_by_name) }
    }

    pub(crate) fn is_begun() -> bool {
        BY_NAME.get()
    }
}

impl Drop for ByName {
    fn drop(&mut self) {
        BY_NAME.set(self.before);
    }
}

struct Statement {
    text: *const CStr,
    is_by_name: bool,
}

thread_local! {
    static PREVIOUS: Cell<pg_sys::post_parse_analyze_hook_type> = const { Cell::new(None) };
    static BY_NAME: Cell<bool> = const { Cell::new(false) };
    /// The innermost comes last.
    static STATEMENTS: RefCell<Vec<Statement>> = const { RefCell::new(Vec::new()) };
}

#[pg_guard]
unsafe extern "C-unwind" fn after_analysis(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: the arguments are those that PostgreSQL gave for this very call.
    unsafe {
        if let Some(previous) = PREVIOUS.get() {
            pg_guard_ffi_boundary(|| previous(state, query, jumble));
        }
        if is_to_be_checked((*state).p_sourcetext) {
            check(query);
        }
    }
}

/// Whether this is the text of the innermost of our statements. Where a user's code runs a statement of just this text within
/// it, that is checked as well, which does no harm.
///
/// # Safety
/// `text` is null or a string.
unsafe fn is_to_be_checked(text: *const std::ffi::c_char) -> bool {
    STATEMENTS.with_borrow(|statements| match statements.last() {
        // SAFETY: the text of a statement outlives its entry; the caller vouches for `text`.
        Some(statement) if !statement.is_by_name && !text.is_null() => unsafe {
            CStr::from_ptr(text) == &*statement.text
        },
        _ => false,
    })
}

/// # Safety
/// `query` is an analyzed query.
unsafe fn check(query: *mut pg_sys::Query) {
    // SAFETY: the caller vouches for the query; the statement that is explained has been analyzed with it.
    unsafe {
        let statement = (*query).utilityStmt;
        if (*query).commandType != pg_sys::CmdType::CMD_UTILITY {
            visit(query.cast(), std::ptr::null_mut());
        } else if !statement.is_null() && (*statement).type_ == pg_sys::NodeTag::T_ExplainStmt {
            visit((*statement.cast::<pg_sys::ExplainStmt>()).query, std::ptr::null_mut());
        }
    }
}

type Walker = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool;

// As in PostgreSQL's nodes/nodeFuncs.h.
unsafe extern "C-unwind" {
    #[cfg_attr(not(feature = "pg15"), link_name = "query_tree_walker_impl")]
    fn query_tree_walker(
        query: *mut pg_sys::Query,
        walker: Walker,
        context: *mut c_void,
        flags: c_int,
    ) -> bool;
    #[cfg_attr(not(feature = "pg15"), link_name = "expression_tree_walker_impl")]
    fn expression_tree_walker(node: *mut pg_sys::Node, walker: Walker, context: *mut c_void) -> bool;
}

/// Checks a part of a query and what is below it.
#[pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: PostgreSQL walks over nodes of an analyzed query; an ERROR becomes a panic.
    unsafe {
        if (*node).type_ == pg_sys::NodeTag::T_Query {
            let query = node.cast::<pg_sys::Query>();
            check_tables((*query).rtable);
            return pg_guard_ffi_boundary(|| query_tree_walker(query, visit, context, 0));
        }
        check_operator(node);
        pg_sys::check_functions_in_node(node, Some(check_function), context);
        pg_guard_ffi_boundary(|| expression_tree_walker(node, visit, context))
    }
}

/// # Safety
/// `tables` is null or the range table of a query.
unsafe fn check_tables(tables: *const pg_sys::List) {
    // SAFETY: the caller vouches for the list.
    let entries = unsafe {
        let count = if tables.is_null() { 0 } else { usize::try_from((*tables).length).unwrap_or_default() };
        (0..count).map(|index| &*(*(*tables).elements.add(index)).ptr_value.cast::<pg_sys::RangeTblEntry>())
    };
    for entry in entries {
        if entry.rtekind == pg_sys::RTEKind::RTE_RELATION
            && is_made_later(entry.relid)
            && owner_of(entry.relid) != Some(acting_role())
        {
            Error::Namesake(name_of(entry.relid)).raise();
        }
    }
}

/// Checks what an expression of the owner's, which was analyzed anew, calls: nothing but what `known` lists, the functions, operators
/// and types of the expression that it was made from, and what any statement of this role may call.
///
/// # Safety
/// `expression` is null or an analyzed expression.
pub(crate) unsafe fn check_expression(expression: *mut pg_sys::Node, known: &Vec<pg_sys::Oid>) {
    // SAFETY: the caller vouches for the expression; the list outlives the walk; an ERROR becomes a panic.
    unsafe {
        pg_guard_ffi_boundary(|| visit_expression(expression, std::ptr::from_ref(known).cast_mut().cast()));
    }
}

/// As [`visit`]; domains too, whose checks are functions.
#[pg_guard]
unsafe extern "C-unwind" fn visit_expression(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the context is that of `check_expression`; the rest is as in `visit`.
    unsafe {
        let known = &*context.cast::<Vec<pg_sys::Oid>>();
        if let Some(operator) = operator_of(node).filter(|operator| !known.contains(operator)) {
            check_owner_of_operator(operator);
        }
        if (*node).type_ == pg_sys::NodeTag::T_CoerceToDomain {
            let domain = (*node.cast::<pg_sys::CoerceToDomain>()).resulttype;
            if is_made_later(domain)
                && !known.contains(&domain)
                && !owner_of_type(domain).is_some_and(is_trusted)
            {
                Error::Namesake(type_name(domain)).raise();
            }
        }
        pg_sys::check_functions_in_node(node, Some(check_function), context);
        pg_guard_ffi_boundary(|| expression_tree_walker(node, visit_expression, context))
    }
}

/// # Safety
/// `node` is a node of an analyzed query.
unsafe fn check_operator(node: *mut pg_sys::Node) {
    // SAFETY: the caller vouches for the node.
    if let Some(operator) = unsafe { operator_of(node) } {
        check_owner_of_operator(operator);
    }
}

/// The operator of a node, where it has one.
///
/// # Safety
/// `node` is a node of an analyzed query.
unsafe fn operator_of(node: *mut pg_sys::Node) -> Option<pg_sys::Oid> {
    use pg_sys::NodeTag::{T_DistinctExpr, T_NullIfExpr, T_OpExpr, T_ScalarArrayOpExpr};
    // SAFETY: the tag says which struct it is; the first three are one.
    unsafe {
        match (*node).type_ {
            T_OpExpr | T_DistinctExpr | T_NullIfExpr => Some((*node.cast::<pg_sys::OpExpr>()).opno),
            T_ScalarArrayOpExpr => Some((*node.cast::<pg_sys::ScalarArrayOpExpr>()).opno),
            _ => None,
        }
    }
}

/// Whoever has made a type has made its operators.
fn check_owner_of_operator(operator: pg_sys::Oid) {
    if !is_made_later(operator) {
        return;
    }
    let is_trusted = operator_with_owner(operator).is_some_and(|(owner, sides)| {
        is_trusted(owner) || sides.into_iter().any(|side| owner_of_type(side) == Some(owner))
    });
    if !is_trusted {
        Error::Namesake(operator_name(operator)).raise();
    }
}

/// Says that the tree need be searched on: a function that is refused is an error. The context is null or that of
/// [`check_expression`].
#[pg_guard]
unsafe extern "C-unwind" fn check_function(function: pg_sys::Oid, context: *mut c_void) -> bool {
    // SAFETY: see `check_expression`.
    let known = unsafe { context.cast::<Vec<pg_sys::Oid>>().as_ref() };
    if !is_made_later(function) || known.is_some_and(|known| known.contains(&function)) {
        return false;
    }
    let is_trusted = owner_of_function(function)
        .is_some_and(|owner| is_trusted(owner) || owns_an_argument(owner, function));
    if !is_trusted {
        Error::Namesake(function_name(function)).raise();
    }
    false
}

fn is_trusted(owner: pg_sys::Oid) -> bool {
    // SAFETY: looks any number up in the catalogs.
    owner == acting_role() || unsafe { pg_sys::superuser_arg(owner) }
}

/// Whether a role owns the type of one of a function's arguments: whoever has made the type has made its operators.
fn owns_an_argument(role: pg_sys::Oid, function: pg_sys::Oid) -> bool {
    let (mut types, mut count) = (std::ptr::null_mut(), 0);
    // SAFETY: the function exists; the array has as many elements as PostgreSQL says, in the current memory context.
    unsafe {
        pg_sys::get_func_signature(function, &mut types, &mut count);
        let count = usize::try_from(count).unwrap_or_default();
        (0..count).any(|index| owner_of_type(*types.add(index)) == Some(role))
    }
}

/// Whether an object is none of those that PostgreSQL itself brings along.
fn is_made_later(object: pg_sys::Oid) -> bool {
    u32::from(object) >= pg_sys::FirstNormalObjectId
}

fn acting_role() -> pg_sys::Oid {
    // SAFETY: a plain read of the current role.
    unsafe { pg_sys::GetUserId() }
}
