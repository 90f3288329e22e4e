//! Which fields of an object a field manager owns (`metadata.managedFields`, FieldsV1).

use super::path::{Path, Segment};
use serde_json::{Map, Value};

/// The leaf fields that `manager` owns, as places in `object`. Fields that no longer exist are left out.
pub fn owned_paths(object: &Value, manager: &str) -> Vec<Path> {
    let mut paths = Vec::new();
    for entry in entries(object).filter(|e| e.get("manager").and_then(Value::as_str) == Some(manager)) {
        if let Some(fields) = entry.get("fieldsV1").and_then(Value::as_object) {
            walk(fields, object, &Path::default(), &mut paths);
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

/// The part of `object` that `manager` owns by server-side apply: what it applied last. `None` when it applied nothing.
pub fn last_applied(object: &Value, manager: &str) -> Option<Value> {
    let entry = entries(object).find(|e| {
        e.get("manager").and_then(Value::as_str) == Some(manager)
            && e.get("operation").and_then(Value::as_str) == Some("Apply")
            && e.get("subresource").is_none_or(|s| s.as_str().is_some_and(str::is_empty))
    })?;
    Some(extract(entry.get("fieldsV1")?.as_object()?, object))
}

fn entries(object: &Value) -> impl Iterator<Item = &Value> {
    crate::object::list(object, "/metadata/managedFields").iter()
}

/// The children of `value` that a key of FieldsV1 names.
fn child<'a>(key: &str, value: &'a Value) -> Option<(Segment, &'a Value)> {
    let (kind, rest) = key.split_once(':')?;
    match kind {
        "f" => Some((Segment::Key(rest.to_owned()), value.get(rest)?)),
        "i" => {
            let index: usize = rest.parse().ok()?;
            Some((Segment::Index(index), value.get(index)?))
        }
        "k" => {
            let wanted: Map<String, Value> = serde_json::from_str(rest).ok()?;
            let found = |item: &Value| wanted.iter().all(|(k, v)| item.get(k) == Some(v));
            let (index, item) = value.as_array()?.iter().enumerate().find(|(_, item)| found(item))?;
            Some((Segment::Index(index), item))
        }
        "v" => {
            let wanted: Value = serde_json::from_str(rest).ok()?;
            let (index, item) = value.as_array()?.iter().enumerate().find(|(_, item)| **item == wanted)?;
            Some((Segment::Index(index), item))
        }
        _ => None,
    }
}

fn walk(fields: &Map<String, Value>, value: &Value, at: &Path, out: &mut Vec<Path>) {
    for (key, inner) in fields {
        let Some((segment, child)) = child(key, value) else { continue };
        let path = at.join(segment);
        match inner.as_object() {
            Some(inner) if inner.keys().any(|k| k != ".") => walk(inner, child, &path, out),
            // `{".": {}}` owns an item or an empty map, not what others put into it.
            Some(inner) if inner.contains_key(".") && (child.is_object() || child.is_array()) => {}
            _ => out.push(path),
        }
    }
}

fn extract(fields: &Map<String, Value>, value: &Value) -> Value {
    let mut map = Map::new();
    let mut items: Vec<(usize, Value)> = Vec::new();
    for (key, inner) in fields {
        let Some((segment, child)) = child(key, value) else { continue };
        let part = match inner.as_object() {
            Some(inner) if !inner.is_empty() && (child.is_object() || child.is_array()) => extract(inner, child),
            _ => child.clone(),
        };
        match segment {
            Segment::Key(key) => {
                map.insert(key, part);
            }
            Segment::Index(index) => items.push((index, part)),
        }
    }
    if value.is_array() {
        items.sort_by_key(|(index, _)| *index);
        Value::Array(items.into_iter().map(|(_, item)| item).collect())
    } else {
        Value::Object(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment() -> Value {
        json!({
            "metadata": {"name": "a", "labels": {"ours": "1", "theirs": "2"}, "finalizers": ["x", "y"], "managedFields": [
                {"manager": "argocd-controller", "operation": "Apply", "fieldsV1": {
                    "f:metadata": {"f:labels": {"f:ours": {}}, "f:finalizers": {"v:\"y\"": {}}},
                    "f:spec": {"f:template": {"f:spec": {"f:containers": {
                        "k:{\"name\":\"b\"}": {".": {}, "f:name": {}, "f:image": {}},
                    }}}},
                }},
                {"manager": "hpa", "operation": "Update", "subresource": "scale", "fieldsV1": {
                    "f:spec": {"f:replicas": {}, "f:gone": {}},
                }},
                {"manager": "odd", "operation": "Update"},
            ]},
            "spec": {"replicas": 3, "template": {"spec": {"containers": [
                {"name": "a", "image": "x"}, {"name": "b", "image": "y", "imagePullPolicy": "Always"},
            ]}}},
        })
    }

    #[test]
    fn what_a_manager_owns() {
        let shown = |manager| owned_paths(&deployment(), manager).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown("hpa"), ["/spec/replicas"]);
        assert_eq!(
            shown("argocd-controller"),
            [
                "/metadata/finalizers/1",
                "/metadata/labels/ours",
                "/spec/template/spec/containers/1/image",
                "/spec/template/spec/containers/1/name",
            ]
        );
        assert!(shown("odd").is_empty());
        assert!(shown("nobody").is_empty());
    }

    #[test]
    fn what_was_applied() {
        assert_eq!(
            last_applied(&deployment(), "argocd-controller"),
            Some(json!({
                "metadata": {"labels": {"ours": "1"}, "finalizers": ["y"]},
                "spec": {"template": {"spec": {"containers": [{"name": "b", "image": "y"}]}}},
            }))
        );
        assert_eq!(last_applied(&deployment(), "hpa"), None);
    }
}
