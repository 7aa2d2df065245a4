//! What is kept of a check that failed: the state of everything at that moment, and the logs.

use std::fs;
use std::path::Path;

use crate::netns;
use crate::topology::{NODES, TORS};

use super::fabric::Fabric;

/// Collects into `target/demo/ID/`; what cannot be had says why in its file.
pub(crate) fn collect(fabric: &Fabric, id: &str) -> Option<String> {
    let directory = fabric.places.home.join(id);
    fs::create_dir_all(&directory).ok()?;
    for name in NODES.iter().map(|node| node.name).chain(TORS.iter().map(|tor| tor.name)).chain(["client"]) {
        for (what, program, arguments) in [
            ("links", "ip", vec!["-d", "addr"]),
            ("routes", "ip", vec!["route", "show", "table", "all"]),
            ("routes6", "ip", vec!["-6", "route", "show", "table", "all"]),
            ("neighbours", "ip", vec!["neigh"]),
            ("nft", "nft", vec!["list", "ruleset"]),
            ("conntrack", "conntrack", vec!["-L"]),
            ("sockets", "ss", vec!["-tunap"]),
        ] {
            let mut command = fabric.scope.netns(name).command(program);
            command.args(arguments);
            keep(&directory, &format!("{name}.{what}"), netns::stdout_of(command));
        }
    }
    for (name, _, pod, _) in super::fabric::PODS {
        let mut command = fabric.scope.netns(&format!("pod-{pod}")).command("ip");
        command.args(["addr"]);
        keep(&directory, &format!("{name}.{pod}.links"), netns::stdout_of(command));
    }
    if let Some(routers) = &fabric.routers {
        for (tor, router) in &routers.tors {
            keep(&directory, &format!("{}.bgp", tor.name), router.evidence());
        }
    }
    for arguments in [["bgp", "peers"], ["bgp", "routes"], ["policy", "list"], ["ipam", "show"]] {
        keep(&directory, &format!("manxctl.{}", arguments.join("-")), fabric.manxctl(&arguments));
    }
    keep(&directory, "manxctl.status", fabric.manxctl(&["status"]));
    copy(&fabric.places.logs, &directory.join("logs"));
    copy(&fabric.places.objects, &directory.join("objects"));
    Some(fabric.places.shown.join(id).join("").to_string_lossy().into_owned())
}

fn keep(directory: &Path, name: &str, text: anyhow::Result<String>) {
    let text = text.unwrap_or_else(|error| format!("not to be had: {error:#}\n"));
    // Evidence that cannot be written must not hide the failure it is about.
    let _ = fs::write(directory.join(name), text);
}

fn copy(from: &Path, to: &Path) {
    let Ok(entries) = fs::read_dir(from) else { return };
    let _ = fs::create_dir_all(to);
    for entry in entries.flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            let _ = fs::copy(entry.path(), target);
        }
    }
}
