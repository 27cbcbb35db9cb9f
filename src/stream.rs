//! Messages over any stream of bytes.

pub(crate) mod arrival; // messages or heartbeats
mod counted_reader; // the reader's buffered source
pub(crate) mod error;
pub(crate) mod frame_queue; // frames waiting to be written
pub(crate) mod framed; // both directions of one stream
mod framing; // room for the bytes around a payload
mod inquiry; // what is still read of a stream that has failed
pub(crate) mod payloads; // messages that were read together
pub(crate) mod pool; // all memory that holds received bytes
pub(crate) mod reader; // from bytes to messages
pub(crate) mod writer; // from messages to bytes

pub use arrival::Arrival;
pub use error::{ReadError, WriteError};
pub use framed::Framed;
pub use payloads::{Messages, PayloadIter, Payloads};
pub use reader::FrameReader;
pub use writer::FrameWriter;
