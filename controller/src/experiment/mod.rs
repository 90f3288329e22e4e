//! The Experiment controller: variants that run side by side for a while and are measured.

mod controller;
mod decide;
#[cfg(test)]
mod tests;

pub use controller::Controller;
pub use decide::{Action, Decision, Snapshot, decide};
