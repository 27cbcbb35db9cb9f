//! Drives the connection of a client: connects, sends, reads acknowledgements, and connects again.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::{AsyncWriteExt, FutureExt};
use log::debug;
use smol::Timer;

use super::{AckError, AckOptions, Shared};
use crate::acks::{Answer, Hello, LONGEST_ANSWER, NoAnswer, Refusal};
use crate::address::Address;
use crate::backoff::Backoff;
use crate::error::{Plain, ReadError};
use crate::net::Socket;
use crate::reader::FrameReader;
use crate::sender::SenderId;
use crate::window::{CountFault, Window};

/// How much is written at once, in bytes: as much as a plain writer queues.
const CHUNK: usize = 64 * 1024;

/// The shortest and the longest wait between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How often in a row a new connection may be closed instead of a welcome. A server without
/// acknowledgements does that each time, and so does one that is just starting or ending, or a load
/// balancer in front of it: that one is given a second or two to think better of it.
const CLOSED: u32 = 6;

/// What drives the connection.
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) address: Address,
    pub(super) options: AckOptions,
    pub(super) sender: SenderId,
    /// When it first failed since it last got on.
    pub(super) trouble: Option<Instant>,
    /// How often in a row a connection was closed instead of a welcome.
    pub(super) closed: u32,
}

/// Why a connection is no more.
enum Broken {
    /// Another connection may be better.
    Passing(AckError),
    /// No other connection will be better.
    Final(AckError),
}

impl Driver {
    pub(super) async fn run(mut self) {
        let ended = self.drive().await;
        self.shared.lock().ended = Some(ended);
        self.shared.news.notify(usize::MAX);
    }

    async fn drive(&mut self) -> Result<(), AckError> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let committed = self.shared.window(|window| window.committed());
            let error = match self.converse().await {
                Ok(()) => return Ok(()),
                // All is known to be safe; that the connection did not end well changes nothing.
                Err(_) if self.is_done() => return Ok(()),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Passing(error)) => error,
            };
            if self.shared.window(|window| window.committed()) != committed {
                backoff.reset();
            }
            let since = *self.trouble.get_or_insert_with(Instant::now);
            let left = self.options.retry.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Err(error);
            }
            debug!("{error}; trying again");
            Timer::after(backoff.next_wait().min(left)).await;
        }
    }

    /// Connects and goes on until everything is done, or the connection is no more.
    async fn converse(&mut self) -> Result<(), Broken> {
        if self.is_done() {
            return Ok(());
        }
        let lost = |driver: &Driver, error| Broken::Passing(driver.lost(error));
        let connect = self.address.connect().or(self.too_late("no connection"));
        let socket = connect.await.map_err(|error| lost(self, error))?;
        let mut reader = FrameReader::with_layout(socket.clone(), self.options.layout)
            .max_message(LONGEST_ANSWER)
            .map_err(|error| Broken::Final(AckError::Limit(error)))?;
        let welcome = self.greet(socket.clone(), &mut reader).await?;
        {
            let mut state = self.shared.lock();
            match &mut state.window {
                Some(window) => window.rewind(welcome).map_err(|fault| self.counts(fault))?,
                None => {
                    let AckOptions { window, window_bytes, .. } = self.options;
                    state.window = Some(Window::new(welcome, window.max(1), window_bytes));
                }
            }
            if state.window.as_ref().is_some_and(Window::is_empty) {
                self.trouble = None;
            }
        }
        self.shared.news.notify(usize::MAX);
        let shared = Arc::clone(&self.shared);
        let mut write = pin!(async {
            if let Err(error) = write_all(socket.clone(), &shared).await {
                // The server may have said why before it closed: what it says goes first.
                debug!("cannot write: {}", Plain(&error));
            }
            pending().await
        });
        let mut heard = Instant::now();
        loop {
            let answer = read_answer(&mut reader).or(write.as_mut()).or(self.silent(heard)).await;
            heard = Instant::now();
            match answer {
                Ok(Some(Answer::Acknowledgement(count))) => self.acknowledged(count)?,
                Ok(Some(Answer::Refusal(refusal))) => {
                    // Its count is as good as any; but why it refuses matters more than a wrong one.
                    let _ = self.acknowledged(refusal.committed);
                    return Err(self.refused(refusal));
                }
                Ok(None) if self.is_done() => return Ok(()),
                Ok(None) => {
                    let what = "the server closed the connection";
                    return Err(lost(self, io::Error::new(io::ErrorKind::UnexpectedEof, what)));
                }
                Err(Bad::Io(error)) => return Err(lost(self, error)),
                Err(Bad::Protocol(what)) => return Err(self.protocol(what)),
            }
        }
    }

    /// Says hello and returns the welcome.
    async fn greet(
        &mut self,
        mut socket: Socket,
        reader: &mut FrameReader<Socket>,
    ) -> Result<u64, Broken> {
        let first_time = self.shared.lock().window.is_none();
        let first = 1 + self.shared.window(|window| window.committed());
        let hello = Hello { sender: self.sender, first };
        let hello = hello
            .encode(self.options.layout)
            .map_err(|error| Broken::Final(AckError::Layout(error)))?;
        let greeting = async {
            // A server that refuses to be greeted may do so before it has read everything.
            let written = socket.write_all(&hello).await;
            match read_answer(reader).await {
                Err(Bad::Io(error)) => Err(Bad::Io(written.err().unwrap_or(error))),
                answer => answer,
            }
        };
        let late = async { self.too_late("no welcome").await.map_err(Bad::Io) };
        let instead = match greeting.or(late).await {
            Ok(Some(Answer::Acknowledgement(welcome))) => {
                self.closed = 0;
                return Ok(welcome);
            }
            Ok(Some(Answer::Refusal(refusal))) => return Err(self.refused(refusal)),
            Ok(None) => Bad::Io(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed the connection",
            )),
            Err(instead) => instead,
        };
        // A server that has given acknowledgements before is only in trouble now.
        Err(match (first_time, instead) {
            (true, Bad::Io(error)) => {
                self.closed += 1;
                let is_final = self.closed >= CLOSED || error.kind() == io::ErrorKind::TimedOut;
                let error = AckError::NoAcknowledgements { why: Plain(&error).to_string() };
                if is_final { Broken::Final(error) } else { Broken::Passing(error) }
            }
            (true, Bad::Protocol(why)) => Broken::Final(AckError::NoAcknowledgements { why }),
            (false, Bad::Io(error)) => Broken::Passing(self.lost(error)),
            (false, Bad::Protocol(what)) => self.protocol(what),
        })
    }

    fn acknowledged(&mut self, count: u64) -> Result<(), Broken> {
        let acknowledged = match &mut self.shared.lock().window {
            Some(window) => {
                let got_on = count > window.committed();
                window.acknowledged(count).map(|()| got_on)
            }
            None => Ok(false),
        };
        if acknowledged.map_err(|fault| self.counts(fault))? {
            self.trouble = None;
            self.shared.news.notify(usize::MAX);
        }
        Ok(())
    }

    /// Waits until the server has said nothing for too long while messages wait.
    async fn silent(&self, heard: Instant) -> Result<Option<Answer>, Bad> {
        let Some(silence) = self.options.silence else { return pending().await };
        let mut since = heard;
        loop {
            // Looking now and then is enough, and costs less than a timer for each message.
            Timer::after(silence / 8).await;
            let waiting = {
                let state = self.shared.lock();
                state.finishing || state.window.as_ref().is_some_and(|window| !window.is_empty())
            };
            if !waiting {
                since = Instant::now();
            } else if since.elapsed() >= silence {
                return Err(Bad::Io(late("nothing came from the server", silence)));
            }
        }
    }

    async fn too_late<T>(&self, what: &str) -> io::Result<T> {
        match self.options.silence {
            None => pending().await,
            Some(silence) => {
                Timer::after(silence).await;
                Err(late(what, silence))
            }
        }
    }

    /// Returns whether no more messages will come, and all are committed.
    fn is_done(&self) -> bool {
        let state = self.shared.lock();
        state.finishing && state.window.as_ref().is_some_and(Window::is_empty)
    }

    fn lost(&self, error: io::Error) -> AckError {
        let (sent, committed) =
            (self.shared.window(Window::pushed), self.shared.window(Window::committed));
        AckError::Lost { error, sent, committed, sender: self.sender }
    }

    fn refused(&self, refusal: Refusal) -> Broken {
        let passing = refusal.code.is_passing();
        let error = AckError::Refused { refusal, sender: self.sender };
        if passing { Broken::Passing(error) } else { Broken::Final(error) }
    }

    fn protocol(&self, what: String) -> Broken {
        Broken::Final(AckError::Protocol { what, sender: self.sender })
    }

    fn counts(&self, fault: CountFault) -> Broken {
        self.protocol(fault.to_string())
    }
}

fn late(what: &str, after: Duration) -> io::Error {
    let after = humantime::format_duration(after);
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {after}"))
}

/// What came instead of an answer.
enum Bad {
    Io(io::Error),
    Protocol(String),
}

/// Reads an answer; `None` at the end of the stream.
///
/// # Cancel safety
///
/// As [`FrameReader::read`].
async fn read_answer(reader: &mut FrameReader<Socket>) -> Result<Option<Answer>, Bad> {
    match reader.read().await {
        Ok(Some(payload)) => Answer::decode(&payload)
            .map(Some)
            .map_err(|error: NoAnswer| Bad::Protocol(error.to_string())),
        Ok(None) => Ok(None),
        Err(ReadError::Io { error, .. }) => Err(Bad::Io(error)),
        // A stream that breaks off within an answer was cut, not spoilt.
        Err(error) => {
            let error = io::Error::from(error);
            match error.kind() {
                io::ErrorKind::UnexpectedEof => Err(Bad::Io(error)),
                _ => Err(Bad::Protocol(error.to_string())),
            }
        }
    }
}

/// Writes what there is to send, and at last the end of the stream.
async fn write_all(mut socket: Socket, shared: &Shared) -> io::Result<()> {
    let mut chunk = Vec::new();
    loop {
        let listener = shared.work.listen();
        chunk.clear();
        let finishing = {
            let mut state = shared.lock();
            if let Some(window) = &mut state.window {
                window.give(&mut chunk, CHUNK);
            }
            state.finishing
        };
        if !chunk.is_empty() {
            socket.write_all(&chunk).await?;
        } else if finishing {
            return socket.shutdown_write();
        } else {
            listener.await;
        }
    }
}
