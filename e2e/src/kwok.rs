//! Simulated nodes by KWOK, with stages of our own: pods become ready at once, unless they say otherwise.
//!
//! Annotations of a pod (set them in the template): `sim.tidegate.dev/ready-after: 5s` delays readiness,
//! `sim.tidegate.dev/never-ready: "true"` prevents it, `sim.tidegate.dev/exit-code: "1"` is how a Job's container ends
//! (0 without it) and `sim.tidegate.dev/run-for: 2s` how long it takes.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::sandbox::{Component, Sandbox};
use crate::state::StateDir;

const NODE_LABEL: &str = "sim.tidegate.dev/node";

/// Starts KWOK; it takes care of the nodes that [`create_nodes`] makes.
pub fn start(state: &StateDir, sandbox: &Sandbox, program: &Path) -> Result<Component> {
    let stages: Vec<String> = stages().iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    state.write("kwok.yaml", stages.join("\n---\n").as_bytes())?;
    let args = [
        format!("--kubeconfig={}", state.kubeconfig().display()),
        format!("--config={}", state.join("kwok.yaml").display()),
        "--manage-all-nodes=true".to_owned(),
        // All nodes share their addresses: /14 has room for 260,000 pods.
        "--cidr=10.244.0.0/14".to_owned(),
        "--node-ip=10.250.0.1".to_owned(),
        "--node-lease-duration-seconds=60".to_owned(),
    ];
    sandbox.start_component("kwok", program, &args)
}

pub async fn create_nodes(client: &kube::Client, count: u32) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    for index in 0..count {
        let name = format!("sim-{index}");
        let room = json!({"cpu": "1000", "memory": "4Ti", "pods": "5000"});
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "labels": {NODE_LABEL: "true", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
            },
            "status": {"allocatable": room, "capacity": room},
        });
        nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    }
    crate::wait_for("simulated nodes to be ready", Duration::from_secs(60), async || {
        let found = nodes.list(&Default::default()).await?.items;
        let ready = found.iter().filter(|node| is_ready(node)).count();
        anyhow::ensure!(ready == count as usize, "{ready} of {count} are");
        Ok(())
    })
    .await
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn stage(name: &str, kind: &str, selector: Value, delay: Value, next: Value) -> Value {
    let mut spec = json!({
        "resourceRef": {"apiGroup": "v1", "kind": kind},
        "selector": {"matchExpressions": selector},
        "next": next,
    });
    if !delay.is_null() {
        spec["delay"] = delay;
    }
    json!({"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": name}, "spec": spec})
}

fn absent(key: &str) -> Value {
    json!({"key": key, "operator": "DoesNotExist"})
}

fn one_of(key: &str, values: &[&str]) -> Value {
    json!({"key": key, "operator": "In", "values": values})
}

const DELETED: &str = ".metadata.deletionTimestamp";
const PHASE: &str = ".status.phase";
const READY: &str = r#".status.conditions.[] | select( .type == "Ready" ) | .status"#;

fn stages() -> Vec<Value> {
    let none_of = |key: &str, values: &[&str]| json!({"key": key, "operator": "NotIn", "values": values});
    let after = |annotation: &str| {
        json!({"durationMilliseconds": 0, "durationFrom": {
            "expressionFrom": format!(r#".metadata.annotations["sim.tidegate.dev/{annotation}"]"#),
        }})
    };
    let never_ready = r#".metadata.annotations["sim.tidegate.dev/never-ready"]"#;
    let owner = ".metadata.ownerReferences.[].kind";
    vec![
        stage(
            "node-initialize",
            "Node",
            json!([none_of(READY, &["True"])]),
            Value::Null,
            json!({"statusTemplate": NODE_STATUS}),
        ),
        stage(
            "pod-ready",
            "Pod",
            json!([absent(DELETED), one_of(PHASE, &["Pending"]), none_of(never_ready, &["true"])]),
            after("ready-after"),
            json!({"statusTemplate": running(true)}),
        ),
        stage(
            "pod-running-but-never-ready",
            "Pod",
            json!([absent(DELETED), one_of(PHASE, &["Pending"]), one_of(never_ready, &["true"])]),
            Value::Null,
            json!({"statusTemplate": running(false)}),
        ),
        stage(
            "job-pod-ended",
            "Pod",
            json!([absent(DELETED), one_of(PHASE, &["Running"]), one_of(owner, &["Job"])]),
            after("run-for"),
            json!({"statusTemplate": ENDED}),
        ),
        stage(
            "pod-deleted",
            "Pod",
            json!([{"key": DELETED, "operator": "Exists"}]),
            Value::Null,
            json!({"delete": true}),
        ),
    ]
}

const NODE_STATUS: &str = r#"
{{ $now := Now }}
conditions:
{{ range NodeConditions }}
- {type: {{ .type | Quote }}, status: {{ .status | Quote }}, reason: {{ .reason | Quote }}, message: {{ .message | Quote }}, lastHeartbeatTime: {{ $now | Quote }}, lastTransitionTime: {{ $now | Quote }}}
{{ end }}
addresses:
- {type: InternalIP, address: {{ NodeIP | Quote }}}
- {type: Hostname, address: {{ NodeName | Quote }}}
nodeInfo: {architecture: amd64, operatingSystem: linux, kubeletVersion: simulated, kubeProxyVersion: "", containerRuntimeVersion: simulated, kernelVersion: "", osImage: "", machineID: "", bootID: "", systemUUID: ""}
phase: Running
"#;

/// A running pod's status. Readiness gates are left to whoever set them.
fn running(ready: bool) -> String {
    let status = if ready { "True" } else { "False" };
    format!(
        r#"
{{{{ $now := Now }}}}
phase: Running
startTime: {{{{ $now | Quote }}}}
conditions:
- {{type: Initialized, status: "True", lastTransitionTime: {{{{ $now | Quote }}}}}}
- {{type: ContainersReady, status: "{status}", lastTransitionTime: {{{{ $now | Quote }}}}}}
- {{type: Ready, status: "{status}", lastTransitionTime: {{{{ $now | Quote }}}}}}
containerStatuses:
{{{{ range .spec.containers }}}}
- {{name: {{{{ .name | Quote }}}}, image: {{{{ .image | Quote }}}}, imageID: "", ready: {ready}, started: true, restartCount: 0, state: {{running: {{startedAt: {{{{ $now | Quote }}}}}}}}}}
{{{{ end }}}}
hostIP: {{{{ NodeIPWith .spec.nodeName | Quote }}}}
podIP: {{{{ PodIPWith .spec.nodeName ( or .spec.hostNetwork false ) ( or .metadata.uid "" ) ( or .metadata.name "" ) ( or .metadata.namespace "" ) | Quote }}}}
podIPs:
- {{ip: {{{{ PodIPWith .spec.nodeName ( or .spec.hostNetwork false ) ( or .metadata.uid "" ) ( or .metadata.name "" ) ( or .metadata.namespace "" ) | Quote }}}}}}
"#
    )
}

const ENDED: &str = r#"
{{ $now := Now }}
{{ $code := or ( index ( or .metadata.annotations dict ) "sim.tidegate.dev/exit-code" ) "0" }}
phase: {{ if eq $code "0" }}Succeeded{{ else }}Failed{{ end }}
conditions:
- {type: Ready, status: "False", reason: PodCompleted, lastTransitionTime: {{ $now | Quote }}}
- {type: ContainersReady, status: "False", reason: PodCompleted, lastTransitionTime: {{ $now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- {name: {{ .name | Quote }}, image: {{ .image | Quote }}, imageID: "", ready: false, started: false, restartCount: 0, state: {terminated: {exitCode: {{ $code }}, reason: {{ if eq $code "0" }}Completed{{ else }}Error{{ end }}, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}}
{{ end }}
"#;
