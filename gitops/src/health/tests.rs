use super::*;
use serde_json::json;

/// The health of an object of `kind` with these parts, as `Status message`.
fn health(api_version: &str, kind: &str, parts: Value) -> String {
    let mut live = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "n"}});
    tidegate_crds::patch::merge_apply(&mut live, &parts);
    match of(&live) {
        Some(health) => format!("{} {}", health.status, health.message).trim_end().to_owned(),
        None => "none".to_owned(),
    }
}

/// Each row: what is merged into the object, and the health.
fn table(api_version: &str, kind: &str, rows: &[(Value, &str)]) {
    for (parts, expected) in rows {
        assert_eq!(health(api_version, kind, parts.clone()), *expected, "{kind} {parts}");
    }
}

#[test]
fn deployment() {
    let with = |spec: i64, all: i64, updated: i64, available: i64| {
        json!({"metadata": {"generation": 2}, "spec": {"replicas": spec}, "status": {"observedGeneration": 2,
            "replicas": all, "updatedReplicas": updated, "availableReplicas": available}})
    };
    let wait = "Progressing Waiting for rollout to finish:";
    let mut late = with(3, 3, 1, 1);
    late["status"]["conditions"] =
        json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
    table(
        "apps/v1",
        "Deployment",
        &[
            (json!({"spec": {"paused": true}, "metadata": {"generation": 2}}), "Suspended Deployment is paused"),
            (
                json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 1}}),
                &format!("{wait} observed deployment generation less than desired generation"),
            ),
            (late, "Degraded Deployment \"x\" exceeded its progress deadline"),
            (with(3, 3, 1, 1), &format!("{wait} 1 out of 3 new replicas have been updated...")),
            (with(3, 4, 3, 3), &format!("{wait} 1 old replicas are pending termination...")),
            (with(3, 3, 3, 2), &format!("{wait} 2 of 3 updated replicas are available...")),
            (with(3, 3, 3, 3), "Healthy"),
            (with(0, 0, 0, 0), "Healthy"),
        ],
    );
    assert_eq!(
        health("apps/v1beta1", "Deployment", json!({})),
        "Unknown unsupported Deployment GVK: apps/v1beta1, Kind=Deployment"
    );
}

#[test]
fn stateful_set() {
    let with = |strategy: Value, status: Value| {
        let mut object = json!({"metadata": {"generation": 1}, "spec": {"replicas": 3, "updateStrategy": strategy},
            "status": {"observedGeneration": 1, "readyReplicas": 3, "updatedReplicas": 1, "currentReplicas": 3,
                "updateRevision": "b", "currentRevision": "a"}});
        tidegate_crds::patch::merge_apply(&mut object, &json!({"status": status}));
        object
    };
    let partitioned = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
    table(
        "apps/v1",
        "StatefulSet",
        &[
            (json!({}), "Progressing Waiting for statefulset spec update to be observed..."),
            (with(rolling.clone(), json!({"readyReplicas": 1})), "Progressing Waiting for 2 pods to be ready..."),
            (
                with(partitioned.clone(), json!({})),
                "Progressing Waiting for partitioned roll out to finish: 1 out of 2 new pods have been updated...",
            ),
            (
                with(partitioned, json!({"updatedReplicas": 2})),
                "Healthy partitioned roll out complete: 2 new pods have been updated...",
            ),
            (with(json!({"type": "OnDelete"}), json!({})), "Healthy statefulset has 3 ready pods"),
            (
                with(rolling.clone(), json!({})),
                "Progressing waiting for statefulset rolling update to complete 1 pods at revision b...",
            ),
            (
                with(rolling, json!({"currentRevision": "b"})),
                "Healthy statefulset rolling update complete 3 pods at revision b...",
            ),
        ],
    );
}

#[test]
fn daemon_set_and_replica_set() {
    let with = |wanted: i64, updated: i64, available: i64| {
        json!({"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "desiredNumberScheduled": wanted,
            "updatedNumberScheduled": updated, "numberAvailable": available}})
    };
    let mut on_delete = with(3, 1, 0);
    on_delete["spec"] = json!({"updateStrategy": {"type": "OnDelete"}});
    table(
        "apps/v1",
        "DaemonSet",
        &[
            (
                json!({"metadata": {"generation": 1}}),
                "Progressing Waiting for rollout to finish: observed daemon set generation less than desired generation",
            ),
            (on_delete, "Healthy daemon set 1 out of 3 new pods have been updated"),
            (
                with(3, 1, 0),
                "Progressing Waiting for daemon set \"x\" rollout to finish: 1 out of 3 new pods have been updated...",
            ),
            (
                with(3, 3, 2),
                "Progressing Waiting for daemon set \"x\" rollout to finish: 2 of 3 updated pods are available...",
            ),
            (with(3, 3, 3), "Healthy"),
        ],
    );
    table(
        "apps/v1",
        "ReplicaSet",
        &[
            (
                json!({"status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "quota"}]}}),
                "Degraded quota",
            ),
            (
                json!({"spec": {"replicas": 2}, "status": {"availableReplicas": 1}}),
                "Progressing Waiting for rollout to finish: 1 out of 2 new replicas are available...",
            ),
            (json!({"spec": {"replicas": 0}}), "Healthy"),
        ],
    );
}

#[test]
fn job_and_cron_job() {
    let with = |kind: &str| json!({"status": {"conditions": [{"type": kind, "status": "True", "message": "m"}]}});
    table(
        "batch/v1",
        "Job",
        &[
            (with("Failed"), "Degraded m"),
            (with("Suspended"), "Suspended m"),
            (with("Complete"), "Healthy m"),
            (json!({"status": {"conditions": [{"type": "Failed", "status": "False"}]}}), "Progressing"),
            (json!({}), "Progressing"),
        ],
    );
    let times = |scheduled: &str, succeeded: &str| json!({"status": {"lastScheduleTime": scheduled, "lastSuccessfulTime": succeeded}});
    table(
        "batch/v1",
        "CronJob",
        &[
            (json!({"spec": {"suspend": true}}), "Suspended CronJob is Suspended"),
            (json!({}), "Healthy CronJob has not been scheduled yet"),
            (
                json!({"status": {"lastScheduleTime": "2026-01-01T00:00:00Z", "active": [{}]}}),
                "Progressing CronJob has active jobs",
            ),
            (
                times("2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"),
                "Healthy CronJob has completed its last execution successfully",
            ),
            (
                times("2026-01-02T00:00:00Z", "2026-01-01T00:00:09Z"),
                "Degraded CronJob has not completed its last execution successfully",
            ),
        ],
    );
}

#[test]
fn pod() {
    let with = |policy: &str, status: Value| json!({"spec": {"restartPolicy": policy}, "status": status});
    let waiting = |reason: &str| json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": reason, "message": "why"}}}]});
    let failed =
        |ended: Value| json!({"phase": "Failed", "containerStatuses": [{"name": "c", "state": {"terminated": ended}}]});
    let mut ignoring = with("OnFailure", waiting("ImagePullBackOff"));
    ignoring["metadata"] = json!({"annotations": {"argocd.argoproj.io/ignore-restart-policy": "true"}});
    table(
        "v1",
        "Pod",
        &[
            (with("Always", waiting("ErrImagePull")), "Degraded why"),
            (with("Always", waiting("CrashLoopBackOff")), "Degraded why"),
            (with("Always", waiting("CreateContainerError")), "Degraded why"),
            (with("Always", waiting("ContainerCreating")), "Progressing"),
            (with("Never", waiting("ErrImagePull")), "Progressing"),
            (ignoring, "Degraded why"),
            (with("Never", json!({"phase": "Succeeded"})), "Healthy"),
            (with("Never", json!({"phase": "Failed", "message": "evicted"})), "Degraded evicted"),
            (with("Never", failed(json!({"message": "boom"}))), "Degraded boom"),
            (with("Never", failed(json!({"reason": "OOMKilled", "exitCode": 137}))), "Degraded OOMKilled"),
            (with("Never", failed(json!({"exitCode": 3}))), "Degraded container \"c\" failed with exit code 3"),
            (
                with("Always", json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})),
                "Healthy",
            ),
            (
                with("Always", json!({"phase": "Running", "containerStatuses": [{"lastState": {"terminated": {}}}]})),
                "Degraded",
            ),
            (with("Always", json!({"phase": "Running"})), "Progressing"),
            (
                with("OnFailure", json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})),
                "Progressing",
            ),
            (with("Always", json!({"phase": "Unknown"})), "Unknown"),
        ],
    );
}

#[test]
fn network_storage_and_policy() {
    let address = json!({"status": {"loadBalancer": {"ingress": [{"ip": "1"}]}}});
    table(
        "v1",
        "Service",
        &[
            (json!({}), "Healthy"),
            (json!({"spec": {"type": "LoadBalancer"}}), "Progressing"),
            (json!({"spec": {"type": "LoadBalancer"}, "status": address["status"]}), "Healthy"),
        ],
    );
    table("networking.k8s.io/v1", "Ingress", &[(json!({}), "Progressing"), (address, "Healthy")]);
    for (phase, expected) in [("Bound", "Healthy"), ("Pending", "Progressing"), ("Lost", "Degraded"), ("", "Unknown")] {
        assert_eq!(health("v1", "PersistentVolumeClaim", json!({"status": {"phase": phase}})), expected);
    }
    let allowed = |status: &str| json!({"status": {"conditions": [{"type": "DisruptionAllowed", "status": status, "reason": "R"}]}});
    table(
        "policy/v1",
        "PodDisruptionBudget",
        &[
            (json!({}), "Progressing Waiting for status"),
            (allowed("True"), "Healthy PodDisruptionBudget has R"),
            (allowed("False"), "Degraded PodDisruptionBudget has R"),
        ],
    );
}

#[test]
fn autoscaler() {
    let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "message": "m"});
    let failing =
        json!([condition("AbleToScale", "True", "ok"), condition("ScalingActive", "False", "FailedGetResourceMetric")]);
    let rows = [
        (failing, "Degraded m"),
        (json!([condition("AbleToScale", "False", "FailedGetScale")]), "Degraded m"),
        (
            json!([condition("ScalingActive", "False", "ScalingDisabled"), condition("AbleToScale", "True", "x")]),
            "Healthy m",
        ),
        (json!([condition("ScalingActive", "True", "x")]), "Progressing Waiting to Autoscale"),
        (json!([]), "Progressing Waiting to Autoscale"),
    ];
    for (conditions, expected) in rows {
        let annotation = json!({"metadata": {"annotations": {"autoscaling.alpha.kubernetes.io/conditions": conditions.to_string()}}});
        assert_eq!(health("autoscaling/v1", "HorizontalPodAutoscaler", annotation), expected);
        let status = json!({"status": {"conditions": conditions}});
        assert_eq!(health("autoscaling/v2", "HorizontalPodAutoscaler", status), expected);
    }
}

#[test]
fn apis() {
    let with = |kind: &str, status: &str| json!({"status": {"conditions": [{"type": kind, "status": status, "reason": "r", "message": "m"}]}});
    table(
        "apiregistration.k8s.io/v1",
        "APIService",
        &[
            (json!({}), "Progressing Waiting to be processed"),
            (with("Available", "True"), "Healthy r: m"),
            (with("Available", "False"), "Progressing r: m"),
        ],
    );
    table(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        &[
            (json!({}), "Progressing Status conditions not found"),
            (with("Established", "True"), "Healthy CRD is healthy"),
            (with("Established", "False"), "Progressing CRD is not established yet"),
            (with("NamesAccepted", "False"), "Degraded CRD names have not been accepted: m"),
            (with("Terminating", "True"), "Progressing CRD is terminating"),
            (with("NonStructuralSchema", "True"), "Degraded Schema violations found: m"),
        ],
    );
}

#[test]
fn rollout() {
    let waiting = "Progressing Waiting for rollout spec update to be observed";
    let with = |phase: &str| json!({"metadata": {"generation": 7}, "status": {"observedGeneration": "7", "phase": phase, "message": "m"}});
    let mut referring = with("Healthy");
    referring["metadata"]["annotations"] = json!({"rollout.argoproj.io/workload-generation": "3"});
    let mut observed = referring.clone();
    observed["status"]["workloadObservedGeneration"] = "3".into();
    table(
        "argoproj.io/v1alpha1",
        "Rollout",
        &[
            (json!({"metadata": {"generation": 7}}), waiting),
            (
                json!({"metadata": {"generation": 7}, "status": {"observedGeneration": "6", "phase": "Healthy"}}),
                waiting,
            ),
            (with("Healthy"), "Healthy m"),
            (with("Degraded"), "Degraded m"),
            (with("Progressing"), "Progressing m"),
            (with("Paused"), "Suspended m"),
            (with(""), "Progressing Waiting for rollout to report its phase"),
            (with("Odd"), "Unknown status.phase: found \"Odd\""),
            (referring, waiting),
            (observed, "Healthy m"),
        ],
    );
}

#[test]
fn other_argo_kinds() {
    for (kind, phase, expected) in [
        ("AnalysisRun", "", "Progressing Waiting for analysis run to finish: status has not been reconciled."),
        ("AnalysisRun", "Running", "Progressing Analysis run is running"),
        ("AnalysisRun", "Successful", "Healthy Analysis run completed successfully"),
        ("AnalysisRun", "Failed", "Degraded m"),
        ("AnalysisRun", "Error", "Degraded m"),
        ("AnalysisRun", "Inconclusive", "Unknown m"),
        ("Experiment", "", "Progressing Waiting for experiment to finish: status has not been reconciled."),
        ("Experiment", "Successful", "Healthy Experiment is successful"),
        ("Experiment", "Failed", "Degraded m"),
        ("Workflow", "", "Progressing m"),
        ("Workflow", "Succeeded", "Healthy m"),
        ("Workflow", "Error", "Degraded m"),
    ] {
        let status = json!({"status": {"phase": phase, "message": "m"}});
        assert_eq!(health("argoproj.io/v1alpha1", kind, status), expected, "{kind} {phase}");
    }
    let set = |kind: &str| json!({"status": {"conditions": [{"type": kind, "status": "True", "message": "m"}]}});
    table(
        "argoproj.io/v1alpha1",
        "ApplicationSet",
        &[
            (set("ErrorOccurred"), "Degraded m"),
            (set("RolloutProgressing"), "Progressing m"),
            (set("ResourcesUpToDate"), "Healthy m"),
            (json!({}), "Progressing Waiting for health status to be determined"),
        ],
    );
}

#[test]
fn gateways_and_routes() {
    let condition = |kind: &str, status: &str, observed: i64| json!({"type": kind, "status": status, "message": "m", "observedGeneration": observed});
    let gateway = |conditions: Value| json!({"metadata": {"generation": 2}, "status": {"conditions": conditions}});
    table(
        "gateway.networking.k8s.io/v1",
        "Gateway",
        &[
            (gateway(json!([])), "Progressing Gateway: waiting for Accepted"),
            (
                gateway(json!([condition("Accepted", "True", 2), condition("Programmed", "True", 2)])),
                "Healthy Gateway is programmed",
            ),
            (gateway(json!([condition("Accepted", "False", 2)])), "Degraded Gateway: Accepted: m"),
            (
                gateway(json!([condition("Accepted", "True", 1)])),
                "Progressing Gateway: waiting for the specification to be observed",
            ),
        ],
    );
    let parent = |name: &str, conditions: Value| json!({"parentRef": {"name": name}, "conditions": conditions});
    let good = json!([condition("Accepted", "True", 1), condition("ResolvedRefs", "True", 1)]);
    let bad = json!([condition("Accepted", "True", 1), condition("ResolvedRefs", "False", 1)]);
    let route = |parents: Value| json!({"metadata": {"generation": 1}, "status": {"parents": parents}});
    table(
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        &[
            (route(json!([])), "Progressing Waiting for a parent to accept the route"),
            (route(json!([parent("a", good.clone())])), "Healthy Route is accepted by all parents"),
            (route(json!([parent("a", good), parent("b", bad)])), "Degraded Parent b: ResolvedRefs: m"),
        ],
    );
}

#[test]
fn kinds_of_other_projects() {
    let with = |kind: &str, status: &str| json!({"status": {"conditions": [{"type": kind, "status": status, "message": "m"}]}});
    table(
        "cert-manager.io/v1",
        "Certificate",
        &[
            (with("Issuing", "True"), "Progressing m"),
            (with("Ready", "True"), "Healthy m"),
            (with("Ready", "False"), "Degraded m"),
            (json!({}), "Progressing Waiting for status"),
        ],
    );
    table(
        "bitnami.com/v1alpha1",
        "SealedSecret",
        &[
            (with("Synced", "False"), "Degraded m"),
            (with("Synced", "True"), "Healthy"),
            (json!({}), "Progressing Waiting for Sealed Secret to be decrypted"),
        ],
    );
}

#[test]
fn kinds_without_a_rule_and_objects_that_go() {
    assert_eq!(health("v1", "ConfigMap", json!({})), "none");
    let going = |finalizers: Value| json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}});
    assert_eq!(health("v1", "ConfigMap", going(json!(["x"]))), "Progressing Pending deletion");
    assert_eq!(health("batch/v1", "Job", going(json!(["argocd.argoproj.io/hook-finalizer"]))), "Healthy");
    assert_eq!(
        health("batch/v1", "Job", going(json!(["argocd.argoproj.io/hook-finalizer", "x"]))),
        "Progressing Pending deletion"
    );
}

fn app(parts: &[(&str, &str, Option<Status>, Value)]) -> String {
    let objects: Vec<(Key, Value)> = parts
        .iter()
        .map(|(group, kind, _, extra)| {
            let mut object =
                json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": "x", "namespace": "n"}});
            tidegate_crds::patch::merge_apply(&mut object, extra);
            (Key::new(group, kind, "n", object::name(&object)), object)
        })
        .collect();
    let own = Key::new("argoproj.io", "Application", "n", "self");
    let parts = parts.iter().zip(&objects).map(|((_, _, status, _), (key, object))| Part {
        key,
        live: (*status != Some(Status::Missing)).then_some(object),
        target: Some(object),
        health: status.map(|status| Health::new(status, "m")),
    });
    let health = aggregate(&own, parts);
    format!("{} {}", health.status, health.message).trim_end().to_owned()
}

#[test]
fn an_application_is_as_its_worst_part() {
    use Status::{Degraded, Healthy, Missing, Progressing, Suspended, Unknown};
    let named = |name: &str| json!({"metadata": {"name": name}});
    let annotated = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
    assert_eq!(app(&[]), "Healthy");
    assert_eq!(app(&[("apps", "Deployment", Some(Healthy), json!({})), ("x", "Thing", None, json!({}))]), "Healthy");
    assert_eq!(
        app(&[
            ("apps", "Deployment", Some(Suspended), json!({})),
            ("apps", "Deployment", Some(Progressing), named("y"))
        ]),
        "Progressing Caused by apps/Deployment:n/y"
    );
    let many: Vec<_> =
        ["a", "b", "c", "d", "e"].iter().map(|n| ("apps", "Deployment", Some(Degraded), named(n))).collect();
    assert_eq!(
        app(&many),
        "Degraded Caused by apps/Deployment:n/a, apps/Deployment:n/b, apps/Deployment:n/c and 2 more"
    );
    assert_eq!(
        app(&[("apps", "Deployment", Some(Missing), json!({})), ("apps", "Deployment", Some(Healthy), named("y"))]),
        "Healthy"
    );
    assert_eq!(
        app(&[("apps", "Deployment", Some(Missing), json!({})), ("x", "Thing", Some(Missing), json!({}))]),
        "Missing"
    );
    assert_eq!(app(&[("batch", "Job", Some(Degraded), annotated("argocd.argoproj.io/hook", "PreSync"))]), "Healthy");
    assert_eq!(app(&[("batch", "Job", Some(Degraded), annotated(IGNORE_HEALTHCHECK, "true"))]), "Healthy");
    assert_eq!(app(&[("argoproj.io", "Application", Some(Unknown), named("child"))]), "Healthy");
    assert_eq!(app(&[("argoproj.io", "Application", Some(Degraded), named("self"))]), "Healthy");
    assert_eq!(
        app(&[("argoproj.io", "Application", Some(Degraded), named("child"))]),
        "Degraded Caused by argoproj.io/Application:n/child"
    );
}
