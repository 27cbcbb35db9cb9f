//! What can be chosen about a client with acknowledgements.

use std::time::Duration;

use crate::wire::layout::Layout;
use crate::wire::sender_id::SenderId;

/// How an [`AckClient`](crate::AckClient) works.
#[derive(Clone, Debug)]
pub struct AckOptions {
    /// Who it is; `None` stands for a new random id. With the id of an earlier client it goes on where
    /// the server says that one got to: see
    /// [`AckClient::matches_last_committed`](crate::AckClient::matches_last_committed).
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
