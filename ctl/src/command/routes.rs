//! `manxctl bgp routes`: what was received and what became of it.

use manx_crds::report::{BGPRouteReport, BgpdRequest, BgpdRoutes, RouteVerdict};

use crate::Global;
use crate::error::Failure;
use crate::fabric::{Daemon, Fabric, answered, missing_line};
use crate::table::{Align, Table};
use crate::words::natural;

pub(crate) async fn run(
    fabric: &Fabric,
    global: &Global,
    peer: Option<&str>,
    prefix: Option<&str>,
    why: bool,
) -> Result<bool, Failure> {
    let mut header = fabric.header("BGPRouteReport");
    let request = BgpdRequest::Routes { peer: peer.map(str::to_owned), prefix: prefix.map(str::to_owned) };
    let answers = fabric.ask_all::<BgpdRoutes>(Daemon::Bgpd, &serde_json::to_value(request)?).await;
    let mut routes: Vec<_> =
        answered(answers, &mut header).into_iter().flat_map(|(_, answer)| answer.routes).collect();
    routes.sort_by(|a, b| {
        natural(&a.node, &b.node)
            .then_with(|| natural(&a.prefix, &b.prefix))
            .then_with(|| b.best.cmp(&a.best))
            .then_with(|| (&a.from, a.path_id).cmp(&(&b.from, b.path_id)))
    });
    let report = BGPRouteReport { header, routes };
    if global.printed(&report)? {
        return Ok(report.header.complete);
    }
    let mut columns = vec![
        ("PREFIX", Align::Left),
        ("FROM", Align::Left),
        ("AS-PATH", Align::Left),
        ("NEXT-HOP", Align::Left),
        ("VERDICT", Align::Left),
    ];
    let identified = report.routes.iter().any(|route| route.path_id.is_some());
    if identified {
        columns.insert(2, ("PATH-ID", Align::Right));
    }
    let several = fabric.nodes.len() > 1;
    if several {
        columns.insert(0, ("NODE", Align::Left));
    }
    if why {
        columns.push(("WHY", Align::Left));
    }
    let mut table = Table::new(&columns);
    for route in &report.routes {
        let verdict = match route.verdict {
            RouteVerdict::Originated => "originated",
            RouteVerdict::Accepted => "accepted",
            RouteVerdict::Rejected => "rejected",
        };
        let mut cells = vec![
            route.prefix.clone(),
            route.from.clone().unwrap_or_default(),
            route.as_path.clone(),
            route.next_hop.clone().unwrap_or_default(),
            verdict.to_owned(),
        ];
        if identified {
            cells.insert(2, route.path_id.map(|id| id.to_string()).unwrap_or_default());
        }
        if several {
            cells.insert(0, route.node.clone());
        }
        if why {
            cells.push(route.why.clone());
        }
        table.row(cells);
    }
    print!("{}", table.render(!global.no_headers));
    if let Some(line) = missing_line(&report.header, fabric.nodes.len()) {
        println!("{line}");
    }
    Ok(report.header.complete)
}
