//! Signals that stop the program, or make it reopen its output.

use std::future::pending;
use std::io;
use std::time::Duration;

use ::log::{error, info, warn};
use async_signal::{Signal, Signals};
use framelet::net::Backoff;
use framelet::server::Reopen;
use framelet::tls::TlsAcceptor;
use futures_lite::{FutureExt, Stream, StreamExt};
use smol::{Timer, channel};

use super::exit_code::Exit;
use super::failure::{Failure, plain};
use super::log;

/// The shortest and longest wait before retrying, if waiting for signals failed.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// Returns a future that is ready after the first signal to stop. A second signal exits at once.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    Ok(stop_at(listen([Signal::Term, Signal::Int])?))
}

/// From now on SIGHUP, which would otherwise end the program, makes the certificates be read again, if there are any, and
/// the sink reopen its output, if there is a sink. Calls `begin` with each signal, and `done` once that is done.
pub(super) fn refresh_at_signal(
    reopen: Option<Reopen>,
    tls: Option<TlsAcceptor>,
    begin: impl Fn() + Send + 'static,
    done: impl Fn() + Send + 'static,
) -> Result<(), Failure> {
    let mut signals = listen([Signal::Hup])?;
    start(async move {
        let mut is_signalled = false;
        loop {
            if !is_signalled {
                next(&mut signals).await;
            }
            begin();
            if let Some(tls) = &tls {
                reload(tls);
            }
            let reopened = async {
                if let Some(reopen) = &reopen {
                    reopen.ask_and_wait().await;
                }
                false
            };
            // Another request may be what frees a sink that waits.
            let again = async {
                next(&mut signals).await;
                true
            };
            is_signalled = reopened.or(again).await;
            if !is_signalled {
                done();
            }
        }
    });
    Ok(())
}

/// Starts a task. All of them are of one type, since the runtime has 1.5 KiB of code for each type of task.
fn start(task: impl Future<Output = ()> + Send + 'static) {
    smol::spawn(task.boxed()).detach();
}

fn reload(tls: &TlsAcceptor) {
    match tls.reload() {
        Ok(()) => info!("read the certificates again"),
        Err(error) => {
            let why = plain(&error);
            error!("cannot read the certificates again: {why}; keeping the old ones");
        }
    }
}

/// Calls `act` with each SIGUSR1, which would otherwise end the program.
pub(super) fn act_at_signal(act: impl Fn() + Send + 'static) -> Result<(), Failure> {
    let mut signals = listen([Signal::Usr1])?;
    start(async move {
        loop {
            next(&mut signals).await;
            act();
        }
    });
    Ok(())
}

/// Makes a write over the file size limit fail, which can be waited out, instead of ending the program.
pub(super) fn survive_limits() -> Result<(), Failure> {
    // The signal is caught as long as this lives; nobody needs to be told.
    std::mem::forget(listen([Signal::Xfsz])?);
    Ok(())
}

fn listen(signals: impl IntoIterator<Item = Signal>) -> Result<Signals, Failure> {
    Signals::new(signals).map_err(|error| {
        Failure::new(Exit::Usage, format!("cannot wait for signals: {}", plain(&error)))
    })
}

fn stop_at(
    mut signals: impl Stream<Item = io::Result<Signal>> + Send + Unpin + 'static,
) -> impl Future<Output = ()> {
    let (stop, stopped) = channel::bounded(1);
    start(async move {
        next(&mut signals).await;
        // The receiver may be gone.
        let _ = stop.try_send(());
        let signal = next(&mut signals).await;
        warn!("ended at once by a second signal");
        log::flush();
        // The exit code that shells show for a program ended by a signal.
        std::process::exit(128 + signal as i32);
    });
    async move {
        // If waiting for signals failed, that is not a signal.
        if stopped.recv().await.is_err() {
            pending().await
        }
    }
}

/// Waits for the next signal. If that fails, logs the error and retries: a failure must neither look like a
/// signal nor stop later signals from arriving.
async fn next(signals: &mut (impl Stream<Item = io::Result<Signal>> + Unpin)) -> Signal {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        let why = match signals.next().await {
            Some(Ok(signal)) => return signal,
            Some(Err(error)) => plain(&error),
            None => "the system reports no more signals".into(),
        };
        error!("cannot wait for signals: {why}; retrying");
        Timer::after(backoff.next_wait()).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::stream;

    use super::*;

    /// Returns whether a signal seems to have come within a time in which one is waited for again.
    fn stops(signals: Vec<io::Result<Signal>>, rest: bool) -> bool {
        let signals = stream::iter(signals);
        let signals: stream::Boxed<_> =
            if rest { signals.chain(stream::pending()).boxed() } else { signals.boxed() };
        smol::block_on(async {
            let stopped = async {
                stop_at(signals).await;
                true
            };
            let enough = async {
                Timer::after(4 * BACKOFF.0).await;
                false
            };
            stopped.or(enough).await
        })
    }

    #[test]
    fn a_failure_to_wait_for_signals_is_not_taken_for_one() {
        let failure = || Err(io::Error::other("no"));
        assert!(stops(vec![Ok(Signal::Term)], true));
        assert!(!stops(vec![failure()], true));
        assert!(!stops(vec![], false), "the end of signals is none");
        assert!(stops(vec![failure(), Ok(Signal::Term)], true), "it is waited for again");
    }
}
