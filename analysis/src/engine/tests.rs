use super::*;
use AnalysisPhase::{Error, Failed, Inconclusive, Running, Successful};
use proptest::prelude::*;
use serde_json::json;
use tidegate_crds::analysis::AnalysisRunSpec;

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn run_of(spec: serde_json::Value) -> AnalysisRun {
    let mut spec = spec;
    for metric in spec["metrics"].as_array_mut().unwrap() {
        if metric.get("provider").is_none() {
            metric["provider"] = json!({"web": {"url": "http://x"}});
        }
    }
    let spec: AnalysisRunSpec = serde_json::from_value(spec).unwrap();
    AnalysisRun { spec, ..AnalysisRun::default() }
}

fn measured(phase: AnalysisPhase) -> Measurement {
    let message = (phase == Error).then(|| "no route".to_owned());
    Measurement { phase, message, ..Measurement::default() }
}

fn job(phase: AnalysisPhase) -> Measurement {
    let metadata = BTreeMap::from([("job-name".to_owned(), "j".to_owned())]);
    Measurement { phase, metadata, ..Measurement::default() }
}

fn starts(decision: &Decision) -> Vec<&str> {
    let name = |task: &'_ Task| match task {
        Task::Start { metric } => Some(metric.clone()),
        _ => None,
    };
    let names: Vec<String> = decision.tasks.iter().filter_map(name).collect();
    names.into_iter().map(|n| &*Box::leak(n.into_boxed_str())).collect()
}

/// A run on a clock of its own, of which each metric's measurements come out as said.
struct Sim {
    run: AnalysisRun,
    now: Timestamp,
    events: Vec<String>,
    idle: BTreeSet<String>,
}

impl Sim {
    fn of(spec: serde_json::Value) -> Self {
        Self { run: run_of(spec), now: start(), events: Vec::new(), idle: BTreeSet::new() }
    }

    fn step(&mut self) -> Decision {
        let decision = decide(&self.run, &self.idle, self.now);
        self.events.extend(decision.events.iter().map(|e| e.reason.clone()));
        self.run.status = decision.status.clone();
        decision
    }

    fn record(&mut self, metric: &str, measurement: Measurement) {
        record(&mut self.run.status, metric, measurement, BTreeMap::new(), self.now);
    }

    fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn result(&self, metric: &str) -> &MetricResult {
        self.run.status.metric_results.iter().find(|r| r.name == metric).unwrap()
    }

    /// Goes on until the verdict, or until nothing is left to say what comes out; gives the seconds that it took.
    fn play(&mut self, outcomes: &[(&str, &[AnalysisPhase])]) -> i64 {
        let mut left: BTreeMap<&str, std::collections::VecDeque<AnalysisPhase>> =
            outcomes.iter().map(|(name, phases)| (*name, phases.iter().copied().collect())).collect();
        loop {
            let decision = self.step();
            if self.run.status.phase.completed() {
                break;
            }
            let mut moved = false;
            for name in starts(&decision) {
                match left.get_mut(name).and_then(|phases| phases.pop_front()) {
                    Some(phase) => {
                        self.record(name, measured(phase));
                        moved = true;
                    }
                    None => {
                        self.idle.insert(name.to_owned());
                    }
                }
            }
            if moved {
                continue;
            }
            match decision.look_again {
                Some(wait) => self.now += SignedDuration::try_from(wait).unwrap(),
                None => break,
            }
        }
        self.now.duration_since(start()).as_secs()
    }

    fn verdict(&self) -> (AnalysisPhase, &str) {
        (self.run.status.phase, self.run.status.message.as_deref().unwrap_or_default())
    }
}

#[test]
fn verdicts_of_one_metric() {
    let table: &[(serde_json::Value, &[AnalysisPhase], AnalysisPhase, &str, i64)] = &[
        (json!({}), &[Successful], Successful, "", 0),
        (json!({}), &[Failed], Failed, "Metric \"m\" assessed Failed due to failed (1) > failureLimit (0)", 0),
        (
            json!({}),
            &[Inconclusive],
            Inconclusive,
            "Metric \"m\" assessed Inconclusive due to inconclusive (1) > inconclusiveLimit (0)",
            0,
        ),
        (json!({}), &[Error, Error, Successful], Successful, "", 20),
        (
            json!({}),
            &[Error, Error, Error, Error, Error],
            Error,
            "Metric \"m\" assessed Error due to consecutiveErrors (5) > consecutiveErrorLimit (4): \"Error Message: no route\"",
            40,
        ),
        (
            json!({"consecutiveErrorLimit": 0}),
            &[Error],
            Error,
            "Metric \"m\" assessed Error due to consecutiveErrors (1) > consecutiveErrorLimit (0): \"Error Message: no route\"",
            0,
        ),
        (json!({"interval": "1m", "count": 3}), &[Successful; 3], Successful, "", 120),
        (
            json!({"interval": "1m", "count": 3, "failureLimit": 1}),
            &[Failed, Successful, Successful],
            Successful,
            "",
            120,
        ),
        (
            json!({"interval": "1m", "count": 3, "failureLimit": 1}),
            &[Failed, Successful, Failed],
            Failed,
            "Metric \"m\" assessed Failed due to failed (2) > failureLimit (1)",
            120,
        ),
        // Errors do not count, and come again sooner.
        (json!({"interval": "1m", "count": 2}), &[Successful, Error, Successful], Successful, "", 70),
        (json!({"interval": "1m", "count": 1, "inconclusiveLimit": 1}), &[Inconclusive], Successful, "", 0),
        (json!({"interval": "1m", "consecutiveSuccessLimit": 2}), &[Successful, Successful], Successful, "", 60),
        (
            json!({"interval": "1m", "consecutiveSuccessLimit": 2, "failureLimit": 9}),
            &[Successful, Failed, Successful, Successful],
            Successful,
            "",
            180,
        ),
        (
            json!({"interval": "1m", "count": 3, "consecutiveSuccessLimit": 2, "failureLimit": 1}),
            &[Successful, Failed, Successful],
            Inconclusive,
            "Metric \"m\" assessed Inconclusive due to consecutiveSuccess (1) < consecutiveSuccessLimit (2)",
            120,
        ),
        (
            json!({"interval": "1m", "count": 3, "consecutiveSuccessLimit": 2, "failureLimit": -1}),
            &[Failed, Failed, Failed],
            Failed,
            "Metric \"m\" assessed Failed due to consecutiveSuccess (0) < consecutiveSuccessLimit (2)",
            120,
        ),
        (json!({"initialDelay": "90s"}), &[Successful], Successful, "", 90),
        (json!({"interval": "1m"}), &[Successful; 7], Running, "", 0),
    ];
    for (metric, outcomes, phase, message, seconds) in table {
        let mut metric = metric.clone();
        metric["name"] = "m".into();
        let mut sim = Sim::of(json!({"metrics": [metric]}));
        let took = sim.play(&[("m", outcomes)]);
        assert_eq!(sim.verdict(), (*phase, *message), "{metric} {outcomes:?}");
        if phase.completed() {
            assert_eq!(took, *seconds, "{metric} {outcomes:?}");
            assert_eq!(sim.events, [format!("Metric{}", phase.as_str()), format!("AnalysisRun{}", phase.as_str())]);
            assert_eq!(sim.run.status.completed_at.as_ref().unwrap().0, sim.now);
        }
    }
}

#[test]
fn a_bad_metric_ends_the_others() {
    let mut sim = Sim::of(json!({"metrics": [
        {"name": "a", "interval": "1m", "count": 10}, {"name": "j", "provider": {"job": {"spec": {}}}},
        {"name": "late", "initialDelay": "10m"}, {"name": "b", "interval": "1m", "count": 2}]}));
    let decision = sim.step();
    assert_eq!(starts(&decision), ["a", "j", "b"]);
    assert_eq!(decision.look_again, Some(Duration::from_secs(600)));
    assert_eq!(sim.verdict(), (Running, ""));
    for (name, measurement) in [("a", measured(Successful)), ("j", job(Running)), ("b", measured(Successful))] {
        sim.record(name, measurement);
    }
    sim.wait(60);
    sim.step();
    sim.record("a", measured(Successful));
    sim.record("b", measured(Failed));
    let decision = sim.step();
    // The Job is ended, and the verdict is there at once.
    assert_eq!(
        decision.tasks,
        [Task::Terminate {
            metric: "j".into(),
            measurement: Measurement { started_at: Some(Time(start())), ..job(Running) }
        }]
    );
    assert_eq!(sim.verdict(), (Failed, "Metric \"b\" assessed Failed due to failed (1) > failureLimit (0)"));
    assert_eq!(
        (sim.result("a").phase, sim.result("j").phase, sim.result("b").phase),
        (Successful, Inconclusive, Failed)
    );
    assert_eq!(sim.result("j").measurements[0].phase, Inconclusive);
    assert_eq!(sim.result("j").measurements[0].finished_at, Some(Time(sim.now)));
    let summary = sim.run.status.run_summary.clone().unwrap();
    assert_eq!((summary.count, summary.successful, summary.failed, summary.inconclusive), (4, 1, 1, 1));
    assert_eq!(sim.events, ["MetricFailed", "MetricSuccessful", "MetricInconclusive", "AnalysisRunFailed"]);
}

#[test]
fn the_worst_phase_counts() {
    for (a, b, worst) in [
        (Successful, Inconclusive, Inconclusive),
        (Inconclusive, Error, Error),
        (Error, Failed, Failed),
        (Failed, Successful, Failed),
    ] {
        let mut sim = Sim::of(json!({"metrics": [
            {"name": "a", "consecutiveErrorLimit": 0}, {"name": "b", "consecutiveErrorLimit": 0}]}));
        sim.play(&[("a", &[a]), ("b", &[b])]);
        assert_eq!(sim.verdict().0, worst, "{a:?} {b:?}");
        assert_eq!(super::worst(a, b), worst);
    }
}

#[test]
fn a_run_is_ended_by_request() {
    let mut sim = Sim::of(json!({"terminate": true, "metrics": [{"name": "a"}]}));
    let decision = sim.step();
    assert!(decision.tasks.is_empty());
    assert_eq!(sim.verdict(), (Successful, "Run Terminated"));
    assert_eq!(decision.events[0].message, "Analysis Completed. Result: Successful");

    let mut sim = Sim::of(json!({"metrics": [{"name": "a", "interval": "1m"}]}));
    sim.play(&[("a", &[Successful, Successful])]);
    sim.run.spec.terminate = true;
    sim.step();
    assert_eq!(sim.verdict(), (Successful, "Run Terminated"));

    let mut sim = Sim::of(json!({"metrics": [{"name": "j"}]}));
    sim.step();
    sim.record("j", job(Running));
    sim.step();
    assert_eq!(sim.result("j").phase, Running);
    sim.run.spec.terminate = true;
    let decision = sim.step();
    assert!(matches!(&decision.tasks[..], [Task::Terminate { .. }]));
    let message = "Metric \"j\" assessed Inconclusive due to inconclusive (1) > inconclusiveLimit (0): \"Error Message: \
                   Metric Terminated\"";
    assert_eq!(sim.verdict(), (Inconclusive, message));
}

#[test]
fn dry_runs_do_not_count() {
    let mut sim = Sim::of(json!({"dryRun": [{"metricName": "dry.*"}], "metrics": [
        {"name": "dry-1"}, {"name": "dry-2", "interval": "1m", "count": 2}, {"name": "real", "interval": "1m", "count": 2}]}));
    sim.play(&[("dry-1", &[Failed]), ("dry-2", &[Successful; 2]), ("real", &[Successful; 2])]);
    assert_eq!(sim.verdict(), (Successful, ""));
    let (counting, dry) =
        (sim.run.status.run_summary.clone().unwrap(), sim.run.status.dry_run_summary.clone().unwrap());
    assert_eq!((counting.count, counting.successful), (1, 1));
    assert_eq!((dry.count, dry.successful, dry.failed), (2, 1, 1));
    assert!(sim.result("dry-1").dry_run && !sim.result("real").dry_run);
    let message = "Metric assessed Failed due to failed (1) > failureLimit (0)";
    assert_eq!(sim.result("dry-1").message.as_deref(), Some(message));

    let mut sim = Sim::of(json!({"dryRun": [{"metricName": ".*"}], "metrics": [{"name": "a"}]}));
    sim.play(&[("a", &[Failed])]);
    assert_eq!(sim.verdict(), (Successful, ""));
}

#[test]
fn a_run_that_can_not_be_is_an_error() {
    for (spec, message) in [
        (json!({"metrics": []}), "Analysis spec invalid: metrics: no metrics specified"),
        (
            json!({"metrics": [{"name": "a", "count": 2}]}),
            "Analysis spec invalid: metrics[0]: interval must be specified when count > 1",
        ),
        (
            json!({"metrics": [{"name": "a"}], "dryRun": [{"metricName": "x"}]}),
            "Analysis spec invalid: dryRun[0]: Rule didn't match any metric name(s)",
        ),
        (
            json!({"metrics": [{"name": "a", "successCondition": "result > {{args.x}}"}]}),
            "Unable to resolve metric arguments: metric \"a\": failed to resolve {{args.x}}",
        ),
        (
            json!({"metrics": [{"name": "a"}], "args": [{"name": "x"}]}),
            "Unable to resolve metric arguments: args.x was not resolved",
        ),
    ] {
        let mut sim = Sim::of(spec);
        let decision = sim.step();
        assert_eq!(sim.verdict(), (Error, message));
        assert_eq!(sim.events, ["AnalysisRunError"]);
        assert!(decision.events[0].warning && decision.tasks.is_empty());
    }
}

#[test]
fn arguments_reach_the_limits() {
    let mut sim = Sim::of(json!({
        "args": [{"name": "n", "value": "2"}, {"name": "t", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "metrics": [{"name": "a", "interval": "{{args.n}}m", "count": "{{args.n}}",
            "provider": {"web": {"url": "http://x", "headers": [{"key": "A", "value": "{{args.t}}"}]}}}]}));
    assert_eq!(sim.play(&[("a", &[Successful; 2])]), 120);
    assert_eq!(sim.verdict().0, Successful);
}

#[test]
fn measurements_are_kept_as_long_as_they_should() {
    let mut sim = Sim::of(json!({"metrics": [
        {"name": "a", "interval": "1m"}, {"name": "b", "interval": "1m"}], "measurementRetention": [{"metricName": "b", "limit": 2}]}));
    sim.play(&[("a", &[Successful; 13]), ("b", &[Successful; 13])]);
    assert_eq!((sim.result("a").measurements.len(), sim.result("b").measurements.len()), (10, 2));
    assert_eq!((sim.result("a").count, sim.result("b").count), (13, 13));

    let mut sim = Sim::of(json!({"metrics": [{"name": "j", "interval": "1s"}],
        "measurementRetention": [{"metricName": "j", "limit": 1}]}));
    for _ in 0..2 {
        sim.step();
        sim.record("j", job(Successful));
        sim.wait(1);
    }
    let decision = sim.step();
    assert!(
        matches!(&decision.tasks[..], [Task::Collect { metric, .. }, Task::Start { .. }] if metric == "j"),
        "{:?}",
        decision.tasks
    );
}

#[test]
fn a_measurement_elsewhere_is_resumed() {
    let mut sim = Sim::of(json!({"metrics": [{"name": "k"}]}));
    sim.step();
    let later = Time(sim.now + SignedDuration::from_secs(15));
    sim.record("k", Measurement { resume_at: Some(later), ..job(Running) });
    let decision = sim.step();
    assert_eq!((decision.tasks, decision.look_again), (vec![], Some(Duration::from_secs(15))));
    sim.wait(15);
    let decision = sim.step();
    assert!(matches!(&decision.tasks[..], [Task::Resume { .. }]));
    sim.record("k", job(Successful));
    sim.step();
    assert_eq!(sim.verdict().0, Successful);
    assert_eq!(sim.result("k").measurements.len(), 1);
    assert_eq!(sim.result("k").measurements[0].resume_at, None);
}

#[test]
fn nothing_starts_twice() {
    let mut sim = Sim::of(json!({"metrics": [{"name": "a"}, {"name": "b"}]}));
    let first = sim.step();
    assert_eq!(starts(&first), ["a", "b"]);
    sim.idle.insert("a".into());
    assert_eq!(starts(&sim.step()), ["b"]);
}

#[test]
fn the_interval_counts_from_the_end() {
    let mut sim = Sim::of(json!({"metrics": [{"name": "a", "interval": "60s", "count": 2}]}));
    sim.step();
    let started = Time(sim.now);
    sim.wait(45);
    sim.record("a", Measurement { started_at: Some(started), ..measured(Successful) });
    assert_eq!(sim.step().look_again, Some(Duration::from_secs(60)));
    sim.wait(59);
    assert!(starts(&sim.step()).is_empty());
    sim.wait(1);
    assert_eq!(starts(&sim.step()), ["a"]);
}

#[test]
fn a_finished_run_is_deleted_in_time() {
    for (strategy, phase, seconds) in [
        (json!({"secondsAfterCompletion": 60}), Successful, Some(60)),
        (json!({"secondsAfterCompletion": 60, "secondsAfterSuccess": 10}), Successful, Some(10)),
        (json!({"secondsAfterCompletion": 60, "secondsAfterSuccess": 10}), Failed, Some(60)),
        (json!({"secondsAfterFailure": 30}), Failed, Some(30)),
        (json!({"secondsAfterFailure": 30}), Error, None),
        (json!({"secondsAfterFailure": 30}), Successful, None),
        (json!({"secondsAfterSuccess": 0}), Successful, Some(0)),
    ] {
        let mut run = run_of(json!({"metrics": [{"name": "a"}], "ttlStrategy": strategy}));
        run.status = AnalysisRunStatus { phase, completed_at: Some(Time(start())), ..Default::default() };
        let at = |seconds: i64| decide(&run, &BTreeSet::new(), start() + SignedDuration::from_secs(seconds));
        match seconds {
            None => assert_eq!((at(1_000_000).delete, at(0).look_again), (false, None), "{strategy} {phase:?}"),
            Some(seconds) => {
                assert!(at(seconds).delete, "{strategy} {phase:?}");
                assert_eq!(at(seconds - 1).look_again, Some(Duration::from_secs(1)), "{strategy} {phase:?}");
            }
        }
    }
}

fn outcome() -> impl Strategy<Value = AnalysisPhase> {
    prop_oneof![5 => Just(Successful), 2 => Just(Failed), 1 => Just(Inconclusive), 1 => Just(Error)]
}

proptest! {
    #[test]
    fn runs_keep_their_books(
        outcomes in proptest::collection::vec((0usize..3, outcome()), 0..60),
        counts in proptest::collection::vec(1i32..5, 3),
        limits in proptest::collection::vec(0i32..4, 3),
        dry in 0usize..4,
    ) {
        let metrics: Vec<_> = (0..3).map(|i| json!({"name": format!("m{i}"), "interval": "1s", "count": counts[i],
            "failureLimit": limits[i].min(counts[i]), "inconclusiveLimit": limits[i].min(counts[i])})).collect();
        let rules: Vec<_> = (0..3).filter(|i| *i == dry).map(|i| json!({"metricName": format!("m{i}")})).collect();
        let mut sim = Sim::of(json!({"metrics": metrics, "dryRun": rules}));
        let mut final_phases: BTreeMap<String, AnalysisPhase> = BTreeMap::new();
        let mut verdict = None;
        for (which, phase) in outcomes {
            let decision = sim.step();
            if let Some(verdict) = verdict {
                prop_assert_eq!(sim.run.status.phase, verdict, "a verdict stays");
                prop_assert!(decision.tasks.is_empty() && decision.events.is_empty());
            }
            if sim.run.status.phase.completed() {
                verdict = Some(sim.run.status.phase);
            }
            for result in &sim.run.status.metric_results {
                prop_assert_eq!(result.count, result.successful + result.failed + result.inconclusive);
                if let Some(before) = final_phases.get(&result.name) {
                    prop_assert_eq!(*before, result.phase, "a metric's verdict stays");
                }
                if result.phase.completed() {
                    final_phases.insert(result.name.clone(), result.phase);
                }
            }
            for summary in [&sim.run.status.run_summary, &sim.run.status.dry_run_summary].into_iter().flatten() {
                prop_assert!(summary.successful + summary.failed + summary.inconclusive + summary.error <= summary.count);
            }
            // Deciding again at once changes nothing.
            let again = decide(&sim.run, &sim.idle, sim.now);
            prop_assert_eq!(&again.status, &sim.run.status);
            prop_assert!(again.events.is_empty());
            sim.record(&format!("m{which}"), measured(phase));
            sim.wait(1);
        }
    }

    #[test]
    fn finite_runs_end(seed in proptest::collection::vec(outcome(), 60)) {
        let mut sim = Sim::of(json!({"metrics": [
            {"name": "a", "interval": "5s", "count": 4, "failureLimit": 2, "inconclusiveLimit": 1},
            {"name": "b", "interval": "7s", "count": 3, "failureLimit": 3}, {"name": "c"}]}));
        let (a, rest) = seed.split_at(20);
        let (b, c) = rest.split_at(20);
        sim.play(&[("a", a), ("b", b), ("c", c)]);
        prop_assert!(sim.run.status.phase.completed());
        prop_assert!(sim.run.status.completed_at.is_some());
    }
}
