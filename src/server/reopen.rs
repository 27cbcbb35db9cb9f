//! Makes a running server reopen its sink.

use smol::channel::{self, Receiver, Sender};

/// Asks the sink of a running server to reopen its output, for example after log rotation: see
/// [`MessageSink::reopen`](crate::sink::MessageSink::reopen).
///
/// Clones share the same request.
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
    // Room for one: a second request before the first is handled asks for the same thing.
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
    /// Asks the sink to reopen its output, after it has committed what was received so far. Does not wait
    /// for that.
    pub fn ask(&self) {
        let _ = self.ask.try_send(());
    }

    /// Waits for the next request.
    pub(crate) async fn asked(&self) {
        // Cannot fail: `self` holds a sender.
        let _ = self.asked.recv().await;
    }
}
