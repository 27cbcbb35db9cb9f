//! How tasks of a connection are started: on the executor of smol, unless a claim about connections runs them itself.

#[cfg(not(any(test, fuzzing)))]
pub(super) use smol::spawn;

#[cfg(any(test, fuzzing))]
pub(super) use steps::{Steps, spawn};

#[cfg(any(test, fuzzing))]
mod steps {
    use std::cell::RefCell;
    use std::rc::Rc;

    use smol::{LocalExecutor, Task};

    thread_local! {
        static STEPS: RefCell<Option<Rc<LocalExecutor<'static>>>> = const { RefCell::new(None) };
    }

    /// As long as this is kept, tasks that this thread starts run only when they are told to.
    pub(crate) struct Steps(Rc<LocalExecutor<'static>>);

    impl Steps {
        pub(crate) fn begin() -> Steps {
            let executor = Rc::new(LocalExecutor::new());
            STEPS.set(Some(Rc::clone(&executor)));
            Steps(executor)
        }

        /// Polls one task that was woken. Returns whether there was one.
        pub(crate) fn step(&self) -> bool {
            self.0.try_tick()
        }
    }

    impl Drop for Steps {
        fn drop(&mut self) {
            STEPS.set(None);
        }
    }

    pub(crate) fn spawn<T: Send + 'static>(
        task: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        match STEPS.with_borrow(Option::clone) {
            Some(executor) => executor.spawn(task),
            None => smol::spawn(task),
        }
    }
}
