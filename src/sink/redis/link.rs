//! The connection to Redis, and the search for the right node.

use std::io;
use std::time::Duration;

use redis::{
    Client, Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    RedisResult, ServerErrorKind, Value, cmd,
};

use super::target::{Node, Target};
use crate::wire::io_error::Plain;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How long Redis may take to answer. If it syncs its log at each write, a slow disk can stop it for many
/// seconds, and sending everything again would only add to its work.
const ANSWER: Duration = Duration::from_secs(30);

/// How many redirections within a cluster are followed before waiting for it to settle.
pub(super) const REDIRECTIONS: usize = 5;

/// A connection to the node that has the stream.
pub(super) struct Link {
    connection: Connection,
    pub(super) node: Node,
    pub(super) commit: String,
    pub(super) claim: String,
}

/// An error of Redis or of the connection.
pub(super) enum RedisFault {
    /// Redis cannot be reached, or something else answers; that may change. In words.
    Away(String),
    /// Redis answers with a transient error.
    Passing(String),
    /// The stream is on another node of the cluster.
    Moved(Node),
    /// A final error, in words.
    Final(String),
}

impl RedisFault {
    pub(super) fn circles() -> RedisFault {
        RedisFault::Passing("the nodes of the cluster redirect to one another without end".into())
    }
}

/// The nodes that may have the stream, the most likely first.
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
                        // The given name may resolve to a new node by now.
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

    /// Records that the stream is on this node now.
    pub(super) fn moved(&mut self, node: &Node) {
        self.prefer(node);
    }
}

impl Link {
    fn open(node: &Node, target: &Target) -> Result<Link, RedisFault> {
        let sort = |error: RedisError| sort(&error, node);
        let (host, port) = (node.host.clone(), node.port);
        let address = match target.tls {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        };
        let info = address.into_connection_info().map_err(sort)?;
        // The client library would hide the errors of these commands, so they are sent below.
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

    /// Returns the nodes of the cluster; none if it is not a cluster, or does not tell.
    fn other_nodes(&mut self) -> Vec<Node> {
        let mut nodes = Vec::new();
        let Ok(Value::Array(ranges)) = cmd("CLUSTER").arg("SLOTS").query(&mut self.connection)
        else {
            return nodes;
        };
        for range in ranges {
            let Value::Array(parts) = range else { continue };
            // The first two parts are the first and the last slot.
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

    /// Sends one or more commands; read their answers with [`receive`](Link::receive).
    pub(super) fn send(&mut self, command: &[u8]) -> Result<(), RedisFault> {
        self.connection.send_packed_command(command).map_err(|error| sort(&error, &self.node))
    }

    /// Receives an answer of two numbers. An inner `Err` is an answer as well: others may follow it.
    pub(super) fn receive(&mut self) -> Result<Result<(i64, u64), RedisFault>, RedisFault> {
        Ok(self.receive_value()?.and_then(two_numbers))
    }

    /// Receives a text or nothing, in the same way.
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
    RedisFault::Final("its answer has an unexpected form".into())
}

/// Codes of transient errors, including those that an operator must fix.
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
    // Before Redis 7, an error inside a script is wrapped in another error.
    let inner = |passing: &&&str| detail.contains(&format!("-{passing} "));
    let passing = PASSING.iter().find(|&&passing| passing == code).or(PASSING.iter().find(inner));
    let text = format!("{code} {detail}").replace(['\r', '\n'], " ");
    if passing.is_some() || detail.contains("max number of clients reached") {
        return RedisFault::Passing(text.trim_end().into());
    }
    let hint = match code {
        "NOAUTH" => "; give a password, and a user as in redis://USER@HOST:PORT/",
        "WRONGPASS" => "; check the user in the URL, and the password",
        // For a script, Redis 7.0 does not use the code.
        _ if code == "NOPERM" || detail.contains("can't run this command") => {
            "; the user needs +@all on the stream and the keys beside it, or another one"
        }
        "ERR" if detail.contains("DB index") => {
            "; check the database number after the port in the URL"
        }
        "ERR" if detail.contains("cluster mode") => "; a cluster has database 0 only",
        _ => "",
    };
    RedisFault::Final(format!("{}{hint}", text.trim_end()))
}

fn words(error: &RedisError) -> String {
    Plain(&io::Error::other(error.to_string().replace('\n', " "))).to_string()
}
