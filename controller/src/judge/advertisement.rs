//! BGPAdvertisement: Accepted, ResolvedRefs.

use manx_crds::acceptance;
use manx_crds::conditions::ResolvedRefs;
use manx_crds::store::Key;
use manx_crds::store::follow::key_of;
use manx_crds::v1alpha1::BGPAdvertisement;

use super::{About, Notice, Offer, accepted, says, status};
use crate::objects::Objects;
use crate::wish::{Kind, Saying, Wish};

pub fn judge(objects: &Objects) -> (Vec<Offer>, Vec<Notice>) {
    let mut notices = Vec::new();
    let offers = objects.advertisements.iter().map(|object| {
        let verdict = acceptance::bgp_advertisement(object, objects.the_configuration());
        let references = references(objects, object);
        if references.status == "False" {
            let conditions = object.status.as_ref().map(|status| status.conditions.as_slice());
            notices.push(Notice {
                about: About::Object(Kind::BGPAdvertisement, key_of(object)),
                reason: "ReferenceNotFound",
                note: references.message.clone(),
                told: says(conditions.unwrap_or_default(), &references),
            });
        }
        let wish = Wish { conditions: vec![accepted(&verdict), references], whole: true, ..Wish::default() };
        status(Kind::BGPAdvertisement, object, object.status.as_ref(), wish)
    });
    (offers.collect(), notices)
}

fn references(objects: &Objects, object: &BGPAdvertisement) -> Saying {
    for (index, prefix) in object.spec.prefixes.iter().enumerate() {
        let Some(service) = prefix.gate.as_ref().and_then(|gate| gate.service.as_ref()) else { continue };
        let key = Key::namespaced(&service.namespace, &service.name);
        if !objects.services.objects.contains_key(&key) {
            let text = format!(
                "spec.prefixes[{index}].gate.service: there is no Service {}/{}: create it, or name another; {} is not \
                 announced",
                service.namespace, service.name, prefix.cidr
            );
            return Saying::new(ResolvedRefs::ServiceNotFound, text);
        }
    }
    Saying::new(ResolvedRefs::ResolvedRefs, "")
}
