//! `tidegate controller`, which is also `rollouts-controller`: the command line of the process.
//!
//! Names, meaning and defaults are the peer's, so that an existing Deployment needs only another image. A flag that
//! does not exist is an error that names it, as everywhere in this program.

use crate::cluster;
use crate::grammar::go_bool;
use anyhow::{Context, Result, bail};
use clap::{ArgAction, Args, ValueEnum};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;
use tidegate_controller::options::{
    AdmissionOptions, ControllerOptions, Controllers, LogFormat, LogOptions, RouterOptions,
};

/// Runs the controller until it is told to stop.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  # All namespaces, outside of the cluster, without leader election
  tidegate controller --kubeconfig ~/.kube/config --leader-elect=false

  # One namespace
  tidegate controller --namespaced --namespace shop")]
pub struct Flags {
    #[command(flatten)]
    cluster: cluster::Flags,
    /// Watch one namespace only: the one of --namespace, the kubeconfig or the pod
    #[arg(long)]
    namespaced: bool,
    /// Look at every object again after so many seconds although nothing changed
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    rollout_resync: u64,
    /// Compare every Application with its source again after so many seconds; 0 for never
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    app_resync: u64,
    /// Further namespaces that Applications may live in: globs, or /regular expressions/
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    application_namespaces: Vec<String>,
    /// Directory of the copies of Git repositories
    #[arg(long, value_name = "DIR", env = "TIDEGATE_CACHE_DIR", hide_env_values = true)]
    repository_cache: Option<std::path::PathBuf>,
    /// Port of /api/webhook, for Git servers; 0 for none
    #[arg(long, value_name = "PORT", default_value_t = 8085, env = "TIDEGATE_WEBHOOK_PORT", hide_env_values = true)]
    webhook_port: u16,
    /// Sync Applications from Git; default: true, and false when called as rollouts-controller, whose ClusterRole does
    /// not grant it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true, env = "TIDEGATE_GITOPS", hide_env_values = true)]
    gitops: Option<bool>,
    /// Handle only objects labelled with this instance id; without it, only objects without the label
    #[arg(long, value_name = "ID", default_value = "")]
    instance_id: String,
    /// Controllers to run: all, or only analysis
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    controllers: Vec<String>,
    /// Format of the log
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    logformat: Format,
    /// Port of /metrics
    #[arg(long = "metricsPort", alias = "metricsport", value_name = "PORT", default_value_t = 8090)]
    metrics_port: u16,
    /// Port of /healthz
    #[arg(long = "healthzPort", value_name = "PORT", default_value_t = 8080)]
    healthz_port: u16,
    /// Port of the admission webhook, which refuses invalid objects; 0 for none
    #[arg(long, value_name = "PORT", default_value_t = 0, env = "TIDEGATE_ADMISSION_PORT", hide_env_values = true)]
    admission_port: u16,
    /// Directory with tls.crt and tls.key of the admission webhook; read again when they change
    #[arg(long, value_name = "DIR", env = "TIDEGATE_ADMISSION_CERTIFICATES", hide_env_values = true)]
    admission_certificates: Option<std::path::PathBuf>,
    /// Address of the profiler, such as 127.0.0.1:6060
    #[arg(long, value_name = "ADDRESS")]
    enable_pprof_address: Option<String>,
    /// Requests to the API server a second, in the long run
    #[arg(long, value_name = "N", default_value_t = 40.0)]
    qps: f32,
    /// Requests to the API server at once
    #[arg(long, value_name = "N", default_value_t = 80)]
    burst: u32,
    /// Run only while holding the Lease argo-rollouts-controller-lock[-INSTANCE ID]
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", value_parser = go_bool, value_name = "BOOL")]
    leader_elect: bool,
    /// How long others wait before they take the Lease of a silent leader
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    leader_election_lease_duration: String,
    /// How long a leader tries to renew the Lease before it gives up
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    leader_election_renew_deadline: String,
    /// How long to wait between two tries on the Lease
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    leader_election_retry_period: String,
    /// Rollouts handled at the same time
    #[arg(long, value_name = "N", default_value_t = 10)]
    rollout_threads: usize,
    /// Experiments handled at the same time
    #[arg(long, value_name = "N", default_value_t = 10)]
    experiment_threads: usize,
    /// AnalysisRuns handled at the same time
    #[arg(long, value_name = "N", default_value_t = 30)]
    analysis_threads: usize,
    /// Services handled at the same time
    #[arg(long, value_name = "N", default_value_t = 10)]
    service_threads: usize,
    /// Ingresses handled at the same time
    #[arg(long, value_name = "N", default_value_t = 10)]
    ingress_threads: usize,
    /// Pods whose ephemeral metadata is updated at the same time
    #[arg(long, value_name = "N", default_value_t = 10)]
    ephemeral_metadata_threads: usize,
    /// How often the update of a pod's ephemeral metadata is tried again on a conflict
    #[arg(long, value_name = "N", default_value_t = 3)]
    ephemeral_metadata_update_pod_retries: usize,
    /// Let namespaces configure their own notifications
    #[arg(long)]
    self_service_notification_enabled: bool,
    /// Version of networking.istio.io
    #[arg(long, value_name = "VERSION", default_value = "v1alpha3")]
    istio_api_version: String,
    /// Group and version of Ambassador's Mappings
    #[arg(long, value_name = "GROUP/VERSION", default_value = "getambassador.io/v2")]
    ambassador_api_version: String,
    /// Version of TrafficSplits
    #[arg(long, value_name = "VERSION", default_value = "v1alpha1")]
    traffic_split_api_version: String,
    /// Group of Traefik's objects
    #[arg(long, value_name = "GROUP", default_value = "traefik.io")]
    traefik_api_group: String,
    /// Group and version of Traefik's objects
    #[arg(long, value_name = "GROUP/VERSION", default_value = "traefik.io/v1alpha1")]
    traefik_api_version: String,
    /// Group and version of Ingresses; default: what the API server has
    #[arg(long, value_name = "GROUP/VERSION")]
    ingress_api_version: Option<String>,
    /// Version of App Mesh's objects
    #[arg(long, value_name = "VERSION", default_value = "v1beta2")]
    appmesh_crd_version: String,
    /// Class of Ingresses of the AWS load balancer controller; repeatable
    #[arg(long, value_name = "CLASS", default_value = "alb")]
    alb_ingress_classes: Vec<String>,
    /// Class of Ingresses of ingress-nginx; repeatable
    #[arg(long, value_name = "CLASS", default_value = "nginx")]
    nginx_ingress_classes: Vec<String>,
    /// Ask AWS whether target groups took the weights and pods
    #[arg(long)]
    aws_verify_target_group: bool,
    /// Deprecated: use --aws-verify-target-group
    #[arg(long, hide = true)]
    alb_verify_weight: bool,
    /// Group and version of TargetGroupBindings
    #[arg(long, value_name = "GROUP/VERSION", default_value = "elbv2.k8s.aws/v1beta1")]
    aws_target_group_binding_api_version: String,
    /// Tag of AWS resources that names their Ingress
    #[arg(long, value_name = "TAG", default_value = "ingress.k8s.aws/resource")]
    alb_tag_key_resource_id: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Flags {
    /// The options that the flags say. The namespace is the connection's.
    ///
    /// # Errors
    /// When a value does not fit; the message names the flag.
    fn options(&self, namespace: &str) -> Result<ControllerOptions> {
        let renew = duration("--leader-election-renew-deadline", &self.leader_election_renew_deadline)?;
        let lease = duration("--leader-election-lease-duration", &self.leader_election_lease_duration)?;
        let retry = duration("--leader-election-retry-period", &self.leader_election_retry_period)?;
        if self.leader_elect && !(lease > renew && renew > retry && retry > Duration::ZERO) {
            bail!(
                "--leader-election-lease-duration ({}) has to be longer than --leader-election-renew-deadline ({}), and \
                 that longer than --leader-election-retry-period ({}), which is more than 0",
                self.leader_election_lease_duration,
                self.leader_election_renew_deadline,
                self.leader_election_retry_period
            );
        }
        let defaults = tidegate_controller::application::Settings::default();
        Ok(ControllerOptions {
            namespace: namespace.to_owned(),
            namespaced: self.namespaced,
            resync: Duration::from_secs(self.rollout_resync),
            instance_id: Some(self.instance_id.clone()).filter(|id| !id.is_empty()),
            controllers: controllers(&self.controllers)?,
            leader_elect: self.leader_elect,
            lease_duration: lease,
            lease_renew_deadline: renew,
            lease_retry_period: retry,
            pod_namespace: std::env::var("POD_NAMESPACE").ok().filter(|namespace| !namespace.is_empty()),
            metrics_port: self.metrics_port,
            healthz_port: self.healthz_port,
            admission: self.admission()?,
            profiler: self.enable_pprof_address.as_deref().filter(|text| !text.is_empty()).map(address).transpose()?,
            qps: self.qps,
            burst: self.burst,
            rollout_workers: self.rollout_threads,
            experiment_workers: self.experiment_threads,
            analysis_workers: self.analysis_threads,
            service_workers: self.service_threads,
            ingress_workers: self.ingress_threads,
            ephemeral_metadata_workers: self.ephemeral_metadata_threads,
            ephemeral_metadata_retries: self.ephemeral_metadata_update_pod_retries,
            self_service_notifications: self.self_service_notification_enabled,
            routers: RouterOptions {
                istio_api_version: self.istio_api_version.clone(),
                ambassador_api_version: self.ambassador_api_version.clone(),
                traffic_split_api_version: self.traffic_split_api_version.clone(),
                traefik_api_group: self.traefik_api_group.clone(),
                traefik_api_version: self.traefik_api_version.clone(),
                ingress_api_version: self.ingress_api_version.clone().filter(|version| !version.is_empty()),
                appmesh_crd_version: self.appmesh_crd_version.clone(),
                alb_ingress_classes: self.alb_ingress_classes.clone(),
                nginx_ingress_classes: self.nginx_ingress_classes.clone(),
                aws_verify_target_group: self.aws_verify_target_group || self.alb_verify_weight,
                aws_target_group_binding_api_version: self.aws_target_group_binding_api_version.clone(),
                alb_tag_key_resource_id: self.alb_tag_key_resource_id.clone(),
            },
            gitops: self.gitops.unwrap_or_else(|| !called_as_the_peer()),
            applications: tidegate_controller::application::Settings {
                resync: Duration::from_secs(self.app_resync),
                application_namespaces: self.application_namespaces.clone(),
                webhook_port: self.webhook_port,
                cache_dir: self.repository_cache.clone().unwrap_or(defaults.cache_dir.clone()),
                ..defaults
            },
            log: LogOptions {
                level: self.cluster.loglevel.clone(),
                format: match self.logformat {
                    Format::Text => LogFormat::Text,
                    Format::Json => LogFormat::Json,
                },
                kubernetes_level: self.cluster.kloglevel,
            },
        })
    }

    fn admission(&self) -> Result<Option<AdmissionOptions>> {
        match (self.admission_port, &self.admission_certificates) {
            (0, _) => Ok(None),
            (port, Some(directory)) => Ok(Some(AdmissionOptions { port, certificates: directory.clone() })),
            (port, None) => {
                bail!("--admission-port {port} needs --admission-certificates: a directory with tls.crt and tls.key")
            }
        }
    }
}

fn duration(flag: &str, text: &str) -> Result<Duration> {
    tidegate_crds::duration::parse(text).with_context(|| flag.to_owned())
}

fn controllers(names: &[String]) -> Result<Controllers> {
    match names {
        [] => Ok(Controllers::All),
        [name] if name == "analysis" => Ok(Controllers::Analysis),
        [name] if matches!(name.as_str(), "" | "*" | "all") => Ok(Controllers::All),
        other => bail!("--controllers: found {:?}, expected analysis (or nothing, for all)", other.join(",")),
    }
}

/// An address to listen on. A bare port, as in `:6060`, is every address.
fn address(text: &str) -> Result<SocketAddr> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    let mut found = full.to_socket_addrs().with_context(|| format!("--enable-pprof-address {text:?}"))?;
    found.next().with_context(|| format!("--enable-pprof-address {text:?} has no address"))
}

/// Runs the controller.
///
/// # Errors
/// When a flag does not fit, or the controller cannot run.
pub fn run(flags: Flags) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stopped = stopped()?;
        let config = flags.cluster.configure("rollouts-controller").await?;
        let options = flags.options(&config.default_namespace)?;
        log(&options.log);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), namespace = options.namespace, "Tidegate starts.");
        tidegate_controller::run::run(config, options, stopped).await
    })
}

/// The program was called by the name that the peer's controller has.
fn called_as_the_peer() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    std::path::Path::new(&name).file_name().is_some_and(|n| n == "rollouts-controller")
}

/// Ready when the process is asked to stop. The signals are caught from the call on, not from the first poll.
fn stopped() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("catching SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("catching SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Logs to standard error, a line each decision.
fn log(options: &LogOptions) {
    let client = match options.kubernetes_level {
        0 => "error",
        1..=3 => "warn",
        4..=5 => "info",
        6..=7 => "debug",
        _ => "trace",
    };
    let directives = format!(
        "{},kube={client},kube_client={client},kube_runtime={client},hyper=warn,tower=warn,rustls=warn",
        options.level
    );
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .or_else(|_| tracing_subscriber::EnvFilter::try_new(directives))
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).with_target(false);
    // A logger that is set already (in tests) stays.
    let _ = match options.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        flags: Flags,
    }

    fn options(line: &str) -> Result<ControllerOptions> {
        let words = std::iter::once("rollouts-controller").chain(line.split_whitespace());
        Program::try_parse_from(words)?.flags.options("shop")
    }

    #[test]
    fn defaults_are_the_peers() {
        let mut expected = ControllerOptions { namespace: "shop".into(), ..Default::default() };
        expected.pod_namespace = std::env::var("POD_NAMESPACE").ok();
        assert_eq!(options("").unwrap(), expected);
    }

    #[test]
    fn takes_all_flags_of_the_peer() {
        let all = "--rollout-resync 60 --namespaced --loglevel debug --logformat json --kloglevel 4 --metricsPort 1 \
            --healthzPort 2 --qps 1.5 --burst 3 --analysis-threads 4 --ephemeral-metadata-threads 5 \
            --ephemeral-metadata-update-pod-retries 6 --aws-verify-target-group --alb-tag-key-resource-id tag \
            --istio-api-version v1 --traffic-split-api-version v1alpha3 --ingress-api-version networking.k8s.io/v1 \
            --controllers analysis --leader-elect=false --leader-election-lease-duration 30s \
            --leader-election-renew-deadline 20s --leader-election-retry-period 5s --instance-id blue \
            --rollout-threads 7 --experiment-threads 8 --service-threads 9 --ingress-threads 11 \
            --self-service-notification-enabled --aws-target-group-binding-api-version elbv2.k8s.aws/v1 \
            --alb-ingress-classes a --alb-ingress-classes b --nginx-ingress-classes n --ambassador-api-version x/v3 \
            --traefik-api-group traefik.containo.us --traefik-api-version traefik.containo.us/v1alpha1 \
            --appmesh-crd-version v1 --enable-pprof-address :6060";
        let options = options(all).unwrap();
        assert_eq!(options.resync, Duration::from_secs(60));
        assert_eq!((options.metrics_port, options.healthz_port, options.leader_elect), (1, 2, false));
        assert_eq!(options.lease_name(), "argo-rollouts-controller-lock-blue");
        assert_eq!(options.controllers, Controllers::Analysis);
        assert_eq!(options.routers.alb_ingress_classes, ["a", "b"]);
        assert_eq!(options.log, LogOptions { level: "debug".into(), format: LogFormat::Json, kubernetes_level: 4 });
        assert_eq!(options.profiler, Some(([0, 0, 0, 0], 6060).into()));
        assert!(options.routers.aws_verify_target_group && options.self_service_notifications);
    }

    #[test]
    fn takes_deprecated_names_and_names_what_is_wrong() {
        assert_eq!(options("--metricsport 9").unwrap().metrics_port, 9);
        let error = |line: &str| format!("{:#}", options(line).unwrap_err());
        assert!(error("--no-such-flag").contains("--no-such-flag"));
        assert!(error("--leader-election-lease-duration 5s").contains("--leader-election-renew-deadline"));
        assert!(error("--leader-election-lease-duration soon").contains("--leader-election-lease-duration"));
        assert!(error("--controllers rollouts").contains("rollouts"));
        assert!(error("--admission-port 9443").contains("--admission-certificates"));
    }

    #[test]
    fn admission_is_served_when_asked() {
        assert_eq!(options("--admission-certificates /certificates").unwrap().admission, None);
        assert_eq!(
            options("--admission-port 9443 --admission-certificates /certificates").unwrap().admission,
            Some(AdmissionOptions { port: 9443, certificates: "/certificates".into() })
        );
    }
}
