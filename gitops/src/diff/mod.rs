//! Whether a live object is what Git says, and what applying would make of it.
//!
//! The question is answered without the API server: everything that the target says must be found in the live object,
//! and what was applied last but is no longer said must be gone. What others added (defaults, other managers' fields) is
//! no difference.

pub mod mask;
pub mod shape;
pub mod three_way;

use crate::normalize::ignore::IgnoreRules;
use crate::normalize::path::{Path, Segment};
use crate::normalize::{self, CompareOptions, quantity};
use crate::object::{self, Key};
use crate::tracking::Tracking;
use serde_json::{Map, Value};
use shape::Shape;

/// What is different at one place. Values are not held: they may be secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, as a JSON pointer into the target, or into the live object for [`Change::Remove`].
    pub path: String,
    /// What applying would do there.
    pub change: Change,
}

/// What applying would do at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add what is missing.
    Add,
    /// Change what is there.
    Set,
    /// Remove what was applied once.
    Remove,
}

/// What a comparison needs besides the two objects.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// How objects are marked.
    pub tracking: &'a Tracking,
    /// What does not count.
    pub ignore: &'a IgnoreRules,
    /// Settings of the installation.
    pub options: &'a CompareOptions,
}

/// The outcome of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What is different, in the order of the paths.
    pub differences: Vec<Difference>,
    /// The target as it was compared.
    pub target: Value,
    /// The live object as it was compared.
    pub live: Value,
}

impl Comparison {
    /// Whether the live object is what the target says.
    pub fn in_sync(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Compares. What was applied last is read from `live` (annotation of client-side apply, or managed fields).
pub fn compare(target: &Value, live: &Value, settings: &Settings<'_>) -> Comparison {
    let key = Key::of(live);
    let mut last = normalize::last_applied(live);
    let (mut target, mut live_side) = (target.clone(), live.clone());
    normalize::normalize(&mut target, settings.options);
    normalize::normalize(&mut live_side, settings.options);
    if let Some(last) = &mut last {
        normalize::normalize(last, settings.options);
        normalize::forget_marks(last, settings.tracking);
    }
    settings.ignore.remove(&key, live, &mut target, &mut live_side, last.as_mut());
    let group = object::group(&target);
    let mut walk = Walk { out: Vec::new(), built_in: shape::is_built_in(group) };
    let shape = shape::of(group, object::kind(&target));
    walk.value(shape, &Path::default(), last.as_ref(), Some(&live_side), &target);
    // The API server answers in the version that it is asked in.
    walk.out.retain(|d| d.path != "/apiVersion");
    walk.out.sort_by(|a, b| a.path.cmp(&b.path));
    Comparison { differences: walk.out, target, live: live_side }
}

struct Walk {
    out: Vec<Difference>,
    built_in: bool,
}

impl Walk {
    fn report(&mut self, path: &Path, change: Change) {
        self.out.push(Difference { path: path.to_string(), change });
    }

    fn value(&mut self, shape: &Shape, path: &Path, last: Option<&Value>, live: Option<&Value>, target: &Value) {
        let Some(live) = live.filter(|v| !v.is_null()) else {
            let metadata = path.0.first() == Some(&Segment::Key("metadata".into()));
            if !(target.is_null() || ((self.built_in || metadata) && is_empty(target))) {
                self.report(path, Change::Add);
            }
            return;
        };
        match (target, live) {
            (Value::Object(target), Value::Object(live)) => {
                self.map(shape, path, last.and_then(Value::as_object), live, target);
            }
            (Value::Array(target), Value::Array(live)) => {
                let last = last.and_then(Value::as_array).map(Vec::as_slice);
                self.list(shape, path, last, live, target);
            }
            _ => {
                if !same_scalar(shape, target, live) {
                    self.report(path, if target.is_null() { Change::Remove } else { Change::Set });
                }
            }
        }
    }

    fn map(
        &mut self,
        shape: &Shape,
        path: &Path,
        last: Option<&Map<String, Value>>,
        live: &Map<String, Value>,
        target: &Map<String, Value>,
    ) {
        for (key, wanted) in target {
            // null says nothing, as an absent field does; whether the field has to go depends on what was applied.
            if wanted.is_null() {
                continue;
            }
            let path = path.join(Segment::Key(key.clone()));
            self.value(shape.field(key), &path, last.and_then(|l| l.get(key)), live.get(key), wanted);
        }
        for (key, applied) in last.into_iter().flatten() {
            let said = target.get(key).is_some_and(|v| !v.is_null());
            let there = live.get(key).is_some_and(|v| !is_empty(v));
            if !said && there && !applied.is_null() {
                self.report(&path.join(Segment::Key(key.clone())), Change::Remove);
            }
        }
    }

    fn list(&mut self, shape: &Shape, path: &Path, last: Option<&[Value]>, live: &[Value], target: &[Value]) {
        match shape {
            Shape::Keyed { keys, ordered, item } => {
                let ids = |list: &[Value]| list.iter().map(|v| identity(keys, v)).collect::<Option<Vec<_>>>();
                if let (Some(target_ids), Some(live_ids)) = (ids(target), ids(live))
                    && is_unique(&target_ids)
                    && is_unique(&live_ids)
                {
                    let last = last.unwrap_or_default();
                    let last_ids = ids(last).unwrap_or_default();
                    self.keyed(item, path, (last, &last_ids), (live, &live_ids), (target, &target_ids));
                    let is_common = |id: &&Vec<Value>| live_ids.contains(id) && target_ids.contains(id);
                    if *ordered && !target_ids.iter().filter(is_common).eq(live_ids.iter().filter(is_common)) {
                        self.report(path, Change::Set);
                    }
                    return;
                }
                self.replaced(shape, path, last, live, target);
            }
            Shape::Set => {
                for (index, wanted) in target.iter().enumerate().filter(|(_, v)| !live.contains(v)) {
                    let _ = wanted;
                    self.report(&path.join(Segment::Index(index)), Change::Add);
                }
                let gone = |v: &&Value| !target.contains(v) && live.contains(v);
                for _ in last.unwrap_or_default().iter().filter(gone) {
                    self.report(path, Change::Remove);
                }
            }
            _ => self.replaced(shape, path, last, live, target),
        }
    }

    fn keyed(
        &mut self,
        item: &Shape,
        path: &Path,
        (last, last_ids): (&[Value], &[Vec<Value>]),
        (live, live_ids): (&[Value], &[Vec<Value>]),
        (target, target_ids): (&[Value], &[Vec<Value>]),
    ) {
        let find = |list: &'_ [Value], ids: &[Vec<Value>], id: &Vec<Value>| {
            ids.iter().position(|i| i == id).and_then(|index| list.get(index).cloned())
        };
        for (index, (wanted, id)) in target.iter().zip(target_ids).enumerate() {
            let (applied, found) = (find(last, last_ids, id), find(live, live_ids, id));
            self.value(item, &path.join(Segment::Index(index)), applied.as_ref(), found.as_ref(), wanted);
        }
        for id in last_ids.iter().filter(|id| !target_ids.contains(id)) {
            if let Some(index) = live_ids.iter().position(|i| i == id) {
                self.report(&path.join(Segment::Index(index)), Change::Remove);
            }
        }
    }

    /// A list that is replaced as a whole. Elements are compared in their places, so that defaults which the API server
    /// put into them are no difference.
    fn replaced(&mut self, shape: &Shape, path: &Path, last: Option<&[Value]>, live: &[Value], target: &[Value]) {
        if live.len() != target.len() {
            self.report(path, Change::Set);
            return;
        }
        let last = last.filter(|last| last.len() == target.len());
        for (index, (wanted, found)) in target.iter().zip(live).enumerate() {
            let applied = last.and_then(|last| last.get(index));
            self.value(shape.item(), &path.join(Segment::Index(index)), applied, Some(found), wanted);
        }
    }
}

/// The values of an element's keys, or `None` when it is no map or has none of them.
fn identity(keys: &[(&str, &str)], element: &Value) -> Option<Vec<Value>> {
    let element = element.as_object()?;
    let value = |(key, default): &(&str, &str)| match element.get(*key) {
        Some(value) if !value.is_null() => Some(value.clone()),
        _ if default.is_empty() => None,
        _ => Some(Value::from(*default)),
    };
    keys.iter().map(value).collect()
}

fn is_unique(ids: &[Vec<Value>]) -> bool {
    ids.iter().enumerate().all(|(index, id)| !ids[..index].contains(id))
}

/// Whether a field with this value is the same as no field, for types that leave out empty fields.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
    }
}

fn same_scalar(shape: &Shape, target: &Value, live: &Value) -> bool {
    match (target, live) {
        _ if matches!(shape, Shape::Quantity) => quantity::equal(target, live),
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => target == live,
    }
}

#[cfg(test)]
mod tests;
