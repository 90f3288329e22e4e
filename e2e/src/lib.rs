//! A real Kubernetes on one machine, for everyone who builds or tests Tidegate.
//!
//! A cluster lives in one network namespace (`tg-<name>`), one PID and mount namespace and one state directory;
//! nothing else on the host is touched, and ending the namespace's first process ends all of it. [`Cluster`] starts,
//! finds and removes clusters, [`run`] gives a test the one that all tests of a run share.

pub mod apply;
pub mod audit;
pub mod certificates;
pub mod cluster;
pub mod controller;
pub mod demo;
pub mod gateway;
pub mod git_http;
pub mod git_server;
pub mod grpc;
pub mod http;
pub mod image;
pub mod install;
pub mod kwok;
pub mod load;
pub mod moto;
pub mod namespace;
pub mod netns;
pub mod process;
pub mod prometheus;
pub mod sandbox;
pub mod session;
pub mod state;
pub mod traefik;
pub mod wait;

pub use cluster::{Cluster, Nodes, Options};
pub use controller::Controller;
pub use git_server::{GitServer, Repository};
pub use load::{Load, LoadReport};
pub use namespace::TestNamespace;
pub use session::{run, run_simulated};
pub use wait::wait_for;
