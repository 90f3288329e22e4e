use super::{check, container, pod};
use serde_json::{Value, json};

#[test]
fn pods() {
    let path = "spec.template.spec";
    let one = "spec.template.spec.containers[0]";
    let mount = |mount: Value| {
        pod(json!({ "volumes": [{ "name": "v" }],
            "containers": [{ "name": "web", "image": "w", "volumeMounts": [mount] }] }))
    };
    let ports = |ports: Value| container(json!({ "ports": ports }));
    check(vec![
        (pod(json!({ "containers": null })), &format!("{path}.containers: Required value: at least one container")),
        (container(json!({ "name": null })), &format!("{one}.name: Required value: a name")),
        (
            container(json!({ "name": "Web" })),
            &format!("{one}.name: Invalid value: \"Web\": must be at most 63 lower-case letters, digits and '-'"),
        ),
        (
            pod(json!({ "containers": [{ "name": "a", "image": "x" }, { "name": "a", "image": "x" }] })),
            &format!("{path}.containers[1].name: Duplicate value: \"a\": names are unique"),
        ),
        (
            pod(json!({ "initContainers": [{ "name": "web", "image": "x" }] })),
            &format!("{path}.initContainers[0].name: Duplicate value: \"web\": names are unique"),
        ),
        (container(json!({ "image": null })), &format!("{one}.image: Required value: an image")),
        (
            container(json!({ "image": " web" })),
            &format!("{one}.image: Invalid value: \" web\": must not begin or end with a space"),
        ),
        (ports(json!([{}])), &format!("{one}.ports[0].containerPort: Required value: a port number")),
        (
            ports(json!([{ "containerPort": 70000 }])),
            &format!("{one}.ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535"),
        ),
        (
            ports(json!([{ "containerPort": 80, "protocol": "HTTP" }])),
            &format!(
                "{one}.ports[0].protocol: Unsupported value: \"HTTP\": supported values: \"SCTP\", \"TCP\", \"UDP\""
            ),
        ),
        (
            ports(json!([{ "containerPort": 80, "name": "80" }])),
            &format!(
                "{one}.ports[0].name: Invalid value: \"80\": must be at most 15 lower-case letters, digits and '-', with at least one letter"
            ),
        ),
        (
            ports(json!([{ "containerPort": 80, "name": "a" }, { "containerPort": 81, "name": "a" }])),
            &format!("{one}.ports[1].name: Duplicate value: \"a\": names of ports are unique in a container"),
        ),
        (
            ports(json!([{ "containerPort": 80, "hostPort": -1 }])),
            &format!("{one}.ports[0].hostPort: Invalid value: -1: must be between 1 and 65535"),
        ),
        (
            container(json!({ "imagePullPolicy": "Sometimes" })),
            &format!(
                "{one}.imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\""
            ),
        ),
        (container(json!({ "env": [{ "value": "x" }] })), &format!("{one}.env[0].name: Required value: a name")),
        (
            container(json!({ "env": [{ "name": "A", "valueFrom": {} }] })),
            &format!("{one}.env[0].valueFrom: Invalid value: \"\": exactly one source"),
        ),
        (
            container(json!({ "env": [{ "name": "A", "value": "x", "valueFrom": { "fieldRef": {} } }] })),
            &format!("{one}.env[0].valueFrom: Invalid value: \"value and valueFrom\": only one of the two"),
        ),
        (mount(json!({ "name": "v", "mountPath": "/v" })), ""),
        (
            mount(json!({ "name": "x", "mountPath": "/v" })),
            &format!("{one}.volumeMounts[0].name: Not found: \"x\": a volume of this pod"),
        ),
        (mount(json!({ "name": "v" })), &format!("{one}.volumeMounts[0].mountPath: Required value: a path")),
        (
            pod(json!({ "volumes": [{ "name": "v", "emptyDir": {}, "secret": {} }] })),
            &format!("{path}.volumes[0]: Invalid value: \"emptyDir and secret\": a volume has one source"),
        ),
        (
            container(json!({ "readinessProbe": { "periodSeconds": 1 } })),
            &format!("{one}.readinessProbe: Required value: one of exec, httpGet, tcpSocket and grpc"),
        ),
        (
            container(json!({ "livenessProbe": { "successThreshold": 2, "exec": {} } })),
            &format!("{one}.livenessProbe.successThreshold: Invalid value: 2: must be 1"),
        ),
        (
            container(json!({ "resources": { "limits": { "cpu": "100m" }, "requests": { "cpu": 1 } } })),
            &format!("{one}.resources.requests.cpu: Invalid value: 1: must not be greater than the limit \"100m\""),
        ),
        (
            container(json!({ "resources": { "limits": { "memory": "-1Mi" } } })),
            &format!("{one}.resources.limits.memory: Invalid value: \"-1Mi\": must not be negative"),
        ),
        (
            pod(json!({ "restartPolicy": "Never" })),
            &format!("{path}.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""),
        ),
        (pod(json!({ "restartPolicy": "Always" })), ""),
        (
            pod(json!({ "activeDeadlineSeconds": 5 })),
            &format!("{path}.activeDeadlineSeconds: Forbidden: pods of a ReplicaSet have no deadline"),
        ),
        (
            pod(json!({ "dnsPolicy": "Mine" })),
            &format!(
                "{path}.dnsPolicy: Unsupported value: \"Mine\": supported values: \"ClusterFirst\", \"ClusterFirstWithHostNet\", \"Default\", \"None\""
            ),
        ),
        (
            pod(json!({ "serviceAccountName": "A_B" })),
            &format!(
                "{path}.serviceAccountName: Invalid value: \"A_B\": must be lower-case letters, digits, '-' and '.'"
            ),
        ),
        (
            pod(json!({ "tolerations": [{ "operator": "Equal" }] })),
            &format!("{path}.tolerations[0].operator: Invalid value: \"Equal\": must be Exists when key is empty"),
        ),
        (
            pod(
                json!({ "topologySpreadConstraints": [{ "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule" }] }),
            ),
            &format!("{path}.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than 0"),
        ),
        (
            pod(json!({ "ephemeralContainers": [{ "name": "debug", "image": "sh" }] })),
            &format!("{path}.ephemeralContainers: Forbidden: ephemeral containers are not allowed in a pod template"),
        ),
        (
            json!({ "template": { "metadata": { "labels": { "bad key": "x" } } } }),
            "spec.template.metadata.labels: Invalid value: \"bad key\": must be a label key: at most 63 letters, digits, '-', '_' and '.', perhaps after a domain and '/'",
        ),
    ]);
}

#[test]
fn nonsense_that_the_peer_skips_is_no_problem() {
    check(vec![
        (
            container(json!({ "resources": { "limits": { "memory": "invalid", "cpu": 0.001 }, "requests": "none" } })),
            "",
        ),
        (container(json!({ "resources": { "requests": { "cpu": { "a": 1 } }, "limits": { "cpu": "100m" } } })), ""),
        (container(json!({ "resources": [1] })), ""),
        (pod(json!({ "ephemeralContainers": [{ "name": 5 }] })), ""),
        (pod(json!({ "ephemeralContainers": "garbage" })), ""),
        (
            pod(json!({ "ephemeralContainers": [
                { "name": "debug", "image": "sh", "resources": { "requests": { "memory": "much" } } }
            ] })),
            "",
        ),
        // Kubernetes takes it for one second.
        (pod(json!({ "terminationGracePeriodSeconds": -5 })), ""),
        (container(json!({ "securityContext": { "privileged": true } })), ""),
    ]);
}
