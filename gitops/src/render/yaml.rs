//! YAML as Kubernetes' own tools read it, into JSON.

use serde_json::{Map, Number, Value};

/// Why a text is no YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct YamlError {
    /// From 1.
    pub line: Option<u64>,
    pub detail: String,
}

/// All documents of a text; empty ones are left out. Of equal keys the last one counts, octal numbers are read as
/// YAML 1.1 has them, and whole numbers are integers however they are written.
///
/// # Errors
/// The text is no YAML; the line is counted in the whole text.
pub fn parse(text: &str) -> Result<Vec<Value>, YamlError> {
    let mut budget = serde_saphyr::Budget::default();
    // The size of the text is limited where it is read; the defaults are too small for large bundles of CRDs.
    budget.max_events = usize::MAX;
    budget.max_nodes = usize::MAX;
    budget.max_total_scalar_bytes = usize::MAX;
    budget.max_reader_input_bytes = None;
    budget.max_documents = usize::MAX;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    options.duplicate_keys = serde_saphyr::options::DuplicateKeyPolicy::LastWins;
    options.legacy_octal_numbers = true;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| YamlError {
        line: error.location().map(|location| location.line()).filter(|line| *line > 0),
        detail: first_line(&error.to_string()),
    })?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).map(integral).collect())
}

/// The parser shows the text around the error; a manifest may hold secrets.
fn first_line(message: &str) -> String {
    let line = message.lines().find(|line| !line.trim().is_empty()).unwrap_or("it cannot be parsed");
    line.trim().trim_start_matches("error: ").to_string()
}

/// Turns `8.0` into `8`, as Go prints it.
fn integral(value: Value) -> Value {
    match value {
        Value::Number(number) if !number.is_i64() && !number.is_u64() => Value::Number(integral_number(number)),
        Value::Array(items) => Value::Array(items.into_iter().map(integral).collect()),
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, integral(v))).collect::<Map<_, _>>()),
        other => other,
    }
}

fn integral_number(number: Number) -> Number {
    // Up to here each whole number has a float of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        #[allow(clippy::cast_possible_truncation)]
        Some(float) if float.fract() == 0.0 && float.abs() <= EXACT => Number::from(float as i64),
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn scalars_are_read_as_kubectl_reads_them() {
        let cases = [
            ("yes", json!(true)),
            ("off", json!(false)),
            ("\"yes\"", json!("yes")),
            ("0777", json!(511)),
            ("0o17", json!(15)),
            ("0x1F", json!(31)),
            ("1.0", json!(1)),
            ("8.5", json!(8.5)),
            ("1e3", json!(1000)),
            ("12:30:45", json!("12:30:45")),
            ("~", Value::Null),
            ("1.10", json!(1.1)),
            ("2024-01-01", json!("2024-01-01")),
            ("!!str 5", json!("5")),
            ("18446744073709551615", json!(18_446_744_073_709_551_615u64)),
        ];
        for (text, expected) in cases {
            let read = parse(&format!("a: {text}\n")).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(read, [json!({"a": expected})], "{text}");
        }
    }

    #[test]
    fn documents_anchors_and_repeated_keys() {
        let text = "# only a comment\n---\na: 1\na: 2\n---\n---\nx: &x {k: v}\ny:\n  <<: *x\n  z: 1\n...\n";
        assert_eq!(parse(text).unwrap(), [json!({"a": 2}), json!({"x": {"k": "v"}, "y": {"k": "v", "z": 1}})]);
        assert_eq!(parse("\u{feff}a: 1").unwrap(), [json!({"a": 1})]);
        assert!(parse("").unwrap().is_empty());
        assert_eq!(parse("1: a\ntrue: b\n").unwrap(), [json!({"1": "a", "true": "b"})]);
    }

    #[test]
    fn an_error_names_its_line_and_quotes_nothing() {
        let error = parse("a: 1\n---\nsecret: hunter2\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(error.line.is_some_and(|line| (4..=6).contains(&line)), "{error:?}");
        assert!(!error.detail.contains("hunter2"), "{error}");
    }

    #[test]
    fn aliases_do_not_explode() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let previous = format!("*a{}", i - 1);
            text.push_str(&format!("a{i}: &a{i} [{}]\n", vec![previous; 10].join(",")));
        }
        assert!(parse(&text).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(text in "[ -~\n\t]{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn json_is_yaml(number in any::<i64>(), text in "[a-zA-Z0-9 :#\"'\\\\-]{0,20}") {
            let value = json!({"n": number, "t": text, "l": [true, null, {"x": text}]});
            prop_assert_eq!(parse(&value.to_string()).unwrap(), vec![value]);
        }
    }
}
