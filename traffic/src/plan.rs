//! What a router wants done, or why it cannot say.

use crate::ObjectRef;
use serde_json::{Value, json};
use tidegate_crds::patch;

/// One change to one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Make the object.
    Create {
        /// Which.
        target: ObjectRef,
        /// The whole object.
        object: Value,
    },
    /// Change the object.
    Patch {
        /// Which.
        target: ObjectRef,
        /// A JSON merge patch (RFC 7386). It names the resourceVersion that it is based on, so that it is refused when
        /// the object has changed since: lists are replaced whole and must not undo somebody else's change.
        patch: Value,
    },
    /// Remove the object.
    Delete {
        /// Which.
        target: ObjectRef,
        /// Only while it is at this resourceVersion, when one is known.
        resource_version: Option<String>,
    },
}

impl Write {
    /// The object that is changed.
    pub fn target(&self) -> &ObjectRef {
        match self {
            Self::Create { target, .. } | Self::Patch { target, .. } | Self::Delete { target, .. } => target,
        }
    }

    /// The patch that turns `before` into `after`; `None` when they are equal.
    pub(crate) fn patch(target: &ObjectRef, before: &Value, after: &Value) -> Option<Self> {
        let mut patch = patch::merge_diff(before, after)?;
        if let Some(version) = before.pointer("/metadata/resourceVersion") {
            crate::object::entry(&mut patch, "metadata").insert("resourceVersion".to_owned(), version.clone());
        }
        Some(Self::Patch { target: target.clone(), patch })
    }

    /// Removes the object that was seen as `object`.
    pub(crate) fn delete(target: &ObjectRef, object: &Value) -> Self {
        let resource_version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str).map(str::to_owned);
        Self::Delete { target: target.clone(), resource_version }
    }
}

/// An event for the Rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterEvent {
    /// Warning, or normal.
    pub warning: bool,
    /// Reason in one word.
    pub reason: &'static str,
    /// Reason in a sentence.
    pub message: String,
}

/// What a router wants done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Changes, in the order in which they have to be made. Empty when everything is as wanted.
    pub writes: Vec<Write>,
    /// Whether the data plane has taken what is wanted: `None` when this router cannot tell, `Some(false)` as long as
    /// there are writes to make or the data plane has not reported them.
    pub verified: Option<bool>,
    /// Events that go with the writes.
    pub events: Vec<RouterEvent>,
    /// Why `verified` is `Some(false)`.
    pub pending: Option<String>,
}

impl Plan {
    /// Adds the patch from `before` to `after`, with its event, when there is a difference.
    pub(crate) fn update(
        &mut self,
        target: &ObjectRef,
        before: &Value,
        after: &Value,
        reason: &'static str,
        message: impl FnOnce() -> String,
    ) {
        if let Some(write) = Write::patch(target, before, after) {
            self.writes.push(write);
            self.events.push(RouterEvent { warning: false, reason, message: message() });
        }
    }

    /// Adds the creation of an object, with its event.
    pub(crate) fn create(&mut self, target: &ObjectRef, object: Value, reason: &'static str, message: String) {
        self.writes.push(Write::Create { target: target.clone(), object });
        self.events.push(RouterEvent { warning: false, reason, message });
    }

    /// This plan, and after it the other.
    pub(crate) fn then(mut self, next: Self) -> Self {
        self.writes.extend(next.writes);
        self.events.extend(next.events);
        self.verified = match (self.verified, next.verified) {
            (Some(one), Some(other)) => Some(one && other),
            (one, other) => one.or(other),
        };
        self.pending = self.pending.or(next.pending);
        self
    }

    /// Takes what one object tells about the data plane into account. One `false` makes the whole false.
    pub(crate) fn observe(&mut self, observation: Observation) {
        match observation {
            Observation::Unknown => {}
            Observation::Taken => self.verified = Some(self.verified.unwrap_or(true)),
            Observation::Pending(why) => {
                self.verified = Some(false);
                self.pending.get_or_insert(why);
            }
        }
    }
}

/// What an object's status tells about the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Observation {
    /// Nothing.
    Unknown,
    /// It has taken the current spec.
    Taken,
    /// It has not, and why.
    Pending(String),
}

/// Why a router cannot plan. Every variant names the object, the field, what was found and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouterError {
    /// An object that has to exist does not.
    #[error("{target} does not exist: {expected}")]
    NotFound {
        /// The object.
        target: Box<ObjectRef>,
        /// Who expects it.
        expected: String,
    },
    /// An object is not as it has to be.
    #[error("{target}: {field}: found {found}, expected {expected}")]
    Unfit {
        /// The object.
        target: Box<ObjectRef>,
        /// Path of the field.
        field: String,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// The Rollout's own configuration of the router cannot be used.
    #[error("{field}: found {found}, expected {expected}")]
    Config {
        /// Path of the field in the Rollout.
        field: String,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// The router cannot do what a step asks for.
    #[error("router {router} does not support {feature}")]
    Unsupported {
        /// The router.
        router: String,
        /// What was asked for.
        feature: &'static str,
    },
}

impl RouterError {
    pub(crate) fn not_found(target: &ObjectRef, expected: impl Into<String>) -> Self {
        Self::NotFound { target: Box::new(target.clone()), expected: expected.into() }
    }

    pub(crate) fn unfit(
        target: &ObjectRef,
        field: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Unfit {
            target: Box::new(target.clone()),
            field: field.into(),
            found: found.into(),
            expected: expected.into(),
        }
    }

    pub(crate) fn config(field: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Config { field: field.into(), found: found.into(), expected: expected.into() }
    }

    /// The reason of the event that tells users of it, as their log filters know it.
    pub fn event_reason(&self) -> &'static str {
        match self {
            Self::NotFound { target, .. } => match target.kind.as_str() {
                "VirtualService" => "VirtualServiceNotFound",
                "DestinationRule" => "DestinationRuleNotFound",
                "Mapping" | "AmbassadorMapping" => "AmbassadorMappingNotFound",
                "VirtualNode" => "VirtualNodeNotFound",
                "VirtualRouter" => "VirtualRouterNotFound",
                _ => "TrafficRoutingError",
            },
            Self::Unfit { target, .. } => match target.kind.as_str() {
                "Mapping" | "AmbassadorMapping" => "AmbassadorMappingConfigError",
                "TraefikService" => "TraefikServiceUpdateError",
                "TrafficSplit" => "TrafficSplitNotCreated",
                _ => "TrafficRoutingError",
            },
            Self::Config { .. } | Self::Unsupported { .. } => "TrafficRoutingError",
        }
    }
}

/// Whether `actual` already is what `wanted` asks for. An API server fills in defaults, so `actual` may hold more fields
/// than `wanted`, but none of `exclusive`, whose absence means something. Lists are equal when their elements are.
pub(crate) fn covers(actual: &Value, wanted: &Value, exclusive: &[&str]) -> bool {
    match (actual, wanted) {
        (Value::Object(actual), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| actual.get(key).is_some_and(|found| covers(found, value, exclusive)))
                && exclusive.iter().all(|key| !actual.contains_key(*key) || wanted.contains_key(*key))
        }
        (Value::Array(actual), Value::Array(wanted)) => {
            actual.len() == wanted.len() && actual.iter().zip(wanted).all(|(a, w)| covers(a, w, exclusive))
        }
        _ => actual == wanted,
    }
}

/// A regular expression for texts that begin with `prefix`, wherever the data plane looks for it in the text.
pub(crate) fn prefix_regex(prefix: &str) -> String {
    let mut regex = String::from("^");
    for c in prefix.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            regex.push('\\');
        }
        regex.push(c);
    }
    regex.push_str(".*");
    regex
}

/// `name`, cut to at most `max` bytes.
pub(crate) fn shortened(name: &str, max: usize) -> String {
    let mut end = name.len().min(max);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

/// The owner reference as it stands in an object.
pub(crate) fn owner(owner: &tidegate_crds::OwnerReference) -> Value {
    serde_json::to_value(owner).unwrap_or_else(|_| json!({}))
}
