//! Text to tokens.

use super::error::Fault;
use std::fmt;
use std::sync::Arc;

/// A token and where it starts, in characters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Name(String),
    Number(String),
    Text(Arc<str>),
    Bytes(Arc<[u8]>),
    Op(&'static str),
    Bracket(char),
    End,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) => write!(f, "Identifier({text:?})"),
            Self::Number(text) => write!(f, "Number({text:?})"),
            Self::Text(text) => write!(f, "String({text:?})"),
            Self::Bytes(_) => f.write_str("Bytes"),
            Self::Op(text) => write!(f, "Operator({text:?})"),
            Self::Bracket(c) => write!(f, "Bracket(\"{c}\")"),
            Self::End => f.write_str("EOF"),
        }
    }
}

/// Words that are operators.
const WORDS: [&str; 11] =
    ["not", "in", "or", "and", "matches", "contains", "startsWith", "endsWith", "let", "if", "else"];
/// Signs, longest first.
const SIGNS: [&str; 29] = [
    "&&", "||", "==", "!=", "<=", ">=", "**", "??", "?.", "..", "::", "|", ":", ",", ";", "%", "+", "-", "^", "!", "=",
    "*", "<", ">", "?", ".", "/", "#", "&",
];

pub(super) fn is_word(c: char) -> bool {
    c == '_' || c == '$' || c.is_alphabetic() || c.is_numeric()
}

/// Splits a text into tokens; the last one is [`Kind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next()? {
        tokens.push(token);
    }
    let end = lexer.chars.len().saturating_sub(1);
    tokens.push(Token { kind: Kind::End, at: end as u32 });
    Ok(tokens)
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn take_while(&mut self, test: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(&test) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    fn fault<T>(&self, message: impl Into<String>) -> Result<T, Fault> {
        Err(Fault::syntax(self.at.min(self.chars.len().saturating_sub(1)) as u32, message))
    }

    fn skip(&mut self) -> Result<(), Fault> {
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(c), _) if c.is_whitespace() => self.at += 1,
                (Some('/'), Some('/')) => {
                    self.take_while(|c| c != '\n');
                }
                (Some('/'), Some('*')) => {
                    self.at += 2;
                    while (self.peek(0), self.peek(1)) != (Some('*'), Some('/')) {
                        if self.peek(0).is_none() {
                            return self.fault("unclosed comment");
                        }
                        self.at += 1;
                    }
                    self.at += 2;
                }
                _ => return Ok(()),
            }
        }
    }

    fn next(&mut self) -> Result<Option<Token>, Fault> {
        self.skip()?;
        let at = self.at as u32;
        let Some(c) = self.peek(0) else { return Ok(None) };
        let kind = match (c, self.peek(1)) {
            ('"' | '\'', _) => Kind::Text(self.quoted(c)?.into_iter().collect::<String>().into()),
            ('`', _) => Kind::Text(self.raw()?.into()),
            ('b' | 'B', Some(quote @ ('"' | '\''))) => {
                self.at += 1;
                Kind::Bytes(self.bytes(quote)?.into())
            }
            ('0'..='9', _) | ('.', Some('0'..='9')) => Kind::Number(self.number()?),
            ('(' | '[' | '{' | ')' | ']' | '}', _) => {
                self.at += 1;
                Kind::Bracket(c)
            }
            _ if is_word(c) => {
                let word = self.take_while(is_word);
                match WORDS.iter().find(|w| **w == word) {
                    Some(operator) => Kind::Op(operator),
                    None => Kind::Name(word),
                }
            }
            _ => Kind::Op(self.sign(c)?),
        };
        Ok(Some(Token { kind, at }))
    }

    fn sign(&mut self, c: char) -> Result<&'static str, Fault> {
        for sign in SIGNS {
            if sign.chars().enumerate().all(|(i, s)| self.peek(i) == Some(s)) {
                self.at += sign.len();
                return Ok(sign);
            }
        }
        self.fault(format!("unrecognized character: U+{:04X} {c:?}", u32::from(c)))
    }

    fn number(&mut self) -> Result<String, Fault> {
        let start = self.at;
        let mut radix = 10;
        if self.peek(0) == Some('0') {
            radix = match self.peek(1) {
                Some('x' | 'X') => 16,
                Some('o' | 'O') => 8,
                Some('b' | 'B') => 2,
                _ => 10,
            };
            if radix != 10 {
                self.at += 2;
            }
        }
        let digit = move |c: char| c == '_' || c.is_digit(radix);
        self.take_while(digit);
        // Two dots are a range, `1..3`, and do not belong to the number.
        if self.peek(0) == Some('.') && self.peek(1) != Some('.') {
            self.at += 1;
            self.take_while(digit);
        } else if self.peek(0) == Some('.') {
            return Ok(self.chars[start..self.at].iter().collect());
        }
        if matches!(self.peek(0), Some('e' | 'E')) {
            self.at += 1;
            if matches!(self.peek(0), Some('+' | '-')) {
                self.at += 1;
            }
            self.take_while(digit);
        }
        if self.peek(0).is_some_and(is_word) {
            let text: String = self.chars[start..=self.at].iter().collect();
            return self.fault(format!("bad number syntax: {text:?}"));
        }
        Ok(self.chars[start..self.at].iter().collect())
    }

    /// The characters of a quoted text, escapes resolved.
    fn quoted(&mut self, quote: char) -> Result<Vec<char>, Fault> {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            match self.peek(0) {
                None | Some('\n') => return self.fault("literal not terminated"),
                Some(c) if c == quote => {
                    self.at += 1;
                    return Ok(text);
                }
                Some('\\') => {
                    self.at += 1;
                    let code = self.escape(quote, true)?;
                    match char::from_u32(code) {
                        Some(c) => text.push(c),
                        None => return self.fault(format!("invalid char escape: U+{code:X} is not a character")),
                    }
                }
                // A carriage return, alone or before a newline, is a newline.
                Some('\r') => {
                    self.at += 1;
                    text.push('\n');
                }
                Some(c) => {
                    self.at += 1;
                    text.push(c);
                }
            }
        }
    }

    fn bytes(&mut self, quote: char) -> Result<Vec<u8>, Fault> {
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            match self.peek(0) {
                None | Some('\n') => return self.fault("literal not terminated"),
                Some(c) if c == quote => {
                    self.at += 1;
                    return Ok(bytes);
                }
                Some('\\') => {
                    self.at += 1;
                    match u8::try_from(self.escape(quote, false)?) {
                        Ok(byte) => bytes.push(byte),
                        Err(_) => return self.fault("invalid char escape: a byte is at most \\377"),
                    }
                }
                Some(c) => {
                    self.at += 1;
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
    }

    /// The code of the escape after a backslash.
    fn escape(&mut self, quote: char, unicode: bool) -> Result<u32, Fault> {
        let Some(c) = self.peek(0) else { return self.fault("literal not terminated") };
        self.at += 1;
        Ok(match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            '\\' => 92,
            '0'..='7' => {
                self.at -= 1;
                self.digits(8, 3)?
            }
            'x' => self.digits(16, 2)?,
            'u' if unicode && self.peek(0) == Some('{') => {
                self.at += 1;
                let count = (0..7).take_while(|i| self.peek(*i).is_some_and(|c| c.is_ascii_hexdigit())).count();
                let code = if (1..=6).contains(&count) { self.digits(16, count)? } else { u32::MAX };
                if code == u32::MAX || self.peek(0) != Some('}') {
                    return self.fault("invalid char escape: expected \\u{…} with one to six hexadecimal digits");
                }
                self.at += 1;
                code
            }
            'u' if unicode => self.digits(16, 4)?,
            'U' if unicode => self.digits(16, 8)?,
            c if c == quote => u32::from(c),
            c => return self.fault(format!("invalid char escape: \\{c}")),
        })
    }

    fn digits(&mut self, radix: u32, count: usize) -> Result<u32, Fault> {
        let mut code = 0u32;
        for _ in 0..count {
            match self.peek(0).and_then(|c| c.to_digit(radix)) {
                Some(digit) => code = code.wrapping_mul(radix).wrapping_add(digit),
                None => return self.fault(format!("invalid char escape: expected {count} digits of base {radix}")),
            }
            self.at += 1;
        }
        Ok(code)
    }

    /// A text between backticks, where a doubled backtick is one.
    fn raw(&mut self) -> Result<String, Fault> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match (self.peek(0), self.peek(1)) {
                (None, _) => return self.fault("literal not terminated"),
                (Some('`'), Some('`')) => {
                    self.at += 2;
                    text.push('`');
                }
                (Some('`'), _) => {
                    self.at += 1;
                    return Ok(text);
                }
                (Some(c), _) => {
                    self.at += 1;
                    text.push(c);
                }
            }
        }
    }
}
