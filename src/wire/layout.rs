//! How a message is framed: what stands before and after its payload, and what the length counts.
//!
//! ```text
//!   u32be                          h1:u32be+self
//!  ┌──────┬────────────┐          ┌────────┬──────┬────────────┐
//!  │ n    │ n bytes    │          │ 1 byte │ n+4  │ n bytes    │
//!  └──────┴────────────┘          └────────┴──────┴────────────┘
//!   prefix  payload                prefix           payload
//! ```
//!
//! `"hello"` as `u32be` is `00 00 00 05  68 65 6c 6c 6f`, as `u32le` it is
//! `05 00 00 00  68 65 6c 6c 6f`, as `u16be+self` it is `00 07  68 65 6c 6c 6f`.
//!
//! This module is pure: no I/O.

mod decoded; // what the first bytes of a frame mean
mod field; // the length field: how a number is written
mod header; // the bytes that a message has beside its payload
mod items; // layouts with more than a length before the payload
#[allow(clippy::module_inception)]
mod layout; // what a frame begins and ends with, and what its length counts
mod lsp; // header lines with Content-Length
mod notation; // the text form of layouts
mod part; // the parts of a frame
mod preset; // names for the layouts of known protocols
#[cfg(test)]
mod tests;

pub use decoded::{Decoded, LineFault, MAX_PAYLOAD, Malformed};
pub use header::Header;
pub use items::LengthCounts;
pub(crate) use layout::PREFIX_ROOM;
pub use layout::{DEFAULT_MAX_MESSAGE, EncodeError, Layout, LimitError, TooLong};
pub use notation::ParseLayoutError;
pub use part::Part;
pub use preset::{PRESETS, Preset};
