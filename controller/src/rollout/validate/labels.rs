//! Names, label keys and values, and label selectors.

use super::Problems;
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_crds::LabelSelector;

/// Whether `text` is letters, digits and what `extra` allows, with a letter or digit at both ends.
fn is_delimited(text: &str, letter: fn(&u8) -> bool, extra: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    letter(first) && letter(last) && bytes.iter().all(|byte| letter(byte) || extra.contains(byte))
}

fn lower(byte: &u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Whether `text` is a DNS label: the form of names of containers, volumes and Services.
pub(super) fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_delimited(text, lower, b"-")
}

/// Whether `text` is a DNS subdomain: the form of most names.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|label| is_delimited(label, lower, b"-"))
}

/// Whether `text` is a label key: a name of at most 63 characters, perhaps after a DNS subdomain and a slash.
pub(super) fn is_label_key(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    prefix.is_none_or(is_dns_subdomain) && name.len() <= 63 && is_delimited(name, u8::is_ascii_alphanumeric, b"-_.")
}

/// Whether `text` is a label value.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || text.len() <= 63 && is_delimited(text, u8::is_ascii_alphanumeric, b"-_.")
}

const KEY: &str = "must be a label key: at most 63 letters, digits, '-', '_' and '.', perhaps after a domain and '/'";
const VALUE: &str = "must be a label value: at most 63 letters, digits, '-', '_' and '.'";

/// Checks labels in a map of texts.
pub(super) fn check_labels(labels: &BTreeMap<String, String>, path: &str, problems: &mut Problems) {
    for (key, value) in labels {
        if !is_label_key(key) {
            problems.invalid(path, key.as_str(), KEY);
        }
        if !is_label_value(value) {
            problems.invalid(format!("{path}.{key}"), value.as_str(), VALUE);
        }
    }
}

/// Checks the form of a selector.
pub(super) fn check_selector(selector: &LabelSelector, path: &str, problems: &mut Problems) {
    if let Some(labels) = &selector.match_labels {
        check_labels(labels, &format!("{path}.matchLabels"), problems);
    }
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        let values = expression.values.as_deref().unwrap_or_default();
        match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                problems.required(format!("{path}.values"), "at least one value for In and NotIn");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let expected = "must be empty for Exists and DoesNotExist";
                problems.invalid(format!("{path}.values"), values.to_vec(), expected);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let known = ["In", "NotIn", "Exists", "DoesNotExist"];
                problems.unsupported(format!("{path}.operator"), other, &known);
            }
        }
        if !is_label_key(&expression.key) {
            problems.invalid(format!("{path}.key"), expression.key.as_str(), KEY);
        }
        for value in values.iter().filter(|value| !is_label_value(value)) {
            problems.invalid(format!("{path}.values"), value.as_str(), VALUE);
        }
    }
}

/// Whether the selector selects pods with these labels.
pub(super) fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|expression| {
            let found = labels.get(&expression.key);
            let listed = || found.is_some_and(|found| expression.values.iter().flatten().any(|value| value == found));
            match expression.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

/// The texts of a JSON map; what is no text is left out.
pub(super) fn texts(value: Option<&Value>) -> BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
