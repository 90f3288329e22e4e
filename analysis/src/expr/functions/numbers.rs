//! Numbers.

use crate::expr::ast::Order;
use crate::expr::eval::Budget;
use crate::expr::operators::{float, int, ordered};
use crate::expr::value::Value;
use std::cmp::Ordering;

pub(super) fn call(budget: &mut Budget, name: &str, arguments: &[Value]) -> Result<Value, String> {
    let a = arguments.first().unwrap_or(&Value::Nil);
    match name {
        "abs" => match a {
            Value::Int(v) => Ok(Value::Int(v.wrapping_abs())),
            Value::Float(v) => Ok(Value::Float(v.abs())),
            _ => Err(invalid(name, a)),
        },
        "ceil" | "floor" | "round" => {
            let v = float(a).ok_or_else(|| invalid(name, a))?;
            Ok(Value::Float(match name {
                "ceil" => v.ceil(),
                "floor" => v.floor(),
                // Halves go away from zero.
                _ => v.round(),
            }))
        }
        "int" => match a {
            Value::Str(text) => text.parse().map(Value::Int).map_err(|_| format!("invalid operation: int({text})")),
            Value::Duration(nanos) => Ok(Value::Int(*nanos)),
            _ => int(a).map(Value::Int),
        },
        "float" => match a {
            Value::Str(text) => text.parse().map(Value::Float).map_err(|_| format!("invalid operation: float({text})")),
            _ => float(a).map(Value::Float).ok_or_else(|| format!("invalid operation: float({})", a.type_name())),
        },
        "max" | "min" => extreme(budget, name, arguments),
        "mean" => {
            let values = floats(budget, name, arguments)?;
            let count = values.len() as f64;
            Ok(Value::Float(if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / count }))
        }
        "median" => {
            let mut values = floats(budget, name, arguments)?;
            // Not-a-number sorts first.
            values.sort_by(|a, b| a.partial_cmp(b).unwrap_or_else(|| by_nan(*a, *b)));
            let middle = values.len() / 2;
            Ok(Value::Float(match values.len() {
                0 => 0.0,
                n if n % 2 == 1 => values[middle],
                _ => (values[middle - 1] + values[middle]) / 2.0,
            }))
        }
        _ => bits(name, arguments),
    }
}

fn by_nan(a: f64, b: f64) -> Ordering {
    b.is_nan().cmp(&a.is_nan())
}

fn invalid(name: &str, value: &Value) -> String {
    format!("invalid argument for {name} (type {})", value.type_name())
}

/// All numbers in the arguments, those in nested lists too.
fn numbers<'a>(budget: &mut Budget, name: &str, values: &'a [Value], into: &mut Vec<&'a Value>) -> Result<(), String> {
    budget.steps(values.len() as u64)?;
    for value in values {
        match value {
            Value::List(list) => numbers(budget, name, list.items(), into)?,
            Value::Int(_) | Value::Float(_) => into.push(value),
            _ => return Err(invalid(name, value)),
        }
    }
    Ok(())
}

fn floats(budget: &mut Budget, name: &str, arguments: &[Value]) -> Result<Vec<f64>, String> {
    let mut found = Vec::new();
    numbers(budget, name, arguments, &mut found)?;
    Ok(found.into_iter().filter_map(float).collect())
}

fn extreme(budget: &mut Budget, name: &str, arguments: &[Value]) -> Result<Value, String> {
    if let [Value::Nil] = arguments {
        return Ok(Value::Nil);
    }
    let mut found = Vec::new();
    numbers(budget, name, arguments, &mut found)?;
    let order = if name == "max" { Order::More } else { Order::Less };
    let mut best: Option<&Value> = None;
    for value in found {
        if best.is_none_or(|best| ordered(value, order, best).unwrap_or(false)) {
            best = Some(value);
        }
    }
    Ok(best.cloned().unwrap_or(Value::Nil))
}

fn bits(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let whole = |at: usize| match arguments.get(at) {
        Some(Value::Int(v)) => Ok(*v),
        Some(other) => Err(format!("cannot use {} as argument (type int) to call {name}", other.type_name())),
        None => Ok(0),
    };
    let (x, y) = (whole(0)?, whole(1)?);
    let shift = || match u32::try_from(y) {
        Ok(shift) => Ok(shift),
        Err(_) if y < 0 => Err(format!("invalid operation: negative shift count {y} (type int)")),
        Err(_) => Ok(64),
    };
    Ok(Value::Int(match name {
        "bitand" => x & y,
        "bitor" => x | y,
        "bitxor" => x ^ y,
        "bitnand" => x & !y,
        "bitnot" => !x,
        "bitshl" => x.checked_shl(shift()?).unwrap_or(0),
        "bitshr" => x.checked_shr(shift()?).unwrap_or(if x < 0 { -1 } else { 0 }),
        "bitushr" => (x as u64).checked_shr(shift()?).unwrap_or(0) as i64,
        _ => return Err(format!("unknown name {name}")),
    }))
}
