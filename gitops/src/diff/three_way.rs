//! What client-side apply makes of an object: fields that were applied and are no longer said go, fields that are said
//! are set, all others stay.

use super::shape::{self, Shape};
use super::{identity, is_unique, same_scalar};
use crate::object;
use serde_json::{Map, Value};

/// The object that applying `target` makes of `live`, given what was applied last.
///
/// Lists of built-in kinds merge by their known keys, lists of other kinds are replaced as a whole. `target` is the whole
/// of what is said from now on; `null` in it asks for the removal of a field. What the API server keeps for itself
/// (`status`, `metadata.uid`, …) should not be in `target`.
pub fn apply_three_way(last_applied: Option<&Value>, live: &Value, target: &Value) -> Value {
    let shape = shape::of(object::group(target), object::kind(target));
    merge(shape, last_applied, Some(live), target)
}

fn merge(shape: &Shape, last: Option<&Value>, live: Option<&Value>, target: &Value) -> Value {
    match (target, live) {
        (Value::Object(target), live) => {
            let empty = Map::new();
            let live = live.and_then(Value::as_object).unwrap_or(&empty);
            Value::Object(merge_map(shape, last.and_then(Value::as_object), live, target))
        }
        (Value::Array(target), Some(Value::Array(live))) => {
            let last = last.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            Value::Array(merge_list(shape, last, live, target))
        }
        // Another spelling of the same amount is left as it is.
        (_, Some(live)) if !target.is_array() && same_scalar(shape, target, live) => live.clone(),
        _ => target.clone(),
    }
}

fn merge_map(
    shape: &Shape,
    last: Option<&Map<String, Value>>,
    live: &Map<String, Value>,
    target: &Map<String, Value>,
) -> Map<String, Value> {
    let mut merged = live.clone();
    for key in last.into_iter().flat_map(Map::keys).filter(|key| !target.contains_key(*key)) {
        merged.remove(key);
    }
    for (key, wanted) in target {
        if wanted.is_null() {
            merged.remove(key);
            continue;
        }
        let value = merge(shape.field(key), last.and_then(|l| l.get(key)), live.get(key), wanted);
        merged.insert(key.clone(), value);
    }
    if matches!(shape, Shape::Union(_)) && merged != *live {
        merged.retain(|key, _| target.contains_key(key));
    }
    merged
}

fn merge_list(shape: &Shape, last: &[Value], live: &[Value], target: &[Value]) -> Vec<Value> {
    match shape {
        Shape::Keyed { keys, item, .. } => {
            let ids = |list: &[Value]| list.iter().map(|v| identity(keys, v)).collect::<Option<Vec<_>>>();
            match (ids(live), ids(target)) {
                (Some(live_ids), Some(target_ids)) if is_unique(&live_ids) && is_unique(&target_ids) => {
                    let last_ids = ids(last).unwrap_or_default();
                    let find = |list: &[Value], ids: &[Vec<Value>], id: &Vec<Value>| {
                        ids.iter().position(|i| i == id).and_then(|index| list.get(index).cloned())
                    };
                    let mut merged: Vec<Value> = target
                        .iter()
                        .zip(&target_ids)
                        .map(|(wanted, id)| {
                            let (applied, found) = (find(last, &last_ids, id), find(live, &live_ids, id));
                            merge(item, applied.as_ref(), found.as_ref(), wanted)
                        })
                        .collect();
                    // Elements of others keep their place relative to the element before them, as far as that is there.
                    let mut order = target_ids.clone();
                    for (index, (found, id)) in live.iter().zip(&live_ids).enumerate() {
                        if target_ids.contains(id) || last_ids.contains(id) {
                            continue;
                        }
                        let before = live_ids[..index].iter().rev().find_map(|b| order.iter().position(|o| o == b));
                        let at = before.map_or(0, |b| b + 1);
                        order.insert(at, id.clone());
                        merged.insert(at, found.clone());
                    }
                    merged
                }
                _ => target.to_vec(),
            }
        }
        Shape::Set => {
            let kept = live.iter().filter(|v| target.contains(v) || !last.contains(v));
            let mut merged: Vec<Value> = kept.cloned().collect();
            merged.extend(target.iter().filter(|v| !live.contains(v)).cloned());
            merged
        }
        _ => target.to_vec(),
    }
}

#[cfg(test)]
#[path = "three_way_tests.rs"]
mod tests;
