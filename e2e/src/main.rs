//! `tidegate-e2e`: brings real Kubernetes clusters up and takes them down, for development and tests.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use tidegate_e2e::cluster::{self, Cluster, Nodes, Options};
use tidegate_e2e::load::Load;
use tidegate_e2e::netns::{NODE_IP, NetworkNamespace};
use tidegate_e2e::process::say;
use tidegate_e2e::sandbox::Sandbox;
use tidegate_e2e::state::StateDir;
use tidegate_e2e::{git_server, install, prometheus, sandbox, session, traefik};

/// Real Kubernetes clusters on this machine, each in a network namespace of its own.
#[derive(Parser)]
#[command(name = "tidegate-e2e", version)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Args)]
struct Which {
    /// The cluster's name.
    #[arg(long, default_value = "dev")]
    name: String,
}

#[derive(Subcommand)]
enum Action {
    /// Start a cluster, or add what is missing to the one that runs.
    Up {
        #[command(flatten)]
        which: Which,
        /// real: one node whose pods are processes; simulated[:COUNT]: nodes that only pretend.
        #[arg(long, default_value = "real")]
        nodes: Nodes,
        /// With Traefik as Gateway API data plane and Ingress controller.
        #[arg(long)]
        traefik: bool,
        /// With Prometheus, which scrapes annotated pods every second.
        #[arg(long)]
        prometheus: bool,
        /// With a Git server over http and ssh.
        #[arg(long)]
        git: bool,
        /// With Traefik, Prometheus and Git.
        #[arg(long)]
        all: bool,
    },
    /// Take a cluster down and remove all that it left.
    Down {
        #[command(flatten)]
        which: Which,
        #[arg(long, hide = true)]
        when_stdin_closes: bool,
    },
    /// List clusters.
    List,
    /// Run a command in a cluster's network, with KUBECONFIG set and proxies unset.
    Exec {
        #[command(flatten)]
        which: Which,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Print the path of a cluster's kubeconfig.
    Kubeconfig {
        #[command(flatten)]
        which: Which,
    },
    /// Load the test server's images, or a file in OCI layout, into a cluster's node.
    Image {
        #[command(flatten)]
        which: Which,
        /// A tar to load in place of the test server's images.
        tar: Option<PathBuf>,
    },
    /// Remove clusters that nobody uses: whose owner or processes have died, or that were never finished.
    Prune,
    /// Show the main job: three commits go from Git to production under load, and the bad one comes back by itself.
    Demo {
        /// Leave the cluster up at the end.
        #[arg(long)]
        keep: bool,
        /// Requests a second.
        #[arg(long, default_value_t = 100.0)]
        rate: f64,
    },
    /// Send requests at a constant rate and print who answered.
    Load {
        /// Run in this cluster's network; without it, in the one that the command is in.
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        url: String,
        /// The Host header, for a gateway.
        #[arg(long)]
        host: Option<String>,
        /// Requests a second.
        #[arg(long, default_value_t = 20.0)]
        rate: f64,
        /// Seconds.
        #[arg(long, default_value_t = 10.0)]
        duration: f64,
        /// Print JSON, with a count for every second.
        #[arg(long)]
        json: bool,
    },
    /// A cluster's first process.
    #[command(hide = true)]
    Anchor { state: PathBuf },
    /// A cluster's Git server for http.
    #[command(hide = true)]
    GitServer { state: PathBuf },
    /// What tells Prometheus about pods.
    #[command(hide = true)]
    PodDiscovery { state: PathBuf },
    /// What the Git server for ssh runs.
    #[command(hide = true)]
    GitShell { root: PathBuf },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> Result<ExitCode> {
    if !matches!(action, Action::List | Action::Kubeconfig { .. } | Action::Load { name: None, .. }) {
        install::require_root()?;
    }
    match action {
        Action::Up { which, nodes, traefik, prometheus: metrics, git, all } => {
            let real = nodes == Nodes::Real;
            let options = Options {
                nodes,
                traefik: traefik || all,
                prometheus: metrics || all,
                git: git || all,
                testserver: if real { Some(session::program("tidegate-testserver")?) } else { None },
                ..Options::named(&which.name)
            };
            print_usage(&cluster::up(&options)?)?;
        }
        Action::Down { which, when_stdin_closes } => {
            if when_stdin_closes {
                std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
            }
            let existed = cluster::remove(&which.name)?;
            say(&format!("cluster {:?} {}", which.name, if existed { "is gone" } else { "does not exist" }));
        }
        Action::List => list(),
        Action::Exec { which, command } => return exec(&which.name, &command),
        Action::Kubeconfig { which } => {
            let cluster = Cluster::find(&which.name)?;
            println!("{}", cluster.state()?.kubeconfig().display());
        }
        Action::Image { which, tar } => load_image(&which.name, tar)?,
        Action::Prune => {
            if cluster::prune()?.is_empty() {
                say("nothing to remove");
            }
        }
        Action::Demo { keep, rate } => tidegate_e2e::demo::run(&tidegate_e2e::demo::Demo { keep, rate })?,
        Action::Load { name, url, host, rate, duration, json } => {
            if let Some(name) = name {
                Cluster::find(&name)?.enter()?;
            }
            let load = Load::new(&url, host.as_deref(), rate);
            let report = session::block_on(load.run(Duration::from_secs_f64(duration.clamp(0.0, 86_400.0))))?;
            if json { println!("{}", serde_json::to_string_pretty(&report)?) } else { println!("{report}") }
        }
        Action::Anchor { state } => sandbox::anchor(&state)?,
        Action::GitServer { state } => session::block_on(git_server::serve_http(&state))?,
        Action::PodDiscovery { state } => session::block_on(prometheus::serve_targets(&state))?,
        Action::GitShell { root } => git_server::shell(&root)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print_usage(cluster: &Cluster) -> Result<()> {
    let name = cluster.name();
    let state = cluster.state()?;
    let option = if name == "dev" { String::new() } else { format!(" --name {name}") };
    let program = std::env::args().next().unwrap_or_else(|| "tidegate-e2e".to_owned());
    println!("\nThe cluster is reached from inside its network namespace:");
    println!("  {program} exec{option} -- kubectl get pods -A");
    println!("  {program} exec{option} -- bash          # a shell where kubectl and all addresses work");
    println!(
        "  nsenter --net={} env KUBECONFIG={} kubectl …",
        NetworkNamespace::of_cluster(name).path().display(),
        state.kubeconfig().display()
    );
    if let Some(record) = cluster.record() {
        if record.nodes == Nodes::Real {
            println!(
                "Images: tidegate/testserver:1 … :5, :bad (half of the answers are errors), :slow, :unready, :crash"
            );
        }
        if record.traefik {
            let (namespace, gateway) = traefik::GATEWAY;
            println!("Gateway: {namespace}/{gateway} at {}; Ingress classes nginx and traefik", cluster.gateway_url());
        }
        if record.prometheus {
            println!("Prometheus: {} (pods annotated prometheus.io/scrape: \"true\")", cluster.prometheus_url());
        }
        if record.git {
            println!(
                "Git: http://{NODE_IP}:{}/NAME.git and ssh://git@{NODE_IP}/NAME.git, repositories in {}",
                git_server::HTTP_PORT,
                state.join("git").display()
            );
        }
    }
    println!("Logs: {}\nDown again: {program} down{option}", state.join("log").display());
    Ok(())
}

fn list() {
    let all = StateDir::all();
    if all.is_empty() {
        say("no clusters");
        return;
    }
    println!("{:<24} {:<14} {:<12} WITH", "NAME", "NODES", "STATE");
    for state in all {
        let alive = Sandbox::find(&state).is_some();
        let Some(record) = state.record() else {
            println!("{:<24} {:<14} {:<12}", state.name, "?", if alive { "starting" } else { "unfinished" });
            continue;
        };
        let with = [("traefik", record.traefik), ("prometheus", record.prometheus), ("git", record.git)];
        let with: Vec<&str> = with.iter().filter(|(_, present)| *present).map(|(name, _)| *name).collect();
        let running = if alive { "running" } else { "dead" };
        println!("{:<24} {:<14} {:<12} {}", state.name, record.nodes.to_string(), running, with.join(","));
    }
}

fn exec(name: &str, words: &[String]) -> Result<ExitCode> {
    let cluster = Cluster::find(name)?;
    let (program, args) = words.split_first().context("a command to run")?;
    cluster.enter()?;
    let mut command = Command::new(program);
    // The thread is inside already; only the environment is of use from the prepared command.
    for (variable, value) in cluster.command(program).get_envs() {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    let error = command.args(args).exec();
    Err(error).with_context(|| format!("run {program:?}"))
}

fn load_image(name: &str, tar: Option<PathBuf>) -> Result<()> {
    let cluster = Cluster::find(name)?;
    let sandbox = cluster.sandbox()?;
    match tar {
        Some(tar) => tidegate_e2e::image::import_layout(sandbox, &tar),
        None => {
            let image = tidegate_e2e::image::testserver_image(&session::program("tidegate-testserver")?)?;
            tidegate_e2e::image::import(sandbox, &image)
        }
    }
}
