//! Analyses: what is measured decides what becomes of an update.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate_e2e::{Load, run};

use crate::rollout_traffic;
use crate::scene::{self, HASH, Scene};

const ARGO: &str = "argoproj.io/v1alpha1";

/// The success rate of the newest version, from the real Prometheus: each second, one failure is enough.
fn success_rate(scene: &Scene) -> Value {
    let of = |more: &str| {
        format!(
            r#"sum(rate(http_requests_total{{namespace="{}",rollouts_pod_template_hash="{{{{args.hash}}}}"{more}}}[3s]))"#,
            scene.name()
        )
    };
    scene::analysis_template(
        "success-rate",
        json!({
            "args": [{"name": "hash"}],
            "metrics": [{
                "name": "success-rate",
                "interval": "1s",
                "successCondition": "len(result) == 0 || isNaN(result[0]) || result[0] >= 0.9",
                "failureLimit": 0,
                "provider": {"prometheus": {
                    "address": scene.cluster.prometheus_url(),
                    "query": format!(r#"{} / {}"#, of(r#",code="200""#), of("")),
                }},
            }],
        }),
    )
}

/// A run of its own.
fn analysis_run(name: &str, spec: Value) -> Value {
    json!({"apiVersion": ARGO, "kind": "AnalysisRun", "metadata": {"name": name, "labels": {}}, "spec": spec})
}

/// Waits until a run has its verdict.
async fn verdict(scene: &Scene, name: &str) -> Result<Value> {
    scene
        .until(&format!("the verdict of {name}"), async || {
            let run = scene.get(ARGO, "AnalysisRun", name).await?;
            let phase = run["status"]["phase"].as_str().unwrap_or_default();
            ensure!(!["", "Pending", "Running"].contains(&phase), "{}", run["status"]);
            Ok(run)
        })
        .await
}

fn time(value: &Value) -> Result<Timestamp> {
    value.as_str().with_context(|| format!("a time instead of {value}"))?.parse().context("a time")
}

#[test]
fn prometheus_stops_a_bad_version_within_an_interval() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "judged").await?;
        rollout_traffic::prepare(&scene, "web").await?;
        scene.apply(success_rate(&scene)).await?;
        let mut rollout = rollout_traffic::routed("web", "1", 1, json!([{"setWeight": 50}, {"pause": {}}]));
        rollout["spec"]["strategy"]["canary"]["analysis"] = json!({
            "startingStep": 1,
            "templates": [{"templateName": "success-rate"}],
            "args": [{"name": "hash", "valueFrom": {"podTemplateHashValue": "Latest"}}],
        });
        scene.deploy(rollout).await?;
        let (url, host) = (cluster.gateway_url(), scene.host());
        scene.answers(&url, Some(&host), "1").await?;
        let load = Load::new(&url, Some(&host), 50.0).start()?;

        // A good one passes, and its analysis, which would go on for ever, ends with the update.
        scene.set_tag("web", "2")?;
        let paused = scene.paused_at("web", 1).await?;
        let hash = paused["status"]["currentPodHash"].as_str().unwrap_or_default();
        let name = format!("web-{hash}-2");
        scene
            .until("a measurement of real requests", async || {
                let run = scene.get(ARGO, "AnalysisRun", &name).await?;
                let result = &run["status"]["metricResults"][0];
                let measured = result["measurements"].as_array().into_iter().flatten();
                ensure!(measured.clone().any(|measured| measured["value"] == "[1]"), "{result}");
                Ok(())
            })
            .await?;
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        let run = verdict(&scene, &name).await?;
        assert_eq!(run["status"]["phase"], "Successful", "{}", run["status"]);
        assert!(run["status"]["metricResults"][0]["successful"].as_i64() >= Some(1), "{}", run["status"]);
        assert_eq!(run["metadata"]["labels"]["rollout-type"], "Background");
        assert_eq!(run["metadata"]["labels"][HASH], hash);
        assert_eq!(load.report().errors(), 0, "{}", load.report());

        scene.set_tag("web", "bad")?;
        let aborted = scene.phase("web", "Degraded").await?;
        let message = aborted["status"]["message"].as_str().unwrap_or_default();
        let wanted = "RolloutAborted: Rollout aborted update to revision 3: Background analysis phase error/failed: \
                      Metric \"success-rate\" assessed Failed due to failed (1) > failureLimit (0)";
        assert_eq!(message, wanted);
        let hash = aborted["status"]["currentPodHash"].as_str().unwrap_or_default();
        let run = verdict(&scene, &format!("web-{hash}-3")).await?;
        let last = run["status"]["metricResults"][0]["measurements"].as_array().and_then(|all| all.last().cloned());
        let last = last.context("a measurement")?;
        assert_eq!(last["phase"], "Failed");
        let took = time(&aborted["status"]["abortedAt"])?.duration_since(time(&last["finishedAt"])?);
        // Times in a status are whole seconds, rounded down.
        assert!(took.as_secs() <= 1, "the abort came {took} after the measurement");
        scene.share_is(&load, "2", 1.0).await?;
        let report = load.stop().await?;
        let bad: u64 = report.versions.iter().filter(|(name, _)| *name != "1" && *name != "2").map(|(_, n)| n).sum();
        assert!(report.errors() > 0 && report.errors() <= bad, "only the bad version's answers are errors: {report}");
        scene.told("AnalysisRun", &format!("web-{hash}-3"), "AnalysisRunFailed", "").await?;
        scene.told("Rollout", "web", "AnalysisRunFailed", &format!("web-{hash}-3")).await?;
        Ok(())
    })
}

#[test]
fn a_secret_reaches_the_request_and_nothing_else() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "secret").await?;
        let token = format!("s3cret-{}", scene.name());
        // In the cluster's network, as the controller is. It remembers what it was asked.
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = seen.clone();
        let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
            let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
            let header = header.unwrap_or_default().to_owned();
            let path = request.uri().path().to_owned();
            if let Ok(mut seen) = log.lock() {
                seen.push(format!("{path} {header}"));
            }
            async move {
                match path.starts_with("/fails") {
                    true => (axum::http::StatusCode::UNAUTHORIZED, format!("{header} is not welcome at {path}")),
                    // An answer that repeats the secret.
                    false => (axum::http::StatusCode::OK, json!({"you": header, "rate": 0.99}).to_string()),
                }
            }
        });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        scene
            .apply(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "api", "labels": {}},
                "stringData": {"token": token},
            }))
            .await?;
        let web = |path: &str, rest: Value| {
            let mut metric = json!({"name": "web", "provider": {"web": {
                "url": format!("http://{address}{path}"),
                "headers": [{"key": "Authorization", "value": "Bearer {{args.token}}"}],
                "jsonPath": "{$}",
            }}});
            for (key, value) in rest.as_object().into_iter().flatten() {
                metric[key] = value.clone();
            }
            json!({
                "args": [{"name": "token", "valueFrom": {"secretKeyRef": {"name": "api", "key": "token"}}}],
                "metrics": [metric],
            })
        };
        let good = json!({"successCondition": "result.rate > 0.9"});
        scene.apply(analysis_run("good", web("/", good.clone()))).await?;
        let once = json!({"consecutiveErrorLimit": 0});
        scene.apply(analysis_run("fails", web("/fails/{{args.token}}", once.clone()))).await?;
        let wrong = json!({"successCondition": "result.you.none == '{{args.token}}'", "consecutiveErrorLimit": 0});
        scene.apply(analysis_run("condition", web("/", wrong))).await?;
        let mut missing = web("/", once);
        missing["args"][0]["valueFrom"]["secretKeyRef"]["key"] = "other".into();
        scene.apply(analysis_run("missing", missing)).await?;

        let expected = [("good", "Successful"), ("fails", "Error"), ("condition", "Error"), ("missing", "Error")];
        let mut texts = Vec::new();
        for (name, phase) in expected {
            let run = verdict(&scene, name).await?;
            assert_eq!(run["status"]["phase"], phase, "{name}: {}", run["status"]);
            texts.push(run.to_string());
            scene.told("AnalysisRun", name, &format!("AnalysisRun{phase}"), "").await?;
        }
        let missing = scene.get(ARGO, "AnalysisRun", "missing").await?;
        let message = missing["status"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("api") && message.contains("other"), "names Secret and key: {message}");
        let fails = scene.get(ARGO, "AnalysisRun", "fails").await?;
        let message = fails["status"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("received non 2xx response code: 401"), "{message}");
        let asked = seen.lock().map(|seen| seen.clone()).unwrap_or_default();
        assert!(asked.contains(&format!("/ Bearer {token}")), "the secret did not reach the server: {asked:?}");
        assert!(asked.contains(&format!("/fails/{token} Bearer {token}")), "{asked:?}");

        texts.extend(scene.list("v1", "Event").await?.iter().map(Value::to_string));
        texts.push(Scene::controller()?.log());
        for text in texts {
            assert!(!text.contains(&token), "the secret stands in {text}");
        }
        server.abort();
        Ok(())
    })
}

#[test]
fn web_answers_and_jobs_are_judged() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "providers").await?;
        scene.deploy(scene::canary("web", "3", 1, json!([{"setWeight": 50}]))).await?;
        scene.apply(scene::service("web", "web")).await?;
        let url = scene.service_url("web").await?;
        scene.answers(&url, None, "3").await?;
        for (name, version) in [("right", "3"), ("wrong", "4")] {
            let metric = json!({
                "name": "version",
                "successCondition": format!("result == '{version}'"),
                "provider": {"web": {"url": url, "jsonPath": "{$.version}"}},
            });
            scene.apply(analysis_run(name, json!({"metrics": [metric]}))).await?;
        }
        for (name, code) in [("ends-well", "0"), ("ends-badly", "3")] {
            let job = json!({
                "metadata": {"labels": {"made-by": name}},
                "spec": {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [
                    {"name": "job", "image": "tidegate/testserver:1", "args": ["exit", code]},
                ]}}},
            });
            scene.apply(analysis_run(name, json!({"metrics": [{"name": "job", "provider": {"job": job}}]}))).await?;
        }
        for (name, phase) in
            [("right", "Successful"), ("wrong", "Failed"), ("ends-well", "Successful"), ("ends-badly", "Failed")]
        {
            let run = verdict(&scene, name).await?;
            assert_eq!(run["status"]["phase"], phase, "{name}: {}", run["status"]);
        }
        let right = scene.get(ARGO, "AnalysisRun", "right").await?;
        let result = &right["status"]["metricResults"][0];
        assert_eq!((&result["successful"], &result["count"]), (&json!(1), &json!(1)));
        assert_eq!(result["measurements"][0]["value"], "\"3\"");
        let well = scene.get(ARGO, "AnalysisRun", "ends-well").await?;
        let metadata = &well["status"]["metricResults"][0]["measurements"][0]["metadata"];
        let job = metadata["job-name"].as_str().context("the Job's name")?;
        let job = scene.get("batch/v1", "Job", job).await?;
        assert_eq!(job["metadata"]["labels"]["made-by"], "ends-well");
        assert_eq!(job["metadata"]["ownerReferences"][0]["uid"], well["metadata"]["uid"]);
        Ok(())
    })
}

#[test]
fn an_open_verdict_waits_for_a_person() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "open").await?;
        let conditions = json!({"successCondition": "result[0] > 10", "failureCondition": "result[0] < 1"});
        let metric = scene::constant(cluster, "open", 5.0, conditions);
        scene.apply(scene::analysis_template("open", json!({"metrics": [metric]}))).await?;
        let steps = json!([{"analysis": {"templates": [{"templateName": "open"}]}}, {"pause": {}}]);
        scene.deploy(scene::canary("web", "1", 1, steps)).await?;
        scene.set_tag("web", "2")?;
        let paused = scene.paused_at("web", 0).await?;
        assert_eq!(paused["status"]["message"], "InconclusiveAnalysisRun");
        let run = &paused["status"]["canary"]["currentStepAnalysisRunStatus"];
        assert_eq!(run["status"], "Inconclusive", "{run}");
        scene.plugin(&["promote", "web"])?;
        scene.paused_at("web", 1).await?;
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        Ok(())
    })
}

#[test]
fn an_endless_run_ends_when_it_is_told() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "endless").await?;
        let metric =
            scene::constant(cluster, "endless", 1.0, json!({"interval": "1s", "successCondition": "result[0] == 1"}));
        scene.apply(analysis_run("endless", json!({"metrics": [metric]}))).await?;
        scene
            .until("two measurements", async || {
                let run = scene.get(ARGO, "AnalysisRun", "endless").await?;
                let count = &run["status"]["metricResults"][0]["count"];
                ensure!(count.as_i64() >= Some(2), "{}", run["status"]);
                ensure!(run["status"]["phase"] == "Running", "{}", run["status"]);
                Ok(())
            })
            .await?;
        scene.plugin(&["terminate", "analysisrun", "endless"])?;
        let run = verdict(&scene, "endless").await?;
        assert_eq!(run["status"]["phase"], "Successful", "{}", run["status"]);
        assert!(!run["status"]["completedAt"].is_null(), "{}", run["status"]);
        Ok(())
    })
}

#[test]
fn a_prometheus_out_of_reach_is_an_error_that_says_so() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "unreachable").await?;
        let mut metric = scene::constant(cluster, "rate", 1.0, json!({"consecutiveErrorLimit": 0}));
        // Nobody listens there.
        metric["provider"]["prometheus"]["address"] = "http://127.0.0.1:1".into();
        scene.apply(scene::analysis_template("rate", json!({"metrics": [metric]}))).await?;
        let steps = json!([{"setWeight": 50}, {"analysis": {"templates": [{"templateName": "rate"}]}}]);
        scene.deploy(scene::canary("web", "1", 1, steps)).await?;
        scene.set_tag("web", "2")?;
        let aborted = scene.phase("web", "Degraded").await?;
        let message = aborted["status"]["message"].as_str().unwrap_or_default();
        for part in [
            "Step-based analysis phase error/failed",
            "Metric \"rate\" assessed Error due to consecutiveErrors (1) > consecutiveErrorLimit (0)",
            "can not reach 127.0.0.1",
            "Connection refused",
        ] {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
        scene.sizes("web", &[(1, 1), (2, 0)]).await?;
        let (code, _, said) = scene.plugin_ends(&["status", "web", "--timeout=20s"])?;
        assert!(code == 1 && said.contains("can not reach 127.0.0.1"), "{code}: {said}");
        Ok(())
    })
}

#[test]
fn templates_are_merged_and_stay_as_they_were() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "templates").await?;
        let good = json!({"successCondition": "result[0] == {{args.expected}}"});
        let args = json!([{"name": "expected", "value": "1"}]);
        let inner = json!({"args": args, "metrics": [scene::constant(cluster, "inner", 1.0, good)]});
        scene.apply(scene::analysis_template("inner", inner)).await?;
        let dry = scene::constant(cluster, "dry", 1.0, json!({"successCondition": "result[0] == 2"}));
        let outer =
            json!({"templates": [{"templateName": "inner"}], "metrics": [dry], "dryRun": [{"metricName": "d.*"}]});
        scene.apply(scene::analysis_template("outer", outer)).await?;
        let steps = json!([
            {"analysis": {"templates": [{"templateName": "outer"}], "args": [{"name": "expected", "value": "1"}]}},
            {"pause": {}},
        ]);
        scene.deploy(scene::canary("web", "1", 1, steps)).await?;
        scene.set_tag("web", "2")?;
        let paused = scene.paused_at("web", 1).await?;
        let hash = paused["status"]["currentPodHash"].as_str().unwrap_or_default();
        let run = scene.get(ARGO, "AnalysisRun", &format!("web-{hash}-2-0")).await?;
        let metrics = run["status"]["metricResults"].as_array().context("results")?;
        let found: BTreeMap<&str, (&Value, &Value)> = metrics
            .iter()
            .map(|metric| (metric["name"].as_str().unwrap_or_default(), (&metric["phase"], &metric["dryRun"])))
            .collect();
        assert_eq!(found["inner"], (&json!("Successful"), &Value::Null));
        assert_eq!(found["dry"], (&json!("Failed"), &json!(true)));
        assert_eq!(run["status"]["dryRunSummary"]["failed"], 1);
        assert_eq!(run["metadata"]["labels"]["step-index"], "0");
        assert!(run["spec"]["templates"].is_null(), "the run is complete in itself: {}", run["spec"]);
        Ok(())
    })
}
