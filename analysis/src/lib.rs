//! Analysis: conditions on measurements, metric providers, and how a run of measurements comes to its verdict.
//!
//! - [`expr`] is the language of conditions, [`condition`] applies them to a measurement;
//! - [`template`] makes the specification of a run out of templates, [`arguments`] fills in values;
//! - [`metric`] reads and validates what a metric says about its measurements;
//! - [`engine`] decides what a run does next; [`provider`] measures.
//!
//! All but the providers is pure: no I/O, no clock, no logging.

pub mod arguments;
pub mod condition;
pub mod engine;
pub mod expr;
pub mod metric;
pub mod provider;
pub mod template;
