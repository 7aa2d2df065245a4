//! The chart without a cluster: what it renders, what it grants, what it refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "chart/helm.rs"]
mod helm;
#[path = "chart/values.rs"]
mod values;

use std::collections::BTreeSet;

use helm::{
    chart, helm as run_helm, manifest, named, notes, objects, pod_spec, refusal, strings, testdata, title,
};
use serde_json::{Value, json};

/// Values that people set, each a rendering of its own.
const SETS: [&[&str]; 7] = [
    &[],
    &["--set", "metrics.enabled=true,metrics.podMonitor.enabled=true,metrics.podMonitor.labels.release=prom"],
    &["--set", "apiServer.host=2001:db8::10,apiServer.port=8443,logLevel=info\\,felix=debug"],
    &["--set", "install.crds=false,install.defaults=false,uninstall.cleanup=false,secrets.create=false"],
    &["--set", "install.crds=false,controller.replicas=1,bgpd.maxUnavailable=10%,felix.maxUnavailable=3"],
    &["--set", "imagePullSecrets[0].name=registry,felix.podLabels.team=net,bgpd.podAnnotations.note=x"],
    &[
        "--set",
        "image.repository=registry.example.com:5000/net/manx,image.tag=1.2.3,cni.binDir=/opt/bin,global.a=b",
    ],
];

#[test]
fn helm_finds_nothing_to_complain_about() {
    for set in SETS {
        let chart = chart("");
        let mut arguments = vec!["lint", "--strict", "--kube-version", "1.34.0", chart.to_str().unwrap()];
        arguments.extend(set);
        let output = run_helm(&arguments);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{set:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// `make golden` writes it anew.
#[test]
fn the_manifest_without_values_is_the_committed_one() {
    expectorate::assert_contents(testdata("default.yaml"), &manifest(&[]));
}

#[test]
fn no_rule_holds_a_wildcard() {
    for set in SETS {
        let mut rules = 0;
        for object in objects(set) {
            for rule in object["rules"].as_array().into_iter().flatten() {
                rules += 1;
                assert!(!rule.to_string().contains('*'), "{}: {rule}", title(&object));
            }
            for rule in object["spec"]["matchConstraints"]["resourceRules"].as_array().into_iter().flatten() {
                assert!(!rule.to_string().contains('*'), "{}: {rule}", title(&object));
            }
            if object["kind"].as_str().unwrap().ends_with("Binding") && object["roleRef"].is_object() {
                assert_ne!(object["roleRef"]["name"], "cluster-admin", "{}", title(&object));
            }
        }
        assert!(rules > 20, "{set:?}: {rules} rules");
    }
}

/// What each container has beyond the least, by pod and container.
fn capabilities(pod: &str, container: &str) -> &'static [&'static str] {
    match (pod, container) {
        ("manx-felix", "felix") | ("manx-cleanup", "felix" | "bgpd") => &["NET_ADMIN", "NET_RAW"],
        ("manx-bgpd", "bgpd") => &["NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW"],
        _ => &[],
    }
}

#[test]
fn containers_have_the_least() {
    let mut seen = BTreeSet::new();
    for object in SETS.into_iter().flat_map(objects) {
        let Some(pod) = pod_spec(&object) else { continue };
        let name = object["metadata"]["name"].as_str().unwrap();
        for refused in ["hostPID", "hostIPC", "shareProcessNamespace"] {
            assert!(pod.get(refused).is_none(), "{name}: {refused}");
        }
        for kind in ["initContainers", "containers"] {
            for container in pod[kind].as_array().into_iter().flatten() {
                let inner = container["name"].as_str().unwrap();
                let expected = capabilities(name, inner);
                let id = if expected.is_empty() { 65532 } else { 0 };
                let security = &container["securityContext"];
                let place = format!("{name}/{inner}: {security}");
                assert!(security.get("privileged").is_none(), "{place}");
                assert_eq!(security["allowPrivilegeEscalation"], false, "{place}");
                assert_eq!(security["readOnlyRootFilesystem"], true, "{place}");
                assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{place}");
                assert_eq!(strings(&security["capabilities"]["add"]), expected, "{place}");
                assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{place}");
                assert_eq!(security["runAsUser"], id, "{place}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{place}");
                seen.insert(format!("{name}/{inner}"));
            }
        }
    }
    let every = "manx-bgpd/bgpd manx-cleanup/bgpd manx-cleanup/cleaned manx-cleanup/felix manx-controller/controller \
                 manx-felix/felix manx-install/install manx-test/status manx-uninstall-agents/uninstall \
                 manx-uninstall-nodes/uninstall";
    assert_eq!(seen.into_iter().collect::<Vec<_>>().join(" "), every);
}

#[test]
fn of_the_node_a_pod_reaches_only_what_it_works_on() {
    let expected = [
        ("manx-bgpd", "/run/manx /var/lib/manx/bgpd"),
        (
            "manx-cleanup",
            "/etc/cni/net.d /opt/cni/bin /proc/sys/net /run/manx /var/lib/manx/bgpd /var/lib/manx/felix",
        ),
        ("manx-felix", "/etc/cni/net.d /opt/cni/bin /proc/sys/net /run/manx /var/lib/manx/felix"),
    ];
    let mut found = Vec::new();
    for object in objects(&[]) {
        let Some(pod) = pod_spec(&object) else { continue };
        let mut paths: Vec<&str> = Vec::new();
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            if volume.get("emptyDir").is_none() {
                paths.push(volume["hostPath"]["path"].as_str().expect("of the node, or of the pod alone"));
            }
        }
        paths.sort_unstable();
        if !paths.is_empty() {
            found.push((object["metadata"]["name"].as_str().unwrap().to_owned(), paths.join(" ")));
        }
    }
    found.sort();
    assert_eq!(found, expected.map(|(name, paths)| (name.to_owned(), paths.to_owned())));
}

/// Each rule of these kinds that grants `resource`, with who holds it.
fn grants<'a>(objects: &'a [Value], resource: &str) -> Vec<(&'a Value, &'a Value)> {
    let mut found = Vec::new();
    for object in objects {
        for rule in object["rules"].as_array().into_iter().flatten() {
            if strings(&rule["resources"]).iter().any(|name| name.split('/').next() == Some(resource)) {
                found.push((object, rule));
            }
        }
    }
    found
}

#[test]
fn secrets_are_read_in_one_namespace_by_two() {
    let objects = objects(&[]);
    let found = grants(&objects, "secrets");
    assert_eq!(found.len(), 1, "{found:?}");
    let (role, rule) = found[0];
    assert_eq!(title(role), "Role/manx-session-keys");
    assert_eq!(role["metadata"]["namespace"], "manx-secrets");
    assert_eq!(strings(&rule["verbs"]), ["get", "list", "watch"]);
    let mut readers = Vec::new();
    for object in &objects {
        if object["roleRef"]["name"] == "manx-session-keys" {
            for subject in object["subjects"].as_array().unwrap() {
                readers.push(subject["name"].as_str().unwrap());
            }
        }
    }
    assert_eq!(readers, ["manx-bgpd", "manx-controller"]);
    // Nothing of the chart itself lives there.
    let others = objects.iter().filter(|object| object["metadata"]["namespace"] == "manx-secrets").map(title);
    assert_eq!(others.collect::<Vec<_>>(), ["Role/manx-session-keys", "RoleBinding/manx-session-keys"]);
}

#[test]
fn agents_write_few_kinds_and_no_policy_misses_one() {
    let objects = objects(&[]);
    let policy = named(&objects, "ValidatingAdmissionPolicy", "manx-node-restriction");
    let mut covered = BTreeSet::new();
    for rule in policy["spec"]["matchConstraints"]["resourceRules"].as_array().unwrap() {
        assert_eq!(strings(&rule["operations"]), ["CREATE", "UPDATE", "DELETE"]);
        covered.extend(strings(&rule["resources"]));
    }
    for agent in ["manx-felix", "manx-bgpd"] {
        let role = named(&objects, "ClusterRole", agent);
        for rule in role["rules"].as_array().unwrap() {
            let reads = ["get", "list", "watch"];
            if strings(&rule["verbs"]).iter().all(|verb| reads.contains(verb)) {
                continue;
            }
            for resource in strings(&rule["resources"]) {
                assert!(resource == "events" || covered.contains(resource), "{agent} writes {resource}");
            }
        }
    }
}

#[test]
fn one_component_is_upgraded_without_the_others() {
    let before = objects(&[]);
    for (component, kind) in [("felix", "DaemonSet"), ("bgpd", "DaemonSet"), ("controller", "Deployment")] {
        let after = objects(&["--set", &format!("{component}.image.tag=9.9.9")]);
        for (workload, other_kind) in
            [("felix", "DaemonSet"), ("bgpd", "DaemonSet"), ("controller", "Deployment")]
        {
            let name = format!("manx-{workload}");
            let (was, is) = (named(&before, other_kind, &name), named(&after, other_kind, &name));
            assert_eq!(was["spec"] == is["spec"], workload != component, "{component} and {workload}");
        }
        let image =
            &named(&after, kind, &format!("manx-{component}"))["spec"]["template"]["spec"]["containers"];
        assert_eq!(image[0]["image"], "localhost/manx:9.9.9");
    }
    // The version of the chart is in labels, and in no pod template.
    for object in &before {
        let template = &object["spec"]["template"]["metadata"]["labels"];
        assert!(template.get("helm.sh/chart").is_none(), "{}", title(object));
    }
}

#[test]
fn images_by_tag_and_by_digest() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let image = |arguments: &[&str]| {
        let objects = objects(arguments);
        let pod = &named(&objects, "DaemonSet", "manx-bgpd")["spec"]["template"]["spec"];
        pod["containers"][0]["image"].as_str().unwrap().to_owned()
    };
    assert_eq!(image(&[]), "localhost/manx:0.1.0");
    assert_eq!(image(&["--set", "image.tag=v2"]), "localhost/manx:v2");
    assert_eq!(image(&["--set", &format!("image.digest={digest}")]), format!("localhost/manx@{digest}"));
    assert_eq!(image(&["--set", &format!("image.digest={digest},bgpd.image.tag=v3")]), "localhost/manx:v3");
}

#[test]
fn every_probe_is_the_kubelets_alone_unless_asked_for() {
    for (arguments, address) in [(&[][..], "127.0.0.1"), (&["--set", "metrics.enabled=true"], "[::]")] {
        let objects = objects(arguments);
        for (kind, name, port) in
            [("DaemonSet", "felix", 9991), ("DaemonSet", "bgpd", 9992), ("Deployment", "controller", 9993)]
        {
            let pod = &named(&objects, kind, &format!("manx-{name}"))["spec"]["template"]["spec"];
            let container = &pod["containers"][0];
            let environment = container["env"].as_array().unwrap();
            let value = environment.iter().find(|one| one["name"] == "MANX_HEALTH_ADDRESS").unwrap();
            assert_eq!(value["value"], format!("{address}:{port}"));
            for (probe, path) in
                [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
            {
                let get = &container[probe]["httpGet"];
                assert_eq!(*get, json!({"host": "127.0.0.1", "path": path, "port": port}), "{name} {probe}");
            }
        }
        let services = objects.iter().filter(|object| object["kind"] == "Service").count();
        assert_eq!(services, if address == "127.0.0.1" { 0 } else { 3 });
    }
}

#[test]
fn hooks_make_what_they_need_before_they_need_it() {
    let objects = objects(&[]);
    let mut hooks: Vec<(String, i64, String)> = Vec::new();
    for object in &objects {
        let annotations = &object["metadata"]["annotations"];
        if let Some(hook) = annotations["helm.sh/hook"].as_str() {
            assert_eq!(annotations["helm.sh/hook-delete-policy"], "before-hook-creation,hook-succeeded");
            let weight = annotations["helm.sh/hook-weight"].as_str().unwrap_or("0").parse().unwrap();
            hooks.push((hook.to_owned(), weight, title(object)));
        }
    }
    hooks.sort();
    let at = |hook: &str| -> Vec<String> {
        let of = hooks.iter().filter(|(name, ..)| name == hook);
        let work = |title: &str| ["Job/", "Pod/", "DaemonSet/"].iter().any(|kind| title.starts_with(kind));
        let (pods, rights): (Vec<_>, Vec<_>) = of.partition(|(_, _, title)| work(title));
        let first = pods.iter().map(|(_, weight, _)| weight).min().expect("a hook that works");
        assert!(!rights.is_empty() && rights.iter().all(|(_, weight, _)| weight < first), "{rights:?}");
        pods.into_iter().map(|(_, _, title)| title.clone()).collect()
    };
    assert_eq!(at("pre-install,pre-upgrade"), ["Job/manx-install"]);
    // The agents end first, else they would put back what the cleaning takes away.
    assert_eq!(
        at("pre-delete"),
        ["Job/manx-uninstall-agents", "DaemonSet/manx-cleanup", "Job/manx-uninstall-nodes"]
    );
    assert_eq!(at("test"), ["Pod/manx-test"]);
}

#[test]
fn the_hook_and_the_roles_know_every_crd() {
    let objects = objects(&[]);
    let install = named(&objects, "ClusterRole", "manx-install");
    let patched: BTreeSet<&str> = install["rules"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| strings(&rule["verbs"]) == ["patch"])
        .flat_map(|rule| strings(&rule["resourceNames"]))
        .collect();
    assert_eq!(patched.len(), 16);
    let mut crds = 0;
    for entry in std::fs::read_dir(chart("crds")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(plural) = name.strip_suffix(".yaml") {
            crds += 1;
            assert!(
                patched.contains(format!("{plural}.manx.dev").as_str()),
                "the hook may not apply {plural}"
            );
            let role = named(&objects, "ClusterRole", "manx-view");
            assert!(
                strings(&role["rules"][0]["resources"]).contains(&plural),
                "manx-view does not read {plural}"
            );
        }
    }
    assert!(crds > 0);
    // Helm itself installs none of them: it would never change them again.
    let output = run_helm(&["show", "crds", chart("").to_str().unwrap()]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "");
}

/// Values that are refused, with what the person reads.
#[test]
fn what_is_wrong_is_refused_by_name() {
    let cases: [(&[&str], &[&str]); 20] = [
        (&["--set", "felx.healthPort=1"], &["additional properties 'felx' not allowed"]),
        (&["--set", "felix.healthport=1"], &["at '/felix'", "'healthport' not allowed"]),
        (&["--set", "felix.healthPort=0"], &["at '/felix/healthPort'", "minimum: got 0, want 1"]),
        (&["--set-string", "bgpd.healthPort=9992"], &["at '/bgpd/healthPort'", "got string, want integer"]),
        (&["--set", "image.tag=1"], &["at '/image/tag'", "got number, want string"]),
        (&["--set", "image.digest=sha256:abc"], &["at '/image/digest'", "does not match pattern"]),
        (
            &["--set", "image.pullPolicy=always"],
            &["at '/image/pullPolicy'", "'IfNotPresent', 'Always', 'Never'"],
        ),
        (&["--set", "image=manx:1"], &["at '/image': got string, want object"]),
        (&["--set", "controller.replicas=0"], &["at '/controller/replicas'", "want 1"]),
        (&["--set", "controller.replicas=two"], &["at '/controller/replicas'", "got string, want integer"]),
        (&["--set", "secrets.namespace=kube-system"], &["at '/secrets/namespace'"]),
        (&["--set", "secrets.namespace=Manx"], &["at '/secrets/namespace'", "does not match pattern"]),
        (&["--set", "cni.binDir=opt/cni/bin"], &["at '/cni/binDir'", "does not match pattern"]),
        (&["--set", "felix.maxUnavailable=0"], &["at '/felix/maxUnavailable'", "want 1"]),
        (&["--set", "felix.maxUnavailable=many"], &["at '/felix/maxUnavailable'", "does not match pattern"]),
        (&["--set", "felix.resources.limits.memry=1Gi"], &["at '/felix/resources/limits'", "memry"]),
        (
            &["--set", "felix.tolerations[0].efect=NoSchedule"],
            &["at '/felix/tolerations/0'", "'efect' not allowed"],
        ),
        (&["--set", "install.crds=yes"], &["at '/install/crds'", "got string, want boolean"]),
        (&["--set", "metrics.podMonitor.enabled=true"], &["at '/metrics/enabled'"]),
        (
            &["--set", "felix.nodeSelector.gpu=true"],
            &["at '/felix/nodeSelector/gpu'", "got boolean, want string"],
        ),
    ];
    for (arguments, texts) in cases {
        let said = refusal(arguments);
        for text in texts {
            assert!(said.contains(text), "{arguments:?}: {text:?} is not in: {said}");
        }
    }
}

#[test]
fn helm_keeps_its_own_secret_out_of_the_agents_reach() {
    let said = refusal(&["--set", "secrets.namespace=manx-system"]);
    for text in ["error: secrets.namespace is the release's own namespace", "  expected   ", "  do         "]
    {
        assert!(said.contains(text), "{said}");
    }
}

#[test]
fn the_notes_say_what_to_try() {
    let plain = notes(&[]);
    for text in [
        "kubectl get manx -A",
        "helm -n manx-system test manx",
        "default-ipv4 (10.244.0.0/16)",
        "--register-with-taints",
    ] {
        assert!(plain.contains(text), "{text:?} is not in {plain}");
    }
    assert!(plain.lines().all(|line| line.chars().count() <= 120), "{plain}");
    assert!(notes(&["--set", "install.defaults=false"]).contains("no pod gets an address"));
    assert!(notes(&["--set", "uninstall.cleanup=false"]).contains("will leave policy, routes"));
}
