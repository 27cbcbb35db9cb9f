//! The wire: pure values, with no input or output. It imports nothing else of this crate.

pub(crate) mod ack; // the hello
pub(crate) mod answer; // its answers
pub(crate) mod count; // "1 message", "2 messages"
pub(crate) mod detect; // where the first message begins, and in which layouts
pub(crate) mod diagnosis; // what an impossible prefix most likely is
pub(crate) mod empty_frames; // what an empty frame is
pub(crate) mod error;
pub(crate) mod escape; // text that is safe to show
pub(crate) mod evidence; // what is known of a failed stream
pub(crate) mod frame; // frames as plain bytes
pub(crate) mod io_error; // operating system errors, in this crate's style
pub(crate) mod judge; // which layouts read a stream
pub(crate) mod layout; // how a message is framed
pub(crate) mod packed; // MessagePack and CBOR
pub(crate) mod proxy; // whom a load balancer says it speaks for
pub(crate) mod sender_id; // who sends, across reconnections
pub(crate) mod shape; // which protocol the frames show
pub(crate) mod signature; // what shows other protocols
pub(crate) mod similar; // the word that was probably meant
pub(crate) mod stray; // a few bytes too many or too few
pub(crate) mod structure; // what shows protocols without fixed first bytes
pub(crate) mod suspect; // what a failed stream most likely is
pub(crate) mod text; // what text looks like

pub use ack::{FirstBytes, Hello, UnsupportedLayout};
pub use answer::{Answer, InvalidAnswer, Refusal, RefusalCode};
pub use count::Count;
pub use detect::{CERTAIN, Detected, detect};
pub use empty_frames::EmptyFrames;
pub use error::{Fault, Position, ProtocolError};
pub use escape::{Escaped, WithoutPassword};
pub use frame::{append_frame, append_frame_with_header};
pub use io_error::Plain;
pub use judge::{Candidate, JUDGED, judge};
pub use layout::{
    DEFAULT_MAX_MESSAGE, Decoded, EncodeError, Header, Layout, LengthCounts, LimitError, LineFault,
    MAX_PAYLOAD, Malformed, PRESETS, ParseLayoutError, Part, Preset, TooLong,
};
pub use proxy::ProxyVersion;
pub use sender_id::{ParseSenderIdError, SenderId};
pub use signature::Known;
pub use suspect::{Cause, Suspect};
