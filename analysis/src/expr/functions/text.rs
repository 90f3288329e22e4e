//! Text.

use crate::expr::eval::Budget;
use crate::expr::format;
use crate::expr::operators::{int, too_large};
use crate::expr::value::{Elements, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub(super) fn call(budget: &mut Budget, name: &str, arguments: &[Value]) -> Result<Value, String> {
    let a = arguments.first().unwrap_or(&Value::Nil);
    match name {
        "string" => {
            let text = format::text(a);
            budget.bytes(text.len() as u64)?;
            return Ok(Value::text(text));
        }
        "toJSON" => {
            let text = format::json(a)?;
            budget.bytes(text.len() as u64)?;
            return Ok(Value::text(text));
        }
        "join" => return join(budget, a, arguments.get(1)),
        _ => {}
    }
    let text = |at: usize| match arguments.get(at) {
        Some(Value::Str(text)) => Ok(&**text),
        Some(other) => Err(format!("cannot use {} as argument (type string) to call {name}", other.type_name())),
        None => Ok(" "),
    };
    let s = text(0)?;
    budget.bytes(s.len() as u64)?;
    Ok(match name {
        "trim" if arguments.len() == 1 => Value::text(s.trim()),
        "trim" => {
            let set = text(1)?;
            Value::text(s.trim_matches(|c| set.contains(c)))
        }
        "trimPrefix" => Value::text(s.strip_prefix(text(1)?).unwrap_or(s)),
        "trimSuffix" => Value::text(s.strip_suffix(text(1)?).unwrap_or(s)),
        "upper" => Value::text(s.chars().map(|c| single(c, c.to_uppercase())).collect::<String>()),
        "lower" => Value::text(s.chars().map(|c| single(c, c.to_lowercase())).collect::<String>()),
        "split" | "splitAfter" => {
            let limit = match arguments.get(2) {
                Some(limit) => int(limit)?,
                None => -1,
            };
            let parts = split(s, text(1)?, limit, name == "splitAfter");
            budget.steps(parts.len() as u64)?;
            let parts = parts.into_iter().map(Value::text).collect();
            Value::list_of(parts, Elements::Str).map_err(|_| too_large())?
        }
        "replace" => {
            let (old, new) = (text(1)?, text(2)?);
            let limit = match arguments.get(3) {
                Some(limit) => int(limit)?,
                None => -1,
            };
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let places = if old.is_empty() { s.chars().count() + 1 } else { s.matches(old).count() }.min(limit);
            budget.bytes((places as u64).saturating_mul(new.len() as u64))?;
            Value::text(s.replacen(old, new, limit))
        }
        "repeat" => {
            let count = int(arguments.get(1).unwrap_or(&Value::Nil))?;
            let Ok(count) = usize::try_from(count) else {
                return Err(format!("invalid argument for repeat (expected positive integer, got {count})"));
            };
            if count > 1_000_000 {
                return Err(too_large());
            }
            budget.bytes((s.len() as u64).saturating_mul(count as u64))?;
            Value::text(s.repeat(count))
        }
        "indexOf" => Value::Int(s.find(text(1)?).map_or(-1, |at| at as i64)),
        "lastIndexOf" => Value::Int(s.rfind(text(1)?).map_or(-1, |at| at as i64)),
        "hasPrefix" => Value::Bool(s.starts_with(text(1)?)),
        "hasSuffix" => Value::Bool(s.ends_with(text(1)?)),
        "fromJSON" => {
            let json: serde_json::Value = serde_json::from_str(s).map_err(|error| format!("fromJSON: {error}"))?;
            budget.steps(s.len() as u64 / 8)?;
            Value::from_json(&json).map_err(|_| too_large())?
        }
        "toBase64" => Value::text(STANDARD.encode(s)),
        "fromBase64" => {
            let bytes = STANDARD.decode(s).map_err(|error| format!("fromBase64: {error}"))?;
            Value::text(String::from_utf8_lossy(&bytes))
        }
        _ => return Err(format!("unknown name {name}")),
    })
}

/// The character that another one becomes, when it is one.
fn single(from: char, mut into: impl Iterator<Item = char>) -> char {
    match (into.next(), into.next()) {
        (Some(c), None) => c,
        _ => from,
    }
}

/// Splits into at most `limit` parts; none when it is 0, all when it is negative.
fn split(text: &str, separator: &str, limit: i64, keep: bool) -> Vec<String> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit == 0 {
        return Vec::new();
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while parts.len() + 1 < limit {
        let cut = if separator.is_empty() {
            // Between every two characters.
            rest.char_indices().nth(1).map(|(at, _)| (at, at))
        } else {
            rest.find(separator).map(|at| (at, at + separator.len()))
        };
        let Some((end, next)) = cut else { break };
        parts.push(rest[..if keep { next } else { end }].to_owned());
        rest = &rest[next..];
    }
    if !(separator.is_empty() && rest.is_empty()) {
        parts.push(rest.to_owned());
    }
    parts
}

fn join(budget: &mut Budget, list: &Value, separator: Option<&Value>) -> Result<Value, String> {
    let separator = match separator {
        None => "",
        Some(Value::Str(text)) => text,
        Some(other) => return Err(format!("cannot use {} as argument (type string) to call join", other.type_name())),
    };
    let Value::List(list) = list else {
        return Err(format!("invalid argument for join (type {})", list.type_name()));
    };
    let mut parts = Vec::new();
    for item in list.items() {
        match item {
            Value::Str(text) => parts.push(&**text),
            other => return Err(format!("join takes strings, but found {}", other.type_name())),
        }
        budget.bytes((separator.len() + parts.last().map_or(0, |p| p.len())) as u64)?;
    }
    Ok(Value::text(parts.join(separator)))
}
