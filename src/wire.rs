//! The wire: pure values, with no input or output. It imports nothing else of this crate.

pub(crate) mod ack; // the hello and its answers
pub(crate) mod count; // numbers with what they count
pub(crate) mod diagnosis; // what an impossible prefix most likely is
pub(crate) mod error;
pub(crate) mod escape; // text that is safe to show
pub(crate) mod frame; // frames as plain bytes
pub(crate) mod io_error; // errors of the system, in our words
pub(crate) mod layout; // how a prefix is written
pub(crate) mod sender_id; // who sends, across reconnections
