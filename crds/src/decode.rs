//! Lenient decoding.
//!
//! Other controllers of this API skip a field whose type does not fit and keep the object; users have such objects in
//! their clusters. So a decode that fails is repeated without the field that failed, and says which fields were left
//! out. The controller works with what is left, `lint` and the admission webhook report the list.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// A field that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Where, as `spec.strategy.canary.steps[0].setWeight`.
    pub path: String,
    /// What was found and what was expected.
    pub reason: String,
}

/// How many fields are dropped one after another before decoding gives up and returns the default.
const MAX_DROPPED: usize = 64;

/// Reads `value` as `T`, leaving out fields that do not fit. Returns the default of `T` when nothing can be read.
pub fn lenient<T: DeserializeOwned + Default>(mut value: Value) -> (T, Vec<Dropped>) {
    let (decoded, dropped) = attempt(&mut value);
    (decoded.unwrap_or_default(), dropped)
}

/// The value itself without the fields that do not fit `T`; fields that `T` does not know stay.
pub fn cleaned<T: DeserializeOwned>(mut value: Value) -> (Value, Vec<Dropped>) {
    let (_, dropped) = attempt::<T>(&mut value);
    (value, dropped)
}

fn attempt<T: DeserializeOwned>(value: &mut Value) -> (Option<T>, Vec<Dropped>) {
    // The rule, and cheaper than keeping track of where one is.
    if let Ok(decoded) = T::deserialize(&*value) {
        return (Some(decoded), Vec::new());
    }
    let mut dropped = Vec::new();
    while dropped.len() < MAX_DROPPED {
        let failure = match serde_path_to_error::deserialize::<_, T>(&*value) {
            Ok(decoded) => return (Some(decoded), dropped),
            Err(error) => error,
        };
        let path = failure.path().clone();
        let removed = remove(value, &path);
        // A null says no more than an absent field: templates leave an empty `key:` behind.
        if removed != Some(Value::Null) {
            dropped.push(Dropped { path: path.to_string(), reason: failure.inner().to_string() });
        }
        if removed.is_none() {
            break;
        }
    }
    (None, dropped)
}

/// Removes what `path` names and returns it. An element of a list is removed with the list's later elements moving up.
/// None when the path names nothing that can be removed.
fn remove(value: &mut Value, path: &Path) -> Option<Value> {
    let segments: Vec<&Segment> =
        path.iter().filter(|s| matches!(s, Segment::Map { .. } | Segment::Seq { .. })).collect();
    let (last, parents) = segments.split_last()?;
    let mut at = value;
    for segment in parents {
        at = match segment {
            Segment::Map { key } => at.get_mut(key.as_str()),
            Segment::Seq { index } => at.get_mut(*index),
            _ => None,
        }?;
    }
    match (last, at) {
        (Segment::Map { key }, Value::Object(map)) => map.remove(key.as_str()),
        (Segment::Seq { index }, Value::Array(list)) if *index < list.len() => Some(list.remove(*index)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Default, Deserialize, Debug, PartialEq)]
    #[serde(default)]
    struct Inner {
        number: Option<i64>,
        text: Option<String>,
    }
    #[derive(Default, Deserialize, Debug, PartialEq)]
    #[serde(default)]
    struct Outer {
        inner: Inner,
        list: Vec<Inner>,
    }

    #[test]
    fn keeps_the_object_around_a_bad_field() {
        let (outer, dropped) = lenient::<Outer>(json!({
            "inner": {"number": "seven", "text": "kept"},
            "list": [{"number": 1}, {"number": {}}, {"text": 5, "number": 3}],
        }));
        assert_eq!(outer.inner, Inner { number: None, text: Some("kept".into()) });
        assert_eq!(outer.list.len(), 3);
        assert_eq!(outer.list[2].number, Some(3));
        let paths: Vec<_> = dropped.iter().map(|d| d.path.as_str()).collect();
        assert_eq!(paths, ["inner.number", "list[1].number", "list[2].text"]);
    }

    #[test]
    fn a_null_is_an_absent_field() {
        let (outer, dropped) =
            lenient::<Outer>(json!({"inner": null, "list": [null, {"number": null, "text": "kept"}]}));
        assert_eq!(dropped, []);
        assert_eq!(outer.list, [Inner { number: None, text: Some("kept".into()) }]);
    }

    #[test]
    fn gives_the_default_when_the_root_does_not_fit() {
        let (outer, dropped) = lenient::<Outer>(json!("text"));
        assert_eq!(outer, Outer::default());
        assert_eq!(dropped.len(), 1);
    }
}
