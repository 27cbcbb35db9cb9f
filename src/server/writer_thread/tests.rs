use std::sync::atomic::AtomicU64;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Barrier, Mutex};

use futures_lite::future::{block_on, poll_once};

use super::*;
use crate::message::Origin;
use crate::message::tests::{batch, origin};
use crate::net::byte_stream::Peer;
use crate::server::open_connection::OpenConnection;
use crate::wire::ack::checksum;
use crate::wire::answer::RefusalCode;

/// What a sink was told, in order.
type Told = Arc<Mutex<Vec<String>>>;

/// A sink that notes what it is told.
struct Notes(Told);

impl MessageSink for Notes {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
        for message in batches.iter().flat_map(Batch::messages) {
            let payload = String::from_utf8_lossy(message.payload);
            self.0.lock().unwrap().push(format!("{} {payload}", message.number));
        }
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), SinkError> {
        self.0.lock().unwrap().push("reopen".into());
        Ok(())
    }
}

/// A connection: where its messages come from, and what becomes of them.
struct Connection(Arc<Origin>, Arc<OpenConnection>);

impl Connection {
    fn batch(&self, payloads: &[&[u8]]) -> Batch {
        batch(&self.0, payloads)
    }

    fn committed(&self) -> u64 {
        self.1.committed()
    }
}

fn connection(sender: Option<(SenderId, u64)>) -> Connection {
    let open = OpenConnection::new(7, Peer::Unix);
    if let Some((_, before)) = sender {
        open.acknowledge_from(before);
    }
    Connection(origin(sender), Arc::new(open))
}

fn queue(queue: &CommitQueue, from: &Connection, payloads: &[&[u8]]) {
    assert!(queue.send(from.batch(payloads), &from.1).is_none());
}

#[test]
fn messages_that_a_sender_repeats_are_committed_once() {
    let told = Told::default();
    let mut writer = WriterThread::start(Box::new(Notes(Arc::clone(&told)))).unwrap();
    let to_sink = writer.queue();
    let sender = SenderId::from_bytes([1; 16]);
    let (first, again) = (connection(Some((sender, 0))), connection(Some((sender, 1))));
    queue(&to_sink, &first, &[b"a", b"b", b"c"]);
    // The connection is lost, and the sender knows of one message only.
    queue(&to_sink, &again, &[b"b", b"c", b"d"]);
    queue(&to_sink, &connection(Some((sender, 2))), &[b"c", b"d"]);
    assert_eq!(block_on(to_sink.committed(sender)).unwrap(), Some(4));
    assert_eq!(block_on(to_sink.committed(SenderId::from_bytes([2; 16]))).unwrap(), None);
    // Without a sender everything is new.
    queue(&to_sink, &connection(None), &[b"b"]);
    block_on(writer.finish()).unwrap();
    assert_eq!(*told.lock().unwrap(), ["1 a", "2 b", "3 c", "4 d", "1 b"]);
    // For the connection, what was skipped is committed.
    assert_eq!((first.committed(), again.committed(), writer.uncommitted()), (3, 3, 0));
}

#[test]
fn trouble_that_passes_is_waited_for_and_nothing_is_lost_or_doubled() {
    /// A sink that is away twice once it may go on, and refuses the last batch meanwhile.
    struct Away(Arc<Barrier>, u32, Notes);

    impl MessageSink for Away {
        fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
            self.1 += 1;
            match self.1 {
                1 => {
                    self.0.wait();
                    self.0.wait();
                }
                2 => batches.last().unwrap().refuse(RefusalCode::Fenced),
                _ => {}
            }
            match self.1 {
                2 | 3 => Err(SinkError::Transient(io::Error::other("it is away"))),
                _ => self.2.commit(batches),
            }
        }
    }

    let (told, barrier) = (Told::default(), Arc::new(Barrier::new(2)));
    let sink = Away(Arc::clone(&barrier), 0, Notes(Arc::clone(&told)));
    let mut writer = WriterThread::start(Box::new(sink)).unwrap();
    let to_sink = writer.queue();
    let [one, two] = [1, 2].map(|id| SenderId::from_bytes([id; 16]));
    let (first, second) = (connection(Some((one, 0))), connection(Some((two, 0))));
    queue(&to_sink, &connection(None), &[b"0"]);
    // The first commit has begun with that one alone.
    barrier.wait();
    queue(&to_sink, &first, &[b"a", b"b"]);
    queue(&to_sink, &second, &[b"c"]);
    barrier.wait();
    block_on(writer.finish()).unwrap();
    let told = told.lock().unwrap();
    assert_eq!(*told, ["1 0", "1 a", "2 b"]);
    assert_eq!((first.committed(), second.committed()), (2, 0));
    assert_eq!(writer.trouble(), None);
}

#[test]
fn what_a_sink_waits_for_is_known_while_it_waits() {
    /// A sink that is away until somebody lets it come back.
    struct Away(std::sync::mpsc::Receiver<()>);

    impl MessageSink for Away {
        fn commit(&mut self, _: &[Batch]) -> Result<(), SinkError> {
            let back = self.0.try_recv();
            back.map_err(|_| SinkError::Transient(io::Error::other("it is away")))
        }
    }

    let (come_back, back) = std::sync::mpsc::channel();
    let mut writer = WriterThread::start(Box::new(Away(back))).unwrap();
    assert_eq!(writer.trouble(), None);
    queue(&writer.queue(), &connection(None), &[b"a"]);
    let started = std::time::Instant::now();
    while writer.trouble().as_deref() != Some("it is away") {
        assert!(started.elapsed().as_secs() < 30, "{:?}", writer.trouble());
        thread::yield_now();
    }
    come_back.send(()).unwrap();
    block_on(writer.finish()).unwrap();
    assert_eq!((writer.trouble(), writer.uncommitted()), (None, 0));
}

#[test]
fn a_sink_in_trouble_opens_again_what_it_writes_to_without_waiting_for_its_turn() {
    /// A sink whose file is gone until it is reopened.
    struct Gone(Arc<Barrier>, bool, Notes);

    impl MessageSink for Gone {
        fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
            if self.1 {
                return self.2.commit(batches);
            }
            self.0.wait();
            Err(SinkError::Transient(io::Error::other("it was deleted")))
        }

        fn reopen(&mut self) -> Result<(), SinkError> {
            self.1 = true;
            self.2.reopen()
        }
    }

    let (told, barrier) = (Told::default(), Arc::new(Barrier::new(2)));
    let sink = Gone(Arc::clone(&barrier), false, Notes(Arc::clone(&told)));
    let mut writer = WriterThread::start(Box::new(sink)).unwrap();
    let (to_sink, origin) = (writer.queue(), connection(None));
    queue(&to_sink, &origin, &[b"a"]);
    // The order is given while the first attempt is under way.
    block_on(writer.reopen(&Reopen::default()));
    barrier.wait();
    block_on(writer.finish()).unwrap();
    // And once more when its turn comes.
    assert_eq!(*told.lock().unwrap(), ["reopen", "1 a", "reopen"]);
    assert_eq!(origin.committed(), 1);
}

#[test]
fn what_a_sink_refuses_is_not_taken_for_committed() {
    /// A sink that refuses what it does not like, and knows nothing of senders.
    struct Choosy;

    impl MessageSink for Choosy {
        fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
            for batch in batches.iter().filter(|batch| batch.messages().any(|m| m.payload == b"b"))
            {
                batch.refuse(RefusalCode::Sink);
            }
            Ok(())
        }
    }

    let mut writer = WriterThread::start(Box::new(Choosy)).unwrap();
    let to_sink = writer.queue();
    let sender = SenderId::from_bytes([1; 16]);
    queue(&to_sink, &connection(Some((sender, 0))), &[b"a"]);
    assert_eq!(block_on(to_sink.committed(sender)).unwrap(), Some(1));
    queue(&to_sink, &connection(Some((sender, 1))), &[b"b"]);
    // The client knows how far it has come, and nobody else.
    assert_eq!(block_on(to_sink.committed(sender)).unwrap(), None);
    block_on(writer.finish()).unwrap();
    assert_eq!(writer.uncommitted(), 0);
}

#[test]
fn a_question_whose_asker_is_gone_is_not_passed_on() {
    /// A sink that counts questions, and commits only once it is told to.
    struct Asked(std::sync::mpsc::Receiver<()>, Arc<AtomicU64>);

    impl MessageSink for Asked {
        fn commit(&mut self, _: &[Batch]) -> Result<(), SinkError> {
            Ok(self.0.recv().map_err(io::Error::other)?)
        }

        fn committed(&mut self, _: SenderId) -> Result<Option<u64>, SinkError> {
            Ok(Some(self.1.fetch_add(1, Ordering::SeqCst)))
        }
    }

    let ((go_on, wait), asked) = (std::sync::mpsc::channel(), Arc::<AtomicU64>::default());
    let mut writer = WriterThread::start(Box::new(Asked(wait, Arc::clone(&asked)))).unwrap();
    let to_sink = writer.queue();
    let sender = SenderId::from_bytes([1; 16]);
    queue(&to_sink, &connection(Some((sender, 0))), &[b"a"]);
    let mut given_up = Box::pin(to_sink.committed(sender));
    assert!(block_on(poll_once(&mut given_up)).is_none());
    drop(given_up);
    go_on.send(()).unwrap();
    assert_eq!(block_on(to_sink.committed(sender)).unwrap(), Some(0));
    block_on(writer.finish()).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn questions_among_messages_are_asked_at_once_after_one_commit() {
    /// A sink that waits in its first commit, and notes how much it is asked at once.
    struct Asked(Arc<Barrier>, Told);

    impl MessageSink for Asked {
        fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
            let mut told = self.1.lock().unwrap();
            told.push(format!("commit {}", batches.len()));
            if told.len() == 1 {
                drop(told);
                self.0.wait();
                self.0.wait();
            }
            Ok(())
        }

        fn committed_by_each(
            &mut self,
            senders: &[SenderId],
        ) -> Result<Vec<Option<u64>>, SinkError> {
            self.1.lock().unwrap().push(format!("asked for {}", senders.len()));
            Ok(senders.iter().map(|sender| Some(sender.as_bytes()[0].into())).collect())
        }
    }

    let (told, barrier) = (Told::default(), Arc::new(Barrier::new(2)));
    let sink = Asked(Arc::clone(&barrier), Arc::clone(&told));
    let mut writer = WriterThread::start(Box::new(sink)).unwrap();
    let (to_sink, origin) = (writer.queue(), connection(None));
    queue(&to_sink, &origin, &[b"a"]);
    barrier.wait();
    let mut questions: Vec<_> = (1..=3)
        .map(|id| {
            queue(&to_sink, &origin, &[b"a"]);
            let mut question = Box::pin(to_sink.committed(SenderId::from_bytes([id; 16])));
            assert!(block_on(poll_once(&mut question)).is_none());
            question
        })
        .collect();
    // Its caller has stopped waiting for the answer.
    drop(questions.remove(1));
    barrier.wait();
    let answers: Vec<_> =
        questions.into_iter().map(|question| block_on(question).unwrap()).collect();
    assert_eq!(answers, [Some(1), Some(3)]);
    block_on(writer.finish()).unwrap();
    assert_eq!(*told.lock().unwrap(), ["commit 1", "commit 3", "asked for 2"]);
}

#[test]
fn a_question_waits_for_the_messages_of_its_own_sender_and_for_no_others() {
    /// A sink that waits in its first two commits, and notes what it is told and asked.
    struct Asked(Arc<Barrier>, Told, u64);

    impl Asked {
        fn note(&self, what: &str, senders: &[SenderId]) {
            let ids: Vec<u8> = senders.iter().map(|sender| sender.as_bytes()[0]).collect();
            self.1.lock().unwrap().push(format!("{what} of {ids:?}"));
        }
    }

    impl MessageSink for Asked {
        fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
            let messages = batches.iter().map(Batch::len).sum::<usize>();
            self.2 += messages as u64;
            let mut told = self.1.lock().unwrap();
            told.push(format!("commit {messages}"));
            if told.len() <= 2 {
                drop(told);
                self.0.wait();
                self.0.wait();
            }
            Ok(())
        }

        fn committed_by_each(
            &mut self,
            senders: &[SenderId],
        ) -> Result<Vec<Option<u64>>, SinkError> {
            self.note("counts", senders);
            Ok(vec![Some(self.2); senders.len()])
        }

        fn last_checksums(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
            self.note("checksums", senders);
            Ok(vec![Some(self.2); senders.len()])
        }
    }

    let (told, barrier) = (Told::default(), Arc::new(Barrier::new(2)));
    let sink = Asked(Arc::clone(&barrier), Arc::clone(&told), 0);
    let mut writer = WriterThread::start(Box::new(sink)).unwrap();
    let to_sink = writer.queue();
    let [one, two, three] = [1, 2, 3].map(|id| SenderId::from_bytes([id; 16]));
    queue(&to_sink, &connection(Some((one, 0))), &[b"a"]);
    barrier.wait();
    // Two of them are as much as a commit takes.
    for before in [1, 12_001, 24_001] {
        queue(&to_sink, &connection(Some((one, before))), &[&b"a"[..]; 12_000]);
    }
    let mut counts = [one, two].map(|sender| Box::pin(to_sink.committed(sender)));
    let mut checksums = [one, two].map(|sender| Box::pin(to_sink.last_checksum(sender)));
    counts.iter_mut().for_each(|count| assert!(block_on(poll_once(count)).is_none()));
    checksums.iter_mut().for_each(|sum| assert!(block_on(poll_once(sum)).is_none()));
    barrier.wait();
    barrier.wait();
    // Asked while the first question still waits.
    let mut later = Box::pin(to_sink.committed(three));
    assert!(block_on(poll_once(&mut later)).is_none());
    barrier.wait();
    assert_eq!(counts.map(|count| block_on(count).unwrap()), [Some(36_001), Some(24_001)]);
    assert_eq!(checksums.map(|sum| block_on(sum).unwrap()), [Some(36_001), Some(24_001)]);
    assert_eq!(block_on(later).unwrap(), Some(36_001));
    block_on(writer.finish()).unwrap();
    let expected = [
        "commit 1",
        "commit 24000",
        "counts of [2]",
        "checksums of [2]",
        "commit 12000",
        "counts of [1, 3]",
        "checksums of [1]",
    ];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[test]
fn the_checksum_of_the_last_message_is_known_after_what_was_queued_before() {
    let mut writer = WriterThread::start(Box::new(Notes(Told::default()))).unwrap();
    let (to_sink, sender) = (writer.queue(), SenderId::from_bytes([1; 16]));
    assert_eq!(block_on(to_sink.last_checksum(sender)).unwrap(), None);
    let origin = connection(Some((sender, 0)));
    for payloads in [&[&b"a"[..]][..], &[b"a", b"b"]] {
        queue(&to_sink, &origin, payloads);
    }
    assert_eq!(block_on(to_sink.last_checksum(sender)).unwrap(), Some(checksum(b"b")));
    block_on(writer.finish()).unwrap();
}

#[test]
fn what_waits_for_room_counts_unless_its_sender_goes_on_elsewhere() {
    /// A sink that waits, as long as somebody holds the other end.
    struct Waits(std::sync::mpsc::Receiver<()>);

    impl MessageSink for Waits {
        fn commit(&mut self, _: &[Batch]) -> Result<(), SinkError> {
            let _ = self.0.recv();
            Ok(())
        }
    }

    for (order, left) in [(Signal::Refused, 0), (Signal::Abort, 1)] {
        let (go_on, wait) = std::sync::mpsc::channel();
        let mut writer = WriterThread::start(Box::new(Waits(wait))).unwrap();
        let (to_sink, origin) = (writer.queue(), connection(None));
        let sending = loop {
            if let Some(sending) = to_sink.send(origin.batch(&[b"a"]), &origin.1) {
                break sending;
            }
        };
        origin.1.state.send(order);
        drop(sending);
        drop(go_on);
        block_on(writer.finish()).unwrap();
        assert_eq!(writer.uncommitted(), left, "{order:?}");
    }
}

#[test]
fn the_next_message_is_looked_for_after_a_single_one_of_a_client_that_waits() {
    let sender = connection(Some((SenderId::from_bytes([1; 16]), 5)));
    let plain = connection(None);
    let group = |batches: &[(&Connection, &[&[u8]])]| Group {
        batches: batches.iter().map(|(from, payloads)| from.batch(payloads)).collect(),
        connections: batches.iter().map(|(from, _)| Arc::clone(&from.1)).collect(),
    };
    let one: &[&[u8]] = &[b"a"];
    assert!(!is_single_message(&group(&[])));
    assert!(!is_single_message(&group(&[(&plain, one)])));
    sender.1.acks().unwrap().set_received(3);
    sender.1.commit(2, true);
    assert!(!is_single_message(&group(&[(&sender, one)])), "another one has come");
    sender.1.commit(1, true);
    assert!(is_single_message(&group(&[(&sender, one)])));
    assert!(!is_single_message(&group(&[(&sender, &[b"a", b"b"])])));
    assert!(!is_single_message(&group(&[(&sender, one), (&sender, one)])));
}

#[test]
fn the_thread_ends_once_nobody_can_reach_it() {
    /// A sink that says when it is dropped.
    struct Leaves(#[allow(dead_code)] std::sync::mpsc::Sender<()>);

    impl MessageSink for Leaves {
        fn commit(&mut self, _: &[Batch]) -> Result<(), SinkError> {
            Ok(())
        }
    }

    for _ in 0..100 {
        let (leaves, left) = std::sync::mpsc::channel();
        let writer = WriterThread::start(Box::new(Leaves(leaves))).unwrap();
        let to_sink = writer.queue();
        queue(&to_sink, &connection(None), &[b"a"]);
        assert_eq!(block_on(to_sink.committed(SenderId::from_bytes([1; 16]))).unwrap(), None);
        drop(writer);
        drop(to_sink);
        let patience = std::time::Duration::from_secs(30);
        assert_eq!(left.recv_timeout(patience), Err(RecvTimeoutError::Disconnected));
    }
}

/// A log is rotated, or a client connects, while there is too much for one commit.
#[test]
fn a_question_or_an_order_does_not_wait_for_what_comes_meanwhile() {
    /// A sink that waits in its first two commits, and notes how much there is in each.
    struct Waits(Arc<Barrier>, Told);

    impl MessageSink for Waits {
        fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
            let messages: usize = batches.iter().map(Batch::len).sum();
            let mut told = self.1.lock().unwrap();
            told.push(format!("commit {messages}"));
            if told.len() <= 2 {
                drop(told);
                self.0.wait();
                self.0.wait();
            }
            Ok(())
        }

        fn committed(&mut self, _: SenderId) -> Result<Option<u64>, SinkError> {
            self.1.lock().unwrap().push("asked".into());
            Ok(None)
        }

        fn reopen(&mut self) -> Result<(), SinkError> {
            self.1.lock().unwrap().push("reopen".into());
            Ok(())
        }
    }

    for what in ["asked", "reopen"] {
        let (told, barrier) = (Told::default(), Arc::new(Barrier::new(2)));
        let sink = Waits(Arc::clone(&barrier), Arc::clone(&told));
        let mut writer = WriterThread::start(Box::new(sink)).unwrap();
        let (to_sink, origin) = (writer.queue(), connection(None));
        queue(&to_sink, &origin, &[b"a"]);
        barrier.wait();
        let many = origin.batch(&[&b"a"[..]; 12_000]);
        // Two of them are as much as a commit takes.
        for _ in 0..3 {
            assert!(to_sink.send(many.clone(), &origin.1).is_none());
        }
        let mut question = Box::pin(to_sink.committed(SenderId::from_bytes([1; 16])));
        match what {
            "asked" => assert!(block_on(poll_once(&mut question)).is_none()),
            _ => block_on(writer.reopen(&Reopen::default())),
        }
        barrier.wait();
        barrier.wait();
        queue(&to_sink, &origin, &[b"b"]);
        barrier.wait();
        block_on(writer.finish()).unwrap();
        let expected: &[&str] = match what {
            // The flood is not the asking sender's, so the question does not wait for the rest of it.
            "asked" => &["commit 1", "commit 24000", what, "commit 12001"],
            _ => &["commit 1", "commit 24000", "commit 12000", what, "commit 1"],
        };
        assert_eq!(*told.lock().unwrap(), expected);
    }
}

#[test]
fn what_is_taken_up_while_a_sink_is_slow_is_no_more_than_a_queue_full() {
    /// A sink that waits in each commit, as long as somebody holds the other end.
    struct Waits(Arc<Barrier>, std::sync::mpsc::Receiver<()>);

    impl MessageSink for Waits {
        fn commit(&mut self, _: &[Batch]) -> Result<(), SinkError> {
            if self.1.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                self.0.wait();
                self.0.wait();
            }
            Ok(())
        }
    }

    let (held, hold) = std::sync::mpsc::channel();
    let barrier = Arc::new(Barrier::new(2));
    let mut writer = WriterThread::start(Box::new(Waits(Arc::clone(&barrier), hold))).unwrap();
    let (to_sink, origin) = (writer.queue(), connection(None));
    // A third of a queue full is as much as a commit takes.
    let many = origin.batch(&[&b"a"[..]; 100]);
    queue(&to_sink, &origin, &[b"a"]);
    barrier.wait();
    for _ in 0..2 {
        (0..LENGTH).for_each(|_| assert!(to_sink.send(many.clone(), &origin.1).is_none()));
        barrier.wait();
        barrier.wait();
    }
    // The first queue full was taken up, and of the second as much as is committed of the first.
    let committed = usize::try_from(origin.committed()).unwrap() / 100;
    assert_eq!(committed, 327);
    let room = (0..).take_while(|_| to_sink.send(many.clone(), &origin.1).is_none()).count();
    assert_eq!(room, committed);
    drop(held);
    barrier.wait();
    block_on(writer.finish()).unwrap();
}

#[test]
fn questions_and_orders_keep_their_place_among_the_messages() {
    let told = Told::default();
    let mut writer = WriterThread::start(Box::new(Notes(Arc::clone(&told)))).unwrap();
    let (to_sink, origin) = (writer.queue(), connection(None));
    let mut expected = Vec::new();
    for _ in 0..100 {
        queue(&to_sink, &origin, &[b"a"]);
        block_on(writer.reopen(&Reopen::default()));
        expected.extend(["1 a".to_owned(), "reopen".to_owned()]);
    }
    block_on(writer.finish()).unwrap();
    assert_eq!(*told.lock().unwrap(), expected);
}
