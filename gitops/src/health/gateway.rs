//! Gateway, GatewayClass, HTTPRoute, GRPCRoute.

use super::{Health, is_true, message};
use crate::object;
use serde_json::Value;

/// Judges conditions: a False one of `required` is a failure, a missing, unknown or outdated one is progress.
fn judge(live: &Value, conditions: &[Value], required: &[&str], whose: &str) -> Option<Health> {
    let generation = object::integer(live, "/metadata/generation");
    for kind in required {
        let Some(condition) = conditions.iter().find(|c| object::text(c, "/type") == *kind) else {
            return Some(Health::progressing(format!("{whose}: waiting for {kind}")));
        };
        let observed = object::integer(condition, "/observedGeneration");
        if generation.zip(observed).is_some_and(|(wanted, observed)| observed < wanted) {
            return Some(Health::progressing(format!("{whose}: waiting for the specification to be observed")));
        }
        if object::text(condition, "/status") == "False" {
            let pending = object::text(condition, "/reason") == "Pending";
            let text = format!("{whose}: {kind}: {}", message(condition));
            return Some(if pending { Health::progressing(text) } else { Health::degraded(text) });
        }
        if !is_true(condition) {
            return Some(Health::progressing(format!("{whose}: waiting for {kind}")));
        }
    }
    None
}

pub(super) fn gateway(live: &Value) -> Health {
    let conditions = object::list(live, "/status/conditions");
    judge(live, conditions, &["Accepted", "Programmed"], "Gateway")
        .unwrap_or_else(|| Health::healthy("Gateway is programmed"))
}

pub(super) fn class(live: &Value) -> Health {
    let conditions = object::list(live, "/status/conditions");
    judge(live, conditions, &["Accepted"], "GatewayClass")
        .unwrap_or_else(|| Health::healthy("GatewayClass is accepted"))
}

pub(super) fn route(live: &Value) -> Health {
    let parents = object::list(live, "/status/parents");
    if parents.is_empty() {
        return Health::progressing("Waiting for a parent to accept the route");
    }
    let verdicts = parents.iter().filter_map(|parent| {
        let whose = format!("Parent {}", object::text(parent, "/parentRef/name"));
        judge(live, object::list(parent, "/conditions"), &["Accepted", "ResolvedRefs"], &whose)
    });
    // The worst parent speaks for the route.
    verdicts.max_by_key(|health| health.status).unwrap_or_else(|| Health::healthy("Route is accepted by all parents"))
}
