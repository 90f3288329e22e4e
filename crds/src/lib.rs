//! The API types of `argoproj.io/v1alpha1`: tolerant to read, exact to write.
//!
//! Types cover what Tidegate decides on. Whatever else users wrote (pod templates, plugin maps) travels as the JSON that
//! they wrote, so that a field which this crate does not know is neither lost nor in the way. See [`decode`] for how a
//! badly typed field is dropped without losing the object around it.

pub mod analysis;
pub mod application;
pub mod application_set;
pub mod decode;
pub mod duration;
pub mod experiment;
pub mod keys;
pub mod manifests;
pub mod patch;
pub mod project;
pub mod resource;
pub mod rollout;
pub mod schema;

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time};
pub use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The API group of every type in this crate.
pub const GROUP: &str = "argoproj.io";
/// The API version of every type in this crate.
pub const VERSION: &str = "v1alpha1";
/// `group/version`, as `apiVersion` spells it.
pub const API_VERSION: &str = "argoproj.io/v1alpha1";
