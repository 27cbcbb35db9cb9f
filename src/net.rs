//! Addresses and sockets.

pub(crate) mod address;
pub(crate) mod backoff; // how long to wait between two attempts
pub(crate) mod byte_stream;
pub(crate) mod listener;
mod low_water; // how many bytes make a socket readable
pub(crate) mod network; // sets of addresses
pub(crate) mod proxy_header; // what a load balancer sends first
pub(crate) mod unix_socket; // the file of a Unix socket, and the process at its other end

pub use address::{Address, ParseAddressError};
pub use backoff::Backoff;
pub use byte_stream::{ByteStream, Peer};
pub use listener::Listener;
pub use network::{Network, ParseNetworkError};
pub use proxy_header::{ProxyHeader, read_proxy_header};
pub use unix_socket::SocketAccess;
