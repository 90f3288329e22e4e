//! Measures Tidegate on simulated nodes: what Rollouts cost, beside what plain Deployments cost in the same run.
//!
//! A benchmark, not a test: it asserts nothing about time. Ratios within one run mean something; absolute figures
//! depend on the machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use futures::{StreamExt, TryStreamExt};
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tidegate_e2e::process::say;
use tidegate_e2e::{Cluster, Nodes, Options, cluster, session};

/// Measure the Rollouts controller beside plain Deployments.
#[derive(Parser)]
#[command(name = "tidegate-bench", version)]
struct Cli {
    /// Number of Rollouts, and of Deployments.
    #[arg(long, default_value_t = 300)]
    count: usize,
    /// Pods of each.
    #[arg(long, default_value_t = 3)]
    pods: usize,
    /// The controller to measure.
    #[arg(long, default_value = "target/release/tidegate")]
    tidegate: PathBuf,
    /// Leave out the Deployments.
    #[arg(long)]
    no_floor: bool,
    /// Restart the controller at the end and measure how long it takes to know the cluster again.
    #[arg(long)]
    restart: bool,
    /// Print JSON too.
    #[arg(long)]
    json: bool,
}

/// Requests to the API server under way at the same time while objects are made or changed.
const WRITERS: usize = 16;
/// Longest time for one phase.
const PATIENCE: Duration = Duration::from_secs(1800);
const METRICS_PORT: u16 = 18090;

fn main() -> Result<()> {
    let cli = Cli::parse();
    ensure!(
        cli.tidegate.is_file(),
        "{}: no such file; `cargo build --release -p tidegate` makes it",
        cli.tidegate.display()
    );
    let name = "bench";
    cluster::remove(name)?;
    let nodes = u32::try_from((cli.count * cli.pods * 2).div_ceil(100).max(5))?;
    let cluster = cluster::up(&Options { nodes: Nodes::Simulated(nodes), ..Options::named(name) })?;
    let result = session::run_on(&cluster, async |cluster| measure(&cli, cluster).await);
    cluster::remove(name)?;
    result
}

/// What one phase cost.
#[derive(Default)]
struct Phase {
    name: String,
    wall: f64,
    cpu: f64,
    memory: f64,
    requests: u64,
    writes: u64,
}

async fn measure(cli: &Cli, cluster: &Cluster) -> Result<()> {
    let client = cluster.client().await?;
    let crds = tidegate_e2e::state::repository().join("charts/tidegate/crds");
    let applied = cluster.kubectl().args(["apply", "--server-side", "-f"]).arg(crds).stdout(Stdio::null()).status()?;
    ensure!(applied.success(), "the CRDs cannot be installed");
    let mut phases = Vec::new();
    if !cli.no_floor {
        say(&format!("{} Deployments of {} pods", cli.count, cli.pods));
        let api = api(&client, "apps/v1", "Deployment");
        phases
            .push(timed("create Deployments", None, create(&api, cli, deployment), &api, cli, deployment_done).await?);
        phases.push(timed("update Deployments", None, update(&api, cli), &api, cli, deployment_done).await?);
        remove(&api, cli).await?;
    }
    say(&format!("{} Rollouts of {} pods", cli.count, cli.pods));
    let mut controller = Controller::start(cli, cluster)?;
    controller.ready().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    phases.push(Phase { name: "idle, empty".into(), memory: controller.memory()?, ..Phase::default() });
    let api = api(&client, "argoproj.io/v1alpha1", "Rollout");
    phases.push(
        timed("create Rollouts until Healthy", Some(&controller), create(&api, cli, rollout), &api, cli, rollout_done)
            .await?,
    );
    let steps = "all through 20/50/100";
    phases.push(timed(steps, Some(&controller), update(&api, cli), &api, cli, rollout_done).await?);
    tokio::time::sleep(Duration::from_secs(10)).await;
    phases.push(Phase { name: "idle, full".into(), memory: controller.memory()?, ..Phase::default() });
    if cli.restart {
        controller.stop()?;
        let begun = Instant::now();
        controller = Controller::start(cli, cluster)?;
        controller.ready().await?;
        let wall = begun.elapsed().as_secs_f64();
        phases.push(Phase {
            name: "restart until ready".into(),
            wall,
            cpu: controller.cpu()?,
            memory: controller.memory()?,
            ..Phase::default()
        });
        phases.push(one_promote(&api, &controller).await?);
    }
    controller.stop()?;
    print(cli, &phases);
    Ok(())
}

/// How long one update takes to act while all others are busy: every object is touched first.
async fn one_promote(api: &Api<DynamicObject>, controller: &Controller) -> Result<Phase> {
    let name = "web-00000";
    let before = api.get(name).await?.data.pointer("/status/currentPodHash").cloned();
    let begun = Instant::now();
    change(api, name, "busy").await?;
    wait(|| async { Ok(api.get(name).await?.data.pointer("/status/currentPodHash").cloned() != before) }).await?;
    Ok(Phase {
        name: "one update acts, right after the restart".into(),
        wall: begun.elapsed().as_secs_f64(),
        memory: controller.memory()?,
        ..Phase::default()
    })
}

async fn timed(
    name: &str,
    controller: Option<&Controller>,
    work: impl Future<Output = Result<()>>,
    api: &Api<DynamicObject>,
    cli: &Cli,
    done: fn(&Value, i64) -> bool,
) -> Result<Phase> {
    let cpu = controller.map(Controller::cpu).transpose()?.unwrap_or_default();
    let before = match controller {
        Some(controller) => controller.requests().await?,
        None => BTreeMap::new(),
    };
    let begun = Instant::now();
    work.await?;
    wait(|| async {
        let list = api.list(&ListParams::default().match_any()).await?;
        Ok(list.items.len() == cli.count && list.items.iter().all(|o| done(&whole(o), cli.pods as i64)))
    })
    .await
    .with_context(|| name.to_owned())?;
    let wall = begun.elapsed().as_secs_f64();
    let mut phase = Phase { name: name.to_owned(), wall, ..Phase::default() };
    if let Some(controller) = controller {
        phase.cpu = controller.cpu()? - cpu;
        phase.memory = controller.memory()?;
        for (verb, count) in controller.requests().await? {
            let count = count - before.get(&verb).copied().unwrap_or(0);
            phase.requests += count;
            if !matches!(verb.as_str(), "get" | "list" | "watch") {
                phase.writes += count;
            }
        }
    }
    say(&format!("{name}: {wall:.1} s"));
    Ok(phase)
}

fn whole(object: &DynamicObject) -> Value {
    let mut value = object.data.clone();
    value["generation"] = json!(object.metadata.generation);
    value
}

async fn wait<F: Future<Output = Result<bool>>>(condition: impl Fn() -> F) -> Result<()> {
    let begun = Instant::now();
    while !condition().await? {
        if begun.elapsed() > PATIENCE {
            bail!("not done after {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

fn api(client: &kube::Client, api_version: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), "default", &resource)
}

fn name(index: usize) -> String {
    format!("web-{index:05}")
}

fn pod_template(name: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "web", "image": "registry.local/web:1", "env": [{"name": "V", "value": "1"}],
            "ports": [{"containerPort": 8080}], "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}]},
    })
}

fn deployment(name: &str, pods: usize) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": pods, "selector": {"matchLabels": {"app": name}}, "template": pod_template(name)},
    })
}

fn rollout(name: &str, pods: usize) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": name},
        "spec": {
            "replicas": pods, "selector": {"matchLabels": {"app": name}}, "template": pod_template(name),
            "strategy": {"canary": {"steps": [{"setWeight": 20}, {"setWeight": 50}, {"setWeight": 100}]}},
        },
    })
}

fn deployment_done(object: &Value, pods: i64) -> bool {
    let int = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    int("/status/observedGeneration") == int("/generation")
        && int("/status/updatedReplicas") == pods
        && int("/status/availableReplicas") == pods
        && int("/status/replicas") == pods
}

fn rollout_done(object: &Value, _: i64) -> bool {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    text("/status/phase") == "Healthy"
        && text("/status/observedGeneration").parse().ok() == object.get("generation").and_then(Value::as_i64)
}

async fn create(api: &Api<DynamicObject>, cli: &Cli, object: fn(&str, usize) -> Value) -> Result<()> {
    futures::stream::iter((0..cli.count).map(|i| async move {
        let object: DynamicObject = serde_json::from_value(object(&name(i), cli.pods))?;
        api.create(&PostParams::default(), &object).await.with_context(|| name(i))?;
        Ok::<_, anyhow::Error>(())
    }))
    .buffer_unordered(WRITERS)
    .try_collect()
    .await
}

async fn change(api: &Api<DynamicObject>, name: &str, value: &str) -> Result<()> {
    let patch = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/env/0/value", "value": value}]);
    let patch: json_patch::Patch = serde_json::from_value(patch)?;
    api.patch(name, &PatchParams::default(), &Patch::<()>::Json(patch)).await.with_context(|| name.to_owned())?;
    Ok(())
}

async fn update(api: &Api<DynamicObject>, cli: &Cli) -> Result<()> {
    futures::stream::iter((0..cli.count).map(|i| async move { change(api, &name(i), "2").await }))
        .buffer_unordered(WRITERS)
        .try_collect()
        .await
}

async fn remove(api: &Api<DynamicObject>, cli: &Cli) -> Result<()> {
    futures::stream::iter((0..cli.count).map(|i| async move {
        api.delete(&name(i), &Default::default()).await?;
        Ok::<_, anyhow::Error>(())
    }))
    .buffer_unordered(WRITERS)
    .try_collect::<()>()
    .await?;
    wait(|| async { Ok(api.list(&ListParams::default()).await?.items.is_empty()) }).await
}

/// The controller that is measured.
struct Controller {
    child: Child,
}

impl Controller {
    fn start(cli: &Cli, cluster: &Cluster) -> Result<Self> {
        let mut command: Command = cluster.command(&cli.tidegate.to_string_lossy());
        command.args(["controller", "--leader-elect=false", "--loglevel", "warn", "--healthzPort", "18080"]);
        command.args(["--metricsPort", &METRICS_PORT.to_string()]).stdin(Stdio::null());
        // Not through a wrapper: the process is measured by its id.
        let mut direct = Command::new(cli.tidegate.canonicalize()?);
        direct.args(command.get_args().skip_while(|a| *a != "controller")).stdin(Stdio::null());
        if let Some(kubeconfig) = cluster.kubeconfig() {
            direct.env("KUBECONFIG", kubeconfig);
        }
        for variable in cluster::PROXIES {
            direct.env_remove(variable);
        }
        Ok(Self { child: direct.spawn().context("start the controller")? })
    }

    async fn ready(&self) -> Result<()> {
        wait(|| async {
            let answer = reqwest::get("http://127.0.0.1:18080/readyz").await;
            Ok(answer.is_ok_and(|a| a.status().is_success()))
        })
        .await
    }

    /// Seconds of CPU so far.
    fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: f64 = [11, 12].iter().filter_map(|i| fields.get(*i)?.parse::<f64>().ok()).sum();
        Ok(ticks / 100.0)
    }

    /// Resident memory in MiB.
    fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).context("VmRSS")?;
        let kib: f64 = line.split_whitespace().nth(1).context("VmRSS")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// Requests to the API server by verb.
    async fn requests(&self) -> Result<BTreeMap<String, u64>> {
        let text = reqwest::get(format!("http://127.0.0.1:{METRICS_PORT}/metrics")).await?.text().await?;
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for line in text.lines().filter(|l| l.starts_with("controller_clientset_k8s_request_total{")) {
            let verb = line.split("verb=\"").nth(1).and_then(|r| r.split('"').next()).unwrap_or_default();
            let count: f64 = line.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
            *counts.entry(verb.to_owned()).or_default() += count as u64;
        }
        Ok(counts)
    }

    fn stop(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.stop().ok();
    }
}

fn print(cli: &Cli, phases: &[Phase]) {
    let each = cli.count as f64;
    println!("\n| {} × {} pods | wall s | CPU s | memory MiB | requests each | writes each |", cli.count, cli.pods);
    println!("|---|---|---|---|---|---|");
    let number = |value: f64, digits: usize| if value == 0.0 { String::new() } else { format!("{value:.digits$}") };
    for phase in phases {
        println!(
            "| {} | {} | {} | {} | {} | {} |",
            phase.name,
            number(phase.wall, 1),
            number(phase.cpu, 2),
            number(phase.memory, 1),
            number(phase.requests as f64 / each, 1),
            number(phase.writes as f64 / each, 1),
        );
    }
    if cli.json {
        let rows: Vec<Value> = phases
            .iter()
            .map(|p| json!({"phase": p.name, "wall": p.wall, "cpu": p.cpu, "memory": p.memory, "requests": p.requests, "writes": p.writes}))
            .collect();
        println!("{}", Value::Array(rows));
    }
}
