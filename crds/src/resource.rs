//! Makes a Kubernetes resource out of a spec and a status.

/// Declares a custom resource with `metadata`, `spec` and `status`, decoded field by field (see [`crate::decode`]) and
/// serialised with its `apiVersion` and `kind`. Extra top-level fields follow after `extra`.
macro_rules! custom_resource {
    ($(#[$doc:meta])* $kind:ident, $plural:literal, $scope:ty, $spec:ty, $status:ty $(, extra { $($(#[$fdoc:meta])* $field:ident : $ftype:ty),* })?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $kind {
            /// Standard object metadata.
            pub metadata: $crate::ObjectMeta,
            /// What the user asks for.
            pub spec: $spec,
            /// What the controller found and did.
            pub status: $status,
            $($($(#[$fdoc])* pub $field: Option<$ftype>,)*)?
        }

        impl $kind {
            /// The `kind` of this resource.
            pub const KIND: &'static str = stringify!($kind);
            /// The plural of this resource, as it stands in URLs.
            pub const PLURAL: &'static str = $plural;

            /// Reads an object, and says which fields did not fit and were left out.
            ///
            /// # Errors
            /// When `metadata` is not object metadata: such a value is no Kubernetes object at all.
            pub fn decode(mut value: serde_json::Value) -> Result<(Self, Vec<$crate::decode::Dropped>), serde_json::Error> {
                let mut dropped = Vec::new();
                let metadata = match value.get_mut("metadata") {
                    Some(metadata) => serde_json::from_value(metadata.take())?,
                    None => Default::default(),
                };
                let mut part = |name: &str| value.get_mut(name).map(serde_json::Value::take);
                let spec = $crate::resource::part("spec", part("spec"), &mut dropped);
                let status = $crate::resource::part("status", part("status"), &mut dropped);
                $($(let $field = part(stringify!($field)).filter(|v| !v.is_null()).map(|v| $crate::resource::part(stringify!($field), Some(v), &mut dropped));)*)?
                Ok((Self { metadata, spec, status, $($($field,)*)? }, dropped))
            }

            /// The object's name, or an empty string for one that was never stored.
            pub fn name(&self) -> &str {
                self.metadata.name.as_deref().unwrap_or_default()
            }

            /// The object's namespace, or an empty string for a cluster-scoped one.
            pub fn namespace(&self) -> &str {
                self.metadata.namespace.as_deref().unwrap_or_default()
            }
        }

        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = serde_json::Value::deserialize(deserializer)?;
                Self::decode(value).map(|(object, _)| object).map_err(serde::de::Error::custom)
            }
        }

        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap;
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("apiVersion", $crate::API_VERSION)?;
                map.serialize_entry("kind", Self::KIND)?;
                map.serialize_entry("metadata", &self.metadata)?;
                map.serialize_entry("spec", &self.spec)?;
                if self.status != Default::default() {
                    map.serialize_entry("status", &self.status)?;
                }
                $($(if let Some(field) = &self.$field {
                    map.serialize_entry(stringify!($field), field)?;
                })*)?
                map.end()
            }
        }

        impl kube::Resource for $kind {
            type DynamicType = ();
            type Scope = $scope;
            fn kind(_: &()) -> std::borrow::Cow<'_, str> {
                Self::KIND.into()
            }
            fn group(_: &()) -> std::borrow::Cow<'_, str> {
                $crate::GROUP.into()
            }
            fn version(_: &()) -> std::borrow::Cow<'_, str> {
                $crate::VERSION.into()
            }
            fn plural(_: &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &$crate::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut $crate::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
pub(crate) use custom_resource;

/// Decodes one top-level part of an object and adds what was dropped, with the part's name before each path.
pub(crate) fn part<T: serde::de::DeserializeOwned + Default>(
    name: &str,
    value: Option<serde_json::Value>,
    dropped: &mut Vec<crate::decode::Dropped>,
) -> T {
    let Some(value) = value.filter(|v| !v.is_null()) else { return T::default() };
    let (decoded, lost) = crate::decode::lenient(value);
    dropped.extend(lost.into_iter().map(|d| crate::decode::Dropped {
        path: if d.path == "." { name.to_owned() } else { format!("{name}.{}", d.path) },
        reason: d.reason,
    }));
    decoded
}
