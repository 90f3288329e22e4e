//! The controller of AnalysisRuns.
//!
//! What a run does next is decided by [`tidegate_analysis::engine`]; here is what that looks at and what comes of it.
//! Measurements are taken by tasks of their own, several of one run at a time, and wake their run when they are done: a
//! slow provider holds up nothing but its own metric, and a verdict is in the status as soon as there is one.

mod act;
mod controller;
mod measurements;
mod new;
mod observe;

#[cfg(test)]
mod tests;

pub use controller::Controller;
pub(crate) use new::NewRun;
