//! helm, as a person calls it, and what it renders.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The chart, or a file of it.
pub(crate) fn chart(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/manx").join(file)
}

/// A committed file of these tests.
pub(crate) fn testdata(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/chart").join(file)
}

/// `helm VERB … ARGUMENTS` on the chart, away from any cluster and from the caller's own settings.
pub(crate) fn helm(arguments: &[&str]) -> Output {
    let program =
        std::env::var_os("HELM").expect("HELM names no helm: run `make chart-test`, which builds one");
    Command::new(&program)
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("KUBECONFIG", "/dev/null")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What `helm template` prints in namespace manx-system.
pub(crate) fn manifest(arguments: &[&str]) -> String {
    let chart = chart("");
    let mut all =
        vec!["template", "manx", chart.to_str().unwrap(), "-n", "manx-system", "--kube-version", "1.34.0"];
    all.extend(arguments);
    let output = helm(&all);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    text(&output)
}

/// The objects of `helm template`.
pub(crate) fn objects(arguments: &[&str]) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(&manifest(arguments)).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// Why helm refuses these values.
pub(crate) fn refusal(arguments: &[&str]) -> String {
    let chart = chart("");
    let mut all =
        vec!["template", "manx", chart.to_str().unwrap(), "-n", "manx-system", "--kube-version", "1.34.0"];
    all.extend(arguments);
    let output = helm(&all);
    assert!(!output.status.success(), "{arguments:?} was taken");
    String::from_utf8(output.stderr).unwrap()
}

/// The one object of this kind and name.
pub(crate) fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// `Kind/name` of an object.
pub(crate) fn title(object: &Value) -> String {
    format!("{}/{}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
}

/// The pod specification of whatever makes pods.
pub(crate) fn pod_spec(object: &Value) -> Option<&Value> {
    match object["kind"].as_str().unwrap() {
        "Pod" => Some(&object["spec"]),
        "DaemonSet" | "Deployment" | "Job" => Some(&object["spec"]["template"]["spec"]),
        _ => None,
    }
}

/// The strings of a list; none where it is absent.
pub(crate) fn strings(list: &Value) -> Vec<&str> {
    list.as_array().map_or_else(Vec::new, |list| list.iter().map(|item| item.as_str().unwrap()).collect())
}

/// What NOTES.txt prints. `helm template` leaves it out and `helm install --dry-run` asks a cluster, so a copy of the
/// chart renders it into an object.
pub(crate) fn notes(arguments: &[&str]) -> String {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chart-with-notes");
    let _ = std::fs::remove_dir_all(&copy);
    let copied = Command::new("cp").arg("-r").arg(chart("")).arg(&copy).status().unwrap();
    assert!(copied.success());
    let text = std::fs::read_to_string(copy.join("templates/NOTES.txt")).unwrap();
    let object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {text: {{ include \"notes\" . | quote }}}\n";
    let define = format!("{{{{- define \"notes\" -}}}}{text}{{{{- end }}}}");
    std::fs::write(copy.join("templates/_notes.tpl"), define).unwrap();
    std::fs::write(copy.join("templates/notes.yaml"), object).unwrap();
    let mut all = vec!["template", "manx", copy.to_str().unwrap(), "-n", "manx-system"];
    all.extend(["--kube-version", "1.34.0", "-s", "templates/notes.yaml"]);
    all.extend(arguments);
    let output = helm(&all);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rendered: Value = serde_saphyr::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap();
    rendered["data"]["text"].as_str().unwrap().to_owned()
}
