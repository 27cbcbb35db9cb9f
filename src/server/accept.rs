//! Accepts connections and starts a task for each.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::{FutureExt, future};
use log::{debug, warn};
use smol::Timer;

use super::commit_queue::CommitQueue;
use super::connection::Connection;
use super::incoming::Accepting;
use super::open_connection::OpenConnection;
use super::outcome::{Outcome, report, report_refusal};
use super::rate_limited_log::Kind;
use super::shared::Shared;
use crate::net::backoff::Backoff;
use crate::net::byte_stream::{ByteStream, Peer};
use crate::net::listener::BACKLOG;
use crate::wire::io_error::Plain;

/// The shortest and longest wait after a failed accept. The connection stays in the kernel's queue
/// meanwhile.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long a new connection waits for one that gives way, which takes one poll of its task; and how often it looks
/// whether that one is active instead.
const GIVING_WAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(5));

/// How many idle connections are told to give way to one peer. One that has messages which are not committed stays, and
/// while a sink is stalled, all may. Chosen by judgement.
const MOST_ASKED: u32 = 16;

/// How many connections are accepted before other tasks get their turn.
const ACCEPTS_A_TURN: u32 = 64;

/// Accepts connections until no more follow. It never gives up: no error of `accept` means that the
/// listener is broken.
pub(crate) async fn accept(
    shared: &Arc<Shared>,
    incoming: &mut Accepting,
    queue: Option<&CommitQueue>,
) {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    let mut turn = 0_u32;
    while let Some(accepted) = incoming.next().await {
        match accepted {
            Ok((stream, peer)) => {
                backoff.reset();
                let mut waiting = Waiting(Some(stream));
                make_room(shared, &peer).await;
                if let Some(stream) = waiting.0.take() {
                    admit(shared, stream, peer, queue);
                }
            }
            // The peer left before it was accepted; there is no need to wait.
            Err(error) if is_peers_own(&error) => debug!("a peer left early: {}", Plain(&error)),
            Err(error) => {
                let why = Plain(&error);
                shared.log.say(
                    Kind::AcceptFailed,
                    format_args!("cannot accept connections: {why}; retrying"),
                );
                // If file descriptors ran out, the end of a connection frees one.
                let freed = shared.ended();
                let wait = async {
                    Timer::after(backoff.next_wait()).await;
                };
                wait.or(freed).await;
            }
        }
        turn = turn.wrapping_add(1);
        if turn.is_multiple_of(ACCEPTS_A_TURN) {
            future::yield_now().await;
        }
    }
}

/// A connection that waits for room. If it is dropped, its peer must not take the end for success.
struct Waiting(Option<ByteStream>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            stream.mark_aborted(&[]);
        }
    }
}

/// If there can be no more connections, makes an idle one give way to this peer.
async fn make_room(shared: &Shared, peer: &Peer) {
    for _ in 0..MOST_ASKED {
        if !shared.needs_room_for(peer) {
            return;
        }
        let Some(idle) = shared.evict_for(peer) else { return };
        let (started, (longest, interval)) = (Instant::now(), GIVING_WAY);
        loop {
            let ended = shared.ended();
            if !shared.is_giving_way(&idle) {
                break;
            }
            if started.elapsed() > longest {
                return;
            }
            let look_again = async {
                Timer::after(interval).await;
            };
            ended.or(look_again).await;
        }
    }
}

/// Accepts what had connected before the shutdown: those peers may have sent everything and left.
pub(crate) async fn accept_the_last(
    shared: &Arc<Shared>,
    incoming: &mut Accepting,
    queue: Option<&CommitQueue>,
) {
    for _ in 0..BACKLOG {
        match future::poll_once(incoming.next()).await.flatten() {
            Some(Ok((stream, peer))) => admit(shared, stream, peer, queue),
            Some(Err(error)) if is_peers_own(&error) => {}
            Some(Err(error)) => {
                warn!("cannot accept the last connections: {}", Plain(&error));
                return;
            }
            None => return,
        }
    }
}

fn is_peers_own(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Starts the task of a connection, which also reports its end; or refuses the connection.
fn admit(shared: &Arc<Shared>, stream: ByteStream, peer: Peer, queue: Option<&CommitQueue>) {
    let connection = match shared.add(&peer) {
        Ok(connection) => connection,
        Err(why) => {
            stream.mark_aborted(&[]);
            report_refusal(shared.log.about_peer(&peer), &peer, why);
            return;
        }
    };
    let line = format_args!("connection {} from {peer}: open", connection.number);
    shared.log.about(&connection).debug("opened", line);
    let mut serving = Connection::new(Arc::clone(shared), connection, stream, queue.cloned());
    // Moved into the task only once: each future that it passed through would reserve space for it.
    smol::spawn(async move {
        // In a program that aborts when it panics, as the small one does, nothing is caught here or elsewhere.
        let outcome = AssertUnwindSafe(serving.run()).catch_unwind().await;
        let (shared, connection) =
            (Arc::clone(serving.shared()), Arc::clone(serving.open_connection()));
        let messages = serving.received();
        end(&shared, &connection, messages, outcome.ok().as_ref());
        // A handler or a stream may panic while it is dropped; the connection must not stay counted.
        if catch_unwind(AssertUnwindSafe(|| drop(serving))).is_err() {
            end(&shared, &connection, messages, None);
        }
        shared.remove(connection.number);
    })
    .detach();
}

/// Reports the end of a connection; no `outcome` means a panic.
fn end(shared: &Shared, connection: &OpenConnection, messages: u64, outcome: Option<&Outcome>) {
    match outcome {
        Some(outcome) => report(&shared.log, connection, messages, outcome),
        None => {
            let (number, peer) = (connection.number, connection.peer());
            let line = format_args!("connection {number} from {peer}: ended by a bug in framelet");
            shared.log.about(connection).say(Kind::Bug, line);
        }
    }
}
