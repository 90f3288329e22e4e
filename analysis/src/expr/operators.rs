//! What operators do to values.

use super::ast::{Binary, Order};
use super::value::{Elements, Key, Value};
use jiff::SignedDuration;
use std::cmp::Ordering;
use std::sync::Arc;

/// A number as a float; none for what is no number.
pub(super) fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Int(v) => Some(*v as f64),
        Value::Float(v) => Some(*v),
        _ => None,
    }
}

/// A number as an integer, its fraction cut off, and kept within the range.
pub(super) fn int(value: &Value) -> Result<i64, String> {
    match value {
        Value::Int(v) => Ok(*v),
        Value::Float(v) => Ok(*v as i64),
        _ => Err(format!("invalid operation: int({})", value.type_name())),
    }
}

/// The language's `==`: numbers compare across types, lists by element.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => float(a) == float(b),
        (Value::List(a), Value::List(b)) => {
            a.items().len() == b.items().len() && a.items().iter().zip(b.items()).all(|(a, b)| equal(a, b))
        }
        _ => identical(a, b),
    }
}

/// As [`equal`], but values of different types differ. This is how maps are compared.
fn identical(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Nil, Value::Nil) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) | (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => a == b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Time(a), Value::Time(b)) => a.timestamp() == b.timestamp(),
        (Value::Zone(a), Value::Zone(b)) => a == b,
        (Value::Function(a), Value::Function(b)) => a == b,
        (Value::List(a), Value::List(b)) => {
            a.items().len() == b.items().len() && a.items().iter().zip(b.items()).all(|(a, b)| identical(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            a.entries().len() == b.entries().len()
                && a.entries().iter().zip(b.entries()).all(|((k, a), (l, b))| k == l && identical(a, b))
        }
        _ => false,
    }
}

/// Whether two values stand in an order.
pub(super) fn ordered(a: &Value, order: Order, b: &Value) -> Result<bool, String> {
    let ordering = match (a, b) {
        (Value::Int(a), Value::Int(b)) | (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => float(a).partial_cmp(&float(b)),
        (Value::Str(a), Value::Str(b)) => Some(a.cmp(b)),
        (Value::Time(a), Value::Time(b)) => Some(a.timestamp().cmp(&b.timestamp())),
        _ => return Err(mismatch(order.sign(), a, b)),
    };
    // Nothing holds for NaN.
    Ok(ordering.is_some_and(|ordering| match order {
        Order::Less => ordering == Ordering::Less,
        Order::LessOrEqual => ordering != Ordering::Greater,
        Order::More => ordering == Ordering::Greater,
        Order::MoreOrEqual => ordering != Ordering::Less,
    }))
}

fn mismatch(sign: &str, a: &Value, b: &Value) -> String {
    format!("invalid operation: {sign} (mismatched types {} and {})", a.type_name(), b.type_name())
}

/// `+ - * / % **` on values.
pub(super) fn arithmetic(operator: Binary, a: &Value, b: &Value) -> Result<Value, String> {
    let mismatched = || mismatch(operator.sign(), a, b);
    if let (Value::Int(x), Value::Int(y)) = (a, b) {
        match operator {
            Binary::Add => return Ok(Value::Int(x.wrapping_add(*y))),
            Binary::Subtract => return Ok(Value::Int(x.wrapping_sub(*y))),
            Binary::Multiply => return Ok(Value::Int(x.wrapping_mul(*y))),
            Binary::Modulo if *y == 0 => return Err("integer divide by zero".to_owned()),
            Binary::Modulo => return Ok(Value::Int(x.wrapping_rem(*y))),
            _ => {}
        }
    }
    if let (Some(x), Some(y)) = (float(a), float(b)) {
        return match operator {
            Binary::Add => Ok(Value::Float(x + y)),
            Binary::Subtract => Ok(Value::Float(x - y)),
            Binary::Multiply => Ok(Value::Float(x * y)),
            Binary::Divide => Ok(Value::Float(x / y)),
            Binary::Power => Ok(Value::Float(x.powf(y))),
            _ => Err(mismatched()),
        };
    }
    match (operator, a, b) {
        (Binary::Add, Value::Str(x), Value::Str(y)) => Ok(Value::text(format!("{x}{y}"))),
        (Binary::Add, Value::Time(t), Value::Duration(d)) | (Binary::Add, Value::Duration(d), Value::Time(t)) => {
            moved(t, *d)
        }
        (Binary::Subtract, Value::Time(t), Value::Duration(d)) => moved(t, d.wrapping_neg()),
        (Binary::Subtract, Value::Time(x), Value::Time(y)) => {
            let nanos = x.timestamp().as_nanosecond() - y.timestamp().as_nanosecond();
            Ok(Value::Duration(nanos.clamp(i64::MIN.into(), i64::MAX.into()) as i64))
        }
        (Binary::Add, Value::Duration(x), Value::Duration(y)) => Ok(Value::Duration(x.wrapping_add(*y))),
        (Binary::Subtract, Value::Duration(x), Value::Duration(y)) => Ok(Value::Duration(x.wrapping_sub(*y))),
        (Binary::Multiply, Value::Duration(x), Value::Duration(y) | Value::Int(y))
        | (Binary::Multiply, Value::Int(x), Value::Duration(y)) => Ok(Value::Duration(x.wrapping_mul(*y))),
        (Binary::Multiply, Value::Duration(x), Value::Float(y))
        | (Binary::Multiply, Value::Float(y), Value::Duration(x)) => Ok(Value::Duration((*x as f64 * y) as i64)),
        _ => Err(mismatched()),
    }
}

/// A time, a duration later.
pub(super) fn moved(time: &jiff::Zoned, nanos: i64) -> Result<Value, String> {
    match time.checked_add(SignedDuration::from_nanos(nanos)) {
        Ok(time) => Ok(Value::Time(Arc::new(time))),
        Err(error) => Err(format!("time out of range: {error}")),
    }
}

/// `needle in haystack`.
pub(super) fn contains(haystack: &Value, needle: &Value) -> Result<bool, String> {
    match haystack {
        Value::Nil => Ok(false),
        Value::List(list) => Ok(list.items().iter().any(|item| equal(item, needle))),
        Value::Map(map) => match (needle, Key::of(needle)) {
            (Value::Str(_), Some(key)) => Ok(map.entries().contains_key(&key)),
            (_, Some(key)) if map.any_key() => Ok(map.entries().contains_key(&key)),
            _ => Err(format!("cannot use {} as type string in map key", needle.type_name())),
        },
        _ => Err(format!("operator \"in\" not defined on {}", haystack.type_name())),
    }
}

/// `base[property]`, which `base.name` is too.
pub(super) fn member(base: &Value, property: &Value) -> Result<Value, String> {
    match base {
        Value::List(list) => {
            let (Value::Int(_) | Value::Float(_)) = property else {
                let kind = base.type_name();
                return Err(format!("cannot fetch {} from {kind}: a list takes a number", shown(property)));
            };
            let (index, length) = (int(property)?, list.items().len());
            match position(index, length) {
                Some(at) => Ok(list.items()[at].clone()),
                None => Err(format!("index out of range: {index} (array length is {length})")),
            }
        }
        Value::Str(text) => {
            let (Value::Int(_) | Value::Float(_)) = property else {
                return Err(format!("cannot fetch {} from string", shown(property)));
            };
            let (index, length) = (int(property)?, text.len());
            match position(index, length) {
                Some(at) => Ok(Value::Int(text.as_bytes()[at].into())),
                None => Err(format!("index out of range: {index} (array length is {length})")),
            }
        }
        Value::Map(map) => match (property, Key::of(property)) {
            (Value::Str(_), Some(key)) => Ok(map.entries().get(&key).cloned().unwrap_or(Value::Nil)),
            (_, Some(key)) if map.any_key() => Ok(map.entries().get(&key).cloned().unwrap_or(Value::Nil)),
            _ => Err(format!("cannot use {} to get an element from {}", property.type_name(), base.type_name())),
        },
        _ => Err(format!("cannot fetch {} from {}", shown(property), base.type_name())),
    }
}

/// A property for a message: numbers and names as they are, else the type.
fn shown(property: &Value) -> String {
    match property {
        Value::Str(name) if name.len() <= 64 => name.to_string(),
        Value::Int(index) => index.to_string(),
        Value::Float(index) => index.to_string(),
        _ => format!("a value of type {}", property.type_name()),
    }
}

/// An index that counts from the end when negative.
fn position(index: i64, length: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(length as i64)? } else { index };
    usize::try_from(index).ok().filter(|at| *at < length)
}

/// `base[from:to]`. Bounds outside of the list or text are moved to its ends.
pub(super) fn slice(base: &Value, from: Option<&Value>, to: Option<&Value>) -> Result<Value, String> {
    let length = match base {
        Value::List(list) => list.items().len(),
        Value::Str(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => return Err(format!("cannot slice {}", base.type_name())),
    };
    let bound = |value: Option<&Value>, otherwise: usize| -> Result<usize, String> {
        let Some(value) = value else { return Ok(otherwise) };
        let at = int(value)?;
        let at = if at < 0 { at.saturating_add(length as i64).max(0) } else { at };
        Ok(usize::try_from(at).unwrap_or(length).min(length))
    };
    let to = bound(to, length)?;
    let from = bound(from, 0)?.min(to);
    Ok(match base {
        Value::List(list) => {
            Value::list_of(list.items()[from..to].to_vec(), list.elements()).map_err(|_| too_large())?
        }
        // Bounds count bytes; a character that is cut in two becomes the replacement character.
        Value::Str(text) => Value::text(String::from_utf8_lossy(&text.as_bytes()[from..to])),
        Value::Bytes(bytes) => Value::Bytes(bytes[from..to].into()),
        _ => Value::Nil,
    })
}

/// `from..to`, both included.
pub(super) fn range(from: &Value, to: &Value) -> Result<Value, String> {
    let (from, to) = (int(from)?, int(to)?);
    let size = to.checked_sub(from).ok_or_else(too_large)?;
    if size >= super::value::MAX_SIZE as i64 {
        return Err(too_large());
    }
    Value::list_of((from..=to).map(Value::Int).collect(), Elements::Int).map_err(|_| too_large())
}

pub(super) fn too_large() -> String {
    "memory budget exceeded".to_owned()
}
