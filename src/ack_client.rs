//! Sends messages, learns which of them are committed, and sends the others again where a connection
//! is lost.
//!
//! A task of its own drives the connection, so that messages leave, acknowledgements are read and
//! connections are made again whatever the caller does meanwhile. The two sides meet in [`Shared`]: the
//! caller adds to the window, the task takes from it.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;
use smol::Task;

use crate::acks::{Hello, Refusal, UnfitLayout, checksum};
use crate::address::Address;
use crate::client::Client;
use crate::count::Count;
use crate::error::{Plain, same_again};
use crate::layout::{Layout, LimitError, TooLong};
use crate::sender::SenderId;
use crate::window::Window;
use crate::writer::checked_prefix;

mod driver;

use driver::Driver;

/// How an [`AckClient`] works.
#[derive(Clone, Debug)]
pub struct AckOptions {
    /// Who it is; `None` stands for a new random id. With the id of an earlier client it goes on where
    /// the server says that one got to: see [`AckClient::matches_last_committed`].
    pub sender: Option<SenderId>,
    /// How many messages of this sender are known to be committed: those that cannot be sent again, since
    /// an earlier client had them. The first message is the next one, or a later one if the server has more
    /// ([`AckClient::welcome`]). 0 for a client that can send from the very first message on.
    pub committed: u64,
    /// What to do about a server that has lost messages which it had acknowledged: its database was
    /// replaced, or it has forgotten the sender. With `false` the client ends with [`AckError::Behind`].
    /// With `true` it sends what is not committed with the numbers that follow those of the server, and
    /// [`AckClient::lost`] says how many messages are missing there.
    pub renumber: bool,
    /// How many messages may wait to be acknowledged; at least one may.
    ///
    /// Throughput is at most this many messages a round trip and commit. 4,000 are chosen since short
    /// messages into a file get more than twice as far with them as with 1,000, and a quarter farther
    /// still with 16,000. They are also how many a sink that keeps no count of its senders can have twice each time the
    /// server is killed.
    pub window: usize,
    /// How many bytes of them; a single message may have more. This is most of the memory that a client
    /// takes. 8 MiB are chosen by judgement: messages of 64 KiB that are synced to a quick disk lose about
    /// 4 % against 16 MiB.
    pub window_bytes: usize,
    /// How long to be without a connection, all in all, since it last got on: since messages were
    /// committed, or there was a new connection and none was waiting. Zero gives up at the first failure.
    pub retry: Duration,
    /// How long a server may show no sign of life while messages wait; then the connection counts as
    /// lost. Also the time to connect. That it takes bytes in is such a sign, and a server that is only
    /// busy gives one every 3 s: a shorter time only has the client connect again and again. `None`
    /// waits for ever.
    pub silence: Option<Duration>,
    /// How prefixes are written. The field must have 4 or 8 bytes.
    pub layout: Layout,
    /// The longest payload to send, in bytes; `None` stands for 8 MiB.
    pub max_message: Option<usize>,
}

impl Default for AckOptions {
    fn default() -> Self {
        AckOptions {
            sender: None,
            committed: 0,
            renumber: false,
            window: 4000,
            window_bytes: 8 * 1024 * 1024,
            retry: Duration::from_secs(30),
            silence: Some(Duration::from_secs(10)),
            layout: Layout::U32BE,
            max_message: None,
        }
    }
}

/// A client that learns which of its messages are committed, across reconnections.
///
/// Each message has a number, its *ticket*: the first one of a sender is 1. Messages wait in a window
/// until the server has committed them. If the connection is lost it is made anew, and what the server
/// has not committed is sent again. Whether a message can then be there twice is for the server's sink to
/// say: with transactions it cannot.
///
/// Dropping a client closes its connection at once. What was not acknowledged may or may not be
/// committed; a client with the same sender id can find out and go on.
///
/// # Examples
///
/// ```no_run
/// use framelet::{AckOptions, Client};
///
/// # futures_lite::future::block_on(async {
/// let address = "127.0.0.1:4747".parse()?;
/// let mut client = Client::connect_with_acks(&address, AckOptions::default()).await?;
/// for reading in ["21.5", "21.7"] {
///     client.send(reading.as_bytes()).await?;
/// }
/// client.finish().await?; // both are committed
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct AckClient {
    shared: Arc<Shared>,
    sender: SenderId,
    layout: Layout,
    limit: usize,
    /// How many messages were committed when this client began.
    welcome: u64,
    /// Drives the connection; ends when it is dropped.
    _driver: Task<()>,
}

/// Why messages are not known to be committed.
#[derive(Debug)]
#[non_exhaustive]
pub enum AckError {
    /// The message is too long. Nothing of it was sent, and the client is as good as before.
    TooLong(TooLong),
    /// There are no acknowledgements in this layout.
    Layout(UnfitLayout),
    /// The limit is more than the layout can say.
    Limit(LimitError),
    /// The client has been told to finish, and takes no more messages.
    Finished,
    /// There is no new sender id to be had from the system.
    Random(io::Error),
    /// The server does not answer the hello as one does that gives acknowledgements. Nothing was sent.
    NoAcknowledgements {
        /// What it did instead.
        why: String,
    },
    /// The server goes no further.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Who was refused.
        sender: SenderId,
    },
    /// The server has fewer messages of the sender than it had acknowledged, and the client has none of
    /// those any more. See [`AckOptions::renumber`].
    Behind {
        /// How many the server has.
        server: u64,
        /// How many were acknowledged.
        committed: u64,
        /// How many messages the client has taken, all in all: those after the acknowledged ones can still
        /// be sent.
        sent: u64,
        /// Whose messages they are.
        sender: SenderId,
    },
    /// What the server says cannot be.
    Protocol {
        /// What is wrong.
        what: String,
        /// Who was told so.
        sender: SenderId,
    },
    /// There was no connection for as long as the client was to try, or none at all.
    Lost {
        /// What failed last.
        error: io::Error,
        /// How many messages the client has taken, all in all.
        sent: u64,
        /// How many of them are known to be committed.
        committed: u64,
        /// Who can go on with the rest.
        sender: SenderId,
    },
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is more to send, or no more to come.
    work: Event,
    /// Something is acknowledged, or it is all over.
    news: Event,
}

#[derive(Debug, Default)]
struct State {
    /// There is one since the first welcome.
    window: Option<Window>,
    /// No more messages will come.
    finishing: bool,
    /// The checksum of the last message that was committed at the first welcome, if the server knows it.
    checksum: Option<u64>,
    /// How many messages the server has lost: by so much its numbers are lower than those of the window.
    lost: u64,
    /// When the server last showed a sign of life.
    heard: Option<Instant>,
    /// How it ended.
    ended: Option<Result<(), AckError>>,
}

impl Client {
    /// Connects to a server that gives acknowledgements, and waits until it has welcomed the sender.
    ///
    /// # Errors
    ///
    /// [`AckError`]. A server that cannot be reached, or does not answer, is tried again for
    /// [`AckOptions::retry`]. A server that gives no acknowledgements is never sent any message.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the attempt is given up.
    pub async fn connect_with_acks(
        address: &Address,
        options: AckOptions,
    ) -> Result<AckClient, AckError> {
        AckClient::connect(address, options).await
    }
}

impl AckClient {
    async fn connect(address: &Address, options: AckOptions) -> Result<AckClient, AckError> {
        let layout = options.layout;
        let limit = layout.limit(options.max_message).map_err(AckError::Limit)?;
        let sender = match options.sender {
            Some(sender) => sender,
            None => SenderId::random().map_err(AckError::Random)?,
        };
        let hello = Hello { sender, first: options.committed.saturating_add(1) };
        // So that a layout that does not fit is found before anything happens.
        hello.encode(layout).map_err(AckError::Layout)?;
        let shared =
            Arc::new(Shared { state: Mutex::default(), work: Event::new(), news: Event::new() });
        let driver = Driver::new(Arc::clone(&shared), address.clone(), options, sender);
        let driver = smol::spawn(driver.run());
        let welcome = shared.wait(|state| state.window.as_ref().map(Window::committed)).await?;
        Ok(AckClient { shared, sender, layout, limit, welcome, _driver: driver })
    }

    /// Returns the sender id.
    pub fn sender(&self) -> SenderId {
        self.sender
    }

    /// Returns how many messages of this sender were committed when the client connected. The first
    /// message that it sends is the next one; for a new sender it is the first.
    pub fn welcome(&self) -> u64 {
        self.welcome
    }

    /// Returns whether `payload` can be that of the message with the number [`welcome`](AckClient::welcome),
    /// the last one that an earlier client had sent. Whoever skips so many messages of an input asks it for the
    /// last of them: if it is another one, so is the input, and what is skipped would be lost.
    ///
    /// The server keeps a checksum of that message. Where it does not, as one that was started anew and
    /// writes to standard output, the answer is `true`.
    pub fn matches_last_committed(&self, payload: &[u8]) -> bool {
        self.shared.lock().checksum.is_none_or(|last| last == checksum(payload))
    }

    /// Returns how many messages of this sender are committed, as far as is known.
    pub fn committed(&self) -> u64 {
        self.shared.window(Window::committed)
    }

    /// Returns the number of the last message that was taken by [`send`](AckClient::send).
    pub fn sent(&self) -> u64 {
        self.shared.window(Window::pushed)
    }

    /// Returns how many acknowledged messages the server has lost since the client connected, as far as is
    /// known; more than 0 only with [`AckOptions::renumber`]. The numbers that the server gives to messages
    /// are lower by so much than those of [`send`](AckClient::send).
    pub fn lost(&self) -> u64 {
        self.shared.lock().lost
    }

    /// Returns what shows how far it has come, for others to look at while it is at work.
    pub fn progress(&self) -> AckProgress {
        AckProgress(Arc::clone(&self.shared))
    }

    /// Takes a message to send and returns its number. It waits only while the window is full.
    ///
    /// # Errors
    ///
    /// [`AckError::TooLong`] concerns this message alone; [`AckError::Finished`] if the client was told to
    /// finish. All others are final, and every later call returns the same one.
    ///
    /// # Cancel safety
    ///
    /// A dropped `send` has not taken its message.
    pub async fn send(&mut self, payload: &[u8]) -> Result<u64, AckError> {
        let prefix =
            checked_prefix(self.layout, self.limit, payload.len()).map_err(AckError::TooLong)?;
        let len = prefix.len() + payload.len();
        let push = |state: &mut State| {
            if state.finishing {
                return Some(Err(AckError::Finished));
            }
            let window = state.window.as_mut().filter(|_| state.ended.is_none())?;
            if !window.has_room(len) {
                return None;
            }
            if window.is_empty() {
                // From now on the server is to be heard of.
                state.heard = Some(Instant::now());
            }
            Some(Ok(window.push(&prefix, payload)))
        };
        let number = self.shared.wait(push).await??;
        self.shared.work.notify(1);
        Ok(number)
    }

    /// Waits until the message with this number is committed, and all in front of it. A number that no
    /// message has yet is waited for as well.
    ///
    /// # Errors
    ///
    /// [`AckError`]; it is final.
    ///
    /// # Cancel safety
    ///
    /// A dropped `wait_committed` can be called again.
    pub async fn wait_committed(&self, ticket: u64) -> Result<(), AckError> {
        let done = |state: &mut State| {
            state.window.as_ref().filter(|window| window.committed() >= ticket).map(|_| ())
        };
        self.shared.wait(done).await
    }

    /// Ends: sends what is left and the end of the stream, and waits until everything is committed and
    /// the server has closed the stream, too. `Ok` means that all messages are committed.
    ///
    /// There is no time limit as long as the server shows that it is alive: use
    /// `futures_lite::FutureExt::or` with a timer.
    ///
    /// # Errors
    ///
    /// [`AckError`]: not all messages are known to be committed.
    ///
    /// # Cancel safety
    ///
    /// A dropped `finish` can be called again; the client takes no more messages.
    pub async fn finish(&mut self) -> Result<(), AckError> {
        self.shared.lock().finishing = true;
        self.shared.work.notify(1);
        let ended = |state: &mut State| matches!(state.ended, Some(Ok(()))).then_some(());
        match self.shared.wait(ended).await {
            // A connection that was lost behind the last acknowledgement has done no harm.
            Err(_) if self.sent() == self.committed() => Ok(()),
            ended => ended,
        }
    }
}

/// How far an [`AckClient`] has come. It does not keep the client's connection open.
#[derive(Clone, Debug)]
pub struct AckProgress(Arc<Shared>);

impl AckProgress {
    /// Returns what [`AckClient::committed`] does.
    pub fn committed(&self) -> u64 {
        self.0.window(Window::committed)
    }

    /// Returns what [`AckClient::sent`] does.
    pub fn sent(&self) -> u64 {
        self.0.window(Window::pushed)
    }

    /// Returns what [`AckClient::lost`] does.
    pub fn lost(&self) -> u64 {
        self.0.lock().lost
    }
}

impl Shared {
    /// Looks at the window; before the first welcome there is 0 of everything.
    fn window(&self, look: impl Fn(&Window) -> u64) -> u64 {
        self.lock().window.as_ref().map_or(0, look)
    }

    /// Notes that the server shows a sign of life.
    fn hear(&self) {
        self.lock().heard = Some(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `found` finds something, or else until all has ended with an error.
    async fn wait<T>(&self, mut found: impl FnMut(&mut State) -> Option<T>) -> Result<T, AckError> {
        loop {
            // Before looking, so that nothing slips through between looking and waiting.
            let mut listener = None;
            for _ in 0..2 {
                let mut state = self.lock();
                if let Some(found) = found(&mut state) {
                    return Ok(found);
                }
                match &state.ended {
                    None => {}
                    Some(Ok(())) => return Err(AckError::Finished),
                    Some(Err(error)) => return Err(error.clone()),
                }
                drop(state);
                listener.get_or_insert_with(|| self.news.listen());
            }
            if let Some(listener) = listener {
                listener.await;
            }
        }
    }
}

impl Clone for AckError {
    fn clone(&self) -> Self {
        match self {
            AckError::TooLong(error) => AckError::TooLong(*error),
            AckError::Layout(error) => AckError::Layout(*error),
            AckError::Limit(error) => AckError::Limit(*error),
            AckError::Finished => AckError::Finished,
            AckError::Random(error) => AckError::Random(same_again(error)),
            AckError::NoAcknowledgements { why } => {
                AckError::NoAcknowledgements { why: why.clone() }
            }
            AckError::Refused { refusal, sender } => {
                AckError::Refused { refusal: refusal.clone(), sender: *sender }
            }
            AckError::Behind { server, committed, sent, sender } => AckError::Behind {
                server: *server,
                committed: *committed,
                sent: *sent,
                sender: *sender,
            },
            AckError::Protocol { what, sender } => {
                AckError::Protocol { what: what.clone(), sender: *sender }
            }
            AckError::Lost { error, sent, committed, sender } => AckError::Lost {
                error: same_again(error),
                sent: *sent,
                committed: *committed,
                sender: *sender,
            },
        }
    }
}

impl fmt::Display for AckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AckError::TooLong(error) => error.fmt(f),
            AckError::Layout(error) => error.fmt(f),
            AckError::Limit(error) => error.fmt(f),
            AckError::Finished => f.write_str("the client has been told to finish; use a new one"),
            AckError::Random(error) => {
                write!(f, "no random sender id to be had: {}; choose one", Plain(error))
            }
            AckError::NoAcknowledgements { why } => write!(
                f,
                "this server gives no acknowledgements, as far as can be seen: {why}; nothing was sent; \
                 send without acknowledgements, or to a server that gives them"
            ),
            AckError::Refused { refusal, .. } => write!(f, "the server refuses: {refusal}"),
            AckError::Behind { server, committed, sent, .. } => {
                let (server, next) = (Count(*server, "message"), committed.saturating_add(1));
                write!(f, "the server has {server} of this sender, the client ")?;
                match sent.saturating_sub(*committed) {
                    0 => write!(f, "goes on with {next}")?,
                    1 => write!(f, "offers {next}")?,
                    _ => write!(f, "offers {next} to {sent}")?,
                }
                f.write_str(": was the database replaced, or the sender forgotten?")
            }
            AckError::Protocol { what, .. } => f.write_str(what),
            AckError::Lost { error, sent, committed, .. } if sent == committed => {
                write!(f, "no connection to the server: {}", Plain(error))
            }
            AckError::Lost { error, sent, committed, sender } => write!(
                f,
                "the connection to the server was lost: {}; {committed} of {sent} messages are committed, \
                 the others may or may not be: go on as the same sender ({})",
                Plain(error),
                sender.short()
            ),
        }
    }
}

impl std::error::Error for AckError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AckError::TooLong(error) => Some(error),
            AckError::Layout(error) => Some(error),
            AckError::Limit(error) => Some(error),
            AckError::Random(error) | AckError::Lost { error, .. } => Some(error),
            _ => None,
        }
    }
}
