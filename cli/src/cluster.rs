//! Which cluster, as whom, in which namespace: kubectl's flags.

use anyhow::{Context, Result, bail};
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::PathBuf;
use std::time::Duration;

/// kubectl's connection flags.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
#[command(next_help_heading = "Cluster options")]
pub struct Flags {
    /// Namespace; default: the one of the kubeconfig's context
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Kubeconfig file; default: $KUBECONFIG, then ~/.kube/config, then the pod's own service account
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Cluster of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// User of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// Address of the API server
    #[arg(short, long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// Bearer token for the API server
    #[arg(long, global = true, value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Do it as this user, if you may impersonate
    #[arg(long = "as", global = true, value_name = "USER")]
    pub as_user: Option<String>,
    /// Do it as a member of this group, if you may impersonate; repeatable
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub as_group: Vec<String>,
    /// Do it with this uid, if you may impersonate
    #[arg(long = "as-uid", global = true, value_name = "UID", hide = true)]
    pub as_uid: Option<String>,
    /// Do not verify the API server's certificate
    #[arg(long = "insecure-skip-tls-verify", global = true)]
    pub insecure_skip_tls_verify: bool,
    /// Certificate authority of the API server
    #[arg(long = "certificate-authority", global = true, value_name = "FILE")]
    pub certificate_authority: Option<PathBuf>,
    /// Client certificate
    #[arg(long = "client-certificate", global = true, value_name = "FILE")]
    pub client_certificate: Option<PathBuf>,
    /// Key of the client certificate
    #[arg(long = "client-key", global = true, value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// Name to expect in the API server's certificate
    #[arg(long = "tls-server-name", global = true, value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// Give up on a single request after this time, such as 30s; 0 is never
    #[arg(long = "request-timeout", global = true, value_name = "DURATION", default_value = "0")]
    pub request_timeout: String,
    /// Accepted for kubectl's sake; nothing is cached
    #[arg(long = "cache-dir", global = true, value_name = "DIR", hide = true)]
    pub cache_dir: Option<PathBuf>,
    /// Accepted for kubectl's sake
    #[arg(long = "disable-compression", global = true, hide = true)]
    pub disable_compression: bool,
    /// Level of the Kubernetes client's log
    #[arg(
        short = 'v',
        long = "kloglevel",
        global = true,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub kloglevel: u8,
    /// Level of the log: trace, debug, info, warn or error
    #[arg(long = "loglevel", global = true, value_name = "LEVEL", default_value = "info", hide_default_value = true)]
    pub loglevel: String,
}

/// A client and the namespace to use with it.
#[derive(Clone)]
pub struct Connection {
    /// The client.
    pub client: Client,
    /// The namespace of the flags or of the kubeconfig's context; `default` when neither says.
    pub namespace: String,
}

impl Flags {
    /// Connects lazily: the first request shows whether the API server can be reached. `agent` is how this program calls
    /// itself there.
    ///
    /// # Errors
    /// When there is no usable kubeconfig, or a flag does not fit.
    pub async fn connect(&self, agent: &str) -> Result<Connection> {
        let config = self.configure(agent).await?;
        let namespace = config.default_namespace.clone();
        Ok(Connection { client: Client::try_from(config).context("setting up the connection")?, namespace })
    }

    /// How to connect.
    ///
    /// # Errors
    /// When there is no usable kubeconfig, or a flag does not fit.
    pub async fn configure(&self, agent: &str) -> Result<Config> {
        let mut config = self.load().await?;
        if let Some(server) = &self.server {
            config.cluster_url = server.parse().with_context(|| format!("--server {server:?} is not a URL"))?;
        }
        if let Some(token) = &self.token {
            config.auth_info.token = Some(token.clone().into());
            config.auth_info.token_file = None;
            config.auth_info.exec = None;
        }
        if let Some(user) = &self.as_user {
            config.auth_info.impersonate = Some(user.clone());
        }
        if !self.as_group.is_empty() {
            config.auth_info.impersonate_groups = Some(self.as_group.clone());
        }
        if let Some(uid) = &self.as_uid {
            config.auth_info.impersonate_uid = Some(uid.clone());
        }
        if self.insecure_skip_tls_verify {
            config.accept_invalid_certs = true;
        }
        if let Some(file) = &self.certificate_authority {
            config.root_cert_file = None;
            config.root_cert = Some(certificates(file)?);
        }
        if let Some(file) = &self.client_certificate {
            config.auth_info.client_certificate_data = None;
            config.auth_info.client_certificate = Some(file.display().to_string());
        }
        if let Some(file) = &self.client_key {
            config.auth_info.client_key_data = None;
            config.auth_info.client_key = Some(file.display().to_string());
        }
        if let Some(name) = &self.tls_server_name {
            config.tls_server_name = Some(name.clone());
        }
        let limit = tidegate_crds::duration::parse_or_seconds(&self.request_timeout)
            .with_context(|| "--request-timeout".to_owned())?;
        // Watches stay open for minutes: without an explicit limit no read may time out before they end by themselves.
        config.read_timeout = (limit > Duration::ZERO).then_some(limit);
        if let Some(namespace) = &self.namespace {
            config.default_namespace.clone_from(namespace);
        }
        // The API server names the field manager of plain patches and updates by it.
        config.headers.push(("user-agent".parse()?, format!("{agent}/{}", env!("CARGO_PKG_VERSION")).parse()?));
        Ok(config)
    }

    async fn load(&self) -> Result<Config> {
        let options =
            KubeConfigOptions { context: self.context.clone(), cluster: self.cluster.clone(), user: self.user.clone() };
        let chosen = self.context.is_some() || self.cluster.is_some() || self.user.is_some();
        let kubeconfig = match &self.kubeconfig {
            Some(file) => {
                Some(Kubeconfig::read_from(file).with_context(|| format!("reading kubeconfig {}", file.display()))?)
            }
            None => match Kubeconfig::read() {
                Ok(found) => Some(found),
                Err(error) if chosen || std::env::var_os("KUBECONFIG").is_some() => {
                    return Err(error).context("reading the kubeconfig");
                }
                Err(_) => None,
            },
        };
        match kubeconfig {
            Some(kubeconfig) => {
                Config::from_custom_kubeconfig(kubeconfig, &options).await.context("reading the kubeconfig")
            }
            None => match (Config::incluster(), &self.server) {
                (Ok(config), _) => Ok(config),
                (Err(_), Some(server)) => {
                    Ok(Config::new(server.parse().with_context(|| format!("--server {server:?} is not a URL"))?))
                }
                (Err(_), None) => bail!(
                    "no cluster: there is no kubeconfig ($KUBECONFIG, ~/.kube/config or --kubeconfig) and this is no pod"
                ),
            },
        }
    }

    /// Turns on the log that was asked for, on standard error.
    pub fn start_log(&self) {
        let kubernetes = match self.kloglevel {
            0 => "error",
            1..=3 => "info",
            4..=6 => "debug",
            _ => "trace",
        };
        let level = match self.loglevel.to_ascii_lowercase().as_str() {
            "warning" => "warn".to_owned(),
            "fatal" | "panic" => "error".to_owned(),
            other => other.to_owned(),
        };
        start_log(&format!(
            "{level},kube={kubernetes},kube_client={kubernetes},kube_runtime={kubernetes},hyper=warn,tower=warn"
        ));
    }
}

/// Turns on the log on standard error. A second call has no effect.
pub fn start_log(directives: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(directives)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,kube=error,kube_client=error,kube_runtime=error"));
    let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).without_time().try_init();
}

/// The certificates of a PEM file as DER.
fn certificates(file: &std::path::Path) -> Result<Vec<Vec<u8>>> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let name = || format!("reading certificates from {}", file.display());
    let found: Vec<Vec<u8>> = CertificateDer::pem_file_iter(file)
        .with_context(name)?
        .map(|certificate| certificate.map(|der| der.as_ref().to_vec()))
        .collect::<Result<_, _>>()
        .with_context(name)?;
    if found.is_empty() {
        bail!("{} holds no certificate in PEM form", file.display());
    }
    Ok(found)
}
