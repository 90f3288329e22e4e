//! Expression and value to places and values.

use super::{Comparison, Expr, Function};
use crate::normalize::path::{Path, Segment};
use serde_json::Value;
use std::borrow::Cow;
use std::cmp::Ordering;

/// A value, and where it lies when it is a place.
#[derive(Clone)]
struct Place<'a> {
    path: Option<Path>,
    value: Cow<'a, Value>,
}

impl<'a> Place<'a> {
    fn made(value: Value) -> Self {
        Self { path: None, value: Cow::Owned(value) }
    }

    fn child(&self, segment: Segment) -> Self {
        let pick = |value: &Value| match &segment {
            Segment::Key(key) => value.get(key.as_str()).cloned(),
            Segment::Index(index) => value.get(*index).cloned(),
        };
        let value = match &self.value {
            Cow::Borrowed(value) => match &segment {
                Segment::Key(key) => value.get(key.as_str()).map(Cow::Borrowed),
                Segment::Index(index) => value.get(*index).map(Cow::Borrowed),
            },
            Cow::Owned(value) => pick(value).map(Cow::Owned),
        };
        Self {
            value: value.unwrap_or(Cow::Owned(Value::Null)),
            path: self.path.as_ref().map(|path| path.join(segment)),
        }
    }
}

/// The places that `expr` names in `value`.
pub(super) fn places(expr: &Expr, value: &Value) -> Vec<Path> {
    let root = Place { path: Some(Path::default()), value: Cow::Borrowed(value) };
    eval(expr, &root).into_iter().filter_map(|place| place.path).collect()
}

fn eval<'a>(expr: &Expr, input: &Place<'a>) -> Vec<Place<'a>> {
    match expr {
        Expr::Identity => vec![input.clone()],
        Expr::Recurse => {
            let mut out = Vec::new();
            recurse(input.clone(), &mut out);
            out
        }
        Expr::Key(of, key) => eval(of, input)
            .into_iter()
            .filter(|place| matches!(&*place.value, Value::Object(_) | Value::Null))
            .map(|place| place.child(Segment::Key(key.clone())))
            .collect(),
        Expr::Index(of, index) => eval(of, input)
            .into_iter()
            .filter_map(|place| {
                let length = place.value.as_array()?.len();
                let index = position(*index, length);
                (index < length).then(|| place.child(Segment::Index(index)))
            })
            .collect(),
        Expr::Slice(of, from, to) => eval(of, input)
            .into_iter()
            .flat_map(|place| {
                let length = place.value.as_array().map_or(0, Vec::len);
                let from = from.map_or(0, |n| position(n, length));
                let to = to.map_or(length, |n| position(n, length));
                (from..to.max(from)).map(|index| place.child(Segment::Index(index))).collect::<Vec<_>>()
            })
            .collect(),
        Expr::Each(of) => eval(of, input).iter().flat_map(children).collect(),
        Expr::Pipe(left, right) => eval(left, input).iter().flat_map(|place| eval(right, place)).collect(),
        Expr::Comma(left, right) => {
            let mut out = eval(left, input);
            out.extend(eval(right, input));
            out
        }
        Expr::Alternative(left, right) => {
            let found: Vec<_> = eval(left, input).into_iter().filter(|place| truthy(&place.value)).collect();
            if found.is_empty() { eval(right, input) } else { found }
        }
        Expr::Select(condition) => {
            eval(condition, input).iter().filter(|answer| truthy(&answer.value)).map(|_| input.clone()).collect()
        }
        Expr::First(of) => eval(of, input).into_iter().take(1).collect(),
        Expr::Empty => Vec::new(),
        Expr::Literal(value) => vec![Place::made(value.clone())],
        Expr::List(None) => vec![Place::made(Value::Array(Vec::new()))],
        Expr::List(Some(of)) => {
            vec![Place::made(Value::Array(eval(of, input).into_iter().map(|p| p.value.into_owned()).collect()))]
        }
        Expr::Compare(left, comparison, right) => {
            let rights = eval(right, input);
            eval(left, input)
                .iter()
                .flat_map(|l| rights.iter().map(|r| compares(*comparison, &l.value, &r.value)).collect::<Vec<_>>())
                .map(|answer| Place::made(answer.into()))
                .collect()
        }
        Expr::And(left, right) => logic(left, right, input, false),
        Expr::Or(left, right) => logic(left, right, input, true),
        Expr::Not => vec![Place::made((!truthy(&input.value)).into())],
        Expr::Call(function, arguments) => call(*function, arguments, input),
    }
}

/// `and` stops at false, `or` stops at true: `stop` says at which.
fn logic<'a>(left: &Expr, right: &Expr, input: &Place<'a>, stop: bool) -> Vec<Place<'a>> {
    let mut out = Vec::new();
    for answer in eval(left, input) {
        if truthy(&answer.value) == stop {
            out.push(Place::made(stop.into()));
        } else {
            out.extend(eval(right, input).iter().map(|r| Place::made(truthy(&r.value).into())));
        }
    }
    out
}

fn position(index: i64, length: usize) -> usize {
    let distance = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
    match index {
        0.. => distance,
        // An index before the first element names nothing; a slice begins at the first then.
        _ => length.checked_sub(distance).unwrap_or(if index == i64::MIN { length } else { 0 }),
    }
}

fn children<'a>(place: &Place<'a>) -> Vec<Place<'a>> {
    match &*place.value {
        Value::Array(list) => (0..list.len()).map(|index| place.child(Segment::Index(index))).collect(),
        Value::Object(map) => map.keys().map(|key| place.child(Segment::Key(key.clone()))).collect(),
        _ => Vec::new(),
    }
}

fn recurse<'a>(place: Place<'a>, out: &mut Vec<Place<'a>>) {
    let children = children(&place);
    out.push(place);
    for child in children {
        recurse(child, out);
    }
}

fn truthy(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

/// jq's order of kinds of values.
fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(false) => 1,
        Value::Bool(true) => 2,
        Value::Number(_) => 3,
        Value::String(_) => 4,
        Value::Array(_) => 5,
        Value::Object(_) => 6,
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            a.iter().zip(b).map(|(a, b)| order(a, b)).find(|o| o.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => a.keys().cmp(b.keys()).then_with(|| {
            a.values().zip(b.values()).map(|(a, b)| order(a, b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        }),
        _ => rank(a).cmp(&rank(b)),
    }
}

fn compares(comparison: Comparison, a: &Value, b: &Value) -> bool {
    let order = order(a, b);
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }
}

/// jq's `contains`: every part of `small` is found in `big`.
fn contains(big: &Value, small: &Value) -> bool {
    match (big, small) {
        (Value::String(big), Value::String(small)) => big.contains(small.as_str()),
        (Value::Array(big), Value::Array(small)) => small.iter().all(|s| big.iter().any(|b| contains(b, s))),
        (Value::Object(big), Value::Object(small)) => {
            small.iter().all(|(key, s)| big.get(key).is_some_and(|b| contains(b, s)))
        }
        _ => order(big, small).is_eq(),
    }
}

fn call<'a>(function: Function, arguments: &[Expr], input: &Place<'a>) -> Vec<Place<'a>> {
    let value = &*input.value;
    let answers: Vec<Value> = match arguments.first() {
        Some(argument) if !matches!(function, Function::Any | Function::All) => {
            let given: Vec<Value> = eval(argument, input).into_iter().map(|p| p.value.into_owned()).collect();
            if function == Function::In {
                vec![given.iter().any(|g| order(g, value).is_eq()).into()]
            } else {
                given.iter().filter_map(|g| with_argument(function, value, g)).map(Value::from).collect()
            }
        }
        argument => alone(function, argument, input).into_iter().collect(),
    };
    answers.into_iter().map(Place::made).collect()
}

fn with_argument(function: Function, value: &Value, argument: &Value) -> Option<bool> {
    Some(match function {
        Function::Test => regex::Regex::new(argument.as_str()?).ok()?.is_match(value.as_str()?),
        Function::StartsWith => value.as_str()?.starts_with(argument.as_str()?),
        Function::EndsWith => value.as_str()?.ends_with(argument.as_str()?),
        Function::Contains => contains(value, argument),
        Function::Inside => contains(argument, value),
        Function::Has => match (value, argument) {
            (Value::Object(map), Value::String(key)) => map.contains_key(key),
            (Value::Array(list), Value::Number(_)) => {
                argument.as_f64()? >= 0.0 && argument.as_f64()? < list.len() as f64
            }
            _ => return None,
        },
        _ => return None,
    })
}

fn alone(function: Function, argument: Option<&Expr>, input: &Place<'_>) -> Option<Value> {
    let value = &*input.value;
    let holds = |element: &Place<'_>| match argument {
        Some(condition) => eval(condition, element).iter().any(|answer| truthy(&answer.value)),
        None => truthy(&element.value),
    };
    Some(match function {
        Function::Any => children(input).iter().any(holds).into(),
        Function::All => children(input).iter().all(holds).into(),
        Function::Length => match value {
            Value::Null => 0.into(),
            Value::String(text) => text.chars().count().into(),
            Value::Array(list) => list.len().into(),
            Value::Object(map) => map.len().into(),
            Value::Number(number) => number.as_f64()?.abs().into(),
            Value::Bool(_) => return None,
        },
        Function::Type => match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
        .into(),
        Function::Keys => value.as_object()?.keys().cloned().collect(),
        Function::ToString => match value {
            Value::String(text) => text.clone().into(),
            other => other.to_string().into(),
        },
        Function::AsciiDowncase => value.as_str()?.to_ascii_lowercase().into(),
        _ => return None,
    })
}
