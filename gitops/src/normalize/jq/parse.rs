//! Text to expression.

use super::{Comparison, Expr, Function, InvalidFilter};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// `.` before something that is no name
    Dot,
    /// `..`
    DotDot,
    /// `.name`
    Field(String),
    /// A bare name
    Name(String),
    Text(String),
    Number(f64),
    /// Operators and brackets
    Sign(&'static str),
}

impl Token {
    fn shown(&self) -> String {
        match self {
            Self::Dot => "`.`".into(),
            Self::DotDot => "`..`".into(),
            Self::Field(name) => format!("`.{name}`"),
            Self::Name(name) => format!("`{name}`"),
            Self::Text(text) => format!("the text {text:?}"),
            Self::Number(number) => format!("the number {number}"),
            Self::Sign(sign) => format!("`{sign}`"),
        }
    }
}

/// Longest first, so that `==` is not read as two signs.
const SIGNS: &[&str] = &[
    "==", "!=", "<=", ">=", "//", "|", ",", "(", ")", "[", "]", ":", "?", "<", ">", "{", "}", "+", "-", "*", "%", "=",
];

/// Nesting that no honest expression needs; deeper ones would only exhaust the stack.
const MAX_DEPTH: usize = 64;

pub(super) fn parse(expression: &str) -> Result<Expr, InvalidFilter> {
    let tokens = tokens(expression)?;
    let mut parser = Parser { expression, tokens, at: 0, depth: 0 };
    let root = parser.pipe()?;
    match parser.peek() {
        None => Ok(root),
        Some(_) => Err(parser.unexpected("`|`, `,`, an operator or the end")),
    }
}

fn tokens(expression: &str) -> Result<Vec<(usize, Token)>, InvalidFilter> {
    let fail = |position: usize, found: String, expected| InvalidFilter {
        expression: expression.to_owned(),
        position: expression[..position].chars().count() + 1,
        found,
        expected,
    };
    let name_length = |text: &str| text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = expression[at..].chars().next() {
        let rest = &expression[at..];
        let (token, length) = if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        } else if rest.starts_with("..") {
            (Token::DotDot, 2)
        } else if first == '.' {
            let tail = &rest[1..];
            match tail.chars().next() {
                Some('"') => {
                    let (text, length) =
                        text(tail).ok_or_else(|| fail(at + 1, "an open text".into(), "a closing `\"`"))?;
                    (Token::Field(text), 1 + length)
                }
                Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                    let length = name_length(tail);
                    (Token::Field(tail[..length].to_owned()), 1 + length)
                }
                _ => (Token::Dot, 1),
            }
        } else if first == '"' {
            let (text, length) = text(rest).ok_or_else(|| fail(at, "an open text".into(), "a closing `\"`"))?;
            (Token::Text(text), length)
        } else if first.is_ascii_digit() {
            let length = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
            let number = rest[..length].parse();
            (Token::Number(number.map_err(|_| fail(at, format!("{:?}", &rest[..length]), "a number"))?), length)
        } else if first.is_ascii_alphabetic() || first == '_' {
            let length = name_length(rest);
            (Token::Name(rest[..length].to_owned()), length)
        } else if let Some(sign) = SIGNS.iter().find(|s| rest.starts_with(**s)) {
            (Token::Sign(sign), sign.len())
        } else {
            return Err(fail(at, format!("{first:?}"), "a path such as `.spec.replicas`"));
        };
        tokens.push((at, token));
        at += length;
    }
    Ok(tokens)
}

/// A JSON string at the beginning of `text`, and its length with quotes.
fn text(text: &str) -> Option<(String, usize)> {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return serde_json::from_str(&text[..=index]).ok().map(|s| (s, index + 1)),
            _ => {}
        }
    }
    None
}

struct Parser<'a> {
    expression: &'a str,
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
}

type Parsed = Result<Expr, InvalidFilter>;

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += usize::from(token.is_some());
        token
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(s)) if *s == sign);
        self.at += usize::from(found);
        found
    }

    fn need(&mut self, sign: &str, expected: &'static str) -> Result<(), InvalidFilter> {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn unexpected(&self, expected: &'static str) -> InvalidFilter {
        let (position, found) = match self.tokens.get(self.at) {
            Some((position, token)) => (*position, token.shown()),
            None => (self.expression.len(), "the end".to_owned()),
        };
        InvalidFilter {
            expression: self.expression.to_owned(),
            position: self.expression[..position].chars().count() + 1,
            found,
            expected,
        }
    }

    fn pipe(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.unexpected("less nesting"));
        }
        let mut left = self.comma()?;
        while self.take("|") {
            left = Expr::Pipe(Box::new(left), Box::new(self.comma()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn comma(&mut self) -> Parsed {
        let mut left = self.alternative()?;
        while self.take(",") {
            left = Expr::Comma(Box::new(left), Box::new(self.alternative()?));
        }
        Ok(left)
    }

    fn alternative(&mut self) -> Parsed {
        let left = self.or()?;
        if self.take("//") {
            return Ok(Expr::Alternative(Box::new(left), Box::new(self.alternative()?)));
        }
        Ok(left)
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Name(n)) if n == word);
        self.at += usize::from(found);
        found
    }

    fn or(&mut self) -> Parsed {
        let mut left = self.and()?;
        while self.word("or") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed {
        let mut left = self.comparison()?;
        while self.word("and") {
            left = Expr::And(Box::new(left), Box::new(self.comparison()?));
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Parsed {
        let left = self.postfix()?;
        let comparison = match self.peek() {
            Some(Token::Sign("==")) => Comparison::Equal,
            Some(Token::Sign("!=")) => Comparison::NotEqual,
            Some(Token::Sign("<")) => Comparison::Less,
            Some(Token::Sign("<=")) => Comparison::LessOrEqual,
            Some(Token::Sign(">")) => Comparison::Greater,
            Some(Token::Sign(">=")) => Comparison::GreaterOrEqual,
            _ => return Ok(left),
        };
        self.at += 1;
        Ok(Expr::Compare(Box::new(left), comparison, Box::new(self.postfix()?)))
    }

    fn postfix(&mut self) -> Parsed {
        let mut expr = self.primary()?;
        loop {
            if self.take("?") {
                // Branches that fail name nothing already.
            } else if self.take("[") {
                expr = self.bracket(expr)?;
            } else if let Some(Token::Field(name)) = self.peek() {
                expr = Expr::Key(Box::new(expr), name.clone());
                self.at += 1;
            } else if self.peek() == Some(&Token::Dot)
                && matches!(self.tokens.get(self.at + 1), Some((_, Token::Sign("["))))
            {
                self.at += 1;
            } else {
                return Ok(expr);
            }
        }
    }

    /// What follows `[` behind a path.
    fn bracket(&mut self, of: Expr) -> Parsed {
        const EXPECTED: &str = "`]`, a number, a range or a text";
        if self.take("]") {
            return Ok(Expr::Each(Box::new(of)));
        }
        if let Some(Token::Text(text)) = self.peek() {
            let expr = Expr::Key(Box::new(of), text.clone());
            self.at += 1;
            self.need("]", "`]`")?;
            return Ok(expr);
        }
        let from = self.integer()?;
        if self.take(":") {
            let to = self.integer()?;
            self.need("]", "`]`")?;
            if from.is_none() && to.is_none() {
                self.at -= 1;
                return Err(self.unexpected("a number at one side of `:`"));
            }
            return Ok(Expr::Slice(Box::new(of), from, to));
        }
        match from {
            Some(index) => {
                self.need("]", "`]`")?;
                Ok(Expr::Index(Box::new(of), index))
            }
            None => Err(self.unexpected(EXPECTED)),
        }
    }

    fn integer(&mut self) -> Result<Option<i64>, InvalidFilter> {
        let negative = self.take("-");
        match self.peek() {
            #[allow(clippy::cast_possible_truncation)]
            Some(Token::Number(number)) if number.fract() == 0.0 && number.abs() < 1e15 => {
                let number = *number as i64;
                self.at += 1;
                Ok(Some(if negative { -number } else { number }))
            }
            _ if negative => Err(self.unexpected("a whole number")),
            _ => Ok(None),
        }
    }

    fn primary(&mut self) -> Parsed {
        const EXPECTED: &str = "a path, a text, a number, `(` or one of the supported functions (select, first, test, \
                                startswith, endswith, contains, inside, has, IN, any, all, length, type, keys, tostring, \
                                ascii_downcase, not, empty, recurse)";
        let start = self.at;
        let expr = match self.next() {
            Some(Token::Dot) => Expr::Identity,
            Some(Token::DotDot) => Expr::Recurse,
            Some(Token::Field(name)) => Expr::Key(Box::new(Expr::Identity), name),
            Some(Token::Text(text)) => Expr::Literal(Value::String(text)),
            Some(Token::Number(number)) => Expr::Literal(number.into()),
            Some(Token::Sign("-")) => match self.next() {
                Some(Token::Number(number)) => Expr::Literal((-number).into()),
                _ => {
                    self.at = start;
                    return Err(self.unexpected(EXPECTED));
                }
            },
            Some(Token::Sign("(")) => {
                let inner = self.pipe()?;
                self.need(")", "`)`")?;
                inner
            }
            Some(Token::Sign("[")) => {
                if self.take("]") {
                    Expr::List(None)
                } else {
                    let inner = self.pipe()?;
                    self.need("]", "`]`")?;
                    Expr::List(Some(Box::new(inner)))
                }
            }
            Some(Token::Name(name)) => match name.as_str() {
                "null" => Expr::Literal(Value::Null),
                "true" => Expr::Literal(Value::Bool(true)),
                "false" => Expr::Literal(Value::Bool(false)),
                "not" => Expr::Not,
                "empty" => Expr::Empty,
                "recurse" => Expr::Recurse,
                "select" => Expr::Select(Box::new(self.argument()?)),
                "first" => Expr::First(Box::new(self.argument()?)),
                other => match Function::TABLE.iter().find(|(n, ..)| *n == other) {
                    Some((_, function, fewest, most)) => self.call(*function, *fewest, *most)?,
                    None => {
                        self.at = start;
                        return Err(self.unexpected(EXPECTED));
                    }
                },
            },
            _ => {
                self.at = start;
                return Err(self.unexpected(EXPECTED));
            }
        };
        Ok(expr)
    }

    fn argument(&mut self) -> Parsed {
        self.need("(", "`(`")?;
        let inner = self.pipe()?;
        self.need(")", "`)`")?;
        Ok(inner)
    }

    fn call(&mut self, function: Function, fewest: usize, most: usize) -> Parsed {
        let mut arguments = Vec::new();
        // jq separates arguments by `;`, which no path expression needs elsewhere: IN("a", "b") is one argument.
        if most > 0 && self.take("(") {
            arguments.push(self.pipe()?);
            self.need(")", "`)`")?;
        }
        if arguments.len() < fewest {
            return Err(self.unexpected("an argument in `(` `)`"));
        }
        Ok(Expr::Call(function, arguments))
    }
}
