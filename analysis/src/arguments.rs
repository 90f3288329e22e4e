//! Arguments: where their values come from, and how they get into a metric.

use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_crds::analysis::{Argument, Metric};

/// Why arguments could not be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// Nobody gave a value.
    #[error("args.{0} was not resolved")]
    Missing(String),
    /// The field is not in the Rollout.
    #[error("args.{name}: fieldPath {path:?} is not in the Rollout: {reason}")]
    Field {
        /// The argument.
        name: String,
        /// The path.
        path: String,
        /// Where the path ends.
        reason: String,
    },
    /// The hash is neither of the two that there are.
    #[error("args.{name}: podTemplateHashValue is {found:?}, expected Stable or Latest")]
    Hash {
        /// The argument.
        name: String,
        /// What was found.
        found: String,
    },
    /// A metric asks for what there is not.
    #[error("metric {metric:?}: failed to resolve {{{{{placeholder}}}}}")]
    Placeholder {
        /// The metric.
        metric: String,
        /// What stands between the braces.
        placeholder: String,
    },
    /// With the values filled in, the metric is none any more.
    #[error("metric {metric:?} is not valid after its arguments were filled in: {reason}")]
    Metric {
        /// The metric.
        metric: String,
        /// What does not fit.
        reason: String,
    },
}

/// Fills in what a Rollout gives to its templates: hashes of pod templates and fields of the Rollout.
///
/// Literal values and references to Secrets stay as they are.
///
/// # Errors
/// When a hash has an unknown name, or a field is not there.
pub fn resolve_args(
    args: &[Argument],
    rollout: &Value,
    stable_hash: &str,
    latest_hash: &str,
) -> Result<Vec<Argument>, ArgumentError> {
    let resolve = |arg: &Argument| {
        let Some(from) = &arg.value_from else { return Ok(arg.clone()) };
        let value = match (&from.pod_template_hash_value, &from.field_ref) {
            (Some(hash), _) => match hash.as_str() {
                "Stable" => stable_hash.to_owned(),
                "Latest" => latest_hash.to_owned(),
                _ => return Err(ArgumentError::Hash { name: arg.name.clone(), found: hash.clone() }),
            },
            (None, Some(field)) => field_of(rollout, &field.field_path).map_err(|reason| ArgumentError::Field {
                name: arg.name.clone(),
                path: field.field_path.clone(),
                reason,
            })?,
            (None, None) => return Ok(arg.clone()),
        };
        Ok(Argument { name: arg.name.clone(), value: Some(value), value_from: None })
    };
    args.iter().map(resolve).collect()
}

/// The text at a path such as `metadata.labels['app']`, `spec.template.metadata.labels.app` or `status.albs[0].name`.
/// What is no text is given as JSON.
fn field_of(object: &Value, path: &str) -> Result<String, String> {
    let mut at = object;
    let mut done = String::new();
    for step in steps(path)? {
        let next = match &step {
            Step::Key(key) => at.get(key),
            Step::Index(index) => at.get(index),
        };
        match next {
            Some(next) => at = next,
            None if done.is_empty() => return Err(format!("there is no {step}")),
            None => return Err(format!("{done} has no {step}")),
        }
        done = match step {
            Step::Key(key) if done.is_empty() => key,
            step => format!("{done}{}", step.appended()),
        };
    }
    match at {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Err(format!("{done} is null")),
        other => Ok(other.to_string()),
    }
}

enum Step {
    Key(String),
    Index(usize),
}

impl Step {
    fn appended(&self) -> String {
        match self {
            Self::Key(key) if key.contains(['.', '/']) => format!("['{key}']"),
            Self::Key(key) => format!(".{key}"),
            Self::Index(index) => format!("[{index}]"),
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key) => write!(f, "{key}"),
            Self::Index(index) => write!(f, "element {index}"),
        }
    }
}

fn steps(path: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let (step, length) = match inside.chars().next() {
                Some(quote @ ('\'' | '"')) => {
                    let end = inside[1..].find(quote).ok_or("a quote is not closed")?;
                    (Step::Key(inside[1..=end].to_owned()), end + 2)
                }
                _ => {
                    let end = inside.find(']').ok_or("a bracket is not closed")?;
                    let index = inside[..end].parse().map_err(|_| format!("[{}] is no index", &inside[..end]))?;
                    (Step::Index(index), end)
                }
            };
            steps.push(step);
            rest = inside[length..].strip_prefix(']').ok_or("a bracket is not closed")?;
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            if end == 0 {
                return Err("a name is missing".to_owned());
            }
            steps.push(Step::Key(name[..end].to_owned()));
            rest = &name[end..];
        }
    }
    if steps.is_empty() { Err("it is empty".to_owned()) } else { Ok(steps) }
}

/// Finds what is wrong with a field path, whatever the object is.
///
/// # Errors
/// When it is empty, has an empty name, or a bracket or quote that is not closed.
pub fn check_field_path(path: &str) -> Result<(), String> {
    steps(path).map(drop)
}

/// The values that stand for `{{args.NAME}}`, by name.
pub type Values = BTreeMap<String, String>;

/// What stands for a secret where the value is not known and does not matter.
pub const SECRET_PLACEHOLDER: &str = "temp-for-secret";

/// The values of a run's arguments. Secrets, which are looked up at the time of the measurement, get a stand-in.
///
/// # Errors
/// When an argument has neither a value nor a Secret.
pub fn values_without_secrets(args: &[Argument]) -> Result<Values, ArgumentError> {
    let value = |arg: &Argument| match (&arg.value, &arg.value_from) {
        (_, Some(from)) if from.secret_key_ref.is_some() => Ok((arg.name.clone(), SECRET_PLACEHOLDER.to_owned())),
        (Some(value), _) => Ok((arg.name.clone(), value.clone())),
        (None, _) => Err(ArgumentError::Missing(arg.name.clone())),
    };
    args.iter().map(value).collect()
}

/// Puts values into a metric, wherever a text in it has `{{args.NAME}}`, with or without spaces inside the braces.
///
/// # Errors
/// When a placeholder has no value, or a value does not fit its place.
pub fn substitute(metric: &Metric, values: &Values) -> Result<Metric, ArgumentError> {
    let invalid =
        |error: serde_json::Error| ArgumentError::Metric { metric: metric.name.clone(), reason: error.to_string() };
    let mut json = serde_json::to_value(metric).map_err(invalid)?;
    fill(&mut json, values)
        .map_err(|placeholder| ArgumentError::Placeholder { metric: metric.name.clone(), placeholder })?;
    serde_json::from_value(json).map_err(invalid)
}

fn fill(json: &mut Value, values: &Values) -> Result<(), String> {
    match json {
        Value::String(text) => {
            if let Some(filled) = fill_text(text, values)? {
                *text = filled;
            }
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| fill(item, values)),
        Value::Object(map) => {
            let templated: Vec<String> = map.keys().filter(|key| key.contains("{{")).cloned().collect();
            for key in templated {
                if let (Some(filled), Some(value)) = (fill_text(&key, values)?, map.remove(&key)) {
                    map.insert(filled, value);
                }
            }
            map.values_mut().try_for_each(|value| fill(value, values))
        }
        _ => Ok(()),
    }
}

/// The text with its placeholders filled in; none when it has none. The error is the placeholder without a value.
fn fill_text(text: &str, values: &Values) -> Result<Option<String>, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        // Braces that are never closed are text.
        let Some((placeholder, behind)) = after.split_once("}}") else { break };
        let value = placeholder.trim().strip_prefix("args.").and_then(|name| values.get(name));
        out.push_str(before);
        out.push_str(value.ok_or_else(|| placeholder.to_owned())?);
        rest = behind;
    }
    if rest.len() == text.len() {
        return Ok(None);
    }
    out.push_str(rest);
    Ok(Some(out))
}

/// Replaces every secret in a text by `*****`.
pub fn redact(text: &str, secrets: &[String]) -> String {
    let mut longest_first: Vec<&String> = secrets.iter().filter(|secret| !secret.is_empty()).collect();
    longest_first.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    longest_first.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "*****"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidegate_crds::analysis::{FieldRef, SecretKeyRef, ValueFrom};

    fn literal(name: &str, value: &str) -> Argument {
        Argument { name: name.into(), value: Some(value.into()), value_from: None }
    }

    fn from(name: &str, value_from: ValueFrom) -> Argument {
        Argument { name: name.into(), value: None, value_from: Some(value_from) }
    }

    fn field(path: &str) -> Argument {
        from("a", ValueFrom { field_ref: Some(FieldRef { field_path: path.into() }), ..ValueFrom::default() })
    }

    fn rollout() -> Value {
        json!({
            "metadata": {"name": "web", "uid": "u-1", "labels": {"app": "shop", "app.kubernetes.io/name": "web"}},
            "spec": {"replicas": 3, "template": {"metadata": {"labels": {"app": "shop"}}}},
            "status": {"albs": [{"loadBalancer": {"name": "lb-0"}}], "none": null},
        })
    }

    #[test]
    fn values_come_from_hashes_and_fields() {
        let hash = |name: &str| ValueFrom { pod_template_hash_value: Some(name.into()), ..ValueFrom::default() };
        let args = [literal("a", "1"), from("s", hash("Stable")), from("l", hash("Latest"))];
        let resolved = resolve_args(&args, &rollout(), "abc", "def").unwrap();
        assert_eq!(resolved, [literal("a", "1"), literal("s", "abc"), literal("l", "def")]);
        let unknown = resolve_args(&[from("x", hash("Canary"))], &rollout(), "", "").unwrap_err();
        assert_eq!(unknown.to_string(), "args.x: podTemplateHashValue is \"Canary\", expected Stable or Latest");
        for (path, value) in [
            ("metadata.name", "web"),
            ("metadata.uid", "u-1"),
            ("metadata.labels['app']", "shop"),
            ("metadata.labels[\"app.kubernetes.io/name\"]", "web"),
            ("spec.template.metadata.labels.app", "shop"),
            ("spec.replicas", "3"),
            ("status.albs[0].loadBalancer.name", "lb-0"),
            ("spec.template.metadata.labels", "{\"app\":\"shop\"}"),
        ] {
            assert_eq!(resolve_args(&[field(path)], &rollout(), "", ""), Ok(vec![literal("a", value)]), "{path}");
        }
    }

    #[test]
    fn a_field_that_is_not_there_is_named() {
        for (path, reason) in [
            ("metadata.labels['x']", "metadata.labels has no x"),
            ("status.albs[1].name", "status.albs has no element 1"),
            ("nothing", "there is no nothing"),
            ("status.none", "status.none is null"),
            ("status.albs[x]", "[x] is no index"),
            ("status.albs[0", "a bracket is not closed"),
            ("metadata.labels['x", "a quote is not closed"),
            ("metadata..name", "a name is missing"),
            ("", "it is empty"),
        ] {
            let error = resolve_args(&[field(path)], &rollout(), "", "").unwrap_err().to_string();
            assert_eq!(error, format!("args.a: fieldPath {path:?} is not in the Rollout: {reason}"));
        }
    }

    #[test]
    fn a_secret_stays_a_reference() {
        let secret = SecretKeyRef { name: "token".into(), key: "t".into() };
        let arg = from("t", ValueFrom { secret_key_ref: Some(secret), ..ValueFrom::default() });
        assert_eq!(resolve_args(std::slice::from_ref(&arg), &rollout(), "", ""), Ok(vec![arg.clone()]));
        assert_eq!(values_without_secrets(&[arg]).unwrap()["t"], SECRET_PLACEHOLDER);
        let nothing = Argument { name: "n".into(), ..Argument::default() };
        assert_eq!(values_without_secrets(&[nothing]), Err(ArgumentError::Missing("n".into())));
    }

    fn metric(json: Value) -> Metric {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn placeholders_are_filled_in_everywhere() {
        let values: Values =
            [("n", "5"), ("host", "a\"b\\c"), ("key", "x-y")].map(|(k, v)| (k.into(), v.into())).into();
        let before = metric(json!({
            "name": "{{ args.host }}",
            "count": "{{args.n}}",
            "interval": "{{args.n}}m",
            "provider": {"web": {"url": "http://{{args.host}}/{{args.n}}", "jsonBody": {"{{args.key}}": ["{{args.n}}", 1]}}},
        }));
        let after = substitute(&before, &values).unwrap();
        assert_eq!(after.name, "a\"b\\c");
        assert_eq!(crate::metric::whole(after.count.as_ref().unwrap()), Ok(5));
        assert_eq!(after.interval.as_deref(), Some("5m"));
        let web = after.provider.web.unwrap();
        assert_eq!((web.url.as_str(), web.json_body), ("http://a\"b\\c/5", json!({"x-y": ["5", 1]})));
    }

    #[test]
    fn what_has_no_value_is_named() {
        let values = Values::new();
        for (query, placeholder) in [("{{args.host}}", "args.host"), ("{{ inputs.x }}", " inputs.x ")] {
            let before = metric(json!({"name": "m", "provider": {"prometheus": {"query": query}}}));
            let error = substitute(&before, &values).unwrap_err().to_string();
            assert_eq!(error, format!("metric \"m\": failed to resolve {{{{{placeholder}}}}}"));
        }
        let open = metric(json!({"name": "m", "provider": {"prometheus": {"query": "a{{b"}}}));
        assert_eq!(substitute(&open, &values), Ok(open.clone()));
    }

    #[test]
    fn secrets_are_taken_out_of_texts() {
        let secrets = ["abc".to_owned(), String::new(), "abcdef".to_owned()];
        assert_eq!(redact("a abcdef abc", &secrets), "a ***** *****");
    }
}
