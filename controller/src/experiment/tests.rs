use super::{Action, Snapshot, decide};
use crate::rollout::ReplicaSet;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tidegate_crds::analysis::{AnalysisPhase, AnalysisRun};
use tidegate_crds::experiment::Experiment;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn seconds(n: i64) -> Timestamp {
    now() + SignedDuration::from_secs(n)
}

fn snapshot(spec: Value) -> Snapshot {
    let (experiment, dropped) = Experiment::decode(json!({
        "metadata": {"name": "exp", "namespace": "ns", "uid": "u1", "resourceVersion": "1"}, "spec": spec,
    }))
    .unwrap();
    assert!(dropped.is_empty(), "{dropped:?}");
    let mut snapshot = Snapshot { experiment, ..Snapshot::default() };
    let measured = json!({"metrics": [{"name": "m", "provider": {"web": {"url": "http://x/{{args.hash}}"}}}], "args": [{"name": "hash"}]});
    snapshot.templates.0.insert(("judge".to_owned(), false), serde_json::from_value(measured).unwrap());
    snapshot
}

fn spec() -> Value {
    json!({
        "duration": "60s",
        "templates": [{
            "name": "a", "replicas": 2, "service": {}, "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i:1", "ports": [{"containerPort": 80}]}]}},
        }],
        "analyses": [{"name": "good", "templateName": "judge", "args": [{"name": "hash", "value": "{{templates.a.podTemplateHash}}"}]}],
    })
}

/// Makes the writes of a decision, with all pods available at once when `available`.
fn apply(snapshot: &mut Snapshot, at: Timestamp, available: bool) -> super::Decision {
    let decision = decide(snapshot, at);
    assert_eq!(decision, decide(snapshot, at), "the same snapshot gives the same decision");
    for action in &decision.actions {
        match action {
            Action::CreateReplicaSet(object) => snapshot.replica_sets.extend(ReplicaSet::from_value(object)),
            Action::PatchReplicaSet(name, patch) => {
                let rs = snapshot.replica_sets.iter_mut().find(|rs| rs.name == *name).unwrap();
                if let Some(size) = patch.pointer("/spec/replicas").and_then(Value::as_i64) {
                    rs.replicas = size as i32;
                }
                for (key, value) in
                    patch.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten()
                {
                    rs.annotations.insert(key.clone(), value.as_str().unwrap().to_owned());
                }
            }
            Action::CreateService(object) => {
                snapshot.services.insert(object["metadata"]["name"].as_str().unwrap().to_owned());
            }
            Action::DeleteService(name) => assert!(snapshot.services.remove(name)),
            Action::CreateAnalysisRun(object) => {
                snapshot.analysis_runs.push(AnalysisRun::decode(object.clone()).unwrap().0)
            }
            Action::TerminateAnalysisRun(name) => {
                let run = snapshot.analysis_runs.iter_mut().find(|r| r.name() == name).unwrap();
                run.spec.terminate = true;
                run.status.phase = AnalysisPhase::Successful;
            }
        }
    }
    for rs in &mut snapshot.replica_sets {
        rs.current = rs.replicas;
        rs.available = if available { rs.replicas } else { 0 };
    }
    snapshot.experiment.status = decision.status.clone();
    decision
}

#[test]
fn runs_measures_ends_and_takes_its_pods_away() {
    let mut s = snapshot(spec());
    apply(&mut s, now(), true);
    assert_eq!((s.replica_sets.len(), s.replica_sets[0].name.as_str(), s.replica_sets[0].replicas), (1, "exp-a", 2));
    assert!(s.services.contains("exp-a") && s.analysis_runs.is_empty(), "nothing is measured before all are available");
    apply(&mut s, seconds(1), true);
    assert_eq!(s.experiment.status.phase, AnalysisPhase::Running);
    let hash = s.replica_sets[0].hash().to_owned();
    assert_eq!(s.analysis_runs[0].name(), "exp-good");
    assert_eq!(s.analysis_runs[0].spec.args[0].value.as_deref(), Some(hash.as_str()));
    let idle = apply(&mut s, seconds(2), true);
    assert!(idle.actions.is_empty() && idle.wake == Some(seconds(61)), "{idle:?}");
    apply(&mut s, seconds(61), true);
    assert_eq!(s.experiment.status.phase, AnalysisPhase::Successful);
    assert!(s.analysis_runs[0].spec.terminate, "what still measures ends with the experiment");
    assert_eq!(s.replica_sets[0].replicas, 2, "the pods stay for their delay");
    apply(&mut s, seconds(92), true);
    assert_eq!(s.replica_sets[0].replicas, 0);
    apply(&mut s, seconds(93), true);
    assert!(s.services.is_empty());
    assert!(apply(&mut s, seconds(94), true).actions.is_empty());
}

#[test]
fn a_bad_verdict_ends_it_at_once() {
    for phase in [AnalysisPhase::Failed, AnalysisPhase::Error, AnalysisPhase::Inconclusive] {
        let mut s = snapshot(spec());
        apply(&mut s, now(), true);
        apply(&mut s, seconds(1), true);
        s.analysis_runs[0].status.phase = phase;
        apply(&mut s, seconds(2), true);
        assert_eq!(s.experiment.status.phase, phase);
        assert!(s.experiment.status.message.clone().unwrap().contains("'good'"));
    }
}

#[test]
fn a_required_analysis_outlives_the_duration() {
    let mut spec = spec();
    spec["analyses"][0]["requiredForCompletion"] = json!(true);
    let mut s = snapshot(spec);
    apply(&mut s, now(), true);
    apply(&mut s, seconds(1), true);
    apply(&mut s, seconds(500), true);
    assert_eq!(s.experiment.status.phase, AnalysisPhase::Running);
    s.analysis_runs[0].status.phase = AnalysisPhase::Successful;
    apply(&mut s, seconds(501), true);
    assert_eq!(s.experiment.status.phase, AnalysisPhase::Successful);
}

#[test]
fn pods_that_never_come_fail_it_at_the_deadline() {
    let mut spec = spec();
    spec["progressDeadlineSeconds"] = json!(30);
    let mut s = snapshot(spec);
    apply(&mut s, now(), false);
    let waiting = apply(&mut s, seconds(1), false);
    assert_eq!(waiting.wake, Some(seconds(30)));
    apply(&mut s, seconds(31), false);
    assert_eq!(s.experiment.status.phase, AnalysisPhase::Failed);
    assert!(s.experiment.status.message.clone().unwrap().contains("0 of 2 pods"));
}

#[test]
fn a_missing_template_is_named() {
    let mut spec = spec();
    spec["analyses"][0]["templateName"] = json!("nobody");
    let mut s = snapshot(spec);
    apply(&mut s, now(), true);
    apply(&mut s, seconds(1), true);
    assert_eq!(s.experiment.status.phase, AnalysisPhase::Error);
    assert!(s.experiment.status.message.clone().unwrap().contains("nobody"));
}

#[test]
fn an_invalid_one_says_what_is_wrong() {
    let mut spec = spec();
    spec["duration"] = json!("soon");
    let decision = decide(&snapshot(spec), now());
    assert!(decision.actions.is_empty());
    assert!(decision.status.conditions[0].message.contains("spec.duration") && decision.events.len() == 1);
}
