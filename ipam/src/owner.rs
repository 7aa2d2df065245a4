//! Who has an address.

use manx_crds::v1alpha1::AllocationOwner;

/// The interface of a pod when nobody names another (api.md §6.2).
pub const DEFAULT_INTERFACE: &str = "eth0";

/// How many characters of a sandbox an IPBlock records (api.md §6.2: at most 16).
const SANDBOX_LENGTH: usize = 16;

/// The owner of an address, typed: never a string that has to be taken apart again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Pod(PodOwner),
    /// A tunnel device of the node that holds the block.
    Tunnel,
    /// A kind that this version does not know: kept as it is written, and never released here.
    Other(Box<AllocationOwner>),
}

/// One interface of one sandbox of one pod.
///
/// `uid` and `sandbox` together make a late release harmless: a pod of the same name that came after, or the
/// same pod in a new sandbox, is another owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodOwner {
    pub namespace: String,
    pub name: String,
    /// The uid that the runtime was told (a static pod's is not its mirror's).
    pub uid: String,
    pub sandbox: Sandbox,
    /// Inside the pod, such as `eth0`.
    pub interface: String,
}

/// A sandbox as an IPBlock names it: the first 16 digits of a container id.
///
/// Runtimes use 64 hexadecimal digits, of which 16 tell any two of one node apart. An id of another shape may
/// differ in its last character only, so a long one is replaced by its hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sandbox(String);

impl Sandbox {
    pub fn of(container_id: &str) -> Sandbox {
        if container_id.len() <= SANDBOX_LENGTH {
            return Sandbox(container_id.to_owned());
        }
        if container_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Sandbox(container_id.chars().take(SANDBOX_LENGTH).collect());
        }
        Sandbox(format!("{:016x}", fnv1a(container_id.as_bytes())))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// FNV-1a, 64 bits: the same on every machine and in every version, which the standard library's hashers are not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// FNV-1a with its bits mixed, so that the low ones, too, depend on all of the input.
pub(crate) fn spread(text: &str) -> u64 {
    let mixed = fnv1a(text.as_bytes());
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hexadecimal_id_keeps_its_first_digits() {
        let id = "9f3c1a7be2104455667788990011223344556677889900112233445566778899";
        assert_eq!(Sandbox::of(id).as_str(), "9f3c1a7be2104455");
    }

    #[test]
    fn long_ids_that_differ_at_the_end_stay_different() {
        let one = Sandbox::of("a-runtime-of-its-own-0001");
        let two = Sandbox::of("a-runtime-of-its-own-0002");
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), SANDBOX_LENGTH);
    }

    #[test]
    fn what_an_object_recorded_reads_back_as_itself() {
        let sandbox = Sandbox::of("a-runtime-of-its-own-0001");
        assert_eq!(Sandbox::of(sandbox.as_str()), sandbox);
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
