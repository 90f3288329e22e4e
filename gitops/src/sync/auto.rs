//! Whether a difference is synced without being asked.

use super::rejected::Rejection;
use super::retry::AUTOMATED_LIMIT;
use super::{OperationPhase, rejected};
use crate::object::Key;
use jiff::Timestamp;
use std::time::Duration;
use tidegate_crds::application::{
    ApplicationSpec, ApplicationStatus, Operation, OperationInitiator, Retry, Source, SyncOperation,
    SyncOperationResource,
};

/// First delay of self-healing, once it has been tried.
const HEAL_BASE: Duration = Duration::from_secs(2);
const HEAL_FACTOR: u32 = 3;
const HEAL_LONGEST: Duration = Duration::from_secs(300);

/// A resource of the application as it was compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Which object.
    pub key: Key,
    /// It differs from Git, or is missing, or is extra.
    pub out_of_sync: bool,
    /// It is no longer in Git.
    pub requires_pruning: bool,
    /// It is a hook.
    pub is_hook: bool,
}

/// What the decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct AutoState<'a> {
    /// The Application's specification.
    pub spec: &'a ApplicationSpec,
    /// Its status as it is stored: for the last operation.
    pub status: &'a ApplicationStatus,
    /// An operation is asked for or going on.
    pub in_progress: bool,
    /// The Application is being deleted.
    pub deleting: bool,
    /// A window forbids automatic syncs now.
    pub window_closed: bool,
    /// The live objects differ from Git.
    pub out_of_sync: bool,
    /// The commits that were compared, one per source.
    pub revisions: &'a [String],
    /// The sources that were compared.
    pub sources: &'a [Source],
    /// The last operation applied the same content, though perhaps under another commit.
    pub same_content: bool,
    /// What was compared.
    pub resources: &'a [Compared],
    /// What keeps the compared revision from being applied.
    pub rejection: Option<&'a Rejection>,
}

/// The decision.
#[derive(Clone, Debug, PartialEq)]
pub enum AutoSync {
    /// Nothing to do, and why.
    Nothing(&'static str),
    /// Nothing yet: heal after this time.
    Wait(Duration),
    /// Something is wrong: the text becomes a SyncError.
    Refused(String),
    /// Ask for this operation.
    Sync(Box<Operation>),
}

/// Decides.
pub fn decide_auto(state: &AutoState<'_>, now: Timestamp) -> AutoSync {
    let Some(automated) = state.spec.automated() else { return AutoSync::Nothing("sync is manual") };
    if state.in_progress {
        return AutoSync::Nothing("another operation is in progress");
    }
    if state.deleting {
        return AutoSync::Nothing("the application is being deleted");
    }
    if state.window_closed {
        return AutoSync::Nothing("a sync window forbids it");
    }
    if !state.out_of_sync {
        return AutoSync::Nothing("nothing differs");
    }
    let differing: Vec<&Compared> = state.resources.iter().filter(|r| r.out_of_sync && !r.is_hook).collect();
    if !automated.prune && !differing.is_empty() && differing.iter().all(|r| r.requires_pruning) {
        return AutoSync::Nothing("only pruning is left, and pruning is off");
    }
    if state.rejection.is_some() {
        return AutoSync::Nothing("the revision is rejected");
    }
    let mut sync = SyncOperation {
        prune: automated.prune,
        sync_options: state.spec.sync_policy.as_ref().map(|p| p.sync_options.clone()).unwrap_or_default(),
        ..SyncOperation::default()
    };
    if state.spec.sources.is_empty() || state.spec.source_hydrator.is_some() {
        sync.revision = state.revisions.first().cloned();
    } else {
        sync.revisions = state.revisions.to_vec();
    }
    let shown = format!("[{}]", state.revisions.join(" "));
    let last = state.status.operation_state.as_ref();
    if let Some(last) = last.filter(|_| was_attempted(state)) {
        let phase = OperationPhase::parse(&last.phase);
        if phase != Some(OperationPhase::Succeeded) {
            let message = last.message.as_deref().unwrap_or_default();
            return AutoSync::Refused(format!("Failed last sync attempt to {shown}: {message}"));
        }
        if !automated.self_heal {
            return AutoSync::Nothing("the revision is applied already, and self-healing is off");
        }
        let attempts = last.operation.sync.as_ref().and_then(|s| s.auto_heal_attempts_count).unwrap_or(0);
        let due = last.finished_at.as_ref().and_then(|at| at.0.checked_add(heal_delay(attempts)).ok());
        if let Some(wait) = due.map(|due| due.duration_since(now)).filter(|wait| wait.is_positive()) {
            return AutoSync::Wait(wait.unsigned_abs());
        }
        sync.auto_heal_attempts_count = Some(attempts + 1);
        sync.resources = differing
            .iter()
            .map(|r| SyncOperationResource {
                group: Some(r.key.group.clone()),
                kind: r.key.kind.clone(),
                name: r.key.name.clone(),
                namespace: None,
            })
            .collect();
    }
    let parts = state.resources.iter().filter(|r| !r.is_hook);
    if automated.prune
        && !automated.allow_empty
        && parts.clone().count() > 0
        && parts.clone().all(|r| r.requires_pruning)
    {
        return AutoSync::Refused(format!("Skipping sync attempt to {shown}: auto-sync will wipe out all resources"));
    }
    let retry = state.spec.sync_policy.as_ref().and_then(|p| p.retry.clone());
    AutoSync::Sync(Box::new(Operation {
        sync: Some(sync),
        initiated_by: Some(OperationInitiator { username: None, automated: true }),
        info: Vec::new(),
        retry: Some(retry.unwrap_or_else(|| Retry { limit: Some(AUTOMATED_LIMIT), ..Retry::default() })),
    }))
}

/// Whether the last operation already tried what was compared.
fn was_attempted(state: &AutoState<'_>) -> bool {
    let Some(result) = state.status.operation_state.as_ref().and_then(|s| s.sync_result.as_ref()) else { return false };
    let revisions = rejected::synced_revisions(state.status.operation_state.as_ref());
    let sources: Vec<&Source> = match (&result.source, result.sources.is_empty()) {
        (Some(source), true) => vec![source],
        _ => result.sources.iter().collect(),
    };
    (revisions == state.revisions || state.same_content) && sources.into_iter().eq(state.sources)
}

/// How long after the end of the last operation to heal, when this has been tried `attempts` times.
fn heal_delay(attempts: i64) -> Duration {
    match u32::try_from(attempts) {
        Ok(0) | Err(_) => Duration::ZERO,
        Ok(attempts) => {
            let factor = HEAL_FACTOR.checked_pow(attempts - 1).unwrap_or(u32::MAX);
            HEAL_BASE.checked_mul(factor).unwrap_or(HEAL_LONGEST).min(HEAL_LONGEST)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    struct Case {
        spec: Value,
        status: Value,
        revision: &'static str,
        resources: Vec<Compared>,
        change: fn(&mut AutoState<'_>),
    }

    fn part(name: &str, out_of_sync: bool, requires_pruning: bool) -> Compared {
        Compared { key: Key::new("apps", "Deployment", "ns", name), out_of_sync, requires_pruning, is_hook: false }
    }

    impl Case {
        fn new(automated: Value) -> Self {
            Self {
                spec: json!({"source": {"repoURL": "r"}, "syncPolicy": {"automated": automated, "syncOptions": ["CreateNamespace=true"]}}),
                status: json!({}),
                revision: "abc",
                resources: vec![part("a", true, false), part("b", false, false)],
                change: |_| {},
            }
        }

        fn synced(mut self, phase: &str, attempts: i64) -> Self {
            self.status = json!({"operationState": {
                "phase": phase, "message": "boom", "finishedAt": "2026-01-01T10:00:00Z",
                "operation": {"sync": {"autoHealAttemptsCount": attempts}},
                "syncResult": {"revision": "abc", "source": {"repoURL": "r"}},
            }});
            self
        }

        fn decide(&self) -> AutoSync {
            let spec: ApplicationSpec = serde_json::from_value(self.spec.clone()).expect("spec");
            let status: ApplicationStatus = serde_json::from_value(self.status.clone()).expect("status");
            let revisions = [self.revision.to_owned()];
            let sources = spec.sources();
            let mut state = AutoState {
                spec: &spec,
                status: &status,
                in_progress: false,
                deleting: false,
                window_closed: false,
                out_of_sync: true,
                revisions: &revisions,
                sources: &sources,
                same_content: false,
                resources: &self.resources,
                rejection: None,
            };
            (self.change)(&mut state);
            decide_auto(&state, "2026-01-01T10:00:01Z".parse().expect("time"))
        }

        fn operation(&self) -> Operation {
            match self.decide() {
                AutoSync::Sync(operation) => *operation,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_difference_is_synced() {
        let operation = Case::new(json!({"prune": true})).operation();
        assert_eq!(
            serde_json::to_value(operation).expect("json"),
            json!({
                "sync": {"revision": "abc", "prune": true, "syncOptions": ["CreateNamespace=true"]},
                "initiatedBy": {"automated": true}, "retry": {"limit": 5},
            })
        );
    }

    #[test]
    fn several_reasons_to_do_nothing() {
        static REJECTION: Rejection = Rejection {
            revisions: Vec::new(),
            tree: String::new(),
            rollout: String::new(),
            message: String::new(),
            time: None,
            aborted_at: String::new(),
            accepted: false,
        };
        let reason = |change: fn(&mut AutoState<'_>)| {
            let mut case = Case::new(json!({"selfHeal": true}));
            case.change = change;
            match case.decide() {
                AutoSync::Nothing(reason) => reason,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(reason(|s| s.in_progress = true), "another operation is in progress");
        assert_eq!(reason(|s| s.deleting = true), "the application is being deleted");
        assert_eq!(reason(|s| s.window_closed = true), "a sync window forbids it");
        assert_eq!(reason(|s| s.out_of_sync = false), "nothing differs");
        assert_eq!(reason(|s| s.rejection = Some(&REJECTION)), "the revision is rejected");
        assert_eq!(Case::new(json!({"enabled": false})).decide(), AutoSync::Nothing("sync is manual"));
        let mut pruning = Case::new(json!({}));
        pruning.resources = vec![part("a", true, true), part("b", false, false)];
        assert_eq!(pruning.decide(), AutoSync::Nothing("only pruning is left, and pruning is off"));
    }

    #[test]
    fn an_attempt_is_not_repeated() {
        for phase in ["Failed", "Error"] {
            let refused = Case::new(json!({"selfHeal": true})).synced(phase, 0).decide();
            assert_eq!(refused, AutoSync::Refused("Failed last sync attempt to [abc]: boom".into()));
        }
        let done = Case::new(json!({})).synced("Succeeded", 0).decide();
        assert_eq!(done, AutoSync::Nothing("the revision is applied already, and self-healing is off"));
        let mut newer = Case::new(json!({})).synced("Failed", 0);
        newer.revision = "def";
        assert_eq!(newer.operation().sync.and_then(|s| s.revision).as_deref(), Some("def"));
        newer.change = |s| s.same_content = true;
        assert_eq!(newer.decide(), AutoSync::Refused("Failed last sync attempt to [def]: boom".into()));
        let mut moved = Case::new(json!({})).synced("Succeeded", 0);
        moved.spec["source"]["path"] = "elsewhere".into();
        assert!(matches!(moved.decide(), AutoSync::Sync(_)));
    }

    #[test]
    fn drift_is_healed_with_growing_delays() {
        let sync = Case::new(json!({"selfHeal": true})).synced("Succeeded", 0).operation().sync.expect("sync");
        assert_eq!(sync.auto_heal_attempts_count, Some(1));
        let names: Vec<_> = sync.resources.iter().map(|r| (r.kind.as_str(), r.name.as_str())).collect();
        assert_eq!(names, [("Deployment", "a")]);
        let later = Case::new(json!({"selfHeal": true})).synced("Succeeded", 1).decide();
        assert_eq!(later, AutoSync::Wait(Duration::from_secs(1)));
        let delays: Vec<u64> = (0..8).map(|n| heal_delay(n).as_secs()).collect();
        assert_eq!(delays, [0, 2, 6, 18, 54, 162, 300, 300]);
    }

    #[test]
    fn everything_is_not_wiped_out_by_accident() {
        let mut case = Case::new(json!({"prune": true}));
        case.resources = vec![part("a", true, true)];
        assert_eq!(
            case.decide(),
            AutoSync::Refused("Skipping sync attempt to [abc]: auto-sync will wipe out all resources".into())
        );
        case.spec["syncPolicy"]["automated"]["allowEmpty"] = true.into();
        assert!(matches!(case.decide(), AutoSync::Sync(_)));
    }
}
