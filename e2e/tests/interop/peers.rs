//! The four peers: their configuration for a setup, and what they say of the session and of a route.

use std::fmt::Write as _;
use std::path::Path;

use e2e::bird::Bird;
use e2e::frr::Frr;
use e2e::gobgp::GoBgp;
use e2e::netns::Netns;
use e2e::openbgpd::OpenBgpd;
use serde_json::Value;

use crate::setup::{Feature, Kind, MORE, Setup, THEIRS};

pub(crate) enum Peer {
    Frr(Frr),
    Bird(Bird),
    GoBgp(GoBgp),
    OpenBgpd(OpenBgpd),
}

impl Peer {
    pub(crate) fn start(
        kind: Kind,
        name: &str,
        netns: &Netns,
        directory: &Path,
        setup: &Setup,
    ) -> anyhow::Result<Self> {
        Ok(match kind {
            Kind::Frr => Self::Frr(Frr::start(name, netns, directory, &frr(setup))?),
            Kind::Bird => Self::Bird(Bird::start("peer", netns, directory, &bird(setup))?),
            Kind::GoBgp => {
                let router = GoBgp::start("peer", netns, directory, &gobgp(setup))?;
                let attributes = "community 65001:77 large-community 65001:7:7";
                router.ask(&format!("global rib add {} {attributes} -a ipv4", THEIRS[0]))?;
                router.ask(&format!("global rib add {MORE} -a ipv4"))?;
                router.ask(&format!("global rib add {} nexthop fd09::1 {attributes} -a ipv6", THEIRS[1]))?;
                Self::GoBgp(router)
            }
            Kind::OpenBgpd => Self::OpenBgpd(OpenBgpd::start("peer", netns, directory, &openbgpd(setup))?),
        })
    }

    pub(crate) fn established(&self, setup: &Setup) -> bool {
        let address = setup.manx_address();
        match self {
            Self::Frr(router) => router
                .json(&format!("show bgp neighbors {address} json"))
                .is_ok_and(|answer| answer[address]["bgpState"] == "Established"),
            Self::Bird(bird) => {
                bird.ask("show protocols node").is_ok_and(|text| text.contains("Established"))
            }
            Self::GoBgp(router) => router
                .ask(&format!("neighbor {address}"))
                .is_ok_and(|text| text.to_uppercase().contains("BGP STATE = ESTABLISHED")),
            Self::OpenBgpd(router) => router
                .json("show neighbor")
                .is_ok_and(|answer| answer["neighbors"][0]["state"] == "Established"),
        }
    }

    /// All that the peer says of its path to a prefix; empty if it has none.
    pub(crate) fn route(&self, prefix: &str) -> String {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let text = match self {
            Self::Frr(router) => router
                .json(&format!("show bgp {family} unicast {prefix} json"))
                .ok()
                .filter(|answer| answer["paths"].as_array().is_some_and(|paths| !paths.is_empty()))
                .map(|answer| answer.to_string()),
            Self::Bird(bird) => bird.ask(&format!("show route {prefix} protocol node all")).ok(),
            Self::GoBgp(router) => router.ask(&format!("global rib {prefix} -a {family}")).ok(),
            Self::OpenBgpd(router) => router.ask(&format!("show rib detail {prefix}")).ok(),
        };
        text.filter(|text| text.contains(prefix)).unwrap_or_default()
    }

    /// Asks for everything again (RFC 2918).
    pub(crate) fn refresh(&self, setup: &Setup) -> anyhow::Result<()> {
        let address = setup.manx_address();
        match self {
            Self::Frr(router) => router.vtysh(&[&format!("clear bgp ipv4 unicast {address} soft in")]),
            Self::Bird(bird) => bird.ask("reload in node"),
            Self::GoBgp(router) => router.ask(&format!("neighbor {address} softresetin")),
            Self::OpenBgpd(router) => router.ask(&format!("neighbor {address} refresh")),
        }
        .map(drop)
    }

    /// UPDATEs that came in, or routes in them.
    pub(crate) fn updates(&self, setup: &Setup) -> u64 {
        let address = setup.manx_address();
        let count = |value: &Value| value.as_u64();
        match self {
            Self::Frr(router) => router
                .json(&format!("show bgp neighbors {address} json"))
                .ok()
                .and_then(|answer| count(&answer[address]["messageStats"]["updatesRecv"])),
            Self::Bird(bird) => bird.ask("show protocols all node").ok().map(|text| {
                text.lines()
                    .filter(|line| line.trim_start().starts_with("Import updates:"))
                    .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
                    .sum()
            }),
            Self::GoBgp(router) => router.ask(&format!("neighbor {address}")).ok().and_then(|text| {
                // Sent, then received.
                let line = text.lines().find(|line| line.trim_start().starts_with("Updates:"))?;
                line.split_whitespace().nth(2)?.parse().ok()
            }),
            Self::OpenBgpd(router) => router
                .json("show neighbor")
                .ok()
                .and_then(|answer| count(&answer["neighbors"][0]["stats"]["message"]["received"]["updates"])),
        }
        .unwrap_or_default()
    }

    /// Everything that it says of its neighbour, for a person or to look for a word.
    pub(crate) fn neighbour(&self, setup: &Setup) -> String {
        let address = setup.manx_address();
        match self {
            Self::Frr(router) => router.vtysh(&[&format!("show bgp neighbors {address}")]),
            Self::Bird(bird) => bird.ask("show protocols all node"),
            Self::GoBgp(router) => router.ask(&format!("neighbor {address}")),
            Self::OpenBgpd(router) => router.ask("show neighbor"),
        }
        .unwrap_or_else(|error| format!("{error:#}"))
    }
}

fn frr(setup: &Setup) -> String {
    let address = setup.manx_address();
    let line = |text: String| format!(" neighbor {address} {text}\n");
    let mut config = format!(
        "frr defaults datacenter\nhostname peer\nroute-map OUT permit 10\n set community 65001:77\n \
         set large-community 65001:7:7\nexit\nrouter bgp {}\n bgp router-id 10.9.0.1\n \
         no bgp network import-check\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n",
        setup.asn
    );
    let restart = if setup.has(Feature::GracefulRestart) { "" } else { "-disable" };
    writeln!(config, " bgp graceful-restart{restart}").unwrap();
    config += &line(format!("remote-as {}", setup.expects_manx));
    config += &line("timers connect 1".to_owned());
    if let Some(password) = setup.password {
        config += &line(format!("password {password}"));
    }
    for (feature, text) in [
        (Feature::NoCapabilities, "dont-capability-negotiate"),
        (Feature::Passive, "passive"),
        (Feature::Gtsm, "ttl-security hops 1"),
        (Feature::ExtendedMessages, "capability extended-message"),
    ] {
        if setup.has(feature) {
            config += &line(text.to_owned());
        }
    }
    if setup.has(Feature::Multihop) {
        config += &line("ebgp-multihop 2".to_owned());
        config += &line("update-source 10.99.0.1".to_owned());
    }
    for (family, prefix, more) in
        [("ipv4", THEIRS[0], format!("  network {MORE}\n")), ("ipv6", THEIRS[1], String::new())]
    {
        config += &format!(
            " address-family {family} unicast\n  network {prefix}\n{more}  neighbor {address} activate\n  \
             neighbor {address} route-map OUT out\n exit-address-family\n"
        );
    }
    config + "exit\n"
}

fn bird(setup: &Setup) -> String {
    let switch = |feature| if setup.has(feature) { "on" } else { "off" };
    let mut one = format!(
        "local {} as {}; neighbor {} as {}; hold time 9; connect retry time 1; connect delay time 1; error wait time 1, 2;\n \
         graceful restart {}; long lived graceful restart off; passive {}; enable extended messages {};\n",
        setup.peer_address(),
        setup.asn,
        setup.manx_address(),
        setup.expects_manx,
        if setup.has(Feature::GracefulRestart) { "on" } else { "off" },
        switch(Feature::Passive),
        switch(Feature::ExtendedMessages)
    );
    if let Some(password) = setup.password {
        writeln!(one, "password \"{password}\";").unwrap();
    }
    for (feature, text) in [
        (Feature::NoCapabilities, "capabilities off;"),
        (Feature::OldAs, "enable as4 off;"),
        (Feature::Gtsm, "ttl security on;"),
        (Feature::Multihop, "multihop 2;"),
    ] {
        if setup.has(feature) {
            one += text;
        }
    }
    let export = "import all; export filter { if source != RTS_STATIC then reject; bgp_community.add((65001,77)); \
                  bgp_large_community.add((65001,7,7)); accept; }; next hop self;";
    format!(
        "router id 10.9.0.1;\nprotocol device {{ scan time 1; }}\nprotocol direct {{ ipv4; ipv6; }}\n\
         protocol static {{ ipv4; route {} blackhole; route {MORE} blackhole; }}\nprotocol static {{ ipv6; route {} blackhole; }}\n\
         protocol bgp node {{ {one} ipv4 {{ {export} }}; ipv6 {{ {export} }};\n}}\n",
        THEIRS[0], THEIRS[1]
    )
}

fn gobgp(setup: &Setup) -> String {
    let mut config = format!(
        "[global.config]\n  as = {}\n  router-id = \"10.9.0.1\"\n[[neighbors]]\n  [neighbors.config]\n    \
         neighbor-address = \"{}\"\n    peer-as = {}\n",
        setup.asn,
        setup.manx_address(),
        setup.expects_manx
    );
    if let Some(password) = setup.password {
        writeln!(config, "    auth-password = \"{password}\"").unwrap();
    }
    config +=
        "  [neighbors.timers.config]\n    connect-retry = 1\n    hold-time = 9\n    keepalive-interval = 3\n";
    let passive = setup.has(Feature::Passive);
    writeln!(
        config,
        "  [neighbors.transport.config]\n    passive-mode = {passive}\n    local-address = \"{}\"",
        setup.peer_address()
    )
    .unwrap();
    if setup.has(Feature::Multihop) {
        config += "  [neighbors.ebgp-multihop.config]\n    enabled = true\n    multihop-ttl = 2\n";
    }
    if setup.has(Feature::Gtsm) {
        config += "  [neighbors.ttl-security.config]\n    enabled = true\n    ttl-min = 255\n";
    }
    let restart = setup.has(Feature::GracefulRestart);
    if restart {
        config += "  [neighbors.graceful-restart.config]\n    enabled = true\n    restart-time = 30\n";
    }
    for family in ["ipv4-unicast", "ipv6-unicast"] {
        writeln!(
            config,
            "  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = \"{family}\""
        )
        .unwrap();
        if restart {
            config += "    [neighbors.afi-safis.mp-graceful-restart.config]\n      enabled = true\n";
        }
    }
    config
}

fn openbgpd(setup: &Setup) -> String {
    let mut one = format!(
        " remote-as {}\n holdtime 9\n announce IPv4 unicast\n announce IPv6 unicast\n local-address {}\n announce restart {}\n",
        setup.expects_manx,
        setup.peer_address(),
        if setup.has(Feature::GracefulRestart) { "yes" } else { "no" }
    );
    if let Some(password) = setup.password {
        writeln!(one, " tcp md5sig password {password}").unwrap();
    }
    for (feature, text) in [
        (Feature::NoCapabilities, " announce capabilities no\n"),
        (Feature::OldAs, " announce as-4byte no\n"),
        (Feature::Passive, " passive\n"),
        (Feature::Gtsm, " ttl-security yes\n"),
        (Feature::Multihop, " multihop 2\n"),
    ] {
        if setup.has(feature) {
            one += text;
        }
    }
    if !setup.has(Feature::NoCapabilities) {
        one += " announce enhanced refresh yes\n";
    }
    let set = "set { community 65001:77 large-community 65001:7:7 }";
    format!(
        "AS {}\nrouter-id 10.9.0.1\nfib-update no\nlisten on 0.0.0.0\nlisten on ::\nconnect-retry 1\n\
         network {} {set}\nnetwork {} {set}\nnetwork {MORE}\nneighbor {} {{\n{one}}}\nallow from any\nallow to any\n",
        setup.asn,
        THEIRS[0],
        THEIRS[1],
        setup.manx_address()
    )
}
