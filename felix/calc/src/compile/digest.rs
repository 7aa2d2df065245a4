//! Names that follow from content.

use std::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};

/// 32 hexadecimal digits of SHA-256 over the debug form, which for our types is injective (strings are
/// quoted and escaped). Policy authors choose the content, so a short or weak hash would let two tenants'
/// chains be made to collide.
pub(super) fn digest(content: &impl fmt::Debug) -> String {
    let mut sink = Sink(Sha256::new());
    // `Sink` never fails.
    let _ = write!(sink, "{content:?}");
    let mut name = String::with_capacity(32);
    for byte in sink.0.finalize().iter().take(16) {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// `text` if it fits, else its head and a digest of the whole: at most `limit` bytes.
pub(super) fn shorten(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mark = digest(&text);
    let mut end = limit.saturating_sub(mark.len() + 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let head = text.get(..end).unwrap_or_default();
    format!("{head}~{mark}")
}

struct Sink(Sha256);

impl fmt::Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}
