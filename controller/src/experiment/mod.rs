//! The Experiment controller: variants that run side by side for a while and are measured.
//!
//! What the status says of the end is written before anything that follows from it is done: a crash in between leaves an
//! experiment that has ended and still has pods, never one that runs and has lost them.

mod act;
mod analyses;
mod arguments;
mod conditions;
mod controller;
mod decide;
mod decision;
mod observe;
mod pass;
mod snapshot;
pub(crate) mod validate;
mod variants;

#[cfg(test)]
mod tests;

pub use controller::Controller;
pub use decide::decide;
pub use decision::{Action, Decision};
pub use snapshot::{Owner, Service, Snapshot};
