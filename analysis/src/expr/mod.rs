//! The expression language of `successCondition`, `failureCondition` and Prometheus range queries.
//!
//! It is the language of `expr-lang/expr` 1.17, which the peers use and whose definition users find in its documentation.
//! The names that an expression sees are a [`Scope`]. Evaluation is bounded in steps, memory and depth, so that an
//! expression somebody wrote for harm ends with an error.
//!
//! What differs from the peers: maps are in the order of their keys (theirs have none); an optional chain's type is not
//! known before it runs; `isNil` and `default` look at their argument.

mod ast;
mod error;
mod eval;
pub(crate) mod format;
mod functions;
mod lexer;
mod operators;
mod parser;
mod times;
mod types;
mod value;

#[cfg(test)]
mod tests;

pub use error::{Error, Stage};
pub use types::Type;
pub use value::{Elements, Key, List, MAX_DEPTH, MAX_SIZE, Map, TooLarge, Value};

use jiff::Timestamp;
use std::collections::BTreeMap;

/// The names that an expression sees, beside the functions of the language.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    names: BTreeMap<&'static str, (Type, Value)>,
    conditions: bool,
}

impl Scope {
    /// Only the language, as in the start and end of a range query.
    pub fn bare() -> Self {
        Self::default()
    }

    /// A condition on a measurement: `result`, `asInt`, `asFloat`, `isNaN`, `isInf`, `isNil` and `default`.
    pub fn condition(result: Value) -> Self {
        Self { names: BTreeMap::from([("result", (Type::of(&result), result))]), conditions: true }
    }

    /// A condition before anything was measured: `result` can be anything.
    pub fn unmeasured() -> Self {
        Self { names: BTreeMap::from([("result", (Type::Unknown, Value::Nil))]), conditions: true }
    }

    fn conditions(&self) -> bool {
        self.conditions
    }

    fn function(&self, name: &str) -> Option<&'static str> {
        functions::CONDITION_FUNCTIONS.into_iter().find(|f| self.conditions && *f == name)
    }

    fn get(&self, name: &str) -> Option<Value> {
        let value = self.names.get(name).map(|(_, value)| value.clone());
        value.or_else(|| self.function(name).map(Value::Function))
    }

    fn type_of(&self, name: &str) -> Option<Type> {
        let kind = self.names.get(name).map(|(kind, _)| kind.clone());
        kind.or_else(|| self.function(name).map(|_| Type::Function))
    }

    fn as_map(&self) -> Result<Value, TooLarge> {
        let values = self.names.iter().map(|(name, (_, value))| (Key::Str((*name).into()), value.clone()));
        let functions = functions::CONDITION_FUNCTIONS.into_iter().filter(|_| self.conditions);
        let functions = functions.map(|name| (Key::Str(name.into()), Value::Function(name)));
        Value::map(values.chain(functions).collect(), false)
    }
}

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Program {
    text: String,
    node: ast::Node,
}

impl Program {
    /// Parses an expression.
    ///
    /// # Errors
    /// When the text is not an expression.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match parser::parse(text) {
            Ok(node) => Ok(Self { text: text.to_owned(), node }),
            Err(fault) => Err(fault.locate(text)),
        }
    }

    /// Finds what is wrong whatever the values are, and says the type of the outcome.
    ///
    /// # Errors
    /// When the expression can not be evaluated.
    pub fn check(&self, scope: &Scope) -> Result<Type, Error> {
        types::check(&self.node, scope).map_err(|fault| fault.locate(&self.text))
    }

    /// Checks and evaluates the expression; `now()` is `now`.
    ///
    /// # Errors
    /// When the check fails, when values do not fit, or when the evaluation takes too many steps or too much memory.
    pub fn run(&self, scope: &Scope, now: Timestamp) -> Result<Value, Error> {
        self.check(scope)?;
        eval::run(&self.node, scope, now).map_err(|fault| fault.locate(&self.text))
    }
}
