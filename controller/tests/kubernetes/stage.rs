//! An API server with the chart's rights on it, controllers that have no others, and the record of every write of theirs.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::cluster::ControlPlane;
use e2e::process::{Launch, Process, tail};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use manx_crds::defaults::DEFAULTS;
use manx_crds::store::kube::KubeStore;
use manx_crds::store::{Key, Object, Selection, Store as _};
use serde_json::Value;

pub(crate) const NAMESPACE: &str = "manx-system";
/// How long anything but an election may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Every write of the controllers' account, its content too.
const AUDIT: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Request
  users: ['system:serviceaccount:manx-system:manx-controller']
  verbs: [create, update, patch, delete, deletecollection]
- level: None
";

pub(crate) struct Stage {
    pub(crate) plane: ControlPlane,
    directory: tempfile::TempDir,
}

/// A running manx-controller, with the rights of its ServiceAccount and no capability.
pub(crate) struct Controller {
    pub(crate) process: Process,
    pub(crate) name: String,
    pub(crate) log: PathBuf,
    health: SocketAddr,
    token: String,
}

/// One write, as the API server tells it.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// The pod whose token it was.
    pub(crate) by: String,
    /// `services/status`
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) code: u64,
    pub(crate) body: Value,
}

/// The chart's objects, hooks included, as `helm template` prints them.
fn manifest() -> String {
    let helm =
        std::env::var_os("HELM").expect("HELM names no helm: run `make controller-test`, which builds one");
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/manx");
    let output = Command::new(helm)
        .args(["template", "manx", chart.to_str().unwrap(), "-n", NAMESPACE, "--kube-version", "1.34.0"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Stage {
    /// What `helm install` makes, apart from pods that run.
    pub(crate) fn up(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("audit.yaml");
        std::fs::write(&policy, AUDIT).unwrap();
        let flags = [
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", directory.path().join("audit.jsonl").display()),
            "--audit-log-mode=blocking".to_owned(),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let plane = ControlPlane::up_with(name, &flags).unwrap();
        let stage = Self { plane, directory };
        stage.store(async |store| {
            for crd in manx_crds::v1alpha1::crds().unwrap() {
                store.install_crd(&crd).await.unwrap();
            }
        });
        stage.apply("{apiVersion: v1, kind: Namespace, metadata: {name: manx-system}}");
        stage.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {expose: public}}}");
        stage.apply(&manifest());
        stage.store(async |store| {
            for default in DEFAULTS {
                let object: Value = serde_saphyr::from_str(default.yaml).unwrap();
                store.create_if_absent(default.plural, &object).await.unwrap();
            }
        });
        for node in ["n1", "n2"] {
            stage.node(node);
        }
        stage
    }

    pub(crate) fn apply(&self, yaml: &str) {
        self.plane.apply(yaml).unwrap();
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.plane.kubectl(arguments).unwrap()
    }

    /// Work with the store as an administrator.
    pub(crate) fn store<T: Send>(&self, work: impl AsyncFnOnce(KubeStore) -> T + Send) -> T {
        let config = self.plane.admin_kubeconfig();
        let run = || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            Ok(runtime.block_on(async {
                let store = KubeStore::from_kubeconfig(&config, None).await.unwrap();
                work(store).await
            }))
        };
        self.plane.run(run).unwrap()
    }

    /// A Node, and the FabricNode that felix makes of it.
    pub(crate) fn node(&self, name: &str) {
        self.apply(&format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}}}\n---\n\
             {{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {{name: {name}}}, spec: {{}}}}"
        ));
    }

    /// As an agent or a person writes a status.
    pub(crate) fn status(&self, what: &str, name: &str, status: &str) {
        let patch = format!("{{\"status\":{status}}}");
        self.kubectl(&["patch", what, name, "--subresource=status", "--type=merge", "-p", &patch]);
    }

    pub(crate) fn object<K: Object>(&self, key: &Key) -> Option<Value> {
        self.store(async |store| serde_json::to_value(store.get::<K>(key).await.ok()?).ok())
    }

    /// Waits until the object looks as wanted; what it looked like last, if it never does.
    pub(crate) fn until<K: Object>(&self, key: &Key, wanted: impl Fn(&Value) -> bool + Sync) -> Value {
        let begun = Instant::now();
        let mut last = Value::Null;
        let found = self.store(async |store| {
            while begun.elapsed() < PATIENCE {
                if let Ok(object) = store.get::<K>(key).await {
                    last = serde_json::to_value(object).unwrap();
                    if wanted(&last) {
                        return true;
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            false
        });
        assert!(
            found,
            "{} {key} never came to look as wanted; it is {:#} with {:#}\n{}",
            K::kind(&()),
            last["metadata"]["finalizers"],
            last["status"],
            self.logs()
        );
        last
    }

    /// The end of every controller's log.
    fn logs(&self) -> String {
        let files = std::fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.map(|path| format!("{}:\n{}\n", path.display(), tail(&path, 20))).collect()
    }

    /// Waits for an Event about the object, and answers its text.
    pub(crate) fn told(&self, kind: &str, name: &str, reason: &str) -> String {
        let begun = Instant::now();
        loop {
            let events = self.events();
            let found = events.iter().find(|event| {
                let about = event.regarding.clone().unwrap_or_default();
                about.kind.as_deref() == Some(kind)
                    && about.name.as_deref() == Some(name)
                    && event.reason.as_deref() == Some(reason)
            });
            if let Some(found) = found {
                return found.note.clone().unwrap();
            }
            assert!(begun.elapsed() < PATIENCE, "no Event {reason} about {kind} {name}: {events:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.store(async |store| store.list::<Event>(&Selection::default()).await.unwrap().items)
    }

    /// A controller in a pod of its own, by that pod's token.
    pub(crate) fn controller(&self, name: &str) -> Controller {
        let pod = format!("manx-controller-{name}");
        self.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}, namespace: {NAMESPACE}}}\nspec:\n  \
             serviceAccountName: manx-controller\n  nodeName: n1\n  containers: [{{name: controller, image: none}}]\n"
        ));
        let bound = format!("--bound-object-name={pod}");
        let token = self.kubectl(&[
            "-n",
            NAMESPACE,
            "create",
            "token",
            "manx-controller",
            "--bound-object-kind=Pod",
            &bound,
        ]);
        let kubeconfig = self.plane.token_kubeconfig(&pod, token.trim()).unwrap();
        self.start(&pod, &kubeconfig, token.trim().to_owned())
    }

    /// Another process of the same pod, as the kubelet starts one where a container ended.
    pub(crate) fn restart(&self, controller: &mut Controller) {
        let kubeconfig = self.plane.token_kubeconfig(&controller.name, &controller.token).unwrap();
        let _ = controller.process.kill();
        let log = std::mem::take(&mut controller.log);
        std::fs::rename(&log, log.with_extension("before")).unwrap();
        let token = std::mem::take(&mut controller.token);
        let name = controller.name.clone();
        *controller = self.start(&name, &kubeconfig, token);
    }

    /// What `manxctl` asks on the control socket.
    pub(crate) fn report(&self, controller: &Controller) -> Value {
        let path = self.directory.path().join(&controller.name).join("controller.sock");
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        stream.write_all(b"{\"verb\":\"status\"}\n").unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn start(&self, pod: &str, kubeconfig: &Path, token: String) -> Controller {
        let health = self.free_port();
        let home = self.directory.path();
        let log = home.join(format!("{pod}.log"));
        let arguments = [
            format!("KUBECONFIG={}", kubeconfig.display()),
            env!("CARGO_BIN_EXE_manx-controller").to_owned(),
            "--store=kubernetes".to_owned(),
            format!("--lease-namespace={NAMESPACE}"),
            format!("--identity={pod}"),
            "--node=n1".to_owned(),
            format!("--health-address={health}"),
            format!("--run-dir={}", home.join(pod).display()),
        ];
        let launch = Launch {
            label: pod.to_owned(),
            netns: self.plane.netns().clone(),
            program: "env".into(),
            arguments: arguments.to_vec(),
            capabilities: Some(&[]),
            log: log.clone(),
        };
        Controller { process: launch.start().unwrap(), name: pod.to_owned(), log, health, token }
    }

    fn free_port(&self) -> SocketAddr {
        let bind = || Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?);
        self.plane.run(bind).unwrap()
    }

    /// What a probe of the kubelet is answered.
    pub(crate) fn probe(&self, controller: &Controller, path: &str) -> (u16, String) {
        let ask = || {
            let Ok(mut stream) = TcpStream::connect(controller.health) else {
                return Ok((0, "no connection".to_owned()));
            };
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").as_bytes())?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
            let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
            Ok((code, body.trim().to_owned()))
        };
        self.plane.run(ask).unwrap()
    }

    pub(crate) fn until_probe(&self, controller: &Controller, path: &str, code: u16) -> String {
        let begun = Instant::now();
        loop {
            let (got, text) = self.probe(controller, path);
            if got == code {
                return text;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{} answers {path} with {got} {text}, not {code}:\n{}",
                controller.name,
                tail(&controller.log, 20)
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Who holds the Lease, as the pod's name.
    pub(crate) fn holder(&self) -> Option<String> {
        let key = Key::namespaced(NAMESPACE, "manx-controller");
        let lease = self.store(async |store| store.get::<Lease>(&key).await.ok())?;
        let holder = lease.spec?.holder_identity?;
        Some(holder.rsplit_once('_').map_or(holder.clone(), |(pod, _)| pod.to_owned()))
    }

    /// Every write of the controllers so far, renewals of the Lease apart.
    pub(crate) fn writes(&self) -> Vec<Write> {
        self.audited(|resource| resource != "leases")
    }

    pub(crate) fn renewals(&self) -> usize {
        self.audited(|resource| resource == "leases").len()
    }

    fn audited(&self, wanted: impl Fn(&str) -> bool) -> Vec<Write> {
        let text = std::fs::read_to_string(self.directory.path().join("audit.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .map(|line| {
                let of = |pointer: &str| {
                    line.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
                };
                let part = of("/objectRef/subresource");
                let resource = of("/objectRef/resource");
                Write {
                    by: of("/user/extra/authentication.kubernetes.io~1pod-name/0"),
                    resource: if part.is_empty() { resource } else { format!("{resource}/{part}") },
                    name: of("/objectRef/name"),
                    code: line.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default(),
                    body: line.pointer("/requestObject").cloned().unwrap_or_default(),
                }
            })
            .filter(|write| wanted(&write.resource))
            .collect()
    }

    /// Addresses of Services by name, each as often as a status has it.
    pub(crate) fn addresses(&self) -> BTreeMap<String, Vec<String>> {
        let list: Value =
            serde_json::from_str(&self.kubectl(&["get", "services", "-n", "shop", "-o", "json"])).unwrap();
        let items = list["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| (item["metadata"]["name"].as_str().unwrap().to_owned(), ingress(item)))
            .collect()
    }
}

impl Controller {
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.process.pid()).unwrap())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for words in the log.
    pub(crate) fn says(&self, words: &str) -> String {
        let begun = Instant::now();
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(words)) {
                return line.to_owned();
            }
            assert!(begun.elapsed() < PATIENCE, "{} never says {words:?}:\n{log}", self.name);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The addresses in the status of a Service.
pub(crate) fn ingress(service: &Value) -> Vec<String> {
    let all = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|one| one["ip"].as_str().map(ToOwned::to_owned)).collect()
}

/// `True Accepted: text` of a condition; empty where there is none.
pub(crate) fn condition(object: &Value, kind: &str) -> String {
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let Some(found) = all.into_iter().find(|condition| condition["type"] == kind) else {
        return String::new();
    };
    let of = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    let message = of("message");
    if message.is_empty() {
        format!("{} {}", of("status"), of("reason"))
    } else {
        format!("{} {}: {message}", of("status"), of("reason"))
    }
}
