//! The cluster that the tests of one run share, and how a test gets into its network.
//!
//! A network namespace is a property of a thread. [`run`] moves the calling thread into the cluster's and then builds
//! the runtime, so that the connections a test makes and the programs it starts are all inside. Tests therefore need
//! no wrapper: `cargo test -p tidegate-e2e` starts a cluster on first use and ends it with the test process, however
//! that ends.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, Once, OnceLock};

use anyhow::{Context, Result, anyhow};

use crate::cluster::{self, Cluster, Nodes, Options};
use crate::netns::NetworkNamespace;
use crate::process::ProcessId;

/// Use this running cluster of ours instead of starting one.
const CLUSTER: &str = "TIDEGATE_E2E_CLUSTER";
/// Use the cluster behind this context of the user's kubeconfig.
const CONTEXT: &str = "TIDEGATE_E2E_CONTEXT";

static REAL: OnceLock<Result<Cluster, String>> = OnceLock::new();
static SIMULATED: OnceLock<Result<Cluster, String>> = OnceLock::new();
/// The ends of pipes that close when this process ends, upon which the clusters are removed.
static GUARDS: Mutex<Vec<ChildStdin>> = Mutex::new(Vec::new());

/// Runs a test on the shared cluster with a real node, Traefik, Prometheus and Git.
pub fn run(test: impl AsyncFnOnce(&'static Cluster) -> Result<()>) -> Result<()> {
    run_on(shared()?, test)
}

/// Runs a test on the shared cluster with simulated nodes.
pub fn run_simulated(test: impl AsyncFnOnce(&'static Cluster) -> Result<()>) -> Result<()> {
    run_on(get(&SIMULATED, Nodes::Simulated(10))?, test)
}

/// Runs something on a given cluster.
pub fn run_on<'a>(cluster: &'a Cluster, work: impl AsyncFnOnce(&'a Cluster) -> Result<()>) -> Result<()> {
    cluster.enter()?;
    LOGS.take();
    block_on(work(cluster)).map_err(|error| {
        let logs = LOGS.take();
        if logs.is_empty() { error } else { anyhow!("{error:#}\n{}", logs.join("\n")) }
    })
}

thread_local! {
    /// What the programs of this thread's test logged, kept when they end so that a failing test can show it.
    static LOGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the end of a program's log for the case that the test fails.
pub(crate) fn keep_log(title: &str, log: &str) {
    if log.is_empty() {
        return;
    }
    LOGS.with_borrow_mut(|logs| logs.push(format!("--- {title} ---\n{log}")));
}

/// The shared cluster with a real node, started when nobody has yet.
pub fn shared() -> Result<&'static Cluster> {
    get(&REAL, Nodes::Real)
}

fn get(slot: &'static OnceLock<Result<Cluster, String>>, nodes: Nodes) -> Result<&'static Cluster> {
    let found = slot.get_or_init(|| obtain(nodes).map_err(|error| format!("{error:#}")));
    // Every test of the run says why there is no cluster, not only the first.
    found.as_ref().map_err(|error| anyhow!("no cluster to test on: {error}"))
}

fn obtain(nodes: Nodes) -> Result<Cluster> {
    if let Ok(context) = std::env::var(CONTEXT) {
        return Ok(Cluster::of_context(&context));
    }
    let real = nodes == Nodes::Real;
    if let (Ok(name), true) = (std::env::var(CLUSTER), real) {
        return Cluster::find(&name).with_context(|| format!("{CLUSTER}={name}"));
    }
    crate::install::require_root()?;
    // What killed runs left behind would hold memory and addresses for nothing.
    cluster::prune()?;
    let name = format!("test-{}-{}", if real { "real" } else { "simulated" }, std::process::id());
    let guard = guard(&name)?;
    let options = Options {
        nodes,
        traefik: real,
        prometheus: real,
        git: real,
        owner: ProcessId::current(),
        testserver: if real { Some(program("tidegate-testserver")?) } else { None },
        ..Options::named(&name)
    };
    let cluster = cluster::up(&options)?;
    GUARDS.lock().map_err(|_| anyhow!("the list of guards"))?.push(guard);
    Ok(cluster)
}

/// Starts the process that removes the cluster when the returned pipe closes, as it does when this process ends,
/// even by SIGKILL.
fn guard(name: &str) -> Result<ChildStdin> {
    let mut command = Command::new(harness_program()?);
    command.args(["down", "--name", name, "--when-stdin-closes"]);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    child.stdin.take().context("the guard's standard input")
}

/// The harness' own command.
pub fn harness_program() -> Result<PathBuf> {
    program("tidegate-e2e")
}

/// A binary of this crate: beside the running program, or above it where that is a test.
pub fn program(name: &str) -> Result<PathBuf> {
    let current = std::env::current_exe().context("the running program's path")?;
    let directories = current.ancestors().skip(1).take(2);
    let found = directories.map(|directory| directory.join(name)).find(|path: &PathBuf| path.is_file());
    found.with_context(|| {
        let directory = current.parent().unwrap_or(Path::new("")).display().to_string();
        format!("no {name} in or above {directory}; `cargo build -p tidegate-e2e` makes it")
    })
}

/// Runs asynchronous work in a network namespace, on a thread of its own.
pub fn in_cluster<T: Send>(namespace: &NetworkNamespace, work: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            namespace.enter()?;
            block_on(work())
        });
        thread.join().map_err(|_| anyhow!("a thread in {} panicked", namespace.name))?
    })
}

/// Runs work to its end on a runtime of the calling thread, which so stays in the namespace where it is.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(work);
    // A task that hangs must not keep the test from ending.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    result
}

/// Names the implementation of TLS's cryptography; done once, by whoever comes first.
pub fn crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Already chosen is as good.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    });
}
