//! The object of an AnalysisRun, as Rollouts and Experiments make them.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidegate_crds::analysis::{AnalysisRun, AnalysisRunSpec};
use tidegate_crds::keys;
use tidegate_crds::rollout::PodTemplateMetadata;

/// An AnalysisRun that is to be made.
#[derive(Debug)]
pub(crate) struct NewRun<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
    /// Labels that say what the run is for.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the same kind.
    pub annotations: BTreeMap<String, String>,
    /// `analysisRunMetadata`: what the user wants on the run; it has precedence.
    pub metadata: Option<&'a PodTemplateMetadata>,
    /// The controller's instance id; may be empty.
    pub instance_id: &'a str,
    /// The run's `ownerReferences`.
    pub owner: Value,
    pub spec: AnalysisRunSpec,
}

impl NewRun<'_> {
    pub(crate) fn object(mut self) -> Value {
        if !self.instance_id.is_empty() {
            self.labels.insert(keys::INSTANCE_ID.to_owned(), self.instance_id.to_owned());
        }
        if let Some(metadata) = self.metadata {
            self.labels.extend(metadata.labels.clone());
            self.annotations.extend(metadata.annotations.clone());
        }
        json!({
            "apiVersion": tidegate_crds::API_VERSION,
            "kind": AnalysisRun::KIND,
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": self.labels,
                "annotations": self.annotations,
                "ownerReferences": self.owner,
            },
            "spec": self.spec,
        })
    }
}
