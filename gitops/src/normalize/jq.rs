//! The part of jq that names places in an object: `.a.b[]`, `.a["x"]`, `..`, `select(…)`, `|`, `,` and `?`.
//!
//! An expression is compiled once and then asked for the paths that it names in a value. What jq would answer with a
//! value that is no place (a sum, a constructed object) is refused when the expression is compiled.

mod eval;
mod parse;

use super::path::Path;
use serde_json::Value;

/// A compiled path expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    root: Expr,
}

/// Why an expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("jq path expression {expression:?}: at character {position}: found {found}, expected {expected}")]
pub struct InvalidFilter {
    /// The whole expression.
    pub expression: String,
    /// Where the trouble begins, counted from 1.
    pub position: usize,
    /// What stands there.
    pub found: String,
    /// What could stand there.
    pub expected: &'static str,
}

impl Filter {
    /// Compiles an expression.
    ///
    /// # Errors
    /// When the text is no path expression, or uses a part of jq that is not supported.
    pub fn compile(expression: &str) -> Result<Self, InvalidFilter> {
        parse::parse(expression).map(|root| Self { root })
    }

    /// The places that the expression names in `value`. A place that does not exist is left out, so that the answer can
    /// be deleted as it is. Where jq would fail (a key of a string, say) that branch names nothing.
    pub fn paths(&self, value: &Value) -> Vec<Path> {
        eval::places(&self.root, value)
            .into_iter()
            .filter(|path| !path.0.is_empty() && path.get(value).is_some())
            .collect()
    }
}

/// An expression. Each has a value for an input; those made of places have a path too.
#[derive(Clone, Debug, PartialEq)]
enum Expr {
    /// `.`
    Identity,
    /// `..`
    Recurse,
    /// `e.key` or `e["key"]`
    Key(Box<Expr>, String),
    /// `e[n]`, from the end when negative
    Index(Box<Expr>, i64),
    /// `e[from:to]`
    Slice(Box<Expr>, Option<i64>, Option<i64>),
    /// `e[]`
    Each(Box<Expr>),
    /// `a | b`
    Pipe(Box<Expr>, Box<Expr>),
    /// `a, b`
    Comma(Box<Expr>, Box<Expr>),
    /// `a // b`
    Alternative(Box<Expr>, Box<Expr>),
    /// `select(c)`
    Select(Box<Expr>),
    /// `first(e)`
    First(Box<Expr>),
    /// `empty`
    Empty,
    /// A literal
    Literal(Value),
    /// `[a, b]`
    List(Option<Box<Expr>>),
    /// `a == b` and its kin
    Compare(Box<Expr>, Comparison, Box<Expr>),
    /// `a and b`
    And(Box<Expr>, Box<Expr>),
    /// `a or b`
    Or(Box<Expr>, Box<Expr>),
    /// `not`
    Not,
    /// A call that gives a value: `test("x")`, `length`
    Call(Function, Vec<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Test,
    StartsWith,
    EndsWith,
    Contains,
    Inside,
    Has,
    In,
    Any,
    All,
    Length,
    Type,
    Keys,
    ToString,
    AsciiDowncase,
}

impl Function {
    /// Name, fewest and most arguments.
    const TABLE: &[(&str, Self, usize, usize)] = &[
        ("test", Self::Test, 1, 2),
        ("startswith", Self::StartsWith, 1, 1),
        ("endswith", Self::EndsWith, 1, 1),
        ("contains", Self::Contains, 1, 1),
        ("inside", Self::Inside, 1, 1),
        ("has", Self::Has, 1, 1),
        ("IN", Self::In, 1, 1),
        ("any", Self::Any, 0, 2),
        ("all", Self::All, 0, 2),
        ("length", Self::Length, 0, 0),
        ("type", Self::Type, 0, 0),
        ("keys", Self::Keys, 0, 0),
        ("tostring", Self::ToString, 0, 0),
        ("ascii_downcase", Self::AsciiDowncase, 0, 0),
    ];
}

#[cfg(test)]
mod tests;
