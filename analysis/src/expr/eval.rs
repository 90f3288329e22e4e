//! A tree and values to a value.

use super::ast::{Binary, Collection, Kind, Node, Pointer, Unary};
use super::error::Fault;
use super::value::{Elements, Key, Value};
use super::{Scope, functions, operators, times};
use jiff::Timestamp;
use regex::Regex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// How many steps an evaluation may take. A step is a node or an element; a condition takes tens.
const MAX_STEPS: u64 = 1_000_000;
/// How many bytes of text an evaluation may make.
const MAX_BYTES: u64 = 16 << 20;
/// The compiled size that a regular expression may have.
const MAX_REGEX: usize = 1 << 20;

/// What is left for an evaluation to spend.
pub(super) struct Budget {
    steps: u64,
    bytes: u64,
}

impl Budget {
    /// Takes steps.
    pub(super) fn steps(&mut self, steps: u64) -> Result<(), String> {
        self.steps = self.steps.checked_sub(steps).ok_or("expression takes too many steps")?;
        Ok(())
    }

    /// Pays for a text that is about to be made.
    pub(super) fn bytes(&mut self, bytes: u64) -> Result<(), String> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(operators::too_large)?;
        Ok(())
    }
}

/// Why an evaluation ends early.
enum Stop {
    Fault(Fault),
    /// An optional member found nil; the chain around it is nil.
    Chain,
}

type Outcome = Result<Value, Stop>;

/// The list that a predicate runs over.
struct Frame {
    items: Value,
    index: usize,
    accumulator: Value,
}

struct Evaluation<'a> {
    scope: &'a Scope,
    now: Timestamp,
    budget: Budget,
    frames: Vec<Frame>,
    variables: Vec<(&'a str, Value)>,
    patterns: HashMap<Arc<str>, Regex>,
}

/// Evaluates a tree.
pub(super) fn run(node: &Node, scope: &Scope, now: Timestamp) -> Result<Value, Fault> {
    let mut evaluation = Evaluation {
        scope,
        now,
        budget: Budget { steps: MAX_STEPS, bytes: MAX_BYTES },
        frames: Vec::new(),
        variables: Vec::new(),
        patterns: HashMap::new(),
    };
    match evaluation.value(node) {
        Ok(value) => Ok(value),
        Err(Stop::Fault(fault)) => Err(fault),
        // Every optional member stands in a chain, which catches this.
        Err(Stop::Chain) => Ok(Value::Nil),
    }
}

/// Puts a place to a failure.
trait At<R> {
    fn at(self, node: &Node) -> Result<R, Stop>;
}

impl<R> At<R> for Result<R, String> {
    fn at(self, node: &Node) -> Result<R, Stop> {
        self.map_err(|message| Stop::Fault(Fault::run(node.at, message)))
    }
}

impl<R> At<R> for Result<R, super::value::TooLarge> {
    fn at(self, node: &Node) -> Result<R, Stop> {
        self.map_err(|_| Stop::Fault(Fault::run(node.at, operators::too_large())))
    }
}

impl<'a> Evaluation<'a> {
    fn value(&mut self, node: &'a Node) -> Outcome {
        self.budget.steps(1).at(node)?;
        match &node.kind {
            Kind::Nil => Ok(Value::Nil),
            Kind::Bool(v) => Ok(Value::Bool(*v)),
            Kind::Int(v) => Ok(Value::Int(*v)),
            Kind::Float(v) => Ok(Value::Float(*v)),
            Kind::Text(v) => Ok(Value::Str(v.clone())),
            Kind::Bytes(v) => Ok(Value::Bytes(v.clone())),
            Kind::Name(name) => self.name(node, name),
            Kind::Pointer(pointer) => self.pointer(node, *pointer),
            Kind::Unary(unary, operand) => self.unary(node, *unary, operand),
            Kind::Binary(binary, left, right) => self.binary(node, *binary, left, right),
            Kind::Compare(first, rest) => {
                let mut left = self.value(first)?;
                for (order, right) in rest {
                    let right = self.value(right)?;
                    if !operators::ordered(&left, *order, &right).at(node)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Kind::Chain(inner) => match self.value(inner) {
                Err(Stop::Chain) => Ok(Value::Nil),
                outcome => outcome,
            },
            Kind::Member { base, property, optional } => self.member(node, base, property, *optional),
            Kind::Slice { base, from, to } => self.slice(node, base, from.as_deref(), to.as_deref()),
            Kind::Call { name, arguments } => self.call(node, name, arguments),
            Kind::Method { base, name, optional, arguments } => self.method(node, base, name, *optional, arguments),
            Kind::Collection { function, over, predicate, last } => {
                self.collection(node, *function, over, predicate.as_deref(), last.as_deref())
            }
            Kind::Let { name, value, body } => {
                let value = self.value(value)?;
                self.variables.push((name, value));
                let outcome = self.value(body);
                self.variables.pop();
                outcome
            }
            Kind::Sequence(nodes) => {
                let mut last = Value::Nil;
                for node in nodes {
                    last = self.value(node)?;
                }
                Ok(last)
            }
            Kind::If { condition, then, otherwise } => match (self.truth(condition)?, then) {
                (true, Some(then)) => self.value(then),
                (true, None) => Ok(Value::Bool(true)),
                (false, _) => self.value(otherwise),
            },
            Kind::List(nodes) => {
                let items = nodes.iter().map(|n| self.value(n)).collect::<Result<Vec<_>, _>>()?;
                Value::list(items).at(node)
            }
            Kind::Map(pairs) => self.map(node, pairs),
        }
    }

    fn truth(&mut self, node: &'a Node) -> Result<bool, Stop> {
        match self.value(node)? {
            Value::Bool(v) => Ok(v),
            other => Err(format!("expected bool, but got {}", other.type_name())).at(node),
        }
    }

    fn name(&mut self, node: &Node, name: &str) -> Outcome {
        if let Some((_, value)) = self.variables.iter().rev().find(|(n, _)| *n == name) {
            return Ok(value.clone());
        }
        if name == "$env" {
            return self.scope.as_map().at(node);
        }
        match self.scope.get(name) {
            Some(value) => Ok(value),
            None => Err(format!("unknown name {name}")).at(node),
        }
    }

    fn pointer(&mut self, node: &Node, pointer: Pointer) -> Outcome {
        let Some(frame) = self.frames.last() else {
            return Err("cannot use pointer accessor outside predicate".to_owned()).at(node);
        };
        Ok(match (pointer, &frame.items) {
            (Pointer::Item, Value::List(list)) => list.items().get(frame.index).cloned().unwrap_or(Value::Nil),
            (Pointer::Item, _) => Value::Nil,
            (Pointer::Index, _) => Value::Int(frame.index as i64),
            (Pointer::Accumulator, _) => frame.accumulator.clone(),
        })
    }

    fn unary(&mut self, node: &Node, unary: Unary, operand: &'a Node) -> Outcome {
        if unary == Unary::Not {
            return Ok(Value::Bool(!self.truth(operand)?));
        }
        match (unary, self.value(operand)?) {
            (Unary::Minus, Value::Int(v)) => Ok(Value::Int(v.wrapping_neg())),
            (Unary::Minus, Value::Float(v)) => Ok(Value::Float(-v)),
            (Unary::Plus, v @ (Value::Int(_) | Value::Float(_))) => Ok(v),
            (_, v) => {
                let sign = if unary == Unary::Minus { "-" } else { "+" };
                Err(format!("invalid operation: {sign} (mismatched type {})", v.type_name())).at(node)
            }
        }
    }

    fn binary(&mut self, node: &Node, binary: Binary, left: &'a Node, right: &'a Node) -> Outcome {
        match binary {
            Binary::Or => return Ok(Value::Bool(self.truth(left)? || self.truth(right)?)),
            Binary::And => return Ok(Value::Bool(self.truth(left)? && self.truth(right)?)),
            Binary::Coalesce => {
                return match self.value(left)? {
                    Value::Nil => self.value(right),
                    value => Ok(value),
                };
            }
            _ => {}
        }
        let (a, b) = (self.value(left)?, self.value(right)?);
        match binary {
            Binary::Equal | Binary::NotEqual => {
                self.budget.steps(a.size().min(b.size())).at(node)?;
                Ok(Value::Bool(operators::equal(&a, &b) == (binary == Binary::Equal)))
            }
            Binary::In => {
                self.budget.steps(b.size()).at(node)?;
                operators::contains(&b, &a).map(Value::Bool).at(node)
            }
            Binary::Matches | Binary::Contains | Binary::StartsWith | Binary::EndsWith => {
                self.text(binary, &a, &b).map(Value::Bool).at(node)
            }
            Binary::Range => {
                let list = operators::range(&a, &b).at(node)?;
                self.budget.steps(list.size()).at(node)?;
                Ok(list)
            }
            _ => {
                if let (Value::Str(a), Value::Str(b)) = (&a, &b) {
                    self.budget.bytes((a.len() + b.len()) as u64).at(node)?;
                }
                operators::arithmetic(binary, &a, &b).at(node)
            }
        }
    }

    fn text(&mut self, binary: Binary, a: &Value, b: &Value) -> Result<bool, String> {
        let (subject, pattern) = match (a, b) {
            (Value::Nil, _) | (_, Value::Nil) => return Ok(false),
            (Value::Str(a), Value::Str(b)) => (a.to_string(), b),
            (Value::Bytes(a), Value::Str(b)) if binary == Binary::Matches => {
                (String::from_utf8_lossy(a).into_owned(), b)
            }
            _ => {
                let (sign, a, b) = (binary.sign(), a.type_name(), b.type_name());
                return Err(format!("invalid operation: {sign} (mismatched types {a} and {b})"));
            }
        };
        self.budget.steps(1 + (subject.len() / 64) as u64)?;
        Ok(match binary {
            Binary::Contains => subject.contains(&**pattern),
            Binary::StartsWith => subject.starts_with(&**pattern),
            Binary::EndsWith => subject.ends_with(&**pattern),
            _ => self.pattern(pattern)?.is_match(&subject),
        })
    }

    fn pattern(&mut self, pattern: &Arc<str>) -> Result<&Regex, String> {
        if !self.patterns.contains_key(pattern) {
            // Compiling is dear, and an expression can make up patterns.
            self.budget.steps(10_000)?;
            self.patterns.insert(pattern.clone(), compile(pattern)?);
        }
        self.patterns.get(pattern).ok_or_else(|| "pattern is missing".to_owned())
    }

    fn member(&mut self, node: &Node, base: &'a Node, property: &'a Node, optional: bool) -> Outcome {
        let base = self.value(base)?;
        if optional && base.is_nil() {
            return Err(Stop::Chain);
        }
        let property = self.value(property)?;
        operators::member(&base, &property).at(node)
    }

    fn slice(&mut self, node: &Node, base: &'a Node, from: Option<&'a Node>, to: Option<&'a Node>) -> Outcome {
        let base = self.value(base)?;
        let to = to.map(|n| self.value(n)).transpose()?;
        let from = from.map(|n| self.value(n)).transpose()?;
        self.budget.steps(base.size()).at(node)?;
        if let Value::Str(text) = &base {
            self.budget.bytes(text.len() as u64).at(node)?;
        }
        operators::slice(&base, from.as_ref(), to.as_ref()).at(node)
    }

    fn call(&mut self, node: &Node, name: &str, arguments: &'a [Node]) -> Outcome {
        let arguments = arguments.iter().map(|n| self.value(n)).collect::<Result<Vec<_>, _>>()?;
        if self.scope.conditions() && functions::is_condition_function(name) {
            return functions::call_condition(name, &arguments).at(node);
        }
        functions::call(&mut self.budget, self.now, name, arguments).at(node)
    }

    fn method(&mut self, node: &Node, base: &'a Node, name: &str, optional: bool, arguments: &'a [Node]) -> Outcome {
        let base = self.value(base)?;
        if optional && base.is_nil() {
            return Err(Stop::Chain);
        }
        let arguments = arguments.iter().map(|n| self.value(n)).collect::<Result<Vec<_>, _>>()?;
        times::method(&base, name, &arguments).at(node)
    }

    fn map(&mut self, node: &Node, pairs: &'a [(Node, Node)]) -> Outcome {
        let mut entries = BTreeMap::new();
        for (key, value) in pairs {
            match self.value(key)? {
                Value::Str(name) => entries.insert(Key::Str(name), self.value(value)?),
                other => return Err(format!("a map key must be a string, but got {}", other.type_name())).at(key),
            };
        }
        Value::map(entries, false).at(node)
    }

    fn collection(
        &mut self,
        node: &Node,
        function: Collection,
        over: &'a Node,
        predicate: Option<&'a Node>,
        last: Option<&'a Node>,
    ) -> Outcome {
        let items = self.value(over)?;
        let Value::List(list) = &items else {
            let (name, found) = (function.name(), items.type_name());
            return Err(format!("builtin {name} takes only array (got {found})")).at(over);
        };
        let length = list.items().len();
        self.budget.steps(length as u64).at(node)?;
        let last = last.map(|n| self.value(n)).transpose()?;
        self.frames.push(Frame { items: items.clone(), index: 0, accumulator: Value::Nil });
        let outcome = match function {
            Collection::Reduce => self.reduce(node, length, predicate, last),
            Collection::SortBy => self.sort_by(node, length, predicate, last),
            Collection::GroupBy => self.group_by(node, length, predicate),
            Collection::Map | Collection::Sum => self.mapped(node, function, length, predicate),
            _ => self.asked(node, function, length, predicate),
        };
        self.frames.pop();
        outcome
    }

    /// The predicate's value for the element at an index; without a predicate, the element.
    fn applied(&mut self, node: &Node, index: usize, predicate: Option<&'a Node>) -> Outcome {
        if let Some(frame) = self.frames.last_mut() {
            frame.index = index;
        }
        match predicate {
            Some(predicate) => self.value(predicate),
            None => self.pointer(node, Pointer::Item),
        }
    }

    /// The functions whose predicate is a question.
    fn asked(&mut self, node: &Node, function: Collection, length: usize, predicate: Option<&'a Node>) -> Outcome {
        let holds = |this: &mut Self, index| match this.applied(node, index, predicate)? {
            Value::Bool(v) => Ok(v),
            other => {
                let message = format!("predicate should return boolean (got {})", other.type_name());
                Err(Stop::Fault(Fault::run(predicate.map_or(node.at, |p| p.at), message)))
            }
        };
        let backwards = matches!(function, Collection::FindLast | Collection::FindLastIndex);
        let mut matching = Vec::new();
        for step in 0..length {
            let index = if backwards { length - 1 - step } else { step };
            let held = holds(self, index)?;
            match function {
                Collection::All if !held => return Ok(Value::Bool(false)),
                Collection::Any if held => return Ok(Value::Bool(true)),
                Collection::None if held => return Ok(Value::Bool(false)),
                Collection::Find | Collection::FindLast if held => return self.pointer(node, Pointer::Item),
                Collection::FindIndex | Collection::FindLastIndex if held => return Ok(Value::Int(index as i64)),
                _ if held => matching.push(index),
                _ => {}
            }
        }
        match function {
            Collection::All | Collection::None => Ok(Value::Bool(true)),
            Collection::Any => Ok(Value::Bool(false)),
            Collection::One => Ok(Value::Bool(matching.len() == 1)),
            Collection::Count => Ok(Value::Int(matching.len() as i64)),
            Collection::Filter => match self.frames.last().map(|f| &f.items) {
                Some(Value::List(list)) => {
                    let items = matching.into_iter().filter_map(|i| list.items().get(i).cloned()).collect();
                    Value::list(items).at(node)
                }
                _ => Ok(Value::Nil),
            },
            _ => Ok(Value::Nil),
        }
    }

    fn mapped(&mut self, node: &Node, function: Collection, length: usize, predicate: Option<&'a Node>) -> Outcome {
        let mut items = Vec::with_capacity(length);
        let mut size = 0;
        let mut sum = Value::Int(0);
        for index in 0..length {
            let value = self.applied(node, index, predicate)?;
            if function == Collection::Sum {
                sum = operators::arithmetic(Binary::Add, &sum, &value).at(node)?;
            } else {
                size += value.size();
                if size > super::value::MAX_SIZE {
                    return Err(operators::too_large()).at(node);
                }
                items.push(value);
            }
        }
        if function == Collection::Sum { Ok(sum) } else { Value::list(items).at(node) }
    }

    fn group_by(&mut self, node: &Node, length: usize, predicate: Option<&'a Node>) -> Outcome {
        let mut groups: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
        for index in 0..length {
            let value = self.applied(node, index, predicate)?;
            let Some(key) = Key::of(&value) else {
                return Err(format!("cannot group by a value of type {}", value.type_name())).at(node);
            };
            let item = self.pointer(node, Pointer::Item)?;
            groups.entry(key).or_default().push(item);
        }
        let mut entries = BTreeMap::new();
        for (key, items) in groups {
            entries.insert(key, Value::list_of(items, Elements::Any).at(node)?);
        }
        Value::map(entries, true).at(node)
    }

    fn sort_by(&mut self, node: &Node, length: usize, predicate: Option<&'a Node>, order: Option<Value>) -> Outcome {
        let descending = functions::descending(order.as_ref()).at(node)?;
        let mut keys = Vec::with_capacity(length);
        for index in 0..length {
            keys.push(self.applied(node, index, predicate)?);
        }
        let places = functions::sorted(&keys, descending).at(node)?;
        match self.frames.last().map(|f| &f.items) {
            Some(Value::List(list)) => {
                Value::list(places.into_iter().filter_map(|i| list.items().get(i).cloned()).collect()).at(node)
            }
            _ => Ok(Value::Nil),
        }
    }

    fn reduce(&mut self, node: &Node, length: usize, predicate: Option<&'a Node>, initial: Option<Value>) -> Outcome {
        let (mut accumulator, start) = match initial {
            Some(value) => (value, 0),
            None if length == 0 => {
                return Err("reduce of empty array with no initial value".to_owned()).at(node);
            }
            None => (self.applied(node, 0, None)?, 1),
        };
        for index in start..length {
            if let Some(frame) = self.frames.last_mut() {
                frame.accumulator = accumulator;
            }
            accumulator = self.applied(node, index, predicate)?;
        }
        Ok(accumulator)
    }
}

/// Compiles a pattern within bounds.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    let builder = &mut regex::RegexBuilder::new(pattern);
    builder.size_limit(MAX_REGEX).build().map_err(|error| {
        // The whole text draws the pattern over several lines; the last one says what is wrong.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("{pattern:?} is not a regular expression: {reason}")
    })
}
