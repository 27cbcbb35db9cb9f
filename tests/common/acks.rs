//! A server that remembers what it has acknowledged and otherwise does the worst.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use framelet::wire::{Answer, FirstBytes, Hello, Refusal, RefusalCode};
use framelet::{Address, Layout};
use socket2::SockRef;

use super::program::{PATIENCE, frame, read_frame};

pub(crate) const SENDER: &str = "000102030405060708090a0b0c0d0e0f";

/// What is committed for the one sender there is.
#[derive(Default)]
pub(crate) struct Committed {
    messages: Mutex<Vec<Vec<u8>>>,
    grown: Condvar,
}

impl Committed {
    pub(crate) fn commit(&self, message: Vec<u8>) {
        self.messages.lock().unwrap().push(message);
        self.grown.notify_all();
    }

    pub(crate) fn count(&self) -> u64 {
        self.messages.lock().unwrap().len() as u64
    }

    pub(crate) fn all(&self) -> Vec<Vec<u8>> {
        self.messages.lock().unwrap().clone()
    }

    /// Waits until there are so many.
    pub(crate) fn wait(&self, count: usize) {
        let messages = self.messages.lock().unwrap();
        let fewer = |messages: &mut Vec<Vec<u8>>| messages.len() < count;
        let waited = self.grown.wait_timeout_while(messages, PATIENCE, fewer).unwrap().1;
        assert!(!waited.timed_out(), "{count} messages did not come");
    }
}

/// One connection, whose hello has been read.
pub(crate) struct Connection {
    pub(crate) stream: Limited,
    /// Its number; the first one is 1.
    pub(crate) number: usize,
    pub(crate) hello: Hello,
    pub(crate) committed: Arc<Committed>,
}

/// A stream of which only so many bytes are read.
pub(crate) struct Limited {
    pub(crate) stream: TcpStream,
    pub(crate) left: usize,
}

impl Read for Limited {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let most = buf.len().min(self.left);
        let read = self.stream.read(&mut buf[..most])?;
        self.left -= read;
        Ok(read)
    }
}

impl Connection {
    pub(crate) fn say(&mut self, answer: Answer) {
        // The client may be gone.
        let _ = self.stream.stream.write_all(&frame(&answer.encode()));
    }

    pub(crate) fn acknowledge(&mut self) {
        self.say(Answer::Acknowledgement(self.committed.count()));
    }

    pub(crate) fn refuse(mut self, code: RefusalCode, text: &str) {
        let committed = self.committed.count();
        self.say(Answer::Refusal(Refusal { committed, code, text: text.into() }));
        // Reading to the end, or else the refusal would be lost to a reset.
        let _ = self.stream.stream.shutdown(std::net::Shutdown::Write);
        self.stream.left = usize::MAX;
        let _ = io::copy(&mut self.stream, &mut io::sink());
    }

    /// Commits the next message; `None` at the end.
    pub(crate) fn take(&mut self) -> Option<()> {
        let message = read_frame(&mut self.stream)?;
        self.committed.commit(message);
        Some(())
    }

    /// Welcomes the client, and commits and acknowledges each of its messages.
    pub(crate) fn serve(mut self) {
        self.acknowledge();
        while self.take().is_some() {
            self.acknowledge();
        }
    }
}

/// Reads a hello in `u32be`; `None` if the stream ends before.
pub(crate) fn read_hello(stream: &mut impl Read) -> Option<Hello> {
    let mut bytes = Vec::new();
    loop {
        match Hello::decode(Layout::U32BE, &bytes) {
            FirstBytes::Hello { hello, .. } => return Some(hello),
            FirstBytes::Incomplete { need } => {
                let from = bytes.len();
                bytes.resize(need, 0);
                stream.read_exact(&mut bytes[from..]).ok()?;
            }
            other => panic!("not a hello: {other:?} {bytes:02x?}"),
        }
    }
}

/// Starts a server that handles one connection after the other. `limit` says how many bytes of each
/// one are read; one that was not read to its end is reset.
pub(crate) fn start_limited(
    mut limit: impl FnMut(usize) -> usize + Send + 'static,
    mut handle: impl FnMut(Connection) + Send + 'static,
) -> (Address, Arc<Committed>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let committed = Arc::<Committed>::default();
    let shared = Arc::clone(&committed);
    thread::spawn(move || {
        for number in 1.. {
            let (stream, _) = listener.accept().unwrap();
            // Or else a reset drops acknowledgements that wait for a segment to fill.
            stream.set_nodelay(true).unwrap();
            let left = limit(number);
            if left < usize::MAX {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            let mut stream = Limited { stream, left };
            let Some(hello) = read_hello(&mut stream) else { continue };
            assert!(hello.first <= shared.count() + 1, "{hello:?}");
            handle(Connection { stream, number, hello, committed: Arc::clone(&shared) });
        }
    });
    (address, committed)
}

pub(crate) fn start(handle: impl FnMut(Connection) + Send + 'static) -> (Address, Arc<Committed>) {
    start_limited(|_| usize::MAX, handle)
}

/// Reads the next answer that says something: a count, or a refusal; `None` at the end of the stream.
pub(crate) fn read_answer(stream: &mut impl Read) -> Option<Result<u64, Refusal>> {
    loop {
        match Answer::decode(&read_frame(stream)?).unwrap() {
            Answer::Acknowledgement(count) | Answer::Welcome { committed: count, .. } => {
                return Some(Ok(count));
            }
            Answer::Refusal(refusal) => return Some(Err(refusal)),
            Answer::Heartbeat => {}
        }
    }
}
