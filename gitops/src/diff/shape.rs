//! How the fields of built-in kinds merge: which lists are keyed, and which values are quantities.
//!
//! Only what differs from the plain rules (maps merge, lists are replaced) is written down.

/// How a value merges and compares.
#[derive(Debug)]
pub enum Shape {
    /// Maps merge by key, lists are replaced as a whole, scalars are compared as they are.
    Plain,
    /// A map with known fields; the others are plain.
    Fields(&'static [(&'static str, &'static Shape)]),
    /// A map of which only one part is used at a time: when it changes, fields that the target lacks go.
    Union(&'static [(&'static str, &'static Shape)]),
    /// A map whose values all have one shape.
    MapOf(&'static Shape),
    /// A list whose elements are known by fields, with the default that a missing field stands for.
    Keyed {
        /// Field and default.
        keys: &'static [(&'static str, &'static str)],
        /// Whether a different order is a difference.
        ordered: bool,
        /// The elements.
        item: &'static Shape,
    },
    /// A list that is replaced as a whole, with elements of a known shape.
    ListOf(&'static Shape),
    /// A list of scalars to which others add.
    Set,
    /// A Kubernetes quantity.
    Quantity,
}

impl Shape {
    /// The shape of a field.
    pub fn field(&self, name: &str) -> &'static Shape {
        match self {
            Shape::Fields(fields) | Shape::Union(fields) => {
                fields.iter().find(|(field, _)| *field == name).map_or(&Shape::Plain, |(_, shape)| *shape)
            }
            Shape::MapOf(shape) => shape,
            _ => &Shape::Plain,
        }
    }

    /// The shape of the elements of a list.
    pub fn item(&self) -> &'static Shape {
        match self {
            Shape::Keyed { item, .. } => item,
            Shape::ListOf(item) => item,
            _ => &Shape::Plain,
        }
    }
}

use Shape::{Fields, Keyed, ListOf, MapOf, Plain, Quantity, Set, Union};

const fn by(key: &'static [(&'static str, &'static str)], item: &'static Shape) -> Shape {
    Keyed { keys: key, ordered: false, item }
}

const NAME: &[(&str, &str)] = &[("name", "")];
static QUANTITIES: Shape = MapOf(&Quantity);
static NAMED: Shape = by(NAME, &Plain);
static RESOURCES: Shape = Fields(&[("limits", &QUANTITIES), ("requests", &QUANTITIES), ("claims", &NAMED)]);
static METADATA: Shape =
    Fields(&[("finalizers", &Set), ("ownerReferences", &Keyed { keys: &[("uid", "")], ordered: false, item: &Plain })]);
static DIVISOR: Shape = Fields(&[("valueFrom", &Fields(&[("resourceFieldRef", &Fields(&[("divisor", &Quantity)]))]))]);
static CONTAINER: Shape = Fields(&[
    ("env", &Keyed { keys: NAME, ordered: true, item: &DIVISOR }),
    ("ports", &by(&[("containerPort", ""), ("protocol", "TCP")], &Plain)),
    ("volumeMounts", &by(&[("mountPath", "")], &Plain)),
    ("volumeDevices", &by(&[("devicePath", "")], &Plain)),
    ("resources", &RESOURCES),
]);
static CLAIM_SPEC: Shape = Fields(&[("resources", &RESOURCES)]);
static VOLUME: Shape = Union(&[
    ("emptyDir", &Fields(&[("sizeLimit", &Quantity)])),
    ("ephemeral", &Fields(&[("volumeClaimTemplate", &Fields(&[("spec", &CLAIM_SPEC)]))])),
]);
static POD_SPEC: Shape = Fields(&[
    ("containers", &by(NAME, &CONTAINER)),
    ("initContainers", &Keyed { keys: NAME, ordered: true, item: &CONTAINER }),
    ("ephemeralContainers", &by(NAME, &CONTAINER)),
    ("volumes", &by(NAME, &VOLUME)),
    ("imagePullSecrets", &NAMED),
    ("hostAliases", &by(&[("ip", "")], &Plain)),
    ("topologySpreadConstraints", &by(&[("topologyKey", ""), ("whenUnsatisfiable", "")], &Plain)),
    ("schedulingGates", &NAMED),
    ("resourceClaims", &NAMED),
    ("overhead", &QUANTITIES),
    ("resources", &RESOURCES),
]);
static POD_TEMPLATE: Shape = Fields(&[("metadata", &METADATA), ("spec", &POD_SPEC)]);
static POD: Shape = Fields(&[("metadata", &METADATA), ("spec", &POD_SPEC)]);
static DEPLOYMENT: Shape =
    Fields(&[("metadata", &METADATA), ("spec", &Fields(&[("template", &POD_TEMPLATE), ("strategy", &Union(&[]))]))]);
static WORKLOAD: Shape = Fields(&[("metadata", &METADATA), ("spec", &Fields(&[("template", &POD_TEMPLATE)]))]);
static STATEFUL_SET: Shape = Fields(&[
    ("metadata", &METADATA),
    (
        "spec",
        &Fields(&[("template", &POD_TEMPLATE), ("volumeClaimTemplates", &ListOf(&Fields(&[("spec", &CLAIM_SPEC)])))]),
    ),
]);
static CRON_JOB: Shape = Fields(&[
    ("metadata", &METADATA),
    ("spec", &Fields(&[("jobTemplate", &Fields(&[("spec", &Fields(&[("template", &POD_TEMPLATE)]))]))])),
]);
static POD_TEMPLATE_KIND: Shape = Fields(&[("metadata", &METADATA), ("template", &POD_TEMPLATE)]);
static SERVICE: Shape = Fields(&[
    ("metadata", &METADATA),
    ("spec", &Fields(&[("ports", &by(&[("port", ""), ("protocol", "TCP")], &Plain))])),
]);
static SERVICE_ACCOUNT: Shape = Fields(&[("metadata", &METADATA), ("secrets", &NAMED), ("imagePullSecrets", &NAMED)]);
static CLAIM: Shape = Fields(&[("metadata", &METADATA), ("spec", &CLAIM_SPEC)]);
static VOLUME_KIND: Shape = Fields(&[("metadata", &METADATA), ("spec", &Fields(&[("capacity", &QUANTITIES)]))]);
static QUOTA: Shape = Fields(&[("metadata", &METADATA), ("spec", &Fields(&[("hard", &QUANTITIES)]))]);
static LIMIT_RANGE: Shape = Fields(&[
    ("metadata", &METADATA),
    (
        "spec",
        &Fields(&[(
            "limits",
            &ListOf(&Fields(&[
                ("default", &QUANTITIES),
                ("defaultRequest", &QUANTITIES),
                ("max", &QUANTITIES),
                ("min", &QUANTITIES),
                ("maxLimitRequestRatio", &QUANTITIES),
            ])),
        )]),
    ),
]);
static METRIC_TARGET: Shape = Fields(&[("target", &Fields(&[("averageValue", &Quantity), ("value", &Quantity)]))]);
static AUTOSCALER: Shape = Fields(&[
    ("metadata", &METADATA),
    (
        "spec",
        &Fields(&[(
            "metrics",
            &ListOf(&Fields(&[
                ("resource", &METRIC_TARGET),
                ("containerResource", &METRIC_TARGET),
                ("pods", &METRIC_TARGET),
                ("object", &METRIC_TARGET),
                ("external", &METRIC_TARGET),
            ])),
        )]),
    ),
]);
static WEBHOOKS: Shape = Fields(&[("metadata", &METADATA), ("webhooks", &NAMED)]);
static PLAIN_KIND: Shape = Fields(&[("metadata", &METADATA)]);
/// Lists of a Rollout are replaced as a whole, as those of any custom resource, but amounts in its pods are amounts.
static CUSTOM_CONTAINER: Shape = Fields(&[("resources", &RESOURCES), ("env", &ListOf(&DIVISOR))]);
static ROLLOUT: Shape = Fields(&[
    ("metadata", &METADATA),
    (
        "spec",
        &Fields(&[(
            "template",
            &Fields(&[(
                "spec",
                &Fields(&[
                    ("containers", &ListOf(&CUSTOM_CONTAINER)),
                    ("initContainers", &ListOf(&CUSTOM_CONTAINER)),
                    ("overhead", &QUANTITIES),
                    ("volumes", &ListOf(&Fields(&[("emptyDir", &Fields(&[("sizeLimit", &Quantity)]))]))),
                ]),
            )]),
        )]),
    ),
]);

/// The shape of a kind.
pub fn of(group: &str, kind: &str) -> &'static Shape {
    match (group, kind) {
        ("", "Pod") => &POD,
        ("" | "apps" | "extensions", "Deployment") => &DEPLOYMENT,
        ("apps", "StatefulSet") => &STATEFUL_SET,
        ("apps" | "extensions", "DaemonSet" | "ReplicaSet") | ("", "ReplicationController") | ("batch", "Job") => {
            &WORKLOAD
        }
        ("batch", "CronJob") => &CRON_JOB,
        ("", "PodTemplate") => &POD_TEMPLATE_KIND,
        ("", "Service") => &SERVICE,
        ("", "ServiceAccount") => &SERVICE_ACCOUNT,
        ("", "PersistentVolumeClaim") => &CLAIM,
        ("", "PersistentVolume") => &VOLUME_KIND,
        ("", "ResourceQuota") => &QUOTA,
        ("", "LimitRange") => &LIMIT_RANGE,
        ("autoscaling", "HorizontalPodAutoscaler") => &AUTOSCALER,
        ("admissionregistration.k8s.io", _) => &WEBHOOKS,
        ("argoproj.io", "Rollout") => &ROLLOUT,
        _ => &PLAIN_KIND,
    }
}

/// Whether the API server knows the group's types itself, and so drops empty fields of them.
pub fn is_built_in(group: &str) -> bool {
    matches!(
        group,
        "" | "apps"
            | "batch"
            | "autoscaling"
            | "policy"
            | "extensions"
            | "networking.k8s.io"
            | "rbac.authorization.k8s.io"
            | "storage.k8s.io"
            | "admissionregistration.k8s.io"
            | "apiextensions.k8s.io"
            | "apiregistration.k8s.io"
            | "scheduling.k8s.io"
            | "coordination.k8s.io"
            | "node.k8s.io"
            | "discovery.k8s.io"
            | "certificates.k8s.io"
            | "events.k8s.io"
            | "flowcontrol.apiserver.k8s.io"
            | "resource.k8s.io"
            | "authentication.k8s.io"
            | "authorization.k8s.io"
    )
}
