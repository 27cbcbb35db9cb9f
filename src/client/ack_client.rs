//! Sends messages, learns which of them are committed, and sends the others again where a connection
//! is lost.
//!
//! A task of its own drives the connection, so that messages leave, acknowledgements are read and
//! connections are made again whatever the caller does meanwhile. The two sides meet in [`Shared`]: the
//! caller adds to the window, the task takes from it.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use event_listener::Event;
use smol::Task;

use crate::client::client::Client;
use crate::client::window::Window;
use crate::net::address::Address;
use crate::wire::ack::{Hello, checksum};
use crate::wire::frame::checked_prefix;
use crate::wire::layout::Layout;
use crate::wire::sender_id::SenderId;

use super::ack_error::AckError;
use super::ack_options::AckOptions;
use super::ack_state::{Shared, State};
use super::driver::Driver;

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
    /// the last one that an earlier client had sent. A caller that skips so many messages of an input asks this
    /// of the last of them: if it is another one, so is the input, and what is skipped would be lost.
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
