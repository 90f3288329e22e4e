//! The controllers: each observes the cluster, decides purely, and acts thinly.

pub mod api;
pub mod cache;
pub mod events;
pub mod worker;
