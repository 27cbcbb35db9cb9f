//! What holds for every connection. Fuzzers try it with inputs that they invent, and the test below
//! with those in `fuzz/corpus`. It panics if it is false.
//!
//! The server's side of a connection is polled step by step, on one thread and without a clock: what happens next,
//! and how much of it, is in the input. So a failure happens again with the same input.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock, MutexGuard};
use std::thread;

use futures_lite::future;
use smol::channel;

use self::store::{Store, Stored};
use super::commit_queue::{Command, CommandSender, CommitQueue};
use super::connection::Connection;
use super::connection_state::Signal;
use super::handler::{Answering, IntoAnswering, Request};
use super::known_senders::KnownSenders;
use super::open_connection::OpenConnection;
use super::options::Options;
use super::outcome::Outcome;
use super::patience::Patience;
use super::shared::Shared;
use super::turns::{Group, Pending};
use super::writer_thread::{Question, answer, answerable, commit};
use crate::net::byte_stream::{ByteStream, Peer};
use crate::runtime::pipe::{End, Pipe};
use crate::runtime::script::Script;
use crate::runtime::steps::{Begun, Stepped, Steps};
use crate::stream::pool::Charge;
use crate::wire::ack::{FirstBytes, Hello, MOST_MESSAGES};
use crate::wire::answer::{Answer, LONGEST_ANSWER};
use crate::wire::empty_frames::EmptyFrames;
use crate::wire::frame::{append_frame_with_header, whole_frame};
use crate::wire::layout::Layout;
use crate::wire::proxy::{ProxyStart, ProxyVersion, decode};
use crate::wire::sender_id::SenderId;

pub mod proxy; // what holds for every PROXY header
mod store; // a sink in memory

/// The layouts of the connections: those that have acknowledgements come first.
static LAYOUTS: LazyLock<Vec<Layout>> = LazyLock::new(|| {
    let layouts = [
        "u32be",
        "u64le",
        "u32le+self",
        "u8",
        "u16le+self",
        "varint",
        "dec/3a:data:x2c",
        "h1:u32be+self",
        "x0300:u16be+all",
        "u32be:data:x0d0a",
    ];
    layouts.iter().map(|text| text.parse().expect("the listed layouts are valid")).collect()
});

/// The longest message, in bytes.
const LONGEST: usize = 64;

/// The most connections of one server.
const CONNECTIONS: usize = 3;

/// So many steps are enough for every connection to end.
const ENOUGH: usize = 10_000;

/// A connection, and what is known of it from outside.
struct Link {
    end: End,
    open: Arc<OpenConnection>,
    serving: Stepped<Outcome>,
    /// How much of what was written is checked.
    checked: usize,
    /// How many messages the last acknowledgement counts.
    acknowledged: Option<u64>,
}

/// What a peer's bytes are.
#[derive(Default)]
struct Parsed {
    hello: Option<Hello>,
    /// Whether it is a hello that no server understands.
    is_refused: bool,
    /// Header and payload of each message.
    messages: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether nothing but whole messages was sent.
    is_whole: bool,
}

/// Reads the bytes of a peer in one piece.
fn parse(shared: &Shared, sent: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    let mut rest = sent;
    if shared.options.proxy_protocol {
        let Ok(ProxyStart::Header { len, .. }) = decode(rest) else { return parsed };
        rest = &rest[len..];
    }
    let skip = usize::try_from(shared.options.skip).expect("it is short");
    let Some(after) = rest.get(skip..) else {
        // A peer that leaves at once has sent nothing else.
        parsed.is_whole = rest.is_empty();
        return parsed;
    };
    rest = after;
    match Hello::decode(shared.options.layout, rest) {
        _ if !shared.may_have_acks => {}
        FirstBytes::Hello { hello, len, .. } => {
            parsed.hello = Some(hello);
            rest = &rest[len..];
        }
        FirstBytes::Unsupported { .. } => return Parsed { is_refused: true, ..parsed },
        _ => {}
    }
    let skips = shared.options.empty != EmptyFrames::Message && parsed.hello.is_none();
    while let Some(extent) = whole_frame(shared.options.layout, shared.max_message, rest) {
        if !(skips && extent.is_empty(shared.options.layout, rest)) {
            let header = extent.header(shared.options.layout, rest).to_vec();
            parsed.messages.push((header, extent.payload(rest).into()));
        }
        rest = &rest[extent.len..];
    }
    parsed.is_whole = rest.is_empty();
    parsed
}

/// A server without threads.
struct World {
    shared: Arc<Shared>,
    queue: Option<CommitQueue>,
    commands: channel::Receiver<Command>,
    pending: Pending,
    counts_asked: Vec<Question>,
    checksums_asked: Vec<Question>,
    known: KnownSenders,
    store: Store,
    links: Vec<Link>,
    current: usize,
    /// What others hold of the memory, if it is all of it.
    crowd: Option<Charge>,
    steps: Begun,
    /// The content of the next payload.
    next: u8,
    /// Whether anything has happened but bytes that arrive.
    is_disturbed: bool,
}

impl World {
    /// Returns a server with the options that two bytes choose, if there is such a server.
    fn new(choice: u8, layout: u8) -> Option<World> {
        let bit = |bit: u8| choice & (1 << bit) != 0;
        let layout = LAYOUTS[usize::from(layout) % LAYOUTS.len()];
        let later = |request: Request| async move {
            if request.number().is_multiple_of(2) {
                future::yield_now().await;
            }
            request
        };
        let options = Options {
            layout,
            max_message: Some(LONGEST),
            memory: bit(0).then_some(2 * LONGEST),
            message_timeout: None,
            proxy_protocol: bit(1),
            preamble: if bit(2) { b"hi"[..].into() } else { Arc::default() },
            skip: if bit(2) { 3 } else { 0 },
            answering: match (choice >> 3) & 3 {
                0 => Answering::Echo,
                1 => later.into_answering(),
                _ => Answering::Nothing,
            },
            empty: match (choice >> 5) & 3 {
                0 => EmptyFrames::Skip,
                1 => EmptyFrames::Echo,
                _ => EmptyFrames::Message,
            },
            pipeline: 2,
            ..Options::default()
        };
        let shared = Arc::new(Shared::new(options).ok()?);
        let (sender, commands) = channel::bounded(2);
        let queue = Arc::new(CommandSender::new(sender, Arc::default(), thread::current()));
        Some(World {
            shared,
            queue: Some(CommitQueue::new(&queue)).filter(|_| !bit(7) || bit(4)),
            commands,
            pending: Pending::default(),
            counts_asked: Vec::new(),
            checksums_asked: Vec::new(),
            known: KnownSenders::default(),
            store: Store { knows: bit(7), ..Store::default() },
            links: Vec::new(),
            current: 0,
            crowd: None,
            steps: Steps::begin(),
            next: 0,
            is_disturbed: false,
        })
    }

    fn connect(&mut self) {
        if self.links.len() >= CONNECTIONS {
            return;
        }
        let end = End::default();
        end.lock().piece = usize::MAX;
        let open = self.shared.add(&Peer::Unix).expect("there is room");
        let stream = ByteStream::new(end.clone());
        let mut connection = Connection::new(
            Arc::clone(&self.shared),
            Arc::clone(&open),
            stream,
            self.queue.clone(),
        );
        let serving = Stepped::new(async move { connection.run().await });
        self.current = self.links.len();
        self.links.push(Link { end, open, serving, checked: 0, acknowledged: None });
    }

    fn pipe(&self) -> MutexGuard<'_, Pipe> {
        self.links[self.current].end.lock()
    }

    /// Does what one byte of the script says.
    fn act(&mut self, byte: u8, script: &mut Script<'_>) {
        let few = usize::from(byte & 15);
        match byte >> 4 {
            0 => self.send(script.take(few + 1)),
            1 => self.send_message(few),
            2 => self.send_message(few * 5),
            3 => self.send_hello(byte),
            4 => self.send_proxy_header(byte),
            5 => self.arrive((few + 1) * (few + 1)),
            6 => self.pipe().piece = few + 1,
            7 => {
                let mut pipe = self.pipe();
                pipe.room += 1 + 2 * few;
                pipe.wake();
            }
            8 => {
                self.poll(self.current, few == 0);
            }
            9 => (0..=few).for_each(|_| self.step()),
            10 => {
                self.commit(few);
            }
            11 => match few {
                0..8 => self.current = few % self.links.len(),
                _ => self.connect(),
            },
            12 => {
                self.round();
            }
            13 => self.pipe().stalls = few,
            14 if few % 2 == 0 => self.end(),
            14 => {
                self.is_disturbed = true;
                let mut pipe = self.pipe();
                pipe.is_reset = true;
                pipe.wake();
            }
            _ => self.disturb(few),
        }
    }

    /// The peer of the current connection sends bytes, which have not arrived.
    fn send(&mut self, bytes: &[u8]) {
        self.pipe().send(bytes);
    }

    fn send_message(&mut self, len: usize) {
        self.next = self.next.wrapping_add(1);
        let layout = self.shared.options.layout;
        let header = vec![self.next; layout.header_len().unwrap_or(0)];
        let mut frame = Vec::new();
        append_frame_with_header(&mut frame, layout, 256, &header, &vec![self.next; len])
            .expect("the layout has such frames");
        self.send(&frame);
    }

    fn send_hello(&mut self, choice: u8) {
        let sender = SenderId::from_bytes([choice & 1; 16]);
        let after = self.store.last(sender).unwrap_or(0).saturating_add(1);
        let first = [after, after, 1, 0, 5, after.saturating_add(1), MOST_MESSAGES, u64::MAX];
        let hello = Hello { sender, first: first[usize::from((choice >> 1) & 7)] };
        let encode = if choice & 1 == 0 { Hello::encode } else { Hello::encode_resuming };
        if let Ok(hello) = encode(&hello, self.shared.options.layout) {
            self.send(&hello);
        }
    }

    fn send_proxy_header(&mut self, choice: u8) {
        let version = if choice & 1 == 0 { ProxyVersion::V1 } else { ProxyVersion::V2 };
        let address = match choice & 6 {
            0 => None,
            2 => Some(IpAddr::from(Ipv4Addr::LOCALHOST)),
            _ => Some(IpAddr::from(Ipv6Addr::LOCALHOST)),
        };
        let address = address.map(|ip| SocketAddr::new(ip, 4747));
        self.send(&version.header(address.zip(address)));
    }

    fn arrive(&self, bytes: usize) {
        self.pipe().arrive(bytes);
    }

    fn end(&self) {
        self.pipe().has_ended = true;
        self.arrive(usize::MAX);
    }

    fn disturb(&mut self, what: usize) {
        // To wait for memory loses nothing.
        self.is_disturbed |= !matches!(what, 12 | 13);
        let (shared, open) = (&self.shared, &self.links[self.current].open);
        let state = &open.state;
        match what {
            0 => {
                shared.drain();
            }
            1 => shared.call_last(),
            2 => {
                shared.advance();
            }
            3 => state.expire(state.snapshot()),
            4 => {
                state.evict(state.snapshot());
            }
            5 => state.send(Signal::Refused),
            6 => state.send(Signal::Abort),
            7 => {
                self.commands.close();
                shared.signal_all(Signal::SinkFailed);
            }
            8 => self.store.refuses = self.store.knows,
            9..11 => shared.set_shortage(Some(what as u64)),
            11 => shared.set_shortage(None),
            12 | 13 if self.crowd.is_some() => self.crowd = None,
            12 | 13 => {
                let mut all = shared.pool.charge_nothing();
                all.set(shared.pool.limit());
                if what == 13 {
                    all.hold_for_sink();
                }
                self.crowd = Some(all);
            }
            _ => state.wake(),
        }
    }

    /// Polls a connection if it was woken, or `anyway`. Returns whether it was polled.
    fn poll(&mut self, index: usize, anyway: bool) -> bool {
        let link = &mut self.links[index];
        if !link.serving.poll(anyway) {
            return false;
        }
        if link.serving.output.is_some() {
            self.shared.remove(link.open.number);
        }
        self.check_answers(index);
        true
    }

    /// Runs one of the tasks that connections have started.
    fn step(&mut self) {
        self.steps.step();
        (0..self.links.len()).for_each(|index| self.check_answers(index));
    }

    /// Commits what is queued, as the writer thread does, with so many commands at most.
    fn commit(&mut self, most: usize) -> bool {
        let mut taken = 0;
        while taken < most
            && let Ok(command) = self.commands.try_recv()
        {
            taken += 1;
            match command {
                Command::Commit(batch, connection) => self.pending.push(batch, connection),
                Command::Committed(sender, answer) => self.counts_asked.push((sender, answer)),
                Command::LastChecksum(sender, answer) => {
                    self.checksums_asked.push((sender, answer));
                }
                Command::Reopen(request) => request.finish(),
            }
        }
        let mut group = Group::default();
        self.pending.take_group(&mut group);
        let (known, store) = (&mut self.known, &mut self.store);
        let mut patience = Patience::new(Arc::default(), || false);
        if !group.batches.is_empty() {
            commit(store, known, &group, &mut patience, &AtomicBool::new(false))
                .expect("the sink takes everything");
            for (batch, connection) in group.batches.iter().zip(&group.connections) {
                if !batch.is_refused() {
                    connection.commit(batch.len(), group.batches.len() == 1);
                }
            }
        }
        let asked = answerable(&mut self.counts_asked, &self.pending.senders());
        answer(asked, &mut patience, |of| known.committed(of, store)).expect("it answers");
        let asked = answerable(&mut self.checksums_asked, &self.pending.senders());
        answer(asked, &mut patience, |of| known.last_checksums(of, store)).expect("it answers");
        taken > 0
    }

    /// Delivers everything that was sent, and gives each connection and the sink one turn. Returns whether anything
    /// was done.
    fn round(&mut self) -> bool {
        let mut has_done = false;
        for index in 0..self.links.len() {
            self.current = index;
            self.arrive(usize::MAX);
            self.pipe().room = usize::MAX / 2;
            self.pipe().wake();
            has_done |= self.poll(index, false);
        }
        while self.steps.step() {
            has_done = true;
        }
        (0..self.links.len()).for_each(|index| self.check_answers(index));
        self.commit(8) || has_done
    }

    /// Checks what a connection has written since the last check: at each moment, no more is acknowledged than is in
    /// the sink.
    fn check_answers(&mut self, index: usize) {
        let (shared, store, link) = (&self.shared, &self.store, &mut self.links[index]);
        let pipe = link.end.lock();
        if link.checked == pipe.written.len() {
            return;
        }
        let parsed = parse(shared, &pipe.sent);
        let Some(hello) = parsed.hello else { return };
        while let Some(extent) =
            whole_frame(shared.options.layout, LONGEST_ANSWER, &pipe.written[link.checked..])
        {
            let answer = extent.payload(&pipe.written[link.checked..]);
            link.checked += extent.len;
            let count = match Answer::decode(answer).expect("answers are valid") {
                Answer::Acknowledgement(committed) | Answer::Welcome { committed, .. } => committed,
                Answer::Refusal(refusal) => {
                    assert!(!refusal.text.is_empty());
                    continue;
                }
                Answer::Heartbeat => continue,
            };
            assert!(link.acknowledged.is_none_or(|before| before <= count));
            link.acknowledged = Some(count);
            let committed = store.last(hello.sender).unwrap_or(0);
            // What a server knows nothing of is committed if the client says so.
            assert!(count <= committed.max(hello.first.saturating_sub(1)));
        }
    }

    /// Lets everything end, and checks what there is then.
    fn finish(mut self) {
        for index in 0..self.links.len() {
            self.current = index;
            let mut pipe = self.pipe();
            (pipe.piece, pipe.has_ended) = (usize::MAX, true);
            // The last byte of a stream that waits is its end.
            pipe.wake();
        }
        // Everything has arrived, so what waits now waits for memory, and nothing but that wakes it.
        self.round();
        self.crowd = None;
        let ends = (0..ENOUGH).any(|_| !self.round());
        assert!(ends, "the connections never rest");
        for (link, index) in self.links.iter().zip(0..) {
            self.check(link, index);
        }
        let shared = Arc::clone(&self.shared);
        drop(self);
        assert_eq!(shared.pool.held(), 0, "all memory is given back");
        assert!(shared.open().is_empty());
    }

    fn check(&self, link: &Link, index: usize) {
        let pipe = link.end.lock();
        let Some(outcome) = &link.serving.output else {
            let (phase, sent, read) = (link.open.state.phase(), pipe.sent.len(), pipe.read);
            panic!("connection {index} waits, {phase:?}: {read} of {sent} bytes are read");
        };
        let parsed = parse(&self.shared, &pipe.sent);
        let is_of_link = |stored: &&Stored| stored.connection == link.open.number;
        let stored: Vec<&Stored> = self.store.messages.iter().filter(is_of_link).collect();
        let before = link.open.acks().map_or(0, |acks| acks.committed_earlier);
        for ((stored, sent), number) in stored.iter().zip(&parsed.messages).zip(1..) {
            assert_eq!((&stored.header, &stored.payload), (&sent.0, &sent.1));
            assert_eq!(stored.number, before + number);
        }
        assert!(stored.len() <= parsed.messages.len(), "nothing is in the sink that was not sent");
        let is_closed = matches!(outcome, Outcome::Closed);
        if is_closed {
            assert!(parsed.is_whole, "half a message is no end");
            if self.queue.is_some() {
                assert_eq!(
                    stored.len(),
                    parsed.messages.len(),
                    "a clean end says that all is there"
                );
            }
            if parsed.hello.is_some() {
                assert_eq!(link.acknowledged, Some(before + stored.len() as u64));
            }
        }
        let is_alone = index == 0 && self.links.len() == 1 && !self.is_disturbed;
        if is_alone && parsed.hello.is_none() {
            if self.queue.is_some() {
                assert_eq!(stored.len(), parsed.messages.len(), "nothing is lost");
            }
            assert_eq!(is_closed, parsed.is_whole, "only a whole stream has a clean end");
        }
        if parsed.hello.is_none() && !parsed.is_refused {
            self.check_replies(&pipe, &parsed, is_closed);
        }
    }

    /// Checks what was written to a peer that does not ask for acknowledgements: nothing, if the server does not answer.
    fn check_replies(&self, pipe: &Pipe, parsed: &Parsed, is_closed: bool) {
        let shared = &self.shared;
        let preamble =
            &shared.options.preamble[..pipe.written.len().min(shared.options.preamble.len())];
        if !is_closed && !pipe.written.starts_with(preamble) {
            return;
        }
        let mut rest = pipe.written.strip_prefix(preamble).expect("the preamble comes first");
        let mut replies = Vec::new();
        while let Some(extent) = whole_frame(shared.options.layout, LONGEST, rest) {
            if shared.options.empty != EmptyFrames::Echo
                || !extent.is_empty(shared.options.layout, rest)
            {
                replies.push(extent.payload(rest).to_vec());
            }
            rest = &rest[extent.len..];
        }
        assert!(replies.len() <= parsed.messages.len() || !shared.answers());
        for (reply, (_, payload)) in replies.iter().zip(&parsed.messages) {
            assert_eq!(reply, payload);
        }
        match shared.answers() {
            true if is_closed => assert_eq!(replies.len(), parsed.messages.len()),
            true => {}
            false => assert!(replies.is_empty(), "a peer that does not ask is told nothing"),
        }
        assert!(rest.is_empty() || !is_closed);
    }
}

/// Whatever arrives, and however it does: what the sink has of a connection is the beginning of what was sent, in order
/// and once; no more is acknowledged than the sink has; a clean end is one after whole messages that are all in the
/// sink; every connection ends after its peer has left; and then its memory is free.
pub fn connection(input: &[u8]) {
    let mut script = Script(input);
    let Some((choice, layout)) = script.next().zip(script.next()) else { return };
    let Some(mut world) = World::new(choice, layout) else { return };
    world.connect();
    while let Some(byte) = script.next() {
        world.act(byte, &mut script);
    }
    world.finish();
}

#[cfg(test)]
mod tests {
    use crate::runtime::corpus::replay;

    /// P11, as far as it was found.
    #[test]
    fn every_claim_holds_for_each_input_of_its_corpus() {
        replay("connection", super::connection);
        replay("proxy", super::proxy::proxy);
    }
}
