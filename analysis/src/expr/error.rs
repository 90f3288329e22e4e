//! What is wrong with an expression, and where.

use std::fmt;

/// When an error was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The text is not an expression.
    Syntax,
    /// The expression can not be right for any value, or not for a value of the given type.
    Check,
    /// The expression failed on the value.
    Run,
}

/// What is wrong with an expression, and where. Prints as `message (line:column)`, both counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// When it was found.
    pub stage: Stage,
    /// What was found and what was expected.
    pub message: String,
    /// Line in the expression, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.message, self.line, self.column)
    }
}

impl std::error::Error for Error {}

/// An error with its place as an offset in characters. Becomes an [`Error`] where the text is at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) stage: Stage,
    pub(super) message: String,
    pub(super) at: u32,
}

impl Fault {
    pub(super) fn syntax(at: u32, message: impl Into<String>) -> Self {
        Self { stage: Stage::Syntax, message: message.into(), at }
    }

    pub(super) fn check(at: u32, message: impl Into<String>) -> Self {
        Self { stage: Stage::Check, message: message.into(), at }
    }

    pub(super) fn run(at: u32, message: impl Into<String>) -> Self {
        Self { stage: Stage::Run, message: message.into(), at }
    }

    /// Finds line and column in the text.
    pub(super) fn locate(self, text: &str) -> Error {
        let (mut line, mut column) = (1, 1);
        for c in text.chars().take(self.at as usize) {
            if c == '\n' {
                line += 1;
                column = 1;
            } else {
                column += 1;
            }
        }
        Error { stage: self.stage, message: self.message, line, column }
    }
}
