//! Kubernetes' dialect of JSONPath, as `kubectl -o jsonpath` has it.
//!
//! A path is a text with actions in braces. An action goes down from the root: `.field`, `['field']`, `[0]`, `[1:3:2]`,
//! `[*]`, `.*`, `..`, unions `[0,2]`, filters `[?(@.a=="b")]`. `{range …}…{end}` repeats what is inside for each value.
//! Unlike there, numbers in filters compare whatever their kind is.

use serde_json::Value;
use std::borrow::Cow;
use std::cmp::Ordering;

/// How deeply ranges and filters may be nested.
const MAX_NESTING: u32 = 16;
/// How many values a path may find, those on its way included.
const MAX_FOUND: usize = 100_000;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq)]
enum Segment {
    Text(String),
    Action(Vec<Step>),
    Range(Vec<Step>, Vec<Segment>),
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Literal(Value),
    Field(String),
    Wildcard,
    Recursive,
    Slice(Slice),
    Union(Vec<Step>),
    Filter(Box<Filter>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Slice {
    from: Option<i64>,
    /// None without an end; the element after `from` when only one index was given.
    to: To,
    step: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum To {
    Next,
    End,
    At(i64),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Vec<Step>,
    /// None: the left side has to be there.
    right: Option<(Operator, Vec<Step>)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Less,
    More,
    Equal,
    NotEqual,
    LessOrEqual,
    MoreOrEqual,
}

type Found<'a> = Vec<Cow<'a, Value>>;

impl JsonPath {
    /// Parses a path.
    ///
    /// # Errors
    /// When the text is not a path; the error says what was found.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text, nesting: 0 };
        let segments = parser.segments(false)?;
        Ok(Self { segments })
    }

    /// Finds values: for each text and action in turn, those that it gives.
    ///
    /// # Errors
    /// When a field is missing everywhere, an index is out of bounds, or a list is expected where there is none.
    pub fn find(&self, root: &Value) -> Result<Vec<Vec<Value>>, String> {
        let mut found = Vec::new();
        let mut left = MAX_FOUND;
        walk(&self.segments, root, &mut found, &mut left)?;
        Ok(found)
    }
}

fn walk(segments: &[Segment], root: &Value, found: &mut Vec<Vec<Value>>, left: &mut usize) -> Result<(), String> {
    for segment in segments {
        match segment {
            Segment::Text(text) => found.push(vec![Value::String(text.clone())]),
            Segment::Action(steps) => {
                let values = follow(steps, vec![Cow::Borrowed(root)], left)?;
                found.push(values.into_iter().map(Cow::into_owned).collect());
            }
            Segment::Range(steps, body) => {
                for value in follow(steps, vec![Cow::Borrowed(root)], left)? {
                    walk(body, &value, found, left)?;
                }
            }
        }
    }
    Ok(())
}

fn follow<'a>(steps: &[Step], mut values: Found<'a>, left: &mut usize) -> Result<Found<'a>, String> {
    for step in steps {
        values = apply(step, values, left)?;
        *left = left.checked_sub(values.len()).ok_or("the path finds too many values")?;
    }
    Ok(values)
}

fn apply<'a>(step: &Step, values: Found<'a>, left: &mut usize) -> Result<Found<'a>, String> {
    match step {
        Step::Literal(literal) => Ok(values.iter().map(|_| Cow::Owned(literal.clone())).collect()),
        Step::Field(name) => {
            let none = values.is_empty();
            let found: Found<'a> = values.into_iter().filter_map(|value| child(value, |v| v.get(name))).collect();
            if found.is_empty() && !none { Err(format!("{name} is not found")) } else { Ok(found) }
        }
        Step::Wildcard => Ok(values.into_iter().flat_map(children).collect()),
        Step::Recursive => {
            let mut found = Vec::new();
            for value in values {
                descend(value, &mut found, left)?;
            }
            Ok(found)
        }
        Step::Slice(slice) => {
            let mut found = Vec::new();
            for value in values.into_iter().filter(|value| !value.is_null()) {
                let Some(list) = value.as_array() else {
                    return Err(format!("{} is not array or slice", kind(&value)));
                };
                let places = slice.places(list.len())?;
                found.extend(places.into_iter().filter_map(|at| child(value.clone(), |v| v.get(at))));
            }
            Ok(found)
        }
        Step::Union(steps) => {
            let mut found = Vec::new();
            for step in steps {
                found.extend(apply(step, values.clone(), left)?);
            }
            Ok(found)
        }
        Step::Filter(filter) => {
            let mut found = Vec::new();
            for value in values {
                let Some(list) = value.as_array() else {
                    return Err(format!("{} is not array or slice and cannot be filtered", kind(&value)));
                };
                for (at, item) in list.iter().enumerate() {
                    *left = left.checked_sub(1).ok_or("the path finds too many values")?;
                    if filter.holds(item, left)? {
                        found.extend(child(value.clone(), |v| v.get(at)));
                    }
                }
            }
            Ok(found)
        }
    }
}

/// A part of a value, borrowed where the value is.
fn child<'a>(value: Cow<'a, Value>, part: impl Fn(&Value) -> Option<&Value>) -> Option<Cow<'a, Value>> {
    match value {
        Cow::Borrowed(value) => part(value).map(Cow::Borrowed),
        Cow::Owned(value) => part(&value).cloned().map(Cow::Owned),
    }
}

fn children(value: Cow<'_, Value>) -> Found<'_> {
    match value {
        Cow::Borrowed(Value::Array(items)) => items.iter().map(Cow::Borrowed).collect(),
        Cow::Borrowed(Value::Object(map)) => map.values().map(Cow::Borrowed).collect(),
        Cow::Owned(Value::Array(items)) => items.into_iter().map(Cow::Owned).collect(),
        Cow::Owned(Value::Object(map)) => map.into_iter().map(|(_, value)| Cow::Owned(value)).collect(),
        _ => Vec::new(),
    }
}

/// A value and all lists and maps in it that are not empty, each before what is in it.
fn descend<'a>(value: Cow<'a, Value>, found: &mut Found<'a>, left: &mut usize) -> Result<(), String> {
    let inside = children(value.clone());
    if inside.is_empty() {
        return Ok(());
    }
    *left = left.checked_sub(1).ok_or("the path finds too many values")?;
    found.push(value);
    inside.into_iter().try_for_each(|value| descend(value, found, left))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

impl Slice {
    fn places(self, length: usize) -> Result<Vec<usize>, String> {
        let size = i64::try_from(length).unwrap_or(i64::MAX);
        let given = self.from.unwrap_or(0);
        let from = if given < 0 { given.saturating_add(size) } else { given };
        let to = match self.to {
            To::Next if given == -1 => size,
            To::Next => from.saturating_add(1),
            To::End => size,
            To::At(to) if to < 0 => to.saturating_add(size),
            To::At(to) => to,
        };
        if from == to {
            return Ok(Vec::new());
        }
        if from < 0 || from >= size {
            return Err(format!("array index out of bounds: index {from}, length {length}"));
        }
        if to < 0 || to > size {
            return Err(format!("array index out of bounds: index {}, length {length}", to.saturating_sub(1)));
        }
        if from > to {
            return Err(format!("starting index {from} is greater than ending index {to}"));
        }
        let step = match self.step {
            None => 1,
            Some(step) => usize::try_from(step).ok().filter(|step| *step > 0).ok_or("step must be > 0")?,
        };
        Ok((from as usize..to as usize).step_by(step).collect())
    }
}

impl Filter {
    fn holds(&self, item: &Value, left: &mut usize) -> Result<bool, String> {
        let lefts = follow(&self.left, vec![Cow::Borrowed(item)], left);
        let Some((operator, right)) = &self.right else { return Ok(lefts.is_ok_and(|found| !found.is_empty())) };
        let rights = follow(right, vec![Cow::Borrowed(item)], left)?;
        match (&lefts?[..], &rights[..]) {
            ([], _) | (_, []) => Ok(false),
            ([a], [b]) => operator.holds(a, b),
            _ => Err("can only compare one element at a time".to_owned()),
        }
    }
}

impl Operator {
    fn holds(self, a: &Value, b: &Value) -> Result<bool, String> {
        let ordering = match (a, b) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) if matches!(self, Self::Equal | Self::NotEqual) => Some(a.cmp(b)),
            _ => return Err(format!("incompatible types for comparison: {} and {}", kind(a), kind(b))),
        };
        Ok(match self {
            Self::Less => ordering == Some(Ordering::Less),
            Self::More => ordering == Some(Ordering::Greater),
            Self::Equal => ordering == Some(Ordering::Equal),
            Self::NotEqual => ordering != Some(Ordering::Equal),
            Self::LessOrEqual => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
            Self::MoreOrEqual => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
        })
    }
}

struct Parser<'a> {
    rest: &'a str,
    /// How many ranges and filters are around.
    nesting: u32,
}

fn ends_name(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}')
}

impl Parser<'_> {
    fn take(&mut self, bytes: usize) -> &str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }

    fn segments(&mut self, in_range: bool) -> Result<Vec<Segment>, String> {
        let mut segments = Vec::new();
        loop {
            let text = self.rest.find('{').unwrap_or(self.rest.len());
            if text > 0 {
                segments.push(Segment::Text(self.take(text).to_owned()));
            }
            if self.rest.is_empty() {
                return if in_range { Err("{range} is not closed by {end}".to_owned()) } else { Ok(segments) };
            }
            self.take(1);
            match self.keyword() {
                Some("range") => {
                    let steps = self.action()?;
                    self.nest()?;
                    let body = self.segments(true)?;
                    self.nesting -= 1;
                    segments.push(Segment::Range(steps, body));
                }
                Some("end") if in_range => {
                    self.rest = self.rest.trim_start_matches(' ');
                    if !self.rest.starts_with('}') {
                        return Err("unclosed action".to_owned());
                    }
                    self.take(1);
                    return Ok(segments);
                }
                Some("end") => return Err("not in range, nothing to end".to_owned()),
                _ => segments.push(Segment::Action(self.action()?)),
            }
        }
    }

    fn nest(&mut self) -> Result<(), String> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(format!("ranges and filters are nested deeper than {MAX_NESTING}"));
        }
        Ok(())
    }

    /// Takes `range` or `end` from the start of an action.
    fn keyword(&mut self) -> Option<&'static str> {
        let start = self.rest.trim_start_matches(' ');
        let word = ["range", "end"]
            .into_iter()
            .find(|word| start.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with(ends_name)))?;
        self.rest = &start[word.len()..];
        Some(word)
    }

    /// The steps up to and with the closing brace.
    fn action(&mut self) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        loop {
            let Some(c) = self.rest.chars().next() else { return Err("unclosed action".to_owned()) };
            match c {
                '}' => {
                    self.take(1);
                    return Ok(steps);
                }
                '\r' | '\n' => return Err("unclosed action".to_owned()),
                ' ' | '@' | '$' => {
                    self.take(1);
                }
                '[' if self.rest.starts_with("[?(") => steps.push(self.filter()?),
                '[' => self.bracket(&mut steps)?,
                '"' | '\'' => steps.push(Step::Literal(Value::String(self.quoted(c)?))),
                '.' if self.rest.starts_with("..") => {
                    if steps.last() == Some(&Step::Recursive) {
                        return Err("invalid multiple recursive descent".to_owned());
                    }
                    self.take(2);
                    steps.push(Step::Recursive);
                    if self.rest.starts_with(|c: char| c == '_' || c.is_alphanumeric()) {
                        steps.push(self.field());
                    }
                }
                '.' => {
                    self.take(1);
                    steps.push(self.field());
                }
                '+' | '-' | '0'..='9' => steps.push(self.number()?),
                c if c == '_' || c.is_alphanumeric() => {
                    let end = self.rest.find(ends_name).unwrap_or(self.rest.len());
                    match self.take(end) {
                        "true" => steps.push(Step::Literal(Value::Bool(true))),
                        "false" => steps.push(Step::Literal(Value::Bool(false))),
                        other => return Err(format!("unrecognized identifier {other}")),
                    }
                }
                c => return Err(format!("unrecognized character in action: {c:?}")),
            }
        }
    }

    fn field(&mut self) -> Step {
        let mut name = String::new();
        let mut end = self.rest.len();
        let mut escaped = false;
        for (at, c) in self.rest.char_indices() {
            if escaped {
                name.push(c);
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if ends_name(c) {
                end = at;
                break;
            } else {
                name.push(c);
            }
        }
        self.take(end);
        if name == "*" { Step::Wildcard } else { Step::Field(name) }
    }

    fn number(&mut self) -> Result<Step, String> {
        let sign = usize::from(self.rest.starts_with(['+', '-']));
        let digits = self.rest[sign..].find(|c: char| c != '.' && !c.is_ascii_digit());
        let text = self.take(digits.map_or(self.rest.len(), |digits| digits + sign));
        let number = text.trim_start_matches('+');
        let whole = number.parse::<i64>().map(Value::from);
        let value = whole.or_else(|_| number.parse::<f64>().map(Value::from));
        value.map(Step::Literal).map_err(|_| format!("cannot parse number {text}"))
    }

    /// A text in quotes, in which a backslash takes away the meaning of what follows.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut escaped = false;
        for (at, c) in self.rest.char_indices().skip(1) {
            match c {
                '\n' => break,
                _ if escaped => {
                    text.push(match c {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        other => other,
                    });
                    escaped = false;
                }
                '\\' => escaped = true,
                c if c == quote => {
                    self.take(at + 1);
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        Err("unterminated quoted string".to_owned())
    }

    /// `[…]`: an index, a slice, a name in quotes, or several of them.
    fn bracket(&mut self, steps: &mut Vec<Step>) -> Result<(), String> {
        let end = self.rest.find([']', '\n']).filter(|end| self.rest[*end..].starts_with(']'));
        let Some(end) = end else { return Err("unterminated array".to_owned()) };
        let inside = self.rest[1..end].to_owned();
        self.take(end + 1);
        let parts: Vec<&str> = inside.split(',').collect();
        if let [only] = parts[..] {
            steps.push(selector(only)?);
        } else {
            let union = parts.into_iter().map(|part| selector(part.trim_matches(' '))).collect::<Result<_, _>>()?;
            steps.push(Step::Union(union));
        }
        Ok(())
    }

    fn filter(&mut self) -> Result<Step, String> {
        self.take(3);
        let mut quote = None;
        let mut escaped = false;
        let mut depth = 1;
        let mut end = None;
        for (at, c) in self.rest.char_indices() {
            match (quote, c) {
                _ if escaped => escaped = false,
                (_, '\n') => break,
                (Some(_), '\\') => escaped = true,
                (Some(open), c) if c == open => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(c),
                (None, '(') => depth += 1,
                (None, ')') => {
                    depth -= 1;
                    if depth == 0 {
                        end = Some(at);
                        break;
                    }
                }
                _ => {}
            }
        }
        let Some(end) = end else { return Err("unterminated filter".to_owned()) };
        let inside = self.rest[..end].to_owned();
        self.take(end + 1);
        if !self.rest.starts_with(']') {
            return Err("unclosed array expect ]".to_owned());
        }
        self.take(1);
        self.nest()?;
        let nesting = self.nesting;
        self.nesting -= 1;
        let side = |text: &str| Parser { rest: &format!("{text}}}"), nesting }.action();
        let sign = inside.find(['!', '<', '>', '=']).filter(|at| *at > 0);
        let Some(at) = sign else { return Ok(Step::Filter(Box::new(Filter { left: side(&inside)?, right: None }))) };
        let (left, rest) = inside.split_at(at);
        let length = rest.find(|c: char| !matches!(c, '!' | '<' | '>' | '=')).unwrap_or(rest.len());
        let (sign, right) = rest.split_at(length);
        let operator = match sign {
            "<" => Operator::Less,
            ">" => Operator::More,
            "==" => Operator::Equal,
            "!=" => Operator::NotEqual,
            "<=" => Operator::LessOrEqual,
            ">=" => Operator::MoreOrEqual,
            other => return Err(format!("unrecognized filter operator {other}")),
        };
        let right = Some((operator, side(right)?));
        Ok(Step::Filter(Box::new(Filter { left: side(left)?, right })))
    }
}

/// What stands between brackets, or between the commas there.
fn selector(text: &str) -> Result<Step, String> {
    if text == "*" {
        return Ok(Step::Slice(Slice { from: None, to: To::End, step: None }));
    }
    for quote in ['\'', '"'] {
        let inside = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(name) = inside.filter(|_| text.len() >= 2) {
            return Ok(if name == "*" { Step::Wildcard } else { Step::Field(name.replace('\\', "")) });
        }
    }
    let number = |text: &str| match text {
        "" => Ok(None),
        _ => text.parse::<i64>().map(Some).map_err(|_| format!("invalid array index {text}")),
    };
    let parts: Vec<&str> = text.split(':').collect();
    let slice = match parts[..] {
        [index] => {
            let index = number(index)?.ok_or_else(|| format!("invalid array index {text}"))?;
            Slice { from: Some(index), to: To::Next, step: None }
        }
        [from, to] => Slice { from: number(from)?, to: number(to)?.map_or(To::End, To::At), step: None },
        [from, to, step] => Slice { from: number(from)?, to: number(to)?.map_or(To::End, To::At), step: number(step)? },
        _ => return Err(format!("invalid array index {text}")),
    };
    Ok(Step::Slice(slice))
}

#[cfg(test)]
mod tests;
