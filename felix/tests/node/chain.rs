//! The verbs of CNI, and the chain behind manx-cni: `prevResult` through a real portmap.

use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Node, Pod, addresses, plugin};
use crate::namespace::Namespace;
use crate::outgoing::seen;

#[test]
fn check_notices_what_is_gone_and_status_says_whether_an_add_would_do() {
    let mut node = Node::new();
    let silent = node.cni("STATUS", None, json!({})).unwrap_err();
    assert_eq!((silent["code"].as_u64(), silent["msg"].as_str()), (Some(50), Some("felix does not answer")));
    node.start();
    node.wait("STATUS is content", || node.cni("STATUS", None, json!({})).is_ok());

    let pod = node.pod("one");
    let unknown = node.cni("CHECK", Some(&pod), json!({})).unwrap_err();
    assert_eq!(unknown["code"], 3, "{unknown}");
    let added = node.add(&pod);
    assert_eq!((&added["cniVersion"], &added["interfaces"][1]["mtu"]), (&json!("1.1.0"), &json!(1500)));
    let previous = json!({"prevResult": added});
    assert_eq!(node.cni("CHECK", Some(&pod), previous.clone()), Ok(Value::Null));
    let mut other = previous.clone();
    other["prevResult"]["ips"] = json!([{"address": "10.244.99.99/32"}]);
    let differs = node.cni("CHECK", Some(&pod), other).unwrap_err();
    assert!(differs["msg"].as_str().unwrap().contains("prevResult"), "{differs}");

    let [v4, _] = addresses(&added);
    let host = added["interfaces"][0]["name"].as_str().unwrap();
    for (spoil, mend, said) in [
        (format!("ip addr del {v4}/32 dev eth0"), format!("ip addr add {v4}/32 dev eth0"), v4.as_str()),
        (
            "ip route del default".to_owned(),
            "ip route add default via 169.254.1.1 dev eth0 onlink".to_owned(),
            "default route",
        ),
    ] {
        // The kernel drops the default route with the address that it needs as source.
        pod.netns.sh(&spoil);
        let error = node.cni("CHECK", Some(&pod), previous.clone()).unwrap_err();
        assert!(error["msg"].as_str().unwrap().contains(said), "{spoil}: {error}");
        pod.netns.sh(&mend);
        pod.netns.sh("ip route replace 169.254.1.1 dev eth0; \
             ip route replace default via 169.254.1.1 dev eth0 onlink");
        assert_eq!(node.cni("CHECK", Some(&pod), previous.clone()), Ok(Value::Null), "{mend}");
    }
    node.netns.sh(&format!("ip link set {host} down"));
    let down = node.cni("CHECK", Some(&pod), previous).unwrap_err();
    assert!(down["msg"].as_str().unwrap().contains(host), "{down}");
}

#[test]
fn collection_deletes_what_the_runtime_does_not_name_and_nothing_of_another_network() {
    let mut node = Node::new();
    node.start();
    let pods = ["kept", "lost"].map(|name| node.pod(name));
    let hosts = pods.each_ref().map(|pod| {
        let added = node.add(pod);
        added["interfaces"][0]["name"].as_str().unwrap().to_owned()
    });
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": pods[0].container, "ifname": "eth0"}]});
    let mut elsewhere = valid.clone();
    elsewhere["name"] = json!("storage");
    let links = |node: &Node| node.netns.sh("ip -br link");
    let all_there = |node: &Node| hosts.iter().all(|host| links(node).contains(host));
    assert_eq!(node.cni("GC", None, elsewhere), Ok(Value::Null));
    assert!(all_there(&node));
    assert_eq!(node.cni("GC", None, json!({})).unwrap_err()["code"], 7, "without its list");
    assert!(all_there(&node));
    // The journal says whose network it was, also to the next felix.
    node.kill();
    node.start();
    node.wait("felix is in sync", || node.cni("STATUS", None, json!({})).is_ok());
    assert_eq!(node.cni("GC", None, valid), Ok(Value::Null));
    node.wait("the lost link is deleted", || !links(&node).contains(&hosts[1]));
    assert!(links(&node).contains(&hosts[0]));
    assert_eq!(node.cni("CHECK", Some(&pods[0]), json!({})), Ok(Value::Null));
    assert_eq!(node.cni("CHECK", Some(&pods[1]), json!({})).unwrap_err()["code"], 3);
}

/// As containerd calls a chain: each plugin with the answer of the one before it, backwards to delete.
#[test]
fn portmap_takes_our_answer_as_its_previous_result() {
    let portmap = ["/opt/cni/bin/portmap", "/usr/lib/cni/portmap"].map(Path::new);
    let portmap = portmap.into_iter().find(|path| path.exists()).expect("containernetworking-plugins");
    let mut node = Node::new();
    std::fs::copy(portmap, node.path("bin/portmap")).unwrap();
    node.start();
    let conflist = node.path("net.d/10-manx.conflist");
    node.wait("the configuration is written", || conflist.exists());
    let list: Value = serde_json::from_slice(&std::fs::read(&conflist).unwrap()).unwrap();
    let plugins = list["plugins"].as_array().unwrap();
    assert_eq!(plugins.len(), 2, "{list}");
    assert_eq!(std::fs::read(node.path("bin/manx-cni")).unwrap(), std::fs::read(plugin()).unwrap());

    // What libcni passes to each plugin of a list.
    let conf = |n: usize, previous: Option<&Value>| {
        let mut conf = plugins[n].clone();
        conf["name"] = list["name"].clone();
        conf["cniVersion"] = list["cniVersion"].clone();
        if conf.as_object_mut().unwrap().remove("capabilities").is_some() {
            conf["runtimeConfig"] =
                json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
        }
        if let Some(previous) = previous {
            conf["prevResult"] = previous.clone();
        }
        conf
    };
    let pod = node.pod("mapped");
    let call = |n: usize, verb: &str, previous: Option<&Value>| {
        let name = plugins[n]["type"].as_str().unwrap();
        let output = node.call(&node.path("bin").join(name), verb, Some(&pod), &conf(n, previous));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{verb} {name}: {text}");
        serde_json::from_str::<Value>(&text).unwrap_or(Value::Null)
    };
    let ours = call(0, "ADD", None);
    let both = call(1, "ADD", Some(&ours));
    assert_eq!(both["ips"], ours["ips"]);
    let rules = || node.netns.sh("iptables-save -t nat");
    let [v4, _] = addresses(&ours);
    assert!(rules().contains(&format!("--to-destination {v4}:80")), "{}", rules());
    call(0, "CHECK", Some(&both));
    // portmap 1.1 looks for the rules of one family in the tables of both: its own CHECK passes for no dual-stack pod.

    // hostPort from outside, through both tables.
    node.outside.sh(&format!("ip route add 10.244.0.0/16 via {}", crate::harness::NODE_V4));
    let listener = pod.netns.run(|| std::net::TcpListener::bind((v4.as_str(), 80)).unwrap());
    let mapped: std::net::SocketAddr = format!("{}:8080", crate::harness::NODE_V4).parse().unwrap();
    let timeout = std::time::Duration::from_secs(3);
    node.outside.run(|| std::net::TcpStream::connect_timeout(&mapped, timeout)).expect("hostPort 8080");
    listener.accept().unwrap();

    call(1, "DEL", Some(&both));
    call(0, "DEL", Some(&both));
    assert!(!rules().contains("--to-destination"), "{}", rules());
    // Once more, as runtimes do, when nobody remembers the result.
    call(1, "DEL", None);
    call(0, "DEL", None);
}

/// `hostUsers: false`: the pod's network namespace belongs to another user namespace.
#[test]
fn a_pod_of_another_user_namespace_is_wired_like_any_other() {
    let mut node = Node::new();
    node.start();
    let pod = node.pod("mapped");
    let mut process = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", "echo made; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(process.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    let netns = Namespace::of_process(process.id());
    let pod = Pod { netns, ..pod };
    assert!(pod.netns.fd().as_raw_fd() > 0);
    let added = node.add(&pod);
    let [v4, v6] = addresses(&added);
    let held = Command::new("nsenter")
        .args(["--target", &process.id().to_string(), "--user", "--net", "ip", "-br", "addr", "show", "eth0"])
        .output()
        .unwrap();
    let held = String::from_utf8_lossy(&held.stdout).into_owned();
    assert!(held.contains(&v4) && held.contains(&v6), "{held}");
    node.netns.sh(&format!("ping -c 1 -W 2 {v4}; ping -6 -c 1 -W 2 {v6}"));

    // Routes, settings and traffic are those of a pod whose namespace is the host's.
    let plain = node.pod("plain");
    let [plain_v4, plain_v6] = addresses(&node.add(&plain));
    let wired = |pod: &Pod, [v4, v6]: [&str; 2]| {
        let text = pod.netns.sh("ip route; ip -6 route; sysctl net.ipv6.conf.eth0.accept_ra \
             net.ipv6.conf.eth0.accept_dad net.ipv6.conf.eth0.disable_ipv6 net.ipv4.conf.eth0.rp_filter");
        text.lines()
            .filter(|line| !line.starts_with("fe80::"))
            .collect::<Vec<_>>()
            .join("\n")
            .replace(v4, "V4")
            .replace(v6, "V6")
    };
    assert_eq!(wired(&pod, [&v4, &v6]), wired(&plain, [&plain_v4, &plain_v6]));
    for (address, from) in [(&v4, &plain_v4), (&v6, &plain_v6)] {
        assert_eq!(&seen(&plain.netns, &pod.netns, address).to_string(), from);
    }
    for (address, from) in [(&plain_v4, &v4), (&plain_v6, &v6)] {
        assert_eq!(&seen(&pod.netns, &plain.netns, address).to_string(), from);
    }

    let previous = json!({"prevResult": added});
    assert_eq!(node.cni("CHECK", Some(&pod), previous.clone()), Ok(Value::Null));
    pod.netns.sh(&format!("ip addr del {v4}/32 dev eth0"));
    let error = node.cni("CHECK", Some(&pod), previous).unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains(&v4), "{error}");
    assert_eq!(node.cni("DEL", Some(&pod), json!({})), Ok(Value::Null));
    node.wait("its link is gone", || pod.netns.sh("ip -br link show type veth").is_empty());
    let host = added["interfaces"][0]["name"].as_str().unwrap();
    assert!(!node.netns.sh("ip -br link").contains(host));
    process.kill().unwrap();
    process.wait().unwrap();
}
