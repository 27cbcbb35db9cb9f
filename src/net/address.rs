//! Addresses to listen on or connect to.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::wire::escape::Escaped;

/// An address to listen on or connect to: `HOST:PORT`, `[::1]:PORT`, `:PORT` (on 127.0.0.1) or `unix:PATH`.
///
/// Functions that connect take an address by value or reference, as text, or a [`SocketAddr`].
///
/// # Examples
///
/// ```
/// use framelet::Address;
///
/// assert_eq!(":4747".parse::<Address>()?.to_string(), "127.0.0.1:4747");
/// assert!("localhost".parse::<Address>().is_err()); // which port?
/// # Ok::<(), framelet::net::ParseAddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// A TCP port. The host is a name or an IP address, without brackets.
    Tcp {
        /// The name or address.
        host: String,
        /// The port. To listen on 0 lets the system choose one.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// Not a valid address.
///
/// # Examples
///
/// ```
/// use framelet::Address;
///
/// match "localhost".parse::<Address>() {
///     Ok(address) => panic!("{address}"),
///     Err(error) => assert!(error.to_string().starts_with("a port is missing; write HOST:PORT")),
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseAddressError(Cow<'static, str>);

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|what| {
            ParseAddressError(match meant(text) {
                Some(meant) => {
                    format!("{what}; did you mean {}?", Escaped(meant.as_bytes())).into()
                }
                None => what.into(),
            })
        })
    }
}

fn parse(text: &str) -> Result<Address, &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.is_empty() {
            true => Err("a path must follow unix:, as in unix:/run/framelet.sock"),
            false => Ok(Address::Unix(path.into())),
        };
    }
    if text.contains("://") {
        return Err("an address has no scheme; write HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH");
    }
    let (host, port) = text
        .rsplit_once(':')
        .ok_or("a port is missing; write HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH")?;
    let port = port
        .parse()
        .map_err(|_| "the port must be a number from 0 to 65535, after the last colon")?;
    let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
        // Without a colon it would be printed without the brackets, which says something else.
        Some(Some(bracketed)) if bracketed.contains(':') => bracketed,
        Some(Some(_)) => return Err("only an IPv6 address goes in brackets: [::1]:4747"),
        Some(None) => {
            return Err("a closing bracket is missing: [IPV6]:PORT");
        }
        None if host.contains(':') => {
            return Err("an IPv6 address goes in brackets: [::1]:4747");
        }
        None if host.is_empty() => "127.0.0.1",
        None => host,
    };
    Ok(Address::Tcp { host: host.to_owned(), port })
}

/// Returns the address that was probably meant, if what is wrong is easy to see.
fn meant(text: &str) -> Option<String> {
    let is_number = text.parse::<u16>().is_ok();
    let meant = match text.split_once("://") {
        Some((_, rest)) => rest.trim_end_matches('/').to_owned(),
        None if is_number => format!(":{text}"),
        None if text.contains('/') => format!("unix:{text}"),
        None => return None,
    };
    // A URL with a user name may have a password, which is not to be repeated.
    (!meant.contains(['@', '?']) && parse(&meant).is_ok()).then_some(meant)
}

impl TryFrom<&str> for Address {
    type Error = ParseAddressError;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<&String> for Address {
    type Error = ParseAddressError;

    fn try_from(text: &String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<String> for Address {
    type Error = ParseAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let host = match address {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
            address => address.ip().to_string(),
        };
        Address::Tcp { host, port: address.port() }
    }
}

/// Needed by conversions that cannot fail.
impl From<Infallible> for ParseAddressError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for ParseAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseAddressError {}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_text_form_for_both_directions() {
        for text in ["127.0.0.1:4747", "localhost:0", "[::1]:4747", "unix:/run/a b.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!(":0".parse::<Address>().unwrap().to_string(), "127.0.0.1:0");
    }

    #[test]
    fn everything_that_names_an_address_becomes_the_same_one() {
        fn address(of: impl TryInto<Address, Error: Into<ParseAddressError>>) -> String {
            let address = of.try_into().map_err(Into::<ParseAddressError>::into);
            address.map_or_else(|error| error.to_string(), |address| address.to_string())
        }
        let text = String::from("[fe80::1%3]:47");
        let parsed: Address = text.parse().unwrap();
        assert_eq!(address(&*text), text);
        assert_eq!(address(&text), text);
        assert_eq!(address(&parsed), text);
        assert_eq!(address(text.parse::<SocketAddr>().unwrap()), text);
        assert_eq!(address(text.clone()), text);
        assert_eq!(address(parsed), text);
        assert_eq!(address("127.0.0.1:1".parse::<SocketAddr>().unwrap()), "127.0.0.1:1");
        assert!(address("localhost").contains("a port is missing"));
    }

    #[test]
    fn texts_that_are_no_address_say_what_is_missing() {
        for (text, word) in [
            ("localhost", "port is missing"),
            ("localhost:http", "number"),
            ("localhost:65536", "number"),
            ("::1:4747", "brackets"),
            ("[::1:4747", "closing bracket"),
            ("[]:4747", "only an IPv6 address"),
            ("[[a]:4747", "only an IPv6 address"),
            ("unix:", "path"),
            (
                "4747",
                "a port is missing; write HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH; did you mean :4747?",
            ),
            ("/run/app.sock", "did you mean unix:/run/app.sock?"),
            (
                "tcp://localhost:4747/",
                "no scheme; write HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH; did you mean localhost:4747?",
            ),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
