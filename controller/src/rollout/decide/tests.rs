//! Snapshots and the decisions about them. What holds over whole updates, whatever happens, is in the fault simulator.

mod reach;
mod verdicts;

use super::*;
use crate::rollout::decision::ReplicaSetChange;
use crate::rollout::snapshot::{Pod, ReplicaSet, Service};
use serde_json::{Value, json};
use tidegate_crds::keys;
use tidegate_crds::rollout::Rollout;
use tidegate_traffic::ObjectRef;

const PODS: i32 = 4;

fn now() -> Timestamp {
    "2026-01-01T10:00:00Z".parse().unwrap()
}

fn template(version: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": format!("web:{version}")}]},
    })
}

/// A Rollout whose template is that of `version`; revision and generation follow from it.
fn rollout(strategy: &Value, version: &str, status: Value) -> Rollout {
    let number: i64 = version.trim_start_matches('v').parse().unwrap();
    let object = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "generation": number, "resourceVersion": "7",
            "annotations": {keys::REVISION: number.to_string()}},
        "spec": {"replicas": PODS, "selector": {"matchLabels": {"app": "web"}}, "template": template(version),
            "strategy": strategy},
        "status": status,
    });
    Rollout::decode(object).unwrap().0
}

fn replica_set(version: &str, pods: i32, available: i32) -> ReplicaSet {
    let object = json!({
        "metadata": {"name": format!("web-{version}"), "uid": version, "resourceVersion": "3",
            "creationTimestamp": format!("2026-01-01T0{}:00:00Z", version.trim_start_matches('v')),
            "labels": {"app": "web", keys::POD_TEMPLATE_HASH: version},
            "annotations": {keys::REVISION: version.trim_start_matches('v'), keys::DESIRED_REPLICAS: PODS.to_string()},
            "ownerReferences": [{"kind": "Rollout", "name": "web", "uid": "u1", "controller": true}]},
        "spec": {"replicas": pods, "template": template(version)},
        "status": {"replicas": pods, "readyReplicas": available, "availableReplicas": available},
    });
    ReplicaSet::from_value(&object).unwrap()
}

fn service(hash: &str) -> Service {
    Service {
        selector: [("app".to_owned(), "web".to_owned()), (keys::POD_TEMPLATE_HASH.to_owned(), hash.to_owned())].into(),
        managed_by: Some("web".to_owned()),
        ..Service::default()
    }
}

/// Version 1 is out and Healthy, and nothing is going on.
fn healthy(strategy: &Value) -> Snapshot {
    let mut snapshot = Snapshot {
        rollout: rollout(strategy, "v1", json!({})),
        replica_sets: vec![replica_set("v1", PODS, PODS)],
        ..Snapshot::default()
    };
    let named = |part: &str| strategy.pointer(part).and_then(Value::as_str).map(str::to_owned);
    // The analysis template that some name.
    let metric = json!({
        "name": "errors", "successCondition": "result[0] < 1",
        "provider": {"prometheus": {"address": "http://prometheus:9090", "query": "errors"}},
    });
    let check = serde_json::from_value(json!({"metrics": [metric]})).unwrap();
    snapshot.templates.0.insert(("check".to_owned(), false), check);
    for name in ["/canary/stableService", "/canary/canaryService", "/blueGreen/activeService"] {
        snapshot.services.extend(named(name).map(|name| (name, service("v1"))));
    }
    let backend = |name: &str| json!({"name": name, "port": 80});
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"rules": [{"backendRefs": [backend("web-stable"), backend("web-canary")]}]},
    });
    let target = ObjectRef::new("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", "shop", "web");
    snapshot.routing.0.insert(target, route);
    for _ in 0..3 {
        snapshot.rollout.status = decide(&snapshot, now()).status;
    }
    assert_eq!(snapshot.rollout.status.phase.as_deref(), Some("Healthy"));
    snapshot
}

/// Version 2 was applied, and its ReplicaSet has this many pods.
fn updating(strategy: &Value, stable: i32, pods: i32, available: i32) -> Snapshot {
    let mut snapshot = healthy(strategy);
    let status = serde_json::to_value(&snapshot.rollout.status).unwrap();
    snapshot.rollout = rollout(strategy, "v2", status);
    snapshot.replica_sets = vec![replica_set("v1", stable, stable), replica_set("v2", pods, available)];
    snapshot.rollout.status = decide(&snapshot, now()).status;
    snapshot
}

/// What a decision does, tells and says, in words.
fn words(decision: &Decision) -> Vec<String> {
    let change = |name: &str, change: &ReplicaSetChange| {
        let mut parts = vec![format!("patch {name}")];
        parts.extend(change.replicas.map(|pods| format!("to {pods}")));
        for (key, value) in &change.annotations {
            let key = key.rsplit('/').next().unwrap_or_default();
            parts.push(if value.is_some() { format!("+{key}") } else { format!("-{key}") });
        }
        parts.join(" ")
    };
    let action = |action: &Action| match action {
        Action::AnnotateRollout { .. } => "annotate".to_owned(),
        Action::CreateReplicaSet { object, .. } => format!("create with {}", object["spec"]["replicas"]),
        Action::PatchReplicaSet { name, change: patch } => change(name, patch),
        Action::SelectService { name, hash } => format!("{name} selects {hash}"),
        Action::EvictPod { name } => format!("evict {name}"),
        Action::CreateAnalysisRun { object } => {
            format!("run {}", object["metadata"]["labels"][keys::ROLLOUT_TYPE].as_str().unwrap_or_default())
        }
        other => format!("{other:?}"),
    };
    let mut words: Vec<String> = decision.actions.iter().map(action).collect();
    words.extend(decision.events.iter().map(|event| format!("tell {}", event.reason)));
    let status = &decision.status;
    words.push(format!(
        "{}{}",
        status.phase.as_deref().unwrap_or_default(),
        status.current_step_index.map(|index| format!(" at {index}")).unwrap_or_default()
    ));
    words
}

fn canary(more: Value) -> Value {
    let mut strategy = json!({"canary": {"maxSurge": 1, "maxUnavailable": 0}});
    tidegate_crds::patch::merge_apply(&mut strategy["canary"], &more);
    strategy
}

#[test]
fn the_first_version_is_stable_from_its_beginning() {
    let first = |strategy: Value| Snapshot {
        services: [("web-active".to_owned(), Service::default())].into(),
        rollout: {
            let mut rollout = rollout(&strategy, "v1", json!({}));
            rollout.metadata.annotations = None;
            rollout
        },
        ..Snapshot::default()
    };
    let snapshot = first(canary(json!({"steps": [{"setWeight": 25}, {"pause": {}}]})));
    let decision = decide(&snapshot, now());
    assert_eq!(
        words(&decision),
        [
            "annotate",
            "create with 4",
            "tell RolloutUpdated",
            "tell NewReplicaSetCreated",
            "tell RolloutNotCompleted",
            "tell ScalingReplicaSet",
            "tell RolloutCompleted",
            "Progressing at 2",
        ]
    );
    assert_eq!(decision.status.stable_rs, decision.status.current_pod_hash);
    let decision = decide(&first(json!({"blueGreen": {"activeService": "web-active"}})), now());
    let told: Vec<&str> = decision.events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(told, ["RolloutUpdated", "NewReplicaSetCreated", "ScalingReplicaSet", "RolloutCompleted"]);
}

#[test]
fn a_basic_canary_goes_by_pods() {
    let strategy = canary(json!({"steps": [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}]}));
    let snapshot = updating(&strategy, 4, 0, 0);
    assert_eq!(
        words(&decide(&snapshot, now())),
        ["patch web-v2 to 1", "tell ScalingReplicaSet", "Progressing at 0"],
        "one pod of four is a quarter"
    );
    let snapshot = updating(&strategy, 4, 1, 0);
    assert_eq!(words(&decide(&snapshot, now())), ["Progressing at 0"], "waits for the pod");
    let snapshot = updating(&strategy, 4, 1, 1);
    assert_eq!(
        words(&decide(&snapshot, now())),
        ["patch web-v1 to 3", "tell ScalingReplicaSet", "Progressing at 0"],
        "the pod is there: one of the stable version may go"
    );
    let mut snapshot = snapshot;
    snapshot.replica_sets[0] = replica_set("v1", 3, 3);
    let decision = decide(&snapshot, now());
    assert_eq!(words(&decision), ["tell RolloutStepCompleted", "tell RolloutPaused", "Paused at 1"]);
    assert_eq!(decision.status.pause_conditions.map(|p| p[0].reason.clone()).as_deref(), Some("CanaryPauseStep"));
}

/// Version 2 pauses at the second of its steps.
fn paused() -> Snapshot {
    let strategy = canary(json!({"steps": [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}]}));
    let mut snapshot = updating(&strategy, 3, 1, 1);
    snapshot.rollout.status = decide(&snapshot, now()).status;
    snapshot
}

#[test]
fn a_pause_ends_when_somebody_takes_its_reason_away() {
    let mut snapshot = paused();
    assert_eq!(words(&decide(&snapshot, now())), ["Paused at 1"], "nothing happens by itself");
    snapshot.rollout.status.pause_conditions = None;
    let decision = decide(&snapshot, now());
    assert_eq!(words(&decision), ["tell RolloutStepCompleted", "tell RolloutResumed", "Progressing at 2"]);
    assert!(!decision.status.controller_pause);
}

#[test]
fn an_abort_goes_back_and_says_so() {
    let mut snapshot = paused();
    snapshot.rollout.status.abort = true;
    let decision = decide(&snapshot, now());
    assert_eq!(
        words(&decision),
        ["patch web-v1 to 4", "tell ScalingReplicaSet", "tell RolloutAborted", "Degraded at 0"],
        "the stable version grows before the canary goes"
    );
    assert_eq!(decision.status.message.as_deref(), Some("RolloutAborted: Rollout aborted update to revision 2"));
    snapshot.rollout.status = decision.status;
    snapshot.replica_sets = vec![replica_set("v1", 4, 4), replica_set("v2", 1, 1)];
    let decision = decide(&snapshot, now());
    assert_eq!(words(&decision), ["patch web-v2 to 0", "tell ScalingReplicaSet", "Degraded at 0"]);
}

#[test]
fn a_version_that_never_came_up_holds_nothing_up() {
    let strategy = canary(json!({"steps": [{"setWeight": 25}, {"pause": {}}]}));
    let mut snapshot = updating(&strategy, 4, 0, 0);
    snapshot.rollout.status.conditions.retain(|condition| condition.type_ != "Healthy");
    snapshot.replica_sets[0].available = 0;
    let decision = decide(&snapshot, now());
    assert_eq!(words(&decision), ["patch web-v2 to 1", "tell ScalingReplicaSet", "Progressing at 2"]);
}

#[test]
fn a_pause_counts_whatever_else_its_step_asks_for() {
    let steps = json!([{"setCanaryScale": {"replicas": 2}, "pause": {"duration": 15}}, {"setWeight": 50}]);
    let route = json!({"httpRoute": "web", "namespace": "shop"});
    let strategy = canary(json!({
        "steps": steps, "canaryService": "web-canary", "stableService": "web-stable",
        "trafficRouting": {"plugins": {"argoproj-labs/gatewayAPI": route}},
    }));
    let mut snapshot = updating(&strategy, 4, 1, 1);
    let told = &snapshot.rollout.status.pause_conditions;
    assert_eq!(told.as_ref().map(|p| p[0].reason.as_str()), Some("CanaryPauseStep"), "without waiting for the pods");
    assert_eq!(decide(&snapshot, now()).status.current_step_index, Some(0));
    snapshot.replica_sets[1] = replica_set("v2", 2, 2);
    let later = now().checked_add(k8s_openapi::jiff::SignedDuration::from_secs(15)).unwrap();
    assert_eq!(decide(&snapshot, later).status.current_step_index, Some(1));
}

#[test]
fn a_plugin_that_is_not_built_in_is_told_once() {
    let strategy = canary(json!({"steps": [{"plugin": {"name": "acme/approve"}}]}));
    let mut snapshot = healthy(&strategy);
    let status = serde_json::to_value(&snapshot.rollout.status).unwrap();
    snapshot.rollout = rollout(&strategy, "v2", status);
    snapshot.replica_sets.push(replica_set("v2", 0, 0));
    let decision = decide(&snapshot, now());
    let told: Vec<&str> = decision.events.iter().filter(|e| e.warning).map(|e| e.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "spec.strategy.canary.steps[0].plugin: \"acme/approve\" is not built in; promote the Rollout to go on without it"
        ]
    );
    snapshot.rollout.status = decision.status;
    assert!(decide(&snapshot, now()).events.is_empty());
}

#[test]
fn a_restart_counts_the_pods_themselves() {
    let mut snapshot = healthy(&canary(json!({"maxUnavailable": "75%"})));
    snapshot.rollout.spec.restart_at = Some(tidegate_crds::Time(now()));
    let pod = |name: &str, deleting: bool| Pod {
        name: name.to_owned(),
        hash: "v1".to_owned(),
        created: "2026-01-01T01:00:00Z".parse().unwrap(),
        deleting,
        ready_since: Some("2026-01-01T01:00:05Z".parse().unwrap()),
    };
    snapshot.pods = vec![pod("a", false), pod("b", false), pod("c", false), pod("d", false)];
    let evicted = |snapshot: &Snapshot| -> Vec<String> {
        words(&decide(snapshot, now())).into_iter().filter(|word| word.starts_with("evict")).collect()
    };
    assert_eq!(evicted(&snapshot), ["evict a", "evict b", "evict c"]);
    snapshot.pods = vec![pod("a", true), pod("b", true), pod("c", true), pod("d", false)];
    assert_eq!(evicted(&snapshot), [""; 0], "the ReplicaSet still tells four available pods");
}

#[test]
fn only_a_version_that_was_in_use_comes_back_at_once() {
    let strategy = json!({"blueGreen": {"activeService": "web-active", "autoPromotionEnabled": false}});
    let mut snapshot = updating(&strategy, 4, 4, 4);
    let deadline = (keys::SCALE_DOWN_DEADLINE.to_owned(), "2026-01-01T10:00:20Z".to_owned());
    snapshot.replica_sets[1].annotations.extend([deadline]);
    let fast = decide(&snapshot, now());
    assert_eq!(
        words(&fast),
        [
            "patch web-v1 +scale-down-deadline",
            "web-active selects v2",
            "tell SwitchService",
            "tell RolloutCompleted",
            "Healthy",
        ]
    );
    snapshot.replica_sets[1].annotations.insert(keys::ABORTED.to_owned(), "true".to_owned());
    let proven = words(&decide(&snapshot, now()));
    assert_eq!(proven, ["patch web-v2 -scale-down-deadline", "Paused"], "waits for somebody");
}

#[test]
fn services_beside_ping_and_pong_are_switched_as_well() {
    let strategy = canary(json!({
        "canaryService": "web-canary", "stableService": "web-stable",
        "pingPong": {"pingService": "ping", "pongService": "pong"},
    }));
    let rollout = rollout(&strategy, "v1", json!({}));
    let canary = rollout.spec.strategy.canary.clone().unwrap();
    let snapshot = Snapshot { rollout, ..Snapshot::default() };
    let pass = Pass::new(&snapshot, now());
    let of = |router: &str| {
        let services = crate::rollout::traffic::services(&pass, &canary, router);
        (services.canary, services.stable)
    };
    assert_eq!(of("ALB"), ("pong".to_owned(), "ping".to_owned()));
    assert_eq!(of("Istio"), ("web-canary".to_owned(), "web-stable".to_owned()));
    let mut alone = canary.clone();
    (alone.canary_service, alone.stable_service) = (None, None);
    let services = crate::rollout::traffic::services(&pass, &alone, "Istio");
    assert_eq!((services.canary.as_str(), services.stable.as_str()), ("pong", "ping"));
    assert_eq!(crate::rollout::traffic::pairs(&pass, &canary).len(), 2);
}

#[test]
fn one_invalid_field_is_named_with_what_was_expected() {
    let mut snapshot = healthy(&canary(json!({})));
    snapshot.rollout.spec.progress_deadline_seconds = Some(0);
    let decision = decide(&snapshot, now());
    assert_eq!(words(&decision), ["tell InvalidSpec", "Degraded"]);
    let message = decision.status.message.unwrap_or_default();
    assert_eq!(
        message,
        "InvalidSpec: The Rollout \"web\" is invalid: spec.progressDeadlineSeconds: Invalid value: 0: must be greater than \
         minReadySeconds (0)"
    );
}

#[test]
fn pods_that_cannot_be_created_show_in_the_conditions() {
    let mut snapshot = healthy(&canary(json!({})));
    let failure = |status: &tidegate_crds::rollout::RolloutStatus| {
        status.conditions.iter().find(|c| c.type_ == "ReplicaFailure").map(|c| (c.reason.clone(), c.message.clone()))
    };
    snapshot.replica_sets[0].failure = Some(("FailedCreate".to_owned(), "exceeded quota".to_owned()));
    let status = decide(&snapshot, now()).status;
    assert_eq!(failure(&status), Some(("FailedCreate".to_owned(), "exceeded quota".to_owned())));
    snapshot.rollout.status = status;
    snapshot.replica_sets[0].failure = None;
    assert_eq!(failure(&decide(&snapshot, now()).status), None);
}

#[test]
fn the_same_snapshot_gives_the_same_decision() {
    let snapshot = paused();
    assert_eq!(decide(&snapshot, now()), decide(&snapshot, now()));
}

#[test]
fn an_older_version_has_no_role_any_more() {
    let strategy =
        json!({"blueGreen": {"activeService": "web-active", "activeMetadata": {"labels": {"role": "active"}}}});
    let mut snapshot = updating(&strategy, 4, 4, 4);
    let remembered = json!({"labels": {"role": "active"}}).to_string();
    for rs in &mut snapshot.replica_sets {
        rs.annotations.insert(keys::EPHEMERAL_METADATA.to_owned(), remembered.clone());
        rs.annotations.insert(keys::SCALE_DOWN_DEADLINE.to_owned(), "2026-01-01T10:00:20Z".to_owned());
    }
    assert_eq!(snapshot.rollout.status.stable_rs.as_deref(), Some("v2"));
    let labels: Vec<String> = decide(&snapshot, now())
        .actions
        .into_iter()
        .filter_map(|action| match action {
            Action::EphemeralMetadata { name, labels, remembered, .. } => {
                Some(format!("{name} {labels:?} {remembered:?}"))
            }
            _ => None,
        })
        .collect();
    assert_eq!(labels, [r#"web-v1 {"role": None} None"#], "its pods stay for a while, without the label");
}

#[test]
fn an_update_that_missed_its_deadline_says_so_when_it_is_taken_back() {
    let mut snapshot = updating(&canary(json!({"steps": [{"setWeight": 25}]})), 4, 1, 0);
    snapshot.rollout.spec.progress_deadline_abort = true;
    let late = now().checked_add(k8s_openapi::jiff::SignedDuration::from_secs(700)).unwrap();
    for _ in 0..2 {
        snapshot.rollout.status = decide(&snapshot, late).status;
    }
    let message = snapshot.rollout.status.message.unwrap_or_default();
    let why = "RolloutAborted: Rollout aborted update to revision 2: ReplicaSet \"web-v2\" has timed out progressing.";
    assert_eq!(message, why);
}

#[test]
fn an_abort_of_what_is_out_already_takes_nothing_back() {
    let mut snapshot = healthy(&canary(json!({"steps": [{"setWeight": 25}]})));
    snapshot.rollout.status.abort = true;
    let decision = decide(&snapshot, now());
    assert!(!decision.status.abort);
    assert_eq!(words(&decision), ["Healthy at 1"]);
}

#[test]
fn each_action_has_the_news_that_it_makes() {
    let strategy = json!({"blueGreen": {"activeService": "web-active"}});
    let mut snapshot = healthy(&strategy);
    let status = serde_json::to_value(&snapshot.rollout.status).unwrap();
    snapshot.rollout = rollout(&strategy, "v2", status);
    snapshot.rollout.metadata.annotations = None;
    let decision = decide(&snapshot, now());
    let reasons: Vec<Vec<&str>> =
        decision.news.iter().map(|news| news.iter().map(|event| event.reason.as_str()).collect()).collect();
    assert_eq!(reasons, [vec!["RolloutUpdated"], vec!["NewReplicaSetCreated", "ScalingReplicaSet"]]);
    assert!(decision.news.iter().flatten().all(|event| decision.events.contains(event)));
}
