//! The options for the file of a Unix socket: its owner and its mode.

use std::str::FromStr;

use framelet::Address;
use framelet::net::SocketAccess;
use nix::unistd::{Group, User};

use super::super::exit_code::Exit;
use super::super::failure::Failure;

/// Who owns a file; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        if group == Some("") || user.is_empty() && group.is_none() {
            return Err("write USER, USER:GROUP or :GROUP, each a name or a number".into());
        }
        let uid = (!user.is_empty()).then(|| {
            let known = User::from_name(user).map(|found| found.map(|found| found.uid.as_raw()));
            id("user", user, known)
        });
        let gid = group.map(|group| {
            let known = Group::from_name(group).map(|found| found.map(|found| found.gid.as_raw()));
            id("group", group, known)
        });
        Ok(Owner { uid: uid.transpose()?, gid: gid.transpose()? })
    }
}

/// Returns the number of a user or group that is `known` by its name, or that is a number itself.
fn id(what: &str, name: &str, known: nix::Result<Option<u32>>) -> Result<u32, String> {
    match (known, name.parse()) {
        // The system takes it for "no change".
        (_, Ok(u32::MAX)) => Err(format!("{name} is no number of a {what}")),
        (Ok(Some(id)), _) | (_, Ok(id)) => Ok(id),
        (Ok(None), Err(_)) => Err(format!("there is no {what} {name:?}")),
        (Err(error), Err(_)) => {
            Err(format!("cannot look up the {what} {name:?}: {}", error.desc()))
        }
    }
}

/// Parses the permissions of a file: `0660`.
pub(crate) fn mode(text: &str) -> Result<u16, String> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u16::from_str_radix(text, 8).ok().filter(|&mode| is_octal && mode <= 0o777);
    mode.ok_or_else(|| "not permissions; write three octal digits, as in 0660 or 600".into())
}

/// Returns who may connect to `address`.
pub(super) fn socket_access(
    mode: Option<u16>,
    owner: Option<Owner>,
    address: &Address,
) -> Result<SocketAccess, Failure> {
    let Owner { uid, gid } = owner.unwrap_or(Owner { uid: None, gid: None });
    let access = SocketAccess { mode, uid, gid };
    if access != SocketAccess::default() && !matches!(address, Address::Unix(_)) {
        let what = "only a Unix socket has a file with an owner and a mode, and not";
        return Err(Failure::new(Exit::Usage, format!("{what} {address} (--mode, --owner)")));
    }
    Ok(access)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_named_or_numbered() {
        let owner = |uid, gid| Ok(Owner { uid, gid });
        for (text, expected) in [
            ("root", owner(Some(0), None)),
            ("0:0", owner(Some(0), Some(0))),
            ("root:root", owner(Some(0), Some(0))),
            (":root", owner(None, Some(0))),
            ("4294967294:17", owner(Some(4_294_967_294), Some(17))),
        ] {
            assert_eq!(text.parse::<Owner>(), expected, "{text}");
        }
        for (text, words) in [
            ("", "write USER, USER:GROUP or :GROUP"),
            (":", "write USER, USER:GROUP or :GROUP"),
            ("root:", "write USER, USER:GROUP or :GROUP"),
            ("no such user", "there is no user \"no such user\""),
            ("root:no such group", "there is no group \"no such group\""),
            ("-1", "there is no user"),
        ] {
            let error = text.parse::<Owner>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn permissions_are_octal() {
        for (text, expected) in [("0660", 0o660), ("600", 0o600), ("0777", 0o777), ("000", 0)] {
            assert_eq!(mode(text), Ok(expected));
        }
        for text in ["", "0", "66", "0888", "1777", "00660", "rw-rw----", "+660", "-66"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }
}
