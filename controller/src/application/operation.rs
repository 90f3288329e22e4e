//! The life of an operation: asked for, begun, tried again, ended. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;
use tidegate_crds::application::{
    Application, ApplicationSpec, Operation, OperationState, RevisionHistory, Source, SyncResult,
};
use tidegate_gitops::sync::OperationPhase;
use tidegate_gitops::sync::retry::{self, AfterAttempt};

/// Where an Application's operation stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Nothing is asked for.
    Idle,
    /// One was asked for, or its next attempt is due: this state is stored before anything is written.
    Begin(Box<OperationState>),
    /// The next attempt is due after this time.
    Wait(Duration),
    /// It is under way.
    Run(Box<OperationState>),
}

/// Decides where the operation stands.
pub fn stage(app: &Application, now: Timestamp) -> Stage {
    let state = app.status.operation_state.as_ref();
    let phase = state.and_then(|s| OperationPhase::parse(&s.phase));
    let is_active = phase.is_some_and(|phase| !phase.is_completed());
    match (&app.operation, state) {
        (_, Some(state)) if is_active => {
            if phase == Some(OperationPhase::Running)
                && let Some(due) = retry::next_attempt(state)
            {
                let wait = due.duration_since(now);
                if wait.is_positive() {
                    return Stage::Wait(wait.unsigned_abs());
                }
                return Stage::Begin(Box::new(next_attempt(state)));
            }
            Stage::Run(Box::new(state.clone()))
        }
        (Some(operation), _) if operation.sync.is_some() => Stage::Begin(Box::new(first_attempt(operation, now))),
        _ => Stage::Idle,
    }
}

/// The state that an operation begins with.
pub fn first_attempt(operation: &Operation, now: Timestamp) -> OperationState {
    OperationState {
        operation: operation.clone(),
        phase: OperationPhase::Running.as_str().to_owned(),
        started_at: Some(time(now)),
        ..OperationState::default()
    }
}

/// A time as objects carry it: whole seconds.
pub fn time(now: Timestamp) -> Time {
    Time(crate::api::whole_seconds(now))
}

/// The state that the next attempt begins with: pinned to the revision of the first, unless it shall look again.
fn next_attempt(state: &OperationState) -> OperationState {
    let count = state.retry_count.unwrap_or(0);
    let retry = state.operation.retry.as_ref();
    let mut next = OperationState {
        message: Some(retry::attempt_message(retry, count)),
        finished_at: None,
        sync_result: None,
        ..state.clone()
    };
    if let (Some(sync), Some(result)) = (&mut next.operation.sync, &state.sync_result) {
        if retry.is_some_and(|r| r.refresh) {
            sync.revision = None;
            sync.revisions.clear();
        } else if sync.revision.is_none() && sync.revisions.is_empty() {
            sync.revision = Some(result.revision.clone()).filter(|r| !r.is_empty());
            sync.revisions.clone_from(&result.revisions);
        }
    }
    next
}

/// The sources of an operation: its own, else the Application's.
pub fn sources(spec: &ApplicationSpec, operation: &Operation) -> Vec<Source> {
    let sync = operation.sync.clone().unwrap_or_default();
    if !sync.sources.is_empty() {
        return sync.sources;
    }
    match sync.source {
        Some(source) => vec![source],
        None => spec.sources().into_owned(),
    }
}

/// The revisions that an operation is pinned to, by source; empty when the latest are meant.
pub fn pinned(state: &OperationState) -> Vec<String> {
    let one = |revision: Option<&String>| revision.filter(|r| !r.is_empty()).map(|r| vec![r.clone()]);
    let result = state.sync_result.as_ref();
    if let Some(result) = result {
        if !result.revisions.is_empty() {
            return result.revisions.clone();
        }
        if let Some(pinned) = one(Some(&result.revision)) {
            return pinned;
        }
    }
    let Some(sync) = &state.operation.sync else { return Vec::new() };
    if sync.revisions.is_empty() { one(sync.revision.as_ref()).unwrap_or_default() } else { sync.revisions.clone() }
}

/// The options in force: the operation's, else the Application's.
pub fn sync_options(spec: &ApplicationSpec, operation: Option<&Operation>) -> Vec<String> {
    let own = operation.and_then(|o| o.sync.as_ref()).map(|s| s.sync_options.clone()).unwrap_or_default();
    if own.is_empty() { spec.sync_policy.as_ref().map(|p| p.sync_options.clone()).unwrap_or_default() } else { own }
}

/// The result of a sync that begins.
pub fn begun(several: bool, sources: &[Source], revisions: &[String], spec: &ApplicationSpec) -> SyncResult {
    SyncResult {
        revision: if several { String::new() } else { revisions.first().cloned().unwrap_or_default() },
        revisions: if several { revisions.to_vec() } else { Vec::new() },
        source: if several { None } else { sources.first().cloned() },
        sources: if several { sources.to_vec() } else { Vec::new() },
        managed_namespace_metadata: spec.sync_policy.as_ref().and_then(|p| p.managed_namespace_metadata.clone()),
        ..SyncResult::default()
    }
}

/// What became of an operation after a pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The state to store.
    pub state: OperationState,
    /// It has ended: `.operation` is removed.
    pub ended: bool,
}

/// Takes in that a pass ended in `phase` with `message`.
pub fn advance(
    mut state: OperationState,
    phase: OperationPhase,
    message: &str,
    superseded_by: Option<&str>,
    now: Timestamp,
) -> Progress {
    if !phase.is_completed() {
        // A state that is Terminating stays so until it has ended.
        state.message = Some(message.to_owned());
        return Progress { state, ended: false };
    }
    let terminating = state.phase == OperationPhase::Terminating.as_str();
    match retry::after_attempt(&state, phase, message, terminating, superseded_by, now) {
        AfterAttempt::Ended(phase, message) => {
            state.phase = phase.as_str().to_owned();
            state.message = Some(message);
            state.finished_at = Some(time(now));
            Progress { state, ended: true }
        }
        AfterAttempt::Retry { message } => {
            state.retry_count = Some(state.retry_count.unwrap_or(0) + 1);
            state.message = Some(message);
            state.finished_at = Some(time(now));
            Progress { state, ended: false }
        }
    }
}

/// The history after an operation: one more entry when it deployed everything, the oldest gone.
pub fn history(app: &Application, state: &OperationState) -> Vec<RevisionHistory> {
    let mut history = app.status.history.clone();
    let sync = state.operation.sync.clone().unwrap_or_default();
    let succeeded = state.phase == OperationPhase::Succeeded.as_str();
    let Some(result) = state.sync_result.as_ref().filter(|_| succeeded && !sync.dry_run && sync.resources.is_empty())
    else {
        return history;
    };
    let id = history.last().map_or(0, |last| last.id + 1);
    history.push(RevisionHistory {
        id,
        revision: Some(result.revision.clone()).filter(|r| !r.is_empty()),
        revisions: result.revisions.clone(),
        source: result.source.clone(),
        sources: result.sources.clone(),
        deployed_at: state.finished_at.clone(),
        deploy_started_at: state.started_at.clone(),
        initiated_by: state.operation.initiated_by.clone(),
    });
    let limit = app.spec.revision_history_limit();
    let surplus = history.len().saturating_sub(limit);
    history.drain(..surplus);
    history
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-01-01T10:00:00Z".parse().expect("time")
    }

    fn app(extra: Value) -> Application {
        let mut value = json!({"metadata": {"name": "a"}, "spec": {"source": {"repoURL": "r"}}});
        tidegate_crds::patch::merge_apply(&mut value, &extra);
        Application::decode(value).expect("application").0
    }

    #[test]
    fn an_operation_begins_runs_and_is_tried_again() {
        assert_eq!(stage(&app(json!({})), now()), Stage::Idle);
        let Stage::Begin(begun) = stage(&app(json!({"operation": {"sync": {"revision": "abc"}}})), now()) else {
            panic!()
        };
        assert_eq!((begun.phase.as_str(), pinned(&begun)), ("Running", vec!["abc".to_owned()]));
        let done = json!({"status": {"operationState": {"phase": "Succeeded", "operation": {"sync": {}}}}});
        assert_eq!(stage(&app(done), now()), Stage::Idle);
        let retrying = |finished: &str, refresh: bool| {
            json!({"operation": {"sync": {}}, "status": {"operationState": {
                "phase": "Running", "retryCount": 1, "finishedAt": finished,
                "operation": {"sync": {}, "retry": {"limit": 3, "refresh": refresh}},
                "syncResult": {"revision": "abc"},
            }}})
        };
        assert_eq!(stage(&app(retrying("2026-01-01T09:59:58Z", false)), now()), Stage::Wait(Duration::from_secs(3)));
        let Stage::Begin(next) = stage(&app(retrying("2026-01-01T09:59:00Z", false)), now()) else { panic!() };
        assert_eq!(next.message.as_deref(), Some("Retrying operation. Attempt #1"));
        assert_eq!(
            (next.sync_result.as_ref(), next.finished_at.as_ref(), pinned(&next)),
            (None, None, vec!["abc".to_owned()])
        );
        let Stage::Begin(next) = stage(&app(retrying("2026-01-01T09:59:00Z", true)), now()) else { panic!() };
        assert!(pinned(&next).is_empty());
        let running = json!({"status": {"operationState": {"phase": "Terminating", "operation": {"sync": {}}}}});
        assert!(matches!(stage(&app(running), now()), Stage::Run(_)));
    }

    #[test]
    fn an_operation_ends_once() {
        let state: OperationState =
            serde_json::from_value(json!({"phase": "Running", "operation": {"sync": {}, "retry": {"limit": 1}}}))
                .expect("state");
        let running = advance(state.clone(), OperationPhase::Running, "waiting", None, now());
        assert_eq!((running.ended, running.state.message.as_deref()), (false, Some("waiting")));
        let retried = advance(state, OperationPhase::Failed, "boom", None, now());
        assert_eq!(
            (retried.ended, retried.state.retry_count, retried.state.phase.as_str()),
            (false, Some(1), "Running")
        );
        let ended = advance(retried.state, OperationPhase::Failed, "boom", None, now());
        assert_eq!((ended.ended, ended.state.phase.as_str()), (true, "Failed"));
        assert_eq!(ended.state.message.as_deref(), Some("boom (retried 1 times)."));
    }

    #[test]
    fn only_whole_deployments_make_history() {
        let state = |sync: Value, phase: &str| -> OperationState {
            serde_json::from_value(
                json!({"phase": phase, "operation": {"sync": sync}, "syncResult": {"revision": "abc"}}),
            )
            .expect("state")
        };
        let app = app(json!({"spec": {"revisionHistoryLimit": 2}, "status": {"history": [{"id": 6}, {"id": 7}]}}));
        let ids =
            |sync: Value, phase: &str| history(&app, &state(sync, phase)).iter().map(|h| h.id).collect::<Vec<_>>();
        assert_eq!(ids(json!({}), "Succeeded"), [7, 8]);
        assert_eq!(ids(json!({}), "Failed"), [6, 7]);
        assert_eq!(ids(json!({"dryRun": true}), "Succeeded"), [6, 7]);
        assert_eq!(ids(json!({"resources": [{"kind": "X", "name": "x"}]}), "Succeeded"), [6, 7]);
    }

    #[test]
    fn options_of_the_operation_win() {
        let spec = app(json!({"spec": {"syncPolicy": {"syncOptions": ["A=1"]}}})).spec;
        let operation: Operation =
            serde_json::from_value(json!({"sync": {"syncOptions": ["B=1"]}})).expect("operation");
        assert_eq!(sync_options(&spec, None), ["A=1"]);
        assert_eq!(sync_options(&spec, Some(&operation)), ["B=1"]);
        assert_eq!(sync_options(&spec, Some(&Operation::default())), ["A=1"]);
    }
}
