//! Tokens to a tree.
//!
//! Operators bind, from loosest to tightest: `|`; `or ||`; `and &&`; comparisons, `in` and the text operators; `..`;
//! `+ -`; `not !`; `* / %`; the signs `-x +x`; `** ^`; `??`.

use super::ast::{Binary, Child, Collection, Kind, Node, Order, Pointer, Unary};
use super::error::Fault;
use super::lexer::{self, Kind as T, Token};

/// How many levels a tree may have. Evaluation and dropping recurse, so this bounds the stack.
pub(super) const MAX_LEVELS: u32 = 128;
/// How many nodes a tree may have.
const MAX_NODES: u32 = 10_000;

/// Parses an expression.
pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let mut parser = Parser { tokens: lexer::tokens(text)?, at: 0, predicates: 0, nesting: 0, nodes: 0 };
    let node = parser.sequence()?;
    match parser.kind() {
        T::End => Ok(node),
        _ => parser.unexpected(),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    /// How many predicates are around, where `#` and `.field` have a meaning.
    predicates: u32,
    nesting: u32,
    nodes: u32,
}

struct Operator {
    kind: OperatorKind,
    precedence: u32,
}

enum OperatorKind {
    Pipe,
    Binary(Binary),
    Order(Order),
}

fn operator(sign: &str) -> Option<Operator> {
    use OperatorKind::{Binary as B, Order as O, Pipe};
    let (kind, precedence) = match sign {
        "|" => (Pipe, 0),
        "or" | "||" => (B(Binary::Or), 10),
        "and" | "&&" => (B(Binary::And), 15),
        "==" => (B(Binary::Equal), 20),
        "!=" => (B(Binary::NotEqual), 20),
        "<" => (O(Order::Less), 20),
        ">" => (O(Order::More), 20),
        "<=" => (O(Order::LessOrEqual), 20),
        ">=" => (O(Order::MoreOrEqual), 20),
        "in" => (B(Binary::In), 20),
        "matches" => (B(Binary::Matches), 20),
        "contains" => (B(Binary::Contains), 20),
        "startsWith" => (B(Binary::StartsWith), 20),
        "endsWith" => (B(Binary::EndsWith), 20),
        ".." => (B(Binary::Range), 25),
        "+" => (B(Binary::Add), 30),
        "-" => (B(Binary::Subtract), 30),
        "*" => (B(Binary::Multiply), 60),
        "/" => (B(Binary::Divide), 60),
        "%" => (B(Binary::Modulo), 60),
        "**" | "^" => (B(Binary::Power), 100),
        "??" => (B(Binary::Coalesce), 500),
        _ => return None,
    };
    Some(Operator { kind, precedence })
}

fn unary(sign: &str) -> Option<(Unary, u32)> {
    Some(match sign {
        "not" | "!" => (Unary::Not, 50),
        "-" => (Unary::Minus, 90),
        "+" => (Unary::Plus, 90),
        _ => return None,
    })
}

fn may_be_negated(sign: &str) -> bool {
    matches!(sign, "in" | "matches" | "contains" | "startsWith" | "endsWith")
}

impl Parser {
    fn token(&self) -> &Token {
        // The last token is the end, and nothing moves past it.
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn kind(&self) -> &T {
        &self.token().kind
    }

    fn place(&self) -> u32 {
        self.token().at
    }

    fn sign(&self) -> Option<&'static str> {
        match self.kind() {
            T::Op(sign) => Some(sign),
            _ => None,
        }
    }

    fn is(&self, sign: &str) -> bool {
        self.sign() == Some(sign)
    }

    fn is_bracket(&self, bracket: char) -> bool {
        *self.kind() == T::Bracket(bracket)
    }

    fn next(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn unexpected<R>(&self) -> Result<R, Fault> {
        Err(Fault::syntax(self.place(), format!("unexpected token {}", self.kind())))
    }

    fn expect(&mut self, sign: &str) -> Result<(), Fault> {
        if self.is(sign) {
            self.next();
            return Ok(());
        }
        self.unexpected()
    }

    fn expect_bracket(&mut self, bracket: char) -> Result<(), Fault> {
        if self.is_bracket(bracket) {
            self.next();
            return Ok(());
        }
        self.unexpected()
    }

    fn expect_name(&mut self) -> Result<String, Fault> {
        match self.kind() {
            T::Name(name) => {
                let name = name.clone();
                self.next();
                Ok(name)
            }
            _ => self.unexpected(),
        }
    }

    fn node(&mut self, kind: Kind, at: u32) -> Result<Node, Fault> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Fault::syntax(at, format!("expression exceeds the allowed {MAX_NODES} nodes")));
        }
        let levels = 1 + kind.deepest();
        if levels > MAX_LEVELS {
            return Err(Fault::syntax(at, format!("expression is nested deeper than the allowed {MAX_LEVELS} levels")));
        }
        Ok(Node { kind, at, levels })
    }

    fn sequence(&mut self) -> Result<Node, Fault> {
        let first = self.expression(0)?;
        if !self.is(";") {
            return Ok(first);
        }
        let at = first.at;
        let mut nodes = vec![first];
        while self.is(";") {
            self.next();
            if *self.kind() == T::End {
                break;
            }
            nodes.push(self.expression(0)?);
        }
        match nodes.pop() {
            Some(only) if nodes.is_empty() => Ok(only),
            Some(last) => {
                nodes.push(last);
                self.node(Kind::Sequence(nodes), at)
            }
            None => self.unexpected(),
        }
    }

    fn expression(&mut self, precedence: u32) -> Result<Node, Fault> {
        self.nesting += 1;
        if self.nesting > MAX_LEVELS {
            let message = format!("expression is nested deeper than the allowed {MAX_LEVELS} levels");
            return Err(Fault::syntax(self.place(), message));
        }
        let node = if precedence == 0 && self.is("let") {
            self.declaration()
        } else if precedence == 0 && self.is("if") {
            self.next();
            self.conditional()
        } else {
            self.operation(precedence)
        };
        self.nesting -= 1;
        node
    }

    fn operation(&mut self, precedence: u32) -> Result<Node, Fault> {
        let mut left = self.primary()?;
        let mut coalesced = false;
        while let Some(mut sign) = self.sign() {
            let before = self.at;
            let negated = sign == "not";
            if negated {
                self.next();
                match self.sign() {
                    Some(next) if may_be_negated(next) => sign = next,
                    _ => return self.unexpected(),
                }
            }
            let Some(operator) = operator(sign).filter(|o| o.precedence >= precedence) else {
                self.at = before;
                break;
            };
            let at = self.place();
            self.next();
            if !matches!(operator.kind, OperatorKind::Pipe) && coalesced && sign != "??" {
                let message = format!("operator {sign} and ?? cannot be mixed; put one of them in parentheses");
                return Err(Fault::syntax(at, message));
            }
            left = match operator.kind {
                OperatorKind::Pipe => {
                    let at = self.place();
                    let name = self.expect_name()?;
                    self.call(name, vec![left], at)?
                }
                OperatorKind::Order(order) => {
                    let mut rest = vec![(order, self.expression(operator.precedence + 1)?)];
                    while let Some(OperatorKind::Order(order)) = self.sign().and_then(self::operator).map(|o| o.kind) {
                        self.next();
                        rest.push((order, self.expression(operator.precedence + 1)?));
                    }
                    self.node(Kind::Compare(Box::new(left), rest), at)?
                }
                OperatorKind::Binary(binary) => {
                    let right_associative = binary == Binary::Power;
                    let right = self.expression(operator.precedence + u32::from(!right_associative))?;
                    let node = self.node(Kind::Binary(binary, Box::new(left), Box::new(right)), at)?;
                    if negated { self.node(Kind::Unary(Unary::Not, Box::new(node)), at)? } else { node }
                }
            };
            coalesced = sign == "??";
        }
        if precedence == 0 { self.ternary(left) } else { Ok(left) }
    }

    fn declaration(&mut self) -> Result<Node, Fault> {
        self.expect("let")?;
        let at = self.place();
        let name = self.expect_name()?;
        self.expect("=")?;
        let value = Box::new(self.expression(0)?);
        self.expect(";")?;
        let body = Box::new(self.sequence()?);
        self.node(Kind::Let { name, value, body }, at)
    }

    /// What follows `if`.
    fn conditional(&mut self) -> Result<Node, Fault> {
        let at = self.place();
        let condition = Box::new(self.expression(0)?);
        self.expect_bracket('{')?;
        let then = Some(Box::new(self.sequence()?));
        self.expect_bracket('}')?;
        self.expect("else")?;
        let otherwise = if self.is("if") {
            self.expression(0)?
        } else {
            self.expect_bracket('{')?;
            let otherwise = self.sequence()?;
            self.expect_bracket('}')?;
            otherwise
        };
        self.node(Kind::If { condition, then, otherwise: Box::new(otherwise) }, at)
    }

    fn ternary(&mut self, mut node: Node) -> Result<Node, Fault> {
        while self.is("?") {
            self.next();
            let at = self.place();
            let then = if self.is(":") { None } else { Some(Box::new(self.expression(0)?)) };
            self.expect(":")?;
            let otherwise = Box::new(self.expression(0)?);
            node = self.node(Kind::If { condition: Box::new(node), then, otherwise }, at)?;
        }
        Ok(node)
    }

    fn primary(&mut self) -> Result<Node, Fault> {
        let at = self.place();
        if let Some((unary, precedence)) = self.sign().and_then(unary) {
            self.next();
            let operand = self.expression(precedence)?;
            let node = self.node(Kind::Unary(unary, Box::new(operand)), at)?;
            return self.postfix(node);
        }
        if self.is_bracket('(') {
            self.next();
            let node = self.sequence()?;
            self.expect_bracket(')')?;
            return self.postfix(node);
        }
        if self.predicates > 0 && (self.is("#") || self.is(".")) {
            let mut pointer = Pointer::Item;
            if self.is("#") {
                self.next();
                if let T::Name(name) = self.kind() {
                    pointer = match name.as_str() {
                        "index" => Pointer::Index,
                        "acc" => Pointer::Accumulator,
                        _ => return Err(Fault::check(at, format!("unknown pointer #{name}"))),
                    };
                    self.next();
                }
            }
            let node = self.node(Kind::Pointer(pointer), at)?;
            return self.postfix(node);
        }
        if self.is("#") {
            return Err(Fault::check(at, "cannot use pointer accessor outside predicate"));
        }
        if self.is("::") {
            self.next();
            let name = self.expect_name()?;
            let node = self.call(name, Vec::new(), at)?;
            return self.postfix(node);
        }
        let node = self.literal()?;
        // After these three the peers' language allows neither a member nor an index.
        match node.kind {
            Kind::Nil | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => Ok(node),
            _ => self.postfix(node),
        }
    }

    fn literal(&mut self) -> Result<Node, Fault> {
        let token = self.token().clone();
        let at = token.at;
        let kind = match token.kind {
            T::Name(name) => {
                self.next();
                match name.as_str() {
                    "true" => Kind::Bool(true),
                    "false" => Kind::Bool(false),
                    "nil" => Kind::Nil,
                    _ if self.is_bracket('(') => return self.call(name, Vec::new(), at),
                    _ => Kind::Name(name),
                }
            }
            T::Number(text) => {
                self.next();
                number(&text).map_err(|message| Fault::syntax(at, message))?
            }
            T::Text(text) => {
                self.next();
                Kind::Text(text)
            }
            T::Bytes(bytes) => {
                self.next();
                Kind::Bytes(bytes)
            }
            T::Bracket('[') => {
                self.next();
                Kind::List(self.separated(']', |parser| parser.expression(0))?)
            }
            T::Bracket('{') => {
                self.next();
                Kind::Map(self.separated('}', Self::pair)?)
            }
            _ => return self.unexpected(),
        };
        self.node(kind, at)
    }

    fn pair(&mut self) -> Result<(Node, Node), Fault> {
        let at = self.place();
        let key = match self.kind().clone() {
            T::Number(text) | T::Name(text) => {
                self.next();
                self.node(Kind::Text(text.into()), at)?
            }
            T::Text(text) => {
                self.next();
                self.node(Kind::Text(text), at)?
            }
            T::Bracket('(') => self.expression(0)?,
            found => {
                let message = "a map key must be a quoted string, a number, an identifier, or an expression enclosed in parentheses";
                return Err(Fault::syntax(at, format!("{message} (unexpected token {found})")));
            }
        };
        self.expect(":")?;
        Ok((key, self.expression(0)?))
    }

    /// Items between commas, up to and with the closing bracket. A comma may follow the last.
    fn separated<R>(&mut self, end: char, item: impl Fn(&mut Self) -> Result<R, Fault>) -> Result<Vec<R>, Fault> {
        let mut items = Vec::new();
        while !self.is_bracket(end) {
            if !items.is_empty() {
                self.expect(",")?;
                if self.is_bracket(end) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        self.expect_bracket(end)?;
        Ok(items)
    }

    /// A call by name; `piped` holds what stood before a pipe.
    fn call(&mut self, name: String, piped: Vec<Node>, at: u32) -> Result<Node, Fault> {
        self.expect_bracket('(')?;
        if let Some(function) = Collection::named(&name) {
            return self.collection(function, piped.into_iter().next(), at);
        }
        let mut arguments = piped;
        arguments.extend(self.separated(')', |parser| parser.expression(0))?);
        self.node(Kind::Call { name, arguments }, at)
    }

    fn collection(&mut self, function: Collection, piped: Option<Node>, at: u32) -> Result<Node, Fault> {
        let name = function.name();
        let missing = |parser: &Self, what: &str| {
            Err(Fault::syntax(parser.place(), format!("not enough arguments to call {name}: expected {what}")))
        };
        let mut first = true;
        let over = match piped {
            Some(node) => node,
            None if self.is_bracket(')') => return missing(self, "an array"),
            None => {
                first = false;
                self.expression(0)?
            }
        };
        let mut predicate = None;
        if !self.is_bracket(')') {
            if !first {
                self.expect(",")?;
            }
            if !self.is_bracket(')') {
                predicate = Some(Box::new(self.predicate()?));
            }
        }
        if predicate.is_none() && !function.predicate_is_optional() {
            return missing(self, "a predicate");
        }
        let mut last = None;
        if self.is(",") {
            self.next();
            if function.has_last() && !self.is_bracket(')') {
                last = Some(Box::new(self.expression(0)?));
                if self.is(",") {
                    self.next();
                }
            }
        }
        self.expect_bracket(')')?;
        self.node(Kind::Collection { function, over: Box::new(over), predicate, last }, at)
    }

    fn predicate(&mut self) -> Result<Node, Fault> {
        let braces = self.is_bracket('{');
        self.predicates += 1;
        let node = if braces {
            self.next();
            let node = self.sequence()?;
            self.expect_bracket('}')?;
            node
        } else {
            let node = self.expression(0)?;
            if self.is(";") {
                return Err(Fault::syntax(self.place(), "wrap predicate with brackets { and }"));
            }
            node
        };
        self.predicates -= 1;
        Ok(node)
    }

    fn postfix(&mut self, mut node: Node) -> Result<Node, Fault> {
        loop {
            if self.is(".") || self.is("?.") {
                let optional = self.is("?.");
                self.next();
                if optional && self.is_bracket('[') {
                    node = self.index(node, true)?;
                } else {
                    node = self.member(node, optional)?;
                }
            } else if self.is_bracket('[') {
                node = self.index(node, false)?;
            } else {
                return Ok(node);
            }
        }
    }

    fn member(&mut self, base: Node, optional: bool) -> Result<Node, Fault> {
        let at = self.place();
        let name = match self.kind() {
            T::Name(name) => name.clone(),
            // Words that are operators are names here.
            T::Op(word) if word.starts_with(char::is_alphabetic) => (*word).to_owned(),
            _ => return Err(Fault::syntax(at, format!("expected name, found {}", self.kind()))),
        };
        self.next();
        // A chain goes on through its members, so that all of it ends as nil.
        let (base, chained) = match base.kind {
            Kind::Chain(inner) => (inner, true),
            _ => (Box::new(base), false),
        };
        let kind = if self.is_bracket('(') {
            self.next();
            let arguments = self.separated(')', |parser| parser.expression(0))?;
            Kind::Method { base, name, optional, arguments }
        } else {
            let property = Box::new(self.node(Kind::Text(name.into()), at)?);
            Kind::Member { base, property, optional }
        };
        let node = self.node(kind, at)?;
        if chained || optional { self.node(Kind::Chain(Box::new(node)), at) } else { Ok(node) }
    }

    fn index(&mut self, base: Node, optional: bool) -> Result<Node, Fault> {
        let at = self.place();
        self.expect_bracket('[')?;
        let base = Box::new(base);
        let from = if self.is(":") { None } else { Some(Box::new(self.expression(0)?)) };
        if self.is(":") {
            self.next();
            let to = if self.is_bracket(']') { None } else { Some(Box::new(self.expression(0)?)) };
            self.expect_bracket(']')?;
            return self.node(Kind::Slice { base, from, to }, at);
        }
        self.expect_bracket(']')?;
        let Some(property) = from else { return self.unexpected() };
        let node = self.node(Kind::Member { base, property, optional }, at)?;
        if optional { self.node(Kind::Chain(Box::new(node)), at) } else { Ok(node) }
    }
}

fn number(text: &str) -> Result<Kind, String> {
    let text = text.replace('_', "").to_ascii_lowercase();
    let whole = |radix: u32, digits: &str, name: &str| {
        i64::from_str_radix(digits, radix).map(Kind::Int).map_err(|e| format!("invalid {name} literal {text}: {e}"))
    };
    if let Some(digits) = text.strip_prefix("0x") {
        return whole(16, digits, "hex");
    }
    if text.contains(['.', 'e']) {
        return match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Kind::Float(value)),
            Ok(_) => Err(format!("invalid float literal {text}: out of range")),
            Err(e) => Err(format!("invalid float literal {text}: {e}")),
        };
    }
    if let Some(digits) = text.strip_prefix("0b") {
        return whole(2, digits, "binary");
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return whole(8, digits, "octal");
    }
    whole(10, &text, "integer")
}

impl Kind {
    /// The most levels that a child has.
    fn deepest(&self) -> u32 {
        fn of<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> u32 {
            nodes.into_iter().map(|n| n.levels).max().unwrap_or(0)
        }
        let optional = |child: &Option<Child>| child.as_ref().map_or(0, |c| c.levels);
        match self {
            Self::Nil
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Float(_)
            | Self::Text(_)
            | Self::Bytes(_)
            | Self::Name(_)
            | Self::Pointer(_) => 0,
            Self::Unary(_, child) | Self::Chain(child) => child.levels,
            Self::Binary(_, left, right) => left.levels.max(right.levels),
            Self::Compare(first, rest) => first.levels.max(of(rest.iter().map(|(_, n)| n))),
            Self::Member { base, property, .. } => base.levels.max(property.levels),
            Self::Slice { base, from, to } => base.levels.max(optional(from)).max(optional(to)),
            Self::Call { arguments, .. } => of(arguments),
            Self::Method { base, arguments, .. } => base.levels.max(of(arguments)),
            Self::Collection { over, predicate, last, .. } => over.levels.max(optional(predicate)).max(optional(last)),
            Self::Let { value, body, .. } => value.levels.max(body.levels),
            Self::Sequence(nodes) | Self::List(nodes) => of(nodes),
            Self::If { condition, then, otherwise } => condition.levels.max(optional(then)).max(otherwise.levels),
            Self::Map(pairs) => of(pairs.iter().flat_map(|(k, v)| [k, v])),
        }
    }
}
