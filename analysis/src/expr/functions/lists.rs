//! Lists and maps.

use crate::expr::eval::Budget;
use crate::expr::operators::{self, equal, too_large};
use crate::expr::value::{Key, List, Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) fn call(budget: &mut Budget, name: &str, arguments: &[Value]) -> Result<Value, String> {
    let a = arguments.first().unwrap_or(&Value::Nil);
    match name {
        "first" => Ok(operators::member(a, &Value::Int(0)).unwrap_or(Value::Nil)),
        "last" => Ok(operators::member(a, &Value::Int(-1)).unwrap_or(Value::Nil)),
        "keys" => {
            let keys = map(name, a)?.entries().keys().map(Key::value);
            Value::list(keys.collect()).map_err(|_| too_large())
        }
        "values" => Value::list(map(name, a)?.entries().values().cloned().collect()).map_err(|_| too_large()),
        "toPairs" => {
            let pairs = map(name, a)?.entries().iter().map(|(k, v)| Value::list(vec![k.value(), v.clone()]));
            let pairs = pairs.collect::<Result<Vec<_>, _>>().map_err(|_| too_large())?;
            Value::list(pairs).map_err(|_| too_large())
        }
        "fromPairs" => from_pairs(list(name, a)?),
        "concat" => {
            let mut items = Vec::new();
            for argument in arguments {
                let part = list(name, argument)?.items();
                budget.steps(part.len() as u64)?;
                items.extend_from_slice(part);
            }
            Value::list(items).map_err(|_| too_large())
        }
        _ => {
            let source = list(name, a)?;
            budget.steps(source.items().len() as u64)?;
            on_list(budget, name, source, arguments.get(1))
        }
    }
}

fn on_list(budget: &mut Budget, name: &str, source: &List, second: Option<&Value>) -> Result<Value, String> {
    let items = source.items();
    let done = match name {
        "take" => {
            let count = match second {
                Some(Value::Int(n)) => *n,
                other => {
                    let found = other.unwrap_or(&Value::Nil).type_name();
                    return Err(format!("cannot take {found} elements"));
                }
            };
            let Ok(count) = usize::try_from(count) else {
                return Err(format!("cannot take {count} elements: a count is not negative"));
            };
            return Value::list_of(items[..count.min(items.len())].to_vec(), source.elements())
                .map_err(|_| too_large());
        }
        "reverse" => items.iter().rev().cloned().collect(),
        "uniq" => {
            let mut seen: Vec<Value> = Vec::new();
            for item in items {
                budget.steps(seen.len() as u64)?;
                if !seen.iter().any(|s| equal(s, item)) {
                    seen.push(item.clone());
                }
            }
            seen
        }
        "flatten" => {
            let mut flat = Vec::new();
            flatten(budget, items, &mut flat)?;
            flat
        }
        _ => {
            let descending = descending(second)?;
            sorted(items, descending)?.into_iter().filter_map(|i| items.get(i).cloned()).collect()
        }
    };
    Value::list(done).map_err(|_| too_large())
}

fn flatten(budget: &mut Budget, items: &[Value], into: &mut Vec<Value>) -> Result<(), String> {
    budget.steps(items.len() as u64)?;
    for item in items {
        match item {
            Value::List(list) => flatten(budget, list.items(), into)?,
            other => into.push(other.clone()),
        }
    }
    Ok(())
}

fn from_pairs(source: &List) -> Result<Value, String> {
    let mut entries = BTreeMap::new();
    for pair in source.items() {
        let Value::List(pair) = pair else { return Err(format!("invalid pair: a value of type {}", pair.type_name())) };
        let [key, value] = pair.items() else {
            return Err(format!("invalid pair length {} (expected 2)", pair.items().len()));
        };
        let key = Key::of(key).ok_or_else(|| format!("cannot use {} as map key", key.type_name()))?;
        entries.insert(key, value.clone());
    }
    Value::map(entries, true).map_err(|_| too_large())
}

fn list<'a>(name: &str, value: &'a Value) -> Result<&'a List, String> {
    match value {
        Value::List(list) => Ok(list),
        _ => Err(format!("cannot {name} {}", value.type_name())),
    }
}

fn map<'a>(name: &str, value: &'a Value) -> Result<&'a Map, String> {
    match value {
        Value::Map(map) => Ok(map),
        _ => Err(format!("cannot get {name} from {}", value.type_name())),
    }
}

/// Reads the order argument of a sort.
pub(in crate::expr) fn descending(order: Option<&Value>) -> Result<bool, String> {
    match order {
        None => Ok(false),
        Some(Value::Str(order)) if &**order == "asc" => Ok(false),
        Some(Value::Str(order)) if &**order == "desc" => Ok(true),
        Some(Value::Str(order)) => Err(format!("invalid order {order}, expected asc or desc")),
        Some(other) => Err(format!("sort order argument must be a string (got {})", other.type_name())),
    }
}

/// The places of the keys in ascending or descending order; equal keys keep theirs.
///
/// # Errors
/// When two keys can not be compared.
pub(in crate::expr) fn sorted(keys: &[Value], descending: bool) -> Result<Vec<usize>, String> {
    if keys.len() < 2 {
        return Ok((0..keys.len()).collect());
    }
    let first = &keys[0];
    // A comparison that is no total order would make sorting panic, so every kind is brought to one that is.
    match first {
        Value::Int(_) | Value::Float(_) if keys.iter().all(|k| matches!(k, Value::Int(_))) => {
            order(keys, descending, |k| operators::int(k).ok())
        }
        Value::Int(_) | Value::Float(_) => order(keys, descending, |k| operators::float(k).map(Total)),
        Value::Str(_) => order(keys, descending, |k| match k {
            Value::Str(text) => Some(Arc::clone(text)),
            _ => None,
        }),
        Value::Time(_) => order(keys, descending, |k| match k {
            Value::Time(time) => Some(time.timestamp()),
            _ => None,
        }),
        Value::Duration(_) => order(keys, descending, |k| match k {
            Value::Duration(nanos) => Some(*nanos),
            _ => None,
        }),
        _ => Err(incomparable(first, &keys[1])),
    }
}

fn order<K: Ord>(keys: &[Value], descending: bool, key: impl Fn(&Value) -> Option<K>) -> Result<Vec<usize>, String> {
    let mut pairs = Vec::with_capacity(keys.len());
    for (place, value) in keys.iter().enumerate() {
        let Some(key) = key(value) else { return Err(incomparable(&keys[0], value)) };
        pairs.push((key, place));
    }
    pairs.sort_by(|(a, _), (b, _)| if descending { b.cmp(a) } else { a.cmp(b) });
    Ok(pairs.into_iter().map(|(_, place)| place).collect())
}

fn incomparable(a: &Value, b: &Value) -> String {
    format!("invalid operation: {} < {}", a.type_name(), b.type_name())
}

/// A float in a total order, where the two zeros are equal and not-a-number is first.
struct Total(f64);

impl Ord for Total {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.partial_cmp(&other.0).unwrap_or_else(|| other.0.is_nan().cmp(&self.0.is_nan()))
    }
}

impl PartialOrd for Total {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Total {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Total {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_floats_can_be_sorted() {
        let keys = [f64::NAN, 1.0, -0.0, f64::INFINITY, 0.0, f64::NAN, -1.0].map(Value::Float);
        assert_eq!(sorted(&keys, false), Ok(vec![0, 5, 6, 2, 4, 1, 3]));
    }

    #[test]
    fn elements_of_one_kind_only() {
        assert!(sorted(&[Value::Int(1), Value::text("a")], false).is_err());
        assert!(sorted(&[Value::Bool(true), Value::Bool(false)], false).is_err());
        assert_eq!(sorted(&[Value::Bool(true)], false), Ok(vec![0]));
        assert_eq!(Value::list(vec![]).map(|l| l.type_name()), Ok("[]interface {}"));
    }
}
