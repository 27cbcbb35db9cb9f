//! The life of a server, from its first connection to a graceful shutdown.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::{FutureExt, future};
use log::{info, warn};
use smol::Timer;

use super::accept::{accept, accept_the_last};
use super::connection_state::Signal;
use super::deadlines::DeadlineSweeper;
use super::error::ServeError;
use super::figures::Figures;
use super::incoming::Incoming;
use super::reopen::Reopen;
use super::server::Server;
use super::shared::Shared;
use super::writer_thread::WriterThread;
use crate::sink::message_sink::MessageSink;
use crate::wire::count::Count;

/// The last part of the grace period, one in this many, belongs to the sink: connections are cut off
/// before.
const GRACE_FOR_SINK: u32 = 5;

/// The share of the grace period in which a stream that cannot say how much had arrived, such as TLS, is read
/// as long as it never waits: one half.
const GRACE_FOR_READING: u32 = 2;

/// How long connections that are cut off may take to end. They need one poll, or as long as a refused
/// client takes to read the reason.
const CUTTING_OFF: Duration = Duration::from_secs(1);

/// What a server did, returned at its end.
///
/// # Examples
///
/// ```
/// use framelet::net::Peer;
/// use framelet::Server;
/// use futures_lite::{future, io::Cursor, stream};
///
/// # future::block_on(async {
/// let streams = stream::once(Ok((Cursor::new(b"\0\0\0\x02hi".to_vec()), Peer::Unix)));
/// let summary = Server::accept_from(streams).run(future::pending()).await?;
/// assert_eq!((summary.messages, summary.connections, summary.cut), (1, 1, 0));
/// # Ok::<(), framelet::server::ServeError>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// How many messages it has received.
    pub messages: u64,
    /// How many connections it has served.
    pub connections: u64,
    /// How many connections were cut off near the end of the grace period.
    pub cut: usize,
}

impl Server {
    /// Serves until `shutdown` is ready, and then shuts down gracefully. It accepts no more connections,
    /// reads everything that had arrived (of a stream that is not a socket: until a read waits, for at most
    /// half of the grace period), gives incomplete messages until near the end of the grace period,
    /// and waits until the sink has committed everything.
    ///
    /// # Errors
    ///
    /// [`ServeError`]: at the start if the options are inconsistent, later if the sink fails. An error of a
    /// connection ends only that connection, and is logged with the [`log`] crate.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the server stops accepting and cuts off its connections.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Summary, ServeError> {
        let Server { incoming, sink, options } = self;
        let shared = Arc::new(Shared::new(options)?);
        let _cut_off = CutOffOnDrop(Arc::clone(&shared));
        let result = serve(incoming, sink, &shared, shutdown).await;
        shared.log.finish();
        result
    }
}

/// Serves until the shutdown, and through it.
async fn serve(
    incoming: Incoming,
    sink: Option<Box<dyn MessageSink>>,
    shared: &Arc<Shared>,
    shutdown: impl Future<Output = ()>,
) -> Result<Summary, ServeError> {
    let options = &shared.options;
    let mut writer = sink.map(WriterThread::start).transpose().map_err(ServeError::Start)?;
    let queue = writer.as_ref().map(WriterThread::queue);
    let _watching = {
        let (shared, counts) = (Arc::clone(shared), writer.as_ref().map(WriterThread::counts));
        options.monitor.watch(move || {
            let sink = counts.as_ref().map(|counts| counts.figures());
            Figures { sink, ..shared.figures() }
        })
    };
    let _sweeper = DeadlineSweeper::start(shared).map_err(ServeError::Start)?;
    let mut incoming = incoming.accept().map_err(ServeError::Start)?;

    let told_to_stop = async {
        shutdown.await;
        Ok(())
    };
    let served = async {
        accept(shared, &mut incoming, queue.as_ref()).await;
        shared.all_ended(None).await;
        Ok(())
    };
    let stopped = told_to_stop
        .or(async { Err(sink_failure(writer.as_ref()).await) })
        .or(pass_on(&options.reopen, writer.as_ref()))
        .or(served)
        .await;
    let deadline = Instant::now().checked_add(options.grace);
    if stopped.is_ok() {
        accept_the_last(shared, &mut incoming, queue.as_ref()).await;
    }
    drop((incoming, queue));

    let drained = match stopped {
        Ok(()) => {
            let drain = async { Ok(drain(shared, options.grace).await) };
            drain.or(async { Err(sink_failure(writer.as_ref()).await) }).await
        }
        Err(error) => Err(error),
    };
    let cut = match drained {
        Ok(cut) => cut,
        Err(error) => {
            shared.signal_all(Signal::SinkFailed);
            shared.all_ended(Some(CUTTING_OFF)).await;
            let uncommitted = writer.as_ref().map_or(0, WriterThread::uncommitted);
            return Err(ServeError::Sink { error, uncommitted });
        }
    };
    if let Some(writer) = &mut writer {
        finish(writer, deadline).await?;
    }
    let (connections, messages) = shared.totals();
    Ok(Summary { messages, connections, cut })
}

/// Waits until the sink has committed everything, at most until `deadline`.
async fn finish(writer: &mut WriterThread, deadline: Option<Instant>) -> Result<(), ServeError> {
    let in_time = async {
        deadline.map_or_else(Timer::never, Timer::at).await;
        Ok(())
    };
    let finished = writer.finish().or(in_time).await;
    match (finished, writer.uncommitted()) {
        (Err(error), uncommitted) => Err(ServeError::Sink { error, uncommitted }),
        (Ok(()), 0) => Ok(()),
        (Ok(()), uncommitted) => {
            Err(ServeError::Unfinished { uncommitted, trouble: writer.trouble() })
        }
    }
}

/// Lets the connections end. Cuts off those that are left near the end of the grace period, and returns how
/// many that were.
async fn drain(shared: &Shared, grace: Duration) -> usize {
    let open = shared.drain();
    if open > 0 {
        info!(event = "stopping"; "ending {}", Count(open as u64, "connection"));
    }
    let reading = grace / GRACE_FOR_READING;
    if shared.all_ended(Some(reading)).await > 0 {
        shared.call_last();
    }
    let cut = shared.all_ended(Some(grace - grace / GRACE_FOR_SINK - reading)).await;
    if cut > 0 {
        let connections = Count(cut as u64, "connection");
        warn!(target: "framelet::grace", event = "aborted"; "cutting off {connections} that did not end in time");
        shared.signal_all(Signal::Abort);
        shared.all_ended(Some(CUTTING_OFF)).await;
    }
    cut
}

async fn sink_failure(writer: Option<&WriterThread>) -> io::Error {
    match writer {
        Some(writer) => writer.failed().await,
        None => future::pending().await,
    }
}

/// Passes each request to reopen on to the sink.
async fn pass_on<T>(reopen: &Reopen, writer: Option<&WriterThread>) -> T {
    let Some(writer) = writer else { return future::pending().await };
    loop {
        reopen.asked().await;
        // The order may have to wait for its place in the queue. If another request arrives meanwhile, it
        // is passed on directly, since reopening may be what frees the sink.
        let again = async {
            loop {
                reopen.asked().await;
                writer.reopen_in_trouble();
            }
        };
        writer.reopen(reopen).or(again).await;
    }
}

/// Cuts off all open connections when dropped.
struct CutOffOnDrop(Arc<Shared>);

impl Drop for CutOffOnDrop {
    fn drop(&mut self) {
        self.0.signal_all(Signal::Abort);
    }
}
