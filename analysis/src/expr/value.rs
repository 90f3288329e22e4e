//! The values that expressions work on.
//!
//! Numbers are Go's: an integer is 64 bits and wraps, everything that JSON calls a number is a float. Lists and maps are
//! shared, know how deep and how large they are, and so can neither exhaust the stack nor be made of more elements than
//! [`MAX_SIZE`], however an expression combines them.

use jiff::Zoned;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How deeply lists and maps may be nested.
pub const MAX_DEPTH: u32 = 160;
/// How many elements a value may have, those of its elements included.
pub const MAX_SIZE: u64 = 1_000_000;

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing.
    Nil,
    /// Truth.
    Bool(bool),
    /// Go's `int`.
    Int(i64),
    /// Go's `float64`.
    Float(f64),
    /// Text.
    Str(Arc<str>),
    /// Bytes, as of `b"…"`.
    Bytes(Arc<[u8]>),
    /// A list.
    List(Arc<List>),
    /// A map.
    Map(Arc<Map>),
    /// A point in time with its zone.
    Time(Arc<Zoned>),
    /// Nanoseconds.
    Duration(i64),
    /// A time zone.
    Zone(TimeZone),
    /// A function by name, only to be called or compared with nil.
    Function(&'static str),
}

/// What the elements of a list are known to be. Only error messages and the type check look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elements {
    /// Anything.
    Any,
    /// All are integers.
    Int,
    /// All are floats.
    Float,
    /// All are text.
    Str,
}

impl Elements {
    /// The list's type in Go's spelling.
    pub fn list_name(self) -> &'static str {
        match self {
            Self::Any => "[]interface {}",
            Self::Int => "[]int",
            Self::Float => "[]float64",
            Self::Str => "[]string",
        }
    }
}

/// A list.
#[derive(Debug)]
pub struct List {
    items: Vec<Value>,
    elements: Elements,
    depth: u32,
    size: u64,
}

impl List {
    /// The elements.
    pub fn items(&self) -> &[Value] {
        &self.items
    }

    /// What the elements are known to be.
    pub fn elements(&self) -> Elements {
        self.elements
    }
}

/// A key of a map. Maps that were read or written down have text only; `groupBy` and `fromPairs` make others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Nothing.
    Nil,
    /// Truth.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// The bits of a float.
    Float(u64),
    /// Text.
    Str(Arc<str>),
}

impl Key {
    /// The value as a key; none for lists, maps and times.
    pub fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Nil => Self::Nil,
            Value::Bool(v) => Self::Bool(*v),
            Value::Int(v) => Self::Int(*v),
            Value::Float(v) => Self::Float(v.to_bits()),
            Value::Str(v) => Self::Str(v.clone()),
            _ => return None,
        })
    }

    /// The key as a value.
    pub fn value(&self) -> Value {
        match self {
            Self::Nil => Value::Nil,
            Self::Bool(v) => Value::Bool(*v),
            Self::Int(v) => Value::Int(*v),
            Self::Float(v) => Value::Float(f64::from_bits(*v)),
            Self::Str(v) => Value::Str(v.clone()),
        }
    }
}

/// A map, ordered by key.
#[derive(Debug)]
pub struct Map {
    entries: BTreeMap<Key, Value>,
    any_key: bool,
    depth: u32,
    size: u64,
}

impl Map {
    /// The entries.
    pub fn entries(&self) -> &BTreeMap<Key, Value> {
        &self.entries
    }

    /// Keys may be something else than text.
    pub fn any_key(&self) -> bool {
        self.any_key
    }

    /// The value at a key of text.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(&Key::Str(key.into()))
    }
}

/// A value would be larger or deeper than values may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl Value {
    /// Text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Str(text.into())
    }

    /// A list of anything.
    ///
    /// # Errors
    /// When it is too deep or too large.
    pub fn list(items: Vec<Value>) -> Result<Self, TooLarge> {
        Self::list_of(items, Elements::Any)
    }

    /// A list of floats, as Prometheus gives them.
    pub fn floats(items: impl IntoIterator<Item = f64>) -> Self {
        let items: Vec<Value> = items.into_iter().map(Self::Float).collect();
        let size = items.len() as u64;
        Self::List(Arc::new(List { items, elements: Elements::Float, depth: 1, size }))
    }

    pub(super) fn list_of(items: Vec<Value>, elements: Elements) -> Result<Self, TooLarge> {
        let (depth, size) = measure(items.iter())?;
        Ok(Self::List(Arc::new(List { items, elements, depth, size })))
    }

    pub(super) fn map(entries: BTreeMap<Key, Value>, any_key: bool) -> Result<Self, TooLarge> {
        let (depth, size) = measure(entries.values())?;
        Ok(Self::Map(Arc::new(Map { entries, any_key, depth, size })))
    }

    /// Reads JSON. All its numbers become floats.
    ///
    /// # Errors
    /// When it is too deep or too large.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, TooLarge> {
        Ok(match json {
            serde_json::Value::Null => Self::Nil,
            serde_json::Value::Bool(v) => Self::Bool(*v),
            serde_json::Value::Number(v) => Self::Float(v.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(v) => Self::text(v.as_str()),
            serde_json::Value::Array(items) => {
                Self::list(items.iter().map(Self::from_json).collect::<Result<_, _>>()?)?
            }
            serde_json::Value::Object(map) => {
                let entry = |(key, value): (&String, _)| Ok((Key::Str(key.as_str().into()), Self::from_json(value)?));
                Self::map(map.iter().map(entry).collect::<Result<_, TooLarge>>()?, false)?
            }
        })
    }

    /// How many elements there are inside, itself included.
    pub fn size(&self) -> u64 {
        1 + match self {
            Self::List(list) => list.size,
            Self::Map(map) => map.size,
            Self::Str(text) => text.len() as u64 / 16,
            _ => 0,
        }
    }

    fn depth(&self) -> u32 {
        match self {
            Self::List(list) => list.depth,
            Self::Map(map) => map.depth,
            _ => 0,
        }
    }

    /// The type's name in Go's spelling, as the peers' messages have it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Str(_) => "string",
            Self::Bytes(_) => "[]uint8",
            Self::List(list) => list.elements.list_name(),
            Self::Map(map) if map.any_key => "map[interface {}]interface {}",
            Self::Map(_) => "map[string]interface {}",
            Self::Time(_) => "time.Time",
            Self::Duration(_) => "time.Duration",
            Self::Zone(_) => "*time.Location",
            Self::Function(_) => "func",
        }
    }

    /// Whether the value is nil.
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }
}

fn measure<'a>(items: impl Iterator<Item = &'a Value>) -> Result<(u32, u64), TooLarge> {
    let (mut depth, mut size) = (1, 0u64);
    for item in items {
        depth = depth.max(1 + item.depth());
        size = size.saturating_add(item.size());
    }
    if depth > MAX_DEPTH || size > MAX_SIZE { Err(TooLarge) } else { Ok((depth, size)) }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        super::operators::equal(self, other)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::text(value)
    }
}
