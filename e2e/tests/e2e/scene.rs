//! A namespace with Rollouts that the run's one controller looks after, and the hands of a user: the kubectl plugin,
//! kubectl, and requests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tidegate_e2e::cluster::Cluster;
use tidegate_e2e::controller::tidegate_program;
use tidegate_e2e::load::RunningLoad;
use tidegate_e2e::process::{output, raw_output};
use tidegate_e2e::{Controller, LoadReport, TestNamespace, http, wait_for};
use tokio::sync::OnceCell;

/// Time for things that take seconds on an idle machine. Waits end as soon as their condition holds.
pub const SOON: Duration = Duration::from_secs(60);
/// The label that tells which controller an object is for.
pub const INSTANCE: &str = "argo-rollouts.argoproj.io/controller-instance-id";
/// The label of ReplicaSets and their pods, and the selector of the Services that follow them.
pub const HASH: &str = "rollouts-pod-template-hash";
/// The annotation that counts revisions.
pub const REVISION: &str = "rollout.argoproj.io/revision";
/// Namespace of the shared controller's Lease and configuration.
const HOME: &str = "tidegate-e2e";

/// The controller that all tests of a run share, and the pipe whose end ends it.
struct Shared {
    controller: Controller,
    _guard: ChildStdin,
}

static SHARED: OnceCell<Result<Shared, String>> = OnceCell::const_new();

fn shared() -> Option<&'static Shared> {
    SHARED.get().and_then(|shared| shared.as_ref().ok())
}

/// The instance id of the shared controller: controllers of other tests and runs leave its Rollouts alone.
fn instance() -> String {
    format!("e2e-{}", std::process::id())
}

async fn start_shared(cluster: &'static Cluster) -> Result<Shared> {
    let client = cluster.client().await?;
    let home = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}});
    tidegate_e2e::apply::apply(&client, &home).await?;
    install_chart_crds(&client).await?;
    let id = format!("--instance-id={}", instance());
    let mut controller = cluster.start_controller(&["--namespace", HOME, "--leader-elect=false", &id])?;
    let pid = controller.pid().context("the controller has just been started")?;
    // A static is not dropped: this shell ends the controller when the pipe closes with the test process.
    let log = std::fs::read_link(format!("/proc/{pid}/fd/1")).context("the controller's log")?;
    let mut guard = Command::new("sh");
    guard.args(["-c", r#"cat >/dev/null; kill -9 "$0"; rm -rf "$@""#, &pid.to_string()]).arg(log).args(cache_of(pid)?);
    std::os::unix::process::CommandExt::process_group(&mut guard, 0);
    let mut guard = guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let guard = guard.stdin.take().context("the guard's standard input")?;
    let (url, http) = (controller.health_url(), http::client()?);
    let ready = wait_for("the shared controller", SOON, async || {
        controller.check_alive()?;
        http.get(&url).send().await?.error_for_status().map(drop).context("healthz")
    })
    .await;
    ready.map_err(|error| anyhow!("{error:#}\n{}", controller.log_tail(20)))?;
    Ok(Shared { controller, _guard: guard })
}

/// The directory in which a controller keeps its copies of repositories, from its command line.
fn cache_of(pid: u32) -> Result<Option<String>> {
    let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    Ok(words.split('\0').skip_while(|word| *word != "--repository-cache").nth(1).map(str::to_owned))
}

/// Applies the chart's CustomResourceDefinitions, as an installation does.
async fn install_chart_crds(client: &kube::Client) -> Result<()> {
    for entry in std::fs::read_dir(tidegate_e2e::state::repository().join("charts/tidegate/crds"))? {
        let path = entry?.path();
        let definition: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path)?)?;
        tidegate_e2e::apply::apply(client, &definition).await.with_context(|| path.display().to_string())?;
    }
    // Waits until all are served.
    tidegate_e2e::controller::install_crds(client).await
}

/// One test's namespace.
pub struct Scene {
    pub namespace: TestNamespace,
    pub cluster: &'static Cluster,
    /// The instance id that applied objects are labelled with; `None` for a controller without one.
    instance: Option<String>,
}

/// A ReplicaSet, as far as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    pub number: u32,
    pub hash: String,
    pub wanted: i64,
    pub available: i64,
    pub annotations: BTreeMap<String, String>,
}

impl Scene {
    /// A namespace under the eyes of the shared controller.
    pub async fn new(cluster: &'static Cluster, prefix: &str) -> Result<Self> {
        let shared =
            SHARED.get_or_init(async || start_shared(cluster).await.map_err(|error| format!("{error:#}"))).await;
        // Every test of the run says why, and none tries again.
        shared.as_ref().map_err(|error| anyhow!("no controller to test: {error}"))?;
        let namespace = cluster.namespace(prefix).await?;
        Ok(Self { namespace, cluster, instance: Some(instance()) })
    }

    /// A namespace with a controller of its own, for tests that kill it or choose its flags.
    pub async fn with_controller(cluster: &'static Cluster, prefix: &str, args: &[&str]) -> Result<(Self, Controller)> {
        let scene = Self::alone(cluster, prefix).await?;
        let controller = scene.namespace.start_controller(args).await?;
        Ok((scene, controller))
    }

    /// A namespace without a controller.
    pub async fn alone(cluster: &'static Cluster, prefix: &str) -> Result<Self> {
        let namespace = cluster.namespace(prefix).await?;
        tidegate_e2e::controller::install_crds(&namespace.client).await?;
        Ok(Self { namespace, cluster, instance: None })
    }

    /// The shared controller.
    pub fn controller() -> Result<&'static Controller> {
        shared().map(|shared| &shared.controller).context("no test has started the shared controller")
    }

    /// The instance id of the shared controller.
    pub fn instance() -> String {
        instance()
    }

    pub fn name(&self) -> &str {
        &self.namespace.name
    }

    /// Server-side apply, for this scene's controller.
    pub async fn apply(&self, mut object: Value) -> Result<()> {
        let kind = object["kind"].as_str().unwrap_or_default();
        let ours = ["Rollout", "AnalysisRun", "Experiment"].contains(&kind);
        let labels = &mut object["metadata"]["labels"];
        if let Some(instance) = self.instance.as_ref().filter(|_| ours && labels[INSTANCE].is_null()) {
            labels[INSTANCE] = instance.as_str().into();
        }
        if object["metadata"]["labels"].is_null() {
            object["metadata"]["labels"] = json!({});
        }
        self.namespace.apply(&object.to_string()).await
    }

    /// An API for objects of a kind, in this namespace.
    pub fn objects(&self, api_version: &str, kind: &str) -> Result<Api<DynamicObject>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Ok(Api::namespaced_with(self.namespace.client.clone(), self.name(), &resource))
    }

    /// Reads an object.
    pub async fn get(&self, api_version: &str, kind: &str, name: &str) -> Result<Value> {
        let object = self.objects(api_version, kind)?.get(name).await.with_context(|| format!("{kind} {name}"))?;
        Ok(serde_json::to_value(object)?)
    }

    /// Reads all objects of a kind.
    pub async fn list(&self, api_version: &str, kind: &str) -> Result<Vec<Value>> {
        let list = self.objects(api_version, kind)?.list(&ListParams::default()).await?;
        list.items.into_iter().map(|object| Ok(serde_json::to_value(object)?)).collect()
    }

    /// A merge patch.
    pub async fn patch(&self, api_version: &str, kind: &str, name: &str, patch: Value) -> Result<()> {
        self.objects(api_version, kind)?.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// A merge patch of a Rollout.
    pub async fn patch_rollout(&self, name: &str, patch: Value) -> Result<()> {
        self.patch("argoproj.io/v1alpha1", "Rollout", name, patch).await
    }

    pub async fn rollout(&self, name: &str) -> Result<Value> {
        self.get("argoproj.io/v1alpha1", "Rollout", name).await
    }

    pub async fn service_selector(&self, name: &str) -> Result<String> {
        let service = self.get("v1", "Service", name).await?;
        Ok(service["spec"]["selector"][HASH].as_str().unwrap_or_default().to_owned())
    }

    /// Waits for a condition; a failure shows the namespace and what the controller said about it.
    pub async fn until<T>(&self, what: &str, condition: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        self.namespace.wait_for(what, SOON, condition).await.map_err(|error| {
            let Some(shared) = shared() else { return error };
            let log = shared.controller.log();
            let lines: Vec<&str> = log.lines().filter(|line| line.contains(self.name())).collect();
            let end = lines[lines.len().saturating_sub(40)..].join("\n");
            anyhow!("{error:#}\n--- the shared controller's log of {} ---\n{end}", self.name())
        })
    }

    /// Waits until a Rollout satisfies a condition that the controller judged on its present spec.
    pub async fn rollout_is(
        &self,
        name: &str,
        what: &str,
        mut condition: impl FnMut(&Value) -> Result<()>,
    ) -> Result<Value> {
        self.until(&format!("Rollout {name}: {what}"), async || {
            let rollout = self.rollout(name).await?;
            observed(&rollout)?;
            condition(&rollout)?;
            Ok(rollout)
        })
        .await
    }

    /// Waits until a Rollout is in a phase.
    pub async fn phase(&self, name: &str, phase: &str) -> Result<Value> {
        self.rollout_is(name, phase, |rollout| phase_is(rollout, phase)).await
    }

    /// Waits until an update stands at this step, paused.
    pub async fn paused_at(&self, name: &str, step: i64) -> Result<Value> {
        self.rollout_is(name, &format!("paused at step {step}"), |rollout| {
            phase_is(rollout, "Paused")?;
            ensure!(rollout["status"]["currentStepIndex"] == step, "at step {}", rollout["status"]["currentStepIndex"]);
            Ok(())
        })
        .await
    }

    /// The ReplicaSets that a Rollout owns, by revision.
    pub async fn revisions(&self, rollout: &str) -> Result<Vec<Revision>> {
        let mut found: Vec<Revision> = Vec::new();
        for set in self.list("apps/v1", "ReplicaSet").await? {
            let owner = &set["metadata"]["ownerReferences"][0];
            if owner["kind"] != "Rollout" || owner["name"] != rollout {
                continue;
            }
            let annotations: BTreeMap<String, String> = serde_json::from_value(set["metadata"]["annotations"].clone())?;
            found.push(Revision {
                number: annotations.get(REVISION).context("a revision annotation")?.parse()?,
                hash: set["metadata"]["labels"][HASH].as_str().context("a hash label")?.to_owned(),
                wanted: set["spec"]["replicas"].as_i64().unwrap_or_default(),
                available: set["status"]["availableReplicas"].as_i64().unwrap_or_default(),
                annotations,
            });
        }
        found.sort_by_key(|revision| revision.number);
        Ok(found)
    }

    /// Waits until the Rollout's ReplicaSets have these sizes, by revision from the oldest, all their pods available.
    pub async fn sizes(&self, rollout: &str, expected: &[(u32, i64)]) -> Result<Vec<Revision>> {
        self.until(&format!("ReplicaSets of {rollout} to be {expected:?}"), async || {
            let found = self.revisions(rollout).await?;
            let sizes: Vec<(u32, i64)> = found.iter().map(|found| (found.number, found.wanted)).collect();
            let available: Vec<(u32, i64)> = found.iter().map(|found| (found.number, found.available)).collect();
            ensure!(sizes == expected && available == expected, "wanted {sizes:?}, available {available:?}");
            Ok(found)
        })
        .await
    }

    /// Reasons and messages of an object's events, in order; repeated ones once.
    pub async fn events(&self, kind: &str, name: &str) -> Result<Vec<Told>> {
        let mut events: Vec<Value> = self.list("v1", "Event").await?;
        events.retain(|event| event["involvedObject"]["kind"] == kind && event["involvedObject"]["name"] == name);
        events.sort_by_key(|event| event["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(events
            .iter()
            .map(|event| Told {
                reason: text(&event["reason"]),
                message: text(&event["message"]),
                type_: text(&event["type"]),
                count: event["count"].as_u64().unwrap_or_default(),
            })
            .collect())
    }

    /// Waits until the reasons of the Rollout's events, in order, are these. Events are written in the background.
    pub async fn reasons(&self, rollout: &str, expected: &[&str]) -> Result<()> {
        self.until(&format!("events {expected:?}"), async || {
            let events = self.events("Rollout", rollout).await?;
            let reasons: Vec<&str> = events.iter().map(|event| event.reason.as_str()).collect();
            ensure!(reasons == expected, "the events are {events:#?}");
            Ok(())
        })
        .await
    }

    /// Waits for an event whose message contains a text.
    pub async fn told(&self, kind: &str, name: &str, reason: &str, message: &str) -> Result<Told> {
        self.until(&format!("event {reason} of {kind} {name} with {message:?}"), async || {
            let events = self.events(kind, name).await?;
            let found = events.iter().find(|event| event.reason == reason && event.message.contains(message));
            found.cloned().with_context(|| format!("{events:#?}"))
        })
        .await
    }

    /// The kubectl plugin with these arguments.
    pub fn plugin_command(&self, args: &[&str]) -> Result<Command> {
        let mut command = self.cluster.command(&plugin()?.to_string_lossy());
        command.args(args).args(["--namespace", self.name()]);
        Ok(command)
    }

    /// Runs the kubectl plugin; fails when it does.
    pub fn plugin(&self, args: &[&str]) -> Result<String> {
        output(&mut self.plugin_command(args)?)
    }

    /// Runs the kubectl plugin to any end: exit code, standard output and error.
    pub fn plugin_ends(&self, args: &[&str]) -> Result<(i32, String, String)> {
        ends(&mut self.plugin_command(args)?)
    }

    /// Runs kubectl in this namespace; fails when it does.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut command = self.cluster.kubectl();
        output(command.args(["--namespace", self.name()]).args(args))
    }

    /// `kubectl wait` for a Rollout's condition.
    pub fn kubectl_wait(&self, rollout: &str, condition: &str) -> Result<()> {
        let (object, condition) = (format!("rollout/{rollout}"), format!("--for=condition={condition}"));
        self.kubectl(&["wait", &object, &condition, "--timeout=60s"]).map(drop)
    }

    /// Applies a Rollout and waits until its first version serves.
    pub async fn deploy(&self, rollout: Value) -> Result<Value> {
        let name = rollout["metadata"]["name"].as_str().context("a name")?.to_owned();
        self.apply(rollout).await?;
        self.phase(&name, "Healthy").await
    }

    /// `set image` of the one container.
    pub fn set_tag(&self, rollout: &str, tag: &str) -> Result<()> {
        let image = format!("server=tidegate/testserver:{tag}");
        let said = self.plugin(&["set", "image", rollout, &image])?;
        ensure!(said.contains("image updated"), "{said}");
        Ok(())
    }

    /// Names and uids of the running pods, to see whether one was replaced.
    pub async fn pods(&self) -> Result<BTreeMap<String, String>> {
        let pods = self.list("v1", "Pod").await?;
        let living = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(living.map(|pod| (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]))).collect())
    }

    pub async fn service_url(&self, name: &str) -> Result<String> {
        http::service_url(&self.namespace.client, self.name(), name).await
    }

    /// The host of this namespace's routes.
    pub fn host(&self) -> String {
        format!("{}.example.com", self.name())
    }

    /// Waits until a URL answers with a version.
    pub async fn answers(&self, url: &str, host: Option<&str>, version: &str) -> Result<()> {
        let client = http::client()?;
        self.until(&format!("version {version} at {url}"), async || {
            let answer = http::ask(&client, url, host).await?;
            ensure!(answer.version == version, "{answer:?}");
            Ok(())
        })
        .await
    }

    /// What comes back of requests that a load sends from now on, once so many were answered.
    pub async fn next_answers(&self, load: &RunningLoad, requests: u64) -> Result<LoadReport> {
        load.begin();
        self.until(&format!("{requests} answers"), async || {
            let report = load.recent();
            ensure!(report.requests >= requests, "{} came", report.requests);
            Ok(report)
        })
        .await
    }

    /// The share of a version in the answers to the next `requests` of a load.
    pub async fn share(&self, load: &RunningLoad, version: &str, requests: u64) -> Result<f64> {
        Ok(self.next_answers(load, requests).await?.share(version))
    }

    /// Ends a load of which no request may have failed.
    pub async fn without_errors(&self, load: RunningLoad) -> Result<()> {
        let report = load.stop().await?;
        println!("{}: {report}", self.name());
        let seconds: Vec<_> = report.series.iter().enumerate().filter(|(_, second)| second.errors > 0).collect();
        let of = report.series.len();
        ensure!(
            report.errors() == 0 && report.skipped == 0,
            "requests failed, in these seconds of {of}: {seconds:?}\n{report}\n{}",
            self.namespace.describe().await
        );
        Ok(())
    }

    /// Checks the share of a version within four standard deviations of chance, and a tenth of a percent. A data plane
    /// says that it has taken a route a moment before requests go the new way; that moment is waited out.
    pub async fn share_is(&self, load: &RunningLoad, version: &str, expected: f64) -> Result<()> {
        // All or nothing needs no statistics.
        let certain = expected == 0.0 || expected == 1.0;
        let requests = if certain { 100 } else { 400 };
        self.until(&format!("about {expected} of the answers from version {version}"), async || {
            let share = self.share(load, version, 40).await?;
            ensure!(share == expected || !certain && (share - expected).abs() < 0.1, "{share}");
            Ok(())
        })
        .await?;
        let found = self.share(load, version, requests).await?;
        let bound = 0.001 + 4.0 * (expected * (1.0 - expected) / requests as f64).sqrt();
        println!("{}: version {version} gave {found:.3}, expected {expected} ± {bound:.3}", self.name());
        ensure!(
            (found - expected).abs() <= bound,
            "version {version} gave {found:.3}, expected {expected} ± {bound:.3}"
        );
        Ok(())
    }
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub reason: String,
    pub message: String,
    pub type_: String,
    /// How often.
    pub count: u64,
}

/// The controller has seen the Rollout's present spec.
pub fn observed(rollout: &Value) -> Result<()> {
    let (generation, seen) = (&rollout["metadata"]["generation"], &rollout["status"]["observedGeneration"]);
    let as_text = generation.as_i64().unwrap_or_default().to_string();
    ensure!(seen.as_str() == Some(as_text.as_str()), "generation {generation}, observed {seen}");
    Ok(())
}

pub fn phase_is(rollout: &Value, phase: &str) -> Result<()> {
    let status = &rollout["status"];
    ensure!(status["phase"] == phase, "phase {}, message {}", status["phase"], status["message"]);
    Ok(())
}

/// The condition of a type, or `Null`.
pub fn condition<'a>(rollout: &'a Value, type_: &str) -> &'a Value {
    let conditions = rollout["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == type_).unwrap_or(&Value::Null)
}

/// Exit code, standard output and standard error of a command.
pub fn ends(command: &mut Command) -> Result<(i32, String, String)> {
    let done = raw_output(command)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((done.status.code().unwrap_or(-1), text(&done.stdout), text(&done.stderr)))
}

/// The binary under the kubectl plugin's name, in a directory that `PATH` can name.
pub fn plugin() -> Result<PathBuf> {
    static PLUGIN: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = PLUGIN.get_or_init(|| link().map_err(|error| format!("{error:#}")));
    made.clone().map_err(|error| anyhow!("no kubectl plugin: {error}"))
}

fn link() -> Result<PathBuf> {
    let program = tidegate_program()?;
    let directory = program.parent().unwrap_or(Path::new(".")).join("plugin");
    std::fs::create_dir_all(&directory)?;
    let plugin = directory.join("kubectl-argo-rollouts");
    // Another run may do the same at the same time: a name of its own, then over the old one at once.
    let mine = directory.join(format!("link-{}", std::process::id()));
    std::os::unix::fs::symlink(&program, &mine)?;
    std::fs::rename(&mine, &plugin)?;
    Ok(plugin)
}

/// A pod template of the test server.
pub fn template(app: &str, tag: &str) -> Value {
    json!({
        "metadata": {
            "labels": {"app": app},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
        },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "server",
                "image": format!("tidegate/testserver:{tag}"),
                "ports": [{"containerPort": 8080, "name": "http"}],
                // Ready as soon as it answers, and not unready because the machine is busy.
                "readinessProbe": {
                    "httpGet": {"path": "/healthz", "port": 8080},
                    "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 10,
                },
            }],
        },
    })
}

/// Lets the pods of a template answer for some seconds after they were told to stop, as careful users do, so that the
/// data plane can hear of it however busy the machine is.
pub fn polite(template: &mut Value) {
    let spec = &mut template["spec"];
    spec["terminationGracePeriodSeconds"] = 10.into();
    spec["containers"][0]["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 6}}});
}

/// A Rollout of the test server.
pub fn rollout(name: &str, tag: &str, replicas: u32, strategy: Value) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": name, "labels": {}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, tag),
            "strategy": strategy,
        },
    })
}

/// A Rollout with a canary strategy of these steps.
pub fn canary(name: &str, tag: &str, replicas: u32, steps: Value) -> Value {
    rollout(name, tag, replicas, json!({"canary": {"steps": steps}}))
}

/// A Service in front of an app's pods.
pub fn service(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": {}},
        "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

/// An AnalysisTemplate.
pub fn analysis_template(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate",
        "metadata": {"name": name, "labels": {}}, "spec": spec,
    })
}

/// A Prometheus metric that is measured once: a constant, so that the verdict is the test's choice.
pub fn constant(cluster: &Cluster, name: &str, value: f64, conditions: Value) -> Value {
    let mut metric = json!({
        "name": name,
        "provider": {"prometheus": {"address": cluster.prometheus_url(), "query": format!("vector({value})")}},
    });
    for (key, condition) in conditions.as_object().into_iter().flatten() {
        metric[key] = condition.clone();
    }
    metric
}
