use super::{Action, Decision, Owner, Service, Snapshot, decide};
use crate::rollout::ReplicaSet;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tidegate_crds::analysis::{AnalysisPhase, AnalysisRun};
use tidegate_crds::experiment::{Experiment, ExperimentStatus};
use tidegate_crds::{Time, keys};

mod acting;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn seconds(n: i64) -> Timestamp {
    now() + SignedDuration::from_secs(n)
}

fn template(name: &str) -> Value {
    json!({
        "name": name, "replicas": 2, "service": {}, "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [
            {"name": "c", "image": "i:1", "ports": [{"containerPort": 80}]},
        ]}},
    })
}

fn spec() -> Value {
    json!({
        "duration": "60s",
        "templates": [template("a")],
        "analyses": [{"name": "good", "templateName": "judge", "args": [
            {"name": "hash", "value": "{{templates.a.podTemplateHash}}"},
            {"name": "times", "value": "{{experiment.availableAt}} {{experiment.finishedAt}}"},
            {"name": "secret", "valueFrom": {"secretKeyRef": {"name": "ignored", "key": "ignored"}}},
        ]}],
    })
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut spec = spec();
    change(&mut spec);
    spec
}

/// A cluster with one Experiment in it.
struct World {
    snapshot: Snapshot,
    told: Vec<String>,
    /// Pods that come up of those that are wanted.
    healthy: bool,
}

fn snapshot(spec: &Value) -> Snapshot {
    let (experiment, dropped) = Experiment::decode(json!({
        "metadata": {"name": "exp", "namespace": "ns", "uid": "u1", "resourceVersion": "1"}, "spec": spec,
    }))
    .unwrap();
    assert!(dropped.is_empty(), "{dropped:?}");
    let mut snapshot = Snapshot { experiment, ..Snapshot::default() };
    let measured = json!({
        "metrics": [{"name": "m", "provider": {"web": {"url": "http://x/{{args.hash}}"}}}],
        "args": [{"name": "hash"}, {"name": "times", "value": ""}, {"name": "secret", "value": "own"}],
    });
    snapshot.templates.0.insert(("judge".to_owned(), false), serde_json::from_value(measured).unwrap());
    snapshot
}

impl World {
    fn new(spec: &Value) -> Self {
        Self { snapshot: snapshot(spec), told: Vec::new(), healthy: true }
    }

    fn status(&self) -> &ExperimentStatus {
        &self.snapshot.experiment.status
    }

    fn phase(&self) -> &'static str {
        self.status().phase.as_str()
    }

    fn message(&self) -> &str {
        self.status().message.as_deref().unwrap_or_default()
    }

    fn variant(&self) -> &str {
        self.status().template_statuses[0].status.as_deref().unwrap_or_default()
    }

    fn pods(&self) -> Vec<i32> {
        self.snapshot.replica_sets.iter().map(|rs| rs.replicas).collect()
    }

    /// Makes the first `writes` of a decision; the status is the last.
    fn partly(&mut self, at: Timestamp, writes: usize) -> Decision {
        let decision = decide(&self.snapshot, at);
        assert_eq!(decision, decide(&self.snapshot, at), "the same snapshot gives the same decision");
        for action in decision.actions.iter().take(writes) {
            self.write(action, at);
        }
        if writes > decision.actions.len() {
            self.snapshot.experiment.status = decision.status.clone();
            self.told.extend(decision.events.iter().map(|event| event.reason.clone()));
        }
        for rs in &mut self.snapshot.replica_sets {
            rs.current = rs.replicas;
            rs.available = if self.healthy { rs.replicas } else { 0 };
        }
        decision
    }

    fn pass(&mut self, at: Timestamp) -> Decision {
        self.partly(at, usize::MAX)
    }

    /// Passes until nothing is to be done.
    fn settle(&mut self, at: Timestamp) -> Decision {
        for _ in 0..20 {
            let before = self.status().clone();
            let decision = self.pass(at);
            if decision.actions.is_empty() && *self.status() == before {
                return decision;
            }
        }
        panic!("does not come to rest: {:?}", self.status());
    }

    fn write(&mut self, action: &Action, at: Timestamp) {
        let owner = Some(Owner { kind: "Experiment".into(), name: "exp".into(), uid: "u1".into() });
        match action {
            Action::CreateReplicaSet { name, object, .. } => {
                assert!(self.snapshot.replica_sets.iter().all(|rs| rs.name != *name), "{name} is there already");
                self.snapshot.replica_sets.extend(ReplicaSet::from_value(object));
            }
            Action::PatchReplicaSet { name, change, .. } => {
                let rs = self.snapshot.replica_sets.iter_mut().find(|rs| rs.name == *name).unwrap();
                rs.replicas = change.replicas.unwrap_or(rs.replicas);
                for (key, value) in &change.annotations {
                    match value {
                        Some(value) => rs.annotations.insert(key.clone(), value.clone()),
                        None => rs.annotations.remove(key),
                    };
                }
            }
            Action::CreateService { name, object, .. } => {
                let hash = object["spec"]["selector"][keys::POD_TEMPLATE_HASH].as_str().unwrap().to_owned();
                let old = self.snapshot.services.insert(name.clone(), Service { uid: "s".into(), hash, owner });
                assert_eq!(old, None, "{name} is there already");
            }
            Action::SelectService { name, hash } => {
                self.snapshot.services.get_mut(name).unwrap().hash.clone_from(hash);
            }
            Action::DeleteService { name, .. } => assert!(self.snapshot.services.remove(name).is_some()),
            Action::CreateAnalysisRun { name, object } => {
                assert!(self.snapshot.analysis_runs.iter().all(|run| run.name() != name), "{name} is there already");
                let mut run = AnalysisRun::decode(object.clone()).unwrap().0;
                run.metadata.creation_timestamp = Some(Time(at));
                self.snapshot.analysis_runs.push(run);
            }
            Action::TerminateAnalysisRun { name } => {
                let run = self.snapshot.analysis_runs.iter_mut().find(|run| run.name() == name).unwrap();
                assert!(!run.spec.terminate);
                run.spec.terminate = true;
                run.status.phase = AnalysisPhase::Inconclusive;
            }
        }
    }

    fn verdict(&mut self, run: usize, phase: AnalysisPhase, message: &str) {
        self.snapshot.analysis_runs[run].status.phase = phase;
        self.snapshot.analysis_runs[run].status.message = Some(message.to_owned());
    }

    fn condition(&self, type_: &str) -> Option<(&str, &str, &str)> {
        let condition = self.status().conditions.iter().find(|c| c.type_ == type_)?;
        Some((&condition.status, &condition.reason, &condition.message))
    }
}

#[test]
fn runs_measures_ends_and_takes_its_pods_away() {
    let mut w = World::new(&spec());
    w.pass(now());
    assert_eq!((w.phase(), w.variant(), w.pods()), ("Pending", "Progressing", vec![2]));
    assert_eq!(w.snapshot.replica_sets[0].name, "exp-a");
    assert_eq!(w.condition("Progressing").unwrap().1, "ReplicaSetUpdated");
    w.pass(seconds(1));
    assert_eq!((w.phase(), w.variant()), ("Running", "Running"));
    assert!(
        w.snapshot.analysis_runs.is_empty(),
        "nothing is measured before it is stored when the variants were there"
    );
    w.pass(seconds(1));
    let hash = w.snapshot.replica_sets[0].hash().to_owned();
    let run = &w.snapshot.analysis_runs[0];
    assert_eq!(run.name(), "exp-good");
    let args: Vec<_> = run.spec.args.iter().map(|a| (a.name.as_str(), a.value.as_deref().unwrap())).collect();
    let times = "2026-01-01T00:00:01Z 2026-01-01T00:01:01Z";
    assert_eq!(args, [("hash", hash.as_str()), ("times", times), ("secret", "own")]);
    assert_eq!(w.snapshot.services["exp-a"].hash, hash);
    let status = &w.status().template_statuses[0];
    assert_eq!((status.service_name.as_deref(), status.pod_template_hash.as_deref()), (Some("exp-a"), Some(&*hash)));
    let idle = w.pass(seconds(2));
    assert!(idle.actions.is_empty() && idle.wake == Some(seconds(61)), "{idle:?}");
    assert_eq!(w.condition("Running"), Some(("True", "NewReplicaSetAvailable", "Experiment \"exp\" is running.")));

    let end = w.pass(seconds(61));
    assert_eq!(
        (w.phase(), w.variant(), end.actions.len()),
        ("Successful", "Successful", 0),
        "the verdict is stored first"
    );
    let ending = w.settle(seconds(62));
    assert_eq!(ending.wake, Some(seconds(92)));
    assert_eq!(w.phase(), "Successful", "what becomes of ended analyses changes nothing");
    assert_eq!(w.pods(), [2], "the pods stay for their delay");
    assert!(w.snapshot.services.contains_key("exp-a"));
    w.settle(seconds(92));
    assert_eq!((w.pods(), w.snapshot.services.len()), (vec![0], 0));
    assert_eq!(w.status().template_statuses[0].service_name, None);
    assert_eq!(w.condition("Completed").unwrap().0, "True");
    assert_eq!(w.condition("Progressing").unwrap().1, "ExperimentCompleted");
    assert_eq!(
        w.told,
        [
            "NewReplicaSetCreated",
            "TemplateProgressing",
            "ExperimentPending",
            "TemplateRunning",
            "ExperimentRunning",
            "AnalysisRunPending",
            "TemplateSuccessful",
            "ExperimentSuccessful",
            "AnalysisRunTerminating",
            "AnalysisRunInconclusive",
            "ScalingReplicaSet",
        ]
    );
}

#[test]
fn phases_follow_variants_and_analyses() {
    use AnalysisPhase::{Error, Failed, Inconclusive, Pending, Running, Successful};
    let required = "Required AnalysisRuns completed";
    // Whether each analysis is required and how it stands; the time; the experiment's phase and message.
    type Case<'a> = (&'a [(bool, AnalysisPhase)], i64, &'a str, &'a str);
    let table: &[Case<'_>] = &[
        (&[], 10, "Running", ""),
        (&[], 61, "Successful", ""),
        (&[(false, Running)], 10, "Running", ""),
        (&[(false, Running)], 61, "Successful", ""),
        (&[(false, Successful)], 10, "Running", ""),
        (&[(false, Failed)], 10, "Failed", "run 0"),
        (&[(false, Error)], 10, "Error", "run 0"),
        (&[(false, Inconclusive)], 10, "Inconclusive", "run 0"),
        (&[(false, Inconclusive), (false, Failed), (false, Error)], 10, "Failed", "run 1"),
        (&[(false, Inconclusive), (false, Error)], 61, "Error", "run 1"),
        (&[(true, Running)], 61, "Running", ""),
        (&[(true, Pending)], 500, "Running", ""),
        (&[(true, Successful)], 10, "Successful", required),
        (&[(true, Successful)], 61, "Successful", required),
        (&[(true, Successful), (true, Running)], 61, "Running", ""),
        (&[(true, Successful), (false, Running)], 10, "Successful", required),
        (&[(true, Successful), (false, Failed)], 10, "Failed", "run 1"),
        (&[(true, Running), (false, Inconclusive)], 61, "Inconclusive", "run 1"),
    ];
    for (analyses, at, phase, message) in table {
        let mut w = World::new(&with(|spec| {
            let entry = |(i, (required, _)): (usize, &(bool, AnalysisPhase))| {
                json!({"name": format!("n{i}"), "templateName": "judge", "requiredForCompletion": required,
                    "args": [{"name": "hash", "value": "x"}]})
            };
            spec["analyses"] = analyses.iter().enumerate().map(entry).collect();
        }));
        w.settle(now());
        for (i, (_, phase)) in analyses.iter().enumerate() {
            w.verdict(
                i,
                *phase,
                if phase.completed() && *phase != Successful { ["run 0", "run 1", "run 2"][i] } else { "" },
            );
        }
        w.pass(seconds(*at));
        assert_eq!((w.phase(), w.message()), (*phase, *message), "{analyses:?} at {at}");
        let ended = w.status().phase;
        w.settle(seconds(*at));
        let still = w.snapshot.analysis_runs.iter().filter(|run| !run.status.phase.completed()).count();
        assert!(w.status().phase == ended && (!ended.completed() || still == 0), "{analyses:?} at {at}: {still} go on");
    }
}

#[test]
fn pods_that_do_not_come_in_time_fail_it() {
    let mut w = World::new(&with(|spec| spec["progressDeadlineSeconds"] = json!(30)));
    w.healthy = false;
    w.pass(now());
    w.pass(seconds(1));
    let waiting = w.pass(seconds(31));
    assert_eq!((w.phase(), waiting.wake > Some(seconds(31))), ("Pending", true));
    w.pass(seconds(32));
    assert_eq!((w.phase(), w.variant()), ("Failed", "Failed"));
    assert_eq!(w.message(), "Template 'a' exceeded its progressDeadlineSeconds (30)");
    assert_eq!(w.condition("Progressing").unwrap().1, "ProgressDeadlineExceeded");
    w.settle(seconds(32));
    w.settle(seconds(62));
    assert_eq!((w.pods(), w.snapshot.services.len(), w.snapshot.analysis_runs.len()), (vec![0], 0, 0));
}

#[test]
fn pods_that_go_and_come_again_are_waited_for() {
    let mut w = World::new(&spec());
    w.settle(now());
    w.healthy = false;
    w.pass(seconds(5));
    w.settle(seconds(5));
    assert_eq!((w.phase(), w.variant()), ("Pending", "Progressing"));
    w.settle(seconds(70));
    assert_eq!(w.phase(), "Pending", "its time is over, and it is not yet known whether it lasts");
    w.healthy = true;
    w.pass(seconds(71));
    w.settle(seconds(71));
    assert_eq!(w.phase(), "Successful");
}

#[test]
fn somebody_ends_it() {
    for started in [false, true] {
        let mut w = World::new(&with(|spec| spec["analyses"][0]["requiredForCompletion"] = json!(true)));
        if started {
            w.settle(now());
        }
        w.snapshot.experiment.spec.terminate = true;
        w.settle(seconds(5));
        assert_eq!((w.phase(), w.variant()), ("Successful", "Successful"));
        w.settle(seconds(40));
        assert_eq!(w.pods(), if started { vec![0] } else { vec![] });
        assert!(w.snapshot.analysis_runs.iter().all(|run| run.spec.terminate));
    }
}

#[test]
fn without_a_delay_the_pods_go_with_the_end() {
    let mut w = World::new(&with(|spec| spec["scaleDownDelaySeconds"] = json!(0)));
    w.settle(now());
    w.pass(seconds(61));
    assert_eq!(w.pods(), [2], "not before the end is stored");
    w.settle(seconds(61));
    assert_eq!((w.pods(), w.snapshot.services.len()), (vec![0], 0));
}

#[test]
fn a_retry_is_a_new_attempt() {
    for verdict in [AnalysisPhase::Failed, AnalysisPhase::Running] {
        let mut w = World::new(&spec());
        w.settle(now());
        w.verdict(0, verdict, "");
        w.settle(seconds(20));
        // With a run that goes on, it is retried in its midst.
        w.snapshot.experiment.status = ExperimentStatus::default();
        w.settle(seconds(25));
        assert_eq!((w.phase(), w.pods()), ("Running", vec![2]), "{verdict:?}");
        assert!(w.snapshot.replica_sets[0].deadline().is_none(), "a time limit of the earlier attempt ends with it");
        let runs: Vec<_> = w.snapshot.analysis_runs.iter().map(AnalysisRun::name).collect();
        assert_eq!(runs, ["exp-good", "exp-good.1"], "{verdict:?}");
        assert_eq!(w.status().analysis_runs[0].analysis_run, "exp-good.1");
        assert!(w.snapshot.analysis_runs[0].status.phase.completed());
        w.settle(seconds(100));
        assert_eq!(w.phase(), "Successful");
    }
}

#[test]
fn whatever_is_half_written_is_continued() {
    // Every pass is broken off after so many writes, then made whole.
    for writes in 0..4 {
        let mut w = World::new(&with(|spec| {
            spec["templates"] = json!([template("a"), template("b")]);
            spec["scaleDownDelaySeconds"] = json!(0);
        }));
        for at in [0, 1, 2, 3, 61, 62, 63, 64, 65] {
            w.partly(seconds(at), writes);
            w.pass(seconds(at));
            let pods = w.pods();
            assert!(w.status().phase.completed() || pods == [2, 2], "{writes} writes at {at}: {pods:?}");
        }
        assert_eq!((w.phase(), w.pods(), w.snapshot.services.len()), ("Successful", vec![0, 0], 0));
        assert_eq!(w.snapshot.analysis_runs.len(), 1, "{writes} writes: each analysis has one run");
    }
}

#[test]
fn a_run_that_ended_before_it_was_noted_counts() {
    let mut w = World::new(&spec());
    w.pass(now());
    w.pass(seconds(1));
    w.partly(seconds(2), 1);
    w.verdict(0, AnalysisPhase::Failed, "bad");
    w.settle(seconds(3));
    assert_eq!((w.phase(), w.message(), w.snapshot.analysis_runs.len()), ("Failed", "bad", 1));
}

#[test]
fn names_of_others_are_left_alone() {
    let mut w = World::new(&spec());
    w.snapshot.taken.insert("exp-good".to_owned());
    w.snapshot.findings.collisions.insert("a".to_owned(), 1);
    w.pass(now());
    w.snapshot.findings.collisions.clear();
    w.settle(seconds(1));
    assert_eq!(w.snapshot.replica_sets[0].name, "exp-a-1");
    assert_eq!(w.status().template_statuses[0].collision_count, Some(1));
    assert!(w.snapshot.services.contains_key("exp-a-1"));
    assert_eq!(w.snapshot.analysis_runs[0].name(), "exp-good.1");

    let owner = |kind: &str, name: &str| Some(Owner { kind: kind.into(), name: name.into(), uid: "other".into() });
    for (owner, variant, told) in [
        (None, "Error", "it belongs to nobody"),
        (owner("Rollout", "web"), "Error", "it belongs to Rollout web"),
        (owner("Experiment", "exp"), "Running", ""),
    ] {
        let mut w = World::new(&spec());
        w.snapshot.services.insert("exp-a".to_owned(), Service { owner, ..Service::default() });
        w.pass(now());
        let last = w.pass(seconds(1));
        assert_eq!(w.status().template_statuses[0].status.as_deref(), Some(variant), "{told}");
        assert!(w.message().contains(told) && w.snapshot.services.len() == 1, "{}", w.message());
        if variant == "Running" {
            assert_eq!(last.wake, Some(seconds(3)), "what an earlier Experiment of the name left goes soon");
            w.snapshot.services.clear();
            w.settle(seconds(3));
            assert!(w.snapshot.own_service("exp-a").is_some());
        }
    }
}

#[test]
fn what_the_api_server_does_not_take_fails_it() {
    let mut w = World::new(&spec());
    w.snapshot.findings.refused.insert("a".to_owned(), "no quota".to_owned());
    w.pass(now());
    assert_eq!((w.phase(), w.variant(), w.message()), ("Error", "Error", "no quota"));
    assert_eq!(w.condition("ReplicaFailure").unwrap().2, "no quota");
}

#[test]
fn services_reach_the_pods_of_their_variant_only() {
    let mut w = World::new(&with(|spec| {
        spec["templates"] = json!([template("a"), template("b"), template("c")]);
        spec["templates"][0]["service"] = json!({"name": "mine"});
        spec["templates"][1]["template"]["spec"]["containers"][0]["ports"] = json!([]);
        spec["templates"][2]["template"]["spec"]["containers"] = json!([
            {"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]},
            {"name": "d", "image": "i", "ports": [{"name": "http", "containerPort": 81}, {"containerPort": 53, "protocol": "UDP"}]},
        ]);
    }));
    let first = w.pass(now());
    let services: Vec<(&str, Value)> = first
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::CreateService { name, object, .. } => Some((name.as_str(), object["spec"]["ports"].clone())),
            _ => None,
        })
        .collect();
    let port = |name: &str, number: i64, protocol: &str| json!({"name": name, "port": number, "targetPort": number, "protocol": protocol});
    assert_eq!(
        services,
        [
            ("mine", json!([{"port": 80, "targetPort": 80, "protocol": "TCP"}])),
            ("exp-c", json!([port("http", 80, "TCP"), port("udp-53", 53, "UDP"), port("tcp-81", 81, "TCP")])),
        ]
    );
    let hashes: BTreeSet<_> = w.snapshot.replica_sets.iter().map(|rs| rs.hash().to_owned()).collect();
    assert_eq!(hashes.len(), 3);
    let rollouts = crate::rollout::template::pod_hash(&w.snapshot.experiment.spec.templates[0].template, None);
    assert!(!hashes.contains(&rollouts), "a Rollout's Services must not reach an Experiment's pods");
    let named: Vec<_> = w.status().template_statuses.iter().map(|s| s.service_name.as_deref()).collect();
    assert_eq!(named, [Some("mine"), None, Some("exp-c")]);
}

#[test]
fn a_change_of_the_spec_is_followed() {
    let mut w = World::new(&with(|spec| spec["templates"] = json!([template("a"), template("b")])));
    w.settle(now());
    w.snapshot.experiment.spec.templates[0].replicas = Some(5);
    w.snapshot.experiment.spec.templates[0].service = None;
    w.snapshot.experiment.spec.templates.pop();
    w.settle(seconds(5));
    assert_eq!(w.pods(), [5, 2]);
    assert!(!w.snapshot.services.contains_key("exp-a"));
    w.settle(seconds(35));
    assert_eq!((w.pods(), w.status().template_statuses.len()), (vec![5, 0], 1));
}

#[test]
fn a_run_that_somebody_deletes_is_an_error() {
    let mut w = World::new(&spec());
    w.settle(now());
    w.snapshot.analysis_runs.clear();
    w.pass(seconds(5));
    assert_eq!((w.phase(), w.message()), ("Error", "AnalysisRun exp-good is gone: it was deleted"));
}

#[test]
fn invalid_ones_say_what_is_wrong_and_do_nothing() {
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Value));
    let table: &[Case<'_>] = &[
        ("spec.templates: Required", &|s| s["templates"] = json!([])),
        ("spec.templates[0].name: Required", &|s| s["templates"][0]["name"] = json!("")),
        ("spec.templates[1].name: Duplicate value: \"a\"", &|s| s["templates"] = json!([template("a"), template("a")])),
        ("spec.templates[0].selector: Required", &|s| s["templates"][0]["selector"] = Value::Null),
        ("spec.templates[0].selector: Invalid", &|s| s["templates"][0]["selector"] = json!({})),
        ("spec.templates[0].template.metadata.labels", &|s| {
            s["templates"][0]["selector"] = json!({"matchLabels": {"app": "other"}});
        }),
        ("spec.templates[0].template.spec.containers", &|s| {
            s["templates"][0]["template"]["spec"]["containers"] = json!([]);
        }),
        ("spec.templates[0].minReadySeconds: Invalid value: 700", &|s| {
            s["templates"][0]["minReadySeconds"] = json!(700)
        }),
        ("spec.templates[0].replicas: Invalid value: -1", &|s| s["templates"][0]["replicas"] = json!(-1)),
        ("spec.duration: Invalid value: \"soon\"", &|s| s["duration"] = json!("soon")),
        ("spec.scaleDownDelaySeconds: Invalid value: -1", &|s| s["scaleDownDelaySeconds"] = json!(-1)),
        ("spec.analyses[0].name: Required", &|s| s["analyses"][0]["name"] = json!("")),
        ("spec.analyses[0].templateName: Required", &|s| s["analyses"][0]["templateName"] = json!("")),
        (
            "spec.analyses[0].args: Invalid value: : args.hash: failed to resolve {{templates.z.podTemplateHash}}",
            &|s| {
                s["analyses"][0]["args"][0]["value"] = json!("{{templates.z.podTemplateHash}}");
            },
        ),
        ("spec.analyses[0]: AnalysisTemplate 'nobody' is not found", &|s| {
            s["analyses"][0]["templateName"] = json!("nobody");
        }),
        ("spec.analyses[0]: args.hash was not resolved", &|s| s["analyses"][0]["args"] = json!([])),
    ];
    for (expected, change) in table {
        let mut w = World::new(&with(change));
        let decision = w.pass(now());
        let (_, _, message) = w.condition("InvalidSpec").unwrap_or_else(|| panic!("{expected}: valid"));
        assert!(message.starts_with(expected), "{message}, expected {expected}");
        assert!(decision.actions.is_empty() && decision.wake == Some(seconds(20)), "{expected}");
        assert_eq!((w.told.as_slice(), w.phase()), (&["InvalidSpec".to_owned()][..], ""));
        w.pass(seconds(20));
        assert_eq!(w.told.len(), 1, "{expected}: told once");
        w.snapshot.experiment.spec = snapshot(&spec()).experiment.spec;
        w.settle(seconds(30));
        assert_eq!((w.phase(), w.condition("InvalidSpec")), ("Running", None), "{expected}: mended");
    }
}

#[test]
fn what_is_named_may_come_but_not_for_ever() {
    let mut w = World::new(&with(|s| s["progressDeadlineSeconds"] = json!(60)));
    w.snapshot.templates.0.clear();
    w.pass(now());
    w.pass(seconds(60));
    assert_eq!(w.phase(), "");
    w.pass(seconds(61));
    assert_eq!((w.phase(), w.condition("InvalidSpec").is_some()), ("Error", true));
    assert!(w.message().contains("'judge' is not found"), "{}", w.message());
    assert!(w.settle(seconds(62)).wake.is_none());
}

#[test]
fn a_template_that_goes_before_the_analysis_is_an_error() {
    let mut w = World::new(&spec());
    w.pass(now());
    w.pass(seconds(1));
    w.snapshot.templates.0.clear();
    w.pass(seconds(2));
    assert_eq!(w.phase(), "Error");
    assert!(w.message().starts_with("Failed to create AnalysisRun for analysis 'good': "), "{}", w.message());
}

#[test]
fn what_is_being_deleted_is_left_alone() {
    let mut w = World::new(&spec());
    w.snapshot.experiment.metadata.deletion_timestamp = Some(Time(now()));
    assert_eq!(w.pass(now()), Decision::default());
}

#[test]
fn runs_carry_what_they_are_told_to() {
    let mut w = World::new(&with(|s| {
        s["analysisRunMetadata"] = json!({"labels": {"team": "a"}, "annotations": {"why": "b"}});
        s["dryRun"] = json!([{"metricName": "m"}]);
    }));
    w.snapshot.instance_id = "blue".to_owned();
    w.settle(now());
    let run = serde_json::to_value(&w.snapshot.analysis_runs[0]).unwrap();
    assert_eq!(run["metadata"]["labels"], json!({"team": "a", keys::INSTANCE_ID: "blue"}));
    assert_eq!(run["metadata"]["annotations"], json!({"why": "b"}));
    assert_eq!(run["spec"]["dryRun"], json!([{"metricName": "m"}]));
    assert_eq!(run["metadata"]["ownerReferences"][0]["uid"], "u1");
}
