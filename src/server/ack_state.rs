//! How many messages of a client are received and acknowledged, and the channel for acknowledgements.
//!
//! A client that reads its acknowledgements slowly, or never, delays nothing else: at most one is being
//! sent, and the next one carries the latest count.

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
use crate::wire::answer::Answer;
use crate::wire::layout::Layout;

/// How often a waiting client is sent something.
pub(crate) const REPEATED: Duration = Duration::from_secs(3);

/// The shared state of a connection whose client asked for acknowledgements.
#[derive(Debug)]
pub(crate) struct AckState {
    /// How many messages of the sender were committed before the first one on this connection.
    pub(crate) committed_earlier: u64,
    /// How many messages were received over this connection.
    received: AtomicU64,
    /// Whether no more will follow.
    complete: AtomicBool,
    /// Wakes the task that sends acknowledgements.
    changed: AtomicWaker,
    channel: Mutex<AckChannel>,
}

/// The sending side of the connection. The writer thread and the connection's
/// [`AckSession`](super::ack_session::AckSession) both use it, one at a time.
#[derive(Debug, Default)]
struct AckChannel {
    /// Set while attached.
    stream: Option<(ByteStream, Layout)>,
    /// The checksum to send with the welcome, if the client asked for one.
    checksum: Option<u64>,
    /// How many messages of the connection were last acknowledged, and when. The first time is the welcome.
    told: Option<(u64, Instant)>,
    /// The part of an answer that the stream has not taken yet.
    rest: Vec<u8>,
    /// Whether the stream may keep some of what it has taken.
    unflushed: bool,
    /// The error of the stream, stored because a socket reports it only once.
    failed: Option<io::Error>,
}

/// The progress of a connection, when the sweep checks it.
pub(crate) struct CommitProgress {
    /// How many of its messages are committed.
    pub(crate) committed: u64,
    pub(crate) phase: Phase,
}

impl AckState {
    pub(crate) fn new(committed_earlier: u64) -> AckState {
        AckState {
            committed_earlier,
            received: AtomicU64::new(0),
            complete: AtomicBool::new(false),
            changed: AtomicWaker::new(),
            channel: Mutex::default(),
        }
    }

    /// Records how many messages were received.
    pub(crate) fn set_received(&self, messages: u64) {
        self.received.store(messages, Ordering::SeqCst);
    }

    /// Records that no more messages follow: once the last one is acknowledged, the task ends.
    pub(crate) fn complete(&self) {
        self.complete.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Returns whether the client waits for messages to be committed. They may not have been read yet, for
    /// lack of memory, or may still be arriving.
    pub(crate) fn is_waiting(&self, progress: &CommitProgress) -> bool {
        !self.is_all_committed(progress.committed) || progress.phase != Phase::Idle
    }

    /// Returns whether all received messages are committed.
    pub(crate) fn is_all_committed(&self, committed: u64) -> bool {
        committed >= self.received.load(Ordering::SeqCst)
    }

    /// Returns whether all received messages are committed, and the stream has taken the acknowledgement of the
    /// last one.
    pub(crate) fn is_settled(&self, committed: u64) -> bool {
        let told = || {
            self.channel.try_lock().is_ok_and(|channel| {
                let told = channel.told.is_some_and(|(told, _)| told == committed);
                told && channel.rest.is_empty() && !channel.unflushed
            })
        };
        self.is_all_committed(committed) && told()
    }

    /// Returns whether the stream has not taken all of an answer.
    pub(crate) fn has_unsent(&self) -> bool {
        self.channel.try_lock().is_ok_and(|channel| !channel.rest.is_empty())
    }

    /// Wakes the task that sends acknowledgements.
    pub(crate) fn wake(&self) {
        self.changed.wake();
    }

    /// Acknowledges messages from the calling thread if the stream takes the answer at once, and leaves it
    /// to the task otherwise. That saves a client that waits for a single message the detour over another
    /// thread.
    pub(crate) fn tell_at_once(&self, committed: u64) {
        let told = self.channel.try_lock().is_ok_and(|mut channel| match channel.told {
            Some((told, _)) if told >= committed => true,
            Some(_) if channel.rest.is_empty() => {
                channel.begin(self.committed_earlier, committed) && channel.try_finish()
            }
            _ => false,
        });
        if !told {
            self.wake();
        }
    }

    /// Sets the stream for acknowledgements, and the checksum that the client asked for, if known. To be
    /// called once, before [`AckState::poll_tell`].
    pub(crate) fn attach(&self, stream: ByteStream, layout: Layout, checksum: Option<u64>) {
        let mut channel = self.channel();
        (channel.stream, channel.checksum) = (Some((stream, layout)), checksum);
    }

    /// Stops all further acknowledgements; only what [`AckState::take_unsent`] returns may still be sent.
    pub(crate) fn detach(&self) {
        self.channel().stream = None;
    }

    /// Takes the part of an answer that the stream has not taken.
    pub(crate) fn take_unsent(&self) -> Vec<u8> {
        std::mem::take(&mut self.channel().rest)
    }

    /// Acknowledges messages whenever more are committed, until all received messages are and no more
    /// follow. The first acknowledgement is the welcome.
    ///
    /// # Errors
    ///
    /// Any error of the stream; then nothing more is acknowledged over this connection. Transient errors
    /// are waited out.
    pub(crate) fn poll_tell(
        &self,
        cx: &mut Context<'_>,
        progress: impl Fn() -> CommitProgress,
    ) -> Poll<io::Result<()>> {
        // Registered first: any change after this line polls the task again.
        self.changed.register(cx.waker());
        let mut channel = self.channel();
        loop {
            ready!(channel.poll_finish(cx))?;
            let complete = self.complete.load(Ordering::SeqCst);
            let progress = progress();
            let committed = progress.committed;
            let begun = match channel.told {
                // The welcome counts the messages before this connection, even if more are committed by
                // now.
                None => channel.begin(self.committed_earlier, 0),
                Some((told, when))
                    if told != committed
                        || self.is_waiting(&progress) && when.elapsed() >= REPEATED =>
                {
                    channel.begin(self.committed_earlier, committed)
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
    /// Begins to acknowledge `committed` messages of the connection. Returns whether a stream is attached.
    fn begin(&mut self, committed_earlier: u64, committed: u64) -> bool {
        let Some((_, layout)) = &self.stream else { return false };
        let answer = match self.checksum.take() {
            Some(checksum) => Answer::Welcome { committed: committed_earlier, checksum },
            None => Answer::Acknowledgement(committed_earlier.saturating_add(committed)),
        };
        self.rest = answer.frame(*layout);
        self.told = Some((committed, Instant::now()));
        true
    }

    /// Returns whether the stream has taken all of the answer.
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
                // The sweep will wake the task, which retries.
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

/// When to try to send the rest of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Again,
    /// Once the stream is writable or the system has memory.
    Later,
}

/// Removes from `rest` what the stream has taken.
///
/// # Errors
///
/// The error of the stream, if it is final.
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
    fn a_client_is_settled_once_it_is_told_of_all_that_was_received() {
        let (connection, _client) = connection();
        let acks = connection.acks().unwrap();
        let is_settled = || acks.is_settled(connection.committed());
        let mut task = Box::pin(tell(Arc::clone(&connection)));
        assert!(!is_settled(), "before the welcome");
        assert!(block_on(poll_once(&mut task)).is_none());
        assert!(is_settled());
        acks.set_received(2);
        assert!(!is_settled(), "before the commit");
        connection.commit(2, false);
        assert!(!is_settled(), "before the acknowledgement");
        assert!(block_on(poll_once(&mut task)).is_none());
        assert!(is_settled());
        acks.channel().rest = vec![0];
        assert!(!is_settled(), "in the middle of an acknowledgement");
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
    fn the_task_learns_why_a_socket_failed_even_if_another_thread_wrote() {
        let (connection, client) = connection();
        let mut task = Box::pin(tell(Arc::clone(&connection)));
        assert!(block_on(poll_once(&mut task)).is_none());
        // What was not read turns this end into a reset.
        drop(client);
        connection.commit(1, true);
        assert_eq!(block_on(task).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
