//! Communities by name: the well-known ones, then those of the FabricConfiguration.

use crate::v1alpha1::{Community, FabricConfiguration};

/// Names of IANA's registry that may be used without being defined.
const WELL_KNOWN: [(&str, u16, u16); 6] = [
    ("graceful-shutdown", 0xffff, 0), // RFC 8326
    ("no-llgr", 0xffff, 7),           // RFC 9494
    ("blackhole", 0xffff, 666),       // RFC 7999
    ("no-export", 0xffff, 0xff01),    // RFC 1997
    ("no-advertise", 0xffff, 0xff02), // RFC 1997
    ("no-peer", 0xffff, 0xff04),      // RFC 3765
];

/// A community as it goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolved {
    /// RFC 1997: high and low half in one number.
    Standard(u32),
    /// RFC 8092.
    Large([u32; 3]),
}

/// What a community stands for; none for a name that nobody defined.
pub fn resolve(community: &Community, configuration: Option<&FabricConfiguration>) -> Option<Resolved> {
    match community {
        Community::Standard(high, low) => Some(Resolved::Standard(u32::from(*high) << 16 | u32::from(*low))),
        Community::Large(a, b, c) => Some(Resolved::Large([*a, *b, *c])),
        Community::Named(name) => {
            if let Some((_, high, low)) = WELL_KNOWN.iter().find(|(known, ..)| known == name) {
                return resolve(&Community::Standard(*high, *low), configuration);
            }
            let alias = configuration?.spec.communities.iter().find(|alias| alias.name == *name)?;
            match &alias.value {
                // A name for a name is refused by the schema; it must not send us round in circles here.
                Community::Named(_) => None,
                value @ (Community::Standard(..) | Community::Large(..)) => resolve(value, configuration),
            }
        }
    }
}
