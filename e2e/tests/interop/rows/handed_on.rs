//! What bgpd hands on between the peer and a third speaker: `transit`, next hops, attributes that nobody here knows.

use super::checks::is_up;
use super::{Row, row};
use crate::rig::Rig;
use crate::setup::Setup;
use crate::third::{Attribute, TO_MANX, TO_PEER};

/// Optional, transitive, and of a type that nobody has.
const UNKNOWN: [u8; 7] = [0xc0, 99, 4, b'm', b'a', b'n', b'x'];
/// The same, not transitive.
const UNKNOWN_LOCAL: [u8; 7] = [0x80, 99, 4, b'm', b'a', b'n', b'x'];
/// Route target 65003:7.
const EXTENDED: [u8; 11] = [0xc0, 16, 8, 0, 2, 0xfd, 0xeb, 0, 0, 0, 7];
const PARTIAL: u8 = 0x20;

fn transit(attributes: &[u8]) -> Setup {
    let setup = Setup { third_spec: "  transit: true\n", ..Setup::default() };
    Setup { spec: "  transit: true\n".to_owned(), ..setup.with_third(65003, attributes) }
}

fn no_transit(setup: &mut Setup) {
    (setup.spec, setup.third_spec) = (String::new(), "");
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "transit: learned routes are handed on",
            |_| transit(&[]),
            |_, setup| no_transit(setup),
            |rig| {
                is_up(rig)?;
                let path = from_peer(rig, TO_PEER)?;
                if value(&path, 2) != Some([&[2, 3][..], &words(&[4_200_000_001, 65001, 65004])].concat()) {
                    return Err(format!("AS_PATH at the third speaker: {path:?}"));
                }
                rig.wait("the third's route at the peer", |rig| rig.peer().route(TO_MANX).contains("65003"))
            },
        ),
        row(
            "nextHop: Keep and Self",
            |_| Setup { third_spec: "  transit: true\n  nextHop: Keep\n", ..transit(&[]) },
            |_, setup| setup.third_spec = "  transit: true\n  nextHop: Self\n",
            |rig| {
                is_up(rig)?;
                let path = from_peer(rig, TO_PEER)?;
                match value(&path, 3).as_deref() {
                    Some([10, 9, 0, 1]) => Ok(()),
                    other => Err(format!("next hop at the third speaker: {other:?}")),
                }
            },
        ),
        row(
            "unknown transitive attributes kept",
            |_| transit(&UNKNOWN),
            |_, setup| setup.third.as_mut().unwrap().attributes = UNKNOWN_LOCAL.to_vec(),
            |rig| {
                is_up(rig)?;
                for path in [from_peer(rig, TO_PEER)?, from_manx(rig, TO_MANX)?] {
                    match path.iter().find(|one| one.kind == 99) {
                        Some(one) if one.value == b"manx" && one.flags & PARTIAL != 0 => {}
                        other => return Err(format!("attribute 99: {other:?} of {path:?}")),
                    }
                }
                Ok(())
            },
        ),
        row(
            "extended communities carried unchanged",
            |_| transit(&EXTENDED),
            |_, setup| setup.third.as_mut().unwrap().attributes = Vec::new(),
            |rig| {
                is_up(rig)?;
                for path in [from_peer(rig, TO_PEER)?, from_manx(rig, TO_MANX)?] {
                    if value(&path, 16).as_deref() != Some(&EXTENDED[3..]) {
                        return Err(format!("attribute 16 of {path:?}"));
                    }
                }
                Ok(())
            },
        ),
    ]
}

/// What bgpd tells the third speaker of a route that the peer has from it.
fn from_peer(rig: &Rig, prefix: &str) -> Result<Vec<Attribute>, String> {
    rig.wait(&format!("{prefix} at the third speaker, from bgpd"), |rig| {
        rig.third().with_manx.path(prefix).is_some()
    })?;
    rig.third().with_manx.path(prefix).ok_or_else(|| "gone again".to_owned())
}

/// What the peer tells the third speaker of a route that bgpd has from it.
fn from_manx(rig: &Rig, prefix: &str) -> Result<Vec<Attribute>, String> {
    rig.wait(&format!("{prefix} at the third speaker, from the peer"), |rig| {
        rig.third().with_peer.path(prefix).is_some()
    })?;
    rig.third().with_peer.path(prefix).ok_or_else(|| "gone again".to_owned())
}

fn value(path: &[Attribute], kind: u8) -> Option<Vec<u8>> {
    path.iter().find(|one| one.kind == kind).map(|one| one.value.clone())
}

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}
