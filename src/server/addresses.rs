//! Which peers may connect, and how many connections each address has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::net::byte_stream::Peer;
use crate::net::network::Network;
use crate::wire::count::Count;

/// What connections are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Source {
    V4(Ipv4Addr),
    /// The first 64 bits. A single machine has all addresses that begin with them, so the other bits tell nobody
    /// apart.
    V6([u8; 8]),
    /// A user of this machine.
    User(u32),
    /// No address, or none yet: a load balancer has still to name the peer.
    Unknown,
}

impl Source {
    pub(crate) fn of(peer: &Peer) -> Source {
        match peer {
            Peer::Tcp(address) => match address.ip().to_canonical() {
                IpAddr::V4(address) => Source::V4(address),
                IpAddr::V6(address) => {
                    let [a, b, c, d, e, f, g, h, ..] = address.octets();
                    Source::V6([a, b, c, d, e, f, g, h])
                }
            },
            Peer::UnixProcess { uid, .. } => Source::User(*uid),
            Peer::Unix | Peer::Named(_) => Source::Unknown,
        }
    }
}

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAdmitted {
    /// The address of the peer is in none of the allowed networks.
    NotAllowed,
    /// The server expects headers of load balancers, and the address is in none of their networks.
    NotBalancer,
    /// The address has so many connections already.
    AddressFull { source: Source, open: usize },
    /// The server has so many connections already.
    Full { open: usize },
}

/// The allowed networks, and the number of connections of each source.
#[derive(Debug)]
pub(crate) struct Addresses {
    allowed: Option<Vec<Network>>,
    /// Those of load balancers.
    balancers: Option<Vec<Network>>,
    /// The most connections of one address.
    most: usize,
    open: Mutex<HashMap<Source, usize>>,
}

impl Addresses {
    pub(crate) fn new(
        allowed: Option<Vec<Network>>,
        balancers: Option<Vec<Network>>,
        most: Option<usize>,
    ) -> Addresses {
        let most = most.unwrap_or(usize::MAX);
        Addresses { allowed, balancers, most, open: Mutex::default() }
    }

    /// Checks that a peer may name another one.
    pub(crate) fn check_balancer(&self, peer: &Peer) -> Result<(), NotAdmitted> {
        match peer {
            Peer::Tcp(address) if !is_in(self.balancers.as_deref(), address.ip()) => {
                Err(NotAdmitted::NotBalancer)
            }
            _ => Ok(()),
        }
    }

    /// Checks that a peer may have one more connection.
    pub(crate) fn check(&self, peer: &Peer) -> Result<(), NotAdmitted> {
        let Peer::Tcp(address) = peer else { return Ok(()) };
        if !is_in(self.allowed.as_deref(), address.ip()) {
            return Err(NotAdmitted::NotAllowed);
        }
        let source = Source::of(peer);
        match self.count(source) {
            open if open >= self.most => Err(NotAdmitted::AddressFull { source, open }),
            _ => Ok(()),
        }
    }

    /// Returns how many connections a source has.
    pub(crate) fn count(&self, source: Source) -> usize {
        self.open().get(&source).copied().unwrap_or(0)
    }

    /// Counts a connection. To be called after [`Addresses::check`], under a lock that other callers take as well.
    pub(crate) fn add(&self, source: Source) {
        *self.open().entry(source).or_default() += 1;
    }

    /// Counts a connection no more.
    pub(crate) fn remove(&self, source: Source) {
        if let Entry::Occupied(mut count) = self.open().entry(source) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Source, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether an address is in one of these networks, if there is a choice of them.
fn is_in(networks: Option<&[Network]>, address: IpAddr) -> bool {
    networks.is_none_or(|networks| networks.iter().any(|network| network.contains(address)))
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::V4(address) => address.fmt(f),
            Source::V6(first) => {
                let first = u128::from(u64::from_be_bytes(*first));
                write!(f, "{}/64", Ipv6Addr::from_bits(first << 64))
            }
            Source::User(uid) => write!(f, "uid:{uid}"),
            Source::Unknown => f.write_str("an unknown address"),
        }
    }
}

impl fmt::Display for NotAdmitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotAdmitted::NotAllowed => f.write_str("its address is not allowed"),
            NotAdmitted::NotBalancer => f.write_str("its address is not that of a load balancer"),
            NotAdmitted::AddressFull { source, open } => {
                write!(f, "{} open from {source}, the limit", Count(*open as u64, "connection"))
            }
            NotAdmitted::Full { open } => {
                write!(f, "{} open, the limit", Count(*open as u64, "connection"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::Tcp((address.parse::<IpAddr>().unwrap(), 1).into())
    }

    #[test]
    fn an_ipv6_address_shares_its_limit_with_the_64_bits_it_begins_with() {
        let addresses = Addresses::new(None, None, Some(2));
        for address in ["2001:db8::1", "2001:db8:0:0:ffff::7"] {
            assert_eq!(addresses.check(&peer(address)), Ok(()));
            addresses.add(Source::of(&peer(address)));
        }
        let full = addresses.check(&peer("2001:db8::2")).unwrap_err();
        assert_eq!(full.to_string(), "2 connections open from 2001:db8::/64, the limit");
        assert_eq!(addresses.check(&peer("2001:db8:0:1::1")), Ok(()));
        addresses.remove(Source::of(&peer("2001:db8::1")));
        assert_eq!(addresses.check(&peer("2001:db8::2")), Ok(()));
    }

    #[test]
    fn an_ipv4_address_is_the_same_in_both_notations() {
        let addresses = Addresses::new(Some(vec!["10.0.0.0/8".parse().unwrap()]), None, Some(1));
        addresses.add(Source::of(&peer("::ffff:10.0.0.1")));
        let full = addresses.check(&peer("10.0.0.1")).unwrap_err();
        assert_eq!(full.to_string(), "1 connection open from 10.0.0.1, the limit");
        assert_eq!(addresses.check(&peer("::ffff:10.0.0.2")), Ok(()));
        assert_eq!(addresses.check(&peer("11.0.0.2")), Err(NotAdmitted::NotAllowed));
    }

    #[test]
    fn peers_without_an_address_are_not_concerned() {
        let addresses = Addresses::new(Some(vec![]), Some(vec![]), Some(1));
        let process = Peer::UnixProcess { uid: 0, pid: None };
        for peer in [process, Peer::Unix, Peer::named("a pipe")] {
            for _ in 0..3 {
                assert_eq!(addresses.check(&peer), Ok(()));
                assert_eq!(addresses.check_balancer(&peer), Ok(()));
                addresses.add(Source::of(&peer));
            }
        }
    }

    #[test]
    fn a_source_without_connections_takes_no_memory() {
        let addresses = Addresses::new(None, None, None);
        for last in 0..=255 {
            let source = Source::V4([10, 0, 0, last].into());
            addresses.add(source);
            addresses.add(source);
            addresses.remove(source);
            assert_eq!(addresses.count(source), 1);
            addresses.remove(source);
        }
        assert!(addresses.open().is_empty());
    }
}
