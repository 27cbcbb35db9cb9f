//! Opens the sink of a server.

use std::env::{self, VarError};
use std::io;

use framelet::format::OutputFormat;
use framelet::sink::{FileSink, MessageSink, OutputSink, RedisSink, SinkTarget, SqliteSink};

use super::super::exit_code::Exit;
use super::super::failure::{Failure, missing_directory, plain};
use super::options::Serve;

/// The environment variable for a Redis password, to keep it out of process lists.
const REDIS_PASSWORD: &str = "FRAMELET_REDIS_PASSWORD";

/// The longest value in Redis, unless its proto-max-bulk-len differs.
const LONGEST_IN_REDIS: usize = 512 << 20;

/// The longest message for SQLite, in bytes: a row has at most 1,000,000,000, and the other columns need
/// some of them.
const LONGEST_IN_SQLITE: usize = 999_000_000;

impl Serve {
    /// Checks the options that depend on the sink.
    pub(super) fn check_sink(&self) -> Result<(), Failure> {
        if self.sync.is_some() && !matches!(self.to, SinkTarget::File(_)) {
            let message = match self.to {
                SinkTarget::Redis(_) => {
                    "--sync is for --to file:PATH only; for Redis see its appendfsync"
                }
                SinkTarget::Sqlite(_) => {
                    "--sync is for --to file:PATH only; a database is always made safe"
                }
                _ => "--sync is for --to file:PATH only",
            };
            return Err(Failure::new(Exit::Usage, message));
        }
        if !self.keep.is_empty() && !matches!(self.to, SinkTarget::Sqlite(_)) {
            let message = match self.to {
                SinkTarget::File(_) => {
                    "--keep is for --to sqlite:PATH only; for a file, rename it and send SIGHUP"
                }
                SinkTarget::Redis(_) => {
                    "--keep is for --to sqlite:PATH only; for Redis, add &maxlen=N to the URL"
                }
                _ => "--keep is for --to sqlite:PATH only",
            };
            return Err(Failure::new(Exit::Usage, message));
        }
        if self.output.is_some() && matches!(self.to, SinkTarget::Sqlite(_) | SinkTarget::Redis(_))
        {
            let message =
                "--output is for stdout and files only; a database takes messages as they are";
            return Err(Failure::new(Exit::Usage, message));
        }
        let longest = match self.to {
            SinkTarget::Redis(_) => Some((LONGEST_IN_REDIS, "512 MiB that Redis takes")),
            SinkTarget::Sqlite(_) => {
                Some((LONGEST_IN_SQLITE, "999,000,000 bytes that SQLite takes"))
            }
            _ => None,
        };
        if let Some((longest, what)) = longest
            && self.max_message.is_some_and(|max| max > longest)
        {
            return Err(Failure::new(Exit::Usage, format!("--max-message is over the {what}")));
        }
        Ok(())
    }

    /// Opens the sink. Returns `None` if messages are only counted.
    pub(super) fn sink(&self) -> Result<Option<Box<dyn MessageSink>>, Failure> {
        let format = self.output.unwrap_or_default().for_layout(self.layout);
        let unusable = |error| self.unusable(&error);
        Ok(Some(match &self.to {
            SinkTarget::Stdout if format == OutputFormat::None => return Ok(None),
            SinkTarget::Stdout => {
                Box::new(OutputSink::stdout(format).map_err(|error| Failure::output(&error))?)
            }
            SinkTarget::File(path) => {
                let sync = self.sync.unwrap_or_default();
                Box::new(FileSink::open(path, format, sync).map_err(unusable)?)
            }
            SinkTarget::Sqlite(path) => {
                let sink = SqliteSink::open(path).map_err(unusable)?;
                Box::new(self.keep.iter().fold(sink, |sink, keep| sink.keep(*keep)))
            }
            SinkTarget::Redis(url) => Box::new(open_redis(url).map_err(unusable)?),
            place => {
                let message = format!("no such sink: {place}");
                return Err(Failure::new(Exit::Usage, message));
            }
        }))
    }

    /// Returns why the sink cannot be opened, with advice.
    fn unusable(&self, error: &io::Error) -> Failure {
        let text = plain(error);
        let needs_password = || ["NOAUTH", "WRONGPASS"].iter().any(|code| text.contains(code));
        let hint = match (&self.to, error.kind()) {
            // The file has another layout, or another format.
            (SinkTarget::File(_), io::ErrorKind::InvalidInput) => " (--layout)",
            (SinkTarget::File(_), io::ErrorKind::InvalidData) => " (--output)",
            (SinkTarget::Sqlite(_), io::ErrorKind::Unsupported) => {
                ", as cargo install --locked --path . does"
            }
            (SinkTarget::File(path) | SinkTarget::Sqlite(path), _) => &missing_directory(path),
            (SinkTarget::Redis(_), io::ErrorKind::Unsupported) => {
                ": cargo install --locked --features redis --path ."
            }
            (SinkTarget::Redis(_), _) if needs_password() => " (FRAMELET_REDIS_PASSWORD)",
            _ => "",
        };
        Failure::new(Exit::Usage, format!("{text}{hint}"))
    }
}

fn open_redis(url: &str) -> io::Result<RedisSink> {
    match env::var(REDIS_PASSWORD) {
        Ok(password) if !password.is_empty() => RedisSink::open_with_password(url, &password),
        Ok(_) | Err(VarError::NotPresent) => RedisSink::open(url),
        Err(VarError::NotUnicode(_)) => {
            Err(io::Error::other(format!("the password in {REDIS_PASSWORD} is not UTF-8")))
        }
    }
}
