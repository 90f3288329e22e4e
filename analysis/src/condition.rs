//! Whether a measurement is good: `successCondition` and `failureCondition` on its value.

use crate::expr::{self, Program, Scope, Stage, Type, Value};
use jiff::Timestamp;
use tidegate_crds::analysis::AnalysisPhase;

/// A condition that could not be evaluated, or gave no truth value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} in {field} `{condition}`{hint}")]
pub struct ConditionError {
    /// `successCondition` or `failureCondition`.
    pub field: &'static str,
    /// The condition.
    pub condition: String,
    /// What was found, what was expected, and where.
    pub reason: String,
    /// How to guard the condition when the measurement is empty; begins with its separator.
    pub hint: String,
}

/// Judges a measurement. Both conditions are evaluated always, so that a broken one shows even when the other decides.
///
/// - Neither: successful.
/// - Only one: successful when the success condition is true, or the failure condition is not; else failed.
/// - Both: failed when the failure condition is true; else successful when the success condition is; else inconclusive.
///
/// `now` is what `now()` gives in the conditions. An empty condition is none.
///
/// # Errors
/// When a condition is no expression, does not fit the result, or gives something else than true or false.
pub fn assess(
    result: &Value,
    success: Option<&str>,
    failure: Option<&str>,
    now: Timestamp,
) -> Result<AnalysisPhase, ConditionError> {
    let holds = |field, condition: Option<&str>| match condition.filter(|c| !c.is_empty()) {
        Some(condition) => evaluate(result, field, condition, now).map(Some),
        None => Ok(None),
    };
    let success = holds("successCondition", success)?;
    let failure = holds("failureCondition", failure)?;
    Ok(match (success, failure) {
        (_, Some(true)) | (Some(false), None) => AnalysisPhase::Failed,
        (Some(false), Some(false)) => AnalysisPhase::Inconclusive,
        _ => AnalysisPhase::Successful,
    })
}

fn evaluate(result: &Value, field: &'static str, condition: &str, now: Timestamp) -> Result<bool, ConditionError> {
    let failed = |reason: String, hint: String| ConditionError { field, condition: condition.to_owned(), reason, hint };
    let program = Program::parse(condition).map_err(|error| failed(error.to_string(), String::new()))?;
    match program.run(&Scope::condition(result.clone()), now) {
        Ok(Value::Bool(holds)) => Ok(holds),
        Ok(other) => Err(failed(format!("expected bool, but got {}", other.type_name()), hint(result))),
        Err(error) => Err(failed(error.to_string(), hint(result))),
    }
}

/// What to do about a measurement that came out empty.
fn hint(result: &Value) -> String {
    match result {
        Value::Nil => ": the measurement gave no value (nil); give one for this case with default(result, 0), or ask \
                       isNil(result) first"
            .to_owned(),
        Value::List(list) if list.items().is_empty() => ": the measurement gave an empty list; ask len(result) > 0 \
            first, or give a value for this case, such as default(first(result), 0)"
            .to_owned(),
        Value::Map(map) if map.entries().is_empty() => {
            ": the measurement gave an empty map; ask len(result) > 0 first".to_owned()
        }
        Value::Str(text) if text.is_empty() => ": the measurement gave an empty text".to_owned(),
        _ => String::new(),
    }
}

/// Finds what is wrong with a condition whatever is measured.
///
/// # Errors
/// When it is no expression, uses names that there are not, or can not give true or false.
pub fn check(condition: &str) -> Result<(), expr::Error> {
    let kind = Program::parse(condition)?.check(&Scope::unmeasured())?;
    match kind {
        Type::Bool | Type::Unknown => Ok(()),
        other => {
            let message = format!("expected bool, but got {other}");
            Err(expr::Error { stage: Stage::Check, message, line: 1, column: 1 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AnalysisPhase::{Failed, Inconclusive, Successful};

    fn phase(result: Value, success: &str, failure: &str) -> Result<AnalysisPhase, String> {
        assess(&result, Some(success), Some(failure), Timestamp::UNIX_EPOCH).map_err(|e| e.to_string())
    }

    #[test]
    fn phases() {
        for (result, success, failure, expected) in [
            (0.97, "", "", Successful),
            (0.97, "result > 0.95", "", Successful),
            (0.9, "result > 0.95", "", Failed),
            (0.9, "", "result < 0.5", Successful),
            (0.4, "", "result < 0.5", Failed),
            (0.97, "result > 0.95", "result < 0.5", Successful),
            (0.7, "result > 0.95", "result < 0.5", Inconclusive),
            (0.4, "result > 0.95", "result < 0.5", Failed),
            (0.7, "result > 0.5", "result < 0.8", Failed),
        ] {
            assert_eq!(phase(Value::Float(result), success, failure), Ok(expected), "{result} {success} {failure}");
        }
        assert_eq!(assess(&Value::Nil, None, None, Timestamp::UNIX_EPOCH), Ok(Successful));
    }

    #[test]
    fn an_error_in_either_counts() {
        let broken = phase(Value::Float(1.0), "result > 0", "result.x");
        assert_eq!(broken, Err("type float64 has no field x (1:8) in failureCondition `result.x`".to_owned()));
        assert_eq!(
            phase(Value::Float(1.0), "result >= \"1\"", "result > 0"),
            Err("invalid operation: >= (mismatched types float64 and string) (1:8) in successCondition \
                 `result >= \"1\"`"
                .to_owned())
        );
        assert_eq!(
            phase(Value::Float(1.0), "result + 1", ""),
            Err("expected bool, but got float64 in successCondition `result + 1`".to_owned())
        );
        assert!(phase(Value::Float(1.0), "result >", "").is_err());
    }

    #[test]
    fn an_empty_measurement_is_named_with_its_remedy() {
        let error = phase(Value::floats([]), "result[0] < 0.05", "").unwrap_err();
        assert!(error.starts_with("index out of range: 0 (array length is 0) (1:7) in successCondition"), "{error}");
        assert!(error.contains("empty list; ask len(result) > 0 first"), "{error}");
        let error = phase(Value::Nil, "result < 0.05", "").unwrap_err();
        assert!(error.contains("no value (nil)") && error.contains("default(result, 0)"), "{error}");
        // The remedies do help.
        let empty = || Value::floats([]);
        assert_eq!(phase(empty(), "len(result) > 0 && result[0] < 0.05", ""), Ok(Failed));
        assert_eq!(phase(empty(), "default(first(result), 0) < 0.05", ""), Ok(Successful));
        assert_eq!(phase(Value::Nil, "default(result, 0) < 0.05", ""), Ok(Successful));
        assert_eq!(phase(Value::Nil, "isNil(result) || result < 0.05", ""), Ok(Successful));
    }

    #[test]
    fn conditions_are_checked_before_anything_is_measured() {
        for condition in ["result > 1", "all(result.items, .ok)", "result", "len(result) > 0 && result[0] < 1"] {
            assert_eq!(check(condition), Ok(()), "{condition}");
        }
        for condition in ["result >", "results > 1", "result + 1 == \"a\" + 1", "len(result)", "\"a\""] {
            assert!(check(condition).is_err(), "{condition}");
        }
    }
}
