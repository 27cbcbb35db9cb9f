//! How tasks of a connection are started: on the executor of smol, unless a claim about connections runs them itself.

#[cfg(not(any(test, fuzzing)))]
pub(crate) use smol::spawn;

#[cfg(any(test, fuzzing))]
pub(crate) use claimed::spawn;

#[cfg(any(test, fuzzing))]
mod claimed {
    use smol::Task;

    use crate::runtime::steps::Steps;

    pub(crate) fn spawn<T: Send + 'static>(
        task: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        match Steps::current() {
            Some(steps) => steps.spawn(task),
            None => smol::spawn(task),
        }
    }
}
