//! The functions that take values only. Those with a predicate are in the evaluation.

mod lists;
mod numbers;
mod text;

use super::eval::Budget;
use super::operators::{self, int};
use super::times;
use super::types::Type;
use super::value::Value;
use jiff::Timestamp;

pub(super) use lists::{descending, sorted};

/// What a function gives back, as far as it is known before it runs.
#[derive(Clone, Copy)]
enum Gives {
    Any,
    Int,
    Float,
    Bool,
    Text,
    Texts,
    List,
    Map,
    Time,
    Duration,
    Zone,
    /// The same as its first argument.
    Same,
    /// An element of its first argument.
    Element,
}

/// Name, least and most arguments, and what comes back.
const FUNCTIONS: [(&str, usize, usize, Gives); 62] = [
    ("len", 1, 1, Gives::Int),
    ("type", 1, 1, Gives::Text),
    ("abs", 1, 1, Gives::Same),
    ("ceil", 1, 1, Gives::Float),
    ("floor", 1, 1, Gives::Float),
    ("round", 1, 1, Gives::Float),
    ("int", 1, 1, Gives::Int),
    ("float", 1, 1, Gives::Float),
    ("string", 1, 1, Gives::Text),
    ("trim", 1, 2, Gives::Text),
    ("trimPrefix", 1, 2, Gives::Text),
    ("trimSuffix", 1, 2, Gives::Text),
    ("upper", 1, 1, Gives::Text),
    ("lower", 1, 1, Gives::Text),
    ("split", 2, 3, Gives::Texts),
    ("splitAfter", 2, 3, Gives::Texts),
    ("replace", 3, 4, Gives::Text),
    ("repeat", 2, 2, Gives::Text),
    ("join", 1, 2, Gives::Text),
    ("indexOf", 2, 2, Gives::Int),
    ("lastIndexOf", 2, 2, Gives::Int),
    ("hasPrefix", 2, 2, Gives::Bool),
    ("hasSuffix", 2, 2, Gives::Bool),
    ("max", 1, usize::MAX, Gives::Any),
    ("min", 1, usize::MAX, Gives::Any),
    ("mean", 1, usize::MAX, Gives::Any),
    ("median", 1, usize::MAX, Gives::Any),
    ("toJSON", 1, 1, Gives::Text),
    ("fromJSON", 1, 1, Gives::Any),
    ("toBase64", 1, 1, Gives::Text),
    ("fromBase64", 1, 1, Gives::Text),
    ("now", 0, 1, Gives::Time),
    ("duration", 1, 1, Gives::Duration),
    ("date", 1, 4, Gives::Time),
    ("timezone", 1, 1, Gives::Zone),
    ("first", 1, 1, Gives::Element),
    ("last", 1, 1, Gives::Element),
    ("get", 2, 2, Gives::Any),
    ("take", 2, 2, Gives::Same),
    ("keys", 1, 1, Gives::List),
    ("values", 1, 1, Gives::List),
    ("toPairs", 1, 1, Gives::List),
    ("fromPairs", 1, 1, Gives::Map),
    ("reverse", 1, 1, Gives::List),
    ("uniq", 1, 1, Gives::List),
    ("concat", 1, usize::MAX, Gives::List),
    ("flatten", 1, 1, Gives::List),
    ("sort", 1, 2, Gives::List),
    ("bitand", 2, 2, Gives::Int),
    ("bitor", 2, 2, Gives::Int),
    ("bitxor", 2, 2, Gives::Int),
    ("bitnand", 2, 2, Gives::Int),
    ("bitshl", 2, 2, Gives::Int),
    ("bitshr", 2, 2, Gives::Int),
    ("bitushr", 2, 2, Gives::Int),
    ("bitnot", 1, 1, Gives::Int),
    // Conditions have these besides.
    ("asInt", 1, 1, Gives::Int),
    ("asFloat", 1, 1, Gives::Float),
    ("isNaN", 1, 1, Gives::Bool),
    ("isInf", 1, 1, Gives::Bool),
    ("isNil", 1, 1, Gives::Bool),
    ("default", 2, 2, Gives::Any),
];

/// The functions that the peers put beside `result`.
pub(super) const CONDITION_FUNCTIONS: [&str; 6] = ["asInt", "asFloat", "isNaN", "isInf", "isNil", "default"];

pub(super) fn is_condition_function(name: &str) -> bool {
    CONDITION_FUNCTIONS.contains(&name)
}

/// Whether the language has the function everywhere.
pub(super) fn is_builtin(name: &str) -> bool {
    signature(name).is_some() && !is_condition_function(name)
}

fn signature(name: &str) -> Option<&'static (&'static str, usize, usize, Gives)> {
    FUNCTIONS.iter().find(|(n, ..)| *n == name)
}

fn arity(name: &str, count: usize) -> Result<Gives, String> {
    let Some((_, least, most, gives)) = signature(name) else { return Err(format!("unknown name {name}")) };
    if count < *least {
        return Err(format!("not enough arguments to call {name} (expected {}, got {count})", expected(*least, *most)));
    }
    if count > *most {
        return Err(format!("too many arguments to call {name} (expected {}, got {count})", expected(*least, *most)));
    }
    Ok(*gives)
}

fn expected(least: usize, most: usize) -> String {
    match most {
        usize::MAX => format!("at least {least}"),
        most if most == least => least.to_string(),
        most => format!("{least} to {most}"),
    }
}

/// Checks a call before it runs, and says what will come back.
pub(super) fn check(name: &str, arguments: &[Type]) -> Result<Type, String> {
    let gives = arity(name, arguments.len())?;
    let first = arguments.first().cloned().unwrap_or(Type::Unknown);
    let reads_list = matches!(
        name,
        "first" | "last" | "take" | "reverse" | "uniq" | "concat" | "flatten" | "sort" | "join" | "fromPairs"
    );
    if reads_list && !matches!(first, Type::Unknown | Type::List(..) | Type::Nil) {
        return Err(format!("invalid argument for {name} (type {first})"));
    }
    let reads_number = matches!(name, "abs" | "ceil" | "floor" | "round");
    if reads_number && !matches!(first, Type::Unknown | Type::Int | Type::Float) {
        return Err(format!("invalid argument for {name} (type {first})"));
    }
    if name == "len" && !matches!(first, Type::Unknown | Type::List(..) | Type::Map(_) | Type::Text | Type::Bytes) {
        return Err(format!("invalid argument for len (type {first})"));
    }
    if matches!(name, "keys" | "values" | "toPairs") && !matches!(first, Type::Unknown | Type::Map(_)) {
        return Err(format!("cannot get {name} from {first}"));
    }
    Ok(match gives {
        Gives::Any => Type::Unknown,
        Gives::Int => Type::Int,
        Gives::Float => Type::Float,
        Gives::Bool => Type::Bool,
        Gives::Text => Type::Text,
        Gives::Texts => Type::list(Type::Text, super::value::Elements::Str),
        Gives::List => Type::any_list(),
        Gives::Map => Type::Map(true),
        Gives::Time => Type::Time,
        Gives::Duration => Type::Duration,
        Gives::Zone => Type::Zone,
        Gives::Same => first,
        Gives::Element => first.element(),
    })
}

/// Calls a function of the language.
pub(super) fn call(budget: &mut Budget, now: Timestamp, name: &str, arguments: Vec<Value>) -> Result<Value, String> {
    arity(name, arguments.len())?;
    for argument in &arguments {
        budget.steps(argument.size() / 16)?;
    }
    let a = arguments.first().unwrap_or(&Value::Nil);
    let b = arguments.get(1);
    match name {
        "len" => length(a),
        "type" => Ok(Value::text(kind(a))),
        "get" => Ok(operators::member(a, b.unwrap_or(&Value::Nil)).unwrap_or(Value::Nil)),
        "now" | "duration" | "date" | "timezone" => times::call(now, name, &arguments),
        "abs" | "ceil" | "floor" | "round" | "int" | "float" | "max" | "min" | "mean" | "median" | "bitand"
        | "bitor" | "bitxor" | "bitnand" | "bitshl" | "bitshr" | "bitushr" | "bitnot" => {
            numbers::call(budget, name, &arguments)
        }
        "first" | "last" | "take" | "keys" | "values" | "toPairs" | "fromPairs" | "reverse" | "uniq" | "concat"
        | "flatten" | "sort" => lists::call(budget, name, &arguments),
        _ => text::call(budget, name, &arguments),
    }
}

/// Calls one of the functions that only conditions have. Unlike the peers, which look at the whole result whatever the
/// argument is, `isNil` and `default` look at their argument; for `isNil(result)` that is the same.
pub(super) fn call_condition(name: &str, arguments: &[Value]) -> Result<Value, String> {
    arity(name, arguments.len())?;
    let a = arguments.first().unwrap_or(&Value::Nil);
    let number = || {
        operators::float(a)
            .ok_or_else(|| format!("cannot use {} as argument (type float64) to call {name}", a.type_name()))
    };
    match name {
        "asInt" => match a {
            Value::Int(_) | Value::Float(_) => int(a).map(Value::Int),
            Value::Str(text) => {
                text.parse().map(Value::Int).map_err(|_| format!("asInt: {text:?} is not a whole number"))
            }
            _ => Err(format!("asInt() not supported on {}", a.type_name())),
        },
        "asFloat" => match a {
            Value::Int(_) | Value::Float(_) => Ok(Value::Float(number()?)),
            Value::Str(text) => {
                text.parse().map(Value::Float).map_err(|_| format!("asFloat: {text:?} is not a number"))
            }
            _ => Err(format!("asFloat() not supported on {}", a.type_name())),
        },
        "isNaN" => Ok(Value::Bool(number()?.is_nan())),
        "isInf" => Ok(Value::Bool(number()?.is_infinite())),
        "isNil" => Ok(Value::Bool(a.is_nil())),
        "default" => Ok(if a.is_nil() { arguments.get(1).cloned().unwrap_or(Value::Nil) } else { a.clone() }),
        _ => Err(format!("unknown name {name}")),
    }
}

fn length(value: &Value) -> Result<Value, String> {
    let length = match value {
        Value::List(list) => list.items().len(),
        Value::Map(map) => map.entries().len(),
        Value::Str(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        _ => return Err(format!("invalid argument for len (type {})", value.type_name())),
    };
    Ok(Value::Int(length as i64))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Float(_) => "float",
        Value::Str(_) => "string",
        Value::Bytes(_) | Value::List(_) => "array",
        Value::Map(_) => "map",
        Value::Time(_) => "time.Time",
        Value::Duration(_) => "time.Duration",
        Value::Zone(_) => "time.Location",
        Value::Function(_) => "func",
    }
}
