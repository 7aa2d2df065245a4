//! `manxctl ipam show`: pools and how full they are, from the pools and blocks of the datastore.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;
use manx_crds::acceptance;
use manx_crds::report::{IPAMReport, PoolRow};
use manx_crds::v1alpha1::{IPBlock, IPPool};
use manx_ipam::pool::{Pool, Pools};

use crate::Global;
use crate::error::Failure;
use crate::fabric::Fabric;
use crate::table::{Align, Table};
use crate::words::thousands;

pub(crate) async fn report(fabric: &Fabric) -> Result<IPAMReport, Failure> {
    let header = fabric.header("IPAMReport");
    let objects = fabric.list::<IPPool>().await?;
    let mut blocks: BTreeMap<String, Vec<IPBlock>> = BTreeMap::new();
    for block in fabric.list::<IPBlock>().await? {
        blocks.entry(block.spec.pool.clone()).or_default().push(block);
    }
    let known = Pools::new(objects.iter().filter_map(|object| Pool::try_from(object).ok()));
    let mut pools = Vec::new();
    for object in &objects {
        let name = object.name_any();
        let mine = blocks.remove(&name).unwrap_or_default();
        let used: u64 = mine.iter().map(|block| block.spec.allocations.len() as u64).sum();
        let nodes: BTreeSet<&String> =
            mine.iter().filter_map(|block| block.spec.node_name.as_ref()).collect();
        let pool = known.get(&name);
        let free = pool.map_or(0, |pool| pool.block_count().saturating_sub(mine.len() as u128));
        let size = size(object);
        pools.push(PoolRow {
            cidr: object.spec.cidr.to_string(),
            used,
            state: state(object, pool, &known, used, size),
            size: size.map_or_else(|| "2^128".to_owned(), |size| size.to_string()),
            free_blocks: free.to_string(),
            blocks: mine.len() as u64,
            nodes: nodes.len() as u64,
            name,
        });
    }
    pools.sort_by(|a, b| {
        (a.state == "Available").cmp(&(b.state == "Available")).then_with(|| a.name.cmp(&b.name))
    });
    Ok(IPAMReport { header, pools })
}

/// How many addresses the pool has, the excluded ones left out.
fn size(pool: &IPPool) -> Option<u128> {
    let of = |net: ipnet::IpNet| 1_u128.checked_shl(u32::from(net.max_prefix_len() - net.prefix_len()));
    let all = of(pool.spec.cidr.net())?;
    let excluded: u128 = pool.spec.excluded.iter().filter_map(|cidr| of(cidr.net())).sum();
    Some(all.saturating_sub(excluded))
}

fn state(object: &IPPool, pool: Option<&Pool>, pools: &Pools, used: u64, size: Option<u128>) -> String {
    if acceptance::ip_pool(object).is_err() {
        return "UnknownValue".to_owned();
    }
    let Some(pool) = pool else { return "UnknownValue".to_owned() };
    if pools.overlaps(pool).is_some() {
        return "Overlaps".to_owned();
    }
    if pool.terminating {
        return "Terminating".to_owned();
    }
    let used = u128::from(used);
    match size {
        Some(size) if used >= size => "Exhausted",
        Some(size) if used.saturating_mul(100) >= size.saturating_mul(80) => "NearlyExhausted",
        Some(_) | None => "Available",
    }
    .to_owned()
}

pub(crate) async fn run(fabric: &Fabric, global: &Global) -> Result<bool, Failure> {
    let report = report(fabric).await?;
    if global.printed(&report)? {
        return Ok(true);
    }
    let mut table = Table::new(&[
        ("POOL", Align::Left),
        ("CIDR", Align::Left),
        ("USED", Align::Right),
        ("OF", Align::Right),
        ("FREE-BLOCKS", Align::Right),
        ("NODES", Align::Right),
        ("STATE", Align::Left),
    ]);
    for pool in &report.pools {
        table.row(vec![
            pool.name.clone(),
            pool.cidr.clone(),
            thousands(pool.used),
            thousands(&pool.size),
            thousands(&pool.free_blocks),
            pool.nodes.to_string(),
            pool.state.clone(),
        ]);
    }
    print!("{}", table.render(!global.no_headers));
    Ok(true)
}
