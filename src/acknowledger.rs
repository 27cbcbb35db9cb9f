//! Tells a client how many of its messages are committed, beside the task that receives them.
//!
//! A client that takes its acknowledgements slowly, or never, holds up nothing but them: there is one
//! under way at most, and the next one says how far it has got by then.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use event_listener::Event;
use futures_lite::AsyncWriteExt;

use crate::acks::{Answer, LONGEST_ANSWER, RefusalCode};
use crate::layout::Layout;
use crate::net::Socket;
use crate::sender::SenderId;
use crate::sink::Origin;
use crate::watch::Phase;
use crate::writer::append_frame;

/// How often a client hears something while it waits.
pub(crate) const REPEATED: Duration = Duration::from_secs(3);

/// What is shared about a connection whose client asked for acknowledgements.
#[derive(Debug)]
pub(crate) struct Acked {
    pub(crate) sender: SenderId,
    /// How many messages of the sender were committed before the first one on this connection.
    pub(crate) before: u64,
    /// How many messages have come over this connection.
    received: AtomicU64,
    /// Whether no more will come.
    complete: AtomicBool,
    /// Why the sink takes nothing more of it, if that is so.
    pub(crate) refusal: OnceLock<RefusalCode>,
    /// Notified when there may be something to tell.
    changed: Event,
}

impl Acked {
    pub(crate) fn new(sender: SenderId, before: u64) -> Acked {
        Acked {
            sender,
            before,
            received: AtomicU64::new(0),
            complete: AtomicBool::new(false),
            refusal: OnceLock::new(),
            changed: Event::new(),
        }
    }

    /// Notes how many messages have come.
    pub(crate) fn received(&self, messages: u64) {
        self.received.store(messages, Ordering::SeqCst);
    }

    /// Notes that no more will come: when the last one is acknowledged, that is all.
    pub(crate) fn complete(&self) {
        self.complete.store(true, Ordering::SeqCst);
        self.changed();
    }

    /// Sees to it that the client is told what there is to tell.
    pub(crate) fn changed(&self) {
        self.changed.notify(usize::MAX);
    }
}

/// Tells the client of `origin`, if it asked for it, how many of its messages are committed, whenever there are more, until
/// all that have come are and no more will come. The welcome is the first one.
///
/// # Errors
///
/// The system's; then the connection is broken, which whoever reads from it is told, too.
pub(crate) async fn acknowledge(
    origin: Arc<Origin>,
    mut socket: Socket,
    layout: Layout,
) -> io::Result<()> {
    let Some(acked) = origin.acked() else { return Ok(()) };
    // The welcome says where this connection begins, whatever has come by now.
    let (mut told, mut when) = (0, Instant::now());
    tell(&mut socket, layout, acked.before).await?;
    loop {
        let changed = acked.changed.listen();
        let complete = acked.complete.load(Ordering::SeqCst);
        let received = acked.received.load(Ordering::SeqCst);
        let committed = origin.committed();
        // What the client has sent may be under way for long, or not be read for want of memory.
        let waits = committed < received || origin.watch.phase().0 != Phase::Idle;
        let waits = waits && when.elapsed() >= REPEATED;
        if told != committed || waits {
            tell(&mut socket, layout, acked.before.saturating_add(committed)).await?;
            (told, when) = (committed, Instant::now());
        } else if complete && committed >= received {
            return Ok(());
        } else {
            changed.await;
        }
    }
}

async fn tell(socket: &mut Socket, layout: Layout, committed: u64) -> io::Result<()> {
    socket.write_all(&frame(layout, &Answer::Acknowledgement(committed))).await
}

/// Returns an answer as it travels.
pub(crate) fn frame(layout: Layout, answer: &Answer) -> Vec<u8> {
    let mut frame = Vec::new();
    // Cannot fail: there is no hello in a layout in which an answer would be too long.
    let _ = append_frame(&mut frame, layout, LONGEST_ANSWER, &answer.encode());
    frame
}
