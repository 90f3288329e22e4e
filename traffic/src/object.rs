//! The Kubernetes objects that routers read and write, as JSON.

use crate::Write;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;
use tidegate_crds::{LabelSelector, patch};

/// Names one object. Enough to build its URL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// `group/version`, or `v1` for the core group.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Plural in lower case, as it stands in URLs.
    pub plural: String,
    /// Namespace; empty for a cluster-scoped object.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectRef {
    /// A reference from its parts.
    pub fn new(api_version: &str, kind: &str, plural: &str, namespace: &str, name: &str) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// What a router wants to see before it plans.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// One object, if it exists.
    Object(ObjectRef),
    /// All objects of a kind whose labels match.
    Select {
        /// `group/version`.
        api_version: String,
        /// Kind.
        kind: String,
        /// Plural in lower case.
        plural: String,
        /// Namespace; `None` is everywhere.
        namespace: Option<String>,
        /// Labels.
        selector: LabelSelector,
    },
}

/// The objects that were found. A key that is absent is an object that does not exist.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects(pub BTreeMap<ObjectRef, Value>);

/// Why an in-memory write was refused. The same reasons for which an API server refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The object to create is there already.
    #[error("{0} already exists")]
    AlreadyExists(Box<ObjectRef>),
    /// The object to change is not there.
    #[error("{0} does not exist")]
    NotFound(Box<ObjectRef>),
    /// The object was changed since it was read.
    #[error("{target} is at resourceVersion {found:?}, the write expects {expected:?}")]
    Conflict {
        /// The object.
        target: Box<ObjectRef>,
        /// Its resourceVersion.
        found: String,
        /// The resourceVersion that the write is based on.
        expected: String,
    },
}

impl Objects {
    /// The object, if it exists.
    pub fn get(&self, target: &ObjectRef) -> Option<&Value> {
        self.0.get(target)
    }

    /// Adds an object, or replaces it.
    pub fn insert(&mut self, target: ObjectRef, object: Value) {
        self.0.insert(target, object);
    }

    /// Carries out a write in memory as an API server would: the precondition is checked, `resourceVersion` grows, and
    /// `generation` grows when anything but metadata and status changed. For tests, simulations and previews.
    ///
    /// # Errors
    /// When an API server would refuse the write too.
    pub fn apply(&mut self, write: &Write) -> Result<(), Refused> {
        match write {
            Write::Create { target, object } => {
                if self.0.contains_key(target) {
                    return Err(Refused::AlreadyExists(Box::new(target.clone())));
                }
                let mut object = object.clone();
                let metadata = entry(&mut object, "metadata");
                metadata.insert("resourceVersion".to_owned(), "1".into());
                metadata.insert("generation".to_owned(), 1.into());
                self.0.insert(target.clone(), object);
            }
            Write::Patch { target, patch } => {
                let object = self.0.get_mut(target).ok_or_else(|| Refused::NotFound(Box::new(target.clone())))?;
                let version = text(object, "/metadata/resourceVersion").unwrap_or_default().to_owned();
                if let Some(expected) = text(patch, "/metadata/resourceVersion")
                    && expected != version
                {
                    return Err(Refused::Conflict {
                        target: Box::new(target.clone()),
                        found: version,
                        expected: expected.to_owned(),
                    });
                }
                let before = without_metadata(object);
                patch::merge_apply(object, patch);
                let changed = without_metadata(object) != before;
                let generation = object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
                let metadata = entry(object, "metadata");
                let next = version.parse::<u64>().unwrap_or(0) + 1;
                metadata.insert("resourceVersion".to_owned(), next.to_string().into());
                metadata.insert("generation".to_owned(), (generation + i64::from(changed)).into());
            }
            Write::Delete { target, .. } => {
                self.0.remove(target).ok_or_else(|| Refused::NotFound(Box::new(target.clone())))?;
            }
        }
        Ok(())
    }
}

fn without_metadata(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("metadata");
        map.remove("status");
    }
    object
}

/// The text at a JSON pointer.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// The list at a JSON pointer; an empty one when there is none.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The map under `key`, made when it is not there.
pub(crate) fn entry<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    map(map(value).entry(key).or_insert(Value::Null))
}

/// `value` as a map; what is no map is replaced by an empty one.
pub(crate) fn map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        // The line above has just made it an object.
        _ => unreachable!("a JSON object"),
    }
}

/// Sets or, with `None`, removes `metadata.<field>[key]`. An emptied map is removed as well.
pub(crate) fn set_metadata(object: &mut Value, field: &str, key: &str, value: Option<&str>) {
    match value {
        Some(value) => {
            map(entry(object, "metadata").entry(field).or_insert(Value::Null)).insert(key.to_owned(), value.into());
        }
        None => {
            let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
            let emptied = match metadata.get_mut(field).and_then(Value::as_object_mut) {
                Some(map) => map.remove(key).is_some() && map.is_empty(),
                None => false,
            };
            if emptied {
                metadata.remove(field);
            }
        }
    }
}

/// One label or annotation of an object.
pub(crate) fn metadata<'a>(object: &'a Value, field: &str, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get(field)?.get(key)?.as_str()
}

/// Whether the object's controlling owner is the Rollout of that name.
pub(crate) fn owned_by(object: &Value, rollout: &str) -> bool {
    list(object, "/metadata/ownerReferences").iter().any(|owner| {
        owner.get("kind").and_then(Value::as_str) == Some("Rollout")
            && owner.get("name").and_then(Value::as_str) == Some(rollout)
    })
}

/// Whether `labels` match `selector`. An empty selector matches everything.
pub(crate) fn selects(selector: &LabelSelector, object: &Value) -> bool {
    let label = |key: &str| metadata(object, "labels", key);
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| label(key) == Some(value.as_str()));
    equal
        && selector.match_expressions.iter().flatten().all(|wanted| {
            let values = wanted.values.as_deref().unwrap_or_default();
            let found = label(&wanted.key);
            let listed = found.is_some_and(|found| values.iter().any(|value| value == found));
            match wanted.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}
