//! Reading objects without their `managedFields`: half of what the API server sends, and nothing that a rollout looks at.

use kube::core::{ApiResource, ObjectMeta};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;

/// Any JSON. Of an object, `metadata.managedFields` is skipped while reading.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lean(pub Value);

impl<'de> Deserialize<'de> for Lean {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields { skip: "", inside: "metadata" }).map(Self)
    }
}

/// The fields of an object, without `skip`; those of `inside` are read without `managedFields`.
struct Fields {
    skip: &'static str,
    inside: &'static str,
}

impl<'de> Visitor<'de> for Fields {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if key == self.skip {
                access.next_value::<IgnoredAny>()?;
            } else if key == self.inside {
                map.insert(key, access.next_value_seed(Fields { skip: "managedFields", inside: "" })?);
            } else {
                map.insert(key, access.next_value()?);
            }
        }
        Ok(Value::Object(map))
    }
}

impl<'de> DeserializeSeed<'de> for Fields {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// An object of any kind, as a watch brings it.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    /// What the watch itself goes by.
    meta: ObjectMeta,
    /// The object without its `managedFields`.
    pub value: Value,
}

impl<'de> Deserialize<'de> for Watched {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Lean(value) = Lean::deserialize(deserializer)?;
        let text = |name: &str| value.get("metadata")?.get(name)?.as_str().map(str::to_owned);
        let meta = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Self { meta, value })
    }
}

impl kube::Resource for Watched {
    type DynamicType = ApiResource;
    type Scope = kube::core::DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }

    fn api_version(kind: &ApiResource) -> Cow<'_, str> {
        kind.api_version.as_str().into()
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_the_managed_fields_of_the_object_alone() {
        let text = r#"{"kind": "Pod", "metadata": {"name": "a", "managedFields": [{"manager": "m"}], "resourceVersion": "7"},
            "spec": {"metadata": {"managedFields": 1}, "managedFields": null}, "managedFields": 2}"#;
        let watched: Watched = serde_json::from_str(text).unwrap();
        let expected = serde_json::json!({"kind": "Pod", "metadata": {"name": "a", "resourceVersion": "7"},
            "spec": {"metadata": {"managedFields": 1}, "managedFields": null}, "managedFields": 2});
        assert_eq!(watched.value, expected);
        assert_eq!(watched.meta.resource_version.as_deref(), Some("7"));
        assert_eq!(
            serde_json::from_str::<Lean>(r#"{"metadata": null}"#).unwrap().0,
            serde_json::json!({"metadata": null})
        );
        assert!(serde_json::from_str::<Lean>("[1]").is_err());
    }
}
