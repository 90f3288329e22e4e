//! What Rollouts cost, beside what plain Deployments cost in the same run.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tidegate_e2e::process::say;
use tidegate_e2e::{Cluster, Nodes, Options};

use crate::measured::{Measured, wait};
use crate::phase::{self, Phase};
use crate::{Common, WRITERS, api, on_cluster};

/// Measure the Rollouts controller beside plain Deployments.
#[derive(Args)]
pub struct Flags {
    /// Number of Rollouts, and of Deployments.
    #[arg(long, default_value_t = 300)]
    count: usize,
    /// Pods of each.
    #[arg(long, default_value_t = 3)]
    pods: usize,
    /// Leave out the Deployments.
    #[arg(long)]
    no_floor: bool,
    /// Leave out the update of all: with ten thousand Rollouts it takes half an hour.
    #[arg(long)]
    no_update: bool,
    /// Restart the controller at the end and measure how long it takes to know the cluster again.
    #[arg(long)]
    restart: bool,
    #[command(flatten)]
    common: Common,
}

pub fn run(flags: &Flags) -> Result<()> {
    let nodes = u32::try_from((flags.count * flags.pods * 2).div_ceil(100).max(5))?;
    let options = Options { nodes: Nodes::Simulated(nodes), ..Options::named("bench") };
    on_cluster(&flags.common, &options, async |cluster| measure(flags, cluster).await)
}

async fn measure(flags: &Flags, cluster: &Cluster) -> Result<()> {
    let client = cluster.client().await?;
    let mut phases = Vec::new();
    if !flags.no_floor {
        say(&format!("{} Deployments of {} pods", flags.count, flags.pods));
        let api = api(&client, "apps/v1", "Deployment", "default");
        phases.push(
            timed("create Deployments", None, create(&api, flags, deployment), &api, flags, deployment_done).await?,
        );
        phases.push(timed("update Deployments", None, update(&api, flags), &api, flags, deployment_done).await?);
        remove(&api, flags).await?;
    }
    say(&format!("{} Rollouts of {} pods", flags.count, flags.pods));
    let mut controller = Measured::start(&flags.common, cluster, &[])?;
    controller.ready().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    phases.push(Phase { name: "idle, empty".into(), memory: controller.memory(), ..Phase::default() });
    let api = api(&client, "argoproj.io/v1alpha1", "Rollout", "default");
    let begun = jiff::Timestamp::now();
    phases.push(
        timed(
            "create Rollouts until Healthy",
            Some(&controller),
            create(&api, flags, rollout),
            &api,
            flags,
            rollout_done,
        )
        .await?,
    );
    flags.common.requests(cluster, begun)?;
    if !flags.no_update {
        let (steps, begun) = ("all through 20/50/100", jiff::Timestamp::now());
        phases.push(timed(steps, Some(&controller), update(&api, flags), &api, flags, rollout_done).await?);
        flags.common.requests(cluster, begun)?;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    phases.push(Phase { name: "idle, full".into(), memory: controller.memory(), ..Phase::default() });
    if flags.restart {
        controller.stop()?;
        let begun = Instant::now();
        controller = Measured::start(&flags.common, cluster, &[])?;
        controller.ready().await?;
        let wall = begun.elapsed().as_secs_f64();
        phases.push(Phase {
            name: "restart until ready".into(),
            wall,
            cpu: controller.cpu(),
            memory: controller.memory(),
            ..Phase::default()
        });
        phases.push(one_promote(&api, &controller).await?);
    }
    controller.stop()?;
    phase::print(&format!("{} × {} pods", flags.count, flags.pods), flags.count, &phases, flags.common.json);
    Ok(())
}

/// How long one update takes to act while all others are busy: every object is touched first.
async fn one_promote(api: &Api<DynamicObject>, controller: &Measured) -> Result<Phase> {
    let name = "web-00000";
    let before = api.get(name).await?.data.pointer("/status/currentPodHash").cloned();
    let begun = Instant::now();
    change(api, name, "busy").await?;
    wait(|| async { Ok(api.get(name).await?.data.pointer("/status/currentPodHash").cloned() != before) }).await?;
    Ok(Phase {
        name: "one update acts, right after the restart".into(),
        wall: begun.elapsed().as_secs_f64(),
        memory: controller.memory(),
        ..Phase::default()
    })
}

async fn timed(
    name: &str,
    controller: Option<&Measured>,
    work: impl Future<Output = Result<()>>,
    api: &Api<DynamicObject>,
    flags: &Flags,
    done: fn(&Value, i64) -> bool,
) -> Result<Phase> {
    let mark = match controller {
        Some(controller) => Some(controller.mark().await?),
        None => None,
    };
    let begun = Instant::now();
    work.await?;
    wait(|| async {
        let list = api.list(&ListParams::default().match_any()).await?;
        Ok(list.items.len() == flags.count && list.items.iter().all(|o| done(&whole(o), flags.pods as i64)))
    })
    .await
    .with_context(|| name.to_owned())?;
    let wall = begun.elapsed().as_secs_f64();
    let phase = match (controller, &mark) {
        (Some(controller), Some(mark)) => controller.since(mark, name).await?,
        _ => Phase { name: name.to_owned(), wall, ..Phase::default() },
    };
    say(&format!("{name}: {wall:.1} s"));
    Ok(phase)
}

fn whole(object: &DynamicObject) -> Value {
    let mut value = object.data.clone();
    value["generation"] = json!(object.metadata.generation);
    value
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

async fn create(api: &Api<DynamicObject>, flags: &Flags, object: fn(&str, usize) -> Value) -> Result<()> {
    futures::stream::iter((0..flags.count).map(|i| async move {
        let object: DynamicObject = serde_json::from_value(object(&name(i), flags.pods))?;
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

async fn update(api: &Api<DynamicObject>, flags: &Flags) -> Result<()> {
    futures::stream::iter((0..flags.count).map(|i| async move { change(api, &name(i), "2").await }))
        .buffer_unordered(WRITERS)
        .try_collect()
        .await
}

async fn remove(api: &Api<DynamicObject>, flags: &Flags) -> Result<()> {
    futures::stream::iter((0..flags.count).map(|i| async move {
        api.delete(&name(i), &Default::default()).await?;
        Ok::<_, anyhow::Error>(())
    }))
    .buffer_unordered(WRITERS)
    .try_collect::<()>()
    .await?;
    wait(|| async { Ok(api.list(&ListParams::default()).await?.items.is_empty()) }).await
}
