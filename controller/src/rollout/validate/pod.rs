//! The pod template, by the rules of the API server as far as a mistake there would keep every pod from being made.
//!
//! A field of the wrong type counts as absent, as it does for the peer; what stands in `resources` is judged only when it
//! can be read, so that a Rollout with nonsense there still runs.

use super::labels::{self, is_dns_label, is_dns_subdomain};
use super::{Kind, Problems};
use k8s_openapi::api::core::v1::EphemeralContainer;
use serde_json::Value;
use std::collections::BTreeSet;
use tidegate_crds::LabelSelector;

/// Checks `template`, which stands at `path` and whose pods `selector` selects.
pub(super) fn check(template: &Value, selector: Option<&LabelSelector>, path: &str, problems: &mut Problems) {
    let pod_labels = labels::texts(template.pointer("/metadata/labels"));
    if let Some(selector) = selector
        && !labels::selects(selector, &pod_labels)
    {
        let found = serde_json::to_value(&pod_labels).unwrap_or_default();
        problems.invalid(format!("{path}.metadata.labels"), found, "`selector` does not match template `labels`");
    }
    labels::check_labels(&pod_labels, &format!("{path}.metadata.labels"), problems);
    for key in labels::texts(template.pointer("/metadata/annotations")).keys() {
        if !labels::is_label_key(&key.to_ascii_lowercase()) {
            let expected = "must be an annotation key: at most 63 letters, digits, '-', '_' and '.', perhaps after a \
                            domain and '/'";
            problems.invalid(format!("{path}.metadata.annotations"), key.as_str(), expected);
        }
    }
    let empty = Value::Null;
    let spec = template.get("spec").unwrap_or(&empty);
    let path = format!("{path}.spec");
    let volumes = check_volumes(spec, &path, problems);
    check_containers(spec, &volumes, &path, problems);
    check_choices(spec, &path, problems);
    // A list that cannot be read is left out of the pods; one that can be read is a mistake.
    let ephemeral = spec.get("ephemeralContainers").cloned().unwrap_or_default();
    let readable = amounts_are_readable(&ephemeral);
    let read = serde_json::from_value::<Vec<EphemeralContainer>>(ephemeral);
    if readable && read.is_ok_and(|list| !list.is_empty()) {
        let expected = "ephemeral containers are not allowed in a pod template";
        problems.add(Kind::Forbidden, format!("{path}.ephemeralContainers"), Value::Null, expected);
    }
}

/// All resources of a list of containers are quantities. One that is not makes the whole list unreadable for the peer.
fn amounts_are_readable(containers: &Value) -> bool {
    let maps = containers.as_array().into_iter().flatten().flat_map(|container| {
        ["/resources/requests", "/resources/limits"].map(|part| container.pointer(part).and_then(Value::as_object))
    });
    maps.flatten().flat_map(|map| map.values()).all(|amount| quantity(amount).is_some())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn number(value: &Value, key: &str) -> Option<i64> {
    value.get(key).and_then(Value::as_i64)
}

/// Checks the volumes and returns their names.
fn check_volumes<'a>(spec: &'a Value, path: &str, problems: &mut Problems) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        let path = format!("{path}.volumes[{index}]");
        check_name(volume, &path, &mut names, problems);
        let sources =
            volume.as_object().into_iter().flatten().filter(|(key, value)| *key != "name" && !value.is_null());
        let sources: Vec<&str> = sources.map(|(key, _)| key.as_str()).collect();
        if sources.len() > 1 {
            problems.invalid(path, sources.join(" and "), "a volume has one source");
        }
    }
    names
}

fn check_name<'a>(value: &'a Value, path: &str, names: &mut BTreeSet<&'a str>, problems: &mut Problems) {
    let name = text(value, "name");
    let field = format!("{path}.name");
    if name.is_empty() {
        problems.required(field, "a name");
    } else if !is_dns_label(name) {
        problems.invalid(field, name, "must be at most 63 lower-case letters, digits and '-'");
    } else if !names.insert(name) {
        problems.add(Kind::Duplicate, field, name, "names are unique");
    }
}

fn check_containers(spec: &Value, volumes: &BTreeSet<&str>, path: &str, problems: &mut Problems) {
    let containers = list(spec, "containers");
    if containers.is_empty() {
        problems.required(format!("{path}.containers"), "at least one container");
    }
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    let mut names = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = format!("{path}.containers[{index}]");
        check_name(container, &path, &mut names, problems);
        check_container(container, volumes, host_network, &path, problems);
    }
    for (index, container) in list(spec, "initContainers").iter().enumerate() {
        let path = format!("{path}.initContainers[{index}]");
        check_name(container, &path, &mut names, problems);
        let restart = text(container, "restartPolicy");
        if !matches!(restart, "" | "Always" | "OnFailure" | "Never") {
            problems.unsupported(format!("{path}.restartPolicy"), restart, &["Always", "OnFailure", "Never"]);
        }
        check_container(container, volumes, host_network, &path, problems);
    }
}

fn check_container(
    container: &Value,
    volumes: &BTreeSet<&str>,
    host_network: bool,
    path: &str,
    problems: &mut Problems,
) {
    let image = text(container, "image");
    if image.is_empty() {
        problems.required(format!("{path}.image"), "an image");
    } else if image.trim() != image {
        problems.invalid(format!("{path}.image"), image, "must not begin or end with a space");
    }
    check_ports(container, host_network, path, problems);
    for (index, variable) in list(container, "env").iter().enumerate() {
        let path = format!("{path}.env[{index}]");
        let name = text(variable, "name");
        if name.is_empty() {
            problems.required(format!("{path}.name"), "a name");
        } else if name.contains('=') {
            problems.invalid(format!("{path}.name"), name, "must not contain '='");
        }
        let from = variable.get("valueFrom").and_then(Value::as_object);
        if let Some(from) = from {
            if !text(variable, "value").is_empty() {
                problems.invalid(format!("{path}.valueFrom"), "value and valueFrom", "only one of the two");
            }
            if from.values().filter(|source| !source.is_null()).count() != 1 {
                let found: Vec<&str> = from.keys().map(String::as_str).collect();
                problems.invalid(format!("{path}.valueFrom"), found.join(" and "), "exactly one source");
            }
        }
    }
    check_mounts(container, volumes, path, problems);
    let policy = text(container, "imagePullPolicy");
    if !matches!(policy, "" | "Always" | "IfNotPresent" | "Never") {
        problems.unsupported(format!("{path}.imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(value) = container.get(probe).filter(|value| value.is_object()) {
            check_probe(value, probe, &format!("{path}.{probe}"), problems);
        }
    }
    check_resources(container, path, problems);
}

fn check_ports(container: &Value, host_network: bool, path: &str, problems: &mut Problems) {
    let mut names = BTreeSet::new();
    for (index, port) in list(container, "ports").iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        let name = text(port, "name");
        let well_formed = name.len() <= 15
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && name.bytes().any(|b| b.is_ascii_lowercase())
            && !name.starts_with('-')
            && !name.ends_with('-')
            && !name.contains("--");
        if !name.is_empty() && !well_formed {
            let expected = "must be at most 15 lower-case letters, digits and '-', with at least one letter";
            problems.invalid(format!("{path}.name"), name, expected);
        } else if !name.is_empty() && !names.insert(name) {
            problems.add(Kind::Duplicate, format!("{path}.name"), name, "names of ports are unique in a container");
        }
        match number(port, "containerPort").unwrap_or(0) {
            0 => problems.required(format!("{path}.containerPort"), "a port number"),
            other => check_port(other, &format!("{path}.containerPort"), problems),
        }
        if let Some(host) = number(port, "hostPort").filter(|port| *port != 0) {
            check_port(host, &format!("{path}.hostPort"), problems);
            if host_network && Some(host) != number(port, "containerPort") {
                problems.invalid(format!("{path}.hostPort"), host, "must be containerPort when hostNetwork is set");
            }
        }
        let protocol = text(port, "protocol");
        if !matches!(protocol, "" | "TCP" | "UDP" | "SCTP") {
            problems.unsupported(format!("{path}.protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        }
    }
}

fn check_port(port: i64, path: &str, problems: &mut Problems) {
    if !(1..=65_535).contains(&port) {
        problems.invalid(path, port, "must be between 1 and 65535");
    }
}

fn check_mounts(container: &Value, volumes: &BTreeSet<&str>, path: &str, problems: &mut Problems) {
    let mut paths = BTreeSet::new();
    for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        let name = text(mount, "name");
        if name.is_empty() {
            problems.required(format!("{path}.name"), "the name of a volume");
        } else if !volumes.contains(name) {
            problems.add(Kind::NotFound, format!("{path}.name"), name, "a volume of this pod");
        }
        let mount_path = text(mount, "mountPath");
        if mount_path.is_empty() {
            problems.required(format!("{path}.mountPath"), "a path");
        } else if !paths.insert(mount_path) {
            problems.invalid(format!("{path}.mountPath"), mount_path, "must be unique");
        }
    }
}

fn check_probe(probe: &Value, name: &str, path: &str, problems: &mut Problems) {
    let handlers = ["exec", "httpGet", "tcpSocket", "grpc"];
    let set: Vec<&str> =
        handlers.into_iter().filter(|handler| probe.get(handler).is_some_and(Value::is_object)).collect();
    match &set[..] {
        [] => problems.required(path, "one of exec, httpGet, tcpSocket and grpc"),
        [_] => {}
        many => problems.invalid(path, many.join(" and "), "exactly one of exec, httpGet, tcpSocket and grpc"),
    }
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if let Some(value) = number(probe, field) {
            problems.not_negative(format!("{path}.{field}"), value);
        }
    }
    let once = number(probe, "successThreshold").filter(|value| *value > 1);
    if let Some(value) = once.filter(|_| name != "readinessProbe") {
        problems.invalid(format!("{path}.successThreshold"), value, "must be 1");
    }
    for handler in ["httpGet", "tcpSocket", "grpc"] {
        if let Some(port) = probe.get(handler).and_then(|handler| number(handler, "port")) {
            check_port(port, &format!("{path}.{handler}.port"), problems);
        }
    }
}

fn check_resources(container: &Value, path: &str, problems: &mut Problems) {
    let amounts = |part: &str| container.pointer(&format!("/resources/{part}")).and_then(Value::as_object);
    for (part, name, found) in ["limits", "requests"]
        .iter()
        .flat_map(|part| amounts(part).into_iter().flatten().map(move |(name, value)| (part, name, value)))
    {
        if quantity(found).is_some_and(|amount| amount < 0.0) {
            problems.invalid(format!("{path}.resources.{part}.{name}"), found.clone(), "must not be negative");
        }
    }
    for (name, request) in amounts("requests").into_iter().flatten() {
        let limit = amounts("limits").and_then(|limits| limits.get(name));
        if let (Some(request_amount), Some(limit)) = (quantity(request), limit)
            && quantity(limit).is_some_and(|limit| request_amount > limit)
        {
            let field = format!("{path}.resources.requests.{name}");
            problems.invalid(field, request.clone(), format!("must not be greater than the limit {limit}"));
        }
    }
}

/// The amount that a quantity stands for; `None` for what is none.
fn quantity(value: &Value) -> Option<f64> {
    let text = match value {
        Value::Number(number) => return number.as_f64(),
        Value::String(text) => text.trim(),
        _ => return None,
    };
    let split = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 2f64.powi(10),
        "Mi" => 2f64.powi(20),
        "Gi" => 2f64.powi(30),
        "Ti" => 2f64.powi(40),
        "Pi" => 2f64.powi(50),
        "Ei" => 2f64.powi(60),
        exponent => return exponent.starts_with(['e', 'E']).then(|| text.parse().ok()).flatten(),
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

/// Fields of the pod that have few values.
fn check_choices(spec: &Value, path: &str, problems: &mut Problems) {
    let restart = text(spec, "restartPolicy");
    if !matches!(restart, "" | "Always") {
        problems.unsupported(format!("{path}.restartPolicy"), restart, &["Always"]);
    }
    if number(spec, "activeDeadlineSeconds").is_some() {
        let expected = "pods of a ReplicaSet have no deadline";
        problems.add(Kind::Forbidden, format!("{path}.activeDeadlineSeconds"), Value::Null, expected);
    }
    let dns = text(spec, "dnsPolicy");
    if !matches!(dns, "" | "ClusterFirstWithHostNet" | "ClusterFirst" | "Default" | "None") {
        let known = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
        problems.unsupported(format!("{path}.dnsPolicy"), dns, &known);
    }
    for field in ["serviceAccountName", "priorityClassName", "runtimeClassName", "nodeName"] {
        let name = text(spec, field);
        if !name.is_empty() && !is_dns_subdomain(name) {
            problems.invalid(format!("{path}.{field}"), name, "must be lower-case letters, digits, '-' and '.'");
        }
    }
    labels::check_labels(&labels::texts(spec.get("nodeSelector")), &format!("{path}.nodeSelector"), problems);
    for (index, toleration) in list(spec, "tolerations").iter().enumerate() {
        let path = format!("{path}.tolerations[{index}]");
        let operator = text(toleration, "operator");
        if text(toleration, "key").is_empty() && operator != "Exists" {
            problems.invalid(format!("{path}.operator"), operator, "must be Exists when key is empty");
        }
        let effect = text(toleration, "effect");
        if !matches!(effect, "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            problems.unsupported(format!("{path}.effect"), effect, &known);
        }
    }
    for (index, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{index}]");
        let skew = number(constraint, "maxSkew").unwrap_or(0);
        if skew < 1 {
            problems.invalid(format!("{path}.maxSkew"), skew, "must be greater than 0");
        }
        if text(constraint, "topologyKey").is_empty() {
            problems.required(format!("{path}.topologyKey"), "a label of nodes");
        }
        let when = text(constraint, "whenUnsatisfiable");
        if !matches!(when, "DoNotSchedule" | "ScheduleAnyway") {
            problems.unsupported(format!("{path}.whenUnsatisfiable"), when, &["DoNotSchedule", "ScheduleAnyway"]);
        }
    }
}
