//! As much of HTTP/1.1 as a scraper needs: one request without a body on each connection.

use std::io;
use std::time::Duration;

use framelet::net::ByteStream;
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};
use httparse::{EMPTY_HEADER, Error, Status};
use smol::Timer;

/// The longest head of a request, in bytes.
const LONGEST: usize = 8 * 1024;

/// The most header fields.
const MOST_FIELDS: usize = 64;

/// How long a client may take to close its side once it has the answer.
const CLOSING: Duration = Duration::from_secs(1);

/// A request, `GET` or `HEAD`.
#[derive(Debug)]
pub(super) struct Request {
    method: String,
    target: String,
}

impl Request {
    /// Returns the path without a query.
    pub(super) fn path(&self) -> &str {
        let path = self.target.split('?').next().unwrap_or_default();
        // Through a proxy it is a whole URL.
        let host_and_path = path.strip_prefix("http://");
        host_and_path.map_or(path, |rest| rest.find('/').map_or("/", |at| &rest[at..]))
    }

    pub(super) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}

/// An answer with its body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) content_type: &'static str,
    /// Whether the client asked for the head alone.
    pub(super) without_body: bool,
}

impl Answer {
    pub(super) fn new(status: u16, body: String) -> Answer {
        let content_type = "text/plain; charset=utf-8";
        Answer { status, body, content_type, without_body: false }
    }

    fn head(&self) -> String {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            431 => "Request Header Fields Too Large",
            _ => "Service Unavailable",
        };
        let allow = if self.status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n",
            self.status,
            self.content_type,
            self.body.len()
        )
    }
}

/// Reads a request. Returns `None` if the client left before its end, and the answer if it cannot be served.
pub(super) async fn read_request(
    stream: &mut ByteStream,
) -> io::Result<Option<Result<Request, Answer>>> {
    let mut head = Vec::new();
    loop {
        let mut part = [0; 1024];
        let read = stream.read(&mut part).await?;
        if read == 0 {
            return Ok(None);
        }
        head.extend_from_slice(&part[..read]);
        if let Some(request) = parse(&head) {
            return Ok(Some(request));
        }
    }
}

/// Parses the head of a request; `None` if it is incomplete.
fn parse(head: &[u8]) -> Option<Result<Request, Answer>> {
    let too_large = || Err(Answer::new(431, "the request is too long\n".into()));
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    Some(match request.parse(head) {
        Ok(Status::Partial) if head.len() < LONGEST => return None,
        Ok(Status::Partial) | Err(Error::TooManyHeaders) => too_large(),
        Ok(Status::Complete(_)) => match (request.method, request.path) {
            (Some(method @ ("GET" | "HEAD")), Some(target)) => {
                Ok(Request { method: method.into(), target: target.into() })
            }
            _ => Err(Answer::new(405, "only GET and HEAD\n".into())),
        },
        Err(error) => Err(Answer::new(400, format!("not an HTTP request: {error}\n"))),
    })
}

/// Writes an answer and ends the connection.
pub(super) async fn write_answer(stream: &mut ByteStream, answer: &Answer) -> io::Result<()> {
    let mut bytes = answer.head().into_bytes();
    if !answer.without_body {
        bytes.extend_from_slice(answer.body.as_bytes());
    }
    stream.write_all(&bytes).await?;
    stream.close().await?;
    // Unread bytes of the client would reset the connection, and that would take the answer from it.
    let drained = async {
        while stream.read(&mut [0; 1024]).await? > 0 {}
        Ok(())
    };
    let too_long = async {
        Timer::after(CLOSING).await;
        Ok(())
    };
    drained.or(too_long).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &str) -> Option<u16> {
        parse(head.as_bytes()).map(|parsed| parsed.map_or_else(|answer| answer.status, |_| 200))
    }

    #[test]
    fn requests_are_understood_or_refused_with_the_right_status() {
        let fields = "a: b\r\n".repeat(MOST_FIELDS + 1);
        for (head, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Some(200)),
            ("HEAD /metrics HTTP/1.0\r\n\r\n", Some(200)),
            ("GET /metrics HTTP/1.1\r\nHost", None),
            ("", None),
            ("POST /metrics HTTP/1.1\r\n\r\n", Some(405)),
            ("\x16\x03\x01\x02\x00\x01", Some(400)),
            ("GET /metrics\r\n\r\n", Some(400)),
            (&format!("GET / HTTP/1.1\r\n{fields}\r\n"), Some(431)),
            (&format!("GET /{}", "a".repeat(LONGEST)), Some(431)),
        ] {
            assert_eq!(status(head), expected, "{head}");
        }
    }

    #[test]
    fn a_query_is_not_part_of_the_path() {
        let request = parse(b"GET /metrics?name=a HTTP/1.1\r\n\r\n").unwrap().unwrap();
        assert_eq!((request.path(), request.is_head()), ("/metrics", false));
    }
}
