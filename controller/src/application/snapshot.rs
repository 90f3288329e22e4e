//! What one reconciliation of an Application looks at.

use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_crds::application::{Application, Source};
use tidegate_crds::project::AppProjectSpec;
use tidegate_gitops::normalize::CompareOptions;
use tidegate_gitops::object::Key as ObjectKey;
use tidegate_gitops::sync::plan::Live;
use tidegate_gitops::sync::rejected::Content;
use tidegate_gitops::tracking::Tracking;

/// A destination that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// URL of the API server.
    pub server: String,
    /// Name of the cluster.
    pub name: String,
    /// Namespace.
    pub namespace: String,
}

/// What sources lead to.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The commits and the hash of what was read.
    pub content: Content,
    /// The sources that were read.
    pub sources: Vec<Source>,
    /// `Helm`, `Kustomize`, `Directory` or `Plugin`, by source.
    pub source_types: Vec<String>,
    /// Manifests with namespace and tracking mark.
    pub targets: Vec<Value>,
    /// One text for each object that several sources make.
    pub repeated: Vec<String>,
}

/// Why there are no manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undesired {
    /// What is said.
    pub message: String,
    /// The Application itself is written wrongly.
    pub invalid_spec: bool,
}

/// What one reconciliation looks at: a plain value.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The Application.
    pub app: Application,
    /// Name in tracking marks.
    pub instance: String,
    /// What is permitted, or why that is not known.
    pub project: Result<AppProjectSpec, String>,
    /// Where manifests go, or why that is not known.
    pub destination: Result<Destination, String>,
    /// What shall be, or why that is not known.
    pub desired: Result<Desired, Undesired>,
    /// Live objects: of targets, hooks, and all that belong to the Application.
    pub live: BTreeMap<ObjectKey, Live>,
    /// Which of them live in a namespace.
    pub namespaced: BTreeSet<ObjectKey>,
    /// Kinds among the targets that the cluster does not serve.
    pub unknown_kinds: BTreeSet<(String, String)>,
    /// Kinds that could not be listed, and why.
    pub unlisted: Vec<String>,
    /// How objects are marked.
    pub tracking: Tracking,
    /// How objects are compared.
    pub compare: CompareOptions,
    /// What the last operation applied, as far as this process knows.
    pub synced: Option<Content>,
    /// When the last wave was applied, as far as this process knows.
    pub last_wave_at: Option<Timestamp>,
}
