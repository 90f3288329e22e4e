//! The controller as a process: who leads, how it ends, what it tells, whom it leaves alone, and what rights it needs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_e2e::{http, run};

use crate::roles;
use crate::scene::{self, INSTANCE, Scene};

const LEASE: &str = "argo-rollouts-controller-lock";
/// The shortest that makes sense, so that a test need not wait for the default of 15 s.
const ELECTION: [&str; 4] = [
    "--leader-elect=true",
    "--leader-election-lease-duration=3s",
    "--leader-election-renew-deadline=2s",
    "--leader-election-retry-period=200ms",
];

async fn holder(scene: &Scene) -> Result<String> {
    let lease = scene.get("coordination.k8s.io/v1", "Lease", LEASE).await?;
    Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn one_leads_and_another_takes_over() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::alone(cluster, "leader").await?;
        let mut first = scene.namespace.start_controller(&ELECTION).await?;
        let leader = scene
            .until("the first to lead", async || {
                let holder = holder(&scene).await?;
                ensure!(!holder.is_empty(), "nobody holds the Lease");
                Ok(holder)
            })
            .await?;
        // The second is healthy while it stands by, and leaves the work to the first.
        let mut second = scene.namespace.start_controller(&ELECTION).await?;
        scene
            .until("the second to stand by", async || {
                ensure!(second.log().contains("Stands by"), "{}", second.log_tail(5));
                Ok(())
            })
            .await?;
        scene.deploy(scene::canary("web", "1", 1, json!([{"setWeight": 50}, {"pause": {}}]))).await?;
        assert!(!second.log().contains("NewReplicaSetCreated") && !second.log().contains("creates ReplicaSet"));
        assert!(first.log().contains("creates ReplicaSet web-"), "{}", first.log_tail(20));
        assert_eq!(holder(&scene).await?, leader);

        first.kill()?;
        scene.set_tag("web", "2")?;
        scene.paused_at("web", 1).await?;
        let next = holder(&scene).await?;
        assert!(next != leader && !next.is_empty(), "{next}");
        let lease = scene.get("coordination.k8s.io/v1", "Lease", LEASE).await?;
        assert_eq!(lease["spec"]["leaseTransitions"], 1);

        // Whoever goes in peace leaves the Lease free, so that the next need not wait.
        first.restart()?;
        scene
            .until("the first to stand by", async || {
                ensure!(first.log().contains("Stands by"), "{}", first.log_tail(5));
                Ok(())
            })
            .await?;
        second.stop(Duration::from_secs(30))?;
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        first.stop(Duration::from_secs(30))
    })
}

#[test]
fn it_tells_how_it_is_under_the_names_that_dashboards_know() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "metrics").await?;
        let metric = scene::constant(cluster, "one", 1.0, json!({"successCondition": "result[0] == 1"}));
        scene.apply(scene::analysis_template("one", json!({"metrics": [metric]}))).await?;
        let steps = json!([{"analysis": {"templates": [{"templateName": "one"}]}}, {"pause": {}}]);
        scene.deploy(scene::canary("web", "1", 1, steps)).await?;
        scene.set_tag("web", "2")?;
        scene.paused_at("web", 1).await?;
        let (controller, client) = (Scene::controller()?, http::client()?);
        let health = client.get(controller.health_url()).send().await?;
        assert_eq!(health.status(), 200);
        let own = format!(r#"namespace="{}",name="web""#, scene.name());
        let expected = [
            format!(r#"rollout_info{{{own},strategy="canary",traffic_router="",phase="Paused"}} 1"#),
            format!("rollout_info_replicas_desired{{{own}}} 1"),
            format!("rollout_info_replicas_available{{{own}}} 1"),
            format!("rollout_info_replicas_unavailable{{{own}}} 0"),
            format!("rollout_info_replicas_updated{{{own}}} "),
            format!("rollout_reconcile_count{{{own}}} "),
            format!("rollout_reconcile_bucket{{{own},le="),
            format!("rollout_reconcile_error{{{own}}} 0"),
            format!(r#"rollout_events_total{{{own},type="Normal",reason="RolloutPaused"}} 1"#),
            format!(r#"analysis_run_info{{namespace="{}",name="web-"#, scene.name()),
            r#"analysis_run_metric_type{"#.to_owned(),
            r#"analysis_run_metric_phase{"#.to_owned(),
            r#"analysis_run_reconcile_count{"#.to_owned(),
            r#"controller_clientset_k8s_request_total{kind="rollouts""#.to_owned(),
            r#"argo_rollouts_controller_info{version=""#.to_owned(),
            "# TYPE rollout_info gauge".to_owned(),
            "# TYPE rollout_reconcile histogram".to_owned(),
            "# TYPE rollout_events_total counter".to_owned(),
        ];
        scene
            .until("the metrics", async || {
                let metrics = client.get(controller.metrics_url()).send().await?.error_for_status()?.text().await?;
                for line in &expected {
                    ensure!(metrics.lines().any(|found| found.starts_with(line.as_str())), "no {line}");
                }
                Ok(())
            })
            .await?;
        // A Rollout that is gone leaves no series behind.
        scene.kubectl(&["delete", "rollout", "web"])?;
        scene
            .until("the series to be gone", async || {
                let metrics = client.get(controller.metrics_url()).send().await?.error_for_status()?.text().await?;
                let left: Vec<&str> = metrics.lines().filter(|line| line.contains(&own)).collect();
                let left: Vec<&&str> = left.iter().filter(|line| line.starts_with("rollout_info")).collect();
                ensure!(left.is_empty(), "{left:?}");
                Ok(())
            })
            .await
    })
}

#[test]
fn a_role_in_one_namespace_is_enough() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::alone(cluster, "role").await?;
        let other = Scene::alone(cluster, "elsewhere").await?;
        let user = roles::account(&scene, roles::chart_rules()?).await?;
        let mut controller = scene.namespace.start_controller(&[&user]).await?;
        let metric = scene::constant(cluster, "one", 1.0, json!({"successCondition": "result[0] == 1"}));
        scene.apply(scene::analysis_template("one", json!({"metrics": [metric]}))).await?;
        for service in ["stable", "canary"] {
            scene.apply(scene::service(service, "web")).await?;
        }
        let steps = json!([{"analysis": {"templates": [{"templateName": "one"}]}}, {"setWeight": 50}, {"pause": {}}]);
        let strategy = json!({"canary": {"stableService": "stable", "canaryService": "canary", "steps": steps}});
        other.apply(scene::canary("other", "1", 1, json!([]))).await?;
        scene.deploy(scene::rollout("web", "1", 1, strategy)).await?;
        scene.set_tag("web", "2")?;
        scene.paused_at("web", 2).await?;
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        assert!(!controller.log().contains("forbidden"), "{}", controller.log_tail(20));
        assert_eq!(other.rollout("other").await?["status"], Value::Null, "another namespace is another's");
        controller.stop(Duration::from_secs(30))
    })
}

#[test]
fn rollouts_of_another_instance_are_left_alone() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "instance").await?;
        let rollout = |name: &str, id: Option<&str>| {
            let mut rollout = scene::canary(name, "1", 1, json!([{"setWeight": 50}]));
            if let Some(id) = id {
                rollout["metadata"]["labels"][INSTANCE] = id.into();
            }
            rollout
        };
        // Applied past the scene, which would label it.
        scene.namespace.apply(&rollout("none", None).to_string()).await?;
        scene.apply(rollout("theirs", Some("somebody-else"))).await?;
        // When the one after them is done, they have been seen, and passed over.
        scene.deploy(rollout("ours", None)).await?;
        for name in ["none", "theirs"] {
            assert_eq!(scene.rollout(name).await?["status"], Value::Null, "{name}");
            assert_eq!(scene.revisions(name).await?, [], "{name}");
        }
        scene.patch_rollout("theirs", json!({"metadata": {"labels": {INSTANCE: Scene::instance()}}})).await?;
        scene.phase("theirs", "Healthy").await?;
        for name in ["none", "ours"] {
            scene.kubectl(&["delete", "rollout", name])?;
        }
        scene.told("Rollout", "ours", "RolloutDeleted", "is deleted").await?;
        let told = scene.events("Rollout", "none").await?;
        ensure!(told.is_empty(), "of a Rollout of another instance was told: {told:#?}");
        Ok(())
    })
}

#[test]
fn the_log_is_json_when_asked_and_says_why() -> Result<()> {
    run(async |cluster| {
        let (scene, mut controller) = Scene::with_controller(cluster, "json", &["--logformat=json"]).await?;
        scene.deploy(scene::canary("web", "1", 1, json!([{"setWeight": 50}]))).await?;
        controller.stop(Duration::from_secs(30))?;
        let log = controller.log();
        let mut decided = Vec::new();
        for line in log.lines() {
            let entry: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
            let level = entry["level"].as_str().with_context(|| format!("no level: {line}"))?;
            ensure!(["trace", "debug", "info", "warn", "error"].contains(&level.to_lowercase().as_str()), "{line}");
            let fields = entry.to_string();
            if fields.contains(r#""rollout":"web""#) && fields.contains(scene.name()) {
                decided.push(fields);
            }
        }
        for why in ["creates ReplicaSet web-", "revision 1 is stable now: Initial deploy"] {
            assert!(decided.iter().any(|line| line.contains(why)), "no line says {why:?} in {log}");
        }
        Ok(())
    })
}

#[test]
fn a_wrong_flag_is_named() -> Result<()> {
    run(async |cluster| {
        for (args, words) in [
            (vec!["controller", "--no-such-flag"], "--no-such-flag"),
            (vec!["controller", "--leader-election-lease-duration=5s"], "--leader-election-renew-deadline"),
            (vec!["controller", "--context=nowhere"], "nowhere"),
        ] {
            let (code, _, said) = scene::ends(cluster.tidegate()?.args(&args))?;
            assert!(code != 0 && said.contains(words), "{args:?}: {code}: {said}");
        }
        // Called by the peer's name, as an existing Deployment does.
        let link = scene::plugin()?.with_file_name(format!("rollouts-controller-{}", std::process::id()));
        std::os::unix::fs::symlink(tidegate_e2e::controller::tidegate_program()?, &link)?;
        let done = scene::ends(cluster.command(&link.to_string_lossy()).arg("--version"));
        std::fs::remove_file(&link)?;
        let (code, said, _) = done?;
        assert!(code == 0 && !said.trim().is_empty(), "{code}: {said}");
        Ok(())
    })
}
