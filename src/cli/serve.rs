//! `framelet serve`: receives messages and puts them into a sink.

use std::io;

use ::log::{Level, LevelFilter, info, warn};
use framelet::Server;
use framelet::server::{Echo, Monitor, Reopen, ServeError};
use framelet::sink::SinkTarget;
use framelet::tls::TlsAcceptor;
use framelet::wire::Count;
use futures_lite::future;

use super::exit_code::Exit;
use super::failure::{Failure, plain};
use super::flags;
use super::log;
use super::metrics;
use super::process::{check_threads, raise_file_limit, set_threads};
use super::signals::{act_at_signal, refresh_at_signal, stop_signal, survive_limits};
use super::tls;
use super::values::{Timeout, check_empty};

mod access;
mod figures; // in words
mod listen;
mod options;
mod sink;
mod status; // the live line on a terminal
mod supervisor; // the service manager

use listen::Inherited;
pub(crate) use options::Serve;
use status::StatusLine;
use supervisor::Supervisor;

impl Serve {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let level = match (self.verbose, self.quiet) {
            (true, true) => {
                return Err(Failure::new(Exit::Usage, "-v and -q contradict each other"));
            }
            (true, false) => LevelFilter::Debug,
            (false, true) => LevelFilter::Error,
            (false, false) => LevelFilter::Info,
        };
        // Done first, while nothing would be lost by a restart of the program.
        self.threads.map_or_else(check_threads, set_threads)?;
        log::set_format(self.log_format);
        let inherited = Inherited::take();
        if self.log_time {
            log::show_times();
        }
        log::start(level);
        raise_file_limit();
        // Runs on a thread that polls no reactor, so that events stay with the threads that run the
        // connections.
        future::block_on(smol::spawn(self.serve(inherited)))
    }

    async fn serve(self, inherited: Inherited) -> Result<(), Failure> {
        let listener = self.listen(inherited).await?;
        let bound = listener.address();
        let (supervisor, monitor) = (Supervisor::from_env(), Monitor::default());
        let mut server = self.options(Server::new(listener)).monitor(monitor.clone());
        server.check().map_err(failure)?;
        check_empty(self.empty, self.layout)?;
        if !self.proxy_from.is_empty() && !self.proxy_protocol {
            let message = "--proxy-from has no use without --proxy-protocol";
            return Err(Failure::new(Exit::Usage, message));
        }
        self.check_sink()?;
        self.check_addresses(bound.as_ref().ok())?;
        self.check_status()?;
        let tls = self.tls()?;
        if let Some(tls) = &tls {
            server = server.tls(tls.clone());
        }
        let sink = self.sink()?;
        let has_sink = sink.is_some();
        if let Some(sink) = sink {
            server = server.collect(sink);
        }
        // A service manager may ask any server to reload; elsewhere, SIGHUP means that the terminal is gone.
        if matches!(self.to, SinkTarget::File(_)) || tls.is_some() || supervisor.listens() {
            let reopen = Reopen::default();
            let (begin, done) = (supervisor.clone(), supervisor.clone());
            let sink = has_sink.then(|| reopen.clone());
            refresh_at_signal(sink, tls, move || begin.reloading(), move || done.ready())?;
            server = server.reopen(reopen);
        }
        let asked = monitor.clone();
        act_at_signal(move || {
            log::say_event(Level::Info, "figures", figures::words(&asked.figures()));
        })?;
        survive_limits()?;
        let stopped = stop_signal()?;
        // Served until the server has ended: also while it shuts down.
        let _metrics = match &self.metrics {
            Some(address) => Some(metrics::serve(address, monitor.clone()).await?),
            None => None,
        };
        match bound {
            Ok(address) => {
                log::say_event(Level::Info, "listening", format!("listening on {address}"));
            }
            Err(error) => warn!("listening, but the address is unknown: {}", plain(&error)),
        }
        supervisor.ready();
        let _watching = smol::spawn(supervisor.clone().watch(monitor.clone()));
        let status = self.status.then(|| StatusLine::start(monitor)).transpose();
        let _status = status.map_err(|error| {
            Failure::new(Exit::Usage, format!("cannot show --status: {}", plain(&error)))
        })?;
        let stopped = async {
            stopped.await;
            supervisor.stopping();
        };
        let summary = server.run(stopped).await.map_err(failure)?;
        info!(
            event = "stopped";
            "{} over {}",
            Count(summary.messages, "message"),
            Count(summary.connections, "connection")
        );
        Ok(())
    }

    fn tls(&self) -> Result<Option<TlsAcceptor>, Failure> {
        let options = tls::ServerOptions {
            certificate: self.tls_cert.as_deref(),
            key: self.tls_key.as_deref(),
            client_ca: self.tls_client_ca.as_deref(),
            bind_sender: self.tls_bind_sender,
        };
        options.acceptor()
    }

    fn options(&self, mut server: Server) -> Server {
        server = server.layout(self.layout).grace(self.grace).require_acks(self.require_ack);
        server = server.proxy_protocol(self.proxy_protocol);
        if !self.proxy_from.is_empty() {
            server = server.proxy_from(self.proxy_from.iter().copied());
        }
        server = server.preamble(&self.preamble.0).skip(self.skip).empty(self.empty);
        if let Some(max) = self.max_message {
            server = server.max_message(max);
        }
        if let Some(max) = self.max_connections {
            server = server.max_connections(usize::try_from(max).unwrap_or(usize::MAX));
        }
        if let Some(max) = self.max_per_address {
            server = server.max_per_address(usize::try_from(max).unwrap_or(usize::MAX));
        }
        if !self.allow.is_empty() {
            server = server.allow(self.allow.iter().copied());
        }
        if let Some(Timeout(after)) = self.evict_idle {
            server = server.evict_idle(after);
        }
        if let Some(Timeout(timeout)) = self.message_timeout {
            server = server.message_timeout(timeout);
        }
        if let Some(Timeout(timeout)) = self.idle_timeout {
            server = server.idle_timeout(timeout);
        }
        if let Some(memory) = self.memory {
            server = server.memory(memory);
        }
        if self.echo { server.answer(Echo) } else { server }
    }
}

fn failure(error: ServeError) -> Failure {
    let exit = match &error {
        ServeError::Sink { error, .. } if error.kind() == io::ErrorKind::BrokenPipe => {
            Exit::ClosedOutput
        }
        ServeError::Sink { .. } => Exit::Usage,
        ServeError::Unfinished { .. } => Exit::Timeout,
        _ => Exit::Usage,
    };
    Failure::new(exit, flags::of_server(&error))
}
