//! TLS as users of the library see it, with another implementation's client at the other end.

mod common;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use common::pipe::{Pipe, pipe};
use common::tls::Certificates;
use framelet::net::{ByteStream, Peer};
use framelet::server::{Echo, ServeError, Summary};
use framelet::tls::{TlsAcceptor, TlsConnector, TlsError};
use framelet::{Address, Client, Framed, Layout, Server};
use futures_lite::future::{self, block_on};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use futures_rustls::client::TlsStream;
use futures_rustls::rustls::version::{TLS12, TLS13};
use rcgen::DnType;
use smol::Task;

/// A server that runs until it is stopped.
struct Running {
    address: Address,
    stop: smol::channel::Sender<()>,
    ended: Task<Result<Summary, ServeError>>,
}

impl Running {
    async fn start(configure: impl FnOnce(Server) -> Server) -> Running {
        let listener = "127.0.0.1:0".parse::<Address>().unwrap().listen().await.unwrap();
        let address = listener.address().unwrap();
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let stopped = async move {
            let _ = stopped.recv().await;
        };
        let ended = smol::spawn(configure(Server::new(listener)).run(stopped));
        Running { address, stop, ended }
    }

    async fn stop(self) -> Summary {
        drop(self.stop);
        self.ended.await.unwrap()
    }
}

fn acceptor(files: &Certificates) -> TlsAcceptor {
    TlsAcceptor::open(files.path("server.pem"), files.path("server.key")).unwrap()
}

/// Frames of lengths around those of records.
fn payloads() -> Vec<Vec<u8>> {
    [0, 1, 100, 16_379, 16_380, 16_381, 16_384, 65_531, 65_536, 300_000, 1 << 20, 3]
        .iter()
        .map(|&len| (0..=250).cycle().take(len).collect())
        .collect()
}

/// Both versions of TLS, and both directions with messages that do not fit into a record.
#[test]
fn messages_of_all_lengths_are_echoed_to_another_implementation_of_tls() {
    let files = Certificates::new();
    block_on(async {
        let server = Running::start(|server| server.tls(acceptor(&files)).answer(Echo)).await;
        for version in [&TLS12, &TLS13] {
            let connector = files.other_client(&[version]);
            let tcp = server.address.connect().await.unwrap();
            let tls = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
            let mut client = Client::new(tls);
            let payloads = payloads();
            assert!(client.request_all(&payloads).await.unwrap() == payloads, "{version:?}");
            // Changed keys concern both directions.
            let mut framed = client.into_framed();
            if *version == TLS13 {
                framed.get_mut().get_mut().1.refresh_traffic_keys().unwrap();
            }
            for _ in 0..3 {
                framed.send(b"once more").await.unwrap();
                assert_eq!(framed.read().await.unwrap().as_deref(), Some(&b"once more"[..]));
            }
            framed.close().await.unwrap();
            assert_eq!(framed.read().await.unwrap(), None, "an orderly end, to the other side too");
        }
        assert_eq!(server.stop().await.messages, 2 * (12 + 3));
    });
}

#[test]
fn a_client_and_a_server_of_framelet_understand_each_other() {
    let files = Certificates::new();
    block_on(async {
        let server = Running::start(|server| server.tls(acceptor(&files)).answer(Echo)).await;
        let tls = TlsConnector::with_ca(files.path("ca.pem")).unwrap();
        let stream = server.address.connect().await.unwrap();
        let mut client = Client::new(tls.connect(&server.address, stream).await.unwrap());
        let payloads = payloads();
        assert!(client.request_all(&payloads).await.unwrap() == payloads);
        client.finish().await.unwrap();
        server.stop().await;
    });
}

/// The server takes the first suite of the client that it has as well.
#[test]
fn a_client_prefers_the_cipher_suite_that_its_processor_computes_fastest() {
    let files = Certificates::new();
    let tls = TlsConnector::with_ca(files.path("ca.pem")).unwrap();
    let mut session = tls.session(&"localhost:4747".parse().unwrap()).unwrap();
    let mut hello: Vec<u8> = Vec::new();
    let done = session.poll_handshake(
        &mut hello,
        |_, _| Poll::Pending,
        |hello, bytes| {
            hello.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        },
    );
    assert!(done.is_pending(), "the server has said nothing");
    // Of the record, of the message, the version and 32 random bytes; then the id of a session, and the suites.
    let session_id = &hello[5 + 4 + 2 + 32..];
    let suites = &session_id[1 + usize::from(session_id[0])..];
    let first = u16::from_be_bytes([suites[2], suites[3]]);
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has_aes = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    // TLS_AES_128_GCM_SHA256 or TLS_CHACHA20_POLY1305_SHA256.
    assert_eq!(first, if has_aes { 0x1301 } else { 0x1303 });
}

/// P19. With tickets, the first of these clients to close its socket with a ticket unread would reset it.
#[test]
fn p19_what_a_thousand_short_one_way_connections_send_arrives() {
    const CONNECTIONS: usize = 1000;
    let files = Certificates::new();
    block_on(async {
        let server = Running::start(|server| server.tls(acceptor(&files))).await;
        let connector = Arc::new(files.other_client(&[&TLS13]));
        let mut clients = Vec::new();
        for _ in 0..20 {
            let (address, connector) = (server.address.clone(), Arc::clone(&connector));
            clients.push(smol::spawn(async move {
                for _ in 0..CONNECTIONS / 20 {
                    let tcp = address.connect().await.unwrap();
                    let name = "localhost".try_into().unwrap();
                    let mut framed =
                        Framed::new(connector.connect(name, tcp).await.unwrap(), Layout::U32BE);
                    for _ in 0..10 {
                        framed.feed(&[7; 20_000]).await.unwrap();
                    }
                    // It never reads, and closes its socket at once.
                    framed.close().await.unwrap();
                }
            }));
        }
        for client in clients {
            client.await;
        }
        let summary = server.stop().await;
        assert_eq!((summary.messages, summary.connections), (10_000, 1000));
    });
}

/// Accepts one connection whose client does as it is told, and returns what the server then reads.
async fn read_after(
    files: &Certificates,
    version: &'static futures_rustls::rustls::SupportedProtocolVersion,
    orderly: bool,
) -> (Vec<u8>, io::Result<usize>) {
    let (near, far) = pipe(1 << 20);
    let (acceptor, connector) = (acceptor(files), files.other_client(&[version]));
    let accepting = acceptor.accept(ByteStream::new(far));
    let connecting = connector.connect("localhost".try_into().unwrap(), near);
    let (accepted, client) = future::zip(accepting, connecting).await;
    let ((mut server, peer), mut client) = (accepted.unwrap(), client.unwrap());
    assert_eq!(peer, None);
    client.write_all(b"some bytes").await.unwrap();
    client.flush().await.unwrap();
    if orderly {
        client.close().await.unwrap();
    }
    drop(client);
    let mut bytes = vec![0; 10];
    server.read_exact(&mut bytes).await.unwrap();
    let end = server.read(&mut [0; 10]).await;
    (bytes, end)
}

#[test]
fn only_close_notify_is_an_end_in_order() {
    let files = Certificates::new();
    for version in [&TLS12, &TLS13] {
        let (bytes, end) = block_on(read_after(&files, version, true));
        assert_eq!((&bytes[..], end.unwrap()), (&b"some bytes"[..], 0));
        let (bytes, end) = block_on(read_after(&files, version, false));
        let error = end.unwrap_err();
        assert_eq!(&bytes[..], b"some bytes");
        assert_eq!(TlsError::of(&error), Some(&TlsError::Cut { handshake: false }));
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

/// A stream that gives few bytes a read, takes few a write, and makes everyone wait half of the time.
struct Crumbs<S> {
    stream: S,
    random: fastrand::Rng,
    /// The offset of a byte to change, and how many were read.
    changed: Option<usize>,
    read: usize,
}

impl<S> Crumbs<S> {
    fn new(stream: S, seed: u64) -> Crumbs<S> {
        Crumbs { stream, random: fastrand::Rng::with_seed(seed), changed: None, read: 0 }
    }

    fn pause(&mut self, cx: &Context<'_>) -> bool {
        let pause = self.random.bool();
        if pause {
            cx.waker().wake_by_ref();
        }
        pause
    }

    fn crumb(&mut self, len: usize) -> usize {
        let most = 1 << self.random.u32(0..15);
        self.random.usize(1..=len.min(most).max(1))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Crumbs<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.pause(cx) {
            return Poll::Pending;
        }
        let len = self.crumb(buf.len());
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut buf[..len]);
        if let Poll::Ready(Ok(read)) = read {
            let at = self.changed.and_then(|at| at.checked_sub(self.read)).filter(|&at| at < read);
            at.into_iter().for_each(|at| buf[at] ^= 1);
            self.read += read;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Crumbs<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.pause(cx) {
            return Poll::Pending;
        }
        let len = self.crumb(buf.len());
        Pin::new(&mut self.stream).poll_write(cx, &buf[..len])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// A stream that counts what is read from it.
struct Counted<S> {
    stream: S,
    taken: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(read)) = read {
            self.taken.fetch_add(read, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// Returns a server's and a client's end of a stream, and how many bytes the server's has read below TLS.
async fn counted(files: &Certificates) -> (ByteStream, TlsStream<Pipe>, Arc<AtomicUsize>) {
    let (near, far) = pipe(1 << 20);
    let taken = Arc::new(AtomicUsize::new(0));
    let acceptor = acceptor(files);
    let far = Counted { stream: far, taken: Arc::clone(&taken) };
    let accepting = acceptor.accept(ByteStream::new(far));
    let connector = files.other_client(&[&TLS13]);
    let connecting = connector.connect("localhost".try_into().unwrap(), near);
    let (accepted, client) = future::zip(accepting, connecting).await;
    (accepted.unwrap().0, client.unwrap(), taken)
}

/// What is read ahead stays in memory for as long as the reader waits, beside `--memory`.
#[test]
fn a_reader_of_few_bytes_reads_ahead_one_record_at_most() {
    const RECORDS: usize = 12;
    const CONTENT: usize = 16 * 1024;
    const LONGEST: usize = CONTENT + 2048 + 5;
    let files = Certificates::new();
    block_on(async {
        let (mut server, mut client, taken) = counted(&files).await;
        let before = taken.load(Ordering::Relaxed);
        client.write_all(&[7; RECORDS * CONTENT]).await.unwrap();
        client.flush().await.unwrap();
        for records in 0..RECORDS {
            for _ in 0..CONTENT / 64 {
                server.read_exact(&mut [0; 64]).await.unwrap();
                let ahead = taken.load(Ordering::Relaxed) - before - records * (CONTENT + 22);
                assert!(ahead <= LONGEST, "{ahead} bytes after {records} records");
            }
        }
    });
}

/// A part of the next record would have to be kept, and be copied twice.
#[test]
fn a_reader_of_many_bytes_reads_whole_records() {
    const CONTENT: usize = 16 * 1024;
    let files = Certificates::new();
    block_on(async {
        let (mut server, mut client, taken) = counted(&files).await;
        let mut before = taken.load(Ordering::Relaxed);
        // It begins with a short record, so that nothing fits by itself.
        for bytes in [&[7; 1000][..], &[7; 31 * CONTENT]] {
            client.write_all(bytes).await.unwrap();
            client.flush().await.unwrap();
        }
        let mut buf = vec![0; 4 * CONTENT];
        let mut reads = Vec::new();
        while reads.iter().sum::<usize>() < 1000 + 31 * CONTENT {
            let read = server.read(&mut buf).await.unwrap();
            let now = taken.load(Ordering::Relaxed);
            reads.push(read);
            // Once a full record has been seen, each read ends with one.
            if reads.len() > 2 {
                assert_eq!((read % CONTENT, now - before), (0, read / CONTENT * (CONTENT + 22)));
            }
            before = now;
        }
        // The first one ends inside a record, the second one with that record.
        assert!(reads.len() <= 10, "{reads:?}");
    });
}

#[test]
fn pieces_of_records_do_not_matter() {
    let files = Certificates::new();
    let connector = TlsConnector::with_ca(files.path("ca.pem")).unwrap();
    let address: Address = "localhost:1".parse().unwrap();
    for seed in 0..20 {
        block_on(async {
            let (near, far) = pipe(100_000);
            let acceptor = acceptor(&files);
            let accepting = acceptor.accept(ByteStream::new(Crumbs::new(far, seed)));
            let connecting = connector.connect(&address, ByteStream::new(Crumbs::new(near, !seed)));
            let (accepted, client) = future::zip(accepting, connecting).await;
            let mut server = Framed::new(accepted.unwrap().0, Layout::U32BE);
            let mut client = Client::new(client.unwrap());
            let echo = async {
                while let Some(message) = server.read().await.unwrap() {
                    server.send(&message).await.unwrap();
                }
                server.close().await.unwrap();
            };
            let asking = async {
                let payloads = payloads();
                assert!(client.request_all(&payloads).await.unwrap() == payloads, "{seed}");
                client.finish().await.unwrap();
            };
            future::zip(echo, asking).await;
        });
    }
}

/// No byte can be changed unnoticed, nothing panics, and the other side is told.
#[test]
fn a_changed_byte_ends_the_connection_wherever_it_is() {
    let files = Certificates::new();
    let connector = TlsConnector::with_ca(files.path("ca.pem")).unwrap();
    let address: Address = "localhost:1".parse().unwrap();
    let mut changed = 0;
    for at in (0..2000).step_by(13) {
        let received = block_on(async {
            let (near, far) = pipe(1 << 20);
            let mut far = Crumbs::new(far, 1);
            far.changed = Some(at);
            let acceptor = acceptor(&files);
            let sending = async {
                let mut stream = connector.connect(&address, ByteStream::new(near)).await?;
                stream.write_all(&[7; 1500]).await?;
                stream.close().await?;
                io::Result::Ok(stream.read(&mut [0; 1]).await? as u64)
            };
            let receiving = async {
                let (mut stream, _) = acceptor.accept(ByteStream::new(far)).await?;
                let mut received = Vec::new();
                stream.read_to_end(&mut received).await?;
                stream.close().await?;
                io::Result::Ok(received)
            };
            future::zip(sending, receiving).await
        });
        match received {
            // What was read did not reach that byte.
            (Ok(_), Ok(received)) => assert_eq!(received, [7; 1500]),
            (_, Err(error)) => {
                changed += 1;
                assert!(TlsError::of(&error).is_some(), "{at}: {error}");
            }
            (Err(error), Ok(_)) => panic!("{at}: only one side noticed: {error}"),
        }
    }
    assert!(changed > 100, "only {changed} changes were met");
}

#[test]
fn what_is_no_tls_is_refused_and_nothing_panics() {
    let files = Certificates::new();
    let acceptor = acceptor(&files);
    let mut random = fastrand::Rng::with_seed(7);
    let begin: [&[u8]; 6] =
        [b"", b"\x16\x03", b"\x16\x03\x01", b"\x15\x03\x03\0\x02", b"\x17\x03\x03", b"\x80"];
    for round in 0..3000 {
        let mut bytes = begin[round % begin.len()].to_vec();
        bytes.extend((0..random.usize(0..300)).map(|_| random.u8(..)));
        let error = block_on(async {
            let (mut near, far) = pipe(1 << 20);
            near.write_all(&bytes).await.unwrap();
            near.close().await.unwrap();
            acceptor.accept(ByteStream::new(far)).await.map(|_| ()).unwrap_err()
        });
        assert!(TlsError::of(&error).is_some(), "{bytes:?}: {error}");
    }
}

#[test]
fn a_certificate_that_is_reloaded_is_for_new_connections_and_a_bad_one_changes_nothing() {
    let files = Certificates::new();
    block_on(async {
        let tls = acceptor(&files);
        let server = Running::start(|server| server.tls(tls.clone()).answer(Echo)).await;
        let connector = TlsConnector::with_ca(files.path("ca.pem")).unwrap();
        let connect = |name: &'static str| {
            let (connector, address) =
                (connector.clone().server_name(name).unwrap(), &server.address);
            async move {
                connector.connect(address, address.connect().await.unwrap()).await.map(Client::new)
            }
        };
        let mut old = connect("localhost").await.unwrap();
        files.server("server", &["new.example"]);
        assert!(connect("new.example").await.is_err(), "it was not told yet");
        tls.reload().unwrap();
        let mut new = connect("new.example").await.unwrap();
        let error = connect("localhost").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the certificate of the server is not for localhost but for new.example"
        );
        let good = std::fs::read_to_string(files.path("server.pem")).unwrap();
        let lines: Vec<&str> = good.lines().collect();
        let cut = [&lines[..3], &["!"], &lines[3..]].concat().join("\n");
        let other = Certificates::new();
        let foreign = std::fs::read_to_string(other.path("server.pem")).unwrap();
        let last = lines.len() + 1;
        for (text, words) in [
            (String::new(), "no certificate in it".to_owned()),
            (lines[..4].join("\n"), "the END line is missing".to_owned()),
            (cut, format!("line {last}: the section that ends here is not base64")),
            (good.replace("MII", "AAA"), "line".to_owned()),
            (foreign, "the key does not belong to the certificate in".to_owned()),
        ] {
            files.write("server.pem", &text);
            let error = tls.reload().unwrap_err().to_string();
            assert!(error.contains(&words) && error.contains("server."), "{words}: {error}");
            connect("new.example").await.unwrap().finish().await.unwrap();
        }
        for client in [&mut old, &mut new] {
            assert_eq!(client.request(b"still there").await.unwrap(), b"still there");
        }
        server.stop().await;
    });
}

#[test]
fn the_subject_of_a_client_certificate_is_its_peer() {
    let files = Certificates::new();
    let tls = acceptor(&files).client_ca(files.path("ca.pem")).unwrap();
    for (name, peer) in [
        (
            &[(DnType::OrganizationName, "Example, Inc."), (DnType::CommonName, "router7")][..],
            Some("CN=router7,O=Example\\, Inc."),
        ),
        (&[(DnType::CommonName, "größer = besser")], Some("CN=größer \\= besser")),
        (&[(DnType::CommonName, " #1 ")], Some("CN=\\ #1\\ ")),
        (&[(DnType::CustomDnType(vec![2, 5, 4, 12]), "boss")], Some("2.5.4.12=boss")),
        (&[], None),
    ] {
        files.client("client", name);
        let connector = TlsConnector::with_ca(files.path("ca.pem")).unwrap();
        let connector =
            connector.certificate(files.path("client.pem"), files.path("client.key")).unwrap();
        let address: Address = "localhost:1".parse().unwrap();
        let (near, far) = pipe(1 << 20);
        let accepting = tls.accept(ByteStream::new(far));
        let connecting = connector.connect(&address, ByteStream::new(near));
        let (accepted, connected) = block_on(future::zip(accepting, connecting));
        connected.unwrap();
        assert_eq!(accepted.unwrap().1, peer.map(Peer::named), "{name:?}");
    }
}

/// The handshake has a deadline, and does not keep others waiting.
#[test]
fn a_client_that_does_nothing_is_given_up_while_others_are_served() {
    let files = Certificates::new();
    block_on(async {
        let configure = |server: Server| {
            server.tls(acceptor(&files)).answer(Echo).message_timeout(Duration::from_millis(300))
        };
        let server = Running::start(configure).await;
        let mut silent = server.address.connect().await.unwrap();
        let tls = TlsConnector::with_ca(files.path("ca.pem")).unwrap();
        let stream = server.address.connect().await.unwrap();
        let mut client = Client::new(tls.connect(&server.address, stream).await.unwrap());
        assert_eq!(client.request(b"hello").await.unwrap(), b"hello");
        let ended = silent.read(&mut [0; 1]).await;
        assert!(ended.is_err(), "it is reset: {ended:?}");
        client.finish().await.unwrap();
        server.stop().await;
    });
}

/// What has arrived at a shutdown is read, and the client is not told that all is well.
#[test]
fn a_shutdown_reads_what_has_arrived_and_is_no_orderly_end() {
    let files = Certificates::new();
    block_on(async {
        let server = Running::start(|server| server.tls(acceptor(&files))).await;
        let tls = TlsConnector::with_ca(files.path("ca.pem")).unwrap();
        let stream = server.address.connect().await.unwrap();
        let mut framed =
            Framed::new(tls.connect(&server.address, stream).await.unwrap(), Layout::U32BE);
        for _ in 0..1000 {
            framed.feed(&[7; 1000]).await.unwrap();
        }
        framed.flush().await.unwrap();
        let summary = server.stop().await;
        assert_eq!(summary.messages, 1000);
        let end = framed.read().await;
        assert!(end.is_err(), "{end:?}");
    });
}
