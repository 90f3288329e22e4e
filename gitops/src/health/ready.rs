//! Kinds of other projects that say how they are in one condition.

use super::{Health, condition, is_true, message};
use crate::object;
use serde_json::Value;

/// `Ready`: True is Healthy, False is Degraded.
pub(super) fn ready(live: &Value) -> Health {
    match condition(live, "Ready") {
        Some(ready) if is_true(ready) => Health::healthy(message(ready)),
        Some(ready) if object::text(ready, "/status") == "False" => Health::degraded(message(ready)),
        _ => Health::progressing("Waiting for status"),
    }
}

/// A certificate that is being issued is not ready, and not failed either.
pub(super) fn certificate(live: &Value) -> Health {
    if let Some(issuing) = condition(live, "Issuing").filter(|c| is_true(c)) {
        return Health::progressing(message(issuing));
    }
    ready(live)
}

/// `Synced`: True is Healthy, False is Degraded.
pub(super) fn sealed_secret(live: &Value) -> Health {
    match condition(live, "Synced") {
        Some(synced) if object::text(synced, "/status") == "False" => Health::degraded(message(synced)),
        Some(_) => Health::healthy(""),
        None if live.get("status").is_some() => Health::healthy(""),
        None => Health::progressing("Waiting for Sealed Secret to be decrypted"),
    }
}
