//! Which sender ids a client may use.

use crate::wire::escape::Escaped;
use crate::wire::sender_id::SenderId;

/// Sender ids must begin with the common name of the client's certificate.
#[derive(Clone, Debug)]
pub(crate) struct SenderRule {
    common_name: String,
}

impl SenderRule {
    pub(super) fn new(common_name: Option<String>) -> SenderRule {
        SenderRule { common_name: common_name.unwrap_or_default() }
    }

    pub(crate) fn allows(&self, sender: SenderId) -> bool {
        let begin = self.common_name.to_ascii_lowercase();
        // Nobody's name allows nothing, and not everything.
        !begin.is_empty() && sender.to_string().starts_with(&begin)
    }

    /// Returns why a sender is refused.
    pub(crate) fn refusal(&self) -> String {
        match self.common_name.is_empty() {
            true => "the certificate of the client has no common name, so it can be no sender here"
                .into(),
            false => format!(
                "sender ids must begin with the common name of the client's certificate, which is {}",
                Escaped(self.common_name.as_bytes())
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_id_begins_with_the_common_name_or_is_refused() {
        let id: SenderId = "00c0ffee000000000000000000000001".parse().unwrap();
        for (common_name, allowed) in [
            (Some("00c0ffee"), true),
            (Some("00C0FFEE"), true),
            (Some("00c0ffee000000000000000000000001"), true),
            (Some("0c0ffee"), false),
            (Some("00c0ffee0000000000000000000000010"), false),
            (Some("router7"), false),
            (Some(""), false),
            (None, false),
        ] {
            let rule = SenderRule::new(common_name.map(str::to_owned));
            assert_eq!(rule.allows(id), allowed, "{common_name:?}");
        }
    }

    #[test]
    fn a_refusal_shows_no_control_characters_of_a_certificate() {
        let refusal = SenderRule::new(Some("\u{1b}[2J\r\n\u{202e}7".to_owned())).refusal();
        assert!(refusal.ends_with(r"which is \u{1b}[2J\r\n\u{202e}7"), "{refusal}");
    }
}
