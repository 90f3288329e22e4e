//! Tests on a real Kubernetes. One binary, so that it is linked once and its tests share one cluster.

mod harness;
