//! JSON merge patches (RFC 7386): only what changed, and `null` for what is gone.

use serde_json::{Map, Value};

/// The merge patch that turns `from` into `to`, or `None` when they are equal. Lists are replaced whole.
pub fn merge_diff(from: &Value, to: &Value) -> Option<Value> {
    if from == to {
        return None;
    }
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return Some(to.clone()) };
    let mut patch = Map::new();
    for (key, new) in to {
        match from.get(key) {
            None => {
                patch.insert(key.clone(), new.clone());
            }
            Some(old) => {
                if let Some(change) = merge_diff(old, new) {
                    patch.insert(key.clone(), change);
                }
            }
        }
    }
    for key in from.keys().filter(|k| !to.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    Some(Value::Object(patch))
}

/// Applies the merge patch `patch` to `target`.
pub fn merge_apply(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge_apply(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn names_only_what_changed() {
        let from = json!({"a": 1, "b": {"c": 1, "d": 2}, "gone": true, "list": [1]});
        let to = json!({"a": 1, "b": {"c": 1, "d": 3}, "list": [1, 2], "new": "x"});
        let patch = merge_diff(&from, &to);
        assert_eq!(patch, Some(json!({"b": {"d": 3}, "gone": null, "list": [1, 2], "new": "x"})));
        assert_eq!(merge_diff(&from, &from), None);
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_diff_applied_gives_the_target(from in json_value(), to in json_value()) {
            let mut got = from.clone();
            if let Some(patch) = merge_diff(&from, &to) {
                merge_apply(&mut got, &patch);
            }
            prop_assert_eq!(got, to);
        }
    }
}
