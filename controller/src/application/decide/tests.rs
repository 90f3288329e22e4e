use super::*;
use crate::application::snapshot::{Destination, Undesired};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_crds::application::Application;
use tidegate_gitops::health;
use tidegate_gitops::normalize::CompareOptions;
use tidegate_gitops::object::Key;
use tidegate_gitops::sync::plan::Live;
use tidegate_gitops::sync::rejected::Content;
use tidegate_gitops::tracking::Tracking;

fn now() -> Timestamp {
    "2026-01-01T10:00:00Z".parse().expect("time")
}

fn map(name: &str, value: &str) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}, "data": {"a": value}});
    Tracking::default().mark(&mut object, "web", "ns");
    object
}

fn rollout(status: Value) -> Value {
    let mut object = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "r", "namespace": "ns"}, "spec": {}});
    Tracking::default().mark(&mut object, "web", "ns");
    if !status.is_null() {
        object["status"] = status;
    }
    object
}

fn snapshot(automated: Value, targets: &[Value], live: &[Value]) -> Snapshot {
    let app = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "web", "namespace": "argocd"},
        "spec": {"source": {"repoURL": "https://git/r"}, "destination": {"name": "in-cluster", "namespace": "ns"},
            "syncPolicy": {"automated": automated}},
    });
    let app = Application::decode(app).expect("application").0;
    let objects = || targets.iter().chain(live);
    Snapshot {
        instance: "web".into(),
        project: Ok(project::permissive()),
        destination: Ok(Destination { server: "https://k".into(), name: "in-cluster".into(), namespace: "ns".into() }),
        desired: Ok(Desired {
            content: Content { revisions: vec!["abc".into()], tree: "tree".into() },
            sources: app.spec.sources().into_owned(),
            source_types: vec!["Directory".into()],
            targets: targets.to_vec(),
            repeated: Vec::new(),
        }),
        app,
        live: live
            .iter()
            .map(|o| (Key::of(o), Live { object: o.clone(), health: health::of(o) }))
            .collect::<BTreeMap<_, _>>(),
        namespaced: objects().map(Key::of).collect(),
        unknown_kinds: BTreeSet::new(),
        unlisted: Vec::new(),
        tracking: Tracking::default(),
        compare: CompareOptions::default(),
        synced: None,
        last_wave_at: None,
    }
}

fn synced(snapshot: &mut Snapshot, phase: &str) {
    let state = json!({"phase": phase, "message": "m", "finishedAt": "2026-01-01T09:00:00Z", "operation": {"sync": {}},
        "syncResult": {"revision": "abc", "source": {"repoURL": "https://git/r"}}});
    snapshot.app.status.operation_state = Some(serde_json::from_value(state).expect("state"));
}

fn words(decision: &Decision) -> (String, String) {
    let sync = decision.status.sync.as_ref().map(|s| s.status.clone()).unwrap_or_default();
    (sync, decision.status.health.as_ref().and_then(|h| h.status.clone()).unwrap_or_default())
}

fn conditions(decision: &Decision) -> Vec<&str> {
    decision.status.conditions.iter().map(|c| c.type_.as_str()).collect()
}

#[test]
fn what_is_missing_is_synced() {
    let decision = decide(&snapshot(json!({}), &[map("a", "1")], &[]), now());
    assert_eq!(words(&decision), ("OutOfSync".into(), "Missing".into()));
    let operation = decision.operation.expect("operation");
    assert_eq!(operation.sync.and_then(|s| s.revision).as_deref(), Some("abc"));
    let events: Vec<_> = decision.events.iter().map(|e| e.message.as_str()).collect();
    assert_eq!(
        events,
        [
            "Updated sync status:  -> OutOfSync",
            "Updated health status:  -> Missing",
            "Initiated automated sync to 'abc'"
        ]
    );
}

#[test]
fn what_is_there_needs_nothing() {
    let decision = decide(&snapshot(json!({}), &[map("a", "1")], &[map("a", "1")]), now());
    assert_eq!(words(&decision), ("Synced".into(), "Healthy".into()));
    assert_eq!((decision.operation, decision.reason.as_str()), (None, "nothing differs"));
    assert_eq!(decision.status.sync.and_then(|s| s.revision).as_deref(), Some("abc"));
    assert_eq!(decision.status.source_type.as_deref(), Some("Directory"));
}

#[test]
fn what_is_left_over_requires_pruning() {
    let decision = decide(&snapshot(json!({}), &[map("a", "1")], &[map("a", "1"), map("old", "1")]), now());
    assert_eq!(decision.reason, "only pruning is left, and pruning is off");
    let resources: Vec<_> =
        decision.status.resources.iter().map(|r| (r.name.clone().unwrap_or_default(), r.requires_pruning)).collect();
    assert_eq!(resources, [("a".to_owned(), false), ("old".to_owned(), true)]);
    let pruning = decide(&snapshot(json!({"prune": true}), &[map("a", "1")], &[map("a", "1"), map("old", "1")]), now());
    assert!(pruning.operation.is_some());
    let wiped = decide(&snapshot(json!({"prune": true}), &[], &[map("old", "1")]), now());
    assert_eq!((wiped.operation.is_none(), conditions(&wiped)), (true, vec!["SyncError"]));
}

#[test]
fn what_another_object_owns_is_never_pruned() {
    let mut child = map("child", "1");
    child["metadata"]["ownerReferences"] = json!([{"kind": "Deployment", "name": "d", "uid": "u"}]);
    let decision = decide(&snapshot(json!({"prune": true}), &[map("a", "1")], &[map("a", "1"), child]), now());
    assert_eq!((words(&decision).0.as_str(), decision.status.resources.len()), ("Synced", 1));
}

#[test]
fn drift_is_healed_only_when_asked() {
    let drifted = |automated: Value| {
        let mut snapshot = snapshot(automated, &[map("a", "1")], &[map("a", "2")]);
        synced(&mut snapshot, "Succeeded");
        decide(&snapshot, now())
    };
    assert_eq!(drifted(json!({})).reason, "the revision is applied already, and self-healing is off");
    let healed = drifted(json!({"selfHeal": true})).operation.and_then(|o| o.sync).expect("sync");
    assert_eq!(healed.resources.len(), 1);
}

#[test]
fn a_commit_elsewhere_does_not_make_drift_a_new_revision() {
    let mut snapshot = snapshot(json!({"selfHeal": true}), &[map("a", "1")], &[map("a", "2")]);
    synced(&mut snapshot, "Succeeded");
    if let Ok(desired) = &mut snapshot.desired {
        desired.content.revisions = vec!["def".into()];
    }
    let whole = decide(&snapshot, now()).operation.and_then(|o| o.sync).expect("sync");
    assert!(whole.resources.is_empty());
    snapshot.synced = Some(Content { revisions: vec!["abc".into()], tree: "tree".into() });
    let healed = decide(&snapshot, now()).operation.and_then(|o| o.sync).expect("sync");
    assert_eq!(healed.resources.len(), 1);
}

#[test]
fn a_rejected_revision_is_not_applied_again() {
    let aborted = json!({"abort": true, "abortedAt": "2026-01-01T09:30:00Z", "phase": "Degraded", "message": "RolloutAborted: bad"});
    let targets = [map("a", "1"), rollout(json!(null))];
    let mut seen = snapshot(json!({"selfHeal": true}), &targets, &[map("a", "1"), rollout(aborted.clone())]);
    synced(&mut seen, "Succeeded");
    let first = decide(&seen, now());
    assert_eq!(words(&first), ("Synced".into(), "Degraded".into()));
    assert_eq!(conditions(&first), [rejected::CONDITION]);
    assert_eq!(first.rejections.len(), 1);

    let annotation = rejected::write(&first.rejections).expect("annotation");
    let remembered = |mut snapshot: Snapshot| {
        snapshot.app.metadata.annotations = Some(BTreeMap::from([(rejected::REJECTED.to_owned(), annotation.clone())]));
        synced(&mut snapshot, "Succeeded");
        snapshot
    };
    let drifted = remembered(snapshot(json!({"selfHeal": true}), &targets, &[map("a", "2"), rollout(aborted.clone())]));
    let held = decide(&drifted, now());
    assert_eq!((held.operation, held.reason.as_str()), (None, "the revision is rejected"));

    let mut fixed = remembered(snapshot(json!({}), &[map("a", "3")], &[map("a", "1"), rollout(aborted)]));
    if let Ok(desired) = &mut fixed.desired {
        desired.content = Content { revisions: vec!["def".into()], tree: "other".into() };
    }
    let cleared = decide(&fixed, now());
    assert!(cleared.operation.is_some());
    assert_eq!((cleared.rejections, cleared.status.conditions), (vec![], vec![]));
}

#[test]
fn what_cannot_be_compared_is_unknown_and_told() {
    let mut broken = snapshot(json!({}), &[], &[]);
    broken.desired = Err(Undesired { message: "no such path".into(), invalid_spec: false });
    let told = decide(&broken, now());
    assert_eq!((words(&told).0.as_str(), conditions(&told)), ("Unknown", vec!["ComparisonError"]));
    assert!(told.status.sync.and_then(|s| s.compared_to).is_some(), "or it would be compared for ever");

    let mut denied = snapshot(json!({}), &[map("a", "1")], &[]);
    denied.project = Ok(Default::default());
    let told = decide(&denied, now());
    assert_eq!(words(&told), ("Unknown".into(), "Unknown".into()));
    assert_eq!(conditions(&told), ["InvalidSpecError", "InvalidSpecError"]);

    let mut unlisted = snapshot(json!({}), &[map("a", "1")], &[]);
    unlisted.unlisted = vec!["cannot list configmaps (v1): forbidden".into()];
    let told = decide(&unlisted, now());
    assert_eq!((told.operation.is_none(), words(&told).0.as_str()), (true, "Unknown"));
}

#[test]
fn another_applications_object_is_told() {
    let mut theirs = map("a", "1");
    Tracking::default().mark(&mut theirs, "other", "ns");
    let decision = decide(&snapshot(json!({"enabled": false}), &[map("a", "1")], &[theirs]), now());
    assert_eq!(conditions(&decision), ["SharedResourceWarning"]);
    assert!(decision.status.conditions[0].message.contains("web and other"));
}

#[test]
fn hooks_of_the_deletion_get_their_finalizers() {
    let hook = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "ns",
        "annotations": {"argocd.argoproj.io/hook": "PostDelete"}}});
    let decision = decide(&snapshot(json!({}), &[hook], &[]), now());
    assert_eq!(
        decision.finalizers,
        ["post-delete-finalizer.argocd.argoproj.io", "post-delete-finalizer.argocd.argoproj.io/cleanup"]
    );
    assert!(decision.status.resources.is_empty(), "a hook is no resource");
}

#[test]
fn a_window_holds_automatic_syncs_back() {
    let mut snapshot = snapshot(json!({}), &[map("a", "1")], &[]);
    if let Ok(project) = &mut snapshot.project {
        let window = json!({"kind": "deny", "schedule": "0 10 * * *", "duration": "1h", "applications": ["*"]});
        project.sync_windows = vec![serde_json::from_value(window).expect("window")];
    }
    let decision = decide(&snapshot, now());
    assert_eq!((decision.operation, decision.after), (None, Some(Duration::from_secs(3600))));
}
