//! Keyed hashes of the tables. Peers choose what is hashed, so the seed is a secret of the process; no output depends on it.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

/// A hash of bytes.
#[expect(clippy::cast_possible_truncation, reason = "32 of the 64 bits are kept")]
pub(super) fn hash_bytes(bytes: &[u8], seed: u64) -> u32 {
    let mut hasher = FixedState::with_seed(seed).build_hasher();
    hasher.write(bytes);
    hasher.finish() as u32
}

/// 32 bits over 64, since a hash table looks at the highest and the lowest ones.
pub(super) fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// A folded multiply of two words: one round of it keeps prefixes apart, where one round of a plain multiply collides.
#[expect(clippy::cast_possible_truncation, reason = "both halves of the product are used")]
pub(super) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}
