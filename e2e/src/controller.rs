//! Tidegate's controller as a process of the test, in the cluster's network: started, stopped, killed and restarted.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::Cluster;
use crate::namespace::TestNamespace;
use crate::process::{last_lines, output, poll_until};

/// A running `tidegate controller`. Killed when dropped.
pub struct Controller {
    child: Option<Child>,
    cluster: &'static Cluster,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    metrics_port: u16,
    health_port: u16,
    webhook_port: u16,
    /// Copies of repositories, kept over restarts as a pod's volume is.
    repositories: tempfile::TempDir,
    log: tempfile::TempPath,
}

impl Cluster {
    /// Starts `tidegate controller` with these arguments, on ports of its own, as the cluster's administrator. `TIDEGATE_BIN` names the
    /// program; without it, the one of this working tree is built (once a run) and used.
    pub fn start_controller(&'static self, args: &[&str]) -> Result<Controller> {
        self.start_controller_in(&[], args)
    }

    /// The same, with more in its environment.
    fn start_controller_in(&'static self, environment: &[(String, String)], args: &[&str]) -> Result<Controller> {
        let log = tempfile::Builder::new().prefix("tidegate-controller-").suffix(".log").tempfile()?.into_temp_path();
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let [metrics_port, health_port, webhook_port] = free_ports()?;
        let repositories = tempfile::Builder::new().prefix("tidegate-repositories-").tempdir()?;
        let mut controller = Controller {
            child: None,
            cluster: self,
            args,
            environment: environment.to_vec(),
            metrics_port,
            health_port,
            webhook_port,
            repositories,
            log,
        };
        controller.start()?;
        Ok(controller)
    }

    /// A `tidegate` command for this cluster, such as `rollout promote …`.
    pub fn tidegate(&self) -> Result<Command> {
        Ok(self.command(&tidegate_program()?.to_string_lossy()))
    }
}

/// The `tidegate` binary of this working tree.
pub fn tidegate_program() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(|error| anyhow!("no tidegate to test: {error}"))
}

fn build() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEGATE_BIN") {
        // The current directory may be another one when the program is started.
        let path = std::path::absolute(path)?;
        anyhow::ensure!(path.is_file(), "TIDEGATE_BIN={}: no such file", path.display());
        return Ok(path);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(crate::state::repository()).args([
        "build",
        "--quiet",
        "--package",
        "tidegate",
        "--bin",
        "tidegate",
    ]);
    output(&mut command).context("build tidegate")?;
    crate::session::program("tidegate")
}

impl TestNamespace {
    /// Installs the CustomResourceDefinitions and starts a controller for this namespace alone, so that tests which run
    /// at the same time do not share one. Without leader election, unless `args` ask for it.
    pub async fn start_controller(&self, args: &[&str]) -> Result<Controller> {
        self.start_controller_in(&[], args).await
    }

    /// The same, with more in the controller's environment.
    pub async fn start_controller_in(&self, environment: &[(String, String)], args: &[&str]) -> Result<Controller> {
        install_crds(&self.client).await?;
        let mut all = vec!["--namespaced", "--namespace", &self.name, "--loglevel", "debug"];
        if !args.iter().any(|arg| arg.starts_with("--leader-elect")) {
            all.push("--leader-elect=false");
        }
        all.extend(args);
        let mut controller = self.cluster().start_controller_in(environment, &all)?;
        controller.wait_ready().await?;
        Ok(controller)
    }
}

/// Applies the CustomResourceDefinitions of this working tree and waits until the API server has them.
pub async fn install_crds(client: &kube::Client) -> Result<()> {
    for definition in tidegate_crds::manifests::all() {
        crate::apply::define(client, &definition).await?;
    }
    Ok(())
}

/// Ports that nobody listens on, in the network of the calling thread.
pub(crate) fn free_ports<const COUNT: usize>() -> Result<[u16; COUNT]> {
    // All are held at the same time, so that none is found twice.
    let listeners: Vec<TcpListener> =
        (0..COUNT).map(|_| TcpListener::bind(("0.0.0.0", 0))).collect::<Result<_, _>>()?;
    let mut ports = [0; COUNT];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

impl Controller {
    /// Where `/metrics` is.
    pub fn metrics_url(&self) -> String {
        format!("http://127.0.0.1:{}/metrics", self.metrics_port)
    }

    /// Where `/healthz` is: whether the process works at all.
    pub fn health_url(&self) -> String {
        format!("http://127.0.0.1:{}/healthz", self.health_port)
    }

    /// Where `/readyz` is: whether the controller knows the cluster and works, or stands by for the leader.
    pub fn ready_url(&self) -> String {
        format!("http://127.0.0.1:{}/readyz", self.health_port)
    }

    /// Where Git servers tell of pushes.
    pub fn webhook_url(&self) -> String {
        format!("http://127.0.0.1:{}/api/webhook", self.webhook_port)
    }

    /// Waits until the controller is ready; fails at once when it ends.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let client = crate::http::client()?;
        let url = self.ready_url();
        let start = std::time::Instant::now();
        loop {
            self.check_alive()?;
            let answer = client.get(&url).send().await.and_then(reqwest::Response::error_for_status);
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > Duration::from_secs(30) => {
                    bail!("the controller was not ready after 30 s: {error}\n{}", self.log_tail(20))
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
            }
        }
    }

    fn start(&mut self) -> Result<()> {
        let log = File::options().append(true).create(true).open(&self.log)?;
        // Not through `nsenter`: a signal is to reach the controller itself, and the calling thread is inside already.
        let mut command = Command::new(tidegate_program()?);
        command.arg("controller");
        command.arg(format!("--metricsPort={}", self.metrics_port));
        command.arg(format!("--healthzPort={}", self.health_port));
        command.arg(format!("--webhook-port={}", self.webhook_port));
        command.arg("--repository-cache").arg(self.repositories.path());
        command.args(&self.args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if let Some(kubeconfig) = self.cluster.kubeconfig() {
            command.env("KUBECONFIG", kubeconfig);
        }
        // In an image it lies beside the binary; here it is where `install::render_worker` builds it.
        let worker = crate::install::render_worker_path();
        if worker.is_file() && std::env::var_os("TIDEGATE_RENDER_WORKER").is_none() {
            command.env("TIDEGATE_RENDER_WORKER", worker);
        }
        for variable in crate::cluster::PROXIES {
            command.env_remove(variable);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.spawn().context("start tidegate controller")?);
        Ok(())
    }

    /// The controller's process, to look at its CPU time and memory.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Everything that the controller logged, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The end of the log, for an error message.
    pub fn log_tail(&self, lines: usize) -> String {
        last_lines(&self.log(), lines)
    }

    /// Fails when the controller has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { bail!("the controller was stopped") };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the controller ended with {status}:\n{}", self.log_tail(20)),
        }
    }

    /// SIGKILL: ends it between any two of its writes.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for the end; fails when it takes longer than `timeout` or ends with another code than 0.
    pub fn stop(&mut self, timeout: Duration) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        let mut status = None;
        poll_until(timeout, || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        });
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the controller ended with {status} on SIGTERM:\n{}", self.log_tail(20)),
            None => {
                child.kill()?;
                child.wait()?;
                bail!("the controller did not end within {timeout:?} after SIGTERM:\n{}", self.log_tail(20))
            }
        }
    }

    /// Starts it again, with the same arguments and the same log, after `kill` or `stop`.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.start()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill().ok();
        if std::thread::panicking() {
            crate::process::say(&format!("--- the controller's log ---\n{}", self.log_tail(60)));
        } else {
            crate::session::keep_log("the controller's log", &self.log_tail(60));
        }
    }
}
