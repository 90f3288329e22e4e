//! What is written to an Application, and only when it changed.

use super::assess::{Assessment, health_status};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use tidegate_crds::application::{ApplicationCondition, ApplicationStatus, HealthStatus, ResourceStatus, SyncStatus};
use tidegate_crds::patch::merge_diff;
use tidegate_gitops::health::{Health, Status};

/// Conditions for what is wrong now. What was said before keeps its time.
pub(super) fn conditions(
    before: &[ApplicationCondition],
    now_wrong: &[(&'static str, String)],
    now: Timestamp,
) -> Vec<ApplicationCondition> {
    let mut conditions: Vec<ApplicationCondition> = now_wrong
        .iter()
        .map(|(type_, message)| {
            let said = before.iter().find(|c| c.type_ == *type_ && c.message == *message);
            let time = said.and_then(|c| c.last_transition_time.clone());
            ApplicationCondition {
                type_: (*type_).to_owned(),
                message: message.clone(),
                last_transition_time: Some(time.unwrap_or_else(|| super::operation::time(now))),
            }
        })
        .collect();
    conditions.sort_by(|a, b| (&a.type_, &a.message).cmp(&(&b.type_, &b.message)));
    conditions.dedup_by(|a, b| a.type_ == b.type_ && a.message == b.message);
    conditions
}

/// Health as it is stored; the time is that of the last change of the status.
pub(super) fn health(before: Option<&HealthStatus>, health: &Health, now: Timestamp) -> HealthStatus {
    let mut next = health_status(health);
    let same = before.filter(|b| b.status == next.status).and_then(|b| b.last_transition_time.clone());
    next.last_transition_time = Some(same.unwrap_or_else(|| super::operation::time(now)));
    next
}

/// The resources of an assessment, with the times of their health.
pub(super) fn resources(before: &[ResourceStatus], assessment: &Assessment) -> Vec<ResourceStatus> {
    let mut next = assessment.resources.clone();
    for resource in &mut next {
        let same = |b: &&ResourceStatus| {
            b.group == resource.group
                && b.kind == resource.kind
                && b.namespace == resource.namespace
                && b.name == resource.name
        };
        let old = before.iter().find(same).and_then(|b| b.health.as_ref());
        if let (Some(health), Some(old)) = (&mut resource.health, old)
            && health.status == old.status
        {
            health.last_transition_time.clone_from(&old.last_transition_time);
        }
    }
    next
}

/// The health of an Application whose state is not known.
pub(super) fn unknown() -> Health {
    Health { status: Status::Unknown, message: String::new() }
}

/// The merge patch from one status to the next, or `None` when nothing but the time of the comparison changed and nobody
/// asked for it.
pub(super) fn patch(
    before: &ApplicationStatus,
    next: &mut ApplicationStatus,
    asked: bool,
    now: Timestamp,
) -> Option<Value> {
    next.reconciled_at.clone_from(&before.reconciled_at);
    let encode = |status: &ApplicationStatus| serde_json::to_value(status).unwrap_or_else(|_| json!({}));
    let old = encode(before);
    if !asked && merge_diff(&old, &encode(next)).is_none() {
        return None;
    }
    next.reconciled_at = Some(super::operation::time(now));
    merge_diff(&old, &encode(next))
}

/// The revision fields of a status.
pub(super) fn revisions(sync: &mut SyncStatus, several: bool, revisions: &[String]) {
    sync.revision = if several { None } else { revisions.first().cloned() };
    sync.revisions = if several { revisions.to_vec() } else { Vec::new() };
}

/// A time that is stored.
pub(super) fn at(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|t| t.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T10:00:00Z".parse().expect("time")
    }

    fn later() -> Timestamp {
        "2026-01-01T11:00:00Z".parse().expect("time")
    }

    #[test]
    fn a_status_is_written_only_when_it_changed() {
        let before = ApplicationStatus { source_type: Some("Helm".into()), ..ApplicationStatus::default() };
        let mut same = before.clone();
        assert_eq!(patch(&before, &mut same, false, now()), None);
        let asked = patch(&before, &mut same, true, now());
        assert_eq!(asked, Some(json!({"reconciledAt": "2026-01-01T10:00:00Z"})));
        let mut other = before.clone();
        other.source_type = Some("Directory".into());
        let patch = patch(&before, &mut other, false, now());
        assert_eq!(patch, Some(json!({"reconciledAt": "2026-01-01T10:00:00Z", "sourceType": "Directory"})));
    }

    #[test]
    fn what_was_said_before_keeps_its_time() {
        let first = conditions(&[], &[("SyncError", "boom".into()), ("ComparisonError", "x".into())], now());
        let types: Vec<_> = first.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(types, ["ComparisonError", "SyncError"]);
        let second = conditions(&first, &[("SyncError", "boom".into()), ("ComparisonError", "y".into())], later());
        assert_eq!(second[0].last_transition_time, Some(Time(later())));
        assert_eq!(second[1].last_transition_time, Some(Time(now())));
        let bad = Health { status: Status::Degraded, message: "a".into() };
        let one = health(None, &bad, now());
        let two = health(Some(&one), &Health { message: "b".into(), ..bad }, later());
        assert_eq!((two.message.as_deref(), two.last_transition_time), (Some("b"), Some(Time(now()))));
        let three = health(Some(&one), &unknown(), later());
        assert_eq!(three.last_transition_time, Some(Time(later())));
    }
}
