//! Whether a data plane can reach a version through its Service. Pods that are available are not yet endpoints: the news
//! of a switched selector goes from the EndpointSlices to every node and gateway.

use super::alb;
use super::pass::Pass;
use super::snapshot::ReplicaSet;

/// Seconds after which a Service that lacks endpoints is looked at again, when no news comes before.
const AGAIN_SECONDS: i64 = 10;

/// A ready pod of the ReplicaSet is an endpoint of the Service, as far as is known. What has no Service, no EndpointSlice
/// or no pods that serve is not judged by its endpoints.
pub(crate) fn reach(pass: &Pass<'_>, service: &str, replica_set: Option<&ReplicaSet>) -> bool {
    let Some(endpoints) = pass.snapshot.endpoints.get(service) else { return true };
    replica_set.is_none_or(|rs| rs.serving() == 0 || endpoints.reach(&rs.name))
}

/// Somebody is ready behind a Service of an Experiment, as far as is known; says what it waits for when not. Such a
/// Service leads to one variant alone.
pub(crate) fn await_variant(pass: &mut Pass<'_>, service: &str) -> bool {
    let ready = pass.snapshot.endpoints.get(service).is_none_or(|endpoints| !endpoints.pods.is_empty());
    if !ready {
        pass.because(format!("waits until Service {service} has a ready endpoint"));
        pass.wake_after(AGAIN_SECONDS);
    }
    ready
}

/// As [`reach`], and target groups of AWS that are bound to the Service have its pods; says what it waits for when not.
/// What was behind a Service before it is switched, in this very pass, says nothing of what will be.
pub(crate) fn await_reach(pass: &mut Pass<'_>, service: &str, replica_set: Option<&ReplicaSet>) -> bool {
    let told = pass.snapshot.endpoints.contains_key(service) || pass.snapshot.aws.is_some();
    let hash = pass.snapshot.services.get(service).map_or("", |service| service.hash());
    let switched = !told || hash.is_empty() || replica_set.is_none_or(|rs| rs.hash() == hash);
    let reached = switched && reach(pass, service, replica_set);
    if let Some(rs) = replica_set.filter(|_| !reached) {
        pass.because(format!("waits until Service {service} has a ready endpoint of ReplicaSet {}", rs.name));
    }
    // What has no pods, no target group can have.
    let empty = replica_set.is_none_or(|rs| rs.serving() == 0);
    let reached = reached && (empty || alb::registered(pass, service));
    if !reached {
        pass.wake_after(AGAIN_SECONDS);
    }
    reached
}
