//! The `tidegate` binary: the controller, the commands for Rollouts and Applications, and `lint`.
//!
//! One binary, four names. Called as `tidegate` it has its own grammar; called as `kubectl-argo-rollouts` (or
//! `kubectl-tidegate`), `argocd` or `rollouts-controller` it has the grammar of the program of that name, so that
//! scripts, aliases and Deployments go on working.

mod app;
mod cluster;
mod controller;
mod crd;
mod failure;
mod grammar;
mod output;
mod rollout;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Several TLS back ends may be linked in by dependencies; every connection of this process uses this one. It fails
    // only when one is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    grammar::run(std::env::args_os().collect())
}
