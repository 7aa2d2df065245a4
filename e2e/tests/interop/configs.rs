//! The configuration of each peer for a setup.

use std::fmt::Write as _;

use crate::rig::{THIRD_AT_PEER, THIRD_LINKS};
use crate::setup::{Feature, LINK_LOCAL, RESTART_TIME, Setup, THEIRS};

pub(crate) fn frr(setup: &Setup) -> String {
    let (address, says) = (setup.manx_address(), &setup.says);
    let line = |text: String| format!(" neighbor {address} {text}\n");
    let mut config = format!(
        "frr defaults datacenter\nhostname peer\n{}{}route-map OUT permit 10\n set community 65001:77\n \
         set large-community 65001:7:7\n{}exit\nrouter bgp {}\n bgp router-id 10.9.0.1\n no bgp network import-check\n \
         no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n{}",
        if setup.has(Feature::Verbose) { "log stdout debugging\ndebug bgp neighbor-events\n" } else { "" },
        if setup.has(Feature::Bfd) {
            "bfd\n profile fast\n  receive-interval 300\n  transmit-interval 300\n  detect-multiplier 5\n exit\nexit\n"
        } else {
            ""
        },
        says.export,
        setup.asn,
        says.global,
    );
    let restart = if setup.has(Feature::GracefulRestart) { "" } else { "-disable" };
    writeln!(config, " bgp graceful-restart{restart}").unwrap();
    if setup.has(Feature::LongLived) {
        writeln!(
            config,
            " bgp graceful-restart restart-time {RESTART_TIME}\n bgp long-lived-graceful-restart stale-time 60"
        )
        .unwrap();
    }
    let notification = if setup.has(Feature::RestartNotification) { "" } else { "no " };
    writeln!(config, " {notification}bgp graceful-restart notification").unwrap();
    config += &line(match setup.has(Feature::Unnumbered) {
        true => "interface remote-as external".to_owned(),
        false => format!("remote-as {}", setup.expects_manx),
    });
    config += &line("timers connect 1".to_owned());
    if let Some(password) = setup.password {
        config += &line(format!("password {password}"));
    }
    for (feature, text) in [
        (Feature::NoCapabilities, "dont-capability-negotiate"),
        (Feature::Passive, "passive"),
        (Feature::Gtsm, "ttl-security hops 1"),
        (Feature::Bfd, "bfd profile fast"),
    ] {
        if setup.has(feature) {
            config += &line(text.to_owned());
        }
    }
    if setup.has(Feature::Multihop) {
        config += &line("ebgp-multihop 2".to_owned());
        config += &line("update-source 10.99.0.1".to_owned());
    }
    config += says.neighbor;
    let mut third = String::new();
    if let Some(told) = &setup.third {
        writeln!(config, " neighbor {THIRD_AT_PEER} remote-as {}\n{}", told.to_peer().asn, says.third)
            .unwrap();
        third = format!("  neighbor {THIRD_AT_PEER} activate\n");
    }
    let families = [
        ("ipv4", THEIRS[0], format!("  network {}\n{third}", setup.more)),
        ("ipv6", THEIRS[1], String::new()),
    ];
    for (family, prefix, more) in families {
        config += &format!(
            " address-family {family} unicast\n  network {prefix}\n{more}  neighbor {address} activate\n  \
             neighbor {address} route-map OUT out\n{} exit-address-family\n",
            says.family
        );
    }
    config + "exit\n"
}

pub(crate) fn bird(setup: &Setup) -> String {
    let switch = |feature| if setup.has(feature) { "on" } else { "off" };
    let ends = match setup.has(Feature::Unnumbered) {
        true => format!(
            "local as {}; neighbor range fe80::/10 as {}; interface \"eth0\"; dynamic name \"node\";",
            setup.asn, setup.expects_manx
        ),
        false => format!(
            "local {} as {}; neighbor {} as {};",
            setup.peer_address(),
            setup.asn,
            setup.manx_address(),
            setup.expects_manx
        ),
    };
    let mut one = format!(
        "{ends} hold time {}; connect retry time 1; connect delay time 1; error wait time 1, 2;\n \
         graceful restart {}; passive {}; enable extended messages {};\n",
        hold(setup),
        switch(Feature::GracefulRestart),
        switch(Feature::Passive),
        switch(Feature::ExtendedMessages)
    );
    if let Some(password) = setup.password {
        writeln!(one, "password \"{password}\";").unwrap();
    }
    one += &match setup.has(Feature::LongLived) {
        true => format!(
            "graceful restart time {RESTART_TIME}; long lived graceful restart on; long lived stale time 60;"
        ),
        false => "long lived graceful restart off;".to_owned(),
    };
    for (feature, text) in [
        (Feature::NoCapabilities, "capabilities off;"),
        (Feature::OldAs, "enable as4 off;"),
        (Feature::OtherPort, "local port 1790;"),
        (Feature::Gtsm, "ttl security on;"),
        (Feature::Multihop, "multihop 2;"),
        (Feature::Bfd, "bfd on;"),
        (Feature::Verbose, "debug { states, packets };"),
    ] {
        if setup.has(feature) {
            one += text;
        }
    }
    let says = &setup.says;
    let export = format!(
        "{} import all; export filter {{ if source != RTS_STATIC && source != RTS_BGP then reject; \
         if source = RTS_STATIC then {{ bgp_community.add((65001,77)); bgp_large_community.add((65001,7,7)); {} }} \
         accept; }}; next hop self;",
        says.family, says.export
    );
    let bfd = match setup.has(Feature::Bfd) {
        true => {
            "protocol bfd { interface \"*\" { interval 300 ms; multiplier 5; }; multihop { interval 300 ms; multiplier 5; }; }\n"
        }
        false => "",
    };
    // It says that it is there, and sends packets back itself.
    let unnumbered = match setup.has(Feature::Unnumbered) {
        true => {
            "protocol radv { interface \"eth0\" { max ra interval 10; default lifetime 0; }; }\n\
             protocol kernel { ipv4 { export all; }; }\nprotocol kernel { ipv6 { export all; }; }\n"
        }
        false => "",
    };
    let over_ipv6 = if setup.has(Feature::ExtendedNextHop) { "extended next hop on;" } else { "" };
    let third = setup.third.as_ref().map_or_else(String::new, |told| {
        format!(
            "protocol static {{ ipv4; route {THIRD_LINKS} via 10.9.0.2; }}\nprotocol bgp third {{ local 10.97.0.1 as {}; \
             neighbor {THIRD_AT_PEER} as {}; passive on; {} ipv4 {{ import all; export all; }}; }}\n",
            setup.asn, told.to_peer().asn, says.third
        )
    });
    format!(
        "log stderr all;\nrouter id 10.9.0.1;\n{}protocol device {{ scan time 1; }}\nprotocol direct {{ ipv4; ipv6; }}\n{bfd}{unnumbered}\
         protocol static {{ ipv4; route {} blackhole; route {} blackhole; }}\nprotocol static {{ ipv6; route {} blackhole; }}\n\
         protocol bgp node {{ {one} {} ipv4 {{ {export} {over_ipv6} }}; ipv6 {{ {export} }};\n}}\n{third}",
        says.global, THEIRS[0], setup.more, THEIRS[1], says.neighbor
    )
}

pub(crate) fn gobgp(setup: &Setup) -> String {
    let says = &setup.says;
    let mut config = format!(
        "[global.config]\n  as = {}\n  router-id = \"10.9.0.1\"\n{}{}[[neighbors]]\n  [neighbors.config]\n",
        setup.asn,
        if setup.has(Feature::OtherPort) { "  port = 1790\n" } else { "" },
        says.global
    );
    config += &match setup.has(Feature::Unnumbered) {
        true => "    neighbor-interface = \"eth0\"\n".to_owned(),
        false => format!(
            "    neighbor-address = \"{}\"\n    peer-as = {}\n",
            setup.manx_address(),
            setup.expects_manx
        ),
    };
    if let Some(password) = setup.password {
        writeln!(config, "    auth-password = \"{password}\"").unwrap();
    }
    writeln!(
        config,
        "  [neighbors.timers.config]\n    connect-retry = 1\n    hold-time = {}\n    keepalive-interval = {}",
        hold(setup),
        hold(setup) / 3
    )
    .unwrap();
    let passive = setup.has(Feature::Passive);
    writeln!(config, "  [neighbors.transport.config]\n    passive-mode = {passive}").unwrap();
    if !setup.has(Feature::Unnumbered) {
        writeln!(config, "    local-address = \"{}\"", setup.peer_address()).unwrap();
    }
    if setup.has(Feature::Multihop) {
        config += "  [neighbors.ebgp-multihop.config]\n    enabled = true\n    multihop-ttl = 2\n";
    }
    if setup.has(Feature::Gtsm) {
        config += "  [neighbors.ttl-security.config]\n    enabled = true\n    ttl-min = 255\n";
    }
    config += says.neighbor;
    let restart = setup.has(Feature::GracefulRestart);
    let (long, notification) = (setup.has(Feature::LongLived), setup.has(Feature::RestartNotification));
    if restart {
        let time = if long { RESTART_TIME } else { 30 };
        writeln!(
            config,
            "  [neighbors.graceful-restart.config]\n    enabled = true\n    restart-time = {time}\n    \
             notification-enabled = {notification}\n    long-lived-enabled = {long}"
        )
        .unwrap();
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
        if long {
            config += "    [neighbors.afi-safis.long-lived-graceful-restart.config]\n      enabled = true\n      \
                       restart-time = 60\n";
        }
        config += says.family;
    }
    if let Some(told) = &setup.third {
        writeln!(
            config,
            "[[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{THIRD_AT_PEER}\"\n    peer-as = {}\n  \
             [neighbors.transport.config]\n    passive-mode = true\n{}",
            told.to_peer().asn, says.third
        )
        .unwrap();
    }
    config
}

pub(crate) fn openbgpd(setup: &Setup) -> String {
    let says = &setup.says;
    let mut one = format!(
        " remote-as {}\n holdtime {}\n announce IPv4 unicast\n announce IPv6 unicast\n announce restart {}\n",
        setup.expects_manx,
        hold(setup).max(3),
        if setup.has(Feature::GracefulRestart) { "yes" } else { "no" }
    );
    // It looks for nobody on an interface, and is told the node's link-local address.
    let (neighbor, own_next_hop) = match setup.has(Feature::Unnumbered) {
        true => (format!("{}%eth0", LINK_LOCAL[0]), ""),
        false => {
            writeln!(one, " local-address {}", setup.peer_address()).unwrap();
            (setup.manx_address().to_owned(), "nexthop fd09::1")
        }
    };
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
    one += says.neighbor;
    let third = setup.third.as_ref().map_or_else(String::new, |told| {
        format!(
            "neighbor {THIRD_AT_PEER} {{\n remote-as {}\n passive\n{}}}\n",
            told.to_peer().asn,
            says.third
        )
    });
    let at = if setup.has(Feature::OtherPort) { " port 1790" } else { "" };
    let set = format!("set {{ community 65001:77 large-community 65001:7:7 {}", says.export);
    format!(
        "AS {}\nrouter-id 10.9.0.1\nfib-update no\nlisten on 0.0.0.0{at}\nlisten on ::{at}\nconnect-retry 1\n\
         network {} {set} }}\nnetwork {} {set} {own_next_hop} }}\nnetwork {}\nneighbor {neighbor} {{\n{one}}}\n{third}allow from any\nallow to any\n{}",
        setup.asn, THEIRS[0], THEIRS[1], setup.more, says.global
    )
}

/// The hold time that the peer offers, in seconds: that of bgpd.
fn hold(setup: &Setup) -> u64 {
    setup.hold.trim_end_matches('s').parse().unwrap()
}
