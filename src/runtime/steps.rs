//! Tasks and time of a claim: on one thread, step by step, so that the same input gives the same run.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use smol::{LocalExecutor, Task};

thread_local! {
    static STEPS: RefCell<Option<Steps>> = const { RefCell::new(None) };
}

/// As long as what [`Steps::begin`] returns is kept, tasks that this thread starts run only when they are told to, and
/// time passes only then.
#[derive(Clone)]
pub(crate) struct Steps(Rc<Inner>);

struct Inner {
    executor: LocalExecutor<'static>,
    now: Cell<Instant>,
    naps_begun: Cell<u64>,
    /// What waits for a time, the earliest first.
    sleepers: RefCell<BTreeMap<(Instant, u64), Waker>>,
}

/// Ends the steps of this thread when it is dropped.
pub(crate) struct Begun(Steps);

impl Steps {
    pub(crate) fn begin() -> Begun {
        let steps = Steps(Rc::new(Inner {
            executor: LocalExecutor::new(),
            now: Cell::new(Instant::now()),
            naps_begun: Cell::default(),
            sleepers: RefCell::default(),
        }));
        STEPS.set(Some(steps.clone()));
        Begun(steps)
    }

    /// Returns those of this thread, if they were begun.
    pub(super) fn current() -> Option<Steps> {
        STEPS.try_with(|steps| steps.borrow().clone()).ok().flatten()
    }

    pub(super) fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> Task<T> {
        self.0.executor.spawn(task)
    }

    pub(crate) fn now(&self) -> Instant {
        self.0.now.get()
    }

    pub(super) fn nap(&self, time: Duration) -> Nap {
        let number = self.0.naps_begun.get();
        self.0.naps_begun.set(number + 1);
        Nap { until: self.now().checked_add(time), number }
    }

    /// Polls one task that was woken. Returns whether there was one.
    pub(crate) fn step(&self) -> bool {
        self.0.executor.try_tick()
    }

    /// Lets time pass, and wakes what has waited for it.
    pub(crate) fn pass(&self, time: Duration) {
        let now = self.now() + time;
        self.0.now.set(now);
        let mut sleepers = self.0.sleepers.borrow_mut();
        let later = sleepers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut *sleepers, later);
        drop(sleepers);
        due.into_values().for_each(Waker::wake);
    }

    /// Returns how long it is until something has waited long enough, if anything waits.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let sleepers = self.0.sleepers.borrow();
        sleepers.keys().next().map(|(until, _)| until.saturating_duration_since(self.now()))
    }
}

impl std::ops::Deref for Begun {
    type Target = Steps;

    fn deref(&self) -> &Steps {
        &self.0
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        STEPS.set(None);
    }
}

/// Waits until time has passed.
pub(crate) struct Nap {
    /// `None` is never.
    until: Option<Instant>,
    number: u64,
}

impl Future for Nap {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let (Some(steps), Some(until)) = (Steps::current(), self.until) {
            if steps.now() >= until {
                return Poll::Ready(());
            }
            steps.0.sleepers.borrow_mut().insert((until, self.number), cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Nap {
    fn drop(&mut self) {
        if let (Some(steps), Some(until)) = (Steps::current(), self.until) {
            let waker = steps.0.sleepers.borrow_mut().remove(&(until, self.number));
            drop(waker);
        }
    }
}

/// Whether a future was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A future that is polled step by step, and what it has returned.
pub(crate) struct Stepped<T> {
    future: Option<Pin<Box<dyn Future<Output = T>>>>,
    woken: Arc<Woken>,
    pub(crate) output: Option<T>,
}

impl<T> Stepped<T> {
    pub(crate) fn new(future: impl Future<Output = T> + 'static) -> Stepped<T> {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        Stepped { future: Some(Box::pin(future)), woken, output: None }
    }

    /// Returns whether it has to be polled.
    pub(crate) fn is_woken(&self) -> bool {
        self.future.is_some() && self.woken.0.load(Ordering::SeqCst)
    }

    /// Polls it if it was woken, or `anyway`. Returns whether it was polled.
    pub(crate) fn poll(&mut self, anyway: bool) -> bool {
        let woken = self.woken.0.swap(false, Ordering::SeqCst);
        let Some(future) = self.future.as_mut().filter(|_| woken || anyway) else { return false };
        let waker = Waker::from(Arc::clone(&self.woken));
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            self.output = Some(output);
            // It may own a connection.
            self.future = None;
        }
        true
    }
}
