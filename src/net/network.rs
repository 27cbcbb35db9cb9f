//! Networks, which are sets of addresses that begin with the same bits.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The bits of an address in this module: an IPv4 address has the first 32.
const BITS: u8 = 128;

/// A set of IP addresses that begin with the same bits: `10.0.0.0/8`, `2001:db8::/32`, or one address.
///
/// An IPv4 address that is written as an IPv6 address (`::ffff:10.0.0.1`) counts as the IPv4 address.
///
/// # Examples
///
/// ```
/// use framelet::net::Network;
///
/// let network: Network = "10.0.0.0/8".parse()?;
/// assert!(network.contains("10.1.2.3".parse()?));
/// assert!(network.contains("::ffff:10.1.2.3".parse()?));
/// assert!(!network.contains("192.0.2.7".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The first address.
    first: IpAddr,
    /// How many bits all addresses have in common.
    prefix: u8,
}

/// Not a network.
///
/// # Examples
///
/// ```
/// use framelet::net::Network;
///
/// let error = "10.0.0.1/8".parse::<Network>().unwrap_err();
/// assert!(error.to_string().ends_with("did you mean 10.0.0.0/8?"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseNetworkError(String);

impl Network {
    /// Returns whether `address` is one of its addresses.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4()
            && (bits(address) ^ bits(self.first)) & mask(self.prefix) == 0
    }
}

/// Returns an address as bits, the first one highest.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << (BITS - 32),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(u32::from(BITS - prefix)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| {
            ParseNetworkError(
                "not a network; write an address, or the first one and the number of bits that all have \
                 in common, as in 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32"
                    .into(),
            )
        })?;
        let longest = if address.is_ipv4() { 32 } else { BITS };
        let prefix = match prefix.map(str::parse::<u8>) {
            None => longest,
            Some(Ok(prefix)) if prefix <= longest => prefix,
            Some(_) => {
                return Err(ParseNetworkError(format!(
                    "after the slash goes a number of bits, from 0 to {longest} for this address"
                )));
            }
        };
        let kept = bits(address) & mask(prefix);
        if kept != bits(address) {
            let first = match address {
                // The bits of an IPv4 address are the first ones of these.
                IpAddr::V4(_) => {
                    let [a, b, c, d, ..] = kept.to_be_bytes();
                    IpAddr::from([a, b, c, d])
                }
                IpAddr::V6(_) => IpAddr::from(kept.to_be_bytes()),
            };
            let meant = Network { first, prefix };
            return Err(ParseNetworkError(format!(
                "the address has bits set after the first {prefix}; did you mean {meant}?"
            )));
        }
        let first = address.to_canonical();
        // An IPv4 address that is written as an IPv6 address is preceded by 96 bits.
        let prefix = if first == address { prefix } else { prefix.saturating_sub(BITS - 32) };
        Ok(Network { first, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl fmt::Display for ParseNetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseNetworkError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_with_its_bits_and_no_others() {
        for (network, inside, outside) in [
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"][..],
                &["11.0.0.0", "9.255.255.255", "a00::", "::10.0.0.1"][..],
            ),
            ("192.0.2.7", &["192.0.2.7", "::ffff:192.0.2.7"], &["192.0.2.6"]),
            ("192.0.2.6/31", &["192.0.2.6", "192.0.2.7"], &["192.0.2.5", "192.0.2.8"]),
            ("0.0.0.0/0", &["1.2.3.4", "::ffff:1.2.3.4"], &["::", "2001:db8::1"]),
            ("::/0", &["::", "2001:db8::1"], &["1.2.3.4", "::ffff:1.2.3.4"]),
            (
                "2001:db8::/32",
                &["2001:db8::1", "2001:db8:ffff::"],
                &["2001:db9::", "2001:db7:ffff::"],
            ),
            ("::1", &["::1"], &["::", "::2", "127.0.0.1"]),
            ("::ffff:10.0.0.0/104", &["10.1.2.3", "::ffff:10.1.2.3"], &["11.0.0.0"]),
            ("::ffff:0:0/96", &["10.1.2.3"], &["::1"]),
        ] {
            let parsed: Network = network.parse().unwrap();
            for (addresses, expected) in [(inside, true), (outside, false)] {
                for address in addresses {
                    assert_eq!(
                        parsed.contains(address.parse().unwrap()),
                        expected,
                        "{network} {address}"
                    );
                }
            }
            assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
    }

    #[test]
    fn what_is_not_a_network_is_told_with_the_one_that_was_meant() {
        for (text, words) in [
            ("", "not a network"),
            ("localhost", "not a network"),
            ("10.0.0/8", "not a network"),
            ("10.0.0.0/", "from 0 to 32"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("10.0.0.0/255.0.0.0", "from 0 to 32"),
            ("::/129", "from 0 to 128"),
            ("10.0.0.1/8", "after the first 8; did you mean 10.0.0.0/8?"),
            ("2001:db8::1/32", "did you mean 2001:db8::/32?"),
            ("::ffff:10.0.0.0/95", "did you mean ::fffe:0:0/95?"),
        ] {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
