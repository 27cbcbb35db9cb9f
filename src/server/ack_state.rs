//! How far a client that asked for acknowledgements has come, and the way to tell it.
//!
//! A client that takes its acknowledgements slowly, or never, holds up nothing but them: at most one is
//! under way, and the next one says how far the client has come by then.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;
use futures_lite::AsyncWrite;
use rustix::io::Errno;

use super::connection_state::Phase;
use crate::net::byte_stream::ByteStream;
use crate::wire::ack::Answer;
use crate::wire::layout::Layout;

/// How often a waiting client hears something.
pub(crate) const REPEATED: Duration = Duration::from_secs(3);

/// What is shared about a connection whose client asked for acknowledgements.
#[derive(Debug)]
pub(crate) struct AckState {
    /// How many messages of the sender were committed before the first one on this connection.
    pub(crate) before: u64,
    /// How many messages have come over this connection.
    received: AtomicU64,
    /// Whether no more will come.
    complete: AtomicBool,
    /// Woken when there may be something to tell.
    changed: AtomicWaker,
    channel: Mutex<AckChannel>,
}

/// The way to the client. The writer thread and the connection's [`AckSession`](super::ack_session::AckSession)
/// both use it, one at a time.
#[derive(Debug, Default)]
struct AckChannel {
    /// From when it is attached until it is detached.
    stream: Option<(ByteStream, Layout)>,
    /// What the welcome says of the last message before this connection, if the client asked for that.
    checksum: Option<u64>,
    /// How many messages of the connection the client was last told of, and when; the first time is the
    /// welcome.
    told: Option<(u64, Instant)>,
    /// What the stream has not yet taken of an answer.
    rest: Vec<u8>,
    /// Whether the stream may keep some of what it has taken.
    unflushed: bool,
    /// Why it takes no more, which a socket says only once.
    failed: Option<io::Error>,
}

/// How far a connection is, when it is time to look.
pub(crate) struct Progress {
    /// How many of its messages are committed.
    pub(crate) committed: u64,
    pub(crate) phase: Phase,
}

impl AckState {
    pub(crate) fn new(before: u64) -> AckState {
        AckState {
            before,
            received: AtomicU64::new(0),
            complete: AtomicBool::new(false),
            changed: AtomicWaker::new(),
            channel: Mutex::default(),
        }
    }

    /// Notes how many messages have come.
    pub(crate) fn set_received(&self, messages: u64) {
        self.received.store(messages, Ordering::SeqCst);
    }

    /// Notes that no more will come: when the last one is acknowledged, that is all.
    pub(crate) fn complete(&self) {
        self.complete.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Returns whether the client waits for what it has sent to be committed. That may not have been read
    /// yet, for want of memory, or be under way for long.
    pub(crate) fn is_waiting(&self, progress: &Progress) -> bool {
        !self.is_all_committed(progress.committed) || progress.phase != Phase::Idle
    }

    /// Returns whether all messages that have come are committed.
    pub(crate) fn is_all_committed(&self, committed: u64) -> bool {
        committed >= self.received.load(Ordering::SeqCst)
    }

    /// Returns whether an answer is under way that the stream has not taken.
    pub(crate) fn has_unsent(&self) -> bool {
        self.channel.try_lock().is_ok_and(|channel| !channel.rest.is_empty())
    }

    /// Wakes the task that tells the client what there is to tell.
    pub(crate) fn wake(&self) {
        self.changed.wake();
    }

    /// Tells the client here and now that so many messages of its connection are committed, if its
    /// stream takes that at once, and leaves it to the task otherwise. That spares a client that waits for
    /// a single message the way through another thread.
    pub(crate) fn tell_at_once(&self, committed: u64) {
        let told = self.channel.try_lock().is_ok_and(|mut channel| match channel.told {
            Some((told, _)) if told >= committed => true,
            Some(_) if channel.rest.is_empty() => {
                channel.begin(self.before, committed) && channel.try_finish()
            }
            _ => false,
        });
        if !told {
            self.wake();
        }
    }

    /// Says where the client is told, and the checksum that it asked for, if it is known. To be called
    /// once, and then [`AckState::poll_tell`].
    pub(crate) fn attach(&self, stream: ByteStream, layout: Layout, checksum: Option<u64>) {
        let mut channel = self.channel();
        (channel.stream, channel.checksum) = (Some((stream, layout)), checksum);
    }

    /// Stops all further acknowledgements; only what [`AckState::take_unsent`] returns may still be sent.
    pub(crate) fn detach(&self) {
        self.channel().stream = None;
    }

    /// Takes what the stream has not taken of an answer.
    pub(crate) fn take_unsent(&self) -> Vec<u8> {
        std::mem::take(&mut self.channel().rest)
    }

    /// Tells the client how many of its messages are committed, whenever there are more, until all that
    /// have come are and no more will come. The first time is the welcome.
    ///
    /// # Errors
    ///
    /// Any error of the stream; then the client learns nothing more over this connection. Errors that pass
    /// are waited out.
    pub(crate) fn poll_tell(
        &self,
        cx: &mut Context<'_>,
        progress: impl Fn() -> Progress,
    ) -> Poll<io::Result<()>> {
        // Before looking: what changes from here on is a reason to look again.
        self.changed.register(cx.waker());
        let mut channel = self.channel();
        loop {
            ready!(channel.poll_finish(cx))?;
            let complete = self.complete.load(Ordering::SeqCst);
            let progress = progress();
            let committed = progress.committed;
            let begun = match channel.told {
                // The welcome says where this connection begins, whatever has come by now.
                None => channel.begin(self.before, 0),
                Some((told, when))
                    if told != committed
                        || self.is_waiting(&progress) && when.elapsed() >= REPEATED =>
                {
                    channel.begin(self.before, committed)
                }
                Some(_) if complete && self.is_all_committed(committed) => false,
                Some(_) => return Poll::Pending,
            };
            if !begun {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn channel(&self) -> MutexGuard<'_, AckChannel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AckChannel {
    /// Begins to say that so many messages of the connection are committed. Returns whether there is
    /// anybody to say it to.
    fn begin(&mut self, before: u64, committed: u64) -> bool {
        let Some((_, layout)) = &self.stream else { return false };
        let answer = match self.checksum.take() {
            Some(checksum) => Answer::Welcome { committed: before, checksum },
            None => Answer::Acknowledgement(before.saturating_add(committed)),
        };
        self.rest = answer.frame(*layout);
        self.told = Some((committed, Instant::now()));
        true
    }

    /// Returns whether the stream has taken the answer.
    fn try_finish(&mut self) -> bool {
        let Some((stream, _)) = &self.stream else { return false };
        while !self.rest.is_empty() {
            let written = stream.try_write(&self.rest);
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
        while let (Some((stream, _)), false) = (&mut self.stream, self.rest.is_empty()) {
            let written = ready!(Pin::new(stream).poll_write(cx, &self.rest));
            self.unflushed = true;
            match sent(&mut self.rest, written)? {
                Next::Again => {}
                // The sweep finds what is not sent.
                Next::Later => return Poll::Pending,
            }
        }
        if let (Some((stream, _)), true) = (&mut self.stream, self.unflushed) {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// When to send more of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Again,
    /// When the stream can take something, or the system has memory.
    Later,
}

/// Notes how much of the `rest` of an answer a stream has taken.
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{ErrorKind, Read};
    use std::net::TcpListener;
    use std::sync::{Arc, Barrier};
    use std::task::{Wake, Waker};

    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::message::Batch;
    use crate::message::tests::{batch, origin};
    use crate::net::byte_stream::Peer;
    use crate::server::open_connection::OpenConnection;
    use crate::server::writer_thread::WriterThread;
    use crate::sink::message_sink::{MessageSink, SinkError};

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
    fn acknowledged() -> Arc<OpenConnection> {
        let connection = OpenConnection::new(1, Peer::Unix);
        connection.acknowledge_from(BEFORE);
        Arc::new(connection)
    }

    async fn tell(connection: Arc<OpenConnection>) -> io::Result<()> {
        let acks = connection.acks().unwrap();
        poll_fn(|cx| acks.poll_tell(cx, || connection.progress())).await
    }

    fn connection() -> (Arc<OpenConnection>, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = block_on(async_net::TcpStream::connect(address)).unwrap();
        let connection = acknowledged();
        connection.acks().unwrap().attach(socket.into(), Layout::U32BE, None);
        let client = listener.accept().unwrap().0;
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (connection, client)
    }

    /// The same once the client has its welcome, with the task that tells it.
    fn welcomed() -> (Arc<OpenConnection>, std::net::TcpStream, Task) {
        let (connection, mut client) = connection();
        let mut task = Box::pin(tell(Arc::clone(&connection)));
        assert!(block_on(poll_once(&mut task)).is_none());
        assert_hears(&mut client, &answer(BEFORE));
        (connection, client, task)
    }

    fn answer(committed: u64) -> Vec<u8> {
        Answer::Acknowledgement(committed).frame(Layout::U32BE)
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
        let (connection, mut client) = connection();
        let mut task = Box::pin(tell(Arc::clone(&connection)));
        connection.commit(1, true);
        assert_hears_nothing(&mut client);
        assert!(block_on(poll_once(&mut task)).is_none());
        assert_hears(&mut client, &[answer(BEFORE), answer(BEFORE + 1)].concat());
        connection.commit(2, true);
        assert_hears(&mut client, &answer(BEFORE + 3));
        // The task may have been quicker.
        connection.acks().unwrap().tell_at_once(3);
        assert_hears_nothing(&mut client);
        connection.commit(1, false);
        assert_hears_nothing(&mut client);
        assert!(block_on(poll_once(&mut task)).is_none());
        assert_hears(&mut client, &answer(BEFORE + 4));
    }

    #[test]
    fn who_waits_alone_is_told_by_the_sinks_thread_and_of_many_each_by_its_task() {
        /// A sink that waits in its first commit.
        struct Waits(Arc<Barrier>, bool);

        impl MessageSink for Waits {
            fn commit(&mut self, _: &[Batch]) -> Result<(), SinkError> {
                if !std::mem::replace(&mut self.1, true) {
                    self.0.wait();
                    self.0.wait();
                }
                Ok(())
            }
        }

        let queue = |writer: &WriterThread, connection| {
            writer.queue().send(batch(&origin(None), &[b"a"]), connection).is_none()
        };
        let barrier = Arc::new(Barrier::new(2));
        let mut writer = WriterThread::start(Box::new(Waits(Arc::clone(&barrier), false))).unwrap();
        let (alone, mut client, _task) = welcomed();
        let (among_others, mut client_among_others, mut task) = welcomed();
        assert!(queue(&writer, &alone));
        barrier.wait();
        let plain = Arc::new(OpenConnection::new(2, Peer::Unix));
        for connection in [&among_others, &plain] {
            assert!(queue(&writer, connection));
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
        let connection = acknowledged();
        let acks = connection.acks().unwrap();
        for (phase, received, waits) in [
            (Phase::Idle, 0, false),
            (Phase::InMessage, 0, true),
            // There is no memory to read more.
            (Phase::Busy, 0, true),
            (Phase::Idle, 2, true),
        ] {
            connection.state.enter(phase, 0);
            acks.set_received(received);
            assert_eq!(acks.is_waiting(&connection.progress()), waits, "{phase:?}");
        }
        connection.commit(2, false);
        assert!(!acks.is_waiting(&connection.progress()));
    }

    #[test]
    fn an_answer_goes_on_where_the_socket_stopped_taking_it() {
        let (connection, mut client, mut task) = welcomed();
        let acks = connection.acks().unwrap();
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        assert!(task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        acks.channel().rest = b"rest".into();
        connection.commit(1, true);
        assert_hears_nothing(&mut client);
        assert!(woken.0.load(Ordering::SeqCst));
        assert!(block_on(poll_once(&mut task)).is_none());
        assert_hears(&mut client, &[b"rest".into(), answer(BEFORE + 1)].concat());

        // A full socket takes nothing, and its task goes on once it does.
        let line = acks.channel().stream.clone().unwrap().0;
        let mut filled = 0;
        while let Ok(written) = line.try_write(&[0; 65_536]) {
            filled += written;
        }
        connection.commit(1, true);
        connection.commit(1, true);
        acks.set_received(3);
        acks.complete();
        let client = std::thread::spawn(move || {
            assert_hears(&mut client, &vec![0; filled]);
            assert_hears(&mut client, &[answer(BEFORE + 2), answer(BEFORE + 3)].concat());
        });
        block_on(task).unwrap();
        client.join().unwrap();
    }

    #[test]
    fn an_error_that_passes_leaves_the_answer_to_be_sent_again() {
        let (connection, mut client, mut task) = welcomed();
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
        connection.state.enter(Phase::Idle, 0);
        let acks = connection.acks().unwrap();
        assert!(!acks.is_waiting(&connection.progress()) && !acks.has_unsent());
        acks.channel().rest = rest;
        assert!(!acks.is_waiting(&connection.progress()) && acks.has_unsent());
        acks.wake();
        assert!(block_on(poll_once(&mut task)).is_none());
        assert_hears(&mut client, b"rest");
        assert!(!acks.has_unsent());
    }

    #[test]
    fn who_has_hung_up_is_told_nothing_more() {
        let (connection, mut client, _task) = welcomed();
        let acks = connection.acks().unwrap();
        acks.channel().rest = b"rest".into();
        acks.detach();
        connection.commit(1, true);
        assert_eq!(acks.take_unsent(), b"rest");
        assert_eq!(acks.take_unsent(), b"");
        // Nobody else holds the socket.
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn why_a_socket_takes_no_more_is_known_whoever_was_told() {
        let (connection, client) = connection();
        let mut task = Box::pin(tell(Arc::clone(&connection)));
        assert!(block_on(poll_once(&mut task)).is_none());
        // What was not read turns this end into a reset.
        drop(client);
        connection.commit(1, true);
        assert_eq!(block_on(task).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
