//! Making two descriptions of one object comparable.

pub mod ignore;
pub mod jq;
pub mod managed_fields;
pub mod owned;
pub mod path;
pub mod quantity;

use crate::object;
use crate::tracking::Tracking;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// The annotation of client-side apply.
pub use tidegate_crds::keys::LAST_APPLIED;
/// The field manager of what is applied.
pub const FIELD_MANAGER: &str = "argocd-controller";

/// Whose `status` is compared (`resource.compareoptions`, `ignoreResourceStatusField`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IgnoreStatus {
    /// Nobody's. The default.
    #[default]
    All,
    /// All but that of CustomResourceDefinitions.
    Crd,
    /// Everybody's.
    None,
}

/// Settings of the installation (`resource.compareoptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompareOptions {
    /// Whose `status` is not compared.
    pub ignore_status: IgnoreStatus,
    /// Do not compare the rules of ClusterRoles that are put together from others. Default false.
    pub ignore_aggregated_roles: bool,
}

/// What was applied last, from the annotation of client-side apply, else from the fields that our field manager owns.
pub fn last_applied(live: &Value) -> Option<Value> {
    match object::annotation(live, LAST_APPLIED) {
        Some(text) => serde_json::from_str(text).ok(),
        None => managed_fields::last_applied(live, FIELD_MANAGER),
    }
}

/// Removes what the API server keeps for itself, and rewrites what it rewrites.
pub fn normalize(value: &mut Value, options: &CompareOptions) {
    let ignore_status = match options.ignore_status {
        IgnoreStatus::All => true,
        IgnoreStatus::Crd => object::is_crd(value),
        IgnoreStatus::None => false,
    };
    let (group, kind) = (object::group(value).to_owned(), object::kind(value).to_owned());
    let Value::Object(map) = value else { return };
    if ignore_status {
        map.remove("status");
    }
    if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
        for field in ["creationTimestamp", "managedFields", "resourceVersion", "generation", "uid", "selfLink"] {
            metadata.remove(field);
        }
    }
    object::remove_metadata(value, "annotations", LAST_APPLIED);
    match (group.as_str(), kind.as_str()) {
        ("", "Secret") => fold_string_data(value),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole")
            if object::list(value, "/rules").is_empty()
                || options.ignore_aggregated_roles && value.get("aggregationRule").is_some() =>
        {
            remove(value, "rules");
        }
        ("", "Endpoints") => sort_endpoints(value),
        // An application's operation is a request, not a part of what it shall be.
        ("argoproj.io", "Application") => remove(value, "operation"),
        _ => {}
    }
}

fn remove(value: &mut Value, key: &str) {
    if let Value::Object(map) = value {
        map.remove(key);
    }
}

/// Puts a Secret's `stringData` into `data`, as the API server does.
pub fn fold_string_data(secret: &mut Value) {
    let Value::Object(map) = secret else { return };
    let strings = match map.remove("stringData") {
        Some(Value::Object(strings)) => strings,
        _ => Map::new(),
    };
    if let Some(Value::Object(data)) = map.get_mut("data") {
        for entry in data.values_mut().filter(|v| v.is_null()) {
            *entry = Value::String(String::new());
        }
    }
    if strings.is_empty() {
        return;
    }
    let data = map.entry("data").or_insert_with(|| Value::Object(Map::new()));
    if !data.is_object() {
        *data = Value::Object(Map::new());
    }
    let Value::Object(data) = data else { return };
    for (key, value) in strings {
        let text = match value {
            Value::String(text) => text,
            Value::Null => String::new(),
            other => other.to_string(),
        };
        data.insert(key, STANDARD.encode(text).into());
    }
}

fn sort_endpoints(endpoints: &mut Value) {
    let Some(Value::Array(subsets)) = endpoints.get_mut("subsets") else { return };
    for subset in &mut *subsets {
        for list in ["addresses", "notReadyAddresses", "ports"] {
            if let Some(Value::Array(items)) = subset.get_mut(list) {
                if list == "ports" {
                    for port in items.iter_mut().filter_map(Value::as_object_mut) {
                        port.entry("protocol").or_insert_with(|| "TCP".into());
                    }
                }
                items.sort_by_cached_key(Value::to_string);
            }
        }
    }
    subsets.sort_by_cached_key(Value::to_string);
}

/// Removes from `last` the marks of tracking, so that a change of the tracking method is no removed field.
pub fn forget_marks(last: &mut Value, tracking: &Tracking) {
    tracking.forget_marks(last);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_server_keeps_is_removed() {
        let mut value = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "a", "uid": "u", "resourceVersion": "1", "generation": 2, "creationTimestamp": null,
                "managedFields": [], "annotations": {LAST_APPLIED: "{}"}},
            "spec": {}, "status": {"replicas": 1},
        });
        normalize(&mut value, &CompareOptions::default());
        assert_eq!(
            value,
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {}})
        );
    }

    #[test]
    fn status_is_kept_when_it_is_asked_for() {
        let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "status": {}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "status": {}});
        for (ignore_status, crd_kept, pod_kept) in
            [(IgnoreStatus::All, false, false), (IgnoreStatus::Crd, false, true), (IgnoreStatus::None, true, true)]
        {
            let options = CompareOptions { ignore_status, ..CompareOptions::default() };
            let kept = |value: &Value| {
                let mut value = value.clone();
                normalize(&mut value, &options);
                value.get("status").is_some()
            };
            assert_eq!((kept(&crd), kept(&pod)), (crd_kept, pod_kept), "{ignore_status:?}");
        }
    }

    #[test]
    fn string_data_becomes_data() {
        let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "eA==", "n": null}, "stringData": {"a": "y", "b": "z"}});
        normalize(&mut secret, &CompareOptions::default());
        assert_eq!(secret, json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "eQ==", "b": "eg==", "n": ""}}));
    }

    #[test]
    fn empty_and_aggregated_rules() {
        let role = |rules: Value, aggregated: bool| {
            let mut role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": rules});
            if aggregated {
                role["aggregationRule"] = json!({});
            }
            role
        };
        let kept = |mut role: Value, ignore_aggregated_roles| {
            normalize(&mut role, &CompareOptions { ignore_aggregated_roles, ..CompareOptions::default() });
            role.get("rules").is_some()
        };
        assert!(!kept(role(json!([]), false), false));
        assert!(!kept(role(json!(null), false), false));
        assert!(kept(role(json!([{}]), false), true));
        assert!(kept(role(json!([{}]), true), false));
        assert!(!kept(role(json!([{}]), true), true));
    }

    #[test]
    fn endpoints_are_sorted() {
        let mut a = json!({"apiVersion": "v1", "kind": "Endpoints", "subsets": [{"addresses": [{"ip": "2"}, {"ip": "1"}], "ports": [{"port": 1}]}]});
        let mut b = json!({"apiVersion": "v1", "kind": "Endpoints", "subsets": [{"addresses": [{"ip": "1"}, {"ip": "2"}], "ports": [{"port": 1, "protocol": "TCP"}]}]});
        normalize(&mut a, &CompareOptions::default());
        normalize(&mut b, &CompareOptions::default());
        assert_eq!(a, b);
    }

    #[test]
    fn what_was_applied_is_in_the_annotation_or_in_the_managed_fields() {
        let annotated = json!({"metadata": {"annotations": {LAST_APPLIED: "{\"a\":1}"}}});
        assert_eq!(last_applied(&annotated), Some(json!({"a": 1})));
        let managed = json!({"spec": {"a": 1, "b": 2}, "metadata": {"managedFields": [
            {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {"f:a": {}}}}]}});
        assert_eq!(last_applied(&managed), Some(json!({"spec": {"a": 1}})));
        assert_eq!(last_applied(&json!({})), None);
    }
}
