//! A session that several threads run at once.
//!
//! One run leads: ONNX Runtime computes it on the caller's thread and shares its multiplications with the threads of the
//! session's pool. Each further run that comes meanwhile is given to one thread of the pool, which computes it alone, and
//! its caller waits. So a lone run has all processors, and as many runs as there are threads have one each: on two
//! processors, two images of an int8 model that run beside each other took 0.72 of the time that they took one after the
//! other, and two runs of four images in fp32 0.91. Were both computed on their callers' threads, these and the pool's
//! threads would share the processors, and less would be gained, or nothing. A run that is urgent is the exception: the threads
//! of the pool may stand back behind its caller's, and may be busy.
//!
//! ONNX Runtime declares concurrent runs of one session safe. `ort` takes a session by `&mut` because some execution
//! providers do not keep that promise; the processor's does. Hence the calls past `ort`. On a GPU one run comes after the
//! other: it computes no faster on two at once, and each would take memory of its own.

use std::ffi::{CString, c_char, c_void};
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};

use ort::AsPointer;
use ort::session::Session;
use ort::sys::{OrtSession, OrtStatusPtr, OrtValue};
use ort::value::{DynValue, Outlet};

use super::Gpu;

/// Where a run is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// On the caller's thread, beside any other run.
    Urgent,
    /// On a thread of the pool, where another run leads.
    Usual,
}

/// A graph that is loaded.
#[derive(Debug)]
pub(crate) struct SharedSession {
    session: ManuallyDrop<Session>,
    /// Held while a run leads.
    leads: Mutex<()>,
    runs: Runs,
}

/// How the runs of a session share it.
#[derive(Debug)]
pub(super) enum Runs {
    /// On the threads of a pool, where another run leads.
    Shared,
    /// Beside each other, each on its caller's thread: a session of one thread has no pool.
    Alone,
    /// One after the other.
    OnGpu(Arc<Gpu>),
}

impl Runs {
    pub(super) fn of_threads(threads: usize) -> Runs {
        if threads > 1 { Runs::Shared } else { Runs::Alone }
    }
}

impl SharedSession {
    pub(super) fn new(session: Session, runs: Runs) -> SharedSession {
        SharedSession { session: ManuallyDrop::new(session), leads: Mutex::default(), runs }
    }

    /// Whether a GPU computes it.
    pub(crate) fn is_on_gpu(&self) -> bool {
        matches!(self.runs, Runs::OnGpu(_))
    }

    pub(crate) fn inputs(&self) -> &[Outlet] {
        self.session.inputs()
    }

    pub(crate) fn outputs(&self) -> &[Outlet] {
        self.session.outputs()
    }

    /// Runs the graph over inputs by their names: its output of this name.
    pub(crate) fn run(
        &self,
        inputs: &[(&str, DynValue)],
        output: &str,
        urgency: Urgency,
    ) -> Result<DynValue, String> {
        let name = |name: &str| CString::new(name).map_err(|error| error.to_string());
        let input_names = inputs.iter().map(|(input, _)| name(input)).collect::<Result<Vec<_>, _>>()?;
        let output_name = name(output)?;
        let call = Call {
            session: self.session.inner().ptr().cast_mut(),
            input_names: input_names.iter().map(|name| name.as_ptr()).collect(),
            inputs: inputs.iter().map(|(_, value)| value.ptr()).collect(),
            output_name: output_name.as_ptr(),
        };
        let value = if self.is_on_gpu() {
            let _leads = self.leads.lock().unwrap_or_else(PoisonError::into_inner);
            call.here()
        } else {
            match self.leads.try_lock() {
                Err(TryLockError::WouldBlock)
                    if matches!(self.runs, Runs::Shared) && urgency == Urgency::Usual =>
                {
                    call.on_a_thread_of_the_pool()
                }
                _leads => call.here(),
            }
        }?;
        let value = NonNull::new(value).ok_or_else(|| format!("no output {output}"))?;
        // SAFETY: a run that succeeded gave this value, and no other owner; ONNX Runtime copies
        // what a GPU computed into memory of the session's allocator, where the processor's tensors lie too.
        Ok(unsafe { DynValue::from_ptr(value, Some(self.session.allocator())) })
    }
}

/// What a GPU holds that has failed is kept until the process ends: to free it can fail too, which ends the process, or not end.
impl Drop for SharedSession {
    fn drop(&mut self) {
        if let Runs::OnGpu(gpu) = &self.runs
            && !gpu.works()
        {
            return;
        }
        // SAFETY: the session is dropped here alone, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.session) };
    }
}

/// The arguments of a run. Its pointers live as long as the names and values that [`SharedSession::run`] holds.
struct Call {
    session: *mut OrtSession,
    input_names: Vec<*const c_char>,
    inputs: Vec<*const OrtValue>,
    output_name: *const c_char,
}

impl Call {
    fn here(&self) -> Result<*mut OrtValue, String> {
        let mut output = ptr::null_mut();
        // SAFETY: the session, the names and the values outlive the call; there are as many names as values, and room
        // for one output. Null stands for the default options.
        let status = unsafe {
            (ort::api().Run)(
                self.session,
                ptr::null(),
                self.input_names.as_ptr(),
                self.inputs.as_ptr(),
                self.inputs.len(),
                &raw const self.output_name,
                1,
                &raw mut output,
            )
        };
        outcome(status).map(|()| output)
    }

    /// Waits for the end of the run: its arguments live until then.
    fn on_a_thread_of_the_pool(&self) -> Result<*mut OrtValue, String> {
        let mut output = ptr::null_mut();
        let end = Arc::new(End::default());
        let told = Arc::into_raw(Arc::clone(&end)).cast_mut().cast::<c_void>();
        // SAFETY: as in `here`, and the wait below keeps it all until ONNX Runtime has called `tell`; `told` is a
        // reference that `tell` takes over.
        let status = unsafe {
            (ort::api().RunAsync)(
                self.session,
                ptr::null(),
                self.input_names.as_ptr(),
                self.inputs.as_ptr(),
                self.inputs.len(),
                &raw const self.output_name,
                1,
                &raw mut output,
                Some(tell),
                told,
            )
        };
        if let Err(error) = outcome(status) {
            // SAFETY: a run that was not begun calls nothing, so that the reference is still this function's.
            drop(unsafe { Arc::from_raw(told.cast_const().cast::<End>()) });
            return Err(error);
        }
        end.wait()?;
        Ok(output)
    }
}

/// The end of a run on a thread of the pool.
#[derive(Default)]
struct End {
    outcome: Mutex<Option<Result<(), String>>>,
    told: Condvar,
}

impl End {
    fn tell(&self, outcome: Result<(), String>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.told.notify_one();
    }

    fn wait(&self) -> Result<(), String> {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = outcome.take() {
                return outcome;
            }
            outcome = self.told.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

unsafe extern "C" fn tell(
    end: *mut c_void,
    _outputs: *mut *mut OrtValue,
    _count: usize,
    status: OrtStatusPtr,
) {
    // SAFETY: ONNX Runtime calls this once with the pointer that `on_a_thread_of_the_pool` gave it, a reference to
    // an `End`.
    let end = unsafe { Arc::from_raw(end.cast_const().cast::<End>()) };
    end.tell(outcome(status));
}

fn outcome(status: OrtStatusPtr) -> Result<(), String> {
    // SAFETY: the status comes from ONNX Runtime, and nothing else frees it.
    unsafe { ort::Error::result_from_status(status) }.map_err(|error| error.to_string())
}
