//! Messages that have to wait for memory, or that others wait for.

use super::*;

/// A sink that takes nothing as long as somebody holds the other end.
struct Blocks(mpsc::Receiver<()>);

impl MessageSink for Blocks {
    fn commit(&mut self, _: &[crate::Batch]) -> Result<(), SinkError> {
        let _ = self.0.recv();
        Ok(())
    }
}

/// P6. Who sends in time is not ended for what the server has no memory for.
#[test]
fn the_time_until_there_is_memory_is_not_the_senders_fault() {
    // Those that are read straight to their place, and those whose end is in a read buffer meanwhile.
    wait_for_memory(200 * 1024, 4);
    wait_for_memory(100 * 1024, 8);
}

/// Has 8 senders send so many messages of `len` bytes to a server that has memory for few of them.
fn wait_for_memory(len: usize, messages: u64) {
    const SENDERS: u64 = 8;
    let timeout = Duration::from_millis(500);
    let (go_on, wait) = mpsc::channel();
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    let listener = block_on("127.0.0.1:0".parse::<Address>().unwrap().listen()).unwrap();
    let address = listener.address().unwrap().to_string();
    let shutdown = async move {
        let _ = stopped.recv().await;
    };
    let server = Server::new(listener)
        .max_message(len)
        .memory(2 * len)
        .message_timeout(timeout)
        .collect(Blocks(wait));
    let server = smol::spawn(server.run(shutdown));
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let mut client = TcpStream::connect(&address).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            thread::spawn(move || -> io::Result<usize> {
                for _ in 0..messages {
                    client.write_all(&frame(&vec![1; len]))?;
                }
                client.shutdown(Shutdown::Write)?;
                client.read(&mut [0])
            })
        })
        .collect();
    // There is memory for a megabyte of them; the others are under way all this time.
    thread::sleep(4 * timeout);
    drop(go_on);
    for sender in senders {
        assert_eq!(sender.join().unwrap().expect("an orderly end"), 0);
    }
    drop(stop);
    assert_eq!(block_on(server).unwrap().messages, SENDERS * messages);
}

/// Serves the start of `message` while others wait for memory for `ticks`; returns how it ended after more than
/// half a second, if it did.
fn while_others_wait(message: &[u8], ticks: u64, more: usize) -> Option<String> {
    // Of 1 MiB, 600 ms are more than the slack of 1/64.
    let timeout = Some(Duration::from_secs(30));
    let server = server(Options { message_timeout: timeout, ..Options::default() });
    let (mut connection, mut client) = connection(&server, None);
    let origin = Arc::clone(&connection.receiver.connection);
    let (state, socket) = (&origin.state, connection.receiver.reader.get_ref().clone());
    let (start, rest) = message.split_at(1000.min(message.len() - 1));
    server.set_shortage(Some(ticks));
    client.write_all(start).unwrap();
    block_on(async {
        let mut run = Box::pin(connection.run());
        let is_read = || state.phase() == Phase::InMessage && socket.unread() == Some(0);
        serve_until(&mut run, is_read).await;
        Timer::after(Duration::from_millis(600)).await;
        client.write_all(&rest[..more]).unwrap();
        let started = Instant::now();
        while more > 0 && socket.unread() < Some(more as u64) {
            assert!(started.elapsed() < PATIENCE, "it did not come");
        }
        match poll_once(&mut run).await? {
            Outcome::Read(error) => Some(error.to_string()),
            _ => panic!("ended otherwise"),
        }
    })
}

/// P25.
#[test]
fn a_message_that_stalls_gives_way_once_others_have_waited_for_its_memory() {
    let message = frame(&vec![b'm'; 1 << 20]);
    let ended = while_others_wait(&message, STARVED, 0).expect("an end");
    let (before, after) =
        ("message 1 at byte 0: nothing came in ", "ms while others waited for memory: ");
    assert!(ended.starts_with(before) && ended.contains(after), "{ended}");
    assert!(ended.contains("got 1000 of 1048580 bytes"), "{ended}");
    let ended = while_others_wait(&message, STARVED, 1).expect("an end");
    assert!(ended.contains(": only 1 byte came in "), "{ended}");
    // It takes more than a moment, and a pace that is too slow.
    assert_eq!(while_others_wait(&message, STARVED - 1, 0), None);
    assert_eq!(while_others_wait(&message, STARVED, 40_000), None);
    assert_eq!(while_others_wait(&frame(b"short"), STARVED, 0), None);
}

/// P25. The time before its first byte is not a message's own.
#[test]
fn a_message_is_judged_for_its_own_time_only() {
    let server = server(Options::default());
    let (mut connection, mut client) = connection(&server, None);
    let origin = Arc::clone(&connection.receiver.connection);
    let socket = connection.receiver.reader.get_ref().clone();
    let (small, large) = (frame(b"small"), frame(&vec![b'm'; 1 << 20]));
    server.set_shortage(Some(STARVED));
    client.write_all(&small[..6]).unwrap();
    block_on(async {
        let mut run = Box::pin(connection.run());
        serve_until(&mut run, || origin.state.phase() == Phase::InMessage).await;
        Timer::after(Duration::from_millis(600)).await;
        client.write_all(&[&small[6..], &large[..10]].concat()).unwrap();
        serve_until(&mut run, || socket.unread() == Some(0)).await;
        assert!(poll_once(&mut run).await.is_none());
    });
}

/// P25. Of two messages without a share of the memory, one goes over the limit and stalls, and the other one waits
/// for it.
#[test]
fn a_message_that_waits_for_memory_does_not_have_to_give_way() {
    let len = 1 << 20;
    let (max_message, memory) = (Some(len), Some(2 * len));
    let server = server(Options { max_message, memory, ..Options::default() });
    let _full = server.pool.hold_for_peer(len);
    let [(mut first, mut stalls), (mut second, mut waits)] =
        [(); 2].map(|()| connection(&server, None));
    let [over, starves] =
        [&first, &second].map(|connection| Arc::clone(&connection.receiver.connection));
    server.set_shortage(Some(STARVED));
    block_on(async {
        let (mut first, mut second) = (Box::pin(first.run()), Box::pin(second.run()));
        stalls.write_all(&frame(&vec![b'm'; len])[..1000]).unwrap();
        serve_until(&mut first, || over.state.phase() == Phase::InMessage).await;
        waits.write_all(&frame(&vec![b'm'; len])[..1000]).unwrap();
        serve_until(&mut second, || starves.state.phase() == Phase::Starving).await;
        Timer::after(Duration::from_millis(600)).await;
        assert!(poll_once(&mut second).await.is_none());
        assert!(poll_once(&mut first).await.is_some(), "it does not give way");
        // Which makes room.
        serve_until(&mut second, || starves.state.phase() == Phase::InMessage).await;
    });
}

/// The reactor may have to say twice that something has come. That must not cost a place in the line.
#[test]
fn a_reader_that_gets_memory_reads_what_has_come_without_asking_whether_it_has() {
    let server = server(Options::default());
    let (mut connection, mut client) = connection(&server, None);
    let socket = connection.receiver.reader.get_ref().clone();
    let mut arrives = |payload: &[u8]| {
        client.write_all(&frame(payload)).unwrap();
        wait_for_arrival(&socket, payload.len() + 4);
    };
    block_on(async {
        arrives(b"a");
        let read = poll_once(poll_fn(|cx| connection.receiver.poll_arrival(cx))).await;
        assert_eq!(read.map(messages), Some(1));
        assert!(connection.receiver.reader.get_ref().would_block_hint(), "as far as it knows");
        let taken = server.pool.lend(Buffer::from(&vec![0; 64 << 20][..]));
        arrives(b"b");
        assert!(poll_once(poll_fn(|cx| connection.receiver.poll_arrival(cx))).await.is_none());
        assert!(connection.receiver.reader.waits_for_memory());
        drop(taken);
        let read = poll_once(poll_fn(|cx| connection.receiver.poll_arrival(cx))).await;
        assert_eq!(read.map(messages), Some(1), "it has its turn");
    });
}

/// The kernel does not report the middle of a large message before there is much of it, or all.
#[test]
fn what_the_log_says_of_a_message_includes_what_the_kernel_has_not_reported() {
    let server = server(Options::default());
    for gives_way in [true, false] {
        server.set_shortage(None);
        let (mut connection, mut client) = connection(&server, None);
        let origin = Arc::clone(&connection.receiver.connection);
        let (state, socket) = (&origin.state, connection.receiver.reader.get_ref().clone());
        let message = frame(&vec![b'm'; 1 << 20]);
        // The second one has a buffer for all of it, that of the first one.
        let (start, rest) = ([&message[..], &message[..1000]].concat(), message[1000..].to_vec());
        let started = thread::spawn(move || client.write_all(&start).map(|()| client));
        block_on(async {
            let mut run = Box::pin(connection.run());
            let is_read = || state.phase() == Phase::InMessage && socket.unread() == Some(0);
            serve_until(&mut run, || started.is_finished() && is_read()).await;
            let mut client = started.join().unwrap().unwrap();
            client.write_all(&rest[..100_000]).unwrap();
            let started = Instant::now();
            while socket.unread() < Some(100_000) {
                assert!(started.elapsed() < PATIENCE, "it did not come");
            }
            match gives_way {
                true => {
                    server.set_shortage(Some(STARVED));
                    assert!(poll_once(&mut run).await.is_none());
                    assert_eq!(socket.unread(), Some(100_000));
                    Timer::after(Duration::from_millis(600)).await;
                }
                false => state.expire(state.snapshot()),
            }
            let Some(Outcome::Read(error)) = poll_once(&mut run).await else { panic!("not ended") };
            let error = error.to_string();
            let why = if gives_way { "nothing came in " } else { "not complete within 30s" };
            assert!(error.contains(why), "{error}");
            assert!(error.contains("got 101000 of 1048580 bytes"), "{error}");
        });
    }
}
