//! The connection to Redis, and to which of its nodes.

use std::io;
use std::time::Duration;

use redis::{
    Client, Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    RedisResult, ServerErrorKind, Value, cmd,
};

use super::target::{Node, Target};
use crate::wire::io_error::Plain;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How long Redis may take to answer: where it syncs its log at each write, a slow disk can stop it for
/// many seconds, and to send everything again only adds to its work.
const ANSWER: Duration = Duration::from_secs(30);

/// How often a cluster may send us elsewhere before we wait for it to settle.
pub(super) const REDIRECTIONS: usize = 5;

/// A connection to the node that has the stream.
pub(super) struct Link {
    connection: Connection,
    pub(super) node: Node,
    pub(super) commit: String,
    pub(super) claim: String,
}

/// What went wrong.
pub(super) enum RedisFault {
    /// Redis is not there, or something else is: it may come. Why, in words.
    Away(String),
    /// Redis is there, and says why it cannot do that for now.
    Passing(String),
    /// The stream is elsewhere in the cluster.
    Moved(Node),
    /// It does not pass. Why, in words.
    Final(String),
}

impl RedisFault {
    pub(super) fn circles() -> RedisFault {
        RedisFault::Passing("the cluster sends us in circles".into())
    }
}

/// Where the stream may be, the likeliest first.
pub(super) struct Nodes(Vec<Node>);

impl Nodes {
    pub(super) fn new(first: Node) -> Nodes {
        Nodes(vec![first])
    }

    fn prefer(&mut self, node: &Node) {
        self.0.retain(|other| other != node);
        self.0.insert(0, node.clone());
    }

    fn learn(&mut self, node: Node) {
        if !self.0.contains(&node) {
            self.0.push(node);
        }
    }

    /// Connects to the node that has the stream.
    pub(super) fn connect(&mut self, target: &Target) -> Result<Link, RedisFault> {
        let mut first = None;
        for node in self.0.clone() {
            let mut next = node;
            for _ in 0..REDIRECTIONS {
                match Link::open(&next, target) {
                    Ok(mut link) => {
                        self.prefer(&next);
                        link.other_nodes().into_iter().for_each(|node| self.learn(node));
                        // The one that was given may have a name that finds a new node.
                        self.learn(target.node.clone());
                        return Ok(link);
                    }
                    Err(RedisFault::Moved(node)) => next = node,
                    Err(RedisFault::Final(why)) => return Err(RedisFault::Final(why)),
                    Err(passing) => {
                        first.get_or_insert(passing);
                        break;
                    }
                }
            }
        }
        Err(first.unwrap_or_else(RedisFault::circles))
    }

    /// Notes that the stream is there now.
    pub(super) fn moved(&mut self, node: &Node) {
        self.prefer(node);
    }
}

impl Link {
    fn open(node: &Node, target: &Target) -> Result<Link, RedisFault> {
        let sort = |error: RedisError| sort(&error, node);
        let address = ConnectionAddr::Tcp(node.host.clone(), node.port);
        let info = address.into_connection_info().map_err(sort)?;
        // What is wrong with them is said better when we send them ourselves.
        let info = info.set_redis_settings(RedisConnectionInfo::default().set_skip_set_lib_name());
        let client = Client::open(info).map_err(sort)?;
        let mut connection = client.get_connection_with_timeout(CONNECT).map_err(sort)?;
        connection.set_read_timeout(Some(ANSWER)).map_err(sort)?;
        connection.set_write_timeout(Some(ANSWER)).map_err(sort)?;
        if let Some(password) = &target.password {
            let mut auth = cmd("AUTH");
            if let Some(user) = &target.user {
                auth.arg(user);
            }
            auth.arg(password).exec(&mut connection).map_err(sort)?;
        }
        if target.database != 0 {
            cmd("SELECT").arg(target.database).exec(&mut connection).map_err(sort)?;
        }
        for (key, needed) in target.keys.all().into_iter().zip(["stream", "hash", "hash", "zset"]) {
            let kind: String = cmd("TYPE").arg(key).query(&mut connection).map_err(sort)?;
            if kind != needed && kind != "none" {
                return Err(RedisFault::Final(format!(
                    "the key {key} is a {kind}, and a {needed} is needed there; give another stream"
                )));
            }
        }
        let mut load = |script: &str| {
            cmd("SCRIPT").arg("LOAD").arg(script).query::<String>(&mut connection).map_err(sort)
        };
        let commit = load(include_str!("commit.lua"))?;
        let claim = load(include_str!("claim.lua"))?;
        Ok(Link { connection, node: node.clone(), commit, claim })
    }

    /// Returns the nodes of the cluster; none if it is no cluster, or does not say.
    fn other_nodes(&mut self) -> Vec<Node> {
        let mut nodes = Vec::new();
        let Ok(Value::Array(ranges)) = cmd("CLUSTER").arg("SLOTS").query(&mut self.connection)
        else {
            return nodes;
        };
        for range in ranges {
            let Value::Array(parts) = range else { continue };
            // Behind the first and the last slot.
            for node in parts.into_iter().skip(2) {
                if let Value::Array(node) = node
                    && let [host, Value::Int(port), ..] = &node[..]
                    && let Ok(port) = u16::try_from(*port)
                {
                    let host: String = redis::from_redis_value_ref(host).unwrap_or_default();
                    nodes.extend(Node::parse(&format!("{host}:{port}"), &self.node));
                }
            }
        }
        nodes
    }

    /// Sends one or several commands; their answers are to be [received](Link::receive).
    pub(super) fn send(&mut self, command: &[u8]) -> Result<(), RedisFault> {
        self.connection.send_packed_command(command).map_err(|error| sort(&error, &self.node))
    }

    /// Receives an answer of two numbers. `Err` in `Ok` is an answer, too: others may follow.
    pub(super) fn receive(&mut self) -> Result<Result<(i64, u64), RedisFault>, RedisFault> {
        Ok(self.receive_value()?.and_then(two_numbers))
    }

    /// Receives a text, or that there is none, likewise.
    pub(super) fn receive_text(
        &mut self,
    ) -> Result<Result<Option<String>, RedisFault>, RedisFault> {
        let text = |value| redis::from_redis_value(value).map_err(|_| something_else());
        Ok(self.receive_value()?.and_then(text))
    }

    fn receive_value(&mut self) -> Result<Result<Value, RedisFault>, RedisFault> {
        let answer: RedisResult<Value> = self.connection.recv_response();
        match answer.and_then(Value::extract_error) {
            Ok(value) => Ok(Ok(value)),
            Err(error) if error.code().is_some() => Ok(Err(sort(&error, &self.node))),
            Err(error) => Err(sort(&error, &self.node)),
        }
    }
}

fn two_numbers(value: Value) -> Result<(i64, u64), RedisFault> {
    match value {
        Value::Array(values) => match values[..] {
            [Value::Int(first), Value::Int(second)] => {
                Ok((first, u64::try_from(second).unwrap_or(0)))
            }
            _ => Err(something_else()),
        },
        _ => Err(something_else()),
    }
}

fn something_else() -> RedisFault {
    RedisFault::Final("it answers something else than was asked".into())
}

/// Codes of errors that pass, be it that somebody has to see to it.
const PASSING: [&str; 12] = [
    "LOADING",
    "READONLY",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "OOM",
    "MISCONF",
    "TRYAGAIN",
    "NOREPLICAS",
    "BUSY",
    "ASK",
    "NOSCRIPT",
    "UNBLOCKED",
];

fn sort(error: &RedisError, node: &Node) -> RedisFault {
    let Some(code) = error.code() else {
        return RedisFault::Away(match error.is_timeout() {
            true => format!("no answer within {} s", ANSWER.as_secs()),
            false => words(error),
        });
    };
    let detail = error.detail().unwrap_or_default();
    if error.kind() == ServerErrorKind::Moved.into()
        && let Some((to, _)) = error.redirect_node()
        && let Some(to) = Node::parse(to, node)
    {
        return RedisFault::Moved(to);
    }
    // Before Redis 7, a script has an error of its own, with the other one in it.
    let inner = |passing: &&&str| detail.contains(&format!("-{passing} "));
    let passing = PASSING.iter().find(|&&passing| passing == code).or(PASSING.iter().find(inner));
    let text = format!("{code} {detail}").replace(['\r', '\n'], " ");
    if passing.is_some() || detail.contains("max number of clients reached") {
        return RedisFault::Passing(text.trim_end().into());
    }
    let hint = match code {
        "NOAUTH" => "; give a password, and a user as in redis://USER@HOST:PORT/",
        "WRONGPASS" => "; see the user in the URL, and the password",
        // Within a script, Redis 7.0 has no code of its own for it.
        _ if code == "NOPERM" || detail.contains("can't run this command") => {
            "; the user needs +@all on the stream and the keys beside it, or another one"
        }
        "ERR" if detail.contains("DB index") => "; see the number behind the port in the URL",
        "ERR" if detail.contains("cluster mode") => "; a cluster has database 0 only",
        _ => "",
    };
    RedisFault::Final(format!("{}{hint}", text.trim_end()))
}

fn words(error: &RedisError) -> String {
    Plain(&io::Error::other(error.to_string().replace('\n', " "))).to_string()
}
