//! Tests on a real Kubernetes. One binary, so that it is linked once and its tests share one cluster.

mod admission;
mod adoption;
mod alb;
mod analysis;
mod analysis_templates;
mod bad_input;
mod cli;
mod experiments;
mod gitops;
mod gitops_bad_input;
mod gitops_cli;
mod gitops_sources;
mod gitops_sync;
mod gitops_webhook;
mod harness;
mod istio;
mod process;
mod roles;
mod rollout_blue_green;
mod rollout_canary;
mod rollout_capacity;
mod rollout_routers;
mod rollout_routes;
mod rollout_traffic;
mod scene;
mod types;
