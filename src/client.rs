//! Sends messages to a server.

pub(crate) mod ack_client; // sends until everything is committed
pub(crate) mod ack_error;
pub(crate) mod ack_options;
mod answers; // reads what the server answers
#[cfg(any(test, fuzzing))]
pub mod claims; // what holds for every `AckClient`
#[allow(clippy::module_inception)]
pub(crate) mod client;
mod delivery; // what a caller and its driver share
mod driver; // the connections of an `AckClient`
pub(crate) mod error; // of a client without acknowledgements
mod handshake; // the first answer of a server
mod sending; // writes what is in the window
pub(crate) mod window; // messages that are not acknowledged yet

pub use ack_client::{AckClient, AckProgress};
pub use ack_error::{AckError, AnswerError};
pub use ack_options::AckOptions;
pub use client::Client;
pub use error::{FinishError, RequestError};
pub use window::CountFault;
