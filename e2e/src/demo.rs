//! The main job, shown: three commits go from Git to production under load, and the bad one comes back by itself.
//!
//! Real pods, real requests, Tidegate installed from its own chart. Every step is checked; the first that does not happen
//! ends the demonstration with an error and the controller's log.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kube::Api;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

use crate::cluster::{self, Cluster, Nodes, Options};
use crate::git_server::Repository;
use crate::image::{self, Image};
use crate::load::{Load, RunningLoad};
use crate::process::{ProcessId, output, say};
use crate::{install, session, state, wait_for};

/// How the demonstration runs.
#[derive(Debug, Clone)]
pub struct Demo {
    /// Leave the cluster up at the end.
    pub keep: bool,
    /// Requests a second.
    pub rate: f64,
}

const CLUSTER: &str = "demo";
const HOST: &str = "web.example.com";
const NAMESPACE: &str = "shop";
const HOME: &str = "argocd";
const APPLICATION: &str = "shop";
const ROLLOUT: &str = include_str!("../demo/rollout.yaml");
const TRAFFIC: &str = include_str!("../demo/traffic.yaml");
const ANALYSIS: &str = include_str!("../demo/analysis.yaml");
const APPLICATION_MANIFEST: &str = include_str!("../demo/application.yaml");
/// Longest time for one thing to happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// What became of one commit.
struct Row {
    commit: String,
    what: &'static str,
    outcome: String,
    seconds: f64,
    requests: u64,
    errors: u64,
    why: String,
}

/// A wanted and a measured share of the traffic.
struct Split {
    wanted: f64,
    measured: f64,
    requests: u64,
}

/// Runs the demonstration.
///
/// # Errors
/// When anything that it promises does not happen.
pub fn run(demo: &Demo) -> Result<()> {
    let begun = Instant::now();
    let programs = build()?;
    cluster::remove(CLUSTER)?;
    let options = Options {
        nodes: Nodes::Real,
        traefik: true,
        prometheus: true,
        git: true,
        // A cluster that is to stay has no owner; any other ends with this process, however that ends.
        owner: if demo.keep { None } else { ProcessId::current() },
        testserver: Some(session::program("tidegate-testserver")?),
        ..Options::named(CLUSTER)
    };
    let cluster = cluster::up(&options)?;
    let result = session::run_on(&cluster, async |cluster| show(demo, cluster, &programs).await);
    if let Err(error) = &result {
        say(&format!("FAILED: {error:#}"));
        let log = cluster.kubectl().args(["-n", HOME, "logs", "deploy/tidegate", "--tail=40"]).output();
        if let Ok(log) = log {
            say(&format!("the controller's log:\n{}", String::from_utf8_lossy(&log.stdout)));
        }
    }
    if demo.keep {
        say("the cluster stays; look around with");
        println!("  tidegate-e2e exec --name {CLUSTER} -- kubectl argo rollouts get rollout web -n {NAMESPACE}");
        println!("  tidegate-e2e exec --name {CLUSTER} -- argocd app get {APPLICATION}");
        println!("and take it down with `make down NAME={CLUSTER}`");
    } else {
        cluster::remove(CLUSTER)?;
    }
    if result.is_ok() {
        say(&format!("done in {:.0} s", begun.elapsed().as_secs_f64()));
    }
    result
}

/// The programs that the demonstration needs.
struct Programs {
    tidegate: PathBuf,
    render_worker: PathBuf,
    helm: PathBuf,
}

fn build() -> Result<Programs> {
    say("builds Tidegate, its render worker and Helm, as far as they are not built");
    let tidegate = crate::controller::tidegate_program()?;
    let helm = install::helm()?;
    let render_worker = install::render_worker()?;
    Ok(Programs { tidegate, render_worker, helm })
}

async fn show(demo: &Demo, cluster: &Cluster, programs: &Programs) -> Result<()> {
    install_tidegate(cluster, programs)?;
    let repository = cluster.git()?.create("shop")?;
    let client = cluster.client().await?;
    let cluster_view =
        View { rollouts: api(&client, "Rollout", NAMESPACE), applications: api(&client, "Application", HOME) };

    let first = push(&repository, "Start with version 1", "1")?;
    let manifest = APPLICATION_MANIFEST.replace("REPOSITORY", &repository.http_url());
    apply(cluster, &manifest)?;
    say(&format!("commit {} is version 1; the Application syncs it", short(&first)));
    let begun = Instant::now();
    cluster_view.synced(&first).await?;
    cluster_view.phase("Healthy").await?;
    let mut rows = vec![Row {
        commit: short(&first),
        what: "version 1, first deployment",
        outcome: "Healthy".to_owned(),
        seconds: begun.elapsed().as_secs_f64(),
        requests: 0,
        errors: 0,
        why: "the first deployment skips the steps".to_owned(),
    }];

    let load = Load::new(&cluster.gateway_url(), Some(HOST), demo.rate).start()?;
    wait_for("answers from version 1", PATIENCE, async || {
        let report = load.report();
        ensure!(report.recent_share("1", 2) > 0.99, "share {:.2}", report.recent_share("1", 2));
        Ok(())
    })
    .await?;
    let settled_errors = load.report().errors();
    let mut splits = Vec::new();
    rows.push(good(cluster, &cluster_view, &repository, &load, &mut splits).await?);
    ensure!(rows[1].errors == 0, "users saw {} errors while a good version went out", rows[1].errors);
    rows.push(bad(cluster, &cluster_view, &repository, &load).await?);
    rows.push(fix(cluster, &cluster_view, &repository, &load).await?);
    ensure!(rows[3].errors == 0, "users saw {} errors while the fix went out", rows[3].errors);
    let report = load.stop().await?;
    println!(
        "\n{:<10} {:<28} {:<12} {:>7} {:>9} {:>7}  WHY",
        "COMMIT", "WHAT", "OUTCOME", "SECONDS", "REQUESTS", "ERRORS"
    );
    for row in &rows {
        println!(
            "{:<10} {:<28} {:<12} {:>7.1} {:>9} {:>7}  {}",
            row.commit, row.what, row.outcome, row.seconds, row.requests, row.errors, row.why
        );
    }
    println!("\n{:<8} {:<8} REQUESTS", "WANTED", "MEASURED");
    for split in &splits {
        println!("{:<8} {:<8} {}", percent(split.wanted), percent(split.measured), split.requests);
    }
    println!("\n{} requests in all, {} errors before the first update", report.requests, settled_errors);
    let memory = tidegate_memory();
    if let Some(mib) = memory {
        println!("Tidegate's memory at the end: {mib:.0} MiB");
    }
    Ok(())
}

/// Resident memory of the controller's process. Its pod's processes are visible from here.
fn tidegate_memory() -> Option<f64> {
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command);
        if !command.starts_with("/usr/local/bin/tidegate\0") {
            return None;
        }
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
    })
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn short(commit: &str) -> String {
    commit.chars().take(7).collect()
}

/// Tidegate as a pod, from its own chart, with its own image, ServiceAccount and rights.
fn install_tidegate(cluster: &Cluster, programs: &Programs) -> Result<()> {
    say("makes Tidegate's image and installs its chart");
    let image = Image::controller(&programs.tidegate, Some(&programs.render_worker))?.named("tidegate:demo", &[]);
    image::import(cluster.sandbox()?, &image)?;
    let chart = state::repository().join("charts/tidegate");
    let mut helm = cluster.command(&programs.helm.to_string_lossy());
    helm.arg("install").arg("tidegate").arg(chart).args(["--namespace", HOME, "--create-namespace", "--wait"]);
    helm.args(["--timeout", "120s", "--set", "image.tag=demo"]);
    // Least privilege: what this Application contains, and nothing else.
    let values = state::repository().join("e2e/demo/values.yaml");
    helm.arg("--values").arg(values);
    output(&mut helm).context("install the chart")?;
    Ok(())
}

fn apply(cluster: &Cluster, manifest: &str) -> Result<()> {
    use std::io::Write;
    let mut kubectl = cluster.kubectl();
    kubectl.args(["apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = kubectl.spawn().context("kubectl apply")?;
    child.stdin.take().context("kubectl's standard input")?.write_all(manifest.as_bytes())?;
    ensure!(child.wait()?.success(), "kubectl apply failed");
    Ok(())
}

fn push(repository: &Repository, message: &str, version: &str) -> Result<String> {
    let rollout = ROLLOUT.replace("testserver:1", &format!("testserver:{version}"));
    repository.commit(
        message,
        &[
            ("web/rollout.yaml", Some(rollout.as_str())),
            ("web/traffic.yaml", Some(TRAFFIC)),
            ("web/analysis.yaml", Some(ANALYSIS)),
        ],
    )
}

/// Tells Tidegate of a push as a Git server does, through the Service of the chart.
async fn webhook(cluster: &Cluster, repository: &Repository, commit: &str) -> Result<()> {
    let address = cluster
        .kubectl()
        .args([
            "-n",
            HOME,
            "get",
            "service",
            "tidegate-webhook",
            "-o",
            "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}",
        ])
        .output()
        .context("the webhook's Service")?;
    let address = String::from_utf8_lossy(&address.stdout).into_owned();
    let body = serde_json::json!({
        "ref": "refs/heads/main", "after": commit, "before": "0000000000000000000000000000000000000000",
        "repository": {"html_url": repository.http_url(), "clone_url": repository.http_url(), "default_branch": "main"},
        "commits": [],
    });
    let answer = reqwest::Client::new()
        .post(format!("http://{address}/api/webhook"))
        .header("X-GitHub-Event", "push")
        .json(&body)
        .send()
        .await
        .context("call the webhook")?;
    ensure!(answer.status().is_success(), "the webhook answered {}", answer.status());
    Ok(())
}

fn api(client: &kube::Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

struct View {
    rollouts: Api<DynamicObject>,
    applications: Api<DynamicObject>,
}

impl View {
    async fn rollout(&self) -> Result<Value> {
        Ok(self.rollouts.get("web").await?.data)
    }

    async fn application(&self) -> Result<Value> {
        Ok(self.applications.get(APPLICATION).await?.data)
    }

    /// Waits until the Application has applied `commit`.
    async fn synced(&self, commit: &str) -> Result<()> {
        wait_for(&format!("the Application to sync {}", short(commit)), PATIENCE, async || {
            let app = self.application().await?;
            let text = |pointer: &str| app.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let last = text("/status/operationState/syncResult/revision");
            ensure!(
                last == commit && text("/status/operationState/phase") == "Succeeded",
                "last synced {}, operation {} {}, conditions {}",
                short(&last),
                text("/status/operationState/phase"),
                text("/status/operationState/message"),
                app.pointer("/status/conditions").unwrap_or(&Value::Null)
            );
            Ok(())
        })
        .await
    }

    /// Waits until the Rollout is in `phase` and has seen its newest spec; gives its message.
    async fn phase(&self, phase: &str) -> Result<String> {
        wait_for(&format!("the Rollout to be {phase}"), PATIENCE, async || {
            let object = self.rollouts.get("web").await?;
            let generation = object.metadata.generation.unwrap_or(0).to_string();
            let status = &object.data["status"];
            let message = status["message"].as_str().unwrap_or_default().to_owned();
            ensure!(
                status["phase"] == phase && status["observedGeneration"].as_str() == Some(&generation),
                "{} {message}",
                status["phase"]
            );
            Ok(message)
        })
        .await
    }
}

/// Commits a version, tells of it, and waits until the rollout has taken it up.
async fn release(
    cluster: &Cluster,
    view: &View,
    repository: &Repository,
    message: &str,
    version: &str,
) -> Result<String> {
    let before = view.rollout().await?["status"]["currentPodHash"].clone();
    let commit = push(repository, message, version)?;
    say(&format!("commit {}: {message}", short(&commit)));
    webhook(cluster, repository, &commit).await?;
    view.synced(&commit).await?;
    wait_for("the Rollout to take the new version up", PATIENCE, async || {
        ensure!(view.rollout().await?["status"]["currentPodHash"] != before, "still the version before");
        Ok(())
    })
    .await?;
    Ok(commit)
}

/// A good version goes out step by step.
async fn good(
    cluster: &Cluster,
    view: &View,
    repository: &Repository,
    load: &RunningLoad,
    splits: &mut Vec<Split>,
) -> Result<Row> {
    let (begun, before) = (Instant::now(), load.report());
    let commit = release(cluster, view, repository, "Release version 2", "2").await?;
    for weight in [10, 50] {
        wait_for(&format!("the canary to have {weight} % of the traffic"), PATIENCE, async || {
            let rollout = view.rollout().await?;
            let now = rollout.pointer("/status/canary/weights/canary/weight").and_then(Value::as_i64);
            let paused = rollout["status"]["phase"] == "Paused";
            ensure!(now == Some(weight) && paused, "weight {now:?}, {}", rollout["status"]["message"]);
            Ok(())
        })
        .await?;
        // One second for connections that were open before, then eight whole seconds of requests.
        let start = load.report();
        wait_for("nine seconds of requests", PATIENCE, async || {
            ensure!(load.report().series.len() >= start.series.len() + 10, "not yet");
            Ok(())
        })
        .await?;
        let report = load.report();
        let (measured, requests) = window(&report, start.series.len() + 1, "2");
        let wanted = weight as f64 / 100.0;
        say(&format!("wanted {}, measured {} of {requests} requests", percent(wanted), percent(measured)));
        // Four standard deviations of a fair coin.
        let bound = 4.0 * (wanted * (1.0 - wanted) / requests.max(1) as f64).sqrt();
        ensure!(
            (measured - wanted).abs() <= bound,
            "the split is {}, wanted {} ± {}",
            percent(measured),
            percent(wanted),
            percent(bound)
        );
        splits.push(Split { wanted, measured, requests });
    }
    view.phase("Healthy").await?;
    wait_for("all answers to come from version 2", PATIENCE, async || {
        ensure!(load.report().recent_share("2", 2) > 0.999, "share {:.3}", load.report().recent_share("2", 2));
        Ok(())
    })
    .await?;
    let after = load.report();
    Ok(Row {
        commit: short(&commit),
        what: "version 2, good",
        outcome: "Healthy".to_owned(),
        seconds: begun.elapsed().as_secs_f64(),
        requests: after.requests - before.requests,
        errors: after.errors() - before.errors(),
        why: "all steps done, Prometheus found nothing".to_owned(),
    })
}

fn window(report: &crate::load::LoadReport, from: usize, version: &str) -> (f64, u64) {
    let seconds = &report.series[from.min(report.series.len())..report.series.len().saturating_sub(1)];
    let all: u64 = seconds.iter().flat_map(|s| s.versions.values()).sum();
    let own: u64 = seconds.iter().filter_map(|s| s.versions.get(version)).sum();
    (if all == 0 { 0.0 } else { own as f64 / all as f64 }, all)
}

/// A bad version is stopped, comes back, and is not applied again.
async fn bad(cluster: &Cluster, view: &View, repository: &Repository, load: &RunningLoad) -> Result<Row> {
    let (begun, before) = (Instant::now(), load.report());
    let commit = release(cluster, view, repository, "Release version 3, which is bad", "bad").await?;
    let message = view.phase("Degraded").await?;
    ensure!(message.contains("RolloutAborted"), "the Rollout is Degraded for another reason: {message}");
    say(&format!("stopped: {message}"));
    wait_for("all traffic to be back on version 2", PATIENCE, async || {
        let rollout = view.rollout().await?;
        let weight = rollout.pointer("/status/canary/weights/canary/weight").and_then(Value::as_i64);
        ensure!(weight == Some(0), "weight {weight:?}");
        ensure!(load.report().recent_share("2", 2) > 0.999, "share {:.3}", load.report().recent_share("2", 2));
        Ok(())
    })
    .await?;
    let seconds = begun.elapsed().as_secs_f64();
    let after = load.report();
    ensure!(after.errors() > before.errors(), "the bad version was never asked: nothing was shown");
    let condition = wait_for("the Application to remember the rejected commit", PATIENCE, async || {
        let app = view.application().await?;
        let conditions = app["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|c| c["type"].as_str().is_some_and(|t| t.contains("Rejected")));
        let found = found.with_context(|| format!("conditions {conditions:?}"))?;
        Ok(found["message"].as_str().unwrap_or_default().to_owned())
    })
    .await?;
    ensure!(condition.contains(&short(&commit)), "the condition does not name the commit: {condition}");
    say(&format!("the Application: {condition}"));
    not_applied_again(cluster, view).await?;
    Ok(Row {
        commit: short(&commit),
        what: "version 3, half of it errors",
        outcome: "aborted".to_owned(),
        seconds,
        requests: after.requests - before.requests,
        errors: after.errors() - before.errors(),
        why: message,
    })
}

/// Asks the Application to look again, twice, and sees that it leaves the Rollout alone.
async fn not_applied_again(cluster: &Cluster, view: &View) -> Result<()> {
    let before = view.rollout().await?["status"]["currentPodHash"].clone();
    for _ in 0..2 {
        let patch = r#"{"metadata":{"annotations":{"argocd.argoproj.io/refresh":"normal"}}}"#;
        let mut kubectl = cluster.kubectl();
        kubectl.args(["-n", HOME, "patch", "application", APPLICATION, "--type", "merge", "-p", patch]);
        output(&mut kubectl).context("ask for a refresh")?;
        wait_for("the refresh to be done", PATIENCE, async || {
            let app = view.applications.get(APPLICATION).await?;
            let asked = app.metadata.annotations.unwrap_or_default().contains_key("argocd.argoproj.io/refresh");
            ensure!(!asked, "not yet");
            Ok(())
        })
        .await?;
        let rollout = view.rollout().await?;
        let phase = rollout["status"]["phase"].as_str().unwrap_or_default().to_owned();
        if phase != "Degraded" || rollout["status"]["currentPodHash"] != before {
            bail!("the rejected commit was applied again: the Rollout is {phase}");
        }
    }
    say("looked at Git again, twice: the rejected commit is not applied");
    Ok(())
}

/// The fix goes through.
async fn fix(cluster: &Cluster, view: &View, repository: &Repository, load: &RunningLoad) -> Result<Row> {
    let (begun, before) = (Instant::now(), load.report());
    let commit = release(cluster, view, repository, "Release version 4, the fix", "4").await?;
    view.phase("Healthy").await?;
    wait_for("all answers to come from version 4", PATIENCE, async || {
        ensure!(load.report().recent_share("4", 2) > 0.999, "share {:.3}", load.report().recent_share("4", 2));
        Ok(())
    })
    .await?;
    let app = view.application().await?;
    let conditions = app["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let rejected = conditions.iter().any(|c| c["type"].as_str().is_some_and(|t| t.contains("Rejected")));
    ensure!(!rejected, "the new commit did not clear the rejected one: {conditions:?}");
    let after = load.report();
    Ok(Row {
        commit: short(&commit),
        what: "version 4, the fix",
        outcome: "Healthy".to_owned(),
        seconds: begun.elapsed().as_secs_f64(),
        requests: after.requests - before.requests,
        errors: after.errors() - before.errors(),
        why: "all steps done, Prometheus found nothing".to_owned(),
    })
}
