//! Which cipher suites come first: those that this machine computes fastest.
//!
//! rustls has AES-256 first, on every machine. AES-128 takes about a quarter less time to encrypt or decrypt, and has no
//! known weakness either. A processor without instructions for AES, as in many routers, computes ChaCha20 several times
//! faster than both. A server takes the first suite of the client's that it has, so this order matters in clients.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::{CipherSuite, SupportedCipherSuite};

/// Returns ring with all of its cipher suites, the fastest first.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    in_order(&mut provider.cipher_suites, has_aes());
    Arc::new(provider)
}

/// Those of TLS 1.3 stay first.
fn in_order(suites: &mut [SupportedCipherSuite], has_aes: bool) {
    suites.sort_by_key(|suite| {
        let place = match (suite.suite(), has_aes) {
            (
                CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
                _,
            ) => 1,
            (
                CipherSuite::TLS13_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
                _,
            ) => 2,
            (_, true) => 3,
            (_, false) => 0,
        };
        (suite.tls13().is_none(), place)
    });
}

/// Returns whether this processor has instructions for AES. Where that cannot be found out, it probably has none.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(has_aes: bool) -> Vec<String> {
        let mut suites = ring::default_provider().cipher_suites;
        suites.reverse();
        in_order(&mut suites, has_aes);
        suites.iter().map(|suite| format!("{:?}", suite.suite())).collect()
    }

    /// Returns which part of the list has all of its suites with `what`, from 0 on, if they are one part.
    fn place(names: &[String], what: &str) -> usize {
        let first = names.iter().position(|name| name.contains(what)).unwrap();
        let has = names[first..].iter().take_while(|name| name.contains(what)).count();
        let all = names.iter().filter(|name| name.contains(what)).count();
        assert_eq!(has, all, "{what} in {names:?}");
        first
    }

    #[test]
    fn what_the_processor_computes_fastest_comes_first() {
        for (has_aes, order) in [
            (true, ["AES_128", "AES_256", "CHACHA20"]),
            (false, ["CHACHA20", "AES_128", "AES_256"]),
        ] {
            let names = names(has_aes);
            assert_eq!(names.len(), 9, "{names:?}");
            let (tls13, tls12) = names.split_at(3);
            for part in [tls13, tls12] {
                let places = order.map(|what| place(part, what));
                assert!(places.is_sorted(), "{part:?}");
            }
            assert!(tls13.iter().all(|name| name.starts_with("TLS13_")), "{names:?}");
        }
    }
}
