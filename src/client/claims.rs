//! What holds for every client with acknowledgements. A fuzzer tries it with inputs that it invents, and the test below
//! with those in `fuzz/corpus`. It panics if it is false.
//!
//! The client is driven step by step over streams in memory, on one thread, and time passes only when the input says
//! so. At the other end is a model of a server. What happens next, and how much of it, is in the input. So a failure
//! happens again with the same input.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use self::caller::{Desk, EARLIER, LONGEST, Order, call};
use self::cause::Facts;
use self::link::Known;
use self::network::{Door, Network};
use self::server::{Database, Server};
use super::ack_error::AckError;
use super::ack_options::AckOptions;
use crate::runtime::pipe::Pipe;
use crate::runtime::script::Script;
use crate::runtime::steps::{Begun, Stepped, Steps};
use crate::wire::answer::RefusalCode;
use crate::wire::layout::Layout;
use crate::wire::sender_id::SenderId;

mod caller; // the program that uses the client
mod cause; // why a client may fail
mod link; // a connection, as the server sees it
mod network; // how the client gets its connections
mod server; // a model of a server

/// The layouts that have acknowledgements.
static LAYOUTS: LazyLock<Vec<Layout>> = LazyLock::new(|| {
    let layouts = [
        "u32be",
        "u64le",
        "u32le+self",
        "u64be+self",
        "u32le",
        "u64be",
        "u32be+self",
        "u64le+self",
    ];
    layouts.iter().map(|text| text.parse().expect("the listed layouts are valid")).collect()
});

/// So many rounds are enough for every client to end.
const ENOUGH: usize = 4000;

/// How long a step may take, in milliseconds.
const TIMES: [u64; 16] =
    [1, 10, 25, 50, 100, 250, 400, 500, 1000, 1250, 2000, 3000, 5000, 10_000, 30_000, 61_000];

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finale {
    /// The server does everything right.
    Served,
    /// There is no server any more.
    Alone,
    /// The server says nothing more, and takes connections only if it did so before.
    Silent,
}

struct World {
    options: AckOptions,
    finale: Finale,
    steps: Begun,
    network: Network,
    desk: Rc<RefCell<Desk>>,
    caller: Stepped<Option<Result<(), AckError>>>,
    server: Server,
    /// What the client has said of itself last.
    known: Known,
    /// The connection on which the client heard how many messages the server has.
    first_link: Option<usize>,
    /// How long there was no connection since messages were last committed.
    gap: Duration,
}

impl World {
    /// Returns a client with the options that three bytes choose, and a server.
    fn new(choice: u8, sizes: u8, numbers: u8) -> World {
        // Waits between attempts have a random part.
        fastrand::seed(0);
        let bit = |bit: u8| choice & (1 << bit) != 0;
        let pick = |byte: u8, shift: u8| usize::from((byte >> shift) & 3);
        let base = [0_u64, 1, 3, 1000][pick(numbers, 0)];
        let seconds = Duration::from_secs;
        let options = AckOptions::new()
            .layout(LAYOUTS[usize::from(choice & 7)])
            .renumber(bit(3))
            .sender(bit(4).then_some(SenderId::from_bytes([7; 16])))
            .committed([0, base, base + 2, base.saturating_sub(1)][pick(numbers, 2)])
            .window([1, 2, 5, 4000][pick(sizes, 0)])
            .window_bytes([1, 40, 120, 1 << 20][pick(sizes, 2)])
            .retry([0, 1, 30, 100].map(seconds)[pick(sizes, 4)])
            .server_timeout(
                [None, Some(1), Some(4), Some(10)].map(|s| s.map(seconds))[pick(sizes, 6)],
            )
            .max_message(LONGEST);
        let finale = match ((choice >> 5) & 3, options.server_timeout) {
            (0 | 1, _) => Finale::Served,
            (2, Some(_)) => Finale::Silent,
            _ => Finale::Alone,
        };
        let (steps, network, desk) = (Steps::begin(), Network::default(), Rc::default());
        network.lock().room = if bit(7) { 0 } else { usize::MAX / 2 };
        let knows = numbers & 16 == 0;
        let database = Database { base: if knows { base } else { 0 }, messages: Vec::new(), knows };
        let known = Known { committed: options.committed, lost: 0, is_connected: false };
        World {
            caller: Stepped::new(call(Rc::clone(&desk), network.clone(), options.clone())),
            server: Server::new(&options, numbers & 32 != 0, (*steps).clone(), database),
            options,
            finale,
            steps,
            network,
            desk,
            known,
            first_link: None,
            gap: Duration::ZERO,
        }
    }

    /// Does what one byte of the script says.
    fn act(&mut self, byte: u8, script: &mut Script<'_>) {
        let few = usize::from(byte & 15);
        match byte >> 4 {
            0 => {
                let len = [20, 40, LONGEST, LONGEST + 1].get(few.wrapping_sub(12));
                self.desk.borrow_mut().order(Order::Send(*len.unwrap_or(&few)));
            }
            1 => self.order(few),
            2 => {
                self.call(few == 0);
            }
            3 => (0..=few).for_each(|_| {
                self.step();
            }),
            4 => {
                let index = self.server.links.len().saturating_sub(1 + (few >> 3));
                self.server.receive(index, ((few & 7) + 1).pow(2), &self.desk.borrow());
            }
            5 => {
                self.server.commit(few as u64 + 1);
            }
            6 => match few {
                0..8 => self.server.acknowledge(),
                _ => self.server.heartbeat(),
            },
            7 => self.arrive((few + 1).pow(2)),
            8 => self.pipe(|pipe| pipe.piece = if few == 15 { usize::MAX } else { few + 1 }),
            9 => self.make_room(few),
            10 => {
                let code = RefusalCode::from_byte(byte & 15).unwrap_or(RefusalCode::Shutdown);
                self.server.refuse(code);
            }
            11 => self.network.set([Door::Open, Door::Refusing, Door::Hanging][few % 3]),
            12 => self.pass(Duration::from_millis(TIMES[few])),
            13 if few < 8 => self.pipe(|pipe| pipe.stalls = few),
            13 => self.pipe(|pipe| pipe.lags = few - 8),
            14 => self.disturb(few, script),
            _ if few < 4 => {
                self.wait();
            }
            _ => {
                self.round();
            }
        }
        self.check();
    }

    fn order(&mut self, few: usize) {
        let sent = self.sent();
        let mut desk = self.desk.borrow_mut();
        match few {
            0..8 => desk.order(Order::Wait(sent + few as u64)),
            8..11 => desk.order(Order::Finish),
            15 => desk.order(Order::Leave),
            _ => desk.cancel(),
        }
    }

    /// Returns how many messages the client has taken in all.
    fn sent(&self) -> u64 {
        match &self.desk.borrow().connected {
            Some(connected) => connected.progress.sent(),
            None => self.options.committed,
        }
    }

    /// Changes the newest connection.
    fn pipe(&mut self, change: impl FnOnce(&mut Pipe)) {
        if let Some(link) = self.server.newest() {
            let mut pipe = link.end.lock();
            change(&mut pipe);
            pipe.wake();
        }
    }

    fn arrive(&mut self, bytes: usize) {
        self.pipe(|pipe| pipe.arrive(bytes));
    }

    fn make_room(&mut self, few: usize) {
        match few {
            0 => self.network.lock().room = 0,
            1 => self.network.lock().room = usize::MAX / 2,
            2 => self.pipe(|pipe| pipe.room = 0),
            _ => self.pipe(|pipe| pipe.room = pipe.room.saturating_add(few * few)),
        }
    }

    fn disturb(&mut self, few: usize, script: &mut Script<'_>) {
        match few {
            0..2 => {
                if let Some(link) = self.server.newest() {
                    link.close(few == 1);
                }
            }
            2 => {
                if let Some(link) = self.server.newest() {
                    link.deafen();
                }
            }
            8 => {
                if let Some(link) = self.server.newest() {
                    link.cut();
                }
            }
            3..5 => self.server.lie(few == 3),
            5..8 => {
                let what = usize::from(script.next().unwrap_or(0));
                self.server.replace(what, (what >> 4) as u64);
            }
            _ => {
                let kind = usize::from(script.next().unwrap_or(0) & 15);
                self.server.garble(kind, script.take(few - 8));
            }
        }
    }

    /// Polls the caller if it was woken, or `anyway`. Returns whether it was polled.
    fn call(&mut self, anyway: bool) -> bool {
        let sent = self.desk.borrow().sent.len();
        let had_none = self.known.committed == self.sent();
        if !self.caller.poll(anyway) {
            return false;
        }
        let now = self.steps.now();
        if had_none
            && sent < self.desk.borrow().sent.len()
            && let Some(link) = self.server.newest().filter(|link| link.lost.is_some())
        {
            // From now on, the silence of the server counts.
            link.last_sign = now;
        }
        self.check();
        true
    }

    /// Polls a task of the client that was woken. Returns whether there was one.
    fn step(&mut self) -> bool {
        let mut stepped = self.steps.step();
        if self.desk.borrow().connected.is_none() {
            // Only then there is something to look at.
            stepped |= self.caller.poll(false);
        }
        self.look();
        stepped
    }

    /// Looks at what the client has done in its last step.
    fn look(&mut self) {
        let known = match &self.desk.borrow().connected {
            Some(connected) => Known {
                committed: connected.progress.committed(),
                lost: connected.progress.lost(),
                is_connected: true,
            },
            None => self.known,
        };
        assert!(known.committed >= self.known.committed && known.lost >= self.known.lost);
        if known.is_connected && self.first_link.is_none() {
            self.first_link = self.server.links.len().checked_sub(1);
            self.gap = Duration::ZERO;
            self.server.progressed();
        }
        if known.committed > self.known.committed {
            self.gap = Duration::ZERO;
        }
        if known.committed > self.known.committed || known.committed == self.sent() {
            self.server.progressed();
        }
        if !self.options.renumber {
            assert_eq!(known.lost, 0);
        }
        self.known = known;
        self.server.observe(known);
        let made = std::mem::take(&mut self.network.lock().made);
        for end in made {
            self.server.accept(end, known);
        }
        self.check();
    }

    /// Checks what holds at each moment.
    fn check(&self) {
        let desk = self.desk.borrow();
        let Some(connected) = &desk.connected else { return };
        let (committed, sent) = (connected.progress.committed(), connected.progress.sent());
        assert_eq!(sent, connected.resume_from + desk.sent.len() as u64);
        assert!(committed <= sent);
        assert!(committed <= self.server.vouched, "only what is committed is called so");
        let width = self.options.layout.width().unwrap_or(0);
        let first = usize::try_from(committed - connected.resume_from).expect("it is in memory");
        let waiting = &desk.sent[first..];
        let bytes: usize = waiting.iter().map(|payload| width + payload.len()).sum();
        assert!(waiting.len() <= self.options.window);
        assert!(waiting.len() <= 1 || bytes <= self.options.window_bytes);
        if self.caller.is_woken() || self.caller.output.is_some() {
            return;
        }
        match desk.doing {
            Some(Order::Send(len)) => {
                let is_full = waiting.len() == self.options.window
                    || bytes + width + len > self.options.window_bytes;
                assert!(!waiting.is_empty() && is_full, "it waits only while the window is full");
            }
            Some(Order::Wait(number)) => assert!(committed < number, "it waits for nothing"),
            _ => {}
        }
    }

    fn pass(&mut self, time: Duration) {
        if !self.server.is_connected() {
            self.gap += time;
        }
        self.steps.pass(time);
    }

    /// Lets as much time pass as something in the client waits for.
    fn wait(&mut self) -> bool {
        let Some(time) = self.steps.next_due() else { return false };
        self.pass(time);
        true
    }

    /// The server does everything right, and everybody gets a turn. Returns whether anything was done.
    fn round(&mut self) -> bool {
        let served = self.server.serve(&self.desk.borrow());
        self.work() || served
    }

    /// Everybody but the server gets turns until there is nothing to do without it. Returns whether there was.
    fn work(&mut self) -> bool {
        let mut has_done = false;
        for _ in 0..ENOUGH {
            let stepped = self.step();
            if !(self.call(false) || stepped) {
                self.server.check_rest(&self.desk.borrow());
                return has_done;
            }
            has_done = true;
        }
        panic!("the client never rests");
    }

    /// Lets everything end, and checks what there is then.
    fn finish(mut self) {
        self.work();
        {
            let mut desk = self.desk.borrow_mut();
            desk.orders.retain(|order| !matches!(order, Order::Wait(_)));
            if matches!(desk.doing, Some(Order::Wait(_))) {
                desk.cancel();
            }
            desk.order(Order::Finish);
        }
        match self.finale {
            Finale::Served => self.network.set(Door::Open),
            Finale::Alone => self.network.set(Door::Refusing),
            // As it is.
            Finale::Silent => {}
        }
        if self.finale == Finale::Alone {
            self.server.links.iter_mut().for_each(|link| link.close(true));
        }
        let (begun, mut rounds) = (self.steps.now(), 0);
        while self.caller.output.is_none() {
            rounds += 1;
            assert!(rounds < ENOUGH, "the client does not end");
            let has_done = match self.finale {
                Finale::Served => self.round(),
                _ => self.work(),
            };
            if has_done {
                continue;
            }
            if self.finale == Finale::Served {
                let is_live = self.server.newest().is_some_and(|link| link.is_live());
                assert!(!is_live, "there is nothing to wait for");
            }
            assert!(self.wait(), "the client waits for ever");
        }
        let took = self.steps.now().saturating_duration_since(begun);
        let timeout = self.options.server_timeout.unwrap_or_default();
        match self.finale {
            Finale::Served => {}
            Finale::Alone => assert!(took <= self.options.retry + Duration::from_millis(1)),
            Finale::Silent => assert!(took <= self.options.retry + 3 * timeout),
        }
        self.check_end();
    }

    fn check_end(mut self) {
        self.work();
        let held = self.server.links.iter().any(|link| link.end.is_shared());
        assert!(!held, "a client that was dropped has no connection");
        assert_eq!(self.steps.next_due(), None);
        self.check_beginning();
        match self.caller.output.take().expect("the caller has ended") {
            None => {}
            Some(Ok(())) => self.check_delivered(),
            Some(Err(error)) => self.check_error(&error),
        }
    }

    /// Checks what the client knows of the messages of an earlier one.
    fn check_beginning(&self) {
        let desk = self.desk.borrow();
        let Some(connected) = &desk.connected else { return };
        let first = &self.server.links[self.first_link.expect("there was a connection")];
        assert_eq!(first.is_resuming, self.options.sender.is_some());
        let base = first.base.expect("it has one");
        assert_eq!(connected.resume_from, base.max(self.options.committed));
        let had_checksum = first.had_checksum && base >= self.options.committed;
        assert_eq!(connected.matches, [true, !had_checksum], "{EARLIER:?}");
    }

    /// Checks that all messages are where they should be.
    fn check_delivered(&self) {
        let (desk, server) = (self.desk.borrow(), &self.server);
        let connected = desk.connected.as_ref().expect("it was connected");
        let sent = connected.progress.sent();
        for number in connected.resume_from + 1..=sent {
            assert!(server.stored.contains(&number), "message {number} is nowhere");
        }
        if !server.causes.replaced {
            let numbers: Vec<u64> = (connected.resume_from + 1..=sent).collect();
            assert_eq!(server.database.messages, numbers);
        }
    }

    /// Checks that the server has given cause for an error.
    fn check_error(&self, error: &AckError) {
        // Nobody else can see what is lost before there was a connection.
        let lost = match self.server.links.last() {
            Some(link) if !self.known.is_connected => link.known.lost,
            _ => self.known.lost,
        };
        let facts = Facts {
            sender: self.options.sender,
            has_tried: self.gap >= self.options.retry,
            sent: self.sent(),
            known: Known { lost, ..self.known },
            is_answered: self.server.is_answered(),
            causes: &self.server.causes,
        };
        facts.check(error);
    }
}

/// Whatever the server and the network do: a server has each message once, in order and unaltered, as long as it keeps
/// what it has; the client calls no message committed that is not; it ends, with an error only if there was cause for
/// it; it waits for nothing that has happened; and it keeps to its window.
pub fn client(input: &[u8]) {
    let mut script = Script(input);
    let (Some(choice), Some(sizes), Some(numbers)) = (script.next(), script.next(), script.next())
    else {
        return;
    };
    let mut world = World::new(choice, sizes, numbers);
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
        replay("client", super::client);
    }
}
