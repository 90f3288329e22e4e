//! The controllers: each observes the cluster, decides purely, and acts thinly.

pub mod admission;
pub mod analysis_run;
pub mod api;
pub mod application;
pub mod cache;
pub mod context;
pub mod events;
pub mod experiment;
mod footprint;
mod lean;
pub mod lease;
pub mod metrics;
pub mod options;
pub mod rollout;
pub mod run;
pub mod worker;
