//! Sends messages, learns which of them are committed, and sends the others again if a connection is lost.
//!
//! A task of its own drives the connection: it sends messages, reads acknowledgements and reconnects,
//! even while the caller does something else. Both share [`Delivery`]: the caller adds messages to the window, the
//! task sends them from it.

use std::future::Future;
use std::io;
use std::sync::Arc;

use futures_lite::{AsyncRead, AsyncWrite, FutureExt};
use smol::Task;

use super::ack_error::AckError;
use super::ack_options::AckOptions;
use super::delivery::{Delivery, State};
use super::driver::{Connector, Driver};
use super::window::Window;
use crate::net::address::{Address, ParseAddressError};
use crate::runtime::{clock, tasks};
use crate::wire::ack::{Hello, checksum};
use crate::wire::layout::Layout;
use crate::wire::sender_id::SenderId;

/// A client that learns which of its messages are committed, across reconnections.
///
/// Each message has a number; the first one of a sender is 1. Messages wait in a window until the server has
/// committed them. If the connection is lost, the client connects again and sends what is not committed.
/// Databases never store a message twice; other sinks may, after the server was killed.
///
/// Dropping a client closes its connection at once. What was not acknowledged may or may not be
/// committed; a client with the same sender id can find out and send the rest.
///
/// # Examples
///
/// ```
/// use framelet::client::AckOptions;
/// use framelet::AckClient;
///
/// # smol::block_on(async {
/// # let listener = smol::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let address = listener.local_addr()?;
/// # smol::spawn(async move {
/// #     let mut stream = listener.accept().await.unwrap().0;
/// #     smol::io::AsyncReadExt::read_exact(&mut stream, &mut [0; 33]).await.unwrap();
/// #     let mut server = framelet::Framed::new(stream, framelet::Layout::U32BE);
/// #     for committed in 0_u64.. {
/// #         server.send(&committed.to_be_bytes()).await.unwrap();
/// #         if server.read().await.unwrap().is_none() {
/// #             break;
/// #         }
/// #     }
/// # })
/// # .detach();
/// let mut client = AckClient::connect(address, AckOptions::new()).await?;
/// for reading in ["21.5", "21.7"] {
///     client.send(reading.as_bytes()).await?;
/// }
/// client.finish().await?;
/// assert_eq!(client.committed(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct AckClient {
    shared: Arc<Delivery>,
    sender: SenderId,
    layout: Layout,
    limit: usize,
    /// The prefix of the last message; kept for its memory.
    prefix: Vec<u8>,
    /// How many messages were committed when this client began.
    resume_from: u64,
    /// Drives the connection; ends when it is dropped.
    _driver: Task<()>,
}

impl AckClient {
    /// Connects to an [`Address`], or to one as text, and waits until the server has said how many messages
    /// of this sender it has.
    ///
    /// # Errors
    ///
    /// [`AckError`]. A server that cannot be reached, or does not answer, is tried again for
    /// [`AckOptions::retry`]. A server that gives no acknowledgements is never sent any message.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the attempt is given up.
    pub async fn connect<A>(address: A, options: AckOptions) -> Result<AckClient, AckError>
    where
        A: TryInto<Address, Error: Into<ParseAddressError>>,
    {
        let address = address.try_into().map_err(|error| AckError::Address(error.into()))?;
        let server = address.to_string();
        let options = AckOptions { server_name: options.server_name.or(Some(server)), ..options };
        let connector = move || {
            let address = address.clone();
            async move { address.connect().await }.boxed()
        };
        AckClient::start(Box::new(connector), options).await
    }

    /// Does the same over other streams, such as TLS: `connector` makes a new one for each connection.
    ///
    /// # Errors
    ///
    /// As [`connect`](AckClient::connect). An error of the connector is one of the connection, and is retried.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the attempt is given up.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::client::AckOptions;
    /// use framelet::AckClient;
    /// use smol::net::TcpStream;
    ///
    /// # use framelet::{format::OutputFormat, sink::OutputSink, Server};
    /// # smol::block_on(async {
    /// # let listener = smol::net::TcpListener::bind("127.0.0.1:0").await?;
    /// # let address = listener.local_addr()?;
    /// # let server = Server::new(listener).collect(OutputSink::stdout(OutputFormat::None)?);
    /// # let server = smol::spawn(server.run(std::future::pending()));
    /// let connector = move || async move {
    ///     let stream = TcpStream::connect(address).await?;
    ///     stream.set_nodelay(true)?;
    ///     Ok(stream) // after a TLS handshake, perhaps
    /// };
    /// let mut client = AckClient::connect_with(connector, AckOptions::new()).await?;
    /// client.send(b"21.5").await?;
    /// client.finish().await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn connect_with<F, C, S>(
        mut connector: F,
        options: AckOptions,
    ) -> Result<AckClient, AckError>
    where
        F: FnMut() -> C + Send + 'static,
        C: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connector = Box::new(move || connector().boxed());
        AckClient::start(connector, options).await
    }

    async fn start<S>(connector: Connector<S>, options: AckOptions) -> Result<AckClient, AckError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let layout = options.layout;
        let limit = layout.limit(options.max_message).map_err(AckError::Limit)?;
        let sender = match options.sender {
            Some(sender) => sender,
            None => SenderId::random().map_err(|error| AckError::Random(Arc::new(error)))?,
        };
        let hello = Hello { sender, first: options.committed.saturating_add(1) };
        // Checked first, so that an unsuitable layout is reported before anything else happens.
        hello.encode(layout).map_err(AckError::Layout)?;
        let shared = Arc::<Delivery>::default();
        let driver = Driver::new(Arc::clone(&shared), options, sender);
        let driver = tasks::spawn(driver.run(connector));
        let resume_from = shared.wait(|state| state.window.as_ref().map(Window::committed)).await?;
        Ok(AckClient {
            shared,
            sender,
            layout,
            limit,
            prefix: Vec::new(),
            resume_from,
            _driver: driver,
        })
    }

    /// Returns the sender id: that of the options, or the random one that was chosen.
    pub fn sender_id(&self) -> SenderId {
        self.sender
    }

    /// Returns how many messages of this sender were committed when the client connected; 0 for a new
    /// sender. The first message that the client sends has the next number.
    pub fn resume_from(&self) -> u64 {
        self.resume_from
    }

    /// Returns whether `payload` can be the message before [`resume_from`](AckClient::resume_from), which
    /// is the last one that an earlier client got committed. A caller that skips the committed part of an
    /// input should ask this about the last skipped message: if the answer is `false`, the input is a
    /// different one, and skipping would lose messages.
    ///
    /// The server compares a checksum. If it does not have one, for example because it was restarted and
    /// writes to standard output, the answer is `true`.
    ///
    /// # Examples
    ///
    /// A client that continues the input of an earlier one:
    ///
    /// ```
    /// use framelet::client::AckOptions;
    /// use framelet::wire::SenderId;
    /// use framelet::AckClient;
    ///
    /// # use framelet::{format::OutputFormat, sink::OutputSink, Address, Server};
    /// # smol::block_on(async {
    /// # let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
    /// # let address = listener.address()?;
    /// # let server = Server::new(listener).collect(OutputSink::stdout(OutputFormat::None)?);
    /// # let server = smol::spawn(server.run(std::future::pending()));
    /// let options = AckOptions::new().sender(SenderId::random()?);
    /// let mut earlier = AckClient::connect(&address, options.clone()).await?;
    /// let number = earlier.send(b"21.5").await?;
    /// earlier.wait_committed(number).await?;
    /// drop(earlier); // before it has sent the rest
    ///
    /// let input = ["21.5", "21.7"];
    /// let mut client = AckClient::connect(&address, options).await?;
    /// assert_eq!(client.resume_from(), 1);
    /// assert!(client.matches_last_committed(input[0].as_bytes()));
    /// assert!(!client.matches_last_committed(b"of another input"));
    /// client.send(input[1].as_bytes()).await?;
    /// client.finish().await?;
    /// assert_eq!((client.sent(), client.committed(), client.lost()), (2, 2, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn matches_last_committed(&self, payload: &[u8]) -> bool {
        self.shared.lock().checksum.is_none_or(|last| last == checksum(payload))
    }

    /// Returns how many messages of this sender are known to be committed.
    pub fn committed(&self) -> u64 {
        self.shared.window(Window::committed)
    }

    /// Returns the number of the last message that was taken by [`send`](AckClient::send).
    pub fn sent(&self) -> u64 {
        self.shared.window(Window::last_pushed)
    }

    /// Returns how many acknowledged messages the server has lost since the client connected, as far as
    /// known; more than 0 only with [`AckOptions::renumber`]. The server's numbers are lower by this than
    /// those of [`send`](AckClient::send).
    pub fn lost(&self) -> u64 {
        self.shared.lock().lost
    }

    /// Returns the progress of the client, for other tasks to look at.
    pub fn progress(&self) -> AckProgress {
        AckProgress(Arc::clone(&self.shared))
    }

    /// Takes a message to send and returns its number. It waits only while the window is full.
    ///
    /// # Errors
    ///
    /// [`AckError::Encode`] concerns this message alone; [`AckError::Finished`] if the client was told to
    /// finish. All others are final, and every later call returns the same one.
    ///
    /// # Cancel safety
    ///
    /// A dropped `send` has not taken its message.
    pub async fn send(&mut self, payload: &[u8]) -> Result<u64, AckError> {
        self.layout.check(self.limit, &[], payload.len()).map_err(AckError::Encode)?;
        self.prefix.clear();
        self.layout.append_prefix(&[], payload.len(), &mut self.prefix);
        let (shared, prefix) = (&self.shared, &self.prefix);
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
                // From now on the silence of the server counts.
                state.last_heard = Some(clock::now());
            }
            Some(Ok(window.push(prefix, payload)))
        };
        let number = shared.wait(push).await??;
        self.shared.work.notify(1);
        Ok(number)
    }

    /// Waits until the message with this number and all before it are committed. The message need not have
    /// been sent yet.
    ///
    /// # Errors
    ///
    /// [`AckError`]; it is final.
    ///
    /// # Cancel safety
    ///
    /// A dropped `wait_committed` can be called again.
    pub async fn wait_committed(&self, number: u64) -> Result<(), AckError> {
        let done = |state: &mut State| {
            state.window.as_ref().filter(|window| window.committed() >= number).map(|_| ())
        };
        self.shared.wait(done).await
    }

    /// Sends the remaining messages and the end of the stream, and waits until everything is committed and
    /// the server has closed the stream as well. `Ok` means that all messages are committed.
    ///
    /// There is no time limit while the server sends heartbeats: use `futures_lite::FutureExt::or` with a
    /// timer.
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
            // Losing the connection after the last acknowledgement does no harm.
            Err(_) if self.sent() == self.committed() => Ok(()),
            ended => ended,
        }
    }
}

/// The progress of an [`AckClient`]. It does not keep the client's connection open.
///
/// # Examples
///
/// ```
/// use framelet::client::{AckOptions, AckProgress};
/// use framelet::AckClient;
///
/// # use framelet::{format::OutputFormat, sink::OutputSink, Address, Server};
/// # smol::block_on(async {
/// # let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
/// # let address = listener.address()?;
/// # let server = Server::new(listener).collect(OutputSink::stdout(OutputFormat::None)?);
/// # let server = smol::spawn(server.run(std::future::pending()));
/// let mut client = AckClient::connect(address, AckOptions::new()).await?;
/// println!("sender {}", client.sender_id().short());
/// let progress: AckProgress = client.progress(); // for another task
/// client.send(b"21.5").await?;
/// client.finish().await?;
/// assert_eq!((progress.committed(), progress.sent(), progress.lost()), (1, 1, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct AckProgress(Arc<Delivery>);

impl AckProgress {
    /// Returns what [`AckClient::committed`] does.
    pub fn committed(&self) -> u64 {
        self.0.window(Window::committed)
    }

    /// Returns what [`AckClient::sent`] does.
    pub fn sent(&self) -> u64 {
        self.0.window(Window::last_pushed)
    }

    /// Returns what [`AckClient::lost`] does.
    pub fn lost(&self) -> u64 {
        self.0.lock().lost
    }
}
