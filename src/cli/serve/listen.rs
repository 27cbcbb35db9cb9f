//! Where a server listens: at an address, or on a socket that the service manager has opened.

use std::env;
use std::io;
use std::os::fd::OwnedFd;

use ::log::warn;
use framelet::Address;
use framelet::net::Listener;
use framelet::sink::SinkTarget;
use framelet::wire::Count;
use listenfd::ListenFd;

use super::super::exit_code::Exit;
use super::super::failure::{Failure, plain, why_not_listening};
use super::super::values::address;
use super::access::socket_access;
use super::options::Serve;

/// The address that stands for the socket that the service manager has opened, alone or followed by `:NAME`.
const SYSTEMD: &str = "systemd";

/// The sockets that the service manager has opened for this process.
pub(super) struct Inherited {
    sockets: ListenFd,
    /// Their names, in their order; empty for one without a name.
    names: Vec<String>,
}

impl Inherited {
    /// Takes the sockets over. To be called once, while no other thread runs: it removes variables of the
    /// environment.
    pub(super) fn take() -> Inherited {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(Into::into).collect();
        Inherited { sockets: ListenFd::from_env(), names }
    }

    /// Takes the socket of this name, or the only one.
    fn listener(mut self, name: Option<&str>) -> Result<Listener, Failure> {
        let index = self.choose(name).map_err(|why| Failure::new(Exit::Usage, why))?;
        let cannot = |error: io::Error| {
            let text = plain(&error);
            let message = format!("cannot serve the socket of the service manager: {text}");
            Failure::new(Exit::Usage, message).advise(
                "; its unit needs ListenStream= with Accept=no, and starts framelet serve systemd",
            )
        };
        let socket: Option<OwnedFd> = match self.sockets.take_unix_listener(index) {
            Ok(socket) => socket.map(Into::into),
            Err(_) => self.sockets.take_tcp_listener(index).map_err(cannot)?.map(Into::into),
        };
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let socket = socket.ok_or_else(missing).map_err(cannot)?;
        Listener::try_from(socket).map_err(cannot)
    }

    fn choose(&self, name: Option<&str>) -> Result<usize, String> {
        let sockets = self.sockets.len();
        let shown = |name: &String| if name.is_empty() { "unnamed".into() } else { name.clone() };
        let names = self.names.iter().map(shown).collect::<Vec<_>>().join(", ");
        let named =
            |name| (0..sockets).filter(move |&at| self.names.get(at).is_some_and(|n| n == name));
        match name {
            _ if sockets == 0 => Err(
                "the service manager has passed no socket; start framelet by a socket unit, or try it with \
                 systemd-socket-activate -l 4747 framelet serve systemd"
                    .into(),
            ),
            None if sockets == 1 => Ok(0),
            None => Err(format!(
                "the service manager has passed {sockets} sockets ({names}), and a server has one; write \
                 systemd:NAME to choose one"
            )),
            Some(name) => match (named(name).next(), named(name).count()) {
                (Some(index), 1) => Ok(index),
                (_, found) => Err(format!(
                    "the service manager has passed {} of the name {name}; it has passed {names}",
                    Count(found as u64, "socket")
                )),
            },
        }
    }
}

impl Serve {
    /// Checks that peers have the addresses that the options are about.
    pub(super) fn check_addresses(&self, bound: Option<&Address>) -> Result<(), Failure> {
        if !matches!(bound, Some(Address::Unix(_))) {
            return Ok(());
        }
        let option = if !self.proxy_from.is_empty() {
            "--proxy-from"
        } else if self.proxy_protocol {
            // The header of a load balancer names an address.
            return Ok(());
        } else if !self.allow.is_empty() {
            "--allow"
        } else if self.max_per_address.is_some() {
            "--max-per-address"
        } else {
            return Ok(());
        };
        let message = format!(
            "{option} has no use with a Unix socket, whose peers have no address: --mode and --owner say who \
             may connect"
        );
        Err(Failure::new(Exit::Usage, message))
    }

    /// Listens.
    pub(super) async fn listen(&self, inherited: Inherited) -> Result<Listener, Failure> {
        let name = match self.addr.strip_prefix(SYSTEMD) {
            Some("") => Some(None),
            Some(rest) => rest.strip_prefix(':').map(Some),
            None => None,
        };
        if let Some(name) = name {
            if self.mode.is_some() || self.owner.is_some() {
                let message = "the file of the service manager's socket has the mode and owner of its unit: \
                               SocketMode=, SocketUser=, SocketGroup= (--mode, --owner)";
                return Err(Failure::new(Exit::Usage, message));
            }
            return inherited.listener(name);
        }
        if inherited.sockets.len() > 0 {
            let sockets = Count(inherited.sockets.len() as u64, "socket");
            warn!(
                "the service manager has passed {sockets} that nobody serves; to serve one, write systemd as \
                 the address"
            );
        }
        let address = address(&self.addr).map_err(|failure| {
            let is_sink = self.addr.parse::<SinkTarget>().is_ok();
            failure.advise(if is_sink {
                "; to put messages there, write it after --to"
            } else {
                ""
            })
        })?;
        let access = socket_access(self.mode, self.owner, &address)?;
        address.listen_with(access).await.map_err(|error| {
            let why = why_not_listening(&address, &error);
            Failure::new(Exit::Network, format!("cannot listen on {address}: {why}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_socket_it_is_said_where_one_comes_from() {
        let nothing = Inherited { sockets: ListenFd::empty(), names: Vec::new() };
        for name in [None, Some("a")] {
            assert!(nothing.choose(name).unwrap_err().contains("has passed no socket"));
        }
    }
}
