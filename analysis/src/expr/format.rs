//! Values as text, in Go's ways.

use super::times;
use super::value::{Key, Value};
use base64::Engine;
use std::fmt::Write;

/// A value as Go's `%v` prints it.
pub(super) fn text(value: &Value) -> String {
    let mut out = String::new();
    write_text(&mut out, value);
    out
}

fn write_text(out: &mut String, value: &Value) {
    match value {
        Value::Nil => out.push_str("<nil>"),
        Value::Bool(v) => out.push_str(if *v { "true" } else { "false" }),
        Value::Int(v) => out.push_str(&v.to_string()),
        Value::Float(v) => out.push_str(&float(*v)),
        Value::Str(v) => out.push_str(v),
        Value::Bytes(bytes) => write_list(out, bytes.iter(), |out, byte| out.push_str(&byte.to_string())),
        Value::List(list) => write_list(out, list.items().iter(), write_text),
        Value::Map(map) => {
            out.push_str("map");
            write_list(out, map.entries().iter(), |out, (key, value)| {
                write_text(out, &key.value());
                out.push(':');
                write_text(out, value);
            });
        }
        Value::Time(time) => out.push_str(&times::format(time, "2006-01-02 15:04:05.999999999 -0700 MST")),
        Value::Duration(nanos) => out.push_str(&times::duration(*nanos)),
        Value::Zone(zone) => out.push_str(zone.iana_name().unwrap_or("UTC")),
        Value::Function(name) => out.push_str(name),
    }
}

fn write_list<T>(out: &mut String, items: impl Iterator<Item = T>, write: impl Fn(&mut String, T)) {
    out.push('[');
    for (place, item) in items.enumerate() {
        if place > 0 {
            out.push(' ');
        }
        write(out, item);
    }
    out.push(']');
}

/// A float as Go prints it: the shortest digits, with an exponent below 1e-4 and from 1e6 on.
pub(crate) fn float(value: f64) -> String {
    if let Some(text) = not_finite(value) {
        return text.to_owned();
    }
    let (negative, digits, exponent) = shortest(value);
    let text = if value != 0.0 && !(-4..6).contains(&exponent) {
        exponential(&digits, exponent)
    } else {
        plain(&digits, exponent)
    };
    if negative { format!("-{text}") } else { text }
}

/// A float without an exponent, as Prometheus prints it.
pub(crate) fn plain_float(value: f64) -> String {
    if let Some(text) = not_finite(value) {
        return text.to_owned();
    }
    let (negative, digits, exponent) = shortest(value);
    let text = plain(&digits, exponent);
    if negative { format!("-{text}") } else { text }
}

fn not_finite(value: f64) -> Option<&'static str> {
    match value {
        v if v.is_nan() => Some("NaN"),
        f64::INFINITY => Some("+Inf"),
        f64::NEG_INFINITY => Some("-Inf"),
        _ => None,
    }
}

/// The shortest digits that read back as the value, and the exponent of the first.
fn shortest(value: f64) -> (bool, String, i32) {
    let text = format!("{:e}", value.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (value.is_sign_negative(), mantissa.replace('.', ""), exponent.parse().unwrap_or(0))
}

fn exponential(digits: &str, exponent: i32) -> String {
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{first}{point}{rest}e{sign}{:02}", exponent.abs())
}

fn plain(digits: &str, exponent: i32) -> String {
    match usize::try_from(exponent) {
        Ok(exponent) if exponent + 1 >= digits.len() => format!("{digits:0<width$}", width = exponent + 1),
        Ok(exponent) => format!("{}.{}", &digits[..=exponent], &digits[exponent + 1..]),
        Err(_) => format!("0.{}{digits}", "0".repeat((-exponent - 1) as usize)),
    }
}

/// A value as JSON, indented by two spaces.
///
/// # Errors
/// For what JSON does not have: not-a-number, infinities, functions, maps whose keys are not text.
pub(super) fn json(value: &Value) -> Result<String, String> {
    let mut out = String::new();
    write_json(&mut out, value, 0)?;
    Ok(out)
}

fn write_json(out: &mut String, value: &Value, depth: usize) -> Result<(), String> {
    match value {
        Value::Nil => out.push_str("null"),
        Value::Bool(v) => out.push_str(if *v { "true" } else { "false" }),
        Value::Int(v) | Value::Duration(v) => out.push_str(&v.to_string()),
        Value::Float(v) => out.push_str(&json_float(*v)?),
        Value::Str(v) => write_json_text(out, v),
        Value::Bytes(bytes) => write_json_text(out, &base64::engine::general_purpose::STANDARD.encode(bytes)),
        Value::Time(time) => write_json_text(out, &times::format(time, "2006-01-02T15:04:05.999999999Z07:00")),
        Value::Zone(_) => out.push_str("{}"),
        Value::Function(_) => return Err("json: unsupported type: func".to_owned()),
        Value::List(list) if list.items().is_empty() => out.push_str("[]"),
        Value::List(list) => {
            out.push('[');
            for (place, item) in list.items().iter().enumerate() {
                new_line(out, place > 0, depth + 1);
                write_json(out, item, depth + 1)?;
            }
            new_line(out, false, depth);
            out.push(']');
        }
        Value::Map(map) if map.entries().is_empty() => out.push_str("{}"),
        Value::Map(map) => {
            out.push('{');
            for (place, (key, item)) in map.entries().iter().enumerate() {
                let Key::Str(key) = key else { return Err(format!("json: unsupported type: {}", value.type_name())) };
                new_line(out, place > 0, depth + 1);
                write_json_text(out, key);
                out.push_str(": ");
                write_json(out, item, depth + 1)?;
            }
            new_line(out, false, depth);
            out.push('}');
        }
    }
    Ok(())
}

fn new_line(out: &mut String, comma: bool, depth: usize) {
    if comma {
        out.push(',');
    }
    out.push('\n');
    for _ in 0..depth {
        out.push_str("  ");
    }
}

/// A float as Go's JSON has it.
pub(crate) fn json_float(value: f64) -> Result<String, String> {
    if !value.is_finite() {
        return Err(format!("json: unsupported value: {}", float(value)));
    }
    let (negative, digits, exponent) = shortest(value);
    let text = if value != 0.0 && !(-6..21).contains(&exponent) {
        // One digit is enough for a small negative exponent.
        exponential(&digits, exponent).replace("e-0", "e-")
    } else {
        plain(&digits, exponent)
    };
    Ok(if negative { format!("-{text}") } else { text })
}

fn write_json_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
