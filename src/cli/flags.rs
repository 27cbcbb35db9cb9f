//! The command-line option that fixes an error of the library.
//!
//! The library knows no command line. Its errors can be matched, and the target of a log line names the
//! option that the line is about: `framelet::idle_timeout`, or with a value `framelet::layout::u16be`.

use std::io;

use framelet::Layout;
use framelet::client::{AckError, AnswerError};
use framelet::server::ServeError;
use framelet::stream::ReadError;
use framelet::tls::TlsError;
use framelet::wire::{
    EncodeError, Fault, Hello, MAX_PAYLOAD, Plain, ProtocolError, RefusalCode, SenderId, Suspect,
    TooLong,
};

/// Returns the advice to append to a log line with this target.
pub(crate) fn of_target(target: &str) -> Option<String> {
    let option = target.strip_prefix("framelet::")?;
    Some(match option.split_once("::").unwrap_or((option, "")) {
        ("layout", layout) if !layout.is_empty() => format!(": try --layout {layout}"),
        (
            "allow" | "max_connections" | "max_per_address" | "max_message" | "message_timeout"
            | "idle_timeout" | "grace" | "require_ack" | "memory" | "proxy_protocol" | "proxy_from",
            _,
        ) => format!(" (--{})", option.replace('_', "-")),
        _ => return None,
    })
}

/// Returns the error of a stream, with advice.
pub(crate) fn of_stream(error: &ReadError) -> String {
    let layout = error.suspect().and_then(Suspect::layout_name);
    let hint = layout.and_then(|layout| of_target(&format!("framelet::layout::{layout}")));
    format!("{error}{}", hint.unwrap_or_else(|| of_length(error).into()))
}

/// Returns the error of a file in this layout, with advice.
pub(crate) fn of_file(layout: Layout, error: &ReadError) -> String {
    let is_proxy_header =
        matches!(error.suspect(), Some(Suspect::Known(known)) if known.is_proxy_header());
    match error {
        _ if is_proxy_header => format!("{error} (--proxy-protocol)"),
        ReadError::Protocol(first) if first.at.message == 1 => match hello(layout, &first.prefix) {
            Some(len) => {
                let advice =
                    format!("a client that asks for acknowledgements begins so (--skip {len})");
                format!("{error}; {advice}")
            }
            None => of_stream(error),
        },
        error => of_stream(error),
    }
}

/// Returns the length of what a client begins with that asks for acknowledgements, if this is the beginning of it.
fn hello(layout: Layout, prefix: &[u8]) -> Option<usize> {
    let hello = Hello { sender: SenderId::from_bytes([0; 16]), first: 1 }.encode(layout).ok()?;
    (prefix.len() > 1 && hello.starts_with(prefix)).then_some(hello.len())
}

/// Returns the error of what a server sends, with advice.
pub(crate) fn of_reply(error: &ReadError) -> String {
    match error {
        ReadError::Protocol(protocol) if is_tls(protocol) => format!("{error} (--tls)"),
        error => of_stream(error),
    }
}

/// Returns whether the server speaks TLS instead.
pub(crate) fn is_tls(error: &ProtocolError) -> bool {
    matches!(&error.suspect, Some(Suspect::Known(known)) if known.is_tls())
}

/// Returns the error of a stream to a server, with advice if it is one of TLS.
pub(crate) fn of_io(error: &io::Error) -> String {
    let hint = match TlsError::of(error) {
        Some(TlsError::Untrusted(_)) => " (--tls-ca)",
        Some(TlsError::WrongName(_)) => " (--tls-name)",
        Some(TlsError::CertificateRequired) => " (--tls-cert, --tls-key)",
        Some(TlsError::NotTls(_) | TlsError::Cut { handshake: true }) => " (try without --tls)",
        _ => "",
    };
    format!("{}{hint}", Plain(error))
}

/// Returns the advice for a length over the limit, if that is the error.
pub(crate) fn of_length(error: &ReadError) -> &'static str {
    match error {
        ReadError::Protocol(ProtocolError {
            fault: Fault::TooLarge { length, .. },
            suspect: None,
            ..
        }) if *length <= MAX_PAYLOAD as u64 => " (--max-message)",
        _ => "",
    }
}

/// Returns the error of a message that cannot be sent, with advice.
pub(crate) fn of_message(error: &EncodeError) -> String {
    format!("{error}{}", of_encoding(error))
}

/// Returns the advice for a message that cannot be sent.
pub(crate) fn of_encoding(error: &EncodeError) -> &'static str {
    match error {
        EncodeError::TooLong(TooLong { field: None, .. }) => " (--max-message)",
        _ => " (--layout)",
    }
}

/// Returns the error of a server, with advice.
pub(crate) fn of_server(error: &ServeError) -> String {
    match error {
        ServeError::Zero(option) => format!("--{} cannot be zero", option.replace('_', "-")),
        ServeError::Limit(_) => format!("--max-message: {error}"),
        ServeError::Memory { .. } => format!("{error} (--memory, --max-message)"),
        ServeError::AnswerAcks => format!("{error} (--echo, --require-ack)"),
        ServeError::PreambleAcks => format!("{error} (--preamble, --skip, --require-ack)"),
        ServeError::EmptyAcks => format!("{error} (--empty, --require-ack)"),
        ServeError::Acks(_) => format!("{error} (--layout, --require-ack)"),
        ServeError::Unfinished { trouble: None, .. } => format!("{error} (--grace)"),
        _ => error.to_string(),
    }
}

/// Returns the error of a client that asks for acknowledgements, with advice.
pub(crate) fn of_client(error: &AckError) -> String {
    match error {
        AckError::Encode(error) => of_message(error),
        AckError::Random(_) => format!("{error} (--sender)"),
        AckError::Limit(_) => format!("--max-message: {error}"),
        AckError::Layout(_) => format!("{error} (--layout)"),
        AckError::NoAcknowledgements(answer) => match answer {
            AnswerError::Echo => error.to_string(),
            AnswerError::Frame(frame) if is_tls(frame) => format!("{error} (--tls)"),
            // Another protocol, or another layout: the error names it.
            AnswerError::Frame(frame) if frame.suspect.is_some() => error.to_string(),
            _ => format!("{error}; if it does give them, its --layout may be different"),
        },
        AckError::Refused { refusal, .. } => match refusal.code {
            RefusalCode::TooLong => format!("{error} (--max-message of the server)"),
            RefusalCode::Late => format!("{error} (--message-timeout of the server)"),
            RefusalCode::Sender => format!("{error} (--sender, --sender-file)"),
            _ => error.to_string(),
        },
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_names_an_option_is_followed_by_its_flag() {
        for (target, added) in [
            ("framelet::idle_timeout", Some(" (--idle-timeout)")),
            ("framelet::require_ack", Some(" (--require-ack)")),
            ("framelet::proxy_protocol", Some(" (--proxy-protocol)")),
            ("framelet::layout::u32be+self", Some(": try --layout u32be+self")),
            ("framelet", None),
            ("framelet::layout", None),
            ("framelet::server::accept", None),
            ("smol::max_message", None),
        ] {
            assert_eq!(of_target(target).as_deref(), added, "{target}");
        }
    }
}
