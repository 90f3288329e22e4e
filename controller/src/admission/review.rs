//! The answer to an AdmissionReview.

use super::{Finding, problems};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tidegate_crds::API_VERSION;
use tidegate_crds::analysis::AnalysisRun;
use tidegate_crds::experiment::Experiment;

const REVIEW_VERSION: &str = "admission.k8s.io/v1";
const REVIEW_KIND: &str = "AdmissionReview";

/// Why a request could not be understood. Its sender is told, with status 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is no JSON.
    #[error("the body is not JSON: {0}; expected an AdmissionReview of admission.k8s.io/v1")]
    Json(String),
    /// It is something else.
    #[error(
        "found apiVersion {api_version:?} and kind {kind:?}, expected \"admission.k8s.io/v1\" and \"AdmissionReview\""
    )]
    Kind {
        /// What it says of its version.
        api_version: String,
        /// What it says of its kind.
        kind: String,
    },
    /// Something that every review has is not there.
    #[error("{field}: found {found}, expected {expected}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What kind of value is there. Never the value: it may be anything.
        found: &'static str,
        /// What should be there.
        expected: &'static str,
    },
}

impl Unreadable {
    fn field(field: &'static str, found: &Value, expected: &'static str) -> Self {
        let found = match found {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        Self::Field { field, found, expected }
    }
}

/// Answers an AdmissionReview with one that holds the response. Reads nothing but the review and changes nothing, so a
/// dry run is no case of its own.
///
/// Refused is what has a problem that shows in the object itself. On an update, problems that the object had before are
/// let through with a warning: labels, finalizers and other parts of an invalid object have to stay editable. An object
/// that is being deleted is never refused, nor a run that a controller made of a template: it tells in its own status.
///
/// # Errors
/// When it is not a review.
pub fn review(review: &Value) -> Result<Value, Unreadable> {
    let text = |key: &str| review[key].as_str().unwrap_or_default();
    if (text("apiVersion"), text("kind")) != (REVIEW_VERSION, REVIEW_KIND) {
        return Err(Unreadable::Kind { api_version: text("apiVersion").to_owned(), kind: text("kind").to_owned() });
    }
    let request = &review["request"];
    if !request.is_object() {
        return Err(Unreadable::field("request", request, "an object"));
    }
    let uid = request["uid"].as_str().filter(|uid| !uid.is_empty());
    let uid = uid.ok_or_else(|| Unreadable::field("request.uid", &request["uid"], "a text that is not empty"))?;
    let mut response = judge(request)?;
    response["uid"] = uid.into();
    Ok(json!({"apiVersion": REVIEW_VERSION, "kind": REVIEW_KIND, "response": response}))
}

/// The response without the uid.
fn judge(request: &Value) -> Result<Value, Unreadable> {
    let allowed = Ok(json!({"allowed": true}));
    let operation = &request["operation"];
    let operation =
        operation.as_str().ok_or_else(|| Unreadable::field("request.operation", operation, "CREATE or UPDATE"))?;
    let subresource = request["subResource"].as_str().unwrap_or_default();
    if !matches!(operation, "CREATE" | "UPDATE") || !subresource.is_empty() {
        return allowed;
    }
    let object = &request["object"];
    if !object.is_object() {
        return Err(Unreadable::field("request.object", object, "the object that is created or updated"));
    }
    if object["apiVersion"] != API_VERSION || is_being_deleted(object) || is_made_by_a_controller(object) {
        return allowed;
    }
    let old = &request["oldObject"];
    if operation == "UPDATE" && old["spec"] == object["spec"] {
        return allowed;
    }
    let found = problems(object);
    if found.is_empty() {
        return allowed;
    }
    let before: BTreeSet<Finding> =
        if operation == "UPDATE" && old.is_object() { problems(old).into_iter().collect() } else { BTreeSet::new() };
    let (known, new): (Vec<Finding>, Vec<Finding>) = found.into_iter().partition(|finding| before.contains(finding));
    if new.is_empty() {
        let warnings: Vec<String> = known.iter().map(|finding| format!("still invalid: {finding}")).collect();
        return Ok(json!({"allowed": true, "warnings": warnings}));
    }
    Ok(refusal(object, request, &new))
}

fn refusal(object: &Value, request: &Value, found: &[Finding]) -> Value {
    let kind = object["kind"].as_str().unwrap_or_default();
    let own = object["metadata"]["name"].as_str().filter(|name| !name.is_empty());
    let name = own.or(request["name"].as_str()).unwrap_or_default();
    let texts: Vec<String> = found.iter().map(Finding::to_string).collect();
    let cause = |finding: &Finding| json!({"field": finding.field, "message": finding.message});
    json!({
        "allowed": false,
        "status": {
            "code": 422,
            "reason": "Invalid",
            "message": format!("The {kind} \"{name}\" is invalid: {}", texts.join("; ")),
            // kubectl shows these, a line each.
            "details": {
                "group": "argoproj.io",
                "kind": kind,
                "name": name,
                "causes": found.iter().map(cause).collect::<Vec<_>>(),
            },
        },
    })
}

fn is_being_deleted(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// Whether the object is a run or an experiment that a controller owns. To refuse it would leave its owner without a
/// verdict; created, it ends in an error that its owner acts upon.
fn is_made_by_a_controller(object: &Value) -> bool {
    let owned = |owner: &Value| owner["controller"] == true;
    let owners = object["metadata"]["ownerReferences"].as_array();
    [AnalysisRun::KIND, Experiment::KIND].iter().any(|kind| object["kind"] == *kind)
        && owners.is_some_and(|owners| owners.iter().any(owned))
}

#[cfg(test)]
mod tests;
