//! PersistentVolumeClaim.

use super::Health;
use crate::object;
use serde_json::Value;

pub(super) fn claim(live: &Value) -> Health {
    match object::text(live, "/status/phase") {
        "Bound" => Health::healthy(""),
        "Pending" => Health::progressing(""),
        "Lost" => Health::degraded(""),
        _ => Health::unknown(""),
    }
}
