//! CRC-32 as in IEEE 802.3 (reflected, polynomial 0x04C11DB7).

const REFLECTED: u32 = 0xedb8_8320;

/// Bit by bit: a journal line has a few hundred bytes, and a table would be the larger part of this file.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (REFLECTED & (sum & 1).wrapping_neg()))
    });
    !sum
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_of_the_standard() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
    }
}
