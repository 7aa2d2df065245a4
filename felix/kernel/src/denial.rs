//! The kernel's EPERM and EACCES, in words: who is in the way is not said by the number.

use std::error::Error;
use std::io;

use crate::capability;
use crate::netlink::NetlinkError;
use crate::nft::NftError;

/// What it takes, for people.
pub const EXPECTED: &str = "netlink sockets in the network namespace of the node, as a container of the host network has them with its \
     capabilities";
/// Where to look, for people.
pub const REMEDY: &str = "look for what denies it: seccompProfile, an AppArmor or SELinux profile (journalctl -k, ausearch -m avc), \
     hostUsers: false, or a capability that is not the host's";

/// Whether the kernel, or what stands before it, said that this is not allowed.
pub fn is_denial(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if errno(error).is_some_and(|errno| [libc::EPERM, libc::EACCES].contains(&errno)) {
            return true;
        }
        next = error.source();
    }
    false
}

fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    if let Some(error) = error.downcast_ref::<NftError>() {
        return error.refusal().map(|refusal| refusal.errno);
    }
    if let Some(error) = error.downcast_ref::<NetlinkError>() {
        return error.refusal().map(|refusal| refusal.errno);
    }
    error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error)
}

/// What the process has: `effective capabilities 0x3000 (NET_ADMIN, NET_RAW)`.
pub fn place() -> String {
    capability::held().unwrap_or_else(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Refusal;

    fn refused(errno: i32) -> NftError {
        NftError::Refused { what: "list tables".to_owned(), refusal: Refusal { errno, text: None } }
    }

    #[test]
    fn a_denial_is_known_wherever_it_is_in_the_chain() {
        assert!(is_denial(&refused(libc::EPERM)));
        assert!(!is_denial(&refused(libc::EINVAL)));
        let denied = || io::Error::from_raw_os_error(libc::EACCES);
        assert!(is_denial(&NftError::Open(denied())));
        assert!(is_denial(&NetlinkError::Open(denied())));
        assert!(!is_denial(&NftError::Open(io::Error::from_raw_os_error(libc::EMFILE))));
    }
}
