//! Connects to a server: PROXY header, TLS, time limit.

use std::io;
use std::time::{Duration, Instant};

use framelet::Address;
use framelet::net::ByteStream;
use framelet::tls::{TlsConnector, TlsError};
use framelet::wire::ProxyVersion;
use futures_lite::{AsyncWriteExt, FutureExt};
use smol::Timer;

/// Connects, sends a PROXY header if there is to be one, and does the handshake if there is to be TLS. The timeout is for
/// all of it.
pub(crate) async fn connect(
    address: &Address,
    proxy: Option<ProxyVersion>,
    tls: Option<&TlsConnector>,
    timeout: Option<Duration>,
) -> io::Result<ByteStream> {
    let timer = |start: Instant| {
        let end = timeout.and_then(|timeout| start.checked_add(timeout));
        end.map_or_else(Timer::never, Timer::at)
    };
    let start = Instant::now();
    let timed_out = async {
        timer(start).await;
        let what = format!("no connection within {} (--timeout)", shown(timeout));
        Err(io::Error::new(io::ErrorKind::TimedOut, what))
    };
    let connecting = async {
        let mut stream = address.connect().await?;
        if let Some(version) = proxy {
            // A load balancer passes TLS on without reading it, so its header comes first.
            stream.write_all(&version.header(stream.addresses())).await?;
        }
        Ok(stream)
    };
    let stream = connecting.or(timed_out).await?;
    let Some(tls) = tls else { return Ok(stream) };
    let timed_out = async {
        timer(start).await;
        let timeout = shown(timeout);
        let what = format!(
            "the TLS handshake was not complete after {timeout} (--timeout); does the server speak TLS?"
        );
        Err(TlsError::TimedOut(what).into())
    };
    tls.connect(address, stream).or(timed_out).await
}

/// Returns whether another attempt to connect may succeed although nothing is changed.
pub(crate) fn may_pass(error: &io::Error) -> bool {
    !TlsError::of(error).is_some_and(TlsError::is_refusal)
}

fn shown(timeout: Option<Duration>) -> humantime::FormattedDuration {
    humantime::format_duration(timeout.unwrap_or_default())
}
