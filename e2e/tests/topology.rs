//! The demo's topology with BIRD as the nodes' speaker: what the routers owe the demo, without our daemons.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::bird::Bird;
use e2e::netns;
use e2e::process::wait_for;
use e2e::router::{Kind, Router, RouterPlaces, Routers};
use e2e::topology::{self, NODES, Node, Scope, TORS};

/// Takes the namespaces away whatever the test came to.
struct Cleanup(Scope);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let names = netns::list(&self.0.namespaces);
        let _ = netns::remove(names.iter().map(String::as_str));
    }
}

fn bird_config(node: Node) -> String {
    let n = u16::from(node.number);
    let mut text = format!(
        "router id {};\nprotocol device {{ scan time 1; }}\n\
         protocol kernel {{ ipv4 {{ export where source = RTS_BGP; import none; }}; merge paths yes; }}\n\
         protocol kernel {{ ipv6 {{ export where source = RTS_BGP; import none; }}; merge paths yes; }}\n\
         protocol static {{ ipv4; route 10.244.0.{}/26 blackhole; }}\n\
         protocol static {{ ipv6; route fd00:10:244::{:x}/122 blackhole; }}\n",
        node.v4(),
        (n - 1) * 64,
        (n - 1) * 64
    );
    for tor in TORS {
        text.push_str(&format!(
            "protocol bgp {} {{ local {} as {}; neighbor {} as {}; connect retry time 1; connect delay time 1; \
             graceful restart on; hold time 9;\n ipv4 {{ import all; export where source = RTS_STATIC; }};\n \
             ipv6 {{ import all; export where source = RTS_STATIC; next hop self; }};\n}}\n",
            tor.name.replace('-', "_"),
            node.link_v4(tor),
            node.asn,
            tor.v4(),
            tor.asn
        ));
    }
    text
}

fn next_hops(scope: &Scope, node: Node, prefix: &str, family: &str) -> Vec<String> {
    let answer = scope.netns(node.name).ip_json(&[family, "route", "show", prefix]).unwrap();
    let mut devices: Vec<String> = Vec::new();
    for route in answer.as_array().unwrap() {
        match route["nexthops"].as_array() {
            Some(hops) => devices.extend(hops.iter().map(|hop| hop["dev"].as_str().unwrap().to_owned())),
            None => devices.push(route["dev"].as_str().unwrap().to_owned()),
        }
    }
    devices.sort();
    devices
}

#[test]
fn one_router_address_serves_every_link() {
    topology::remove_stale_tests().unwrap();
    let scope = Scope::test("topo");
    let _cleanup = Cleanup(scope.clone());
    let directory = std::env::temp_dir().join(scope.router("logs"));
    fs::create_dir_all(&directory).unwrap();
    let begun = Instant::now();
    topology::build(&scope).unwrap();
    let built = begun.elapsed();
    let places = RouterPlaces { logs: &directory, home: &directory, run: &directory, binaries: &directory };
    let routers = Routers::start(Kind::Frr, &scope, &places).unwrap();
    println!("built {built:?}, routers {:?}", begun.elapsed());
    let mut birds: Vec<Bird> = Vec::new();
    for node in NODES {
        birds.push(start(&scope, node, &directory));
    }
    for node in NODES {
        for other in NODES.into_iter().filter(|other| *other != node) {
            let n = u16::from(other.number) - 1;
            for (prefix, family) in
                [(format!("10.244.0.{}/26", n * 64), "-4"), (format!("fd00:10:244::{:x}/122", n * 64), "-6")]
            {
                let both = ["eth0".to_owned(), "eth1".to_owned()];
                let seen = wait_for(Duration::from_secs(20), || {
                    (next_hops(&scope, node, &prefix, family) == both).then_some(())
                });
                if seen.is_none() {
                    for (_, router) in &routers.tors {
                        println!("{}", router.evidence().unwrap());
                    }
                    println!("{}", birds[0].ask("show route all").unwrap());
                }
                assert!(
                    seen.is_some(),
                    "{} {prefix}: {:?}",
                    node.name,
                    next_hops(&scope, node, &prefix, family)
                );
            }
        }
        for (default, family) in [("default", "-4"), ("default", "-6")] {
            assert_eq!(next_hops(&scope, node, default, family), ["eth0", "eth1"], "{}", node.name);
        }
    }
    println!("converged {:?}", begun.elapsed());
    assert_graceful_restart(&routers, &mut birds);
    routers.stop();
    fs::remove_dir_all(&directory).unwrap();
}

fn start(scope: &Scope, node: Node, directory: &Path) -> Bird {
    Bird::start(node.name, &scope.netns(node.name), directory, &bird_config(node)).unwrap()
}

/// A dynamic neighbour that restarts gracefully keeps its routes at the router.
fn assert_graceful_restart(routers: &Routers, birds: &mut [Bird]) {
    birds[0].kill().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    for (tor, router) in &routers.tors {
        let Router::Frr(router) = router else { panic!("{} is FRR", tor.name) };
        let answer = router.json("show bgp ipv4 unicast 10.244.0.0/26 json").unwrap();
        let stale = answer["paths"][0]["stale"].as_bool();
        assert_eq!(stale, Some(true), "{}: {answer}", tor.name);
    }
}
