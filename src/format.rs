//! Messages as text or bytes outside the wire.

pub(crate) mod input;
pub(crate) mod json; // the payload of an object
pub(crate) mod names; // the formats, and what each is
mod output;
pub(crate) mod standard_streams;
mod undecodable; // why a text cannot be decoded

pub use input::{Composer, InputError, InputFault};
pub use names::{InputFormat, OutputFormat, ParseFormatError};
pub use standard_streams::BlockingFile;
