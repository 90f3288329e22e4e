//! What the controller process is told on its command line. Names, meaning and defaults are the peer's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of the controller process.
#[derive(Clone, Debug, PartialEq)]
pub struct ControllerOptions {
    /// Namespace of the kubeconfig's context or of the pod. With [`Self::namespaced`] the only one that is watched.
    pub namespace: String,
    /// Watch one namespace only. Default false: all.
    pub namespaced: bool,
    /// Look at every object again after this time although nothing changed. Default 15 minutes.
    pub resync: Duration,
    /// Handle only objects that carry this instance id, and without one only objects that carry none. Default: none.
    pub instance_id: Option<String>,
    /// Which controllers run. Default: all.
    pub controllers: Controllers,
    /// Run only while holding the Lease. Default true.
    pub leader_elect: bool,
    /// How long others wait before they take the Lease of a leader that is silent. Default 15 s.
    pub lease_duration: Duration,
    /// How long a leader tries to renew the Lease before it gives up. Default 10 s.
    pub lease_renew_deadline: Duration,
    /// How long to wait between two tries on the Lease. Default 2 s.
    pub lease_retry_period: Duration,
    /// Namespace of the Lease and of the ConfigMaps and Secrets of the installation (`POD_NAMESPACE`). Default: the
    /// namespace of the connection.
    pub pod_namespace: Option<String>,
    /// Port of `/metrics`. Default 8090.
    pub metrics_port: u16,
    /// Port of `/healthz`. Default 8080.
    pub healthz_port: u16,
    /// The admission webhook. Default: none.
    pub admission: Option<AdmissionOptions>,
    /// Address of the profiler. Default: none.
    pub profiler: Option<SocketAddr>,
    /// Requests to the API server a second, in the long run. Default 40.
    pub qps: f32,
    /// Requests to the API server at once. Default 80.
    pub burst: u32,
    /// Rollouts handled at the same time. Default 10.
    pub rollout_workers: usize,
    /// Experiments handled at the same time. Default 10.
    pub experiment_workers: usize,
    /// AnalysisRuns handled at the same time. Default 30.
    pub analysis_workers: usize,
    /// Services handled at the same time. Default 10.
    pub service_workers: usize,
    /// Ingresses handled at the same time. Default 10.
    pub ingress_workers: usize,
    /// Pods whose ephemeral metadata is updated at the same time. Default 10.
    pub ephemeral_metadata_workers: usize,
    /// How often the update of a pod's ephemeral metadata is tried again on a conflict. Default 3.
    pub ephemeral_metadata_retries: usize,
    /// Let namespaces configure their own notifications. Default false.
    pub self_service_notifications: bool,
    /// Versions and classes of the objects that routers write.
    pub routers: RouterOptions,
    /// The Application controller.
    pub applications: crate::application::Settings,
    /// Sync Applications from Git. Default true.
    pub gitops: bool,
    /// The log.
    pub log: LogOptions,
}

/// Where the admission webhook is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionOptions {
    /// Port; 0 for one that is free.
    pub port: u16,
    /// Directory with `tls.crt` and `tls.key`.
    pub certificates: PathBuf,
}

/// Which controllers run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Controllers {
    /// All of them.
    #[default]
    All,
    /// Only the one of AnalysisRuns.
    Analysis,
}

/// Versions and classes of the objects that routers write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterOptions {
    /// Version of `networking.istio.io`. Default `v1alpha3`.
    pub istio_api_version: String,
    /// `group/version` of Ambassador's Mappings. Default `getambassador.io/v2`.
    pub ambassador_api_version: String,
    /// Version of `split.smi-spec.io`. Default `v1alpha1`.
    pub traffic_split_api_version: String,
    /// Group of Traefik's objects. Default `traefik.io`.
    pub traefik_api_group: String,
    /// `group/version` of Traefik's objects. Default `traefik.io/v1alpha1`.
    pub traefik_api_version: String,
    /// `group/version` of Ingresses. Default: whatever the API server has. Only `networking.k8s.io/v1` is left.
    pub ingress_api_version: Option<String>,
    /// Version of App Mesh's objects. Default `v1beta2`.
    pub appmesh_crd_version: String,
    /// Classes of Ingresses of the AWS load balancer controller. Default `alb`.
    pub alb_ingress_classes: Vec<String>,
    /// Classes of Ingresses of ingress-nginx. Default `nginx`.
    pub nginx_ingress_classes: Vec<String>,
    /// Ask AWS whether target groups took the weights and pods. Default false.
    pub aws_verify_target_group: bool,
    /// `group/version` of TargetGroupBindings. Default `elbv2.k8s.aws/v1beta1`.
    pub aws_target_group_binding_api_version: String,
    /// Tag of AWS resources that names their Ingress. Default `ingress.k8s.aws/resource`.
    pub alb_tag_key_resource_id: String,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// `trace`, `debug`, `info`, `warn` or `error`. Default `info`.
    pub level: String,
    /// Default [`LogFormat::Text`].
    pub format: LogFormat,
    /// Level of the Kubernetes client's log, from 0 (errors) to 9. Default 0.
    pub kubernetes_level: u8,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        Self {
            namespace: "default".to_owned(),
            namespaced: false,
            resync: Duration::from_secs(900),
            instance_id: None,
            controllers: Controllers::All,
            leader_elect: true,
            lease_duration: Duration::from_secs(15),
            lease_renew_deadline: Duration::from_secs(10),
            lease_retry_period: Duration::from_secs(2),
            pod_namespace: None,
            metrics_port: 8090,
            healthz_port: 8080,
            admission: None,
            profiler: None,
            qps: 40.0,
            burst: 80,
            rollout_workers: 10,
            experiment_workers: 10,
            analysis_workers: 30,
            service_workers: 10,
            ingress_workers: 10,
            ephemeral_metadata_workers: 10,
            ephemeral_metadata_retries: 3,
            self_service_notifications: false,
            routers: RouterOptions::default(),
            applications: crate::application::Settings::default(),
            gitops: true,
            log: LogOptions::default(),
        }
    }
}

impl Default for RouterOptions {
    fn default() -> Self {
        Self {
            istio_api_version: "v1alpha3".to_owned(),
            ambassador_api_version: "getambassador.io/v2".to_owned(),
            traffic_split_api_version: "v1alpha1".to_owned(),
            traefik_api_group: "traefik.io".to_owned(),
            traefik_api_version: "traefik.io/v1alpha1".to_owned(),
            ingress_api_version: None,
            appmesh_crd_version: "v1beta2".to_owned(),
            alb_ingress_classes: vec!["alb".to_owned()],
            nginx_ingress_classes: vec!["nginx".to_owned()],
            aws_verify_target_group: false,
            aws_target_group_binding_api_version: "elbv2.k8s.aws/v1beta1".to_owned(),
            alb_tag_key_resource_id: "ingress.k8s.aws/resource".to_owned(),
        }
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text, kubernetes_level: 0 }
    }
}

impl ControllerOptions {
    /// Name of the Lease that the leader holds.
    pub fn lease_name(&self) -> String {
        match &self.instance_id {
            Some(id) => format!("argo-rollouts-controller-lock-{id}"),
            None => "argo-rollouts-controller-lock".to_owned(),
        }
    }

    /// Namespace of the Lease, and of the installation's ConfigMaps and Secrets.
    pub fn home(&self) -> &str {
        self.pod_namespace.as_deref().unwrap_or(&self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_is_named_as_the_peers() {
        let mut options = ControllerOptions { namespace: "shop".into(), ..Default::default() };
        assert_eq!((options.lease_name().as_str(), options.home()), ("argo-rollouts-controller-lock", "shop"));
        options.instance_id = Some("blue".into());
        options.pod_namespace = Some("argo-rollouts".into());
        assert_eq!(
            (options.lease_name().as_str(), options.home()),
            ("argo-rollouts-controller-lock-blue", "argo-rollouts")
        );
    }
}
