//! How a running server is told to reopen its sink.

use smol::channel::{self, Receiver, Sender};

/// Tells the sink of a running server to open again what it writes to: see
/// [`MessageSink::reopen`](crate::sink::MessageSink::reopen).
///
/// All clones are the same.
///
/// # Examples
///
/// ```
/// use framelet::server::Reopen;
///
/// let reopen = Reopen::default();
/// // Give a clone to `Server::reopen`, start the server, and then, from anywhere:
/// reopen.ask();
/// ```
#[derive(Clone, Debug)]
pub struct Reopen {
    // Room for one: who asks again before it is done has asked for the same thing.
    ask: Sender<()>,
    asked: Receiver<()>,
}

impl Default for Reopen {
    fn default() -> Self {
        let (ask, asked) = channel::bounded(1);
        Reopen { ask, asked }
    }
}

impl Reopen {
    /// Asks the sink to open again what it writes to, once it has taken what was received so far. It
    /// does not wait for that.
    pub fn ask(&self) {
        let _ = self.ask.try_send(());
    }

    /// Waits until it was asked for.
    pub(crate) async fn asked(&self) {
        // Cannot fail: a sender is right here.
        let _ = self.asked.recv().await;
    }
}
