//! What an Application asks the engine for, and what it gets.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use tidegate_crds::application::Source;

use crate::source::SourceType;

/// How fresh the answer has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// What was learnt from the remote within the configured time will do: polling.
    #[default]
    Cached,
    /// The remote must have been asked at or after this moment: somebody asked for a refresh then. Applications that were
    /// refreshed together share one question.
    Since(Instant),
    /// As `Since`, and the manifests are rendered anew: a hard refresh.
    Hard(Instant),
}

/// One Application's question.
#[derive(Clone, Debug, Default)]
pub struct ManifestRequest {
    /// `metadata.name` of the Application.
    pub app_name: String,
    /// `metadata.namespace` of the Application when it is outside the control plane's namespace, else empty.
    pub app_namespace: String,
    /// AppProject; decides which repository Secrets are used.
    pub project: String,
    /// `spec.destination.namespace`.
    pub destination_namespace: String,
    /// `spec.sources`, or `spec.source` alone.
    pub sources: Vec<Source>,
    /// By source; what to use in place of `targetRevision`, as an operation or a rollback does. Empty or short: the
    /// sources' own.
    pub revisions: Vec<String>,
    /// The destination cluster's version, as `1.36` or `v1.36.2`.
    pub kube_version: String,
    /// What the destination cluster serves, as `apps/v1` and `apps/v1/Deployment`.
    pub api_versions: Arc<[String]>,
    pub freshness: Freshness,
}

/// The answer: what the cluster shall look like.
#[derive(Clone, Debug)]
pub struct Manifests {
    /// By source: what it resolved to.
    pub sources: Vec<SourceManifests>,
    /// All sources' manifests in order; of objects that several sources make, the last one.
    pub manifests: Arc<[Arc<Value>]>,
    /// Equal keys mean equal manifests. Does not change with commits that leave the sources' paths alone.
    pub key: String,
    /// True when nothing was rendered for this answer.
    pub from_cache: bool,
    /// One per object that more than one source makes: `RepeatedResourceWarning`.
    pub repeated: Vec<String>,
}

impl Manifests {
    /// By source: the commit. What goes to `status.sync.revision(s)`.
    pub fn revisions(&self) -> Vec<String> {
        self.sources.iter().map(|source| source.commit.clone()).collect()
    }
}

/// What one source gave.
#[derive(Clone, Debug)]
pub struct SourceManifests {
    /// The commit that the revision resolved to.
    pub commit: String,
    /// None for a source that only lends files.
    pub source_type: Option<SourceType>,
    pub manifests: Arc<[Arc<Value>]>,
    /// Hash of everything that the manifests depend on.
    pub key: String,
    pub from_cache: bool,
    /// Paths in the repository that the manifests were made from.
    pub paths_read: Arc<[String]>,
    pub warnings: Arc<[String]>,
}

/// What a commit says about itself, for histories and the user interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevisionMetadata {
    /// `Name <address>`.
    pub author: String,
    /// Seconds since 1970, when it was committed.
    pub date: i64,
    /// Subject and body.
    pub message: String,
    pub tags: Vec<String>,
}
