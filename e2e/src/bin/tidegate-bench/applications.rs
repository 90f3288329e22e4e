//! What Applications cost: the first sync of all of them from one repository, and commits that touch one.

use std::collections::HashSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use tidegate_e2e::process::say;
use tidegate_e2e::{Cluster, Nodes, Options, Repository};

use crate::measured::{Measured, wait};
use crate::phase::{self, Phase};
use crate::{Common, WRITERS, api, on_cluster};

/// Measure the Application controller and the programs that it runs.
#[derive(Args)]
pub struct Flags {
    /// Number of Applications: each a directory of one repository with a ConfigMap, a Service and a Deployment.
    #[arg(long, default_value_t = 200)]
    count: usize,
    /// Pods of each Deployment.
    #[arg(long, default_value_t = 1)]
    pods: usize,
    /// Commits that touch one Application each.
    #[arg(long, default_value_t = 10)]
    pushes: usize,
    /// Seconds for which what is idle is looked at.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Leave out making the same objects without Applications.
    #[arg(long)]
    no_floor: bool,
    #[command(flatten)]
    common: Common,
}

/// Where the Applications are, and where what they deploy goes.
const HOME: &str = "default";
const NAMESPACE: &str = "shop";
/// Where the same objects are made without Applications.
const FLOOR: &str = "floor";
const WEBHOOK_PORT: u16 = 18085;
/// Longest time for one phase.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long to go on counting after a commit is done, for whatever follows from it.
const AFTER: Duration = Duration::from_secs(3);

pub fn run(flags: &Flags) -> Result<()> {
    let nodes = u32::try_from((flags.count * flags.pods * 2).div_ceil(100).max(2))?;
    let options = Options { nodes: Nodes::Simulated(nodes), git: true, ..Options::named("bench-applications") };
    on_cluster(&flags.common, &options, async |cluster| measure(flags, cluster).await)
}

async fn measure(flags: &Flags, cluster: &Cluster) -> Result<()> {
    let client = cluster.client().await?;
    for namespace in [NAMESPACE, FLOOR] {
        let made = cluster.kubectl().args(["create", "namespace", namespace]).stdout(Stdio::null()).status()?;
        ensure!(made.success(), "namespace {namespace} cannot be made");
    }
    let mut phases = Vec::new();
    if !flags.no_floor {
        say(&format!("{} times the same objects without Applications", flags.count));
        phases.push(floor(&client, flags).await?);
    }
    let repository = cluster.git()?.create("shop")?;
    let all: Vec<(String, String)> = (0..flags.count).flat_map(|i| files(&name(i), flags.pods, 0)).collect();
    commit(&repository, "All", &all)?;

    let copies = tempfile::Builder::new().prefix("tidegate-bench-").tempdir()?;
    let copies = copies.path().display().to_string();
    let args = ["--webhook-port".to_owned(), WEBHOOK_PORT.to_string(), "--repository-cache".to_owned(), copies];
    let mut controller = Measured::start(&flags.common, cluster, &args)?;
    controller.ready().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    phases.push(Phase { name: "idle, empty".into(), memory: controller.memory(), ..Phase::default() });

    let apps = api(&client, "argoproj.io/v1alpha1", "Application", HOME);
    say(&format!("{} Applications", flags.count));
    let since = jiff::Timestamp::now();
    let mark = controller.mark().await?;
    let (created, done) =
        tokio::join!(create(&apps, &repository, flags.count), all_done(&apps, flags.count, |app| is_synced(app, None)));
    created?;
    done?;
    phases.push(controller.since(&mark, "all created, until Synced and Healthy").await?);
    flags.common.requests(cluster, since)?;
    say(&format!("children: {}", controller.children().join(", ")));

    // What follows from the first sync is none of the pushes' cost, nor what waits for more work to come.
    tokio::time::sleep(Duration::from_secs(40)).await;
    let mark = controller.mark().await?;
    tokio::time::sleep(Duration::from_secs(flags.idle)).await;
    phases.push(controller.since(&mark, &format!("idle, full, {} s", flags.idle)).await?);

    let pushes = pushes(flags, cluster, &controller, &apps, &repository).await?;
    controller.stop()?;
    let title = format!("{} Applications", flags.count);
    phase::print(&title, flags.count, &phases, flags.common.json);
    phase::print("a commit that touches one", 1, &pushes, flags.common.json);
    let median = |of: fn(&Phase) -> f64| {
        let mut all: Vec<f64> = pushes.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let cpu = pushes.iter().map(|push| push.cpu).sum::<f64>() / pushes.len().max(1) as f64;
    println!(
        "\nmedian wall {:.2} s, mean CPU {cpu:.3} s, median writes {}",
        median(|p| p.wall),
        median(|p| p.writes as f64)
    );
    Ok(())
}

/// Makes commits that touch one Application each, and tells the webhook of them as GitHub does.
async fn pushes(
    flags: &Flags,
    cluster: &Cluster,
    controller: &Measured,
    apps: &Api<DynamicObject>,
    repository: &Repository,
) -> Result<Vec<Phase>> {
    let maps = api(&apps.clone().into_client(), "v1", "ConfigMap", NAMESPACE);
    let mut phases = Vec::new();
    let mut lives = Vec::new();
    for number in 1..=flags.pushes {
        let touched = name(number * 7 % flags.count);
        let before = repository.head()?;
        let changed = files(&touched, flags.pods, number);
        let after = commit(repository, &format!("Change {touched}"), &changed[..1])?;
        let path = changed[0].0.as_str();
        let value = json!(number.to_string());
        let live = tokio::spawn(until(&maps, &touched, move |map| map.pointer("/data/value") == Some(&value)).await?);
        let done = tokio::spawn(until(apps, &touched, move |app| is_synced(app, Some(&after))).await?);
        let since = jiff::Timestamp::now();
        let mark = controller.mark().await?;
        let begun = Instant::now();
        tell(repository, &before, &repository.head()?, path).await?;
        let (live, done) = (live.await??, done.await??);
        tokio::time::sleep(AFTER).await;
        let live = live.duration_since(begun).as_secs_f64();
        let mut phase = controller.since(&mark, &format!("push {number}: live after {live:.2} s, done")).await?;
        phase.wall = done.duration_since(begun).as_secs_f64();
        lives.push(live);
        phases.push(phase);
        if number == flags.pushes {
            flags.common.requests(cluster, since)?;
        }
    }
    lives.sort_by(f64::total_cmp);
    println!(
        "\nfirst applied object live after (median) {:.2} s",
        lives.get(lives.len() / 2).copied().unwrap_or_default()
    );
    Ok(phases)
}

fn name(index: usize) -> String {
    format!("app-{index:05}")
}

/// The objects of an Application, the ConfigMap first.
fn objects(name: &str, pods: usize, value: usize) -> [Value; 3] {
    let labels = json!({"app": name});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"value": value.to_string()}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels},
        "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
    "spec": {"replicas": pods, "selector": {"matchLabels": labels}, "template": {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "web", "image": "registry.local/web:1",
            "ports": [{"containerPort": 8080}], "envFrom": [{"configMapRef": {"name": name}}],
            "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}]},
    }}});
    [map, service, deployment]
}

/// The files of an Application, that of the ConfigMap first.
fn files(name: &str, pods: usize, value: usize) -> Vec<(String, String)> {
    let yaml = |object: &Value| serde_saphyr::to_string(object).unwrap_or_else(|_| object.to_string());
    let file = |object: &Value| format!("apps/{name}/{}.yaml", text(object, "/kind").to_lowercase());
    objects(name, pods, value).iter().map(|object| (file(object), yaml(object))).collect()
}

/// Makes the objects of all Applications, as fast as a client can, and waits until the Deployments are available.
async fn floor(client: &kube::Client, flags: &Flags) -> Result<Phase> {
    let begun = Instant::now();
    let make = |i: usize| async move {
        for object in objects(&name(i), flags.pods, 0) {
            let api = api(client, text(&object, "/apiVersion"), text(&object, "/kind"), FLOOR);
            api.create(&PostParams::default(), &serde_json::from_value(object)?).await.with_context(|| name(i))?;
        }
        Ok::<_, anyhow::Error>(())
    };
    futures::stream::iter((0..flags.count).map(make)).buffer_unordered(WRITERS).try_collect::<()>().await?;
    let deployments = api(client, "apps/v1", "Deployment", FLOOR);
    let int = |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    all_done(&deployments, flags.count, |found| {
        int(found, "/status/observedGeneration") > 0 && int(found, "/status/availableReplicas") == flags.pods as u64
    })
    .await?;
    let wall = begun.elapsed().as_secs_f64();
    for kind in ["Deployment", "Service", "ConfigMap"] {
        let version = if kind == "Deployment" { "apps/v1" } else { "v1" };
        let api = api(client, version, kind, FLOOR);
        for i in 0..flags.count {
            api.delete(&name(i), &DeleteParams::default()).await?;
        }
    }
    wait(|| async { Ok(api(client, "v1", "Pod", FLOOR).list(&ListParams::default()).await?.items.is_empty()) }).await?;
    Ok(Phase { name: "the same objects without Applications (floor)".into(), wall, ..Phase::default() })
}

fn commit(repository: &Repository, message: &str, files: &[(String, String)]) -> Result<String> {
    let files: Vec<(&str, Option<&str>)> =
        files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
    repository.commit(message, &files)
}

async fn create(apps: &Api<DynamicObject>, repository: &Repository, count: usize) -> Result<()> {
    futures::stream::iter((0..count).map(|i| async move {
        let name = name(i);
        let app: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": name},
            "spec": {
                "project": "default",
                "source": {"repoURL": repository.http_url(), "targetRevision": "main", "path": format!("apps/{name}")},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": NAMESPACE},
                "syncPolicy": {"automated": {"prune": true, "selfHeal": true}},
            },
        }))?;
        apps.create(&PostParams::default(), &app).await.context(name)?;
        Ok::<_, anyhow::Error>(())
    }))
    .buffer_unordered(WRITERS)
    .try_collect()
    .await
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Whether an Application has applied a commit, any if none is given, and found all as it should be since.
fn is_synced(app: &Value, commit: Option<&str>) -> bool {
    let applied = text(app, "/status/operationState/syncResult/revision");
    text(app, "/status/sync/status") == "Synced"
        && text(app, "/status/health/status") == "Healthy"
        && text(app, "/status/operationState/phase") == "Succeeded"
        && commit.is_none_or(|commit| applied == commit && text(app, "/status/sync/revision") == commit)
}

/// Waits until all objects satisfy a condition.
async fn all_done(api: &Api<DynamicObject>, count: usize, is_done: impl Fn(&Value) -> bool) -> Result<()> {
    let begun = Instant::now();
    let mut done: HashSet<String> = HashSet::new();
    loop {
        let mut stream = api.watch(&WatchParams::default(), "0").await?.boxed();
        while let Some(event) = stream.next().await {
            // A watch that ends is begun again.
            let Ok(WatchEvent::Added(found) | WatchEvent::Modified(found)) = event else { break };
            let name = found.metadata.name.unwrap_or_default();
            if is_done(&found.data) {
                done.insert(name)
            } else {
                done.remove(&name)
            };
            if done.len() == count {
                return Ok(());
            }
        }
        ensure!(begun.elapsed() < PATIENCE, "{} of {count} objects after {PATIENCE:?}", done.len());
    }
}

/// Watches one object. The answer waits until it satisfies the condition, and says when that was.
async fn until<C: Fn(&Value) -> bool + Send + 'static>(
    api: &Api<DynamicObject>,
    name: &str,
    condition: C,
) -> Result<impl Future<Output = Result<Instant>> + Send + use<C>> {
    let version = api.get(name).await?.metadata.resource_version.unwrap_or_default();
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(290);
    let mut stream = api.watch(&params, &version).await?.boxed();
    let name = name.to_owned();
    Ok(async move {
        while let Some(event) = stream.next().await {
            if let WatchEvent::Modified(object) = event?
                && condition(&object.data)
            {
                return Ok(Instant::now());
            }
        }
        bail!("{name}: not done within the time of a watch")
    })
}

/// Tells the webhook of a push, in the words of GitHub.
async fn tell(repository: &Repository, before: &str, after: &str, path: &str) -> Result<()> {
    let url = repository.http_url();
    let body = json!({
        "ref": "refs/heads/main", "before": before, "after": after, "created": false, "deleted": false, "forced": false,
        "repository": {"name": repository.name, "clone_url": url, "html_url": url.trim_end_matches(".git"),
            "default_branch": "main"},
        "commits": [{"id": after, "added": [], "removed": [], "modified": [path]}],
    });
    let request = tidegate_e2e::http::client()?.post(format!("http://127.0.0.1:{WEBHOOK_PORT}/api/webhook"));
    let answer = request.header("x-github-event", "push").json(&body).send().await?.error_for_status()?;
    say(answer.text().await?.trim());
    Ok(())
}
