use super::*;
use crate::stream::counted_reader::tests::{Chunks, cx};
use crate::stream::pool::{BUFFER, Buffer, HeldForPeer};

const MIB: usize = 1 << 20;

fn reader<R>(pool: &Pool, inner: R) -> FrameReader<R> {
    FrameReader::in_pool(inner, Layout::U32BE, 8 * MIB, pool.clone())
}

/// Returns a frame of zeros, each four of which would be a message where it is not begun at its start.
fn frame(len: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    crate::wire::append_frame(&mut frame, Layout::U32BE, 8 * MIB, &vec![0; len]).unwrap();
    frame
}

#[test]
fn a_reader_knows_what_has_come_and_whether_it_waits_for_the_rest() {
    let frame = frame(10);
    for given in 0..=14 {
        let mut chunks = vec![frame.clone()];
        chunks.extend(frame[..given].chunks(3).map(<[u8]>::to_vec));
        let mut reader = reader(&Pool::unbounded(), Chunks(chunks.into()));
        assert!(reader.poll_message(&mut cx()).is_ready());
        assert_eq!(reader.poll_message(&mut cx()).is_ready(), given == 14);
        assert_eq!(reader.received(), 14 + given as u64);
        assert_eq!(reader.waits_for_bytes(), (1..14).contains(&given), "{given}");
        assert_eq!((reader.missing(), reader.waits_for_memory()), (None, false));
    }
}

/// Returns two large messages under way, the second of which waits for memory, since the first one is over
/// the limit.
fn two_large_messages() -> (HeldForPeer, [FrameReader<Chunks>; 2]) {
    let pool = Pool::new(64 * MIB, 0);
    let held = pool.hold_for_peer(40 * MIB);
    let frames = [frame(10), frame(2 * MIB)].concat();
    let readers = [(); 2].map(|()| {
        let chunks = [&frames[..16], &frames[16..][..BUFFER]].map(<[u8]>::to_vec);
        let mut reader = reader(&pool, Chunks(chunks.into()));
        assert!(reader.poll_message(&mut cx()).is_ready());
        assert!(reader.poll_message(&mut cx()).is_pending());
        reader
    });
    (held, readers)
}

#[test]
fn a_message_that_waits_for_memory_knows_what_is_missing_until_it_has_arrived() {
    let (_held, [first, mut second]) = two_large_messages();
    assert_eq!((first.waits_for_memory(), first.missing()), (false, None));
    assert_eq!((second.waits_for_memory(), second.waits_for_bytes()), (true, true));
    let came = 2 + BUFFER as u64;
    assert_eq!(second.received(), 14 + came);
    assert_eq!(second.missing(), Some(4 + 2 * MIB as u64 - came));
    // The rest has arrived below.
    assert!(second.admit() && !second.admit());
    assert!(second.poll_message(&mut cx()).is_pending());
    assert_eq!((second.waits_for_memory(), second.missing()), (false, None));
    assert_eq!(second.received(), 14 + came);
    // A message that nothing is known of yet has nothing to admit.
    assert!(!reader(&Pool::unbounded(), Chunks([].into())).admit());
}

/// A stream of two chunks, while the second of which is read others take all memory.
struct Outrun(Chunks, Pool, Option<HeldForPeer>);

impl AsyncRead for Outrun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.0.0.len() == 1 {
            self.2 = Some(self.1.hold_for_peer(64 * MIB));
        }
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

#[test]
fn a_message_that_has_come_and_waits_for_memory_does_not_wait_for_its_sender() {
    let (_held, [first, _second]) = two_large_messages();
    for missing in 0..2 {
        let pool = first.source.pool();
        let chunks = [&frame(10)[..3], &frame(10)[3..14 - missing]].map(<[u8]>::to_vec);
        let mut reader = reader(pool, Outrun(Chunks(chunks.into()), pool.clone(), None));
        assert!(reader.poll_message(&mut cx()).is_pending());
        assert_eq!(reader.missing(), Some(missing as u64));
        assert!(reader.waits_for_memory());
        assert_eq!(reader.waits_for_bytes(), missing > 0);
    }
}

#[test]
fn a_layout_has_worked_once_a_message_was_not_empty_or_its_prefix_cannot_be_zeros_alone() {
    for (layout, bytes, worked) in [
        ("u32be", &b"\0\0\0\0\0\0\0\0\0\0\0\x01a"[..], &[false, false, false, true][..]),
        ("u8", b"\x01a\0\x02bc", &[false, true, true, true]),
        ("varint", b"\0\0", &[false, true, true]),
    ] {
        let mut reader = FrameReader::with_layout(bytes, layout.parse().unwrap());
        let (last, before) = worked.split_last().unwrap();
        for worked in before {
            assert_eq!(reader.has_worked(), *worked, "{layout} at {}", reader.at());
            assert!(reader.poll_message(&mut cx()).is_ready());
        }
        assert_eq!(reader.has_worked(), *last, "{layout} at {}", reader.at());
    }
}

#[test]
fn messages_that_have_come_together_are_one_batch_also_after_one_that_came_in_pieces() {
    let (whole, some) = ([frame(1), frame(2), frame(3)].concat(), frame(10));
    let chunks = [whole.clone(), some[..6].into(), [&some[6..], &whole].concat()];
    let mut reader = reader(&Pool::unbounded(), Chunks(chunks.into()));
    let mut batch = || match reader.poll_arrival(&mut cx()) {
        Poll::Ready(Ok(Some(Arrival::Messages(batch)))) => {
            Some((batch.first_number(), batch.len()))
        }
        _ => None,
    };
    assert_eq!([batch(), batch(), batch()], [Some((1, 3)), Some((4, 4)), None]);
}

#[test]
fn heartbeats_are_skipped_wherever_they_begin_and_whatever_surrounds_them() {
    let bytes = [frame(0), frame(3), frame(0), frame(0), frame(1), frame(2), frame(0)].concat();
    for cut in 1..bytes.len() {
        for single in [false, true] {
            let pool = Pool::new(64 * MIB, 8 * MIB);
            let chunks = [&bytes[..cut], &bytes[cut..]].map(<[u8]>::to_vec);
            let mut reader = reader(&pool, Chunks(chunks.into())).skip_empty(true);
            let (mut messages, mut heartbeats) = (Vec::new(), 0);
            loop {
                let arrival = match single {
                    true => reader
                        .poll_arrival_with(&mut cx(), |_, payload| [payload].into_iter().collect()),
                    false => reader.poll_arrival(&mut cx()),
                };
                match arrival {
                    Poll::Ready(Ok(Some(Arrival::Messages(batch)))) => {
                        messages.extend(batch.iter().map(<[u8]>::len));
                        assert!(
                            single
                                || batch.first_number() + batch.len() as u64 == reader.at().message
                        );
                    }
                    Poll::Ready(Ok(Some(Arrival::Heartbeats(more)))) => heartbeats += more,
                    Poll::Ready(other) => panic!("{other:?}"),
                    Poll::Pending => break,
                }
            }
            assert_eq!((messages, heartbeats), (vec![3, 1, 2], 4), "{cut} {single}");
            assert_eq!((reader.at().message, reader.at().offset), (4, bytes.len() as u64));
            assert_eq!(pool.held(), 0, "{cut}");
        }
    }
}

#[test]
fn heartbeats_do_not_show_that_the_layout_is_right() {
    let bytes = [frame(0), frame(0), frame(5)].concat();
    let mut reader = FrameReader::new(&bytes[..]).skip_empty(true);
    assert!(!reader.has_worked());
    assert!(matches!(
        reader.poll_arrival(&mut cx()),
        Poll::Ready(Ok(Some(Arrival::Heartbeats(2))))
    ));
    assert!(!reader.has_worked());
    assert!(reader.poll_message(&mut cx()).is_ready());
    assert!(reader.has_worked());
}

/// Returns a reader of header lines that arrive in these chunks.
fn lines<const N: usize>(pool: &Pool, chunks: [&[u8]; N]) -> FrameReader<Chunks> {
    let chunks = Chunks(chunks.map(<[u8]>::to_vec).into());
    FrameReader::in_pool(chunks, "lsp".parse().unwrap(), 8 * MIB, pool.clone())
}

#[test]
fn header_lines_that_stall_are_counted_and_wait_for_their_share_of_the_memory() {
    let pool = Pool::new(2 * MIB, MIB);
    let (start, rest) =
        ([b"X: ", &[b'x'; 100][..]].concat(), &b"\r\nContent-Length: 2\r\n\r\nhi"[..]);
    let mut stalled: Vec<_> = (0..300)
        .map(|_| {
            let mut reader = lines(&pool, [&start[..50], &start[50..]]);
            assert!(reader.poll_message(&mut cx()).is_pending());
            reader
        })
        .collect();
    // 14 sixteenths of a megabyte hold 224 times 4 KiB.
    let waiting = stalled.iter().filter(|reader| reader.waits_for_memory()).count();
    assert!((76..90).contains(&waiting), "{waiting} wait");
    assert!(stalled.iter().all(|reader| reader.starves() == reader.waits_for_memory()));
    assert!(pool.held() <= MIB && pool.held() > MIB * 13 / 16, "{} held", pool.held());
    // Those that are as short as any prefix need none.
    let mut short = lines(&pool, [&rest[2..]]);
    assert_eq!(
        short.poll_message(&mut cx()).map(Result::unwrap),
        Poll::Ready(Some(b"hi".to_vec()))
    );
    // The memory of one that ends is the next one's.
    let mut next = lines(&pool, [&start[..50], &start[50..], rest]);
    assert!(next.poll_message(&mut cx()).is_pending());
    assert!(next.starves());
    stalled.truncate(20);
    assert!(!next.starves());
    assert_eq!(next.poll_message(&mut cx()).map(Result::unwrap), Poll::Ready(Some(b"hi".to_vec())));
    stalled.clear();
    assert_eq!(pool.held(), 0);
}

#[test]
fn header_lines_stay_counted_with_their_message() {
    let pool = Pool::new(2 * MIB, MIB);
    let head = [b"X: ", &[b'x'; 3000][..], b"\r\nContent-Length: 2\r\n\r\n"].concat();
    let full_for_peers = || pool.hold_for_peer(MIB / 16 * 14 - 4096);
    // Before their end they count as many as they may become, and wait for the peer.
    let mut reader = lines(&pool, [&head[..1000]]);
    assert!(reader.poll_arrival(&mut cx()).is_pending());
    let full = full_for_peers();
    assert_eq!((pool.held(), pool.is_held_by_peers(4096)), (4096, true));
    drop((reader, full));
    // With their message they count as many as they are, and wait for the sink.
    let mut reader = lines(&pool, [&head[..1000], &head[1000..], b"hi"]);
    let Poll::Ready(Ok(Some(Arrival::Messages(batch)))) = reader.poll_arrival(&mut cx()) else {
        panic!("no message");
    };
    let full = full_for_peers();
    assert!((head.len()..head.len() + 1024).contains(&pool.held()), "{} held", pool.held());
    assert!(!pool.is_held_by_peers(4096));
    drop((batch, full));
    assert_eq!(pool.held(), 0);
}

#[test]
fn nothing_is_read_while_the_sink_has_all_the_memory() {
    let pool = Pool::new(2 * MIB, 0);
    let held = pool.lend(Buffer::from(&*vec![0; 2 * MIB]));
    let mut reader = reader(&pool, Chunks([frame(10)].into()));
    for _ in 0..2 {
        assert!(reader.poll_message(&mut cx()).is_pending());
        assert_eq!((reader.waits_for_memory(), reader.received()), (true, 0));
    }
    drop(held);
    assert!(reader.poll_message(&mut cx()).is_ready());
    assert!(!reader.waits_for_memory());
}

#[track_caller]
fn suspect(error: ReadError) -> Option<String> {
    let ReadError::Protocol(error) = error else { panic!("{error}") };
    error.suspect.map(|suspect| suspect.to_string())
}

#[test]
fn what_is_wrong_is_seen_from_all_that_has_come_of_a_message() {
    let as_u16be = "as u16be it would be 6";
    for (before, advice) in [(0, Some(as_u16be)), (1, None)] {
        let mut chunks: Vec<Vec<u8>> = (0..before).map(|_| frame(10)).collect();
        chunks.extend(b"\0\x06hello!\0\x05world".chunks(3).map(<[u8]>::to_vec));
        let mut reader = reader(&Pool::unbounded(), Chunks(chunks.into()));
        for _ in 0..before {
            assert!(reader.poll_message(&mut cx()).is_ready());
        }
        // For a message of 419941 bytes, that is only the start.
        assert!(reader.poll_message(&mut cx()).is_pending());
        let late = reader.expire(Duration::from_secs(30));
        assert_eq!(suspect(late).as_deref(), advice, "after {before}");
    }
    // A payload that is short by exactly its prefix, after an empty message, which says nothing.
    let counts_itself = "the length may count its own prefix, as in u32be+self";
    for (len, advice) in [(6, Some(counts_itself)), (7, None)] {
        let chunks = [frame(0), frame(10)[..4 + len].to_vec(), Vec::new()];
        let mut reader = reader(&Pool::unbounded(), Chunks(chunks.into()));
        assert!(reader.poll_message(&mut cx()).is_ready());
        let Poll::Ready(Err(error)) = reader.poll_message(&mut cx()) else { panic!() };
        assert_eq!(suspect(error).as_deref(), advice, "{len} of 10 bytes");
    }
}

#[test]
fn what_follows_a_large_message_tells_what_is_wrong_with_it() {
    let chunks = [frame(2 * BUFFER), b"hello there\r\n".into()].concat();
    let mut reader = reader(&Pool::unbounded(), Chunks([chunks].into()));
    assert!(reader.poll_message(&mut cx()).is_ready());
    assert!(reader.poll_message(&mut cx()).is_pending());
    let error = reader.expire(Duration::from_secs(30));
    assert!(suspect(error).unwrap().contains("\"hello there\\r\\n\""));
}

#[test]
fn what_arrives_soon_after_a_wrong_prefix_is_evidence_too() {
    let stream = b"\x05\0\0\0hello\x05\0\0\0world";
    let pieces = stream.chunks(4).map(<[u8]>::to_vec).collect();
    let mut one = reader(&Pool::unbounded(), Chunks(pieces));
    assert!(one.poll_message(&mut cx()).is_pending());
    assert!(one.in_message());
    assert_eq!(one.into_parts().1, b"", "after an error, nothing is read ahead");
    // If nothing else arrives, the error is returned in time.
    let mut one = reader(&Pool::unbounded(), Chunks([stream.to_vec()].into()));
    let error = futures_lite::future::block_on(one.read()).unwrap_err();
    assert_eq!(suspect(error).as_deref(), Some("as u32le it would be 5"));
    // A time limit that is over returns the same error at once.
    let mut one = reader(&Pool::unbounded(), Chunks([stream.to_vec()].into()));
    assert!(one.poll_message(&mut cx()).is_pending());
    let ReadError::Protocol(error) = one.expire(Duration::from_secs(30)) else { panic!() };
    assert_eq!(error.fault, Fault::TooLarge { length: 0x0500_0000, limit: 8 * MIB });
    assert_eq!(error.suspect.unwrap().to_string(), "as u32le it would be 5");
}

#[test]
fn a_message_that_takes_too_long_is_an_error_that_says_how_far_it_came() {
    let timeout = Duration::from_secs(30);
    for (given, got, want) in [(2, 2, None), (4, 4, Some(14)), (6, 6, Some(14))] {
        let mut reader = reader(&Pool::unbounded(), Chunks([frame(10)[..given].into()].into()));
        assert!(reader.poll_message(&mut cx()).is_pending());
        let ReadError::Protocol(error) = reader.expire(timeout) else { panic!("{given}") };
        assert_eq!(error.fault, Fault::TimedOut { got, want, timeout });
    }
}
