//! A model of the server: as simple as can be, and able to do everything wrong.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::caller::{Desk, EARLIER, LONGEST};
use super::link::{Known, Link};
use crate::client::ack_options::AckOptions;
use crate::runtime::pipe::End;
use crate::runtime::steps::Steps;
use crate::wire::ack::{MOST_MESSAGES, checksum};
use crate::wire::answer::{Answer, Refusal, RefusalCode};
use crate::wire::frame::append_frame;
use crate::wire::layout::Layout;
use crate::wire::sender_id::SenderId;

/// More messages than any input makes.
const FAR: u64 = 1_000_000;

/// For how long a client remembers that it was fenced.
const MINUTE: Duration = Duration::from_secs(60);

/// What the server has of the sender.
#[derive(Debug)]
pub(super) struct Database {
    /// How many messages it has that are not from this client.
    pub(super) base: u64,
    /// The client's numbers of the messages after these.
    pub(super) messages: Vec<u64>,
    /// Whether it knows the sender. Otherwise it trusts the client.
    pub(super) knows: bool,
}

impl Database {
    fn count(&self) -> u64 {
        self.base + self.messages.len() as u64
    }
}

/// What the server has done that is the cause of an error.
#[derive(Default)]
pub(super) struct Causes {
    pub(super) garbled: bool,
    pub(super) counted_too_far: bool,
    pub(super) counted_back: bool,
    /// Whether it was replaced by a server that has other messages.
    pub(super) replaced: bool,
    pub(super) refusals: Vec<Refusal>,
}

pub(super) struct Server {
    layout: Layout,
    renumber: bool,
    server_timeout: Option<Duration>,
    /// Whether it says how many messages it has, where it should refuse the client.
    is_lenient: bool,
    clock: Steps,
    pub(super) database: Database,
    pub(super) links: Vec<Link>,
    /// The connection whose hello came last.
    holder: Option<usize>,
    sender: Option<SenderId>,
    /// How many messages it has ever counted as committed, in the client's numbers.
    pub(super) vouched: u64,
    /// The client's numbers of those that some database got, or was said to have.
    pub(super) stored: BTreeSet<u64>,
    pub(super) causes: Causes,
    /// Whether a message was refused as late since the client has got on.
    was_late: bool,
    /// Whether the client has renumbered its messages, and was not answered since.
    has_renumbered: bool,
    /// When the client has last read that it is fenced.
    fenced: Option<Instant>,
}

impl Server {
    pub(super) fn new(
        options: &AckOptions,
        is_lenient: bool,
        clock: Steps,
        database: Database,
    ) -> Server {
        let replaced = options.committed > database.base;
        Server {
            layout: options.layout,
            renumber: options.renumber,
            server_timeout: options.server_timeout,
            is_lenient,
            clock,
            database,
            links: Vec::new(),
            holder: None,
            sender: options.sender,
            vouched: options.committed,
            stored: BTreeSet::new(),
            causes: Causes { replaced, ..Causes::default() },
            was_late: false,
            has_renumbered: false,
            fenced: None,
        }
    }

    pub(super) fn newest(&mut self) -> Option<&mut Link> {
        self.links.last_mut()
    }

    /// The client has made a connection.
    pub(super) fn accept(&mut self, end: End, mut known: Known) {
        let now = self.clock.now();
        if let Some(before) = self.links.last() {
            if !known.is_connected {
                // Nobody can see it yet.
                known.lost = before.lost_by_refusal().unwrap_or(before.known.lost);
            }
            before.check_left(known);
            let renumbers = before.lost_by_refusal().is_some();
            assert!(!(renumbers && self.has_renumbered), "nothing is renumbered twice in a row");
            self.has_renumbered = before.base.is_none() && (renumbers || self.has_renumbered);
            match before.refused.zip(before.read_refusal) {
                Some((RefusalCode::Late, _)) => {
                    assert!(!self.was_late, "a message that is late twice is given up");
                    self.was_late = true;
                }
                Some((RefusalCode::Fenced, at)) => {
                    let before = self.fenced.replace(at);
                    let soon = |before| at.saturating_duration_since(before) <= MINUTE;
                    assert!(!before.is_some_and(soon), "another client has the sender id");
                }
                _ => {}
            }
        }
        self.links.push(Link::new(end, known, now));
    }

    /// The client has got on.
    pub(super) fn progressed(&mut self) {
        self.was_late = false;
    }

    /// Looks at what the client has done in its last step.
    pub(super) fn observe(&mut self, known: Known) {
        let (now, layout, timeout) = (self.clock.now(), self.layout, self.server_timeout);
        if let Some(link) = self.newest() {
            link.observe(layout, known, now, timeout);
        }
    }

    /// Returns whether the server has answered on the last connection.
    pub(super) fn is_answered(&self) -> bool {
        self.links.last().is_some_and(|link| link.heard > 0)
    }

    /// Looks at a client that has nothing to do.
    pub(super) fn check_rest(&self, desk: &Desk) {
        if let Some(link) = self.links.last() {
            link.check_written(self.layout, desk);
        }
    }

    /// Returns whether the client has a connection on which the server has answered.
    pub(super) fn is_connected(&self) -> bool {
        self.is_answered() && self.links.last().is_some_and(|link| link.end.is_shared())
    }

    /// Reads so many bytes of a connection.
    pub(super) fn receive(&mut self, index: usize, most: usize, desk: &Desk) {
        let layout = self.layout;
        let Some(link) = self.links.get_mut(index) else { return };
        link.receive(most);
        if let Some(hello) = link.read_hello(layout) {
            let sender = *self.sender.get_or_insert(hello.sender);
            assert_eq!(hello.sender, sender);
            let known = link.known;
            assert_eq!(hello.first, known.committed - known.lost + 1, "what it still has");
        }
        link.read_messages(layout, desk);
    }

    /// Answers the hello of the newest connection, or acknowledges what is committed.
    pub(super) fn acknowledge(&mut self) {
        let Some(index) = self.links.len().checked_sub(1) else { return };
        let is_holder = self.holder == Some(index);
        let link = &self.links[index];
        let Some(hello) = link.hello.filter(|_| !link.is_spoiled) else { return };
        if is_holder {
            let count = self.database.count();
            self.vouch(count);
            self.links[index].said = Some(count);
            self.say(index, &Answer::Acknowledgement(count));
            return;
        }
        if !self.database.knows {
            self.database.base = hello.first - 1;
            self.database.knows = true;
        }
        let count = self.database.count();
        let (known, is_resuming) = (link.known, link.is_resuming);
        if hello.first > count + 1 && !self.is_lenient {
            self.refuse(RefusalCode::Gap);
            return;
        }
        // The earlier connections are fenced.
        self.holder = Some(index);
        let own = count + known.lost;
        let is_final = match own.cmp(&known.committed) {
            Ordering::Less => !self.renumber,
            Ordering::Equal => false,
            Ordering::Greater => known.lost > 0,
        };
        if !is_final {
            self.vouch(count);
            for number in known.committed + 1..=own.min(known.committed + FAR) {
                if self.causes.replaced {
                    self.stored.insert(number);
                } else {
                    assert!(!known.is_connected || self.stored.contains(&number));
                }
            }
        }
        let last = match (&*self.database.messages, count) {
            ([], 1..) => Some(EARLIER),
            _ => None,
        };
        let answer = match last.filter(|_| is_resuming) {
            Some(last) => Answer::Welcome { committed: count, checksum: checksum(last) },
            None => Answer::Acknowledgement(count),
        };
        self.say(index, &answer);
        let link = &mut self.links[index];
        link.welcomed(count, matches!(answer, Answer::Welcome { .. }), is_final);
    }

    fn vouch(&mut self, count: u64) {
        let lost = self.links.last().map_or(0, |link| link.lost.unwrap_or(link.known.lost));
        self.vouched = self.vouched.max(count + lost);
    }

    /// Commits so many of the messages that it has received.
    pub(super) fn commit(&mut self, most: u64) {
        let Some(link) = self.holder.map(|index| &self.links[index]) else { return };
        let (Some(base), Some(lost)) = (link.base, link.lost) else { return };
        for _ in 0..most {
            let next = self.database.count() + 1;
            if next > base + link.received_messages {
                break;
            }
            if let Some(last) = self.database.messages.last() {
                assert_eq!(next + lost, last + 1, "each message, and once");
            }
            self.database.messages.push(next + lost);
            self.stored.insert(next + lost);
        }
    }

    fn say(&mut self, index: usize, answer: &Answer) {
        let mut frame = Vec::new();
        append_frame(&mut frame, self.layout, usize::MAX >> 8, &answer.encode())
            .expect("the layout has such frames");
        self.links[index].say(&frame);
    }

    pub(super) fn heartbeat(&mut self) {
        if let Some(index) = self.links.len().checked_sub(1)
            && !self.links[index].is_spoiled
        {
            self.say(index, &Answer::Heartbeat);
        }
    }

    /// Refuses the newest connection.
    pub(super) fn refuse(&mut self, code: RefusalCode) {
        let Some(index) = self.links.len().checked_sub(1) else { return };
        let link = &self.links[index];
        if link.is_spoiled {
            return;
        }
        let count = self.database.count();
        let (known, is_gap) = (link.known, code == RefusalCode::Gap);
        // Only for a gap does a server have to know how many it has.
        let committed = if is_gap || self.holder == Some(index) { count } else { 0 };
        if committed > 0 {
            self.vouch(committed);
        }
        let text = format!("no {}", self.causes.refusals.len());
        let refusal = Refusal { committed, code, text };
        self.causes.refusals.push(refusal.clone());
        self.say(index, &Answer::Refusal(refusal));
        let renumbers = is_gap && self.renumber && count + known.lost < known.committed;
        let passes = matches!(
            code,
            RefusalCode::Shutdown | RefusalCode::Sink | RefusalCode::Fenced | RefusalCode::Late
        );
        let link = &mut self.links[index];
        (link.is_spoiled, link.may_be_left, link.refused) = (true, true, Some(code));
        if renumbers {
            link.gap = Some(count);
        } else if !passes {
            link.is_final_here();
        }
    }

    /// Says a count that no server can have: too many, or fewer than before.
    pub(super) fn lie(&mut self, back: bool) {
        let Some(index) = self.links.len().checked_sub(1) else { return };
        let link = &self.links[index];
        if link.is_spoiled {
            return;
        }
        let is_first = link.base.is_none();
        let count = match (back, link.base.unwrap_or(0).checked_sub(1)) {
            (true, Some(less)) if link.known.committed == less + 1 + link.known.lost => less,
            (true, _) => return,
            // Nearly any text would be such a count, if it is the first.
            _ if is_first => MOST_MESSAGES + 1,
            _ => MOST_MESSAGES,
        };
        self.causes.counted_back |= back;
        self.causes.counted_too_far |= !back && !is_first;
        self.causes.garbled |= is_first;
        self.say(index, &Answer::Acknowledgement(count));
        let link = &mut self.links[index];
        (link.is_spoiled, link.may_be_left) = (true, true);
        link.is_final_here();
    }

    /// Sends what is no answer.
    pub(super) fn garble(&mut self, kind: usize, bytes: &[u8]) {
        let layout = self.layout;
        let Some(link) = self.newest().filter(|link| !link.is_spoiled) else { return };
        let garbage = match kind {
            // Too short for an answer.
            0..=3 if !bytes.is_empty() => {
                let mut frame = Vec::new();
                append_frame(&mut frame, layout, LONGEST, &bytes[..bytes.len().min(7)])
                    .expect("the layout has such frames");
                frame
            }
            4 => b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            5 => b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
            6 => b"\x15\x03\x03\x00\x02\x02\x28".to_vec(),
            7 => link.end.lock().written.clone(),
            _ => [&[0xff; 8], bytes].concat(),
        };
        link.end.lock().send(&garbage);
        (link.is_spoiled, link.may_be_left) = (true, true);
        self.causes.garbled = true;
    }

    /// The server ends, and all its connections with it. Another one takes its place.
    pub(super) fn replace(&mut self, what: usize, few: u64) {
        for link in &mut self.links {
            link.close(what >= 8);
        }
        self.holder = None;
        let count = self.database.count();
        let base = match what & 7 {
            // An empty database, or one that has lost the last messages.
            0 => 0,
            1 => count.saturating_sub(1 + few),
            // Somebody else has used the sender id.
            2 => count + 1 + few,
            // A server that knows no sender.
            3 => {
                self.database = Database { base: 0, messages: Vec::new(), knows: false };
                self.causes.replaced = true;
                return;
            }
            // The same database.
            _ => return,
        };
        self.database = Database { base, messages: Vec::new(), knows: true };
        self.causes.replaced = true;
    }

    /// Does all that a good server does at once. Returns whether that was anything.
    pub(super) fn serve(&mut self, desk: &Desk) -> bool {
        let Some(index) = self.links.len().checked_sub(1) else { return false };
        let before = self.links[index].state();
        self.receive(index, usize::MAX, desk);
        self.commit(u64::MAX);
        if self.links[index].said != Some(self.database.count()) {
            self.acknowledge();
        }
        let link = &mut self.links[index];
        link.finish();
        link.state() != before
    }
}
