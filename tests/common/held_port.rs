//! Ports for programs that must be told one before they start.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A free port of 127.0.0.1 that the system gives to nobody else until this is dropped.
///
/// It is bound and does not listen, and may be reused: so a server that reuses addresses can listen on it, again and
/// again, and before that a connection to it is refused.
#[derive(Debug)]
pub(crate) struct HeldPort {
    port: u16,
    _socket: Socket,
}

impl HeldPort {
    pub(crate) fn new() -> HeldPort {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket_ipv4().unwrap().port();
        HeldPort { port, _socket: socket }
    }

    pub(crate) fn number(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for HeldPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.port.fmt(formatter)
    }
}
