//! A failing state made small enough to read.

use felix_calc::model::{NodeState, Policy, Rule};

/// Drops policies, endpoints, namespaces, rules, peers and traffic for as long as `fails` still does.
pub fn shrink(mut state: NodeState, fails: impl Fn(&NodeState) -> bool) -> NodeState {
    while let Some(smaller) = candidates(&state).into_iter().find(|candidate| fails(candidate)) {
        state = smaller;
    }
    state
}

fn candidates(state: &NodeState) -> Vec<NodeState> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut NodeState)| {
        let mut smaller = state.clone();
        change(&mut smaller);
        if smaller != *state {
            all.push(smaller);
        }
    };
    for key in state.policies.keys() {
        with(&|s| drop(s.policies.remove(key)));
    }
    for id in state.endpoints.keys() {
        with(&|s| drop(s.endpoints.remove(id)));
        with(&|s| s.endpoints.get_mut(id).unwrap().ports.clear());
        with(&|s| s.endpoints.get_mut(id).unwrap().labels.clear());
    }
    for namespace in state.namespaces.keys() {
        with(&|s| drop(s.namespaces.remove(namespace)));
    }
    for (key, policy) in &state.policies {
        let of = |s: &mut NodeState, change: &dyn Fn(&mut Policy)| change(s.policies.get_mut(key).unwrap());
        with(&|s| of(s, &|p| p.ingress = None));
        with(&|s| of(s, &|p| p.egress = None));
        for (ingress, rules) in [(true, &policy.ingress), (false, &policy.egress)] {
            for index in 0..rules.as_ref().map_or(0, Vec::len) {
                let list = |p: &mut Policy, change: &dyn Fn(&mut Vec<Rule>)| {
                    change(if ingress { p.ingress.as_mut() } else { p.egress.as_mut() }.unwrap());
                };
                with(&|s| of(s, &|p| list(p, &|r| drop(r.remove(index)))));
                with(&|s| of(s, &|p| list(p, &|r| r[index].peers.clear())));
                with(&|s| of(s, &|p| list(p, &|r| r[index].traffic.clear())));
                with(&|s| of(s, &|p| list(p, &|r| drop(r[index].peers.pop()))));
                with(&|s| of(s, &|p| list(p, &|r| drop(r[index].traffic.pop()))));
            }
        }
    }
    all
}
