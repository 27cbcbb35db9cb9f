//! Tells a client how many of its messages are committed, beside the task that receives them.
//!
//! A client that takes its acknowledgements slowly, or never, holds up nothing but them: there is one
//! under way at most, and the next one says how far it has got by then.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;
use futures_lite::AsyncWrite;
use rustix::io::Errno;

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
    /// Woken when there may be something to tell.
    changed: AtomicWaker,
    line: Mutex<Line>,
}

/// The way to the client, for whoever has something to tell it.
#[derive(Debug, Default)]
struct Line {
    /// From when it is picked up to when it is hung up.
    socket: Option<(Socket, Layout)>,
    /// How many messages of the connection the client was told of last, and when; the welcome is the
    /// first time.
    told: Option<(u64, Instant)>,
    /// What the socket has not taken yet of an answer.
    rest: Vec<u8>,
    /// Why it takes no more, which a socket says only once.
    failed: Option<io::Error>,
}

impl Acked {
    pub(crate) fn new(sender: SenderId, before: u64) -> Acked {
        Acked {
            sender,
            before,
            received: AtomicU64::new(0),
            complete: AtomicBool::new(false),
            refusal: OnceLock::new(),
            changed: AtomicWaker::new(),
            line: Mutex::default(),
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

    /// Returns whether the client waits for what it has sent to be committed: that may not be read yet, for
    /// want of memory, or be under way for long.
    pub(crate) fn waits(&self, origin: &Origin) -> bool {
        !self.is_all_committed(origin) || origin.watch.phase() != Phase::Idle
    }

    /// Returns whether all messages that have come are committed.
    pub(crate) fn is_all_committed(&self, origin: &Origin) -> bool {
        origin.committed() >= self.received.load(Ordering::SeqCst)
    }

    /// Returns whether an answer is under way that the socket has not taken.
    pub(crate) fn has_unsent(&self) -> bool {
        self.line.try_lock().is_ok_and(|line| !line.rest.is_empty())
    }

    /// Sees to it that the client is told what there is to tell.
    pub(crate) fn changed(&self) {
        self.changed.wake();
    }

    /// Tells the client here and now that so many messages of its connection are committed, if its
    /// socket takes that at once, and leaves it to [`acknowledge`] otherwise. That spares a client that
    /// waits for a single message the way through another thread.
    pub(crate) fn tell_at_once(&self, committed: u64) {
        let told = self.line.try_lock().is_ok_and(|mut line| match line.told {
            Some((told, _)) if told >= committed => true,
            Some(_) if line.rest.is_empty() => {
                line.begin(self.before, committed) && line.try_finish()
            }
            _ => false,
        });
        if !told {
            self.changed();
        }
    }

    /// Says where the client is told. To be called once, and then [`acknowledge`].
    pub(crate) fn pick_up(&self, socket: Socket, layout: Layout) {
        self.line().socket = Some((socket, layout));
    }

    /// Sees to it that the client is told nothing more, whoever would, but a [last word](Self::last_word).
    pub(crate) fn hang_up(&self) {
        self.line().socket = None;
    }

    /// Returns what to send to a client that is to hear `answer` and nothing more: first the rest of
    /// the answer that was under way.
    pub(crate) fn last_word(&self, answer: Vec<u8>) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.line().rest);
        rest.extend(answer);
        rest
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Begins to say that so many messages of the connection are committed, and returns whether there
    /// is somebody to say it to.
    fn begin(&mut self, before: u64, committed: u64) -> bool {
        let Some((_, layout)) = &self.socket else { return false };
        self.rest = frame(*layout, &Answer::Acknowledgement(before.saturating_add(committed)));
        self.told = Some((committed, Instant::now()));
        true
    }

    /// Returns whether the socket has taken the answer.
    fn try_finish(&mut self) -> bool {
        let Some((socket, _)) = &self.socket else { return false };
        while !self.rest.is_empty() {
            let written = socket.try_write(&self.rest);
            match sent(&mut self.rest, written) {
                Ok(Next::Again) => {}
                Ok(Next::Later) => break,
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        self.rest.is_empty()
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        while let (Some((socket, _)), false) = (&mut self.socket, self.rest.is_empty()) {
            let written = ready!(Pin::new(socket).poll_write(cx, &self.rest));
            match sent(&mut self.rest, written)? {
                Next::Again => {}
                // The sweep finds what is not sent.
                Next::Later => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// When to send more of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Again,
    /// When the socket can take something, or the system has memory.
    Later,
}

/// Notes how much of the `rest` of an answer a socket has taken.
///
/// # Errors
///
/// Why it will not take any more.
fn sent(rest: &mut Vec<u8>, written: io::Result<usize>) -> io::Result<Next> {
    match written {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(written) => {
            rest.drain(..written);
            Ok(Next::Again)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Next::Again),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Next::Later),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOBUFS | Errno::NOMEM) => Ok(Next::Later),
            _ => Err(error),
        },
    }
}

/// Tells the client of `origin`, if it asked for it, how many of its messages are committed, whenever
/// there are more, until all that have come are and no more will come. The welcome is the first one.
///
/// # Errors
///
/// The system's; then the client learns nothing more over this connection. Errors that pass are waited out.
pub(crate) async fn acknowledge(origin: Arc<Origin>) -> io::Result<()> {
    let Some(acked) = origin.acked() else { return Ok(()) };
    poll_fn(|cx| poll_tell(cx, &origin, acked)).await
}

fn poll_tell(cx: &mut Context<'_>, origin: &Origin, acked: &Acked) -> Poll<io::Result<()>> {
    // Before looking: what changes from here on is a reason to look again.
    acked.changed.register(cx.waker());
    let mut line = acked.line();
    loop {
        ready!(line.poll_finish(cx))?;
        let complete = acked.complete.load(Ordering::SeqCst);
        let received = acked.received.load(Ordering::SeqCst);
        let committed = origin.committed();
        let goes_on = match line.told {
            // The welcome says where this connection begins, whatever has come by now.
            None => line.begin(acked.before, 0),
            Some((told, when))
                if told != committed || acked.waits(origin) && when.elapsed() >= REPEATED =>
            {
                line.begin(acked.before, committed)
            }
            Some(_) if complete && committed >= received => false,
            Some(_) => return Poll::Pending,
        };
        if !goes_on {
            return Poll::Ready(Ok(()));
        }
    }
}

/// Returns an answer as it travels.
pub(crate) fn frame(layout: Layout, answer: &Answer) -> Vec<u8> {
    let mut frame = Vec::new();
    // Cannot fail: there is no hello in a layout in which an answer would be too long.
    let _ = append_frame(&mut frame, layout, LONGEST_ANSWER, &answer.encode());
    frame
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::TcpListener;
    use std::sync::Barrier;
    use std::task::{Wake, Waker};

    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::sink::tests::{batch, origin};
    use crate::sink::{Batch, Sink, SinkError, Writer};

    const BEFORE: u64 = 5;

    type Task = Pin<Box<dyn Future<Output = io::Result<()>>>>;

    /// Whether a task was woken.
    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// Returns a connection whose client has been told nothing yet, and the client's end of it.
    fn connection() -> (Arc<Origin>, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = block_on(async_net::TcpStream::connect(address)).unwrap();
        let origin = origin(Some((SenderId::from_bytes([1; 16]), BEFORE)));
        origin.acked().unwrap().pick_up(socket.into(), Layout::U32BE);
        let client = listener.accept().unwrap().0;
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (origin, client)
    }

    /// The same once the client has its welcome, with the task that tells it.
    fn welcomed() -> (Arc<Origin>, std::net::TcpStream, Task) {
        let (origin, mut client) = connection();
        let mut task = Box::pin(acknowledge(Arc::clone(&origin)));
        assert!(block_on(poll_once(&mut task)).is_none());
        assert_hears(&mut client, &answer(BEFORE));
        (origin, client, task)
    }

    fn answer(committed: u64) -> Vec<u8> {
        frame(Layout::U32BE, &Answer::Acknowledgement(committed))
    }

    fn assert_hears(client: &mut std::net::TcpStream, expected: &[u8]) {
        let mut heard = vec![0; expected.len()];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(heard, expected);
    }

    fn assert_hears_nothing(client: &mut std::net::TcpStream) {
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        client.set_nonblocking(false).unwrap();
    }

    #[test]
    fn who_waits_alone_is_told_by_the_one_who_commits_but_not_before_the_welcome() {
        let (origin, mut client) = connection();
        let mut task = Box::pin(acknowledge(Arc::clone(&origin)));
        origin.commit(1, true);
        assert_hears_nothing(&mut client);
        assert!(block_on(poll_once(&mut task)).is_none());
        assert_hears(&mut client, &[answer(BEFORE), answer(BEFORE + 1)].concat());
        origin.commit(2, true);
        assert_hears(&mut client, &answer(BEFORE + 3));
        // The task may have been quicker.
        origin.acked().unwrap().tell_at_once(3);
        assert_hears_nothing(&mut client);
        origin.commit(1, false);
        assert_hears_nothing(&mut client);
        assert!(block_on(poll_once(&mut task)).is_none());
        assert_hears(&mut client, &answer(BEFORE + 4));
    }

    #[test]
    fn who_waits_alone_is_told_by_the_sinks_thread_and_of_many_each_by_its_task() {
        /// A sink that waits in its first commit.
        struct Waits(Arc<Barrier>, bool);

        impl Sink for Waits {
            fn commit(&mut self, _: &[Batch]) -> Result<(), SinkError> {
                if !std::mem::replace(&mut self.1, true) {
                    self.0.wait();
                    self.0.wait();
                }
                Ok(())
            }
        }

        let barrier = Arc::new(Barrier::new(2));
        let mut writer = Writer::start(Box::new(Waits(Arc::clone(&barrier), false))).unwrap();
        let (alone, mut client, _task) = welcomed();
        let (among_others, mut client_among_others, mut task) = welcomed();
        assert!(writer.queue().send(batch(&alone, &[b"a"])).is_none());
        barrier.wait();
        for origin in [&among_others, &origin(None)] {
            assert!(writer.queue().send(batch(origin, &[b"a"])).is_none());
        }
        barrier.wait();
        block_on(writer.finish()).unwrap();
        assert_hears(&mut client, &answer(BEFORE + 1));
        assert_hears_nothing(&mut client_among_others);
        assert!(block_on(poll_once(&mut task)).is_none());
        assert_hears(&mut client_among_others, &answer(BEFORE + 1));
    }

    #[test]
    fn a_client_waits_while_something_of_its_is_under_way_or_not_committed() {
        let origin = origin(Some((SenderId::from_bytes([1; 16]), BEFORE)));
        let acked = origin.acked().unwrap();
        for (phase, received, waits) in [
            (Phase::Idle, 0, false),
            (Phase::InMessage, 0, true),
            // There is no memory to read more.
            (Phase::Busy, 0, true),
            (Phase::Idle, 2, true),
        ] {
            origin.watch.enter(phase, 0);
            acked.received(received);
            assert_eq!(acked.waits(&origin), waits, "{phase:?}");
        }
        origin.commit(2, false);
        assert!(!acked.waits(&origin));
    }

    #[test]
    fn an_answer_goes_on_where_the_socket_stopped_taking_it() {
        let (origin, mut client, mut task) = welcomed();
        let acked = origin.acked().unwrap();
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        assert!(task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        acked.line().rest = b"rest".into();
        origin.commit(1, true);
        assert_hears_nothing(&mut client);
        assert!(woken.0.load(Ordering::SeqCst));
        assert!(block_on(poll_once(&mut task)).is_none());
        assert_hears(&mut client, &[b"rest".into(), answer(BEFORE + 1)].concat());

        // A full socket takes nothing, and its task goes on once it does.
        let line = acked.line().socket.clone().unwrap().0;
        let mut filled = 0;
        while let Ok(written) = line.try_write(&[0; 65_536]) {
            filled += written;
        }
        origin.commit(1, true);
        origin.commit(1, true);
        acked.received(3);
        acked.complete();
        let client = std::thread::spawn(move || {
            assert_hears(&mut client, &vec![0; filled]);
            assert_hears(&mut client, &[answer(BEFORE + 2), answer(BEFORE + 3)].concat());
        });
        block_on(task).unwrap();
        client.join().unwrap();
    }

    #[test]
    fn an_error_that_passes_leaves_the_answer_to_be_sent_again() {
        let (origin, mut client, mut task) = welcomed();
        let mut rest = b"rest".to_vec();
        for (errno, next) in [
            (Errno::INTR, Next::Again),
            (Errno::AGAIN, Next::Later),
            (Errno::NOBUFS, Next::Later),
            (Errno::NOMEM, Next::Later),
        ] {
            assert_eq!(sent(&mut rest, Err(errno.into())).unwrap(), next, "{errno}");
        }
        assert_eq!(rest, b"rest");
        for errno in [Errno::CONNRESET, Errno::PIPE, Errno::IO] {
            assert!(sent(&mut rest, Err(errno.into())).is_err(), "{errno}");
        }
        // The sweep finds it, though there is nothing else that the client waits for.
        origin.watch.enter(Phase::Idle, 0);
        let acked = origin.acked().unwrap();
        assert!(!acked.waits(&origin) && !acked.has_unsent());
        acked.line().rest = rest;
        assert!(!acked.waits(&origin) && acked.has_unsent());
        acked.changed();
        assert!(block_on(poll_once(&mut task)).is_none());
        assert_hears(&mut client, b"rest");
        assert!(!acked.has_unsent());
    }

    #[test]
    fn who_has_hung_up_is_told_nothing_more() {
        let (origin, mut client, _task) = welcomed();
        let acked = origin.acked().unwrap();
        acked.line().rest = b"rest".into();
        acked.hang_up();
        origin.commit(1, true);
        assert_eq!(acked.last_word(b" and the end".into()), b"rest and the end");
        assert_eq!(acked.last_word(b"once".into()), b"once");
        // Nobody else holds the socket.
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn why_a_socket_takes_no_more_is_known_whoever_was_told() {
        let (origin, client) = connection();
        let mut task = Box::pin(acknowledge(Arc::clone(&origin)));
        assert!(block_on(poll_once(&mut task)).is_none());
        // What was not read turns this end into a reset.
        drop(client);
        origin.commit(1, true);
        assert_eq!(block_on(task).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
