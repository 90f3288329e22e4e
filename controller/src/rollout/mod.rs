//! The Rollout controller.

pub mod act;
pub mod alb;
mod analyses;
mod aws;
mod blue_green;
mod canary;
mod conditions;
mod controller;
mod decide;
mod decision;
mod endpoints;
mod experiments;
mod metadata;
mod metrics;
pub mod observe;
mod pass;
pub mod patience;
pub mod primary;
mod release;
pub mod replicas;
mod restart;
mod revisions;
mod snapshot;
pub mod telling;
pub(crate) mod template;
mod traffic;
pub mod validate;
mod versions;
mod workload;

pub use controller::Controller;
pub use decide::decide;
pub use decision::{Action, Decision, ReplicaSetChange};
pub use snapshot::{
    DESTINATION_RULE, Endpoints, Pod, ReplicaSet, Service, Snapshot, TemplateSet, Workload, destination_rule_name,
    service_names, template_names,
};
