//! What has to be asked of AWS, and what the answer means: whether a load balancer has taken the weights of an Ingress,
//! and whether its target groups have a version's pods.

use super::pass::Pass;
use super::snapshot::Snapshot;
use super::traffic::Services;
use crate::events::Event;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_crds::rollout::{AlbStatus, AlbTrafficRouting, AwsResourceRef, Canary, TrafficWeights};

/// What has to be asked, so that a decision can be made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Question {
    /// The host names of these Ingresses' load balancers: do they have the weights?
    pub ingresses: BTreeMap<String, BTreeSet<String>>,
    /// The weights in question: another question when they change.
    pub weights: Option<TrafficWeights>,
    /// Do the target groups of these Services have their pods?
    pub services: BTreeSet<String>,
    /// The hash that each Service selects, and its ready pods: another question when they change.
    pub behind: Vec<(String, BTreeSet<String>)>,
}

impl Question {
    /// Nothing has to be asked.
    pub fn is_empty(&self) -> bool {
        self.ingresses.is_empty() && self.services.is_empty()
    }
}

/// What AWS says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Tag by which target groups were told apart.
    pub tag: String,
    /// By Ingress.
    pub ingresses: BTreeMap<String, Result<Balancers, String>>,
    /// By Service that a target group is bound to.
    pub services: BTreeMap<String, Result<Registration, String>>,
    /// All that was asked has its answer; not before AWS was asked.
    pub complete: bool,
}

/// The load balancers of one Ingress.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Balancers {
    /// Those that have one of the host names.
    pub found: Vec<Balancer>,
    /// Host names that no load balancer has.
    pub unknown: Vec<String>,
}

/// A load balancer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Balancer {
    /// Name.
    pub name: String,
    /// Amazon's name for it.
    pub arn: String,
    /// Its target groups that carry the tag.
    pub groups: Vec<TargetGroup>,
}

/// A target group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetGroup {
    /// `namespace/ingress-service:port`, as its tag says.
    pub resource: String,
    /// Name.
    pub name: String,
    /// Amazon's name for it.
    pub arn: String,
    /// The weights that rules give it.
    pub weights: BTreeSet<i32>,
}

/// The target groups of one Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registration {
    /// Their names.
    pub groups: Vec<String>,
    /// Ready endpoints of the Service.
    pub endpoints: usize,
    /// So many of them are not targets of every group.
    pub missing: usize,
}

fn routing(canary: &Canary) -> Option<&AlbTrafficRouting> {
    canary.traffic_routing.as_ref()?.alb.as_ref()
}

fn ingresses(config: &AlbTrafficRouting) -> impl Iterator<Item = &String> {
    config.ingress.iter().filter(|name| !name.is_empty()).chain(&config.ingresses)
}

/// What has to be asked for the next decision: about weights that are not known to be taken, and about pods behind a
/// Service that has just switched.
pub fn question(snapshot: &Snapshot) -> Question {
    let mut question = Question::default();
    let (spec, status) = (&snapshot.rollout.spec, &snapshot.rollout.status);
    let selects = |name: &str| snapshot.services.get(name).map(|s| s.hash().to_owned()).unwrap_or_default();
    let current = status.current_pod_hash.clone().unwrap_or_default();
    if let Some(canary) = &spec.strategy.canary {
        let (Some(config), Some(weights)) = (routing(canary), &status.canary.weights) else { return question };
        if weights.verified != Some(true) {
            question.ingresses = ingresses(config).map(|name| (name.clone(), hosts(snapshot, name))).collect();
            question.weights = Some(TrafficWeights { verified: None, ..weights.clone() });
        }
        // At the end of an update the weight goes back to the stable Service.
        let promoted = !current.is_empty() && status.stable_rs.as_deref() == Some(current.as_str());
        if let Some(stable) = &canary.stable_service
            && promoted
            && weights.canary.weight > 0
            && selects(stable) == current
        {
            question.services.insert(stable.clone());
        }
    }
    if let Some(blue_green) = &spec.strategy.blue_green
        && !current.is_empty()
        && status.stable_rs.as_deref().is_some_and(|stable| !stable.is_empty() && stable != current)
        && selects(&blue_green.active_service) == current
    {
        question.services.insert(blue_green.active_service.clone());
    }
    let pods = |name: &str| snapshot.endpoints.get(name).map(|e| e.pods.clone()).unwrap_or_default();
    question.behind = question.services.iter().map(|name| (selects(name), pods(name))).collect();
    question
}

/// Host names in the status of an Ingress.
fn hosts(snapshot: &Snapshot, ingress: &str) -> BTreeSet<String> {
    let objects = snapshot.routing.0.iter();
    let object =
        objects.filter(|(target, _)| target.kind == "Ingress" && target.name == ingress).map(|(_, o)| o).next();
    let points = object.and_then(|o| o.pointer("/status/loadBalancer/ingress")).and_then(Value::as_array);
    let names = points.into_iter().flatten().filter_map(|p| p.get("hostname")?.as_str());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Whether the load balancers have the weights, and why not. `None` when nobody is asked.
pub(crate) fn taken(
    pass: &mut Pass<'_>,
    canary: &Canary,
    services: &Services,
    next: &TrafficWeights,
    written: bool,
) -> Option<Result<(), String>> {
    let (answer, config) = (pass.snapshot.aws.as_ref()?, routing(canary)?);
    let recorded = pass.status.canary.weights.as_ref();
    let same =
        recorded.is_some_and(|w| w.canary == next.canary && w.stable == next.stable && w.additional == next.additional);
    if written || !same {
        return Some(Err("the load balancer has not been asked for the new weight yet".to_owned()));
    }
    if recorded.is_some_and(|w| w.verified == Some(true)) {
        return Some(Ok(()));
    }
    let mut wanted = vec![(services.canary.clone(), next.canary.weight)];
    wanted.extend(next.additional.iter().map(|d| (d.service_name.clone().unwrap_or_default(), d.weight)));
    let mut missing = None;
    let mut known = Vec::new();
    for ingress in ingresses(config) {
        let (state, problem) = look(pass, answer, config, services, ingress, &wanted);
        known.extend(state);
        missing = missing.or(problem);
    }
    if config.ingresses.is_empty() {
        pass.status.alb = known.first().cloned().or(pass.status.alb.take());
    } else if !known.is_empty() {
        pass.status.albs = known;
    }
    Some(missing.map_or(Ok(()), Err))
}

/// What is known of the load balancer of an Ingress, and what is not as it should be.
fn look(
    pass: &mut Pass<'_>,
    answer: &Answer,
    config: &AlbTrafficRouting,
    services: &Services,
    ingress: &str,
    wanted: &[(String, i32)],
) -> (Option<AlbStatus>, Option<String>) {
    let balancers = match answer.ingresses.get(ingress) {
        None => return (None, Some(format!("the load balancer of Ingress {ingress} has not been asked yet"))),
        Some(Err(error)) => {
            pass.tell(Event::warning("WeightVerifyError", format!("Ingress {ingress}: {error}")));
            return (None, Some(format!("cannot see the weights of Ingress {ingress}: {error}")));
        }
        Some(Ok(balancers)) => balancers,
    };
    for host in &balancers.unknown {
        let message = format!("Ingress {ingress}: no load balancer has the host name {host}");
        pass.tell(Event::warning("LoadBalancerNotFound", message));
    }
    let Some(balancer) = balancers.found.first() else {
        let why = if balancers.unknown.is_empty() { "names no host in its status yet" } else { "has no load balancer" };
        return (None, Some(format!("Ingress {ingress} {why}")));
    };
    let namespace = pass.rollout().namespace();
    let group = |service: &str| {
        let resource = format!("{namespace}/{ingress}-{service}:{}", config.service_port);
        let groups = balancers.found.iter().flat_map(|b| &b.groups);
        (groups.clone().find(|g| g.resource == resource), resource)
    };
    let mut problem = None;
    for (service, weight) in wanted {
        let wrong = match group(service) {
            (None, resource) => {
                format!("load balancer {} has no target group with the tag {}: {resource}", balancer.name, answer.tag)
            }
            (Some(group), _) if group.weights.iter().eq([weight]) => continue,
            (Some(group), _) => format!(
                "target group {} of load balancer {} has weight {:?}, not {weight}",
                group.name, balancer.name, group.weights
            ),
        };
        problem = problem.or(Some(wrong));
    }
    let of = |service: &str| {
        group(service).0.map(|g| reference(&g.name, &g.arn, |arn| arn.rsplit(':').next())).unwrap_or_default()
    };
    let state = AlbStatus {
        load_balancer: reference(&balancer.name, &balancer.arn, |arn| arn.split_once(":loadbalancer/").map(|(_, n)| n)),
        canary_target_group: of(&services.canary),
        stable_target_group: of(&services.stable),
        ingress: Some(ingress.to_owned()),
    };
    (Some(state), problem)
}

/// Names of an AWS resource; CloudWatch knows it by the part of the ARN that `full_name` takes.
fn reference(name: &str, arn: &str, full_name: impl Fn(&str) -> Option<&str>) -> AwsResourceRef {
    AwsResourceRef { name: name.to_owned(), arn: arn.to_owned(), full_name: full_name(arn).map(str::to_owned) }
}

/// The target groups that are bound to the Service have its pods, as far as somebody is asked.
pub(crate) fn registered(pass: &mut Pass<'_>, service: &str) -> bool {
    let Some(answer) = pass.snapshot.aws.as_ref() else { return true };
    match answer.services.get(service) {
        // Once AWS was asked, no target group is bound to it.
        None if answer.complete || !question(pass.snapshot).services.contains(service) => true,
        None => {
            pass.because(format!("waits for what AWS says of the targets of Service {service}"));
            false
        }
        Some(Err(error)) => {
            pass.tell(Event::warning("TargetGroupVerifyError", format!("Service {service}: {error}")));
            pass.because(format!("cannot see the targets of Service {service}: {error}"));
            false
        }
        Some(Ok(r)) if r.missing > 0 || r.endpoints == 0 => {
            let (missing, of, groups) = (r.missing, r.endpoints, r.groups.join(", "));
            let message = format!("Service {service}: {missing} of {of} endpoints are not targets of {groups} yet");
            pass.tell(Event::warning("TargetGroupUnverified", message.clone()));
            pass.because(message);
            false
        }
        Some(Ok(r)) => {
            let message =
                format!("Service {service}: all {} endpoints are targets of {}", r.endpoints, r.groups.join(", "));
            pass.tell(Event::normal("TargetGroupVerified", message));
            true
        }
    }
}
