//! A sink that adds messages to a Redis stream, which other servers may write to as well.
//!
//! Beside the stream, Redis stores the count of each sender, and which server may commit its messages. One
//! script checks and changes both together with the stream. So a batch can be sent again if its result is
//! unknown, and messages that an old server still holds cannot be added after those of a new one.

use std::collections::HashMap;
use std::fmt;
use std::io;

use log::{info, warn};
use redis::cmd;

use super::message_sink::{MessageSink, SinkError};
use crate::message::Batch;
use crate::tls::TlsConnector;
use crate::wire::answer::RefusalCode;
use crate::wire::sender_id::SenderId;

mod command; // the script's command, encoded
mod link; // the connection and its errors
mod portions; // how a commit is divided into script calls
mod target; // the parsed URL

use command::{Command, Fixed};
use link::{Link, Nodes, REDIRECTIONS, RedisFault};
use portions::{Group, Portion};
use target::Target;

/// The most senders whose claims are remembered here; there are fewer connections. A forgotten claim stays
/// valid as long as Redis knows it.
const CLAIMS: usize = 100_000;

/// The epoch of a sender's first claim.
const FIRST_EPOCH: i64 = 1;

/// Adds messages to a Redis stream, one entry each.
///
/// An entry has the fields `time`, `peer`, `connection`, `sender` (if the client asked for
/// acknowledgements), `number`, `header` (if the message has one) and `payload`. For a stream `NAME` there
/// are three more keys, in the same slot of a cluster: `{NAME}:senders`, a hash with each sender's count and
/// the checksum of its last message; `{NAME}:claims`, a hash with the server that may commit each sender's
/// messages; and `{NAME}:seen`, a sorted set of senders, the most recent one last. If `NAME` already contains
/// a tag in braces, these keys are `NAME` with the suffix.
///
/// A script adds the messages of a sender together with its count, so each message is stored exactly once,
/// even if the sender connects to several servers: only the latest connection may send, and messages left
/// over from an older one are refused. Messages of clients without acknowledgements are counted per server,
/// so they are not stored twice after a lost answer, either; but if the server is killed, nobody sends them
/// again. The 1,000,000 senders with the latest messages are remembered.
///
/// A commit is as safe as a write in Redis: see its settings `appendonly`, `appendfsync` and
/// `min-replicas-to-write`.
///
/// While Redis is unreachable or refuses writes (for example because it is out of memory), a commit returns
/// [`SinkError::Transient`]; the same commit can be repeated. Redis may take 30 s to answer.
///
/// # Examples
///
/// It needs a Redis, so this is not run:
///
/// ```no_run
/// use framelet::sink::{MessageSink, RedisSink};
/// use framelet::Batch;
///
/// let mut sink = RedisSink::open("redis://127.0.0.1:6379/0?stream=readings&maxlen=1000000")?;
/// sink.commit(&[Batch::from_iter(["21.5", "21.7"])])?;
///
/// let password = std::fs::read_to_string("/run/secrets/redis")?;
/// let url = "redis://collector@127.0.0.1:6379/0?stream=readings";
/// let sink = RedisSink::open_with_password(url, password.trim_end())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RedisSink {
    target: Target,
    nodes: Nodes,
    link: Option<Link>,
    /// The id of this server in claims, under which messages without a sender are counted.
    own: SenderId,
    /// How many messages without a sender are committed.
    plain_committed: u64,
    /// The epochs of claims other than the first.
    claims: HashMap<SenderId, i64>,
}

impl fmt::Debug for RedisSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Omits the URL, which may contain a password.
        f.debug_struct("RedisSink").field("keys", &self.target.keys).finish_non_exhaustive()
    }
}

impl RedisSink {
    /// Connects to the Redis at a URL: `redis://[USER:PASSWORD@]HOST:PORT/DB?stream=NAME[&maxlen=N]`. With
    /// `maxlen`, the stream is trimmed to about that many entries, never fewer. `rediss://` is the same over TLS,
    /// with the authorities that the system trusts (or those in the file that `SSL_CERT_FILE` names).
    ///
    /// Any node of a cluster can be given. If Redis is running but still loading, or refuses writes for
    /// now, commits wait.
    ///
    /// # Errors
    ///
    /// The URL is invalid; nothing answers there, or it denies access; or one of the keys has a value of
    /// another type.
    pub fn open(url: &str) -> io::Result<RedisSink> {
        RedisSink::connect(Target::parse(url)?)
    }

    /// Does the same with a password that is not in the URL, where others could see it.
    ///
    /// # Errors
    ///
    /// The same as those of [`RedisSink::open`].
    pub fn open_with_password(url: &str, password: &str) -> io::Result<RedisSink> {
        let password = Some(password.to_owned());
        RedisSink::connect(Target { password, ..Target::parse(url)? })
    }

    fn connect(target: Target) -> io::Result<RedisSink> {
        if target.tls {
            // A build without TLS, or a system without authorities, is better named before an attempt.
            TlsConnector::with_system_roots()?;
        }
        let mut sink = RedisSink {
            nodes: Nodes::new(target.node.clone()),
            target,
            link: None,
            own: SenderId::random()?,
            plain_committed: 0,
            claims: HashMap::new(),
        };
        match sink.nodes.connect(&sink.target) {
            Ok(link) => sink.link = Some(link),
            Err(RedisFault::Passing(why)) => {
                warn!("{}: {why}; messages wait until it takes them", sink.name());
            }
            Err(trouble) => return Err(sink.failed(trouble).into()),
        }
        Ok(sink)
    }

    /// The name of this Redis in messages.
    fn name(&self) -> String {
        let node = &self.link.as_ref().map_or(&self.target.node, |link| &link.node);
        format!("redis at {}:{}", node.host, node.port)
    }

    fn failed(&mut self, trouble: RedisFault) -> SinkError {
        let (why, kind) = match trouble {
            RedisFault::Final(why) => (why, SinkError::Fatal as fn(io::Error) -> SinkError),
            RedisFault::Away(why) | RedisFault::Passing(why) => (why, SinkError::Transient as _),
            RedisFault::Moved(node) => {
                (format!("the stream is at {}:{}", node.host, node.port), SinkError::Transient as _)
            }
        };
        let error = io::Error::other(format!("{}: {why}", self.name()));
        // Reconnect: another node may accept writes now, and old answers may still arrive on this
        // connection.
        self.link = None;
        kind(error)
    }

    fn link(&mut self) -> Result<&mut Link, RedisFault> {
        if self.link.is_none() {
            self.link = Some(self.nodes.connect(&self.target)?);
        }
        self.link.as_mut().ok_or_else(|| RedisFault::Away("there is no connection".into()))
    }

    /// Calls `attempt`, and again after each redirection to another node.
    fn where_it_is<T>(
        &mut self,
        mut attempt: impl FnMut(&mut RedisSink) -> Result<T, RedisFault>,
    ) -> Result<T, SinkError> {
        for _ in 0..REDIRECTIONS {
            match attempt(self) {
                Ok(done) => return Ok(done),
                Err(RedisFault::Moved(node)) => {
                    info!("{}: the stream has moved to {}:{}", self.name(), node.host, node.port);
                    self.nodes.moved(&node);
                    self.link = None;
                }
                Err(trouble) => return Err(self.failed(trouble)),
            }
        }
        Err(self.failed(RedisFault::circles()))
    }

    /// Claims `senders` for this server, as far as Redis knows them. Returns the epoch of each claim, and
    /// each sender's count, at least `least`.
    fn claim(&mut self, senders: &[SenderId], least: u64) -> Result<Vec<(i64, u64)>, RedisFault> {
        let own = self.own.to_string();
        let keys = self.target.keys.all().map(ToOwned::to_owned);
        let link = self.link()?;
        // All at once, to wait for Redis only once.
        let mut commands = Vec::new();
        for sender in senders {
            let mut command = cmd("EVALSHA");
            command.arg(&link.claim).arg(keys.len()).arg(&keys);
            command.arg(sender.to_string()).arg(&own).arg(least);
            commands.extend(command.get_packed_command());
        }
        link.send(&commands)?;
        let answers: Result<Vec<_>, _> = senders.iter().map(|_| link.receive()).collect();
        answers?.into_iter().collect()
    }

    /// Groups batches by sender.
    fn group<'a>(&self, batches: &'a [Batch]) -> Vec<Group<'a>> {
        let mut groups: Vec<Group<'a>> = Vec::new();
        let mut index = HashMap::new();
        let mut plain = self.plain_committed;
        for batch in batches {
            let sender = batch.sender();
            let claim = sender.and_then(|sender| self.claims.get(&sender).copied());
            let epoch = claim.unwrap_or(FIRST_EPOCH);
            let at = *index.entry(sender).or_insert_with(|| {
                let (batches, first) = (Vec::new(), Vec::new());
                groups.push(Group { sender, epoch, batches, first, refused: false });
                groups.len() - 1
            });
            groups[at].batches.push(batch);
            groups[at].first.push(match sender {
                Some(_) => batch.first_number(),
                None => plain + 1,
            });
            if sender.is_none() {
                plain += batch.len() as u64;
            }
        }
        groups
    }

    /// Sends what is not done yet, and records the results. Returns whether everything is done.
    fn try_commit(
        &mut self,
        groups: &mut [Group],
        portions: &mut [Portion],
    ) -> Result<bool, RedisFault> {
        let fixed = Fixed {
            keys: self.target.keys.all().map(ToOwned::to_owned),
            maxlen: self.target.maxlen.clone(),
            own: self.own,
        };
        let link = self.link()?;
        let mut command = Command::default();
        let mut sent = Vec::new();
        for (index, portion) in portions.iter().enumerate() {
            let group = &groups[portion.group];
            if portion.done || group.refused {
                continue;
            }
            link.send(command.commit(&link.commit, &fixed, group, portion))?;
            sent.push(index);
        }
        let mut trouble = None;
        let (mut all, mut lost) = (true, None);
        for index in sent {
            let answer = link.receive()?;
            let of_group = portions[index].group;
            let group = &mut groups[of_group];
            match (answer, group.sender) {
                (Ok((0, _)), _) => portions[index].done = true,
                _ if group.refused => {}
                (Ok((1, _)), Some(_)) => group.refuse(RefusalCode::Fenced),
                (Ok((2, committed)), sender) => {
                    let waits = portions[..index].iter().any(|p| p.group == of_group && !p.done);
                    match sender {
                        // Only refused because an earlier portion was not accepted; sent again later.
                        _ if waits => all = false,
                        Some(sender) => {
                            let known = group.first_of(&portions[index]).saturating_sub(1);
                            warn!(
                                "the stream has {committed} messages of sender {} and not the {known} \
                                 that were committed: redis has lost some, or forgotten the sender",
                                sender.short()
                            );
                            group.refuse(RefusalCode::Sink);
                        }
                        None => {
                            lost = Some(committed);
                            all = false;
                        }
                    }
                }
                (Ok(_), _) => {
                    trouble.get_or_insert(RedisFault::Final("its script was changed".into()));
                }
                (Err(error), _) => {
                    trouble.get_or_insert(error);
                }
            }
        }
        let done = portions.iter().filter(|portion| portion.done);
        let plain = done.filter(|portion| groups[portion.group].sender.is_none());
        let plain: usize = plain.map(|portion| portion.messages).sum();
        match trouble {
            Some(trouble) => return Err(trouble),
            None if all => return Ok(true),
            None => {}
        }
        if let Some(committed) = lost {
            let known = self.plain_committed + plain as u64;
            warn!(
                "the stream has {committed} messages of clients without acknowledgements and not the \
                 {known} that were committed since the start: redis has lost some, or forgotten this server"
            );
            self.claim(&[self.own], known)?;
        }
        Ok(false)
    }
}

impl MessageSink for RedisSink {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
        // If this fails, the counts show what was stored when the same batches come again.
        let mut groups = self.group(batches);
        let mut portions = Vec::new();
        for (index, group) in groups.iter().enumerate() {
            group.divide(index, &mut portions);
        }
        while !self.where_it_is(|sink| sink.try_commit(&mut groups, &mut portions))? {}
        let plain = groups.iter().filter(|group| group.sender.is_none());
        self.plain_committed += plain.map(Group::messages).sum::<u64>();
        Ok(())
    }

    fn committed(&mut self, sender: SenderId) -> Result<Option<u64>, SinkError> {
        Ok(self.committed_by_each(&[sender])?.pop().flatten())
    }

    fn committed_by_each(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
        let answers = self.where_it_is(|sink| sink.claim(senders, 0))?;
        if self.claims.len() + senders.len() > CLAIMS {
            self.claims.clear();
        }
        let answers = senders.iter().zip(answers).map(|(sender, (epoch, committed))| {
            match epoch {
                FIRST_EPOCH => self.claims.remove(sender),
                _ => self.claims.insert(*sender, epoch),
            };
            Some(committed)
        });
        Ok(answers.collect())
    }

    fn last_checksums(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
        self.where_it_is(|sink| {
            let key = sink.target.keys.senders.clone();
            let link = sink.link()?;
            let mut commands = Vec::new();
            for sender in senders {
                commands.extend(cmd("HGET").arg(&key).arg(sender.to_string()).get_packed_command());
            }
            link.send(&commands)?;
            let answers: Result<Vec<_>, _> = senders.iter().map(|_| link.receive_text()).collect();
            answers?.into_iter().map(|text| Ok(text?.as_deref().and_then(checksum))).collect()
        })
    }
}

/// Returns the checksum that follows a sender's count.
fn checksum(text: &str) -> Option<u64> {
    u64::from_str_radix(text.split_once(' ')?.1, 16).ok()
}
