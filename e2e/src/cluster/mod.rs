//! Clusters: what they are made of, how one is found, reached and removed.

mod configuration;
mod down;
mod up;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::{Deserialize, Serialize};

pub use configuration::CONTAINERD_SOCKET;
pub use down::{prune, remove};
pub use up::up;

use crate::git_server::GitServer;
use crate::netns::{NODE_IP, NetworkNamespace};
use crate::process::ProcessId;
use crate::sandbox::Sandbox;
use crate::state::{Record, StateDir};

/// The network namespaces' addresses of Services; the first is the API server's own.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// Where pods find the API server.
pub const KUBERNETES_SERVICE_IP: &str = "10.96.0.1";
/// The addresses of a real node's pods.
pub const POD_CIDR: &str = "10.244.0.0/22";

/// What runs the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nodes {
    /// One node of kubelet, containerd and kube-proxy: pods are processes, Services carry traffic.
    Real,
    /// This many nodes that KWOK pretends: pods become ready, but nothing runs in them.
    Simulated(u32),
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Nodes::Real => f.write_str("real"),
            Nodes::Simulated(count) => write!(f, "simulated:{count}"),
        }
    }
}

impl FromStr for Nodes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "real" => Ok(Nodes::Real),
            None if text == "simulated" => Ok(Nodes::Simulated(10)),
            Some(("simulated", count)) => match count.parse() {
                Ok(count) if (1..=1000).contains(&count) => Ok(Nodes::Simulated(count)),
                _ => Err(format!("{count:?} simulated nodes: expected a number from 1 to 1000")),
            },
            _ => Err(format!("{text:?}: expected real, simulated or simulated:COUNT")),
        }
    }
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    pub name: String,
    pub nodes: Nodes,
    /// Traefik as Gateway API data plane and Ingress controller, with a GatewayClass and a Gateway.
    pub traefik: bool,
    /// Prometheus, scraping annotated pods every second.
    pub prometheus: bool,
    /// A Git server, over http and ssh.
    pub git: bool,
    /// End the cluster when this process ends, however it does.
    pub owner: Option<ProcessId>,
    /// Image of the test server to load: the binary, or none for a cluster without test images.
    pub testserver: Option<PathBuf>,
}

impl Options {
    /// A real node and nothing beside it.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            nodes: Nodes::Real,
            traefik: false,
            prometheus: false,
            git: false,
            owner: None,
            testserver: None,
        }
    }
}

/// A cluster that runs: one of ours, or one that the user named by a kubeconfig context.
#[derive(Debug, Clone)]
pub struct Cluster {
    inner: Inner,
}

#[derive(Debug, Clone)]
enum Inner {
    Own(Box<Own>),
    Context(String),
}

#[derive(Debug, Clone)]
struct Own {
    state: StateDir,
    record: Record,
    sandbox: Sandbox,
}

impl Cluster {
    /// The running cluster of this name. Fails when there is none or it is only half started.
    pub fn find(name: &str) -> Result<Self> {
        let state = StateDir::new(name)?;
        let Some(record) = state.record() else {
            bail!(
                "no cluster {name:?} under {}; `tidegate-e2e up --name {name}` starts one",
                crate::state::root().display()
            );
        };
        let Some(sandbox) = Sandbox::find(&state) else {
            bail!("cluster {name:?} has died; `tidegate-e2e up --name {name}` starts it anew");
        };
        Ok(Self { inner: Inner::Own(Box::new(Own { state, record, sandbox })) })
    }

    /// The cluster behind a context of the user's kubeconfig. Nothing is started or removed there.
    pub fn of_context(context: &str) -> Self {
        Self { inner: Inner::Context(context.to_owned()) }
    }

    /// The cluster that the tests of this process share, see [`crate::session`].
    pub fn shared() -> Result<&'static Cluster> {
        crate::session::shared()
    }

    fn own(&self) -> Result<&Own> {
        match &self.inner {
            Inner::Own(own) => Ok(own),
            Inner::Context(context) => {
                bail!("context {context:?} is not a cluster of this harness, which can do this only to its own")
            }
        }
    }

    /// The cluster's name, or the context's.
    pub fn name(&self) -> &str {
        match &self.inner {
            Inner::Own(own) => &own.record.name,
            Inner::Context(context) => context,
        }
    }

    /// What is known of a cluster of this harness; `None` for a user's.
    pub fn record(&self) -> Option<&Record> {
        self.own().ok().map(|own| &own.record)
    }

    pub fn state(&self) -> Result<&StateDir> {
        self.own().map(|own| &own.state)
    }

    /// The means to start programs among the cluster's own.
    pub fn sandbox(&self) -> Result<&Sandbox> {
        self.own().map(|own| &own.sandbox)
    }

    /// Whether pods are processes, so that they can be asked something and logs can be read.
    pub fn has_real_pods(&self) -> bool {
        match &self.inner {
            Inner::Own(own) => own.record.nodes == Nodes::Real,
            Inner::Context(_) => true,
        }
    }

    /// Moves the calling thread to where the cluster's addresses work. Nothing to do for a user's cluster.
    pub fn enter(&self) -> Result<()> {
        match &self.inner {
            Inner::Own(own) => NetworkNamespace::of_cluster(&own.record.name).enter(),
            Inner::Context(_) => Ok(()),
        }
    }

    /// The kubeconfig file of the administrator: `None` for a user's cluster, which is in the user's own.
    pub fn kubeconfig(&self) -> Option<PathBuf> {
        self.own().ok().map(|own| own.state.kubeconfig())
    }

    /// A client with all rights. Its connections are made where the calling thread is, see [`Cluster::enter`].
    pub async fn client(&self) -> Result<kube::Client> {
        self.client_named(None).await
    }

    /// A client that calls itself `user_agent`, to be told apart in the API server's logs.
    pub async fn client_named(&self, user_agent: Option<&str>) -> Result<kube::Client> {
        let mut config = match &self.inner {
            Inner::Own(own) => {
                let file = Kubeconfig::read_from(own.state.kubeconfig()).context("read the cluster's kubeconfig")?;
                kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
            }
            Inner::Context(context) => {
                let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
                kube::Config::from_kubeconfig(&options)
                    .await
                    .with_context(|| format!("kubeconfig context {context:?}"))?
            }
        };
        if let (Inner::Own(_), proxy) = (&self.inner, &mut config.proxy_url) {
            *proxy = None;
        }
        if let Some(agent) = user_agent {
            config.headers.push((axum::http::header::USER_AGENT, agent.parse()?));
        }
        crate::session::crypto_provider();
        Ok(kube::Client::try_from(config)?)
    }

    /// A command that runs where the cluster's addresses work, with KUBECONFIG set and proxies unset.
    pub fn command(&self, program: &str) -> Command {
        let mut command = match &self.inner {
            Inner::Own(own) => {
                let namespace = NetworkNamespace::of_cluster(&own.record.name);
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.path().display())).arg("--").arg(program);
                command.env("KUBECONFIG", own.state.kubeconfig());
                let path = std::env::var_os("PATH").unwrap_or_default();
                let paths = std::iter::once(own.state.join("bin")).chain(std::env::split_paths(&path));
                if let Ok(path) = std::env::join_paths(paths) {
                    command.env("PATH", path);
                }
                command
            }
            Inner::Context(_) => Command::new(program),
        };
        for variable in PROXIES {
            command.env_remove(variable);
        }
        command
    }

    /// `kubectl` for this cluster.
    pub fn kubectl(&self) -> Command {
        let mut command = self.command("kubectl");
        if let Inner::Context(context) = &self.inner {
            command.args(["--context", context]);
        }
        command
    }

    /// The Git server, where one was asked for.
    pub fn git(&self) -> Result<GitServer> {
        let own = self.own()?;
        if !own.record.git {
            bail!("cluster {:?} has no Git server; start it with --git", own.record.name);
        }
        GitServer::of(&own.state)
    }

    /// Where Prometheus answers, for processes in the cluster's network and for pods.
    pub fn prometheus_url(&self) -> String {
        format!("http://{NODE_IP}:{}", crate::prometheus::PORT)
    }

    /// Where Traefik takes requests for the hosts of routes and Ingresses.
    pub fn gateway_url(&self) -> String {
        format!("http://{NODE_IP}:{}", crate::traefik::PORT)
    }

    /// Where Traefik takes connections for a TCPRoute; as a URL, since what runs behind it speaks HTTP.
    pub fn tcp_gateway_url(&self) -> String {
        format!("http://{NODE_IP}:{}", crate::traefik::TCP_PORT)
    }

    /// Where Traefik takes connections for a TLSRoute, and the certificate, in PEM, of the authority that vouches for its
    /// own: it is for all hosts of `example.com`.
    pub fn tls_gateway(&self) -> Result<(SocketAddr, String)> {
        let path = self.own()?.state.join("pki/ca.crt");
        let authority = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok((format!("{NODE_IP}:{}", crate::traefik::TLS_PORT).parse()?, authority))
    }

    /// The program's log so far, for a component such as `kube-apiserver` or `traefik`.
    pub fn component_log(&self, name: &str) -> Result<String> {
        let path = self.own()?.state.log(name);
        std::fs::read_to_string(&path).with_context(|| format!("log {}", path.display()))
    }
}

/// Environment that would send requests for the cluster's addresses elsewhere.
pub const PROXIES: [&str; 8] =
    ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_nodes() {
        assert_eq!("real".parse(), Ok(Nodes::Real));
        assert_eq!("simulated".parse(), Ok(Nodes::Simulated(10)));
        assert_eq!("simulated:300".parse(), Ok(Nodes::Simulated(300)));
        for wrong in ["simulated:0", "simulated:x", "many", "real:2", ""] {
            let error = wrong.parse::<Nodes>().unwrap_err();
            assert!(error.contains("expected"), "{wrong}: {error}");
        }
    }

    #[test]
    fn names_are_checked() {
        for wrong in ["", "A", "a/b", "-a", "a b", &"x".repeat(41)] {
            assert!(StateDir::new(wrong).is_err(), "{wrong:?}");
        }
        assert!(StateDir::new("dev-2").is_ok());
    }
}
