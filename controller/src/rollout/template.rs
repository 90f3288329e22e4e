//! Pod templates: their hash, and whether two of them mean the same.
//!
//! The hash of a new ReplicaSet is ours; it depends on nothing but what the user wrote. An existing ReplicaSet is
//! recognised by meaning, whoever made it and however its hash was computed: both templates are brought to the form
//! that the API server stores, and compared.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tidegate_crds::decode;
use tidegate_crds::keys;
use tidegate_crds::rollout::AntiAffinity;

/// Alphabet of generated names in Kubernetes: no vowels, no look-alikes.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

fn fnv1a(bytes: &[u8], start: u32) -> u32 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Hash of any JSON, as ten characters at most that are safe in names.
pub fn hash(value: &Value, collisions: Option<i32>) -> String {
    let mut clean = value.clone();
    strip_nulls(&mut clean);
    let mut sum = fnv1a(clean.to_string().as_bytes(), 0x811c_9dc5);
    if let Some(count) = collisions.filter(|c| *c > 0) {
        sum = fnv1a(&count.to_le_bytes(), sum);
        sum = fnv1a(&[0; 4], sum);
    }
    sum.to_string().bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

/// Hash of a pod template. Ephemeral ReplicaSet labels take no part.
pub fn pod_hash(template: &Value, collisions: Option<i32>) -> String {
    let mut clean = template.clone();
    remove_label(&mut clean, keys::POD_TEMPLATE_HASH);
    if let Some(metadata) = clean.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
    }
    hash(&clean, collisions)
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

fn remove_label(template: &mut Value, key: &str) {
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(key);
    }
}

/// What can be run of a template: quantities as texts, and without the fields that the API server could not read. A
/// wrong `memory: lots` must not keep a service from running; validation reports it.
pub fn runnable(template: &Value) -> Value {
    let mut template = template.clone();
    strip_nulls(&mut template);
    if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
        // No template may have them.
        spec.remove("ephemeralContainers");
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                for part in ["limits", "requests"] {
                    let Some(entries) = container.pointer_mut(&format!("/resources/{part}")) else { continue };
                    let Some(entries) = entries.as_object_mut() else {
                        *entries = json!({});
                        continue;
                    };
                    entries.retain(|_, quantity| {
                        if let Value::Number(number) = quantity {
                            *quantity = Value::String(number.to_string());
                        }
                        quantity.as_str().is_some_and(|q| canonical_quantity(q).is_some())
                    });
                }
            }
        }
    }
    decode::cleaned::<k8s_openapi::api::core::v1::PodTemplateSpec>(template).0
}

/// The template of a new ReplicaSet: the user's, with the hash as a label.
pub fn with_hash(template: &Value, hash: &str) -> Value {
    let mut template = runnable(template);
    set(&mut template, &["metadata", "labels", keys::POD_TEMPLATE_HASH], hash.into());
    template
}

/// Sets a field, making the objects on the way to it.
pub fn set(value: &mut Value, path: &[&str], new: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut at = value;
    for key in parents {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[*key];
    }
    if !at.is_object() {
        *at = Value::Object(Map::new());
    }
    at[*last] = new;
}

/// Adds the rule that keeps pods away from the nodes of the ReplicaSet with `stable_hash`.
pub fn add_anti_affinity(template: &mut Value, rule: &AntiAffinity, stable_hash: &str, namespace: &str) {
    let term = json!({
        "labelSelector": {"matchExpressions": [
            {"key": keys::POD_TEMPLATE_HASH, "operator": "In", "values": [stable_hash]},
        ]},
        "namespaces": [namespace],
        "topologyKey": "kubernetes.io/hostname",
    });
    let (field, entry) = match &rule.preferred_during_scheduling_ignored_during_execution {
        Some(preferred) => (
            "preferredDuringSchedulingIgnoredDuringExecution",
            json!({"weight": preferred.weight, "podAffinityTerm": term}),
        ),
        None => ("requiredDuringSchedulingIgnoredDuringExecution", term),
    };
    let pointer = format!("/spec/affinity/podAntiAffinity/{field}");
    let mut terms = template.pointer(&pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    terms.push(entry);
    set(template, &["spec", "affinity", "podAntiAffinity", field], Value::Array(terms));
}

/// Takes away every term that [`add_anti_affinity`] may have added, and what is empty then.
fn remove_anti_affinity(template: &mut Value) {
    let injected = |term: &Value| {
        let term = term.get("podAffinityTerm").unwrap_or(term);
        term.pointer("/labelSelector/matchExpressions/0/key").and_then(Value::as_str) == Some(keys::POD_TEMPLATE_HASH)
            && term.get("topologyKey").and_then(Value::as_str) == Some("kubernetes.io/hostname")
    };
    let Some(affinity) = template.pointer_mut("/spec/affinity").and_then(Value::as_object_mut) else { return };
    if let Some(anti) = affinity.get_mut("podAntiAffinity").and_then(Value::as_object_mut) {
        for terms in anti.values_mut() {
            if let Some(terms) = terms.as_array_mut() {
                terms.retain(|t| !injected(t));
            }
        }
        anti.retain(|_, terms| terms.as_array().is_none_or(|t| !t.is_empty()));
        if anti.is_empty() {
            affinity.remove("podAntiAffinity");
        }
    }
    if affinity.is_empty()
        && let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut)
    {
        spec.remove("affinity");
    }
}

/// Both templates make the same pods. `ephemeral` names the labels and annotations that were put onto `existing`.
pub fn same(existing: &Value, wanted: &Value, ephemeral: Option<&str>) -> bool {
    let mut existing = existing.clone();
    if let Some(injected) = ephemeral.and_then(|e| serde_json::from_str::<Value>(e).ok()) {
        for part in ["labels", "annotations"] {
            let keys = injected.get(part).and_then(Value::as_object).into_iter().flatten();
            if let Some(map) = existing.pointer_mut(&format!("/metadata/{part}")).and_then(Value::as_object_mut) {
                keys.for_each(|(key, _)| {
                    map.remove(key);
                });
            }
        }
    }
    canonical(&existing) == canonical(wanted)
}

/// The form that the API server would store, without what the controller adds.
fn canonical(template: &Value) -> Value {
    let mut template = runnable(template);
    remove_label(&mut template, keys::POD_TEMPLATE_HASH);
    remove_anti_affinity(&mut template);
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
    }
    if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
        default_pod(spec);
    }
    strip_empty(&mut template);
    template
}

fn entry<'a>(map: &'a mut Map<String, Value>, key: &str, default: Value) -> &'a mut Value {
    map.entry(key).or_insert(default)
}

/// Values that the API server fills into a pod's spec.
fn default_pod(spec: &mut Map<String, Value>) {
    // The deprecated name of serviceAccountName; the server keeps both alike.
    let old_account = spec.remove("serviceAccount");
    if !spec.contains_key("serviceAccountName")
        && let Some(account) = old_account
    {
        spec.insert("serviceAccountName".to_owned(), account);
    }
    for (key, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("enableServiceLinks", json!(true)),
    ] {
        entry(spec, key, value);
    }
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                default_container(container, host_network);
            }
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(volume) = volume.as_object_mut() {
            default_volume(volume);
        }
    }
    for constraint in spec.get_mut("topologySpreadConstraints").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(constraint) = constraint.as_object_mut() {
            entry(constraint, "nodeAffinityPolicy", json!("Honor"));
            entry(constraint, "nodeTaintsPolicy", json!("Ignore"));
        }
    }
}

fn default_container(container: &mut Map<String, Value>, host_network: bool) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default().to_owned();
    entry(container, "imagePullPolicy", json!(if is_latest(&image) { "Always" } else { "IfNotPresent" }));
    entry(container, "terminationMessagePath", json!("/dev/termination-log"));
    entry(container, "terminationMessagePolicy", json!("File"));
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            entry(port, "protocol", json!("TCP"));
            if host_network && let Some(number) = port.get("containerPort").cloned() {
                entry(port, "hostPort", number);
            }
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) {
            for (key, value) in
                [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
            {
                if probe.get(key).is_none_or(|v| v == &json!(0)) {
                    probe.insert(key.to_owned(), json!(value));
                }
            }
            default_handler(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.get_mut("lifecycle").and_then(|l| l.get_mut(hook)).and_then(Value::as_object_mut)
        {
            default_handler(hook);
        }
    }
    for variable in container.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef").and_then(Value::as_object_mut) {
            entry(field, "apiVersion", json!("v1"));
        }
        if let Some(divisor) = variable.pointer_mut("/valueFrom/resourceFieldRef").and_then(Value::as_object_mut) {
            canonical_entry(entry(divisor, "divisor", json!("0")));
        }
        if let Some(variable) = variable.as_object_mut()
            && variable.get("value") == Some(&json!(""))
        {
            variable.remove("value");
        }
    }
    if let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) {
        let limits = resources.get("limits").and_then(Value::as_object).cloned().unwrap_or_default();
        if !limits.is_empty() {
            let requests = entry(resources, "requests", json!({}));
            if let Some(requests) = requests.as_object_mut() {
                for (name, quantity) in limits {
                    requests.entry(name).or_insert(quantity);
                }
            }
        }
        for part in ["limits", "requests"] {
            let entries = resources.get_mut(part).and_then(Value::as_object_mut);
            entries.into_iter().flat_map(|e| e.values_mut()).for_each(canonical_entry);
        }
    }
}

fn default_handler(handler: &mut Map<String, Value>) {
    if let Some(get) = handler.get_mut("httpGet").and_then(Value::as_object_mut) {
        entry(get, "path", json!("/"));
        entry(get, "scheme", json!("HTTP"));
    }
    if let Some(grpc) = handler.get_mut("grpc").and_then(Value::as_object_mut)
        && grpc.get("service") == Some(&json!(""))
    {
        grpc.remove("service");
    }
}

fn default_volume(volume: &mut Map<String, Value>) {
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).and_then(Value::as_object_mut) {
            entry(source, "defaultMode", json!(420));
        }
    }
    for items in ["/downwardAPI/items", "/projected/sources"] {
        let mut whole = Value::Object(std::mem::take(volume));
        for item in whole.pointer_mut(items).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(field) = item.get_mut("fieldRef").and_then(Value::as_object_mut) {
                entry(field, "apiVersion", json!("v1"));
            }
            if let Some(token) = item.get_mut("serviceAccountToken").and_then(Value::as_object_mut) {
                entry(token, "expirationSeconds", json!(3600));
            }
            for field in item.pointer_mut("/downwardAPI/items").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(field) = field.get_mut("fieldRef").and_then(Value::as_object_mut) {
                    entry(field, "apiVersion", json!("v1"));
                }
            }
        }
        if let Value::Object(map) = whole {
            *volume = map;
        }
    }
    if let Some(path) = volume.get_mut("hostPath").and_then(Value::as_object_mut)
        && path.get("type") == Some(&json!(""))
    {
        path.remove("type");
    }
    if let Some(size) = volume.get_mut("emptyDir").and_then(|e| e.get_mut("sizeLimit")) {
        canonical_entry(size);
    }
    // A volume with no source is an emptyDir; one with an empty source keeps its key through `strip_empty`.
    if let Some(empty) = volume.get_mut("emptyDir")
        && empty.as_object().is_some_and(Map::is_empty)
    {
        *empty = json!("default");
    } else if volume.len() == 1 && volume.contains_key("name") {
        volume.insert("emptyDir".to_owned(), json!("default"));
    }
    if let Some(claim) = volume.get_mut("ephemeral").and_then(|e| e.pointer_mut("/volumeClaimTemplate/spec")) {
        if let Some(claim) = claim.as_object_mut() {
            entry(claim, "volumeMode", json!("Filesystem"));
        }
        let requests = claim.pointer_mut("/resources/requests").and_then(Value::as_object_mut);
        requests.into_iter().flat_map(|r| r.values_mut()).for_each(canonical_entry);
    }
}

/// Empty maps and lists mean the same as none.
fn strip_empty(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(strip_empty);
            map.retain(|_, v| match v {
                Value::Object(m) => !m.is_empty(),
                Value::Array(l) => !l.is_empty(),
                Value::Null => false,
                _ => true,
            });
        }
        Value::Array(list) => list.iter_mut().for_each(strip_empty),
        _ => {}
    }
}

/// The tag is `latest` or missing, and there is no digest.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn canonical_entry(value: &mut Value) {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return,
    };
    if let Some(canonical) = canonical_quantity(&text) {
        *value = Value::String(canonical);
    }
}

/// A quantity in billionths, so that `1000m`, `1` and `1e0` are alike. `None` when it is no quantity.
pub fn canonical_quantity(text: &str) -> Option<String> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    let (number, suffix) = digits.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 18 {
        return None;
    }
    let (binary, ten): (u32, i32) = match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => (0, suffix.strip_prefix(['e', 'E'])?.parse().ok().filter(|e: &i32| e.abs() <= 18)?),
    };
    let fraction: String = fraction.chars().take(18).collect();
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let exponent = 9 + ten - i32::try_from(fraction.len()).ok()?;
    let scaled = mantissa.checked_mul(1i128.checked_shl(binary)?)?;
    let nano = if exponent >= 0 {
        scaled.checked_mul(10i128.checked_pow(exponent.unsigned_abs())?)?
    } else {
        // The API server rounds up what is smaller than its smallest unit.
        let divisor = 10i128.checked_pow(exponent.unsigned_abs())?;
        scaled.checked_add(divisor - 1)? / divisor
    };
    Some(format!("{}{nano}n", if negative && nano != 0 { "-" } else { "" }))
}

/// Labels and annotations as they are kept in the annotation of ephemeral metadata.
pub fn ephemeral_json(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Option<String> {
    let mut map = Map::new();
    for (key, part) in [("labels", labels), ("annotations", annotations)] {
        if !part.is_empty() {
            map.insert(key.to_owned(), json!(part));
        }
    }
    (!map.is_empty()).then(|| Value::Object(map).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Value {
        json!({
            "metadata": {"labels": {"app": "web"}, "creationTimestamp": null},
            "spec": {"containers": [{
                "name": "web", "image": "web:1", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1000m"}},
                "readinessProbe": {"httpGet": {"port": 80}},
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            }], "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c"}}]},
        })
    }

    fn as_stored() -> Value {
        json!({
            "metadata": {"labels": {"app": "web", "rollouts-pod-template-hash": "abc"}},
            "spec": {
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                "terminationGracePeriodSeconds": 30, "securityContext": {}, "enableServiceLinks": true,
                "containers": [{
                    "name": "web", "image": "web:1", "imagePullPolicy": "IfNotPresent",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
                    "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                        "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                    "env": [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c", "defaultMode": 420}}],
            },
        })
    }

    #[test]
    fn a_stored_template_is_recognised() {
        assert!(same(&as_stored(), &template(), None));
        let mut other = template();
        other["spec"]["containers"][0]["image"] = json!("web:2");
        assert!(!same(&as_stored(), &other, None));
    }

    #[test]
    fn what_the_controller_adds_is_no_difference() {
        let mut existing = as_stored();
        existing["metadata"]["labels"]["role"] = json!("canary");
        add_anti_affinity(&mut existing, &AntiAffinity::default(), "old", "ns");
        assert!(same(&existing, &template(), Some(r#"{"labels":{"role":"canary"}}"#)));
        assert!(!same(&existing, &template(), None));
    }

    #[test]
    fn the_hash_depends_on_what_the_user_wrote_alone() {
        let mut nulls = template();
        nulls["spec"]["nodeName"] = Value::Null;
        assert_eq!(pod_hash(&template(), None), pod_hash(&nulls, None));
        assert_ne!(pod_hash(&template(), None), pod_hash(&template(), Some(1)));
        assert_eq!(hash(&json!([{"setWeight": 10}]), None), hash(&json!([{"setWeight": 10}]), Some(0)));
        assert!(pod_hash(&template(), None).bytes().all(|b| ALPHABET.contains(&b)));
    }

    #[test]
    fn quantities_are_compared_by_value() {
        for (a, b) in
            [("1", "1000m"), ("1Ki", "1024"), ("0.5", "500m"), ("1e3", "1k"), ("1.5Gi", "1536Mi"), ("0.001", "1m")]
        {
            assert_eq!(canonical_quantity(a), canonical_quantity(b), "{a} {b}");
        }
        for text in ["", "invalid", "1X", "1.2.3", "--1", "."] {
            assert_eq!(canonical_quantity(text), None, "{text}");
        }
    }

    #[test]
    fn garbage_is_left_out_and_the_rest_runs() {
        let mut bad = template();
        bad["spec"]["containers"][0]["resources"] =
            json!({"limits": {"cpu": 0.5, "memory": "invalid"}, "requests": "none"});
        let unreadable = json!([{"name": "debug", "resources": {"limits": {"cpu": "1X"}}}]);
        for list in [json!("garbage"), unreadable] {
            bad["spec"]["ephemeralContainers"] = list;
            assert_eq!(runnable(&bad)["spec"].get("ephemeralContainers"), None);
        }
        bad["spec"]["containers"][0]["env"] = json!([{"name": "N", "value": 1}, {"name": "T", "value": "x"}]);
        let runnable = runnable(&bad);
        assert_eq!(runnable["spec"]["containers"][0]["resources"], json!({"limits": {"cpu": "0.5"}, "requests": {}}));
        assert_eq!(runnable["spec"]["containers"][0]["env"], json!([{"name": "N"}, {"name": "T", "value": "x"}]));
    }
}
