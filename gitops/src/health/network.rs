//! Service and Ingress.

use super::Health;
use crate::object;
use serde_json::Value;

fn has_address(live: &Value) -> bool {
    !object::list(live, "/status/loadBalancer/ingress").is_empty()
}

pub(super) fn service(live: &Value) -> Health {
    if object::text(live, "/spec/type") == "LoadBalancer" && !has_address(live) {
        return Health::progressing("");
    }
    Health::healthy("")
}

pub(super) fn ingress(live: &Value) -> Health {
    if has_address(live) { Health::healthy("") } else { Health::progressing("") }
}
