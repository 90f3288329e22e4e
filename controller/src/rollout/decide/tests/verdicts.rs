//! What is decided while a verdict is open, and after it.

use super::*;

fn check() -> Value {
    json!({"templates": [{"templateName": "check"}]})
}

/// A run with this verdict.
fn run(name: &str, phase: &str) -> tidegate_crds::analysis::AnalysisRun {
    let object = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": {"metrics": []}, "status": {"phase": phase},
    });
    serde_json::from_value(object).unwrap()
}

/// Version 2 waits at the pause of its second step, and its background analysis ended without an answer.
fn undecided(pause: Value) -> Snapshot {
    let strategy = canary(json!({
        "steps": [{"setWeight": 25}, {"pause": pause}, {"setWeight": 50}, {"pause": {}}], "analysis": check(),
    }));
    let mut snapshot = healthy(&strategy);
    let status = serde_json::to_value(&snapshot.rollout.status).unwrap();
    snapshot.rollout = rollout(&strategy, "v2", status);
    snapshot.replica_sets = vec![replica_set("v1", 3, 3), replica_set("v2", 1, 1)];
    for _ in 0..3 {
        let decision = decide(&snapshot, now());
        let runs = decision.actions.iter().any(|action| matches!(action, Action::CreateAnalysisRun { .. }));
        snapshot.rollout.status = decision.status;
        if runs {
            let named = snapshot.rollout.status.canary.current_background_analysis_run_status.clone().unwrap();
            snapshot.analysis_runs.push(run(&named.name, "Inconclusive"));
        }
    }
    let status = &snapshot.rollout.status;
    assert_eq!(status.current_step_index, Some(1));
    assert_eq!(reasons(status), ["CanaryPauseStep", "InconclusiveAnalysisRun"]);
    snapshot
}

fn reasons(status: &tidegate_crds::rollout::RolloutStatus) -> Vec<&str> {
    status.pause_conditions.iter().flatten().map(|pause| pause.reason.as_str()).collect()
}

#[test]
fn one_promotion_ends_a_pause_and_an_open_verdict_beside_it() {
    let mut snapshot = undecided(json!({}));
    snapshot.rollout.status.pause_conditions = None;
    let decision = decide(&snapshot, now());
    assert_eq!(decision.status.current_step_index, Some(2));
    assert!(!decision.status.controller_pause, "the promotion is used up");
    let run = decision.status.canary.current_background_analysis_run_status.unwrap();
    assert!(run.name.ends_with(".1"), "{run:?}");
}

#[test]
fn a_promotion_past_an_open_verdict_does_not_count_for_the_pause_to_come() {
    let mut snapshot = undecided(json!({}));
    snapshot.rollout.status.current_step_index = Some(2);
    snapshot.rollout.status.pause_conditions = None;
    let decision = decide(&snapshot, now());
    assert_eq!(decision.status.current_step_index, Some(2));
    assert!(!decision.status.controller_pause);
}

#[test]
fn the_time_of_a_pause_passes_while_a_verdict_is_open() {
    let mut snapshot = undecided(json!({"duration": 30}));
    let decision = decide(&snapshot, now());
    assert_eq!((decision.status.current_step_index, words(&decision)), (Some(1), vec!["Paused at 1".to_owned()]));
    let later = now().checked_add(k8s_openapi::jiff::SignedDuration::from_secs(31)).unwrap();
    let decision = decide(&snapshot, later);
    assert_eq!(words(&decision), ["tell RolloutStepCompleted", "Paused at 2"]);
    assert_eq!(reasons(&decision.status), ["InconclusiveAnalysisRun"]);
    assert_eq!(decision.status.message.as_deref(), Some("InconclusiveAnalysisRun"));
    snapshot.rollout.status = decision.status;
    assert_eq!(words(&decide(&snapshot, later)), ["Paused at 2"], "no pod moves before the verdict");
}

#[test]
fn the_old_version_stays_whole_until_the_new_one_is_proven() {
    let strategy = json!({"blueGreen": {
        "activeService": "web-active", "postPromotionAnalysis": check(), "scaleDownDelaySeconds": 3,
    }});
    let mut snapshot = healthy(&strategy);
    let status = serde_json::to_value(&snapshot.rollout.status).unwrap();
    snapshot.rollout = rollout(&strategy, "v2", status);
    snapshot.replica_sets = vec![replica_set("v1", 4, 4), replica_set("v2", 4, 4)];
    snapshot.rollout.status = decide(&snapshot, now()).status;
    let decision = decide(&snapshot, now());
    assert!(words(&decision).contains(&"web-active selects v2".to_owned()), "{:?}", words(&decision));
    assert!(!words(&decision).iter().any(|word| word.starts_with("patch web-v1")), "{:?}", words(&decision));
    snapshot.rollout.status = decision.status;
    snapshot.services.insert("web-active".to_owned(), service("v2"));
    snapshot.rollout.status = decide(&snapshot, now()).status;
    let named = snapshot.rollout.status.blue_green.post_promotion_analysis_run_status.clone().unwrap();
    snapshot.analysis_runs.push(run(&named.name, "Running"));
    let later = now().checked_add(k8s_openapi::jiff::SignedDuration::from_secs(60)).unwrap();
    assert_eq!(words(&decide(&snapshot, later)), ["tell AnalysisRunRunning", "Progressing"]);
    snapshot.analysis_runs[0] = run(&named.name, "Successful");
    let told = words(&decide(&snapshot, later));
    assert!(told.contains(&"patch web-v1 +scale-down-deadline".to_owned()), "{told:?}");
    assert_eq!(told.last().unwrap(), "Healthy");
}

#[test]
fn a_retried_experiment_can_have_services() {
    let variant = json!({"name": "a", "specRef": "canary", "service": {}});
    let strategy = canary(json!({"steps": [{"experiment": {"templates": [variant]}}, {"pause": {}}]}));
    let mut snapshot = updating(&strategy, 4, 1, 1);
    let made = |snapshot: &Snapshot| {
        let decision = decide(snapshot, now());
        decision.actions.iter().find_map(|action| match action {
            Action::CreateExperiment { object } => object["metadata"]["name"].as_str().map(str::to_owned),
            _ => None,
        })
    };
    let first = made(&snapshot).unwrap();
    let failed = json!({"metadata": {"name": first, "namespace": "shop"}, "spec": {}, "status": {"phase": "Failed"}});
    snapshot.experiments.push(serde_json::from_value(failed).unwrap());
    snapshot.rollout.status.canary.current_experiment = Some(first.clone());
    snapshot.rollout.status = decide(&snapshot, now()).status;
    assert!(snapshot.rollout.status.abort);
    snapshot.rollout.status.abort = false;
    let second = made(&snapshot).unwrap();
    assert_eq!(second, format!("{first}-1"));
}

#[test]
fn a_whole_version_becomes_stable_whatever_the_threshold() {
    let strategy = canary(json!({"replicaProgressThreshold": {"type": "Percent", "value": 200}}));
    let mut snapshot = updating(&strategy, 0, 4, 3);
    snapshot.replica_sets = vec![replica_set("v1", 0, 0), replica_set("v2", 4, 3)];
    assert_eq!(decide(&snapshot, now()).status.stable_rs.as_deref(), Some("v1"));
    snapshot.replica_sets[1] = replica_set("v2", 4, 4);
    assert_eq!(decide(&snapshot, now()).status.stable_rs.as_deref(), Some("v2"));
}

#[test]
fn a_promotion_past_an_open_experiment_counts_when_the_user_lets_the_rollout_go_on() {
    let variant = json!({"name": "a", "specRef": "canary"});
    let strategy = canary(json!({"steps": [{"experiment": {"templates": [variant]}}, {"pause": {}}]}));
    let mut snapshot = updating(&strategy, 4, 1, 1);
    let open = json!({"metadata": {"name": "e", "namespace": "shop"}, "spec": {}, "status": {"phase": "Inconclusive"}});
    snapshot.experiments.push(serde_json::from_value(open).unwrap());
    let status = &mut snapshot.rollout.status;
    status.canary.current_experiment = Some("e".to_owned());
    status.controller_pause = true;
    status.pause_conditions = None;
    snapshot.rollout.spec.paused = true;
    assert!(decide(&snapshot, now()).status.controller_pause, "the promotion is kept");
    snapshot.rollout.spec.paused = false;
    let decision = decide(&snapshot, now());
    assert!(!decision.status.controller_pause);
    assert!(decision.actions.iter().any(|action| matches!(action, Action::CreateExperiment { .. })));
}
