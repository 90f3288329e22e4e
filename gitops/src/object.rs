//! Reading a Kubernetes object that is plain JSON: its key, labels and annotations.

use serde_json::{Map, Value};
use std::fmt;

/// What identifies an object in one cluster, whatever version it is written in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// API group, empty for the core group.
    pub group: String,
    /// Kind, as `Deployment`.
    pub kind: String,
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// Makes a key of its four parts.
    pub fn new(group: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self { group: group.into(), kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object. Parts that the object lacks are empty.
    pub fn of(object: &Value) -> Self {
        Self::new(group(object), kind(object), namespace(object), name(object))
    }
}

/// `group/Kind/name`, as messages about a sync name a resource; the core group is empty.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.group, self.kind, self.name)
    }
}

/// `apiVersion`, or an empty string.
pub fn api_version(object: &Value) -> &str {
    text(object, "/apiVersion")
}

/// The API group, empty for the core group.
pub fn group(object: &Value) -> &str {
    api_version(object).split_once('/').map_or("", |(group, _)| group)
}

/// The API version without its group.
pub fn version(object: &Value) -> &str {
    let api_version = api_version(object);
    api_version.split_once('/').map_or(api_version, |(_, version)| version)
}

/// `kind`, or an empty string.
pub fn kind(object: &Value) -> &str {
    text(object, "/kind")
}

/// `metadata.name`, or an empty string.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// `metadata.namespace`, or an empty string.
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// The string at a JSON pointer, or an empty string.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a JSON pointer.
pub fn integer(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// The list at a JSON pointer, empty when there is none.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// One annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(key)?.as_str()
}

/// One label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(key)?.as_str()
}

/// The trimmed, non-empty elements of an annotation that is a comma list.
pub fn annotation_list<'a>(object: &'a Value, key: &str) -> Vec<&'a str> {
    annotation(object, key).unwrap_or_default().split(',').map(str::trim).filter(|s| !s.is_empty()).collect()
}

/// Sets one annotation, making the maps around it as needed.
pub fn set_annotation(object: &mut Value, key: &str, value: &str) {
    set_metadata(object, "annotations", key, value);
}

/// Sets one label, making the maps around it as needed.
pub fn set_label(object: &mut Value, key: &str, value: &str) {
    set_metadata(object, "labels", key, value);
}

fn set_metadata(object: &mut Value, map: &str, key: &str, value: &str) {
    let metadata = child(object, "metadata");
    if let Value::Object(entries) = child(metadata, map) {
        entries.insert(key.to_owned(), value.into());
    }
}

/// The object under `key`, made when it is missing or no object.
pub fn child<'a>(parent: &'a mut Value, key: &str) -> &'a mut Value {
    if !parent.is_object() {
        *parent = Value::Object(Map::new());
    }
    let child = &mut parent[key];
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    child
}

/// Removes one annotation or label (`map` says which), and the map when it is empty then.
pub fn remove_metadata(object: &mut Value, map: &str, key: &str) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let Some(entries) = metadata.get_mut(map).and_then(Value::as_object_mut) else { return };
    if entries.remove(key).is_some() && entries.is_empty() {
        metadata.remove(map);
    }
}

/// Whether the object is being deleted.
pub fn is_deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// Whether the object is a CustomResourceDefinition.
pub fn is_crd(object: &Value) -> bool {
    group(object) == "apiextensions.k8s.io" && kind(object) == "CustomResourceDefinition"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_of_core_and_group_objects() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}});
        assert_eq!(Key::of(&pod), Key::new("", "Pod", "b", "a"));
        assert_eq!(Key::of(&pod).to_string(), "/Pod/a");
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}});
        assert_eq!(Key::of(&deployment), Key::new("apps", "Deployment", "", "a"));
        assert_eq!((group(&deployment), version(&deployment)), ("apps", "v1"));
        assert_eq!(Key::of(&json!("text")), Key::default());
    }

    #[test]
    fn annotations_are_set_and_removed() {
        let mut object = json!({"metadata": {"annotations": null}});
        set_annotation(&mut object, "a/b", "x, y,,z");
        assert_eq!(annotation_list(&object, "a/b"), ["x", "y", "z"]);
        remove_metadata(&mut object, "annotations", "a/b");
        assert_eq!(object, json!({"metadata": {}}));
    }
}
