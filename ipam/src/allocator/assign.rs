//! Addresses for a pod: all families or none.
//!
//! A request looks at every family before it takes anything. If one has to wait for a block, nothing is taken and
//! it looks again when something has changed; so there is nothing to roll back, and no address is held by a pod
//! that never comes.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Allocator, AssignError, AssignRequest, Now, Output, RequestId, Waiting};
use crate::block::{Slot, Taken};
use crate::journal::{Address, PodRecord, Record, Step};
use crate::owner::Owner;
use crate::pool::{Asking, Family, NoAddress, Pool, Pools, Refusal, Wanted};

/// What one family needs.
enum Plan {
    /// Any free address of this block.
    Any(IpNet),
    Exactly(IpNet, IpAddr),
    /// A block is on its way; this is the error if it does not come.
    Wait(NoAddress),
    /// A claim must begin.
    Claim {
        cidr: IpNet,
        pool: String,
        otherwise: NoAddress,
    },
}

/// What became of one attempt.
enum Attempt {
    Given(Vec<Address>),
    Wait(AssignError),
    Failed(AssignError),
}

impl Allocator {
    pub(super) fn serve_waiting(&mut self, now: Now) {
        for waiting in std::mem::take(&mut self.waiting) {
            let attachment = waiting.request.attachment();
            let attempt = match self.known.pods.get(&attachment) {
                // The same sandbox asks again: the same answer, and the journal has it already.
                Some(pod) => Attempt::Given(pod.addresses.clone()),
                None => self.attempt(&waiting.request, now),
            };
            let Waiting { id, deadline, .. } = waiting;
            match attempt {
                Attempt::Given(addresses) => self.outputs.push_back(Output::Assigned { id, addresses }),
                Attempt::Failed(error) => self.outputs.push_back(Output::Failed { id, error }),
                Attempt::Wait(error) if deadline <= now.monotonic => {
                    self.outputs.push_back(Output::Failed { id, error });
                }
                Attempt::Wait(_) => self.waiting.push_back(waiting),
            }
        }
    }

    /// A DEL overtook them.
    pub(super) fn cancel(&mut self, attachment: &crate::journal::Attachment) {
        let cancelled: Vec<RequestId> =
            self.waiting.iter().filter(|w| w.request.attachment() == *attachment).map(|w| w.id).collect();
        self.waiting.retain(|waiting| waiting.request.attachment() != *attachment);
        for id in cancelled {
            self.outputs.push_back(Output::Failed { id, error: AssignError::Cancelled });
        }
    }

    fn attempt(&mut self, request: &AssignRequest, now: Now) -> Attempt {
        let wanted = match Wanted::parse(&request.pod_annotations, &request.namespace_annotations) {
            Ok(wanted) => wanted,
            Err(error) => return Attempt::Failed(error.into()),
        };
        if !self.listed && !self.remembered {
            return Attempt::Wait(AssignError::NotInSync { missing: "its IPBlocks" });
        }
        let Some(pools) = self.pools.take() else {
            return Attempt::Wait(AssignError::NotInSync { missing: "the IPPools" });
        };
        let attempt = self.attempt_from(&pools, request, &wanted, now);
        self.pools = Some(pools);
        attempt
    }

    fn attempt_from(&mut self, pools: &Pools, request: &AssignRequest, wanted: &Wanted, now: Now) -> Attempt {
        if let Err(error) = wanted.check(pools) {
            return Attempt::Failed(error.into());
        }
        let node_labels = self.node_labels.clone();
        let asking = Asking {
            node_labels: Some(&node_labels),
            namespace_labels: Some(&request.namespace_labels),
            wanted: Some(wanted),
        };
        let mut plans = Vec::new();
        for family in families(pools, &asking, wanted) {
            let plan = match wanted.addresses.get(&family) {
                Some(ip) => self.plan_exactly(pools, *ip, request, wanted),
                None => self.plan_any(pools, family, &asking, request),
            };
            match plan {
                Ok(plan) => plans.push(plan),
                Err(error) => return Attempt::Failed(error.into()),
            }
        }
        self.carry_out(pools, plans, request, now)
    }

    /// Takes everything, or nothing and says what is missing.
    fn carry_out(&mut self, pools: &Pools, plans: Vec<Plan>, request: &AssignRequest, now: Now) -> Attempt {
        let mut missing = None;
        for plan in &plans {
            match plan {
                Plan::Any(_) | Plan::Exactly(..) => {}
                Plan::Wait(error) => missing = Some(error.clone()),
                Plan::Claim { cidr, pool, otherwise } => {
                    self.claim(*cidr, pool, now);
                    missing = Some(otherwise.clone());
                }
            }
        }
        if let Some(error) = missing {
            return Attempt::Wait(error.into());
        }
        let record = PodRecord {
            container_id: request.container_id.clone(),
            interface: request.interface.clone(),
            namespace: request.namespace.clone(),
            name: request.name.clone(),
            uid: request.uid.clone(),
            addresses: Vec::new(),
            step: Step::Assigned,
            host_interface: None,
            mac: None,
            host_mac: None,
            network: request.network.clone(),
        };
        let owner = Owner::Pod(record.owner());
        let addresses: Vec<Address> =
            plans.iter().filter_map(|plan| self.take(pools, plan, &owner, now)).collect();
        self.record(PodRecord { addresses: addresses.clone(), ..record });
        Attempt::Given(addresses)
    }

    fn record(&mut self, record: PodRecord) {
        self.known.apply(Record::Pod(record.clone()));
        #[cfg(test)]
        if self.fault == Some(super::Fault::NoRecord) {
            return;
        }
        self.outputs.push_back(Output::Journal(Record::Pod(record)));
    }

    fn take(&mut self, pools: &Pools, plan: &Plan, owner: &Owner, now: Now) -> Option<Address> {
        let (cidr, exactly) = match plan {
            Plan::Any(cidr) => (cidr, None),
            Plan::Exactly(cidr, ip) => (cidr, Some(*ip)),
            Plan::Wait(_) | Plan::Claim { .. } => return None,
        };
        let held = self.held.get_mut(cidr)?;
        let excluded = pools.get(held.block.pool()).map_or(&[] as &[IpNet], |pool| &pool.excluded);
        let ip = match exactly {
            None => held.block.assign(owner.clone(), excluded)?,
            Some(ip) => held.block.assign_exactly(ip, owner.clone()).ok().map(|()| ip)?,
        };
        held.surplus_since = None;
        held.touch(now);
        Some(Address { ip, block: *cidr, pool: held.block.pool().to_owned() })
    }

    fn plan_any(
        &self,
        pools: &Pools,
        family: Family,
        asking: &Asking<'_>,
        request: &AssignRequest,
    ) -> Result<Plan, NoAddress> {
        let (serving, mut refused) = pools.serving(family, asking);
        // A block that is held, first of all: no round trip to the store.
        if let Some(cidr) = serving.iter().find_map(|pool| self.free_block(pool)) {
            return Ok(Plan::Any(cidr));
        }
        let mut reasons: Vec<(String, Refusal)> = Vec::new();
        let mut step = None;
        for pool in serving {
            match self.next_step(pool) {
                Ok(next) => {
                    reasons.push((pool.name.clone(), Refusal::Store { text: self.trouble(pool) }));
                    step = Some((next, pool.name.clone()));
                    break;
                }
                Err(refusal) => reasons.push((pool.name.clone(), refusal)),
            }
        }
        reasons.append(&mut refused);
        let error = self.no_address(family, request, reasons);
        match step {
            Some((Some(cidr), pool)) => Ok(Plan::Claim { cidr, pool, otherwise: error }),
            Some((None, _)) => Ok(Plan::Wait(error)),
            None => Err(error),
        }
    }

    /// A block of the pool with a free address; the used ones first, so that the spare ones stay spare.
    fn free_block(&self, pool: &Pool) -> Option<IpNet> {
        let free = |empty: bool| {
            self.of_pool(&pool.name)
                .filter(move |held| held.usable() && held.block.is_empty() == empty)
                .find(|held| held.block.has_free(&pool.excluded))
                .map(|held| held.block.cidr())
        };
        free(false).or_else(|| free(true))
    }

    /// How the pool comes to another block: by the claim of this one, or (`None`) by waiting for what is on its way.
    fn next_step(&self, pool: &Pool) -> Result<Option<IpNet>, Refusal> {
        let coming = self
            .of_pool(&pool.name)
            .any(|held| !held.usable() && !held.leaving && held.block.has_free(&pool.excluded));
        if coming {
            return Ok(None);
        }
        if let Some(refused) = self.refused.get(&pool.name) {
            return Err(Refusal::Store { text: refused.text.clone() });
        }
        match self.next_candidate(pool) {
            Some(cidr) => Ok(Some(cidr)),
            None => Err(pool.exhausted()),
        }
    }

    fn plan_exactly(
        &self,
        pools: &Pools,
        ip: IpAddr,
        request: &AssignRequest,
        wanted: &Wanted,
    ) -> Result<Plan, NoAddress> {
        let refuse = |name: &str, refusal: Refusal| {
            Err(self.no_address(Family::of(ip), request, vec![(name.to_owned(), refusal)]))
        };
        let holding = pools.holding(IpNet::from(ip)).and_then(|pool| Some((pool, pool.block_of(ip)?)));
        let Some((pool, cidr)) = holding else {
            return refuse("IPPools", Refusal::Taken { taken: format!("{ip} lies in none of them") });
        };
        if let Err(refusal) = pools.open(pool) {
            return refuse(&pool.name, refusal);
        }
        if wanted.pools.as_ref().is_some_and(|named| !named.contains(&pool.name)) {
            return refuse(&pool.name, Refusal::NotNamed);
        }
        let wait = |text: String| {
            self.no_address(Family::of(ip), request, vec![(pool.name.clone(), Refusal::Store { text })])
        };
        if let Some(held) = self.held.get(&cidr) {
            return match held.block.slot(ip) {
                Some(Slot::Owned(held)) => {
                    let taken = Taken::Owned { ip, owner: Box::new(held.owner.clone()) }.to_string();
                    refuse(&pool.name, Refusal::Taken { taken })
                }
                Some(Slot::Cooling { .. }) | None if held.usable() => Ok(Plan::Exactly(cidr, ip)),
                Some(Slot::Cooling { .. }) | None => Ok(Plan::Wait(wait(self.trouble(pool)))),
            };
        }
        if let Some(taken) = self.taken.get(&cidr) {
            return refuse(&pool.name, Refusal::HeldByOther { cidr, node: taken.node.clone() });
        }
        if let Some(refused) = self.refused.get(&pool.name) {
            return refuse(&pool.name, Refusal::Store { text: refused.text.clone() });
        }
        Ok(Plan::Claim { cidr, pool: pool.name.clone(), otherwise: wait(self.trouble(pool)) })
    }

    /// Why the pool's next block is not there yet.
    fn trouble(&self, pool: &Pool) -> String {
        let trouble = self.of_pool(&pool.name).find_map(|held| held.trouble.clone());
        trouble.unwrap_or_else(|| "the datastore has not answered yet".to_owned())
    }

    fn no_address(
        &self,
        family: Family,
        request: &AssignRequest,
        pools: Vec<(String, Refusal)>,
    ) -> NoAddress {
        NoAddress {
            family,
            namespace: request.namespace.clone(),
            pod: request.name.clone(),
            node: self.me.node.clone(),
            pools,
        }
    }
}

/// The families of the pod. Unless it says otherwise: every family in which a pool serves it; and if none does,
/// every family that has a pool at all, so that the error can say why.
fn families(pools: &Pools, asking: &Asking<'_>, wanted: &Wanted) -> Vec<Family> {
    if let Some(families) = &wanted.families {
        return families.clone();
    }
    let chosen = |test: &dyn Fn(Family) -> bool| -> Vec<Family> {
        Family::ALL.into_iter().filter(|family| test(*family)).collect()
    };
    let serving = chosen(&|family| {
        wanted.addresses.contains_key(&family) || !pools.serving(family, asking).0.is_empty()
    });
    if !serving.is_empty() {
        return serving;
    }
    let existing = chosen(&|family| pools.iter().any(|pool| pool.family() == family));
    if existing.is_empty() { vec![Family::Ipv4] } else { existing }
}
