//! Starting a cluster, from the programs to a Ready node.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::Api;

use super::configuration::{self as config, CONTAINERD_SOCKET, PAUSE_IMAGE};
use super::{Cluster, KUBERNETES_SERVICE_IP, Nodes, Options, down};
use crate::certificates::Certificates;
use crate::image::{self, Image};
use crate::install::{self, Needs, Programs};
use crate::netns::{NODE_IP, NetworkNamespace};
use crate::process::{output, poll_until, say, tail};
use crate::sandbox::{Component, ControlGroups, Sandbox};
use crate::state::{Record, StateDir};
use crate::{git_server, kwok, prometheus, session, traefik};

/// Starts the cluster that `options` describe, or adds what is asked for to the one of that name that runs already.
/// What was left of a former run with this name is removed first. When starting fails, nothing stays but the logs.
pub fn up(options: &Options) -> Result<Cluster> {
    let state = StateDir::new(&options.name)?;
    let programs = install::ensure(Needs {
        real_node: options.nodes == Nodes::Real,
        simulated_nodes: options.nodes != Nodes::Real,
        traefik: options.traefik,
        prometheus: options.prometheus,
        git: options.git,
    })?;
    let _lock = state.lock()?;
    if let Ok(cluster) = Cluster::find(&options.name) {
        return extend(cluster, options, &programs);
    }
    down::clean(&state)?;
    let start = Instant::now();
    let started = start_all(&state, options, &programs);
    match started {
        Ok(()) => {
            say(&format!("cluster {:?} is ready after {:.1} s", options.name, start.elapsed().as_secs_f64()));
            Cluster::find(&options.name)
        }
        Err(error) => {
            let logs = keep_logs(&state);
            down::clean(&state)?;
            Err(error.context(format!("cluster {:?} did not start; its logs are in {logs}", options.name)))
        }
    }
}

fn keep_logs(state: &StateDir) -> String {
    let kept = state.path.with_file_name(format!("failed-{}", state.name));
    fs::remove_dir_all(&kept).ok();
    match fs::rename(state.join("log"), &kept) {
        Ok(()) => kept.display().to_string(),
        Err(error) => format!("{} (could not be kept: {error})", kept.display()),
    }
}

fn start_all(state: &StateDir, options: &Options, programs: &Programs) -> Result<()> {
    let start = Instant::now();
    let step = |what: &str| say(&format!("[{:5.1} s] {what}", start.elapsed().as_secs_f64()));
    step(&format!("cluster {:?}: network namespace {}{}", options.name, crate::netns::PREFIX, options.name));
    fs::create_dir_all(state.join("log"))?;
    link_programs(state, programs)?;
    let namespace = NetworkNamespace::of_cluster(&options.name);
    namespace.create()?;
    let groups = ControlGroups::of_cluster(&options.name);
    groups.create()?;
    let certificates = Certificates::create(state, &[KUBERNETES_SERVICE_IP, NODE_IP, "127.0.0.1"])?;
    config::write_control_plane(state, &certificates, &random_token()?)?;
    let sandbox = Sandbox::start(state, &namespace, &session::harness_program()?)?;

    step("etcd, kube-apiserver");
    let mut parts: Vec<Component> = Vec::new();
    parts.push(sandbox.start_component("etcd", &programs.etcd, &config::etcd(state))?);
    let mut apiserver = sandbox.start_component(
        "kube-apiserver",
        bin(state, "kube-apiserver"),
        &config::apiserver(state, &certificates),
    )?;
    // containerd needs no API server: it gets ready meanwhile.
    let containerd = match options.nodes {
        Nodes::Real => {
            let cni = programs.cni.as_deref().context("CNI plugins")?;
            config::write_node(state, &groups.root(), cni)?;
            let args = ["--config".to_owned(), state.join("containerd.toml").display().to_string()];
            Some(sandbox.start_component("containerd", "containerd", &args)?)
        }
        Nodes::Simulated(_) => None,
    };
    let client = KubectlProbe { state };
    apiserver.wait_ready(Duration::from_secs(60), || client.succeeds(&["get", "--raw", "/readyz"]))?;
    parts.push(apiserver);
    step("kube-controller-manager, kube-scheduler");
    let args = config::controller_manager(state, &certificates);
    parts.push(sandbox.start_component("kube-controller-manager", bin(state, "kube-controller-manager"), &args)?);
    parts.push(sandbox.start_component("kube-scheduler", bin(state, "kube-scheduler"), &config::scheduler(state))?);

    match (options.nodes, containerd) {
        (Nodes::Real, Some(mut containerd)) => {
            step("containerd, kubelet, kube-proxy");
            // kubelet gives up when the socket is not there.
            containerd.wait_ready(Duration::from_secs(20), || containerd_answers(&sandbox))?;
            let pause = programs.pause.as_deref().context("the pause program")?;
            image::import(&sandbox, &Image::pause(PAUSE_IMAGE, pause))?;
            let mut kubelet = sandbox.start_component("kubelet", bin(state, "kubelet"), &config::kubelet(state))?;
            let args = [format!("--config={}", state.join("proxy.yaml").display())];
            let proxy = sandbox.start_component("kube-proxy", bin(state, "kube-proxy"), &args)?;
            let images = load_images(state, &sandbox, options)?;
            kubelet.wait_ready(Duration::from_secs(60), || client.node_ready())?;
            parts.extend([containerd, kubelet, proxy]);
            record(state, options, images)?;
        }
        (Nodes::Simulated(count), _) => {
            step(&format!("KWOK with {count} simulated nodes"));
            parts.push(kwok::start(state, &sandbox, programs.kwok.as_deref().context("kwok")?)?);
            session::in_cluster(&NetworkNamespace::of_cluster(&options.name), async || {
                kwok::create_nodes(&half_started(state, &sandbox, options)?.client().await?, count).await
            })?;
            record(state, options, String::new())?;
        }
        (Nodes::Real, None) => bail!("containerd was not started"),
    }
    let cluster = half_started(state, &sandbox, options)?;
    session::in_cluster(&NetworkNamespace::of_cluster(&options.name), async || wait_usable(&cluster).await)?;
    // The components go on when their handles are dropped.
    drop(parts);
    add_ons(&cluster, options, programs)
}

/// A handle on a cluster that is not written down yet, as for a command that is cut short it must not be.
fn half_started(state: &StateDir, sandbox: &Sandbox, options: &Options) -> Result<Cluster> {
    let record = state.record().unwrap_or_else(|| new_record(options, String::new()));
    let own = super::Own { state: state.clone(), record, sandbox: sandbox.clone() };
    Ok(Cluster { inner: super::Inner::Own(Box::new(own)) })
}

fn new_record(options: &Options, images: String) -> Record {
    Record {
        name: options.name.clone(),
        nodes: options.nodes,
        traefik: false,
        prometheus: false,
        git: false,
        images,
        owner: options.owner,
        created: jiff::Timestamp::now(),
    }
}

fn record(state: &StateDir, options: &Options, images: String) -> Result<()> {
    state.write_record(&new_record(options, images))
}

/// Starts what is asked for and not there yet.
fn add_ons(cluster: &Cluster, options: &Options, programs: &Programs) -> Result<()> {
    let own = cluster.own()?;
    let mut record = own.record.clone();
    let namespace = NetworkNamespace::of_cluster(&record.name);
    if options.traefik && !record.traefik {
        say("          Traefik and the Gateway API");
        let binary = programs.traefik.as_deref().context("Traefik")?;
        let crds = programs.gateway_api.as_deref().context("the Gateway API's definitions")?;
        traefik::start(&own.state, &own.sandbox, binary, crds)?;
        record.traefik = true;
    }
    if options.prometheus && !record.prometheus {
        say("          Prometheus");
        prometheus::start(&own.state, &own.sandbox, &namespace)?;
        record.prometheus = true;
    }
    if options.git && !record.git {
        say("          Git over http and ssh");
        git_server::start(&own.state, &own.sandbox, &namespace)?;
        record.git = true;
    }
    own.state.write_record(&record)
}

fn extend(cluster: Cluster, options: &Options, programs: &Programs) -> Result<Cluster> {
    let own = cluster.own()?;
    if own.record.nodes != options.nodes {
        let (have, want) = (own.record.nodes, options.nodes);
        bail!("cluster {:?} runs with {have} nodes, not {want}; take it down first", options.name);
    }
    let probe = KubectlProbe { state: &own.state };
    if !poll_until(Duration::from_secs(10), || probe.succeeds(&["get", "--raw", "/readyz"])) {
        let log = tail(&own.state.log("kube-apiserver"), 5);
        bail!(
            "cluster {:?} does not answer; take it down and start it anew. Its API server said:\n{log}",
            options.name
        );
    }
    add_ons(&cluster, options, programs)?;
    if options.nodes == Nodes::Real {
        let images = load_images(&own.state, &own.sandbox, options)?;
        if let Some(mut record) = own.state.record()
            && !images.is_empty()
        {
            record.images = images;
            own.state.write_record(&record)?;
        }
    }
    say(&format!("cluster {:?} runs already", options.name));
    Cluster::find(&options.name)
}

/// Loads the test server under its tags, unless this very binary was loaded before. Returns what was loaded.
fn load_images(state: &StateDir, sandbox: &Sandbox, options: &Options) -> Result<String> {
    let Some(binary) = &options.testserver else { return Ok(String::new()) };
    let stamp = image::stamp(binary)?;
    if state.record().is_some_and(|record| record.images == stamp) {
        return Ok(stamp);
    }
    image::import(sandbox, &image::testserver_image(binary)?)?;
    Ok(stamp)
}

fn link_programs(state: &StateDir, programs: &Programs) -> Result<()> {
    fs::create_dir_all(state.join("bin"))?;
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"] {
        symlink(&programs.controlplane, bin(state, name)).with_context(|| format!("link {name}"))?;
    }
    symlink(&programs.etcd, bin(state, "etcd")).context("link etcd")
}

fn bin(state: &StateDir, name: &str) -> std::path::PathBuf {
    state.join("bin").join(name)
}

fn random_token() -> Result<String> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no random numbers"))?;
    Ok(install::hex(&bytes))
}

fn containerd_answers(sandbox: &Sandbox) -> bool {
    output(sandbox.command("ctr").args(["--address", CONTAINERD_SOCKET, "version"])).is_ok()
}

/// Questions asked with kubectl, as long as there is no client.
struct KubectlProbe<'a> {
    state: &'a StateDir,
}

impl KubectlProbe<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let namespace = NetworkNamespace::of_cluster(&self.state.name);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", namespace.path().display())).arg(Path::new(&bin(self.state, "kubectl")));
        command.args(args).env_clear().env("KUBECONFIG", self.state.kubeconfig()).env("HOME", self.state.join("home"));
        command
    }

    fn succeeds(&self, args: &[&str]) -> bool {
        output(&mut self.command(args)).is_ok()
    }

    fn node_ready(&self) -> bool {
        let path = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
        output(&mut self.command(&["get", "nodes", "-o", path])).is_ok_and(|status| status.contains("True"))
    }
}

/// Waits until a pod could be made and would be scheduled.
async fn wait_usable(cluster: &Cluster) -> Result<()> {
    let client = cluster.client().await?;
    crate::wait_for("the default service account", Duration::from_secs(30), async || {
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
        accounts.get("default").await.map(drop).context("service account default/default")
    })
    .await?;
    crate::wait_for("schedulable nodes", Duration::from_secs(60), async || {
        let nodes: Vec<Node> = Api::all(client.clone()).list(&Default::default()).await?.items;
        let tainted = nodes.iter().filter(|node| node.spec.as_ref().is_some_and(|spec| spec.taints.is_some())).count();
        anyhow::ensure!(tainted == 0 && !nodes.is_empty(), "{tainted} of {} nodes are tainted", nodes.len());
        Ok(())
    })
    .await
}
