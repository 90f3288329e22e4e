//! The connection flags of `app` commands.
//!
//! The commands work on the cluster directly, as `argocd --core` does, so what is about an API server of Argo CD is
//! accepted and has no effect.

use crate::cluster;
use anyhow::{Result, bail};
use clap::Args;
use kube::{Api, Client};
use std::path::PathBuf;
use tidegate_crds::application::Application;

/// The connection flags.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
#[command(next_help_heading = "Cluster options")]
pub struct Flags {
    /// Kubeconfig file; default: $KUBECONFIG, then ~/.kube/config, then the pod's own service account
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, visible_alias = "context", global = true, value_name = "NAME")]
    kube_context: Option<String>,
    /// Namespace of the control plane, where Applications are looked for first
    #[arg(long, global = true, value_name = "NAMESPACE", env = "ARGOCD_NAMESPACE", default_value = "argocd")]
    control_plane_namespace: String,
    /// Do it as this user, if you may impersonate
    #[arg(long = "as", global = true, value_name = "USER")]
    as_user: Option<String>,
    /// Do it as a member of this group, if you may impersonate; repeatable
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    as_group: Vec<String>,
    /// Level of the log: trace, debug, info, warn or error
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info", hide_default_value = true)]
    loglevel: String,
    #[command(flatten)]
    server: ServerFlags,
}

/// Flags about an API server of Argo CD. There is none here.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
struct ServerFlags {
    #[arg(long, global = true, hide = true)]
    core: bool,
    #[arg(long, global = true, hide = true)]
    server: Option<String>,
    #[arg(long, global = true, hide = true, hide_env_values = true)]
    auth_token: Option<String>,
    #[arg(long, global = true, hide = true)]
    argocd_context: Option<String>,
    #[arg(long, global = true, hide = true)]
    config: Option<String>,
    #[arg(long, global = true, hide = true)]
    grpc_web: bool,
    #[arg(long, global = true, hide = true)]
    grpc_web_root_path: Option<String>,
    #[arg(long, global = true, hide = true)]
    insecure: bool,
    #[arg(long, global = true, hide = true)]
    plaintext: bool,
    #[arg(long, global = true, hide = true)]
    server_crt: Option<String>,
    #[arg(long, global = true, hide = true)]
    client_crt: Option<String>,
    #[arg(long, global = true, hide = true)]
    client_crt_key: Option<String>,
    #[arg(short = 'H', long, global = true, hide = true)]
    header: Vec<String>,
    #[arg(long, global = true, hide = true)]
    port_forward: bool,
    #[arg(long, global = true, hide = true)]
    port_forward_namespace: Option<String>,
    #[arg(long, global = true, hide = true)]
    http_retry_max: Option<u32>,
    #[arg(long, global = true, hide = true)]
    prompts_enabled: bool,
    #[arg(long, global = true, hide = true)]
    logformat: Option<String>,
    #[arg(long, global = true, hide = true)]
    redis_compress: Option<String>,
    #[arg(long, global = true, hide = true)]
    redis_name: Option<String>,
    #[arg(long, global = true, hide = true)]
    redis_haproxy_name: Option<String>,
    #[arg(long, global = true, hide = true)]
    repo_server_name: Option<String>,
    #[arg(long, global = true, hide = true)]
    controller_name: Option<String>,
    #[arg(long, global = true, hide = true)]
    server_name: Option<String>,
}

/// A client, and where Applications are.
#[derive(Clone)]
pub struct Connection {
    /// The client.
    pub client: Client,
    /// Namespace of the control plane.
    pub control_plane: String,
}

impl Flags {
    /// Connects.
    ///
    /// # Errors
    /// When there is no usable kubeconfig.
    pub async fn connect(&self) -> Result<Connection> {
        let flags = cluster::Flags {
            kubeconfig: self.kubeconfig.clone(),
            context: self.kube_context.clone(),
            as_user: self.as_user.clone(),
            as_group: self.as_group.clone(),
            request_timeout: "0".to_owned(),
            loglevel: self.loglevel.clone(),
            ..Default::default()
        };
        flags.start_log();
        if let Some(server) = &self.server.server {
            tracing::warn!(
                "--server {server} has no effect: this program works on the cluster of the kubeconfig directly"
            );
        }
        let connection = flags.connect("argocd-server").await?;
        Ok(Connection { client: connection.client, control_plane: self.control_plane_namespace.clone() })
    }
}

/// Namespace and name of an Application.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl AppName {
    /// Reads `name` or `namespace/name`; `flag` is `--app-namespace`.
    ///
    /// # Errors
    /// When the text is no name, or names another namespace than the flag.
    pub fn parse(text: &str, flag: Option<&str>, control_plane: &str) -> Result<Self> {
        let flag = flag.filter(|namespace| !namespace.is_empty());
        let (namespace, name) = match text.split_once('/') {
            None => (flag.unwrap_or(control_plane), text),
            Some((namespace, name)) => {
                if flag.is_some_and(|flag| flag != namespace) {
                    bail!("{text:?} and --app-namespace {} name different namespaces", flag.unwrap_or_default());
                }
                (namespace, name)
            }
        };
        if namespace.is_empty() || name.is_empty() || name.contains('/') {
            bail!("{text:?} is no name of an Application: expected NAME or NAMESPACE/NAME");
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The name of an Application that was read.
    pub fn of(app: &Application) -> Self {
        Self { namespace: app.namespace().to_owned(), name: app.name().to_owned() }
    }

    /// `namespace/name`.
    pub fn qualified(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Connection {
    /// The Applications of a namespace.
    pub fn apps(&self, namespace: &str) -> Api<Application> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Reads a name on the command line.
    ///
    /// # Errors
    /// As [`AppName::parse`].
    pub fn name(&self, text: &str, flag: Option<&str>) -> Result<AppName> {
        AppName::parse(text, flag, &self.control_plane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_with_and_without_a_namespace() {
        let of = |text: &str, flag: Option<&str>| AppName::parse(text, flag, "argocd").map(|name| name.qualified());
        assert_eq!(of("shop", None).unwrap(), "argocd/shop");
        assert_eq!(of("shop", Some("team")).unwrap(), "team/shop");
        assert_eq!(of("team/shop", None).unwrap(), "team/shop");
        assert_eq!(of("team/shop", Some("team")).unwrap(), "team/shop");
        assert!(of("team/shop", Some("other")).is_err());
        for bad in ["", "/", "a/", "/a", "a/b/c"] {
            assert!(of(bad, None).is_err(), "{bad:?}");
        }
    }
}
