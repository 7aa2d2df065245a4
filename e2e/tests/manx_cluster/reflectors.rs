//! Who speaks to whom is changed while pods talk: from a full mesh to reflectors and back. No connection may be lost.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::netns::stdout_of;
use e2e::process::built;
use serde_json::Value;

use crate::asks::{Pod, at, list, text};
use crate::install;
use crate::lab::Lab;
use crate::traffic::serve;

const MINUTE: Duration = Duration::from_secs(60);
/// Sessions that go are kept until others carried for a while, and reflectors reflect on for half a minute.
const SETTLED: Duration = Duration::from_secs(90);

/// Pods, one a node, each of which asks all others without a pause until it is told to stop.
struct Talk {
    pods: Vec<Pod>,
}

impl Talk {
    fn begin(lab: &Lab) -> Result<Self> {
        let pods = serve(lab, 1)?;
        let targets = pods.iter().flat_map(|pod| &pod.addresses).map(|address| at(*address, 8080));
        let targets: Vec<String> = targets.collect();
        let line = format!(
            "rm -f /tmp/stop /tmp/lost /tmp/asked; (while [ ! -e /tmp/stop ]; do for one in {}; do echo $one >>/tmp/asked; \
             /agnhost connect --timeout=3s \"$one\" >/dev/null 2>&1 || echo \"$(date +%T) $one\" >>/tmp/lost; done; done) \
             >/dev/null 2>&1 </dev/null &",
            targets.join(" ")
        );
        for pod in &pods {
            lab.in_pod(&pod.name, &line)?;
        }
        Ok(Self { pods })
    }

    /// How many connections there were, none of them lost.
    fn end(self, lab: &Lab) -> Result<usize> {
        let mut asked = 0;
        for pod in &self.pods {
            let line = "touch /tmp/stop; sleep 4; wc -l </tmp/asked; cat /tmp/lost 2>/dev/null || true";
            let said = lab.in_pod(&pod.name, line)?;
            let (count, lost) = said.trim().split_once('\n').unwrap_or((said.trim(), ""));
            ensure!(lost.is_empty(), "{} on {} lost: {}", pod.name, pod.node, lost.replace('\n', ", "));
            asked += count.trim().parse::<usize>().with_context(|| format!("{} says {said:?}", pod.name))?;
        }
        ensure!(asked > 20 * self.pods.len(), "{asked} connections: nobody talked");
        Ok(asked)
    }
}

fn configure(lab: &Lab, topology: &str) -> Result<()> {
    lab.cluster.apply(&format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: FabricConfiguration, metadata: {{name: default}}, spec: {{topology: {topology}}}}}"
    ))?;
    Ok(())
}

fn elected(lab: &Lab) -> Result<BTreeSet<String>> {
    let object = lab.json(&["get", "fabricconfiguration", "default"])?;
    let all = list(&object, "/status/routeReflectors").iter();
    Ok(all.map(|one| text(one, "/nodeName").to_owned()).collect())
}

/// The pairs of nodes that have a session, by both ends' names.
fn pairs(lab: &Lab) -> Result<usize> {
    let sessions = lab.items(&["get", "bgpsessions"])?;
    for session in &sessions {
        let state = text(session, "/status/state");
        ensure!(state == "Established", "{}: {state}", text(session, "/metadata/name"));
    }
    Ok(sessions.len())
}

fn await_pairs(lab: &Lab, wanted: usize) -> Result<()> {
    lab.until(SETTLED, |lab| {
        let found = pairs(lab)?;
        ensure!(found == wanted, "{found} sessions, expected {wanted}");
        Ok(())
    })
}

/// Full mesh, two reflectors, full mesh.
pub(crate) fn there_and_back(lab: &mut Lab) -> Result<String> {
    let nodes = lab.cluster.size();
    let all = nodes * (nodes - 1) / 2;
    await_pairs(lab, all)?;
    let talk = Talk::begin(lab)?;
    let begun = Instant::now();
    configure(lab, "{mode: RouteReflector, routeReflectors: {count: 2}}")?;
    let two = lab.until(MINUTE, |lab| {
        let found = elected(lab)?;
        ensure!(found.len() == 2, "elected: {found:?}");
        Ok(found)
    })?;
    // Each of the others to both, and both to each other.
    await_pairs(lab, 2 * (nodes - 2) + 1)?;
    let there = begun.elapsed();
    configure(lab, "{mode: FullMesh}")?;
    await_pairs(lab, all)?;
    // Until those that reflected have stopped doing so.
    std::thread::sleep(Duration::from_secs(40));
    await_pairs(lab, all)?;
    lab.until(MINUTE, install::conditions_are_true)?;
    let asked = talk.end(lab)?;
    Ok(format!(
        "{two:?} reflected after {:.0}s; {asked} connections among {nodes} nodes, none lost",
        there.as_secs_f64()
    ))
}

/// A session's messages, taken from the node that has it and read by tshark.
pub(crate) fn captured(lab: &mut Lab) -> Result<String> {
    let sessions = lab.items(&["get", "bgpsessions"])?;
    let session = sessions.first().context("no BGPSession")?;
    let (node, peer) = (text(session, "/spec/nodeName"), text(session, "/spec/remote"));
    let file: PathBuf = lab.cluster.options().home.join("captured.pcap");
    let path = file.to_string_lossy().into_owned();
    let program = built("manxctl")?;
    let manxctl = || {
        let mut command = lab.cluster.command(&program.to_string_lossy());
        command.args(["--store", "kubernetes", "--node", node, "bgp"]);
        command
    };
    let mut capture = manxctl().args(["capture", peer, "-w", &path, "--for", "15"]).spawn()?;
    // Something to see beyond keepalives.
    std::thread::sleep(Duration::from_secs(3));
    let mut clear = manxctl();
    clear.args(["clear", peer, "--soft", "both", "--yes"]);
    stdout_of(clear)?;
    ensure!(capture.wait()?.success(), "manxctl bgp capture failed");
    let mut tshark = Command::new("tshark");
    tshark.args(["-r", &path, "-Y", "bgp.type == 2", "-T", "json"]);
    let updates: Value = serde_json::from_str(&stdout_of(tshark)?).context("tshark's JSON")?;
    let count = updates.as_array().map_or(0, Vec::len);
    ensure!(count > 0, "no UPDATE of {peer} in {path}");
    Ok(format!("{count} UPDATEs between {node} and {peer}"))
}
