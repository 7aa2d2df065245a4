//! Long-lived stale routes (RFC 9494): kept when their peer is gone for long, as the last choice, and told so.

use super::attrs::{AttrId, LONGEST, NIL};
use super::core::{Core, Family};
use super::table::Path;
use crate::policy::carries;
use crate::types::PeerId;
use crate::wire::attr::{self, Key, code, flag};

/// The route is long-lived stale.
pub(crate) const LLGR_STALE: u32 = 0xFFFF_0006;
/// The route must not become so.
const NO_LLGR: u32 = 0xFFFF_0007;

impl Core {
    /// What is stale of the peer in one family is so for long from here on. Routes with NO_LLGR go (RFC 9494 §4.2).
    pub(super) fn keep_long_lived<A: Family>(&mut self, peer: PeerId) {
        let mut last = (NIL, NIL);
        for slot in 0..A::plane(self).table.slots() {
            let of_peer = |(path, _): &(Path, u32)| path.peer == peer && path.has(Path::STALE);
            let paths: Vec<Path> =
                A::plane(self).table.paths(slot).filter(of_peer).map(|(path, _)| path).collect();
            for path in paths {
                if carries(self.attrs.bytes(path.raw), NO_LLGR, None) {
                    if let Some(at) = A::plane(self).table.locate(slot, peer, path.path_id) {
                        self.drop_path::<A>(slot, at);
                    }
                    continue;
                }
                if last.0 != path.attrs {
                    last = (path.attrs, self.long_lived_set(path.attrs));
                }
                let flags = path.flags | Path::LONG_LIVED_STALE;
                self.put_path::<A>(slot, Path { attrs: last.1, flags, ..path });
            }
        }
    }

    /// The set with LLGR_STALE among its communities; one that would become too long stays as it is.
    pub(super) fn long_lived_set(&mut self, id: AttrId) -> AttrId {
        let key = self.attrs.key(id);
        if key.is_long_lived_stale() {
            return id;
        }
        let bytes = with_community(self.attrs.bytes(id), LLGR_STALE);
        if bytes.len() > LONGEST {
            return id;
        }
        let key = Key { tail: key.tail | Key::LONG_LIVED_STALE, ..key };
        self.attrs.intern(&bytes, key, &mut self.next_hops)
    }
}

/// A canonical set with one community more.
pub(super) fn with_community(set: &[u8], community: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(set.len() + 7);
    let mut value = attr::find(set, code::COMMUNITIES).unwrap_or_default().to_vec();
    value.extend_from_slice(&community.to_be_bytes());
    let mut due = true;
    for attribute in attr::attributes(set) {
        if due && attribute.code >= code::COMMUNITIES {
            due = false;
            attr::put(&mut out, flag::OPTIONAL_TRANSITIVE, code::COMMUNITIES, &value);
        }
        if attribute.code != code::COMMUNITIES {
            out.extend_from_slice(attribute.whole);
        }
    }
    if due {
        attr::put(&mut out, flag::OPTIONAL_TRANSITIVE, code::COMMUNITIES, &value);
    }
    out
}
