//! Kubernetes Jobs: one that succeeds is a good measurement.
//!
//! Pure: [`build`] makes the Job of a measurement, [`judge`] says how the measurement stands. Jobs and pods are JSON, of
//! which little is read.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidegate_crds::analysis::{AnalysisPhase, AnalysisRun, Measurement, Metric};
use tidegate_crds::{API_VERSION, Time, keys};

/// Key of a measurement's metadata: the Job's name.
pub const JOB_NAME: &str = "job-name";
/// Key of a measurement's metadata: the Job's namespace.
pub const JOB_NAMESPACE: &str = "job-namespace";
/// A Job's name becomes a label of its pods.
const MAX_NAME: usize = 63;
/// Why a container does not start for lack of its image.
const NO_IMAGE: [&str; 3] = ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"];

/// Where Jobs run when it is not beside their AnalysisRun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// Another namespace (`ARGO_ROLLOUTS_ANALYSIS_JOB_NAMESPACE`).
    pub namespace: Option<String>,
    /// Another cluster (`ARGO_ROLLOUTS_ANALYSIS_JOB_KUBECONFIG`), where the run can not own the Job.
    pub cluster: bool,
}

/// The name of the Job for a metric's next measurement: `<uid>.<metric>.<n>`, n being how many measurements were taken
/// before, plus 1. The metric's part is shortened, and told apart by a hash, when the name would be too long or no name.
pub fn name(run: &AnalysisRun, metric: &str) -> String {
    let result = run.status.metric_results.iter().find(|result| result.name == metric);
    let ordinal = result.map_or(1, |result| i64::from(result.count) + i64::from(result.error) + 1);
    let uid = run.metadata.uid.as_deref().unwrap_or_default();
    let valid = |part: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        part.chars().all(inside) && ends(part.chars().next()) && ends(part.chars().last())
    };
    let full = format!("{uid}.{metric}.{ordinal}");
    if full.len() <= MAX_NAME && valid(metric) {
        return full;
    }
    let hash = metric.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let room = MAX_NAME.saturating_sub(uid.len() + ordinal.to_string().len() + 2 + 9);
    let kept = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let short: String = metric.chars().take(room).map(kept).collect();
    let short = short.trim_matches('-');
    let dash = if short.is_empty() { "" } else { "-" };
    format!("{uid}.{short}{dash}{hash:08x}.{ordinal}")
}

/// The Job for a metric's next measurement. The metric's arguments are filled in.
///
/// # Errors
/// When the metric has no Job with a specification.
pub fn build(run: &AnalysisRun, metric: &Metric, elsewhere: &Elsewhere) -> Result<Value, String> {
    let job = metric.provider.job.as_ref().ok_or("the metric has no provider.job")?;
    if !job.spec.is_object() {
        return Err("provider.job.spec must be set".to_owned());
    }
    let own = |field: &str| {
        let map = job.metadata.as_ref().and_then(|metadata| metadata[field].as_object()).cloned();
        map.unwrap_or_default()
    };
    let mut annotations = own("annotations");
    annotations.insert(keys::ANALYSIS_RUN_NAME.into(), run.name().into());
    annotations.insert(keys::ANALYSIS_RUN_NAMESPACE.into(), run.namespace().into());
    annotations.insert(keys::ANALYSIS_RUN_METRIC.into(), metric.name.as_str().into());
    let mut labels = own("labels");
    let uid = run.metadata.uid.as_deref().unwrap_or_default();
    labels.insert(keys::ANALYSIS_RUN_UID.into(), uid.into());
    let namespace = elsewhere.namespace.as_deref().unwrap_or(run.namespace());
    let mut built = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name(run, &metric.name),
            "namespace": namespace,
            "annotations": annotations,
            "labels": labels,
        },
        "spec": job.spec,
    });
    // On the pods as well: who looks for what a run started finds them.
    let template = &mut built["spec"]["template"];
    if template["metadata"]["labels"].is_null() || template["metadata"]["labels"].is_object() {
        template["metadata"]["labels"][keys::ANALYSIS_RUN_UID] = uid.into();
    }
    // An owner is in the same namespace of the same cluster.
    if !elsewhere.cluster && namespace == run.namespace() {
        built["metadata"]["ownerReferences"] = json!([{
            "apiVersion": API_VERSION,
            "kind": AnalysisRun::KIND,
            "name": run.name(),
            "uid": uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }]);
    }
    Ok(built)
}

/// The measurement whose Job was just created, or was there already and belongs to the run (see [`belongs`]).
pub fn started(job: &Value, now: Time) -> Measurement {
    let text = |field: &str| job["metadata"][field].as_str().unwrap_or_default().to_owned();
    Measurement {
        phase: AnalysisPhase::Running,
        started_at: Some(now),
        metadata: BTreeMap::from([(JOB_NAME.to_owned(), text("name")), (JOB_NAMESPACE.to_owned(), text("namespace"))]),
        ..Measurement::default()
    }
}

/// Namespace and name of the Job that a measurement is about.
pub fn reference<'a>(measurement: &'a Measurement, run: &'a AnalysisRun) -> Option<(&'a str, &'a str)> {
    let name = measurement.metadata.get(JOB_NAME)?;
    let namespace = measurement.metadata.get(JOB_NAMESPACE).map_or(run.namespace(), String::as_str);
    Some((namespace, name))
}

/// Whether a Job was made for the run. A Job of the same name may be somebody else's.
pub fn belongs(job: &Value, run: &AnalysisRun) -> bool {
    let uid = run.metadata.uid.as_deref();
    uid.is_some() && job["metadata"]["labels"][keys::ANALYSIS_RUN_UID].as_str() == uid
}

/// How a measurement stands, after its Job and the Job's pods. Without a Job, which somebody deleted, it is an error.
///
/// Complete is successful, failed is failed, with the Job's reason. A pod that can not get its image says nothing about
/// what should be measured: inconclusive.
pub fn judge(measurement: &Measurement, job: Option<&Value>, pods: &[&Value], now: Time) -> Measurement {
    let mut judged = measurement.clone();
    let Some(job) = job else {
        let name = measurement.metadata.get(JOB_NAME).map_or("", String::as_str);
        judged.phase = AnalysisPhase::Error;
        judged.message = Some(format!("job {name:?} is gone: it was deleted before it was finished"));
        judged.finished_at = Some(now);
        return judged;
    };
    if let Some((phase, message)) = outcome(job).or_else(|| stuck(pods)) {
        judged.phase = phase;
        judged.message = message;
        judged.finished_at = Some(now);
    }
    judged
}

fn outcome(job: &Value) -> Option<(AnalysisPhase, Option<String>)> {
    let conditions = job["status"]["conditions"].as_array()?;
    let holds = |kind: &str| conditions.iter().find(|c| c["type"] == kind && c["status"] == "True");
    if holds("Complete").is_some() {
        return Some((AnalysisPhase::Successful, None));
    }
    let failed = holds("Failed")?;
    let text = |field: &str| failed[field].as_str().filter(|text| !text.is_empty());
    let message = match (text("reason"), text("message")) {
        (Some(reason), Some(message)) => Some(format!("{reason}: {message}")),
        (reason, message) => reason.or(message).map(str::to_owned),
    };
    Some((AnalysisPhase::Failed, message))
}

fn stuck(pods: &[&Value]) -> Option<(AnalysisPhase, Option<String>)> {
    for pod in pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()) {
        let lists = ["initContainerStatuses", "containerStatuses"];
        let containers = lists.iter().flat_map(|list| pod["status"][*list].as_array().into_iter().flatten());
        for container in containers {
            let waiting = &container["state"]["waiting"];
            let Some(reason) = waiting["reason"].as_str().filter(|reason| NO_IMAGE.contains(reason)) else { continue };
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (pod, name) = (text(&pod["metadata"]["name"]), text(&container["name"]));
            let detail = match waiting["message"].as_str() {
                Some(message) => format!("{reason}: {message}"),
                None => reason.to_owned(),
            };
            let message = format!("pod {pod:?}, container {name:?} can not get its image: {detail}");
            return Some((AnalysisPhase::Inconclusive, Some(message)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_crds::analysis::MetricResult;

    fn run() -> AnalysisRun {
        let json =
            json!({"metadata": {"name": "web-1", "namespace": "shop", "uid": "0f5f0c2e-8a3b-4e0e-9a57-1c9d5f1f2a3b"}});
        AnalysisRun::decode(json).unwrap().0
    }

    fn metric(job: Value) -> Metric {
        serde_json::from_value(json!({"name": "smoke", "provider": {"job": job}})).unwrap()
    }

    fn now() -> Time {
        Time("2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn names_fit_into_a_label() {
        let mut run = run();
        assert_eq!(name(&run, "smoke"), "0f5f0c2e-8a3b-4e0e-9a57-1c9d5f1f2a3b.smoke.1");
        run.status.metric_results =
            vec![MetricResult { name: "smoke".into(), count: 2, error: 3, ..MetricResult::default() }];
        assert_eq!(name(&run, "smoke"), "0f5f0c2e-8a3b-4e0e-9a57-1c9d5f1f2a3b.smoke.6");
        let mut seen = std::collections::BTreeSet::new();
        for metric in [
            "a-very-long-name-of-a-metric-that-tests",
            "a-very-long-name-of-a-metric-that-lasts",
            "Error Rate",
            "error_rate",
            "-",
            "é",
            "x.",
            "",
            "metric[0]-web: requests",
        ] {
            let name = name(&run, metric);
            assert!(name.len() <= 63, "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c)), "{name}");
            assert!(!name.contains("-.") && !name.contains(".-") && !name.contains(".."), "{name}");
            assert!(seen.insert(name), "{metric}");
        }
    }

    #[test]
    fn jobs_belong_to_their_run() {
        let job = build(
            &run(),
            &metric(json!({"metadata": {"labels": {"team": "a"}, "annotations": {"note": "x"}},
                "spec": {"backoffLimit": 0, "template": {"spec": {"unknown": true}}}})),
            &Elsewhere::default(),
        )
        .unwrap();
        let uid = "0f5f0c2e-8a3b-4e0e-9a57-1c9d5f1f2a3b";
        assert_eq!(
            job,
            json!({
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {
                    "name": format!("{uid}.smoke.1"),
                    "namespace": "shop",
                    "annotations": {"note": "x", "analysisrun.argoproj.io/name": "web-1",
                        "analysisrun.argoproj.io/namespace": "shop", "analysisrun.argoproj.io/metric-name": "smoke"},
                    "labels": {"team": "a", "analysisrun.argoproj.io/uid": uid},
                    "ownerReferences": [{"apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisRun", "name": "web-1",
                        "uid": uid, "controller": true, "blockOwnerDeletion": true}],
                },
                "spec": {"backoffLimit": 0, "template": {
                    "metadata": {"labels": {"analysisrun.argoproj.io/uid": uid}}, "spec": {"unknown": true},
                }},
            })
        );
        assert!(belongs(&job, &run()));
        assert!(!belongs(&json!({"metadata": {"labels": {}}}), &run()));
        let started = started(&job, now());
        let name = format!("{uid}.smoke.1");
        assert_eq!(reference(&started, &run()), Some(("shop", name.as_str())));
        assert!(build(&run(), &metric(json!({})), &Elsewhere::default()).is_err());
    }

    #[test]
    fn jobs_can_run_elsewhere() {
        let spec = json!({"spec": {}});
        let elsewhere = Elsewhere { namespace: Some("jobs".into()), cluster: false };
        let job = build(&run(), &metric(spec.clone()), &elsewhere).unwrap();
        assert_eq!(job["metadata"]["namespace"], "jobs");
        assert!(job["metadata"]["ownerReferences"].is_null());
        let cluster = Elsewhere { namespace: None, cluster: true };
        assert!(build(&run(), &metric(spec), &cluster).unwrap()["metadata"]["ownerReferences"].is_null());
    }

    #[test]
    fn verdicts() {
        use AnalysisPhase::{Failed, Inconclusive, Running, Successful};
        let condition = |kind: &str, status: &str| {
            json!({"status": {"conditions": [{"type": kind, "status": status, "reason": "BackoffLimitExceeded",
                "message": "Job has reached the specified backoff limit"}]}})
        };
        let waiting = |list: &str, reason: &str| {
            json!({"metadata": {"name": "p"}, "status": {list: [{"name": "c", "state": {"waiting": {"reason": reason,
                "message": "not found"}}}]}})
        };
        let deadline = json!({"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded",
            "message": "Job was active longer than specified deadline"}]}});
        let image = "pod \"p\", container \"c\" can not get its image: ErrImagePull: not found";
        let running = started(&json!({"metadata": {"name": "j"}}), now());
        for (job, pods, phase, message) in [
            (json!({}), vec![], Running, None),
            (condition("Suspended", "True"), vec![], Running, None),
            (condition("Complete", "True"), vec![], Successful, None),
            (condition("Failed", "False"), vec![], Running, None),
            (
                condition("Failed", "True"),
                vec![],
                Failed,
                Some("BackoffLimitExceeded: Job has reached the specified backoff limit"),
            ),
            (deadline, vec![], Failed, Some("DeadlineExceeded: Job was active longer than specified deadline")),
            (json!({}), vec![waiting("containerStatuses", "ErrImagePull")], Inconclusive, Some(image)),
            (json!({}), vec![waiting("initContainerStatuses", "ErrImagePull")], Inconclusive, Some(image)),
            (json!({}), vec![waiting("containerStatuses", "ContainerCreating")], Running, None),
            (condition("Complete", "True"), vec![waiting("containerStatuses", "ImagePullBackOff")], Successful, None),
        ] {
            let pods: Vec<&Value> = pods.iter().collect();
            let judged = judge(&running, Some(&job), &pods, now());
            assert_eq!((judged.phase, judged.message.as_deref()), (phase, message), "{job}");
            assert_eq!(judged.finished_at.is_some(), phase.completed());
        }
        let gone = judge(&running, None, &[], now());
        assert_eq!(gone.phase, AnalysisPhase::Error);
        assert_eq!(gone.message.as_deref(), Some("job \"j\" is gone: it was deleted before it was finished"));
    }
}
