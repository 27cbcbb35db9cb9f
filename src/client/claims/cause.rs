//! Why a client may fail.

use super::link::Known;
use super::server::Causes;
use crate::client::ack_error::{AckError, AnswerError};
use crate::client::window::CountFault;
use crate::wire::answer::{Refusal, RefusalCode};
use crate::wire::sender_id::SenderId;

/// What is known of a client that has failed, and of its server.
pub(super) struct Facts<'a> {
    pub(super) sender: Option<SenderId>,
    /// Whether it was without a connection for as long as it may be.
    pub(super) has_tried: bool,
    /// How many messages it has taken in all.
    pub(super) sent: u64,
    pub(super) known: Known,
    /// Whether the server has answered on the last connection.
    pub(super) is_answered: bool,
    pub(super) causes: &'a Causes,
}

impl Facts<'_> {
    fn is_for(&self, id: SenderId) -> bool {
        self.sender.is_none_or(|sender| sender == id)
    }

    /// Checks that the server has given cause for an error.
    pub(super) fn check(&self, error: &AckError) {
        match error {
            AckError::Refused { refusal, sender } => {
                assert!(self.is_for(*sender) && self.causes.refusals.contains(refusal));
                let of_code = |other: &&Refusal| other.code == refusal.code;
                match refusal.code {
                    RefusalCode::Shutdown | RefusalCode::Sink => assert!(self.has_tried),
                    RefusalCode::Fenced | RefusalCode::Late => {
                        assert!(
                            self.has_tried
                                || self.causes.refusals.iter().filter(of_code).count() > 1
                        );
                    }
                    _ => {}
                }
            }
            AckError::Behind { server, committed, sent, sender } => {
                assert!(self.causes.replaced && self.is_for(*sender));
                assert_eq!((*committed, *sent), (self.known.committed, self.sent));
                assert!(server + self.known.lost < *committed);
            }
            AckError::Lost { error, sent, committed, sender } => {
                assert!(!error.to_string().contains("a bug"), "{error}");
                assert!(self.has_tried && self.is_for(*sender));
                assert_eq!((*committed, *sent), (self.known.committed, self.sent));
            }
            AckError::NoAcknowledgements(AnswerError::Io(_)) => {
                assert!(self.has_tried && !self.known.is_connected && !self.is_answered);
            }
            AckError::NoAcknowledgements(_) => {
                assert!(self.causes.garbled && !self.known.is_connected)
            }
            AckError::Protocol { error: AnswerError::Count(fault), sender } => {
                assert!(self.is_for(*sender));
                match fault {
                    CountFault::Backwards { .. } => assert!(self.causes.counted_back),
                    CountFault::Beyond { .. } => {
                        assert!(self.causes.counted_too_far || self.causes.replaced);
                    }
                    CountFault::Unclear { .. } => assert!(self.known.lost > 0),
                }
            }
            AckError::Protocol { error, .. } => {
                assert!(self.causes.garbled && !matches!(error, AnswerError::Io(_)));
            }
            other => panic!("there was no cause for {other}"),
        }
    }
}
