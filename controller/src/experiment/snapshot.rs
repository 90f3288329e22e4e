//! Everything that a decision about one Experiment looks at, as a plain value.

use crate::context::controller_of;
use crate::rollout::{ReplicaSet, TemplateSet};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_crds::analysis::AnalysisRun;
use tidegate_crds::experiment::Experiment;
use tidegate_crds::keys;

/// Everything that a decision about one Experiment looks at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The Experiment.
    pub experiment: Experiment,
    /// ReplicaSets that it owns.
    pub replica_sets: Vec<ReplicaSet>,
    /// Services that it names or has named, as far as they exist, whoever owns them.
    pub services: BTreeMap<String, Service>,
    /// AnalysisRuns that it owns.
    pub analysis_runs: Vec<AnalysisRun>,
    /// Names of AnalysisRuns of others that it would like to use.
    pub taken: BTreeSet<String>,
    /// The analysis templates that it names, and those that these name.
    pub templates: TemplateSet,
    /// The controller's instance id; put onto what the Experiment creates.
    pub instance_id: String,
    /// What an earlier attempt of the same pass found out.
    pub findings: Findings,
}

/// What came out of writes that did not go through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Template to how many names of its ReplicaSet turned out to belong to somebody else.
    pub collisions: BTreeMap<String, i32>,
    /// Template to why the API server does not take what it needs.
    pub refused: BTreeMap<String, String>,
}

/// A Service, as far as Experiments care.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Uid.
    pub uid: String,
    /// Hash that the selector asks for; empty when it asks for none.
    pub hash: String,
    /// Its controller.
    pub owner: Option<Owner>,
}

/// The owner of an object that is its controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

impl Owner {
    /// The controller of `object`.
    pub fn of(object: &Value) -> Option<Self> {
        let (kind, name, uid) = controller_of(object)?;
        Some(Self { kind: kind.to_owned(), name: name.to_owned(), uid: uid.to_owned() })
    }

    /// An Experiment that had the name of `experiment` before it: what it owns is on its way out.
    pub fn is_predecessor(&self, experiment: &Experiment) -> bool {
        self.kind == Experiment::KIND
            && self.name == experiment.name()
            && Some(&self.uid) != experiment.metadata.uid.as_ref()
    }
}

impl Service {
    /// Reads a Service.
    pub fn from_value(value: &Value) -> Self {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let selector = value.pointer("/spec/selector");
        Self {
            uid: text(value.pointer("/metadata/uid")),
            hash: text(selector.and_then(|s| s.get(keys::POD_TEMPLATE_HASH))),
            owner: Owner::of(value),
        }
    }
}

impl Snapshot {
    /// The Experiment's uid.
    pub fn uid(&self) -> &str {
        self.experiment.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The ReplicaSet of a template: known by its annotation, whoever made it; the oldest, should there be several.
    pub fn replica_set(&self, template: &str) -> Option<&ReplicaSet> {
        let of = |rs: &&ReplicaSet| rs.annotations.get(keys::EXPERIMENT_TEMPLATE).is_some_and(|t| t == template);
        self.replica_sets.iter().filter(of).min_by_key(|rs| (rs.created, rs.name.as_str()))
    }

    /// The Service of that name, when it is the Experiment's.
    pub fn own_service(&self, name: &str) -> Option<&Service> {
        let service = self.services.get(name)?;
        service.owner.as_ref().is_some_and(|owner| owner.uid == self.uid()).then_some(service)
    }
}
