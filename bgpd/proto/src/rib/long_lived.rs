//! Long-lived stale routes (RFC 9494): kept when their peer is gone for long, as the last choice, and told so.

use super::attrs::{AttrId, NIL};
use super::core::{Core, Family};
use super::table::Path;
use crate::policy::{Changes, carries};
use crate::types::PeerId;

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
        match self.attrs.key(id).is_long_lived_stale() {
            true => id,
            false => self.changed(id, as_long_lived()).unwrap_or(id),
        }
    }
}

/// What a route that becomes long-lived stale is told with (RFC 9494 §4.2).
pub(super) fn as_long_lived() -> Changes {
    Changes { add_communities: [LLGR_STALE].into(), ..Changes::default() }
}
