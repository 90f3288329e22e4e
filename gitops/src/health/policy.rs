//! PodDisruptionBudget.

use super::{Health, condition, is_true};
use crate::object;
use serde_json::Value;

pub(super) fn disruption_budget(live: &Value) -> Health {
    let Some(allowed) = condition(live, "DisruptionAllowed") else { return Health::progressing("Waiting for status") };
    let text = format!("PodDisruptionBudget has {}", object::text(allowed, "/reason"));
    if is_true(allowed) { Health::healthy(text) } else { Health::degraded(text) }
}
