//! Fields that go back and forth.

use crate::cluster::{Id, Kind, Millis, World, text};
use crate::meshes;
use crate::shares::{ingress_weight, route_weights};
use serde_json::Value;
use tidegate_crds::keys;

/// The values of one field.
#[derive(Debug, Default)]
pub(super) struct Flips {
    last: Option<String>,
    before: Option<String>,
    count: usize,
    since: Millis,
}

/// No field goes back and forth while nobody else does anything.
pub(super) fn check(world: &mut World, id: &Id, after: &Value) {
    let mut fields: Vec<(&str, String)> = Vec::new();
    match id.0 {
        Kind::ReplicaSet => {
            fields.push(("/spec/replicas", after["spec"]["replicas"].to_string()));
            fields.push(("deadline", after["metadata"]["annotations"][keys::SCALE_DOWN_DEADLINE].to_string()));
        }
        Kind::Service => fields.push(("selector", after["spec"]["selector"].to_string())),
        Kind::HttpRoute => fields.push(("weights", format!("{:?}", route_weights(after)))),
        Kind::Ingress if !meshes::is_ours(&id.1) => {
            fields.push(("weight", format!("{:?}", ingress_weight(after))));
        }
        _ if meshes::weights(id.0, &id.1, after).is_some() => {
            fields.push(("weights", format!("{:?}", meshes::weights(id.0, &id.1, after))));
        }
        Kind::Rollout => {
            for field in ["/status/stableRS", "/status/abort", "/status/promoteFull", "/status/currentStepIndex"] {
                fields.push((field, after.pointer(field).unwrap_or(&Value::Null).to_string()));
            }
            fields.push(("phase", text(after, "/status/phase").to_owned()));
        }
        _ => {}
    }
    let (disturbed, allowed, now) = (world.invariants.disturbed, world.invariants.allowed_flips, world.now);
    let mut worst = None;
    for (field, value) in fields {
        let flips = world.invariants.fields.entry(format!("{} {} {field}", id.0.as_str(), id.1)).or_default();
        if flips.last.as_ref() == Some(&value) {
            continue;
        }
        if flips.since < disturbed {
            *flips = Flips { since: now, last: flips.last.take(), ..Flips::default() };
        }
        if flips.before.as_ref() == Some(&value) {
            flips.count += 1;
        }
        if flips.count > allowed {
            worst = Some(format!("6: {field} of {} {} goes back and forth, now to {value}", id.0.as_str(), id.1));
        }
        flips.before = flips.last.replace(value);
    }
    if let Some(worst) = worst {
        world.violated(worst);
    }
}
