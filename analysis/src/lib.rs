//! Analysis: conditions on measurements, metric providers, and how a run of measurements comes to its verdict.

pub mod expr;
