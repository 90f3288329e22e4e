//! What is known about an expression before it runs.
//!
//! The type of most things is unknown until then, for JSON can be anything; but a condition that compares a list with a
//! number, calls what does not exist or gives no truth value is wrong for every value, and is better refused at once.

use super::Scope;
use super::ast::{Binary, Collection, Kind, Node, Pointer, Unary};
use super::error::Fault;
use super::eval::compile;
use super::functions;
use super::value::{Elements, Value};
use std::fmt;

/// A type.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Anything.
    Unknown,
    /// Nil.
    Nil,
    /// Truth.
    Bool,
    /// Integer.
    Int,
    /// Float.
    Float,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// A list, of which the elements' type is known.
    List(Box<Type>, Elements),
    /// A map; true when its keys may be something else than text.
    Map(bool),
    /// A time.
    Time,
    /// A duration.
    Duration,
    /// A time zone.
    Zone,
    /// A function.
    Function,
}

impl Type {
    pub(super) fn list(of: Self, elements: Elements) -> Self {
        Self::List(Box::new(of), elements)
    }

    /// A list of anything.
    pub(super) fn any_list() -> Self {
        Self::list(Self::Unknown, Elements::Any)
    }

    /// The type of a value. Nil counts as unknown, so that `isNil(result) || result > 1` can guard against it.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Nil => Self::Unknown,
            Value::Bool(_) => Self::Bool,
            Value::Int(_) => Self::Int,
            Value::Float(_) => Self::Float,
            Value::Str(_) => Self::Text,
            Value::Bytes(_) => Self::Bytes,
            Value::List(list) => Self::list(
                match list.elements() {
                    Elements::Any => Self::Unknown,
                    Elements::Int => Self::Int,
                    Elements::Float => Self::Float,
                    Elements::Str => Self::Text,
                },
                list.elements(),
            ),
            Value::Map(map) => Self::Map(map.any_key()),
            Value::Time(_) => Self::Time,
            Value::Duration(_) => Self::Duration,
            Value::Zone(_) => Self::Zone,
            Value::Function(_) => Self::Function,
        }
    }

    /// The type of an element.
    pub(super) fn element(&self) -> Self {
        match self {
            Self::List(of, _) => (**of).clone(),
            _ => Self::Unknown,
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Float)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Nil => "nil",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float64",
            Self::Text => "string",
            Self::Bytes => "[]uint8",
            Self::List(_, elements) => elements.list_name(),
            Self::Map(true) => "map[interface {}]interface {}",
            Self::Map(false) => "map[string]interface {}",
            Self::Time => "time.Time",
            Self::Duration => "time.Duration",
            Self::Zone => "*time.Location",
            Self::Function => "func",
        })
    }
}

struct Check<'a> {
    scope: &'a Scope,
    /// What `#` is in the predicates around, and which function takes them.
    predicates: Vec<(Type, Collection)>,
    variables: Vec<(&'a str, Type)>,
}

/// Checks a tree against what its names will be; `result` is the type of the name `result`.
pub(super) fn check(node: &Node, scope: &Scope) -> Result<Type, Fault> {
    Check { scope, predicates: Vec::new(), variables: Vec::new() }.kind(node)
}

type Found = Result<Type, Fault>;

impl<'a> Check<'a> {
    fn kind(&mut self, node: &'a Node) -> Found {
        match &node.kind {
            Kind::Nil => Ok(Type::Nil),
            Kind::Bool(_) => Ok(Type::Bool),
            Kind::Int(_) => Ok(Type::Int),
            Kind::Float(_) => Ok(Type::Float),
            Kind::Text(_) => Ok(Type::Text),
            Kind::Bytes(_) => Ok(Type::Bytes),
            Kind::Name(name) => self.name(node, name),
            Kind::Pointer(pointer) => self.pointer(node, *pointer),
            Kind::Unary(unary, operand) => self.unary(node, *unary, operand),
            Kind::Binary(binary, left, right) => {
                let left = self.kind(left)?;
                let right_type = self.kind(right)?;
                binary_type(node, *binary, left, right_type, right)
            }
            Kind::Compare(first, rest) => {
                let mut left = self.kind(first)?;
                for (order, right) in rest {
                    let right = self.kind(right)?;
                    let fits = left.is_number() && right.is_number()
                        || left == right && matches!(left, Type::Text | Type::Time | Type::Duration)
                        || maybe(&left, &right, |t| {
                            t.is_number() || matches!(t, Type::Text | Type::Time | Type::Duration)
                        });
                    if !fits {
                        return Err(mismatched(node, order.sign(), &left, &right));
                    }
                    left = right;
                }
                Ok(Type::Bool)
            }
            Kind::Chain(inner) => {
                self.kind(inner)?;
                // It may be nil.
                Ok(Type::Unknown)
            }
            Kind::Member { base, property, .. } => {
                let base = self.kind(base)?;
                let property_type = self.kind(property)?;
                member_type(node, base, property, property_type)
            }
            Kind::Slice { base, from, to } => {
                let base = self.kind(base)?;
                for bound in [from, to].into_iter().flatten() {
                    match self.kind(bound)? {
                        Type::Int | Type::Unknown => {}
                        other => return Err(Fault::check(bound.at, format!("non-integer slice index {other}"))),
                    }
                }
                match base {
                    Type::Unknown | Type::Text | Type::Bytes | Type::List(..) => Ok(base),
                    _ => Err(Fault::check(node.at, format!("cannot slice {base}"))),
                }
            }
            Kind::Call { name, arguments } => self.call(node, name, arguments),
            Kind::Method { base, name, arguments, .. } => {
                let base = self.kind(base)?;
                for argument in arguments {
                    self.kind(argument)?;
                }
                method_type(node, &base, name)
            }
            Kind::Collection { function, over, predicate, last } => {
                self.collection(node, *function, over, predicate.as_deref(), last.as_deref())
            }
            Kind::Let { name, value, body } => self.declared(node, name, value, body),
            Kind::Sequence(nodes) => {
                let mut last = Type::Nil;
                for node in nodes {
                    last = self.kind(node)?;
                }
                Ok(last)
            }
            Kind::If { condition, then, otherwise } => {
                let found = self.kind(condition)?;
                if !matches!(found, Type::Bool | Type::Unknown) {
                    let message = format!("non-bool expression (type {found}) used as condition");
                    return Err(Fault::check(condition.at, message));
                }
                let then = match then {
                    Some(then) => self.kind(then)?,
                    None => found,
                };
                let otherwise = self.kind(otherwise)?;
                Ok(if then == otherwise { then } else { Type::Unknown })
            }
            Kind::List(nodes) => {
                let mut kinds = nodes.iter().map(|n| self.kind(n)).collect::<Result<Vec<_>, _>>()?;
                let first = kinds.pop().unwrap_or(Type::Unknown);
                let same = kinds.iter().all(|kind| *kind == first);
                Ok(Type::list(if same { first } else { Type::Unknown }, Elements::Any))
            }
            Kind::Map(pairs) => {
                for (key, value) in pairs {
                    self.kind(key)?;
                    self.kind(value)?;
                }
                Ok(Type::Map(false))
            }
        }
    }

    fn name(&self, node: &Node, name: &str) -> Found {
        if let Some((_, kind)) = self.variables.iter().rev().find(|(n, _)| *n == name) {
            return Ok(kind.clone());
        }
        if name == "$env" {
            return Ok(Type::Map(false));
        }
        if let Some(kind) = self.scope.type_of(name) {
            return Ok(kind);
        }
        Err(Fault::check(node.at, format!("unknown name {name}")))
    }

    fn pointer(&self, node: &Node, pointer: Pointer) -> Found {
        let Some((item, function)) = self.predicates.last() else {
            return Err(Fault::check(node.at, "cannot use pointer accessor outside predicate"));
        };
        match (pointer, function) {
            (Pointer::Item, _) => Ok(item.clone()),
            (Pointer::Index, Collection::Map | Collection::Reduce) => Ok(Type::Int),
            (Pointer::Index, _) => Err(Fault::check(node.at, "unknown pointer #index")),
            (Pointer::Accumulator, Collection::Reduce) => Ok(Type::Unknown),
            (Pointer::Accumulator, _) => Err(Fault::check(node.at, "unknown pointer #acc")),
        }
    }

    fn unary(&mut self, node: &'a Node, unary: Unary, operand: &'a Node) -> Found {
        let found = self.kind(operand)?;
        let sign = match (unary, &found) {
            (Unary::Not, Type::Bool | Type::Unknown) => return Ok(Type::Bool),
            (Unary::Minus | Unary::Plus, Type::Int | Type::Float | Type::Unknown) => return Ok(found),
            (Unary::Not, _) => "not",
            (Unary::Minus, _) => "-",
            (Unary::Plus, _) => "+",
        };
        Err(Fault::check(node.at, format!("invalid operation: {sign} (mismatched type {found})")))
    }

    fn call(&mut self, node: &'a Node, name: &str, arguments: &'a [Node]) -> Found {
        let kinds = arguments.iter().map(|n| self.kind(n)).collect::<Result<Vec<_>, _>>()?;
        let known = functions::is_builtin(name) || self.scope.conditions() && functions::is_condition_function(name);
        if !known {
            let callable = self.variables.iter().any(|(n, _)| *n == name) || self.scope.type_of(name).is_some();
            let what = if callable { format!("{name} is not callable") } else { format!("unknown name {name}") };
            return Err(Fault::check(node.at, what));
        }
        functions::check(name, &kinds).map_err(|message| Fault::check(node.at, message))
    }

    fn declared(&mut self, node: &Node, name: &'a str, value: &'a Node, body: &'a Node) -> Found {
        let taken = if self.scope.type_of(name).is_some() {
            Some("")
        } else if functions::is_builtin(name) || Collection::named(name).is_some() {
            Some("builtin ")
        } else if self.variables.iter().any(|(n, _)| *n == name) {
            Some("variable ")
        } else {
            None
        };
        if let Some(what) = taken {
            return Err(Fault::check(node.at, format!("cannot redeclare {what}{name}")));
        }
        let value = self.kind(value)?;
        self.variables.push((name, value));
        let found = self.kind(body);
        self.variables.pop();
        found
    }

    fn collection(
        &mut self,
        node: &Node,
        function: Collection,
        over: &'a Node,
        predicate: Option<&'a Node>,
        last: Option<&'a Node>,
    ) -> Found {
        let list = self.kind(over)?;
        if !matches!(list, Type::List(..) | Type::Unknown) {
            let message = format!("builtin {} takes only array (got {list})", function.name());
            return Err(Fault::check(over.at, message));
        }
        let item = list.element();
        self.predicates.push((item.clone(), function));
        let found = predicate.map(|n| self.kind(n)).transpose();
        self.predicates.pop();
        let found = found?;
        if let (Some(predicate), Some(found)) = (predicate, &found)
            && function.asks()
            && !matches!(found, Type::Bool | Type::Unknown)
        {
            return Err(Fault::check(predicate.at, format!("predicate should return boolean (got {found})")));
        }
        let last_type = last.map(|n| self.kind(n)).transpose()?;
        if function == Collection::SortBy && !matches!(last_type, None | Some(Type::Text | Type::Unknown)) {
            return Err(Fault::check(node.at, "sortBy order argument must be a string"));
        }
        Ok(match function {
            Collection::All | Collection::None | Collection::Any | Collection::One => Type::Bool,
            Collection::Filter => Type::list(item, Elements::Any),
            Collection::Map => Type::list(found.unwrap_or(Type::Unknown), Elements::Any),
            Collection::Count => Type::Int,
            // Nothing may be found.
            Collection::FindIndex | Collection::FindLastIndex => Type::Unknown,
            Collection::Sum => found.unwrap_or(item),
            Collection::Find | Collection::FindLast => item,
            Collection::GroupBy => Type::Map(true),
            Collection::SortBy => list,
            Collection::Reduce => found.unwrap_or(Type::Unknown),
        })
    }
}

/// One side is unknown, and the other one is unknown too or passes the test.
fn maybe(left: &Type, right: &Type, test: impl Fn(&Type) -> bool) -> bool {
    match (left, right) {
        (Type::Unknown, Type::Unknown) => true,
        (Type::Unknown, other) | (other, Type::Unknown) => test(other),
        _ => false,
    }
}

fn mismatched(node: &Node, sign: &str, left: &Type, right: &Type) -> Fault {
    Fault::check(node.at, format!("invalid operation: {sign} (mismatched types {left} and {right})"))
}

fn promoted(left: &Type, right: &Type) -> Type {
    if *left == Type::Float || *right == Type::Float { Type::Float } else { Type::Int }
}

fn binary_type(node: &Node, binary: Binary, left: Type, right: Type, right_node: &Node) -> Found {
    let numbers = left.is_number() && right.is_number();
    let number_or = |extra: &'static [Type]| {
        let left = left.clone();
        let right = right.clone();
        move || maybe(&left, &right, |t| t.is_number() || extra.contains(t))
    };
    let found = match binary {
        Binary::Equal | Binary::NotEqual => comparable(&left, &right).then_some(Type::Bool),
        Binary::Or | Binary::And => {
            let fits = left == Type::Bool && right == Type::Bool || maybe(&left, &right, |t| *t == Type::Bool);
            fits.then_some(Type::Bool)
        }
        Binary::In => match &right {
            Type::Unknown => Some(Type::Bool),
            Type::Map(any) if *any || matches!(left, Type::Text | Type::Unknown) => Some(Type::Bool),
            Type::Map(_) => {
                return Err(Fault::check(node.at, format!("cannot use {left} as type string in map key")));
            }
            Type::List(of, _) if comparable(&left, of) => Some(Type::Bool),
            Type::List(of, _) => {
                return Err(Fault::check(node.at, format!("cannot use {left} as type {of} in array")));
            }
            _ => None,
        },
        Binary::Matches | Binary::Contains | Binary::StartsWith | Binary::EndsWith => {
            if let (Binary::Matches, Kind::Text(pattern)) = (binary, &right_node.kind) {
                compile(pattern).map_err(|message| Fault::check(right_node.at, message))?;
            }
            let subject = left == Type::Text || binary == Binary::Matches && left == Type::Bytes;
            let fits = subject && right == Type::Text || maybe(&left, &right, |t| *t == Type::Text);
            fits.then_some(Type::Bool)
        }
        Binary::Range => {
            let fits = left == Type::Int && right == Type::Int || maybe(&left, &right, |t| *t == Type::Int);
            fits.then(|| Type::list(Type::Int, Elements::Int))
        }
        Binary::Coalesce => Some(match (&left, &right) {
            (Type::Nil, _) => right.clone(),
            (_, Type::Nil) => left.clone(),
            _ if left == right => left.clone(),
            _ => Type::Unknown,
        }),
        Binary::Modulo => {
            let fits = left == Type::Int && right == Type::Int || maybe(&left, &right, |t| *t == Type::Int);
            fits.then_some(Type::Int)
        }
        Binary::Divide | Binary::Power => (numbers || number_or(&[])()).then_some(Type::Float),
        Binary::Add | Binary::Subtract | Binary::Multiply => match (binary, &left, &right) {
            _ if numbers => Some(promoted(&left, &right)),
            (Binary::Add, Type::Text, Type::Text) => Some(Type::Text),
            (Binary::Add, Type::Time, Type::Duration) | (Binary::Add, Type::Duration, Type::Time) => Some(Type::Time),
            (Binary::Subtract, Type::Time, Type::Time) => Some(Type::Duration),
            (Binary::Subtract, Type::Time, Type::Duration) => Some(Type::Time),
            (_, Type::Duration, Type::Duration) => Some(Type::Duration),
            (Binary::Multiply, Type::Duration, _) if right.is_number() => Some(Type::Duration),
            (Binary::Multiply, _, Type::Duration) if left.is_number() => Some(Type::Duration),
            (Binary::Add, ..) => number_or(&[Type::Text, Type::Time, Type::Duration])().then_some(Type::Unknown),
            _ => number_or(&[Type::Time, Type::Duration])().then_some(Type::Unknown),
        },
    };
    found.ok_or_else(|| mismatched(node, binary.sign(), &left, &right))
}

/// `==` makes sense between the two.
fn comparable(left: &Type, right: &Type) -> bool {
    matches!((left, right), (Type::Unknown | Type::Nil, _) | (_, Type::Unknown | Type::Nil))
        || left.is_number() && right.is_number()
        || matches!((left, right), (Type::List(..), Type::List(..)))
        || left == right
}

fn member_type(node: &Node, base: Type, property: &Node, property_type: Type) -> Found {
    match (&base, &property.kind) {
        (Type::Unknown, _) => Ok(Type::Unknown),
        (Type::Nil, Kind::Text(name)) => Err(Fault::check(node.at, format!("type nil has no field {name}"))),
        (Type::Map(any), _) if *any || matches!(property_type, Type::Text | Type::Unknown) => Ok(Type::Unknown),
        (Type::Map(_), _) => {
            let message = format!("cannot use {property_type} to get an element from {base}");
            Err(Fault::check(property.at, message))
        }
        (Type::List(of, _), _) if matches!(property_type, Type::Int | Type::Unknown) => Ok((**of).clone()),
        (Type::List(..), _) => {
            let message = format!("array elements can only be selected using an integer (got {property_type})");
            Err(Fault::check(property.at, message))
        }
        (_, Kind::Text(name)) => Err(Fault::check(node.at, format!("type {base} has no field {name}"))),
        _ => Err(Fault::check(node.at, format!("type {base}[{property_type}] is undefined"))),
    }
}

fn method_type(node: &Node, base: &Type, name: &str) -> Found {
    match base {
        Type::Unknown | Type::Zone => Ok(Type::Unknown),
        Type::Time => Ok(match name {
            "Sub" => Type::Duration,
            "Add" | "AddDate" | "In" | "UTC" | "Local" | "Truncate" | "Round" => Type::Time,
            _ => Type::Unknown,
        }),
        Type::Duration => Ok(match name {
            "Truncate" | "Round" | "Abs" => Type::Duration,
            _ => Type::Unknown,
        }),
        _ => Err(Fault::check(node.at, format!("type {base} has no method {name}"))),
    }
}
