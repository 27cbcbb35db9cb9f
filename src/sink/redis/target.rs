//! The parsed URL of a Redis stream.

use std::io;

use redis::{ConnectionAddr, IntoConnectionInfo, parse_redis_url};

/// The contents of a URL: `redis[s]://[USER:PASSWORD@]HOST:PORT/DB?stream=NAME[&maxlen=N]`.
pub(super) struct Target {
    pub(super) node: Node,
    /// Whether all nodes speak TLS.
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: i64,
    pub(super) keys: Keys,
    /// The approximate number of entries to keep, in digits; empty for all.
    pub(super) maxlen: String,
}

/// The address of a Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) host: String,
    pub(super) port: u16,
}

/// The keys of one stream, all in the same slot of a cluster.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) stream: String,
    /// A hash of how many messages of each sender are committed.
    pub(super) senders: String,
    /// A hash of which server may commit messages of each sender.
    pub(super) claims: String,
    /// A sorted set of senders, in the order of their latest messages.
    pub(super) seen: String,
}

impl Target {
    /// # Errors
    ///
    /// What is wrong with the URL, without secrets in it.
    pub(super) fn parse(text: &str) -> io::Result<Target> {
        const FORM: &str = "write redis://[USER:PASSWORD@]HOST:PORT/DB?stream=NAME[&maxlen=N], or rediss:// for TLS";
        let wrong = |what: &str| io::Error::other(format!("cannot use Redis: {what}; {FORM}"));
        let url = parse_redis_url(text).ok_or_else(|| wrong("this is no URL of one"))?;
        let tls = match url.scheme() {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(wrong("only TCP is possible, with TLS or without it")),
        };
        let (mut stream, mut maxlen) = (None, String::new());
        for (key, value) in url.query_pairs() {
            match &*key {
                "stream" if !value.is_empty() => stream = Some(value.into_owned()),
                // Redis uses signed numbers.
                "maxlen" => match value.parse::<i64>() {
                    Ok(most @ 1..) => maxlen = most.to_string(),
                    _ => return Err(wrong("maxlen must be a positive number of messages")),
                },
                "stream" => return Err(wrong("the name of the stream is empty")),
                _ => return Err(wrong("the only parameters are stream and maxlen")),
            }
        }
        let stream = stream.ok_or_else(|| wrong("the name of the stream is missing"))?;
        let keys = Keys::of(stream).ok_or_else(|| {
            wrong("a name with } needs a {TAG} before it, which decides the slot in a cluster")
        })?;
        let mut bare = url;
        bare.set_query(None);
        // An insecure connection, which the fragment could ask for, is not offered.
        bare.set_fragment(None);
        if tls {
            // What follows is the same without TLS; this also works if the client library has none.
            let _ = bare.set_scheme("redis");
        }
        let info = bare.into_connection_info();
        let info =
            info.map_err(|_| wrong("the host, the port or the database number is invalid"))?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err(wrong("only TCP is possible, with TLS or without it"));
        };
        let redis = info.redis_settings();
        Ok(Target {
            tls,
            node: Node { host: host.clone(), port: *port },
            user: redis.username().map(ToOwned::to_owned),
            password: redis.password().map(ToOwned::to_owned),
            database: redis.db(),
            keys,
            maxlen,
        })
    }
}

impl Keys {
    /// Returns `None` if no other key can be in the same slot as `stream`.
    pub(super) fn of(stream: String) -> Option<Keys> {
        let tag = stream.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        let base = match tag {
            Some((tag, _)) if !tag.is_empty() => stream.clone(),
            _ if stream.contains('}') => return None,
            _ => format!("{{{stream}}}"),
        };
        Some(Keys {
            senders: format!("{base}:senders"),
            claims: format!("{base}:claims"),
            seen: format!("{base}:seen"),
            stream,
        })
    }

    pub(super) fn all(&self) -> [&str; 4] {
        [&self.stream, &self.senders, &self.claims, &self.seen]
    }
}

impl Node {
    /// Parses `HOST:PORT` as a cluster reports it; without a host, it is the host that was asked.
    pub(super) fn parse(text: &str, asked: &Node) -> Option<Node> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if matches!(host, "" | "?") { &asked.host } else { host };
        Some(Node { host: host.to_owned(), port: port.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_server_and_a_stream() {
        let url = "redis://me:p%40ss@example.org:7000/3?stream=log&maxlen=1000";
        let target = Target::parse(url).unwrap();
        assert_eq!(target.node, Node { host: "example.org".into(), port: 7000 });
        assert_eq!(
            (target.user.as_deref(), target.password.as_deref()),
            (Some("me"), Some("p@ss"))
        );
        assert_eq!((target.database, &*target.maxlen), (3, "1000"));
        for scheme in ["valkey", "Redis", "VALKEY"] {
            let target = Target::parse(&format!("{scheme}://me:pass@h:1/?stream=log")).unwrap();
            assert_eq!((&*target.node.host, target.password.as_deref()), ("h", Some("pass")));
        }
        for (scheme, tls) in
            [("rediss", true), ("valkeys", true), ("Rediss", true), ("redis", false)]
        {
            let target =
                Target::parse(&format!("{scheme}://:pass@h:1/3?stream=log#insecure")).unwrap();
            assert_eq!((target.tls, target.node.port, target.database), (tls, 1, 3), "{scheme}");
        }
        let target = Target::parse("redis://[::1]/?stream=log").unwrap();
        assert_eq!((&*target.node.host, target.node.port, &*target.maxlen), ("::1", 6379, ""));
        assert!(target.user.is_none() && target.password.is_none());
        for (url, words) in [
            ("redis:x", "HOST"),
            ("redis://h", "the stream is missing"),
            ("redis://h?stream=", "the stream is empty"),
            ("redis://h?stream=a&maxlen=0", "maxlen must be a positive number"),
            ("redis://h?stream=a&maxlen=9223372036854775808", "maxlen must be a positive number"),
            ("redis://h?stream=a&limit=3", "the only parameters are stream and maxlen"),
            ("redis://:secret@h/one?stream=a", "the database number is invalid"),
            ("redis://h?stream=a}b", "needs a {TAG}"),
            ("redis+unix:///secret?stream=a", "only TCP is possible"),
            ("redis://:secret@h?stream=a&secret=1", "the only parameters"),
            ("redis://:secret@h:x?stream=a", "no URL of one"),
            ("redis-sentinel://:secret@h?stream=a", "no URL of one"),
        ] {
            let Err(error) = Target::parse(url) else { panic!("{url} was taken") };
            let error = error.to_string();
            assert!(error.contains(words) && !error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn the_keys_of_a_stream_are_in_one_slot() {
        let senders = |stream: &str| Keys::of(stream.into()).map(|keys| keys.senders);
        assert_eq!(senders("log").unwrap(), "{log}:senders");
        assert_eq!(senders("a{b}c").unwrap(), "a{b}c:senders");
        assert_eq!(senders("a{b").unwrap(), "{a{b}:senders");
        assert_eq!([senders("{}a"), senders("a}"), senders("}{a")], [None, None, None]);
    }

    #[test]
    fn a_node_without_a_host_is_where_it_was_asked() {
        let asked = Node { host: "h".into(), port: 1 };
        let node = |text| Node::parse(text, &asked).map(|node| (node.host, node.port));
        assert_eq!(node("10.0.0.1:7000"), Some(("10.0.0.1".into(), 7000)));
        assert_eq!(node(":7000"), Some(("h".into(), 7000)));
        assert_eq!(node("::1:7000"), Some(("::1".into(), 7000)));
        assert_eq!(node("nonsense"), None);
    }
}
