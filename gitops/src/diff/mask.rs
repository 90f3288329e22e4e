//! Secrets as they may be shown: one can see that a value changed, not what it is.

use crate::normalize::{self, LAST_APPLIED};
use crate::object;
use serde_json::Value;

/// Replaces the values of a Secret in all of `sides` (target, live, …) by `+` signs, whose number differs from value to
/// value. Objects of other kinds are left alone. `annotations` names further annotations to hide.
pub fn mask(sides: &mut [&mut Value], annotations: &[&str]) {
    let mut seen: Vec<Value> = Vec::new();
    for side in sides.iter_mut() {
        if !(object::kind(side) == "Secret" && object::group(side).is_empty()) {
            continue;
        }
        normalize::fold_string_data(side);
        // What was applied last holds the values once more.
        if let Some(last) = object::annotation(side, LAST_APPLIED) {
            let masked = match serde_json::from_str::<Value>(last) {
                Ok(mut last) => {
                    normalize::fold_string_data(&mut last);
                    hide(&mut last, annotations, &mut seen);
                    last.to_string()
                }
                Err(_) => "++++++++".to_owned(),
            };
            object::set_annotation(side, LAST_APPLIED, &masked);
        }
        hide(side, annotations, &mut seen);
    }
}

fn hide(secret: &mut Value, annotations: &[&str], seen: &mut Vec<Value>) {
    let mut cover = |value: &mut Value| {
        let index = seen.iter().position(|s| s == value).unwrap_or_else(|| {
            seen.push(value.clone());
            seen.len() - 1
        });
        *value = "+".repeat(8 + index).into();
    };
    if let Some(data) = secret.get_mut("data").and_then(Value::as_object_mut) {
        data.values_mut().for_each(&mut cover);
    }
    if let Some(map) = secret.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        map.iter_mut().filter(|(key, _)| annotations.contains(&key.as_str())).for_each(|(_, value)| cover(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_hidden_and_changes_are_seen() {
        let secret = |value: &str| {
            json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"same": "s3cret", "changed": value},
                "metadata": {"annotations": {"hidden": "s3cret", "shown": "x",
                    LAST_APPLIED: json!({"kind": "Secret", "stringData": {"same": "s3cret"}}).to_string()}}})
        };
        let (mut target, mut live) = (secret("new"), secret("old"));
        mask(&mut [&mut target, &mut live], &["hidden"]);
        assert_eq!(target["data"]["same"], live["data"]["same"]);
        assert_ne!(target["data"]["changed"], live["data"]["changed"]);
        assert_eq!(target["metadata"]["annotations"]["shown"], "x");
        for side in [target, live] {
            let text = side.to_string();
            assert!(!text.contains("s3cret") && !text.contains("czNjcmV0"), "{text}");
        }
    }

    #[test]
    fn other_kinds_are_left_alone() {
        let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}});
        let before = map.clone();
        mask(&mut [&mut map], &[]);
        assert_eq!(map, before);
    }
}
