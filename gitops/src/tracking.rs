//! Which application an object in the cluster belongs to.

use crate::object::{self, Key};
use serde_json::Value;
use std::fmt;

/// Annotation that holds the tracking id.
pub const TRACKING_ID: &str = "argocd.argoproj.io/tracking-id";
/// Annotation that tells installations in one cluster apart.
pub const INSTALLATION_ID: &str = "argocd.argoproj.io/installation-id";
/// The label used when none is configured.
pub const DEFAULT_LABEL: &str = "app.kubernetes.io/instance";
/// The longest value of a label that Kubernetes takes.
const LABEL_LIMIT: usize = 63;

/// How objects are marked (`application.resourceTrackingMethod`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// By annotation alone. The default.
    #[default]
    Annotation,
    /// By annotation, with a label for people, which decides nothing.
    AnnotationAndLabel,
    /// By label alone.
    Label,
}

impl Method {
    /// Reads the setting. Empty means the default.
    ///
    /// # Errors
    /// When the text names no method.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "annotation" => Ok(Self::Annotation),
            "annotation+label" => Ok(Self::AnnotationAndLabel),
            "label" => Ok(Self::Label),
            _ => Err(format!(
                "application.resourceTrackingMethod: found {text:?}, expected annotation, annotation+label or label"
            )),
        }
    }
}

/// The content of [`TRACKING_ID`]: `<app>:<group>/<kind>:<namespace>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackingId {
    /// The application's instance name, see [`instance_name`].
    pub app: String,
    /// The object that the id was written for.
    pub key: Key,
}

impl TrackingId {
    /// Reads an id, or `None` when the text is no id.
    pub fn parse(text: &str) -> Option<Self> {
        // Names of RBAC objects hold colons, so only the first two separate.
        let mut parts = text.splitn(3, ':');
        let (app, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
        let (group, kind) = kind.split_once('/')?;
        let (namespace, name) = name.split_once('/')?;
        if app.is_empty() || kind.is_empty() || name.is_empty() {
            return None;
        }
        Some(Self { app: app.to_owned(), key: Key::new(group, kind, namespace, name) })
    }
}

impl fmt::Display for TrackingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { group, kind, namespace, name } = &self.key;
        write!(f, "{}:{group}/{kind}:{namespace}/{name}", self.app)
    }
}

/// The name that an application has in tracking marks: `<name>` in the control plane's namespace, `<ns>_<name>` outside.
pub fn instance_name(control_plane: &str, namespace: &str, name: &str) -> String {
    if namespace.is_empty() || namespace == control_plane { name.to_owned() } else { format!("{namespace}_{name}") }
}

/// The tracking settings of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracking {
    /// How objects are marked.
    pub method: Method,
    /// The label of the label methods (`application.instanceLabelKey`).
    pub label_key: String,
    /// The installation (`installationID`). With one, only objects that carry the same id are ours.
    pub installation_id: Option<String>,
}

impl Default for Tracking {
    fn default() -> Self {
        Self { method: Method::Annotation, label_key: DEFAULT_LABEL.to_owned(), installation_id: None }
    }
}

impl Tracking {
    /// Marks `target` as part of the application `instance`. A cluster-scoped object's id names the application's
    /// destination namespace. CustomResourceDefinitions get no mark, so that none is ever pruned.
    pub fn mark(&self, target: &mut Value, instance: &str, destination_namespace: &str) {
        if object::is_crd(target) {
            return;
        }
        if self.method != Method::Label {
            let mut key = Key::of(target);
            if key.namespace.is_empty() {
                key.namespace = destination_namespace.to_owned();
            }
            let id = TrackingId { app: instance.to_owned(), key };
            object::set_annotation(target, TRACKING_ID, &id.to_string());
            if let Some(installation) = &self.installation_id {
                object::set_annotation(target, INSTALLATION_ID, installation);
            }
        }
        match self.method {
            Method::Annotation => {}
            Method::Label => object::set_label(target, &self.label_key, instance),
            Method::AnnotationAndLabel => object::set_label(target, &self.label_key, truncated(instance)),
        }
    }

    /// The instance name of the application that `live` belongs to. `None` for an object that carries no mark, another
    /// installation's mark, or a mark that was written for another object (a copy).
    pub fn owner(&self, live: &Value) -> Option<String> {
        if self.method == Method::Label {
            return object::label(live, &self.label_key).filter(|v| !v.is_empty()).map(str::to_owned);
        }
        if let Some(expected) = &self.installation_id
            && object::annotation(live, INSTALLATION_ID) != Some(expected.as_str())
        {
            return None;
        }
        let id = TrackingId::parse(object::annotation(live, TRACKING_ID)?)?;
        is_self_reference(&id, live).then_some(id.app)
    }

    /// Removes from `last_applied` the marks of every method, so that moving from one method to another is no
    /// difference.
    pub fn forget_marks(&self, last_applied: &mut Value) {
        object::remove_metadata(last_applied, "annotations", TRACKING_ID);
        object::remove_metadata(last_applied, "annotations", INSTALLATION_ID);
        object::remove_metadata(last_applied, "labels", &self.label_key);
    }
}

/// Whether the id was written for the object that carries it. The namespace of a cluster-scoped object is not compared:
/// its id holds the destination's. The same object may be read under several groups (`extensions`), so the group of
/// kinds that moved is not compared either.
pub fn is_self_reference(id: &TrackingId, live: &Value) -> bool {
    let live = Key::of(live);
    let moved = |group: &str| matches!(group, "extensions" | "apps" | "networking.k8s.io" | "policy");
    id.key.kind == live.kind
        && id.key.name == live.name
        && (live.namespace.is_empty() || id.key.namespace == live.namespace)
        && (id.key.group == live.group || (moved(&id.key.group) && moved(&live.group)))
}

/// The longest prefix that fits a label value and ends in a character that a label value may end in.
fn truncated(instance: &str) -> &str {
    let mut end = instance.len().min(LABEL_LIMIT);
    while !instance.is_char_boundary(end) {
        end -= 1;
    }
    instance[..end].trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config_map(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}})
    }

    #[test]
    fn ids_round_trip() {
        for id in
            ["app:/ConfigMap:ns/a", "argo_app:apps/Deployment:ns/a", "a:rbac.authorization.k8s.io/Role:ns/system:x"]
        {
            assert_eq!(TrackingId::parse(id).map(|i| i.to_string()).as_deref(), Some(id));
        }
        for bad in ["", "app", "app:ConfigMap:ns/a", "app:/ConfigMap", ":/ConfigMap:ns/a", "app:/ConfigMap:ns/"] {
            assert_eq!(TrackingId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_marked_object_belongs_to_its_application() {
        for method in [Method::Annotation, Method::AnnotationAndLabel, Method::Label] {
            let tracking = Tracking { method, ..Tracking::default() };
            let mut object = config_map("a");
            assert_eq!(tracking.owner(&object), None);
            tracking.mark(&mut object, "apps_web", "ns");
            assert_eq!(tracking.owner(&object).as_deref(), Some("apps_web"), "{method:?}");
        }
    }

    #[test]
    fn a_copy_belongs_to_nobody() {
        let tracking = Tracking::default();
        let mut object = config_map("a");
        tracking.mark(&mut object, "web", "ns");
        for (pointer, value) in [("/metadata/name", "b"), ("/metadata/namespace", "other"), ("/kind", "Secret")] {
            let mut copy = object.clone();
            *copy.pointer_mut(pointer).expect("field") = value.into();
            assert_eq!(tracking.owner(&copy), None, "{pointer}");
        }
    }

    #[test]
    fn cluster_scoped_objects_name_the_destination_namespace() {
        let tracking = Tracking::default();
        let mut object =
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "r"}});
        tracking.mark(&mut object, "web", "dest");
        assert_eq!(object::annotation(&object, TRACKING_ID), Some("web:rbac.authorization.k8s.io/ClusterRole:dest/r"));
        assert_eq!(tracking.owner(&object).as_deref(), Some("web"));
    }

    #[test]
    fn another_installation_is_not_ours() {
        let ours = Tracking { installation_id: Some("one".into()), ..Tracking::default() };
        let theirs = Tracking { installation_id: Some("two".into()), ..Tracking::default() };
        let mut object = config_map("a");
        theirs.mark(&mut object, "web", "ns");
        assert_eq!(ours.owner(&object), None);
        ours.mark(&mut object, "web", "ns");
        assert_eq!(ours.owner(&object).as_deref(), Some("web"));
    }

    #[test]
    fn definitions_carry_no_mark() {
        let mut crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "x"}});
        let before = crd.clone();
        Tracking::default().mark(&mut crd, "web", "ns");
        assert_eq!(crd, before);
    }

    #[test]
    fn long_names_are_cut_for_the_second_label_only() {
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(10));
        let tracking = Tracking { method: Method::AnnotationAndLabel, ..Tracking::default() };
        let mut object = config_map("a");
        tracking.mark(&mut object, &long, "ns");
        assert_eq!(object::label(&object, DEFAULT_LABEL), Some("a".repeat(62).as_str()));
        assert_eq!(tracking.owner(&object), Some(long));
    }

    #[test]
    fn methods_are_read_from_the_setting() {
        assert_eq!(Method::parse(""), Ok(Method::Annotation));
        assert_eq!(Method::parse("annotation+label"), Ok(Method::AnnotationAndLabel));
        assert!(Method::parse("both").is_err_and(|e| e.contains("\"both\"") && e.contains("annotation+label")));
    }
}
