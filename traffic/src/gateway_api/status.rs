//! What a route's status tells about the data plane.

use crate::ObjectRef;
use crate::object::{list, text};
use crate::plan::Observation;
use gateway_api::httproutes::HttpRouteStatus;
use serde_json::Value;

/// Whether every Gateway that the route names and that reports at all has accepted its current generation. The status has
/// the same form in every kind of route.
pub(super) fn observe(target: &ObjectRef, route: &Value) -> Observation {
    let Some(status) = route.get("status") else { return Observation::Unknown };
    let Ok(status) = serde_json::from_value::<HttpRouteStatus>(status.clone()) else { return Observation::Unknown };
    let generation = route.pointer("/metadata/generation").and_then(Value::as_i64);
    let mut observation = Observation::Unknown;
    for parent in &status.parents {
        let reference = &parent.parent_ref;
        let namespace = reference.namespace.as_deref().unwrap_or(&target.namespace);
        // A Gateway that the route no longer names may have left its status behind.
        let named = list(route, "/spec/parentRefs").iter().any(|wanted| {
            text(wanted, "/name") == Some(reference.name.as_str())
                && text(wanted, "/namespace").unwrap_or(&target.namespace) == namespace
        });
        if !named {
            continue;
        }
        let gateway = format!("{} {namespace}/{}", reference.kind.as_deref().unwrap_or("Gateway"), reference.name);
        for wanted in ["Accepted", "ResolvedRefs"] {
            let Some(condition) = parent.conditions.iter().find(|c| c.type_ == wanted) else { continue };
            // Some implementations do not say which generation they are talking about.
            if let (Some(observed), Some(generation)) = (condition.observed_generation, generation)
                && observed > 0
                && observed < generation
            {
                return Observation::Pending(format!(
                    "{gateway} reports {wanted} for generation {observed} of {target}, which is at {generation}"
                ));
            }
            let pending = condition.status == "Unknown" || condition.reason == "Pending";
            if condition.status != "True" {
                let verb = if pending { "has not decided on" } else { "does not take" };
                return Observation::Pending(format!(
                    "{gateway} {verb} {target}: {wanted} is {}, {}: {}",
                    condition.status, condition.reason, condition.message
                ));
            }
            observation = Observation::Taken;
        }
    }
    observation
}
