//! What a peer cannot do, shown by the peer itself whenever the page is made.

use std::fmt;

use crate::rig::Rig;
use crate::setup::{Feature, Kind, Setup};

/// Why a row does not apply to a peer.
pub(crate) struct Lack {
    pub(crate) kind: Kind,
    pub(crate) evidence: Evidence,
}

pub(crate) enum Evidence {
    /// It does not start with this line in its session's configuration, and does without.
    Refuses(&'static str),
    /// Its OPEN, with everything on that it can be told to offer, lacks this capability.
    Withholds(u8),
    /// Its capability 64 lacks the N bit of RFC 8538, with everything on.
    NoNotificationBit,
    /// This is seen of it.
    Shows { what: &'static str, setup: fn(Kind) -> Setup, check: fn(&mut Rig) -> Result<(), String> },
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuses(line) => {
                let words: Vec<&str> = line.split_whitespace().collect();
                write!(f, "refuses `{}` in its configuration", words.join(" "))
            }
            Self::Withholds(code) => write!(f, "offers everything that it can, and not capability {code}"),
            Self::NoNotificationBit => write!(f, "offers graceful restart without the N bit"),
            Self::Shows { what, .. } => write!(f, "{what}"),
        }
    }
}

/// Looks; an error says what was seen instead.
pub(crate) fn look(lack: &Lack, start: impl Fn(&Setup) -> Result<Rig, String>) -> Result<(), String> {
    match &lack.evidence {
        Evidence::Refuses(line) => {
            let plain = Setup::default();
            start(&plain).map_err(|error| format!("it does not start without that line either: {error}"))?;
            let mut with = plain;
            with.says.neighbor = line;
            match start(&with) {
                Ok(_) => Err(format!("it takes `{}`", line.trim())),
                Err(_) => Ok(()),
            }
        }
        Evidence::Withholds(code) => {
            let offered = offered(lack.kind, start)?;
            match offered.iter().find(|(offered, _)| offered == code) {
                Some((_, value)) => Err(format!("it offers capability {code}: {value:?}")),
                None => Ok(()),
            }
        }
        Evidence::NoNotificationBit => {
            let offered = offered(lack.kind, start)?;
            match offered.iter().find(|(code, _)| *code == 64).and_then(|(_, value)| value.first()) {
                Some(flags) if flags & 0x40 == 0 => Ok(()),
                Some(flags) => Err(format!("its flags are {flags:#x}")),
                None => Err("it offers no graceful restart at all".to_owned()),
            }
        }
        Evidence::Shows { setup, check, .. } => check(&mut start(&setup(lack.kind))?),
    }
}

/// The capabilities of its OPEN to the third speaker. Four-octet AS numbers are among them always: the look sees what there is.
fn offered(kind: Kind, start: impl Fn(&Setup) -> Result<Rig, String>) -> Result<Vec<(u8, Vec<u8>)>, String> {
    let setup = Setup::default()
        .with_third(65003, &[])
        .with(&[Feature::GracefulRestart, Feature::RestartNotification])
        .saying(kind, |says| &mut says.third, EVERYTHING);
    let rig = start(&setup)?;
    rig.wait("the peer's OPEN at the third speaker", |rig| !rig.third().with_peer.capabilities().is_empty())?;
    let offered = rig.third().with_peer.capabilities();
    match offered.iter().any(|(code, _)| *code == 65) {
        true => Ok(offered),
        false => Err(format!("not even capability 65 is in its OPEN: {offered:?}")),
    }
}

/// What may be asked of a session and changes its OPEN.
const EVERYTHING: [&str; 4] = [
    " neighbor 10.97.0.3 local-role peer\n neighbor 10.97.0.3 capability dynamic\n neighbor 10.97.0.3 graceful-restart\n",
    "graceful restart on; long lived graceful restart on; advertise hostname on; enable extended messages on; \
     enable route refresh on; local role peer;",
    "  [neighbors.graceful-restart.config]\n    enabled = true\n    restart-time = 30\n    notification-enabled = true\n    \
     long-lived-enabled = true\n  [neighbors.add-paths.config]\n    receive = true\n    send-max = 4\n  \
     [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = \"ipv4-unicast\"\n    \
     [neighbors.afi-safis.mp-graceful-restart.config]\n      enabled = true\n    \
     [neighbors.afi-safis.long-lived-graceful-restart.config]\n      enabled = true\n      restart-time = 60\n",
    " announce enhanced refresh yes\n announce policy peer\n announce add-path recv yes\n announce add-path send all\n \
     announce restart yes\n announce refresh yes\n",
];
