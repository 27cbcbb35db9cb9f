//! What holds for every PROXY header.

use crate::wire::proxy::{ProxySource, ProxyStart, ProxyVersion, decode};

/// A header is recognized from as many bytes as decide it, nothing after it is asked for, and what is written is read
/// the same.
pub fn proxy(input: &[u8]) {
    let verdict = decode(input);
    for len in 0..input.len().min(300) {
        match (decode(&input[..len]), &verdict) {
            (Ok(ProxyStart::Incomplete { need }), Ok(ProxyStart::Header { len: all, .. })) => {
                assert!((len + 1..=*all).contains(&need));
            }
            (Ok(ProxyStart::Incomplete { need }), _) => assert!(need > len),
            (early @ Ok(ProxyStart::Header { .. }), _) => assert_eq!(early, verdict),
            // More bytes show more of what is wrong.
            (Err(_), late) => assert!(late.is_err()),
        }
    }
    let source = match verdict {
        Ok(ProxyStart::Header { source: ProxySource::Tcp(source), len }) => {
            assert!(len <= input.len());
            source
        }
        Err(error) => {
            let error = error.to_string();
            assert!(!error.is_empty() && !error.contains(char::is_control), "{error:?}");
            return;
        }
        _ => return,
    };
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut header = version.header(Some((source, source)));
        let written =
            Ok(ProxyStart::Header { len: header.len(), source: ProxySource::Tcp(source) });
        header.extend_from_slice(input);
        assert_eq!(decode(&header), written);
    }
}
