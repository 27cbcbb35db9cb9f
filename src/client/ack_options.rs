//! The options of a client with acknowledgements.

use std::time::Duration;

use crate::wire::layout::Layout;
use crate::wire::sender_id::SenderId;

/// The options of an [`AckClient`](crate::AckClient).
///
/// # Examples
///
/// ```
/// use framelet::client::AckOptions;
/// use framelet::wire::SenderId;
/// use framelet::AckClient;
/// use std::time::Duration;
///
/// # use framelet::{format::OutputFormat, sink::OutputSink, Address, Server};
/// # smol::block_on(async {
/// # let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
/// # let address = listener.address()?;
/// # let sink = OutputSink::stdout(OutputFormat::None)?;
/// # let server = Server::new(listener).layout("u64le".parse()?).collect(sink);
/// # let server = smol::spawn(server.run(std::future::pending()));
/// let options = AckOptions::new()
///     .sender("00112233445566778899aabbccddeeff".parse::<SenderId>()?)
///     .committed(40) // what earlier clients of this sender had sent
///     .renumber(true)
///     .layout("u64le".parse()?)
///     .max_message(64 * 1024)
///     .window(1000)
///     .window_bytes(1024 * 1024)
///     .retry(Duration::from_secs(60))
///     .server_timeout(None)
///     .server_name("the archive");
/// let mut client = AckClient::connect(address, options).await?;
/// assert_eq!(client.send(b"21.5").await?, 41);
/// client.finish().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct AckOptions {
    pub(super) sender: Option<SenderId>,
    pub(super) committed: u64,
    pub(super) renumber: bool,
    pub(super) window: usize,
    pub(super) window_bytes: usize,
    pub(super) retry: Duration,
    pub(super) server_timeout: Option<Duration>,
    pub(super) layout: Layout,
    pub(super) max_message: Option<usize>,
    pub(super) server_name: Option<String>,
}

impl AckOptions {
    /// Returns the defaults.
    pub fn new() -> AckOptions {
        AckOptions::default()
    }

    /// Sets the sender id. `None`, the default, is a new random one. With the id of an earlier client, this
    /// one resumes after the last message of it that the server has committed: see
    /// [`AckClient::matches_last_committed`](crate::AckClient::matches_last_committed).
    pub fn sender(self, id: impl Into<Option<SenderId>>) -> AckOptions {
        AckOptions { sender: id.into(), ..self }
    }

    /// Sets how many messages of this sender are known to be committed, by default 0: earlier clients had
    /// them, and this one cannot send them again. The first message is the next one, or a later one if the
    /// server has more ([`AckClient::resume_from`](crate::AckClient::resume_from)).
    pub fn committed(self, messages: u64) -> AckOptions {
        AckOptions { committed: messages, ..self }
    }

    /// Sets what to do about a server that has lost acknowledged messages, because its database was replaced
    /// or it has forgotten the sender. With `false`, the default, the client ends with
    /// [`AckError::Behind`](crate::client::AckError::Behind). With `true` it sends what is not committed with the
    /// numbers after those of the server, and [`AckClient::lost`](crate::AckClient::lost) tells how many
    /// messages are missing there. If a server then says on a new connection that it has more than was
    /// acknowledged since, the client ends with
    /// [`CountFault::Unclear`](crate::client::CountFault::Unclear): it cannot know whose messages these are.
    pub fn renumber(self, renumber: bool) -> AckOptions {
        AckOptions { renumber, ..self }
    }

    /// Sets how many messages may await acknowledgement, by default 4,000 and at least 1.
    ///
    /// Throughput is at most this many messages per round trip and commit. With 4,000, short messages into a
    /// file are more than twice as fast as with 1,000; with 16,000 they are another quarter faster. It is
    /// also how many messages a sink that keeps no count of its senders can have twice after each time the
    /// server was killed.
    pub fn window(self, messages: usize) -> AckOptions {
        AckOptions { window: messages.max(1), ..self }
    }

    /// Sets how many bytes of messages may await acknowledgement, by default 8 MiB; a single message may be
    /// longer. This is most of the memory of a client. The default is chosen by judgement: synced to a quick
    /// disk, messages of 64 KiB are about 4 % slower than with 16 MiB.
    pub fn window_bytes(self, bytes: usize) -> AckOptions {
        AckOptions { window_bytes: bytes, ..self }
    }

    /// Sets after how long without a connection to give up, by default 30 s; zero gives up at the first
    /// failure. Progress restarts the clock: messages were committed, or there was a connection while none
    /// waited.
    pub fn retry(self, time: Duration) -> AckOptions {
        AckOptions { retry: time, ..self }
    }

    /// Sets the longest silence of the server while messages wait, by default 10 s; after that the connection
    /// counts as lost. Connecting may take as long. A server that reads is not silent, and a busy one sends a
    /// heartbeat every 3 s: a shorter time only makes the client connect again and again. `None` waits
    /// forever.
    pub fn server_timeout(self, timeout: impl Into<Option<Duration>>) -> AckOptions {
        AckOptions { server_timeout: timeout.into(), ..self }
    }

    /// Sets how messages are framed, by default `u32be`. It must be a length of 4 or 8 bytes and nothing else.
    pub fn layout(self, layout: Layout) -> AckOptions {
        AckOptions { layout, ..self }
    }

    /// Sets the longest payload to send, in bytes. Default: 8 MiB. A limit that the layout cannot express is
    /// an error of [`AckClient::connect`](crate::AckClient::connect).
    pub fn max_message(self, limit: usize) -> AckOptions {
        AckOptions { max_message: Some(limit), ..self }
    }

    /// Sets what the log calls the server. Default: its address, or `the server` with
    /// [`AckClient::connect_with`](crate::AckClient::connect_with).
    pub fn server_name(self, name: impl Into<String>) -> AckOptions {
        AckOptions { server_name: Some(name.into()), ..self }
    }
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
            server_timeout: Some(Duration::from_secs(10)),
            layout: Layout::U32BE,
            max_message: None,
            server_name: None,
        }
    }
}
