//! APIService and CustomResourceDefinition.

use super::{Health, condition, is_true, message};
use crate::object;
use serde_json::Value;

pub(super) fn api_service(live: &Value) -> Health {
    let Some(available) = condition(live, "Available") else { return Health::progressing("Waiting to be processed") };
    let text = format!("{}: {}", object::text(available, "/reason"), message(available));
    if is_true(available) { Health::healthy(text) } else { Health::progressing(text) }
}

pub(super) fn definition(live: &Value) -> Health {
    if object::list(live, "/status/conditions").is_empty() {
        return Health::progressing("Status conditions not found");
    }
    if condition(live, "Terminating").is_some_and(is_true) {
        return Health::progressing("CRD is terminating");
    }
    if let Some(refused) = condition(live, "NamesAccepted").filter(|c| object::text(c, "/status") == "False") {
        return Health::degraded(format!("CRD names have not been accepted: {}", message(refused)));
    }
    if let Some(flawed) = condition(live, "NonStructuralSchema").filter(|c| is_true(c)) {
        return Health::degraded(format!("Schema violations found: {}", message(flawed)));
    }
    if condition(live, "Established").is_some_and(is_true) {
        return Health::healthy("CRD is healthy");
    }
    Health::progressing("CRD is not established yet")
}
