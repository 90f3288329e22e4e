//! The configuration files and arguments of the components.

use std::path::Path;

use base64::Engine;
use serde_json::{Value, json};

use super::{POD_CIDR, SERVICE_CIDR};
use crate::certificates::Certificates;
use crate::netns::NODE_IP;
use crate::state::StateDir;

/// The real node's name.
pub const NODE_NAME: &str = "node-1";
/// containerd's socket. The path is short, as a socket's must be, because a cluster's /run is its own.
pub const CONTAINERD_SOCKET: &str = "/run/tidegate/containerd.sock";
/// What holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "tidegate.local/pause:1";

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

fn file_flag(name: &str, path: &Path) -> String {
    flag(name, path.display())
}

pub fn etcd(state: &StateDir) -> Vec<String> {
    vec![
        file_flag("data-dir", &state.join("etcd")),
        flag("listen-client-urls", "http://127.0.0.1:2379"),
        flag("advertise-client-urls", "http://127.0.0.1:2379"),
        flag("listen-peer-urls", "http://127.0.0.1:2380"),
        flag("quota-backend-bytes", 4_u64 << 30),
        // Nobody minds the loss of a test cluster, everybody the time for writing it to disk safely.
        "--unsafe-no-fsync".to_owned(),
        flag("log-level", "warn"),
    ]
}

pub fn apiserver(state: &StateDir, certificates: &Certificates) -> Vec<String> {
    let pki = |file: &str| certificates.path(file);
    vec![
        flag("etcd-servers", "http://127.0.0.1:2379"),
        flag("service-cluster-ip-range", SERVICE_CIDR),
        flag("secure-port", 6443),
        flag("advertise-address", NODE_IP),
        file_flag("client-ca-file", &pki("ca.crt")),
        file_flag("tls-cert-file", &pki("apiserver.crt")),
        file_flag("tls-private-key-file", &pki("apiserver.key")),
        file_flag("token-auth-file", &state.join("tokens.csv")),
        flag("authorization-mode", "RBAC"),
        flag("service-account-issuer", "https://kubernetes.default.svc"),
        file_flag("service-account-key-file", &pki("service-account.key")),
        file_flag("service-account-signing-key-file", &pki("service-account.key")),
        file_flag("requestheader-client-ca-file", &pki("front-proxy-ca.crt")),
        flag("requestheader-allowed-names", "front-proxy-client"),
        flag("requestheader-username-headers", "X-Remote-User"),
        flag("requestheader-group-headers", "X-Remote-Group"),
        flag("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        file_flag("proxy-client-cert-file", &pki("front-proxy.crt")),
        file_flag("proxy-client-key-file", &pki("front-proxy.key")),
        flag("allow-privileged", true),
        // Nobody resolves the node's name.
        flag("kubelet-preferred-address-types", "InternalIP"),
        // A benchmark is to measure its subject, not fair queueing.
        flag("max-requests-inflight", 1600),
        flag("max-mutating-requests-inflight", 800),
        file_flag("audit-policy-file", &state.join("audit-policy.yaml")),
        file_flag("audit-log-path", &state.log("audit")),
        flag("audit-log-maxsize", 200),
        flag("audit-log-maxbackup", 1),
    ]
}

/// With the default of 20 requests a second it is the controller-manager that every benchmark would measure.
pub fn controller_manager(state: &StateDir, certificates: &Certificates) -> Vec<String> {
    vec![
        file_flag("kubeconfig", &state.kubeconfig()),
        file_flag("root-ca-file", &certificates.path("ca.crt")),
        file_flag("service-account-private-key-file", &certificates.path("service-account.key")),
        flag("leader-elect", false),
        flag("kube-api-qps", 1000),
        flag("kube-api-burst", 2000),
        flag("concurrent-replicaset-syncs", 20),
        flag("concurrent-deployment-syncs", 20),
        flag("concurrent-namespace-syncs", 20),
        // A busy machine delays heartbeats; that must not look like a lost node, whose pods are no longer ready.
        flag("node-monitor-grace-period", "10m"),
    ]
}

pub fn scheduler(state: &StateDir) -> Vec<String> {
    vec![
        file_flag("kubeconfig", &state.kubeconfig()),
        flag("leader-elect", false),
        flag("kube-api-qps", 1000),
        flag("kube-api-burst", 2000),
    ]
}

pub fn kubelet(state: &StateDir) -> Vec<String> {
    vec![
        file_flag("config", &state.join("kubelet.yaml")),
        file_flag("kubeconfig", &state.kubeconfig()),
        file_flag("root-dir", &state.join("kubelet")),
        file_flag("cert-dir", &state.join("kubelet-pki")),
        flag("hostname-override", NODE_NAME),
        // kube-proxy waits for an address that is not loopback.
        flag("node-ip", NODE_IP),
    ]
}

/// Writes what the control plane reads.
pub fn write_control_plane(state: &StateDir, certificates: &Certificates, token: &str) -> anyhow::Result<()> {
    state.write("tokens.csv", format!("{token},admin,admin,\"system:masters\"\n").as_bytes())?;
    // One line a request, with who asked and for what, but no bodies: enough to count what a controller costs.
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [
            {"level": "None", "users": ["system:apiserver"]},
            {"level": "None", "nonResourceURLs": ["/*"]},
            {"level": "Metadata"},
        ],
    });
    write_json(state, "audit-policy.yaml", &policy)?;
    let authority = std::fs::read(certificates.path("ca.crt"))?;
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": state.name, "cluster": {
            "server": format!("https://{NODE_IP}:6443"),
            "certificate-authority-data": base64::engine::general_purpose::STANDARD.encode(authority),
        }}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": state.name, "context": {"cluster": state.name, "user": "admin", "namespace": "default"}}],
        "current-context": state.name,
    });
    write_json(state, "admin.conf", &config)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    Ok(std::fs::set_permissions(state.kubeconfig(), mode)?)
}

/// Writes what the real node reads.
pub fn write_node(state: &StateDir, cgroup_root: &str, cni: &Path) -> anyhow::Result<()> {
    let network = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                // A pod may reach itself through its Service.
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": state.join("ipam"),
                    "ranges": [[{"subnet": POD_CIDR}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    write_json(state, "cni/10-pods.conflist", &network)?;
    let containerd = format!(
        r#"version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # A machine without CAP_SYS_RESOURCE may not lower the score, and no container would start.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{conf}"
"#,
        root = state.join("containerd").display(),
        cni = cni.display(),
        conf = state.join("cni").display(),
    );
    state.write("containerd.toml", containerd.as_bytes())?;
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "failSwapOn": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup_root,
        "enforceNodeAllocatable": [],
        "maxPods": 900,
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "volumePluginDir": state.join("kubelet-plugins"),
        "staticPodPath": "",
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": false,
        "clusterDNS": [],
        "resolvConf": "",
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        "kubeAPIQPS": 500,
        "kubeAPIBurst": 1000,
        "eventRecordQPS": 0,
    });
    write_json(state, "kubelet.yaml", &kubelet)?;
    let proxy = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_CIDR,
        "clientConnection": {"kubeconfig": state.kubeconfig()},
        "hostnameOverride": NODE_NAME,
        // Connection tracking's size is the host's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"syncPeriod": "30s", "minSyncPeriod": "100ms"},
    });
    write_json(state, "proxy.yaml", &proxy)
}

/// JSON is YAML, and cannot be broken by a path with an odd character.
fn write_json(state: &StateDir, file: &str, value: &Value) -> anyhow::Result<()> {
    state.write(file, serde_json::to_string_pretty(value)?.as_bytes())
}
