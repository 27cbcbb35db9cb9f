//! `serve --metrics ADDR`: figures for Prometheus, and whether the server is healthy.
//!
//! Answers `GET /metrics` and `GET /healthz`, one request per connection. Whatever its clients do, they cannot
//! hold up the server: they are few, and each has little time and memory.

mod exposition; // the figures as text
mod health; // whether the server is healthy
mod http; // one request and its answer

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::log::{Level, debug};
use framelet::net::ByteStream;
use framelet::server::Monitor;
use framelet::wire::Plain;
use futures_lite::FutureExt;
use smol::lock::Semaphore;
use smol::{Task, Timer};

use super::exit_code::Exit;
use super::failure::{Failure, why_not_listening};
use super::log;
use super::values::address;
use http::Answer;

/// How many clients are answered at once; the others wait in the kernel's queue.
const MOST: usize = 64;

/// How long a client may take for its request: those that are silent must not keep others waiting.
const REQUEST: Duration = Duration::from_secs(1);

/// How long it may take for its request and for taking the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait after a failed accept.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves the figures of `monitor` at this address until the result is dropped.
pub(crate) async fn serve(text: &str, monitor: Monitor) -> Result<Task<()>, Failure> {
    let address = address(text)?;
    let listener = address.listen().await.map_err(|error| {
        let message =
            format!("cannot serve metrics at {address}: {}", why_not_listening(&address, &error));
        Failure::new(Exit::Network, message)
    })?;
    let bound = listener.address().unwrap_or(address);
    let line = format!("metrics at {bound}, in /metrics and /healthz");
    log::say_event(Level::Info, "metrics", line);
    let places = Arc::new(Semaphore::new(MOST));
    Ok(smol::spawn(async move {
        loop {
            let place = places.acquire_arc().await;
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let monitor = monitor.clone();
                    let answered = async move {
                        let answering = answer(stream, &monitor).or(async {
                            Timer::after(TIMEOUT).await;
                            Err(io::ErrorKind::TimedOut.into())
                        });
                        if let Err(error) = answering.await {
                            debug!("metrics for {peer}: {}", Plain(&error));
                        }
                        drop(place);
                    };
                    smol::spawn(answered).detach();
                }
                Err(error) => {
                    debug!("metrics: cannot accept a connection: {}", Plain(&error));
                    Timer::after(PAUSE).await;
                }
            }
        }
    }))
}

async fn answer(mut stream: ByteStream, monitor: &Monitor) -> io::Result<()> {
    let too_late = async {
        Timer::after(REQUEST).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let answer = match http::read_request(&mut stream).or(too_late).await? {
        None => return Ok(()),
        Some(Err(refusal)) => refusal,
        Some(Ok(request)) => {
            let answer = match request.path() {
                "/metrics" => Answer {
                    content_type: exposition::TYPE,
                    ..Answer::new(200, exposition::text(&monitor.figures()))
                },
                "/healthz" => match health::trouble(&monitor.figures()) {
                    None => Answer::new(200, "ok\n".into()),
                    Some(why) => Answer::new(503, format!("{why}\n")),
                },
                _ => Answer::new(404, "there are /metrics and /healthz\n".into()),
            };
            Answer { without_body: request.is_head(), ..answer }
        }
    };
    http::write_answer(&mut stream, &answer).await
}
