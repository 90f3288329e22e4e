//! The tree of an expression.

use std::sync::Arc;

/// A node, where it stands in the text, and how many levels it has.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) at: u32,
    pub(super) levels: u32,
}

pub(super) type Child = Box<Node>;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    Bytes(Arc<[u8]>),
    Name(String),
    /// `#`, `#acc`, `#index`, and the `#` that stands before `.field`.
    Pointer(Pointer),
    Unary(Unary, Child),
    Binary(Binary, Child, Child),
    /// `a < b <= c`: all of the pairs hold.
    Compare(Child, Vec<(Order, Node)>),
    /// Ends as nil when an optional member inside finds nil.
    Chain(Child),
    Member {
        base: Child,
        property: Child,
        optional: bool,
    },
    Slice {
        base: Child,
        from: Option<Child>,
        to: Option<Child>,
    },
    Call {
        name: String,
        arguments: Vec<Node>,
    },
    Method {
        base: Child,
        name: String,
        optional: bool,
        arguments: Vec<Node>,
    },
    /// A function that takes a predicate.
    Collection {
        function: Collection,
        over: Child,
        predicate: Option<Child>,
        last: Option<Child>,
    },
    Let {
        name: String,
        value: Child,
        body: Child,
    },
    Sequence(Vec<Node>),
    /// Without `then`, as in `a ?: b`, the condition itself is the value.
    If {
        condition: Child,
        then: Option<Child>,
        otherwise: Child,
    },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pointer {
    Item,
    Index,
    Accumulator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    Not,
    Minus,
    Plus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

impl Order {
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::More => ">",
            Self::MoreOrEqual => ">=",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Or,
    And,
    Equal,
    NotEqual,
    In,
    Matches,
    Contains,
    StartsWith,
    EndsWith,
    Range,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Coalesce,
}

impl Binary {
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Or => "||",
            Self::And => "&&",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::In => "in",
            Self::Matches => "matches",
            Self::Contains => "contains",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Range => "..",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Power => "**",
            Self::Coalesce => "??",
        }
    }
}

/// The functions that take a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Collection {
    All,
    None,
    Any,
    One,
    Filter,
    Map,
    Count,
    Sum,
    Find,
    FindIndex,
    FindLast,
    FindLastIndex,
    GroupBy,
    SortBy,
    Reduce,
}

impl Collection {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "all" => Self::All,
            "none" => Self::None,
            "any" => Self::Any,
            "one" => Self::One,
            "filter" => Self::Filter,
            "map" => Self::Map,
            "count" => Self::Count,
            "sum" => Self::Sum,
            "find" => Self::Find,
            "findIndex" => Self::FindIndex,
            "findLast" => Self::FindLast,
            "findLastIndex" => Self::FindLastIndex,
            "groupBy" => Self::GroupBy,
            "sortBy" => Self::SortBy,
            "reduce" => Self::Reduce,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::None => "none",
            Self::Any => "any",
            Self::One => "one",
            Self::Filter => "filter",
            Self::Map => "map",
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Find => "find",
            Self::FindIndex => "findIndex",
            Self::FindLast => "findLast",
            Self::FindLastIndex => "findLastIndex",
            Self::GroupBy => "groupBy",
            Self::SortBy => "sortBy",
            Self::Reduce => "reduce",
        }
    }

    pub(super) fn predicate_is_optional(self) -> bool {
        matches!(self, Self::Count | Self::Sum)
    }

    /// Takes an order or an initial value after the predicate.
    pub(super) fn has_last(self) -> bool {
        matches!(self, Self::SortBy | Self::Reduce)
    }

    /// The predicate has to give a truth value.
    pub(super) fn asks(self) -> bool {
        !matches!(self, Self::Map | Self::Sum | Self::GroupBy | Self::SortBy | Self::Reduce)
    }
}
