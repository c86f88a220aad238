//! `EXPLAIN (ANALYZE)` says what a statement had embedded, and how long that took.
//!
//! PostgreSQL shows the time of an embedding in the node that calls the function, or in the planning where the
//! planner evaluates it: neither says that it was an embedding. Counting begins before the planning. The counts of
//! parallel workers are lost, and so are those of `EXPLAIN EXECUTE`, which PostgreSQL explains past the hook.
//!
//! Before PostgreSQL 18 no hook is called while the output of a query is open: only the text format takes what comes after it.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::time::Duration;

use pgrx::pg_guard;
use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

use crate::client::Usage;

/// Has `EXPLAIN` call this module; once a process.
pub(crate) fn install_hooks() {
    // SAFETY: the library is loaded once, by the only thread of a process that runs no statement meanwhile; hooks are
    // functions, which stay where they are.
    unsafe {
        PREVIOUS.set(pg_sys::ExplainOneQuery_hook);
        pg_sys::ExplainOneQuery_hook = Some(explain_one_query);
        #[cfg(feature = "pg18")]
        {
            PREVIOUS_PER_PLAN.set(pg_sys::explain_per_plan_hook);
            pg_sys::explain_per_plan_hook = Some(explain_per_plan);
        }
    }
}

thread_local! {
    static PREVIOUS: Cell<pg_sys::ExplainOneQuery_hook_type> = const { Cell::new(None) };
}

#[cfg(feature = "pg18")]
thread_local! {
    static PREVIOUS_PER_PLAN: Cell<pg_sys::explain_per_plan_hook_type> = const { Cell::new(None) };
    /// The usage before the query that is being explained.
    static BEFORE: Cell<Option<Usage>> = const { Cell::new(None) };
}

#[pg_guard]
unsafe extern "C-unwind" fn explain_one_query(
    query: *mut pg_sys::Query,
    cursor_options: c_int,
    into: *mut pg_sys::IntoClause,
    state: *mut pg_sys::ExplainState,
    source: *const c_char,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
) {
    let before = Usage::now();
    #[cfg(feature = "pg18")]
    let _restored = Explained::begin(before);
    // SAFETY: the arguments are those that PostgreSQL gave for this very call.
    unsafe {
        match PREVIOUS.get() {
            Some(previous) => pg_guard_ffi_boundary(|| {
                previous(query, cursor_options, into, state, source, parameters, environment);
            }),
            None => standard(query, cursor_options, into, state, source, parameters, environment),
        }
    }
    #[cfg(not(feature = "pg18"))]
    // SAFETY: PostgreSQL's state of this EXPLAIN outlives the call.
    unsafe {
        if (*state).format == pg_sys::ExplainFormat::EXPLAIN_FORMAT_TEXT {
            show(state, Usage::now() - before);
        }
    }
}

#[cfg(not(any(feature = "pg15", feature = "pg16")))]
use pg_sys::standard_ExplainOneQuery as standard;

/// As PostgreSQL explains where there is no hook; before release 17 it has no function for that.
#[cfg(any(feature = "pg15", feature = "pg16"))]
unsafe fn standard(
    query: *mut pg_sys::Query,
    cursor_options: c_int,
    into: *mut pg_sys::IntoClause,
    state: *mut pg_sys::ExplainState,
    source: *const c_char,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
) {
    // SAFETY: the arguments are those of the hook; the usage of buffers is a plain variable of this process.
    unsafe {
        let buffers_before = pg_sys::pgBufferUsage;
        let start = std::time::Instant::now();
        let plan = pg_sys::pg_plan_query(query, source, cursor_options, parameters);
        let planning = instr_time(start.elapsed());
        let mut buffers = pg_sys::BufferUsage::default();
        pg_sys::BufferUsageAccumDiff(&mut buffers, &raw const pg_sys::pgBufferUsage, &buffers_before);
        let buffers = if (*state).buffers { &raw const buffers } else { std::ptr::null() };
        pg_sys::ExplainOnePlan(plan, into, state, source, parameters, environment, &planning, buffers);
    }
}

#[cfg(feature = "pg15")]
fn instr_time(time: Duration) -> pg_sys::instr_time {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    pg_sys::instr_time { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() }
}

#[cfg(feature = "pg16")]
fn instr_time(time: Duration) -> pg_sys::instr_time {
    pg_sys::instr_time { ticks: i64::try_from(time.as_nanos()).unwrap_or(i64::MAX) }
}

/// Puts back the usage before the outer query, also where an error ends the query.
#[cfg(feature = "pg18")]
struct Explained(Option<Usage>);

#[cfg(feature = "pg18")]
impl Explained {
    fn begin(before: Usage) -> Explained {
        Explained(BEFORE.replace(Some(before)))
    }
}

#[cfg(feature = "pg18")]
impl Drop for Explained {
    fn drop(&mut self) {
        BEFORE.set(self.0);
    }
}

#[cfg(feature = "pg18")]
#[pg_guard]
unsafe extern "C-unwind" fn explain_per_plan(
    plan: *mut pg_sys::PlannedStmt,
    into: *mut pg_sys::IntoClause,
    state: *mut pg_sys::ExplainState,
    source: *const c_char,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
) {
    // SAFETY: the arguments are those that PostgreSQL gave for this very call.
    unsafe {
        if let Some(previous) = PREVIOUS_PER_PLAN.get() {
            pg_guard_ffi_boundary(|| previous(plan, into, state, source, parameters, environment));
        }
        if let Some(before) = BEFORE.get() {
            show(state, Usage::now() - before);
        }
    }
}

/// Adds the usage to the output, where something was embedded.
///
/// # Safety
/// `state` is that of a running EXPLAIN.
unsafe fn show(state: *mut pg_sys::ExplainState, usage: Usage) {
    // SAFETY: the caller vouches for `state`, whose output is a string of PostgreSQL's.
    unsafe {
        if !(*state).analyze || usage.inputs() == 0 {
            return;
        }
        let counts = [("Texts", usage.texts), ("Images", usage.images), ("Cached", usage.cached)];
        let times =
            [("Preparation", usage.preparation), ("Inference", usage.inference), ("Total", usage.total)];
        if (*state).format == pg_sys::ExplainFormat::EXPLAIN_FORMAT_TEXT {
            let counts = counts.map(|(name, count)| format!("{name} {count}")).join(", ");
            let times = times.map(|(name, time)| format!("{name} {:.3} ms", milliseconds(time))).join(", ");
            line(state, "CLIP:");
            (*state).indent += 1;
            line(state, &format!("Embedded: {counts}"));
            if (*state).timing {
                line(state, &format!("Timing: {times}"));
            }
            (*state).indent -= 1;
            return;
        }
        group(state, c"CLIP", || {
            for (name, count) in counts {
                let name = CString::new(name).expect("no name has a zero byte");
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                pg_sys::ExplainPropertyInteger(name.as_ptr(), std::ptr::null(), count, state);
            }
            if (*state).timing {
                group(state, c"Timing", || {
                    for (name, time) in times {
                        let name = CString::new(name).expect("no name has a zero byte");
                        pg_sys::ExplainPropertyFloat(
                            name.as_ptr(),
                            c"ms".as_ptr(),
                            milliseconds(time),
                            3,
                            state,
                        );
                    }
                });
            }
        });
    }
}

/// Adds a line of the text format.
unsafe fn line(state: *mut pg_sys::ExplainState, text: &str) {
    let text = CString::new(format!("{text}\n")).expect("no line has a zero byte");
    // SAFETY: as for `show`.
    unsafe {
        pg_sys::appendStringInfoSpaces((*state).str_, 2 * (*state).indent);
        pg_sys::appendStringInfoString((*state).str_, text.as_ptr());
    }
}

/// Adds an object with a name to a structured format.
unsafe fn group(state: *mut pg_sys::ExplainState, name: &CStr, content: impl FnOnce()) {
    // SAFETY: as for `show`.
    unsafe {
        pg_sys::ExplainOpenGroup(name.as_ptr(), name.as_ptr(), true, state);
        content();
        pg_sys::ExplainCloseGroup(name.as_ptr(), name.as_ptr(), true, state);
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
