//! NetworkPolicy has no status: what is not honoured of one is an Event, once for each text.

use super::{About, Notice};
use crate::objects::Objects;

pub fn judge(objects: &Objects) -> Vec<Notice> {
    let policies = objects.policies.objects.iter();
    policies
        .filter_map(|(key, object)| {
            let rejected = felix_input::network_policy(object).rejected;
            let texts: Vec<String> = rejected.into_iter().map(|rejected| rejected.text).collect();
            (!texts.is_empty()).then(|| Notice {
                about: About::NetworkPolicy(key.clone()),
                reason: "PolicyRejected",
                note: texts.join("; "),
                told: false,
            })
        })
        .collect()
}
