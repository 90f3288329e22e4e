//! Measures Tidegate on simulated nodes: what Rollouts cost, beside what plain Deployments cost in the same run, and what
//! Applications cost.
//!
//! A benchmark, not a test: it asserts nothing about time. Ratios within one run mean something; absolute figures
//! depend on the machine.

mod applications;
mod measured;
mod phase;
mod rollouts;

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use kube::Api;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use tidegate_e2e::{Cluster, Options, audit, cluster, session};

/// Measure Tidegate on simulated nodes: Rollouts beside plain Deployments, or Applications.
#[derive(Parser)]
#[command(name = "tidegate-bench", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    rollouts: rollouts::Flags,
}

#[derive(Subcommand)]
enum What {
    /// Rollouts beside plain Deployments; what is measured when nothing is named.
    Rollouts(rollouts::Flags),
    /// Applications in one repository: the first sync of all, and commits that touch one of them.
    Applications(applications::Flags),
}

/// What every benchmark is told.
#[derive(Args)]
struct Common {
    /// The controller to measure.
    #[arg(long, default_value = "target/release/tidegate")]
    tidegate: PathBuf,
    /// Print JSON too.
    #[arg(long)]
    json: bool,
    /// Print the requests to the API server by verb and resource.
    #[arg(long)]
    requests: bool,
}

impl Common {
    /// Prints the controller's requests since this moment, when asked to.
    fn requests(&self, cluster: &Cluster, since: jiff::Timestamp) -> Result<()> {
        if self.requests {
            for agent in ["rollouts-controller", "tidegate"] {
                let counts = audit::count(&cluster.requests(agent, since)?);
                if !counts.is_empty() {
                    println!("requests of {agent}: {counts:#?}");
                }
            }
        }
        Ok(())
    }
}

/// Requests to the API server under way at the same time while objects are made or changed.
const WRITERS: usize = 16;

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.what {
        None => rollouts::run(&cli.rollouts),
        Some(What::Rollouts(flags)) => rollouts::run(&flags),
        Some(What::Applications(flags)) => applications::run(&flags),
    }
}

/// Starts a cluster of the benchmark's own, measures on it and removes it.
fn on_cluster(common: &Common, options: &Options, measure: impl AsyncFnOnce(&Cluster) -> Result<()>) -> Result<()> {
    ensure!(
        common.tidegate.is_file(),
        "{}: no such file; `cargo build --release -p tidegate` makes it",
        common.tidegate.display()
    );
    cluster::remove(&options.name)?;
    let cluster = cluster::up(options)?;
    let result = session::run_on(&cluster, async |cluster| {
        install_crds(cluster)?;
        measure(cluster).await
    });
    cluster::remove(&options.name)?;
    result
}

fn install_crds(cluster: &Cluster) -> Result<()> {
    let crds = tidegate_e2e::state::repository().join("charts/tidegate/crds");
    let applied = cluster.kubectl().args(["apply", "--server-side", "-f"]).arg(crds).stdout(Stdio::null()).status()?;
    ensure!(applied.success(), "the CRDs cannot be installed");
    let served = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
    let served = cluster.kubectl().args(served).stdout(Stdio::null()).status()?;
    ensure!(served.success(), "the CRDs are not served after 30 s");
    Ok(())
}

fn api(client: &kube::Client, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}
