//! What a thief can do with an agent's token: the chart's rights and admission policies on a real API server.
//!
//! Every refusal is tried, and beside it the same act where it is right: a policy that refuses everything would pass
//! the one and not the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "rights/stage.rs"]
mod stage;

use stage::{Identity, NAMESPACE, Patch, Stage};

/// Refused by RBAC: no rule grants it.
const FORBIDDEN: &str = "is forbidden";
/// What the hook creates, and agents do not.
const POOL: &str = include_str!("../../crds/defaults/ippool-default-ipv4.yaml");
const CREATE: [&str; 4] = ["create", "--validate=false", "-f", "-"];
const REPLACE: [&str; 4] = ["replace", "--validate=false", "-f", "-"];

fn fabric_node(name: &str) -> String {
    format!("{{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {{name: {name}}}, spec: {{}}}}")
}

fn session(node: &str, name: &str) -> String {
    format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: BGPSession, metadata: {{name: {name}}}, \
         spec: {{nodeName: {node}, peer: tor, remote: 10.0.0.1}}}}"
    )
}

/// A block, of a node or nobody's.
fn block(third: u8, owner: Option<&str>) -> String {
    let owner = owner.map(|name| format!(", nodeName: {name}")).unwrap_or_default();
    format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: IPBlock, metadata: {{name: 10-244-{third}-0-26}}, \
         spec: {{cidr: 10.244.{third}.0/26, pool: default-ipv4{owner}}}}}"
    )
}

fn fabric_nodes(stage: &Stage) -> usize {
    let mut felix = stage.agent("felix", "n1");
    let own = "write their own FabricNode only, not that of 'n2'";
    felix.may(&CREATE, &fabric_node("n1"));
    felix.may_not(&CREATE, &fabric_node("n2"), own);
    felix.may_not(
        &CREATE,
        "{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {generateName: n1-}, spec: {}}",
        "write their own FabricNode only",
    );
    stage.plane.apply(&fabric_node("n2")).unwrap();
    let apply = ["apply", "--server-side", "--field-manager=manx-felix", "--validate=false", "-f", "-"];
    let labelled = |name: &str| {
        format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {{name: {name}, labels: {{rack: b}}}}}}"
        )
    };
    felix.may(&apply, &labelled("n1"));
    assert_eq!(stage.object(&["fabricnode", "n1"])["metadata"]["labels"]["rack"], "b");
    felix.may_not(&apply, &labelled("n2"), own);
    let status = r#"{"status":{"addressSource":"Node InternalIP"}}"#;
    for agent in ["felix", "bgpd"] {
        let mut agent = stage.agent(agent, "n1");
        agent.may_patch("/apis/manx.dev/v1alpha1/fabricnodes/n1/status", Patch::Merge, status);
        agent.may_not_patch("/apis/manx.dev/v1alpha1/fabricnodes/n2/status", Patch::Merge, status, own);
        felix.refusals += agent.refusals;
    }
    let drain = r#"{"spec":{"adminState":"Drained"}}"#;
    felix.may_not(
        &["patch", "fnode", "n1", "--type=merge", "-p", drain],
        "",
        "spec of a FabricNode is people's",
    );
    felix.may_not(&["delete", "fnode", "n1"], "", FORBIDDEN);
    felix.may_not(&["delete", "fnode", "n2"], "", FORBIDDEN);
    felix.refusals
}

fn blocks(stage: &Stage) -> usize {
    let mut felix = stage.agent("felix", "n1");
    let own = "agents of node 'n1' write IPBlocks of that node only";
    stage.plane.apply(&block(2, Some("n2"))).unwrap();
    stage.plane.apply(&block(9, None)).unwrap();
    // Claim, release, claim again: what an allocator does.
    felix.may(&CREATE, &block(1, Some("n1")));
    felix.may(&REPLACE, &block(1, None));
    felix.may(&REPLACE, &block(1, Some("n1")));
    felix.may_not(&CREATE, &block(3, Some("n2")), own);
    felix.may_not(&CREATE, &block(3, None), own);
    felix.may_not(&REPLACE, &block(2, Some("n2")).replace("pool:", "cursor: 9, pool:"), own);
    felix.may_not(&REPLACE, &block(2, None), own);
    felix.may_not(&REPLACE, &block(2, Some("n1")), "a block is never handed over");
    felix.may_not(&REPLACE, &block(9, None).replace("pool:", "cursor: 9, pool:"), own);
    felix.may_not(&["delete", "ipblock", "10-244-2-0-26"], "", own);
    felix.may_not(&["delete", "ipblock", "10-244-9-0-26"], "", own);
    felix.may_not(&["delete", "ipblocks", "--all"], "", own);
    felix.may(&REPLACE, &block(9, Some("n1")));
    let left = stage.object(&["ipblocks"]);
    let mut names: Vec<_> =
        left["items"].as_array().unwrap().iter().map(|one| &one["metadata"]["name"]).collect();
    names.sort_by_key(ToString::to_string);
    // `--all` took this node's own block before it met another's.
    assert!(
        names.contains(&&"10-244-2-0-26".into()) && names.contains(&&"10-244-9-0-26".into()),
        "{names:?}"
    );
    felix.may(&["delete", "ipblock", "10-244-9-0-26"], "");
    let mut bgpd = stage.agent("bgpd", "n1");
    bgpd.may_not(&CREATE, &block(4, Some("n1")), FORBIDDEN);
    bgpd.may(&["get", "ipblocks"], "");
    felix.refusals + bgpd.refusals
}

fn sessions(stage: &Stage) -> usize {
    let mut bgpd = stage.agent("bgpd", "n1");
    let own = "agents of node 'n1' write BGPSessions of that node only";
    bgpd.may(&CREATE, &session("n1", "n1.tor"));
    stage.plane.apply(&session("n2", "n2.tor")).unwrap();
    let up = r#"{"status":{"state":"Established"}}"#;
    bgpd.may_patch("/apis/manx.dev/v1alpha1/bgpsessions/n1.tor/status", Patch::Merge, up);
    bgpd.may_not_patch("/apis/manx.dev/v1alpha1/bgpsessions/n2.tor/status", Patch::Merge, up, own);
    bgpd.may_not(&CREATE, &session("n2", "n2.lab"), own);
    // Neither under a name that another node's bgpd will want, nor the reverse.
    bgpd.may_not(&CREATE, &session("n1", "n2.lab"), own);
    bgpd.may_not(&CREATE, &session("n2", "n1.lab"), own);
    bgpd.may_not(&["delete", "bgps", "n2.tor"], "", own);
    bgpd.may(&["delete", "bgps", "n1.tor"], "");
    let mut felix = stage.agent("felix", "n1");
    felix.may_not(&CREATE, &session("n1", "n1.tor"), FORBIDDEN);
    bgpd.refusals + felix.refusals
}

/// A Node, by either way in.
fn node(name: &str, status: bool) -> String {
    format!("/api/v1/nodes/{name}{}", if status { "/status" } else { "" })
}

fn taints_of_nodes(stage: &Stage) -> usize {
    let mut felix = stage.agent("felix", "n1");
    let own = "write their own Node only, not that of 'n2'";
    let spec =
        "of a Node's spec, agents write the taint manx.dev/agent-not-ready:NoSchedule and nothing else";
    let team = r#"{"key":"team","value":"db","effect":"NoSchedule"}"#;
    let taints = |list: &str| format!(r#"{{"spec":{{"taints":[{list}]}}}}"#);
    let ready = taints(team);
    felix.may_patch(&node("n1", false), Patch::Merge, &ready);
    assert_eq!(stage.object(&["node", "n1"])["spec"]["taints"].as_array().unwrap().len(), 1);
    let closed = taints(&format!(r#"{{"key":"manx.dev/agent-not-ready","effect":"NoSchedule"}},{team}"#));
    felix.may_patch(&node("n1", false), Patch::Merge, &closed);
    felix.may_patch(&node("n1", false), Patch::Merge, &ready);
    felix.may_not_patch(&node("n2", false), Patch::Merge, &ready, own);
    for list in [
        // Another's taint taken away, changed, or added; ours with an effect that ends pods.
        String::new(),
        team.replace("db", "web"),
        format!(r#"{team},{{"key":"x","effect":"NoExecute"}}"#),
        format!(r#"{team},{{"key":"manx.dev/agent-not-ready","effect":"NoExecute"}}"#),
        format!(r#"{team},{{"key":"manx.dev/agent-not-ready-2","effect":"NoSchedule"}}"#),
    ] {
        felix.may_not_patch(&node("n1", false), Patch::Merge, &taints(&list), spec);
    }
    felix.may_not_patch(&node("n1", false), Patch::Merge, r#"{"spec":{"unschedulable":true}}"#, spec);
    felix.may_not_patch(
        &node("n1", false),
        Patch::Merge,
        r#"{"spec":{"podCIDR":"10.9.0.0/24","podCIDRs":["10.9.0.0/24"]}}"#,
        spec,
    );
    felix.may_not_patch(&node("n1", false), Patch::Merge, r#"{"spec":{"providerID":"x"}}"#, spec);
    felix.may_not(&["delete", "node", "n1"], "", FORBIDDEN);
    felix.may_not(&CREATE, "{apiVersion: v1, kind: Node, metadata: {name: n3}}", FORBIDDEN);
    felix.refusals
}

fn status_of_nodes(stage: &Stage) -> usize {
    let mut felix = stage.agent("felix", "n1");
    let condition = "of a Node's status, agents write the condition NetworkUnavailable and nothing else";
    let metadata = "not its metadata";
    let up = r#"{"status":{"conditions":[{"type":"NetworkUnavailable","status":"False","reason":"ManxIsUp","message":"m"}]}}"#;
    felix.may_patch(&node("n1", true), Patch::Strategic, up);
    let seen = stage.object(&["node", "n1"]);
    let conditions = seen["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|one| one["reason"] == "ManxIsUp"), "{seen}");
    assert_eq!(conditions.len(), 2, "{seen}");
    felix.may_not_patch(
        &node("n2", true),
        Patch::Strategic,
        up,
        "write their own Node only, not that of 'n2'",
    );
    let ready = r#"{"status":{"conditions":[{"type":"Ready","status":"True","reason":"r","message":"m"}]}}"#;
    felix.may_not_patch(&node("n1", true), Patch::Strategic, ready, condition);
    let more = r#"{"status":{"conditions":[{"type":"Fine","status":"True","reason":"r","message":"m"}]}}"#;
    felix.may_not_patch(&node("n1", true), Patch::Strategic, more, condition);
    felix.may_not_patch(&node("n1", true), Patch::Merge, r#"{"status":{"conditions":[]}}"#, condition);
    felix.may_not_patch(&node("n1", true), Patch::Merge, r#"{"status":{"capacity":{"cpu":"9"}}}"#, condition);
    felix.may_not_patch(
        &node("n1", true),
        Patch::Merge,
        r#"{"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.9"}]}}"#,
        condition,
    );
    // Metadata can be written by both ways in.
    for status in [false, true] {
        for body in [
            r#"{"metadata":{"labels":{"rack":"b"}}}"#,
            r#"{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}"#,
            r#"{"metadata":{"labels":null}}"#,
            r#"{"metadata":{"annotations":{"note":"y"}}}"#,
            r#"{"metadata":{"finalizers":["manx.dev/x"]}}"#,
        ] {
            felix.may_not_patch(&node("n1", status), Patch::Merge, body, metadata);
        }
    }
    let mut bgpd = stage.agent("bgpd", "n1");
    bgpd.may_not_patch(&node("n1", true), Patch::Strategic, up, FORBIDDEN);
    felix.refusals + bgpd.refusals
}

/// A token that was not made for a pod names no node, and writes nothing.
fn tokens_without_a_node(stage: &Stage) -> usize {
    let nameless = "this token names no node";
    let mut felix = stage.account(NAMESPACE, "manx-felix", "felix-nameless", &[]);
    felix.may_not(&CREATE, &fabric_node("n7"), nameless);
    felix.may_not(&CREATE, &block(7, Some("n1")), nameless);
    felix.may_not_patch(&node("n1", false), Patch::Merge, r#"{"spec":{"taints":null}}"#, nameless);
    felix.may(&["get", "fabricnodes"], "");
    let mut bgpd = stage.account(NAMESPACE, "manx-bgpd", "bgpd-nameless", &[]);
    bgpd.may_not(&CREATE, &session("n1", "n1.x"), nameless);
    // Nobody else is held back: the controller takes a dead node's block.
    let controller = stage.account(NAMESPACE, "manx-controller", "controller", &[]);
    controller.may(&REPLACE, &block(2, None));
    felix.refusals + bgpd.refusals
}

fn what_rbac_keeps(stage: &Stage) -> usize {
    stage.plane.apply(
        "{apiVersion: v1, kind: Secret, metadata: {name: tor-keys, namespace: manx-secrets}, stringData: {r12: geheim}}",
    )
    .unwrap();
    let secrets = |namespace| ["-n", namespace, "get", "secrets"];
    let mut felix = stage.agent("felix", "n1");
    let mut bgpd = stage.agent("bgpd", "n1");
    let controller = stage.account(NAMESPACE, "manx-controller", "controller", &[]);
    bgpd.may(&secrets("manx-secrets"), "");
    controller.may(&secrets("manx-secrets"), "");
    felix.may_not(&secrets("manx-secrets"), "", FORBIDDEN);
    felix.may_not(&["-n", "manx-secrets", "get", "secret", "tor-keys"], "", FORBIDDEN);
    for agent in [&mut felix, &mut bgpd] {
        for namespace in [NAMESPACE, "kube-system", "shop"] {
            agent.may_not(&secrets(namespace), "", FORBIDDEN);
        }
        agent.may_not(&["get", "secrets", "-A"], "", FORBIDDEN);
        agent.may_not(&["-n", NAMESPACE, "create", "token", "manx-controller"], "", FORBIDDEN);
        agent.may_not(&["-n", NAMESPACE, "delete", "pod", "felix-n2"], "", FORBIDDEN);
        agent.may_not(&["-n", NAMESPACE, "delete", "daemonset", "manx-felix"], "", FORBIDDEN);
        agent.may_not(&["delete", "validatingadmissionpolicy", "manx-node-restriction"], "", FORBIDDEN);
        agent.may_not(&["delete", "crd", "ipblocks.manx.dev"], "", FORBIDDEN);
        agent.may_not(&CREATE, POOL, FORBIDDEN);
        agent.may_not(&["delete", "fabricnodes", "--all"], "", FORBIDDEN);
        agent.may_not(&["get", "nodes", "--as=system:admin"], "", FORBIDDEN);
    }
    felix.refusals + bgpd.refusals
}

/// The hook applies our CRDs and no other, and changes no object that is there.
fn the_install_hook(stage: &Stage) -> usize {
    let mut hook = stage.account(NAMESPACE, "manx-install", "install", &[]);
    let apply = ["apply", "--server-side", "--force-conflicts", "--validate=false", "-f"];
    let charts = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/manx/crds");
    hook.may(&[&apply[..], &[charts]].concat(), "");
    hook.may(&CREATE, POOL);
    hook.may_not(&["patch", "ippool", "default-ipv4", "--type=merge", "-p", "{}"], "", FORBIDDEN);
    hook.may_not(&["delete", "ippool", "default-ipv4"], "", FORBIDDEN);
    hook.may_not(&["delete", "crd", "ippools.manx.dev"], "", FORBIDDEN);
    let foreign = "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: xs.example.com}}";
    hook.may_not(&[&apply[..], &["-"]].concat(), foreign, FORBIDDEN);
    hook.refusals
}

fn policy(tier: &str) -> String {
    format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: NetworkPolicy, metadata: {{name: p, namespace: shop}}, \
         spec: {{tier: {tier}, types: [Ingress]}}}}"
    )
}

/// Writers of policy stay in the tiers that they may use; who cleans up is not held by that.
fn tiers(stage: &Stage) -> usize {
    let bind =
        |name: &str, user: &str, kind: &str, role: &str| {
            let meta = if kind == "RoleBinding" { ", namespace: shop" } else { "" };
            stage.plane.apply(&format!(
            "{{apiVersion: rbac.authorization.k8s.io/v1, kind: {kind}, metadata: {{name: {name}{meta}}}, \
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {role}}}, \
             subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {user}}}]}}"
        ))
        .unwrap();
        };
    for name in ["default", "security"] {
        let order = if name == "default" {
            "order: 1000000, defaultAction: Deny"
        } else {
            "order: 500, defaultAction: Pass"
        };
        stage
            .plane
            .apply(&format!(
                "{{apiVersion: manx.dev/v1alpha1, kind: Tier, metadata: {{name: {name}}}, spec: {{{order}}}}}"
            ))
            .unwrap();
    }
    bind("alice", "alice", "RoleBinding", "manx-edit");
    // What `edit` gets by aggregation, which is a controller's work: there is none here.
    bind("alice-reads", "alice", "RoleBinding", "manx-view");
    bind("carol", "carol", "ClusterRoleBinding", "manx-admin");
    let mut alice: Identity<'_> = stage.person("alice");
    let carol = stage.person("carol");
    let use_needed = "who writes this policy needs the verb use (manx.dev) on tiers/";
    alice.may(&CREATE, &policy("default"));
    alice.may_not(&CREATE, &policy("security").replace("name: p", "name: q"), use_needed);
    let moved = r#"{"spec":{"tier":"security"}}"#;
    alice.may_not(&["-n", "shop", "patch", "mnp", "p", "--type=merge", "-p", moved], "", use_needed);
    carol.may(&["-n", "shop", "patch", "mnp", "p", "--type=merge", "-p", moved], "");
    // Nor is one taken out of a tier, or deleted there, without the right.
    let back = r#"{"spec":{"tier":"default"}}"#;
    alice.may_not(&["-n", "shop", "patch", "mnp", "p", "--type=merge", "-p", back], "", use_needed);
    alice.may_not(&["-n", "shop", "delete", "mnp", "p"], "", use_needed);
    stage.plane
        .apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: namespace-controller, namespace: kube-system}}")
        .unwrap();
    let namespaces = stage.account("kube-system", "namespace-controller", "namespaces", &[]);
    namespaces.may(&["-n", "shop", "delete", "mnp", "p", "--wait=false"], "");
    alice.refusals
}

/// One group of attempts; how many were refused.
type Part = fn(&Stage) -> usize;

#[test]
fn a_stolen_agent_token_reaches_its_own_node_and_no_further() {
    let stage = Stage::up("rights");
    let parts: [(&str, Part); 8] = [
        ("FabricNodes", fabric_nodes),
        ("IPBlocks", blocks),
        ("BGPSessions", sessions),
        ("Nodes: spec", taints_of_nodes),
        ("Nodes: status, metadata", status_of_nodes),
        ("tokens without a node", tokens_without_a_node),
        ("RBAC", what_rbac_keeps),
        ("install hook", the_install_hook),
    ];
    for (name, part) in parts {
        let refusals = part(&stage);
        println!("{name}: {refusals} refused");
        assert!(refusals > 0, "{name}: nothing was refused");
    }
    println!("tiers: {} refused", tiers(&stage));
}
