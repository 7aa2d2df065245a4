//! A control plane with the chart's objects on it, and identities that try things.

use std::cell::OnceCell;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::cluster::ControlPlane;
use serde_json::Value;

/// Where the chart was rendered for.
pub(crate) const NAMESPACE: &str = "manx-system";

/// The API server with CRDs, rights and policies, two nodes and the agents' pods on them. No kubelet, no controller.
pub(crate) struct Stage {
    pub(crate) plane: ControlPlane,
}

/// Somebody with a kubeconfig. Each question is asked of the real API server.
pub(crate) struct Identity<'a> {
    plane: &'a ControlPlane,
    name: String,
    kubeconfig: PathBuf,
    proxy: OnceCell<Proxy>,
    /// What was tried, for the sum at the end.
    pub(crate) refusals: usize,
}

/// `kubectl proxy`: for requests that kubectl makes no single one of. Its `patch` reads the subresource before.
struct Proxy {
    process: Child,
    address: String,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn charts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/manx")
}

/// The chart's objects, hooks included, as `helm template` prints them.
fn manifest() -> String {
    let helm =
        std::env::var_os("HELM").expect("HELM names no helm: run `make rights-test`, which builds one");
    let output = Command::new(helm)
        .args(["template", "manx", charts().to_str().unwrap(), "-n", NAMESPACE, "--kube-version", "1.34.0"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a kubelet would have made of a node: two taints, a condition, and what people's tools keep there.
fn node(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{rack: a}}, annotations: {{note: x}}}}\n\
         spec:\n  taints:\n  - {{key: manx.dev/agent-not-ready, effect: NoSchedule}}\n  \
         - {{key: team, value: db, effect: NoSchedule}}\n---\n"
    )
}

fn pod(agent: &str, node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {agent}-{node}, namespace: {NAMESPACE}}}\nspec:\n  \
         serviceAccountName: manx-{agent}\n  nodeName: {node}\n  \
         containers: [{{name: agent, image: none}}]\n---\n"
    )
}

impl Stage {
    pub(crate) fn up(name: &str) -> Self {
        let plane = ControlPlane::up(name).unwrap();
        let crds = charts().join("crds");
        let path = crds.to_str().unwrap();
        plane.kubectl(&["apply", "--server-side", "-f", path]).unwrap();
        plane.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", path]).unwrap();
        plane
            .apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}"))
            .unwrap();
        plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}").unwrap();
        plane.apply(&manifest()).unwrap();
        plane.apply(&format!("{}{}", node("n1"), node("n2"))).unwrap();
        for name in ["n1", "n2"] {
            let status = r#"{"status":{"capacity":{"cpu":"2"},"conditions":[
                {"type":"Ready","status":"False","reason":"r","message":"m"},
                {"type":"NetworkUnavailable","status":"True","reason":"r","message":"m"}]}}"#;
            plane.kubectl(&["patch", "node", name, "--subresource=status", "-p", status]).unwrap();
            // Admission puts it on every new node; a controller would take it off.
            plane.kubectl(&["taint", "node", name, "node.kubernetes.io/not-ready-"]).unwrap();
        }
        // A ServiceAccount named `default` would come from a controller: the pods name theirs.
        plane
            .apply(&[pod("felix", "n1"), pod("felix", "n2"), pod("bgpd", "n1"), pod("bgpd", "n2")].concat())
            .unwrap();
        let stage = Self { plane };
        stage.wait_for_the_policies();
        stage
    }

    /// The API server takes a policy into force some time after it stores it.
    fn wait_for_the_policies(&self) {
        let mut probe = self.agent("felix", "n1");
        let deadline = Instant::now() + Duration::from_secs(60);
        let foreign = "{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {name: nobody}, spec: {}}";
        while probe.kubectl(&["create", "--dry-run=server", "-f", "-"], foreign).is_ok() {
            assert!(Instant::now() < deadline, "manx-node-restriction refuses nothing after 60 s");
            std::thread::sleep(Duration::from_millis(200));
        }
        probe.refusals = 0;
    }

    /// The token that the kubelet mounts into an agent's pod, in a thief's hands.
    pub(crate) fn agent(&self, agent: &str, node: &str) -> Identity<'_> {
        let account = format!("manx-{agent}");
        let pod = format!("{agent}-{node}");
        let bound = ["--bound-object-kind=Pod", &format!("--bound-object-name={pod}")];
        self.account(NAMESPACE, &account, &pod, &bound)
    }

    /// A token of a service account; `name` tells identities apart.
    pub(crate) fn account(&self, namespace: &str, account: &str, name: &str, flags: &[&str]) -> Identity<'_> {
        let mut arguments = vec!["-n", namespace, "create", "token", account];
        arguments.extend(flags);
        let token = self.plane.kubectl(&arguments).unwrap();
        let kubeconfig = self.plane.token_kubeconfig(name, token.trim()).unwrap();
        Identity {
            plane: &self.plane,
            name: name.to_owned(),
            kubeconfig,
            proxy: OnceCell::new(),
            refusals: 0,
        }
    }

    /// A person with a certificate.
    pub(crate) fn person(&self, name: &str) -> Identity<'_> {
        let kubeconfig = self.plane.kubeconfig(name, name, &[]).unwrap();
        Identity {
            plane: &self.plane,
            name: name.to_owned(),
            kubeconfig,
            proxy: OnceCell::new(),
            refusals: 0,
        }
    }

    /// An object as it is stored.
    pub(crate) fn object(&self, what: &[&str]) -> Value {
        let mut arguments = vec!["get", "-o", "json"];
        arguments.extend(what);
        serde_json::from_str(&self.plane.kubectl(&arguments).unwrap()).unwrap()
    }
}

impl Identity<'_> {
    /// kubectl as this one; its standard error where it fails.
    fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = self
            .plane
            .kubectl_command(&self.kubeconfig)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// It may, and does.
    pub(crate) fn may(&self, arguments: &[&str], input: &str) {
        if let Err(error) = self.kubectl(arguments, input) {
            panic!("{} may not {arguments:?} {input}: {error}", self.name);
        }
    }

    /// It may not, and reads why.
    pub(crate) fn may_not(&mut self, arguments: &[&str], input: &str, why: &str) {
        match self.kubectl(arguments, input) {
            Ok(_) => panic!("{} may {arguments:?} {input}", self.name),
            Err(error) => {
                assert!(error.contains(why), "{} {arguments:?}: {why:?} is not in: {error}", self.name)
            }
        }
        self.refusals += 1;
    }

    fn proxy(&self) -> &Proxy {
        self.proxy.get_or_init(|| {
            let mut command = self.plane.kubectl_command(&self.kubeconfig);
            command.args(["proxy", "--port=0"]).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut process = command.spawn().unwrap();
            let mut line = String::new();
            BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
            let address = line.trim().rsplit(' ').next().unwrap().to_owned();
            assert!(address.starts_with("127.0.0.1:"), "kubectl proxy: {line:?}");
            Proxy { process, address }
        })
    }

    /// One PATCH, as an agent's client makes it; the answer where it is no success.
    fn patch(&self, path: &str, patch: Patch, body: &str) -> Result<(), String> {
        let address = &self.proxy().address;
        let kind = match patch {
            Patch::Merge => "merge-patch",
            Patch::Strategic => "strategic-merge-patch",
        };
        let request = format!(
            "PATCH {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/{kind}+json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.plane.run(|| {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        let answer = answer.unwrap();
        if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(answer) }
    }

    /// It may patch, and does.
    pub(crate) fn may_patch(&self, path: &str, patch: Patch, body: &str) {
        if let Err(error) = self.patch(path, patch, body) {
            panic!("{} may not patch {path} by {body}: {error}", self.name);
        }
    }

    /// It may not patch, and reads why.
    pub(crate) fn may_not_patch(&mut self, path: &str, patch: Patch, body: &str, why: &str) {
        match self.patch(path, patch, body) {
            Ok(()) => panic!("{} may patch {path} by {body}", self.name),
            Err(error) => {
                assert!(error.contains(why), "{} {path} {body}: {why:?} is not in: {error}", self.name)
            }
        }
        self.refusals += 1;
    }
}

/// How a patch is merged.
#[derive(Clone, Copy)]
pub(crate) enum Patch {
    Merge,
    Strategic,
}
