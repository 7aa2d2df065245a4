//! What several rows look at.

use std::time::Duration;

use e2e::netns::stdout_of;
use nix::sys::signal::Signal;

use crate::rig::Rig;
use crate::setup::{Kind, OWN, THEIRS};

/// What would have come by now did not: three keepalives.
pub(super) const QUIET: Duration = Duration::from_secs(3);

pub(super) fn both_ways(rig: &Rig, families: &[usize]) -> Result<(), String> {
    rig.wait("the session is up at both ends", Rig::is_up)?;
    for &family in families {
        let (own, theirs) = (OWN[family], THEIRS[family]);
        rig.wait(&format!("{own} at the peer"), |rig| !rig.peer().route(own).is_empty())?;
        rig.wait(&format!("{theirs} in the kernel"), |rig| rig.has_learned(theirs))?;
    }
    Ok(())
}

pub(super) fn told(rig: &Rig, words: &[&str]) -> Result<(), String> {
    let what = format!("{} at the peer with {}", OWN[0], words.join(" or "));
    rig.wait(&what, |rig| {
        let route = rig.peer().route(OWN[0]);
        words.iter().any(|word| route.contains(word))
    })
}

pub(super) fn heard(rig: &Rig, community: &str) -> Result<(), String> {
    rig.wait(&format!("{} with {community} at bgpd", THEIRS[0]), |rig| {
        rig.path(THEIRS[0]).to_string().contains(&format!("\"{community}\""))
    })
}

pub(super) fn capability(rig: &Rig, name: &str) -> Result<(), String> {
    rig.wait("the session is up at both ends", Rig::is_up)?;
    let agreed = rig.session()["capabilities"].clone();
    let found = agreed.as_array().is_some_and(|agreed| agreed.iter().any(|one| one == name));
    if found { Ok(()) } else { Err(format!("{name} is not agreed on: {agreed}")) }
}

pub(super) fn hold_timer(rig: &mut Rig) -> Result<(), String> {
    both_ways(rig, &[0])?;
    if rig.setup.falls_silent {
        rig.signal_peer(Signal::SIGSTOP);
    }
    let ended =
        rig.wait("bgpd ends the session of a silent peer", |rig| rig.said().contains("HoldTimerExpired"));
    rig.signal_peer(Signal::SIGCONT);
    ended
}

/// Both ends dial, again and again; one connection is left each time.
pub(super) fn collision(rig: &mut Rig) -> Result<(), String> {
    for _ in 0..3 {
        both_ways(rig, &[0])?;
        let mut command = rig.router.command("ss");
        command.args(["-Htn", "state", "established", "( sport = :179 or dport = :179 )"]);
        let connections = stdout_of(command).map_err(|error| format!("{error:#}"))?;
        if connections.lines().count() != 1 {
            return Err(format!("not one connection:\n{connections}"));
        }
        rig.kill_bgpd();
        rig.wait("the peer notices that bgpd is gone", |rig| !rig.peer().established(&rig.setup))?;
        rig.start_bgpd();
    }
    both_ways(rig, &[0])
}

pub(super) fn is_up(rig: &Rig) -> Result<(), String> {
    rig.wait("the session is up at both ends", Rig::is_up)
}

/// The route to `prefix` at the peer says all of these, one word each.
pub(super) fn route_says(rig: &Rig, prefix: &str, words: &[&[&str]]) -> Result<(), String> {
    rig.wait(&format!("{prefix} at the peer with {words:?}"), |rig| {
        let route = rig.peer().route(prefix);
        words.iter().all(|same| same.iter().any(|word| route.contains(word)))
    })
}

/// What BGP's log, or the peer's, or its own word on the neighbour says.
pub(super) fn peer_says(rig: &Rig, words: &[&str]) -> Result<(), String> {
    rig.wait(&format!("the peer says one of {words:?}"), |rig| {
        let said = rig.peer().neighbour(&rig.setup) + &rig.peer_log();
        words.iter().any(|word| said.contains(word))
    })
}

/// The peer had a NOTIFICATION and says what it means in one of these ways. GoBGP counts them and says nothing.
pub(super) fn peer_notified(rig: &Rig, words: &[&str]) -> Result<(), String> {
    if rig.kind() != Kind::GoBgp {
        return peer_says(rig, words);
    }
    rig.wait("the peer counts a NOTIFICATION", |rig| {
        let said = rig.peer().neighbour(&rig.setup);
        let line = said.lines().find(|line| line.trim_start().starts_with("Notifications:"));
        line.and_then(|line| line.split_whitespace().last()).is_some_and(|count| count != "0")
    })
}
