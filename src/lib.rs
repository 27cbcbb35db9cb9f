//! Whole messages over TCP.
#![doc = "WIP"]

mod diagnosis;
mod error;
mod escape;
mod layout;
mod pool;
mod reader;
mod source;
mod writer;

pub use diagnosis::Suspect;
pub use error::{Fault, Position, ProtocolError, ReadError};
pub use escape::Escaped;
pub use layout::{Decoded, Layout, MAX_PAYLOAD, Malformed, ParseLayoutError, Prefix, TooLong};
pub use reader::{DEFAULT_MAX_MESSAGE, FrameReader, LimitError, Payloads};
pub use writer::{FrameWriter, WriteError};
