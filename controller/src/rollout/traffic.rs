//! How much traffic the canary gets now, and the routers' writes for it.

use super::alb;
use super::canary::Position;
use super::decision::{Action, Stage};
use super::endpoints;
use super::pass::Pass;
use super::replicas;
use super::snapshot::ReplicaSet;
use crate::events::Event;
use std::collections::BTreeMap;
use tidegate_crds::OwnerReference;
use tidegate_crds::rollout::{Canary, Rollout, SetHeaderRoute, SetMirrorRoute, TrafficWeights, WeightDestination};
use tidegate_traffic::{Destination, Input, Plan, Router, RouterError};

/// Seconds after which a weight that the data plane has not taken is looked at again.
const VERIFY_SECONDS: i64 = 10;

/// What came out of the traffic part of a pass.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The data plane carries what the current step asks for.
    pub settled: bool,
    /// The data plane has taken the routes and weights of this pass, as far as it tells.
    pub taken: bool,
}

/// A Service of the canary and one of the stable version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Services {
    pub canary: String,
    pub stable: String,
    /// They change their roles with every promotion.
    pub ping_pong: bool,
}

/// The pair that a router goes by. With `pingPong` the ALB goes by that pair; other routers do so only when no Services
/// are named beside it.
pub(crate) fn services(pass: &Pass<'_>, canary: &Canary, router: &str) -> Services {
    let pairs = pairs(pass, canary);
    let wanted = pairs.iter().find(|pair| pair.ping_pong == (router == ALB));
    wanted.or(pairs.first()).cloned().unwrap_or_default()
}

const ALB: &str = "ALB";
const APP_MESH: &str = "AppMesh";

/// All pairs of Services that the Rollout names.
pub(crate) fn pairs(pass: &Pass<'_>, canary: &Canary) -> Vec<Services> {
    let mut pairs = Vec::new();
    if canary.canary_service.is_some() || canary.stable_service.is_some() {
        pairs.push(Services {
            canary: canary.canary_service.clone().unwrap_or_default(),
            stable: canary.stable_service.clone().unwrap_or_default(),
            ping_pong: false,
        });
    }
    if let Some(pair) = &canary.ping_pong {
        let (ping, pong) = (pair.ping_service.clone(), pair.pong_service.clone());
        let stable_is_ping = pass.status.canary.stable_ping_pong.as_deref() != Some("pong");
        let (canary, stable) = if stable_is_ping { (pong, ping) } else { (ping, pong) };
        pairs.push(Services { canary, stable, ping_pong: true });
    }
    pairs
}

/// The other one of the two Services is stable from now on.
pub(crate) fn swap_ping_pong(pass: &mut Pass<'_>) {
    let next = if pass.stable_hash().is_empty() || pass.status.canary.stable_ping_pong.as_deref() == Some("pong") {
        "ping"
    } else {
        "pong"
    };
    pass.status.canary.stable_ping_pong = Some(next.to_owned());
}

/// Something that carries traffic still refers to the pods with `hash`.
pub(crate) fn refers_to(pass: &Pass<'_>, hash: &str) -> bool {
    let named = |w: &WeightDestination| w.pod_template_hash.as_deref() == Some(hash);
    let weights = pass.status.canary.weights.as_ref();
    weights.is_some_and(|w| named(&w.canary) || named(&w.stable) || w.additional.iter().any(named))
        || pass.snapshot.services.values().any(|s| s.hash() == hash)
}

/// Header and mirror routes in force: the latest step of each name, at or before the current one.
fn managed_routes(canary: &Canary, at: Position) -> (Vec<SetHeaderRoute>, Vec<SetMirrorRoute>) {
    let steps = replicas::steps(canary);
    let mut headers: BTreeMap<&str, &SetHeaderRoute> = BTreeMap::new();
    let mut mirrors: BTreeMap<&str, &SetMirrorRoute> = BTreeMap::new();
    if at.index < at.count {
        for step in &steps[..=at.index] {
            if let Some(route) = &step.set_header_route {
                headers.insert(&route.name, route);
            }
            if let Some(route) = &step.set_mirror_route {
                mirrors.insert(&route.name, route);
            }
        }
    }
    (
        headers.into_values().filter(|r| !r.match_.is_empty()).cloned().collect(),
        mirrors.into_values().filter(|r| !r.match_.is_empty()).cloned().collect(),
    )
}

/// The weight that the canary is to have now.
fn weight(pass: &Pass<'_>, canary: &Canary, at: Position, counts_reached: bool) -> i32 {
    let max = replicas::max_weight(canary);
    let recorded = pass.status.canary.weights.as_ref().map_or(0, |w| w.canary.weight);
    let available = pass.new_rs().map_or(0, ReplicaSet::serving);
    if pass.promoted() {
        return 0;
    }
    if pass.status.abort {
        return if canary.dynamic_stable_scale { stepping_down(pass, canary, recorded, max) } else { 0 };
    }
    if available == 0 {
        return 0;
    }
    if pass.halted() {
        return recorded;
    }
    let given = pass.status.canary.weights.as_ref().is_some_and(|w| {
        w.canary.weight == replicas::weight_at(canary, at.index)
            && w.canary.pod_template_hash.as_deref() == Some(pass.hash.as_str())
    });
    let wanted = if pass.status.promote_full && !counts_reached {
        recorded
    } else if counts_reached || given {
        // What the step asks for is not taken back because a pod went away.
        replicas::weight_at(canary, at.index)
    } else {
        let before = replicas::weight_before(canary, at.index).min(replicas::weight_at(canary, at.index).max(recorded));
        // A step that a user skipped may have left its pods behind.
        let sized_by_step = replicas::scale_at(canary, at.index).is_some();
        let carried = i64::from(available) * i64::from(max) / i64::from(pass.replicas().max(1));
        let most = if sized_by_step { max } else { i32::try_from(carried).unwrap_or(max).max(recorded) };
        before.min(most)
    };
    let stable_available = pass.stable_rs().map_or(0, |rs| rs.available.min(pass.size(rs)));
    let total = pass.replicas();
    // The stable version must be able to carry what is left for it, or at least what it carries already.
    let rest = replicas::share(max - wanted, total, max);
    if canary.dynamic_stable_scale && stable_available < rest && wanted < recorded {
        return recorded;
    }
    if stable_available == 0 && wanted < max {
        return if recorded > 0 { recorded } else { wanted };
    }
    wanted
}

/// With dynamicStableScale an abort gives traffic back only as stable pods come: down through the weights of the
/// earlier steps, never up.
fn stepping_down(pass: &Pass<'_>, canary: &Canary, recorded: i32, max: i32) -> i32 {
    let total = pass.replicas();
    let stable = pass.stable_rs().map_or(0, |rs| rs.available.min(pass.size(rs)));
    let mut levels: Vec<i32> = replicas::steps(canary).iter().filter_map(|s| s.set_weight).collect();
    levels.push(0);
    levels.retain(|l| *l < recorded && replicas::share(max - l, total, max) <= stable);
    levels.into_iter().min().unwrap_or(recorded)
}

/// The next weight below `weight` on the way down through the steps.
pub(crate) fn next_lower(canary: &Canary, weight: i32) -> i32 {
    replicas::steps(canary).iter().filter_map(|s| s.set_weight).filter(|w| *w < weight).max().unwrap_or(0)
}

/// The weights that a version has kept that is no longer the canary, because the stable version cannot take them yet:
/// dynamicStableScale has shrunk it, or its Service does not lead to its pods. Until then the other version keeps its
/// Service and its share of the traffic.
pub(crate) fn held(pass: &Pass<'_>, canary: &Canary) -> Option<WeightDestination> {
    canary.traffic_routing.as_ref()?;
    let before = pass.status.canary.weights.as_ref().map(|w| &w.canary)?;
    let hash = before.pod_template_hash.as_deref().filter(|hash| before.weight > 0 && *hash != pass.hash)?;
    let whole = pass.stable_rs().is_some_and(|rs| rs.available >= pass.replicas());
    let shrunk = canary.dynamic_stable_scale && hash != pass.stable_hash() && !whole;
    let pairs = pairs(pass, canary);
    let reached = pairs.iter().all(|pair| endpoints::reach(pass, &pair.stable, pass.stable_rs()));
    (shrunk || !reached).then(|| before.clone())
}

/// What the routers are to carry.
struct Wanted {
    /// Of the canary.
    weight: i32,
    canary_hash: String,
    stable_hash: String,
    additional: Vec<Destination>,
    headers: Vec<SetHeaderRoute>,
    mirrors: Vec<SetMirrorRoute>,
    /// It is for the current version; not for one that was overtaken and keeps its share, which says nothing about the
    /// current step.
    own: bool,
}

/// What one router does about it.
struct Planned {
    plan: Plan,
    weights: TrafficWeights,
    /// Every Service that gets more has endpoints.
    reached: bool,
}

/// Brings the routers in line.
pub(crate) fn run(pass: &mut Pass<'_>, canary: &Canary, at: Position, counts_reached: bool) -> Outcome {
    let settled = Outcome { settled: true, taken: true };
    if canary.traffic_routing.is_none() {
        // Without a router the weight is the share of pods; there is nothing to record.
        pass.status.canary.weights = None;
        return settled;
    }
    let first = pass.promoted() && pass.status.canary.weights.is_none();
    if first && pass.new_rs().is_none_or(|rs| rs.serving() < rs.replicas.max(pass.replicas())) {
        // The routes may be carrying another workload's traffic: they wait for all pods, as the Services do.
        return settled;
    }
    let rollout = pass.rollout();
    let routers = tidegate_traffic::routers(rollout.name(), rollout.namespace(), canary, &pass.snapshot.router_options);
    let wanted = wanted(pass, canary, at, counts_reached);
    let planned = routers.and_then(|routers| {
        routers.iter().map(|router| plan(pass, canary, router.as_ref(), &wanted)).collect::<Result<Vec<_>, _>>()
    });
    let planned = match planned {
        Ok(planned) => planned,
        Err(error) => return failed(pass, &error),
    };
    // What the status tells is what the first router does.
    let Some(weights) = planned.first().map(|first| first.weights.clone()) else { return settled };
    let reached = planned.iter().all(|p| p.reached);
    let (mut verified, mut pending) = (None, None);
    for Planned { plan, .. } in planned {
        if let Some(answer) = plan.verified {
            verified = Some(verified.unwrap_or(true) && answer);
        }
        pending = pending.or(plan.pending.clone());
        carry_out(pass, plan);
    }
    let weight = weights.canary.weight;
    record(pass, canary, TrafficWeights { verified, ..weights });
    let taken = verified != Some(false);
    if !taken {
        pass.because(pending.unwrap_or_else(|| "the data plane has not taken the weight yet".to_owned()));
        pass.wake_after(VERIFY_SECONDS);
    }
    let asked = if pass.promoted() || pass.status.abort { 0 } else { replicas::weight_at(canary, at.index) };
    Outcome { settled: taken && reached && weight == asked && wanted.own, taken }
}

fn wanted(pass: &mut Pass<'_>, canary: &Canary, at: Position, counts_reached: bool) -> Wanted {
    let (promoted, abort) = (pass.promoted(), pass.status.abort);
    let stable_hash = pass.stable_hash().to_owned();
    let (weight, canary_hash, own) = match held(pass, canary) {
        Some(before) => {
            pass.wake_after(VERIFY_SECONDS);
            (before.weight, before.pod_template_hash.unwrap_or_default(), false)
        }
        None => {
            let weight = weight(pass, canary, at, counts_reached);
            let gone = promoted || (abort && weight == 0);
            (weight, if gone { stable_hash.clone() } else { pass.hash.clone() }, true)
        }
    };
    // Also one whose last pod this pass takes away: its routes go before.
    let no_canary = pass.new_rs().is_none_or(|rs| rs.available == 0 || pass.size(rs) == 0);
    let clean = promoted || abort || pass.status.promote_full || no_canary;
    let (headers, mirrors) = if clean { Default::default() } else { managed_routes(canary, at) };
    let additional = super::experiments::destinations(pass, canary, at);
    Wanted { weight, canary_hash, stable_hash, additional, headers, mirrors, own }
}

fn plan(pass: &mut Pass<'_>, canary: &Canary, router: &dyn Router, wanted: &Wanted) -> Result<Planned, RouterError> {
    let services = services(pass, canary, router.name());
    let (weight, reached) = within_reach(pass, router.name(), &services, wanted);
    let rollout = pass.rollout();
    let owner = OwnerReference {
        api_version: tidegate_crds::API_VERSION.to_owned(),
        kind: Rollout::KIND.to_owned(),
        name: rollout.name().to_owned(),
        uid: rollout.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let input = Input {
        owner: &owner,
        canary_service: &services.canary,
        stable_service: &services.stable,
        canary_weight: weight,
        max_weight: replicas::max_weight(canary),
        canary_hash: &wanted.canary_hash,
        stable_hash: &wanted.stable_hash,
        additional: &wanted.additional,
        header_routes: &wanted.headers,
        mirror_routes: &wanted.mirrors,
        in_progress: !pass.promoted(),
        objects: &pass.snapshot.routing,
    };
    let weights = TrafficWeights {
        canary: destination(&services.canary, &wanted.canary_hash, weight),
        stable: destination(&services.stable, &wanted.stable_hash, input.stable_weight()),
        additional: wanted.additional.iter().map(|d| destination(&d.service, &d.hash, d.weight)).collect(),
        verified: None,
    };
    let mut plan = router.plan(&input)?;
    if router.name() == ALB
        && let Some(taken) = alb::taken(pass, canary, &services, &weights, !plan.writes.is_empty())
    {
        plan.verified = Some(taken.is_ok());
        plan.pending = taken.err();
    }
    Ok(Planned { plan, weights, reached })
}

/// The weight that the canary's Service can have by now: a Service that gets more needs endpoints first. Says also
/// whether they are there.
fn within_reach(pass: &mut Pass<'_>, router: &str, services: &Services, wanted: &Wanted) -> (i32, bool) {
    let recorded = pass.status.canary.weights.as_ref().map(|w| w.canary.clone()).unwrap_or_default();
    let before = recorded.weight;
    if pass.promoted() && router == APP_MESH {
        // Its VirtualNodes select other pods together with the weights, or one that has weight would select none.
        return (wanted.weight, true);
    }
    if pass.promoted() && before > 0 && !services.ping_pong && !services.stable.is_empty() {
        let selected = pass.snapshot.services.get(&services.stable).is_none_or(|s| s.hash() == wanted.stable_hash);
        if !selected {
            pass.wake_after(1);
        }
        let back = selected && endpoints::await_reach(pass, &services.stable, pass.stable_rs());
        return (if back { wanted.weight } else { before }, true);
    }
    let reached = if wanted.weight > before {
        endpoints::await_reach(pass, &services.canary, pass.rs_by_hash(&wanted.canary_hash))
    } else if wanted.weight < before && !services.stable.is_empty() {
        // What the canary loses, the stable Service gets. An abort does not wait for it, nor what has no pods left.
        let loser = recorded.pod_template_hash.unwrap_or_default();
        let serves = pass.rs_by_hash(&loser).is_some_and(|rs| rs.serving() > 0);
        let goes_on = serves && wanted.canary_hash == loser;
        !goes_on || endpoints::await_reach(pass, &services.stable, pass.stable_rs())
    } else {
        true
    };
    (if reached { wanted.weight } else { before }, reached)
}

/// Makes a router's writes, each with the event that tells of it where there is one for each.
fn carry_out(pass: &mut Pass<'_>, plan: Plan) {
    let news: Vec<Event> = plan
        .events
        .into_iter()
        .map(|e| if e.warning { Event::warning(e.reason, e.message) } else { Event::normal(e.reason, e.message) })
        .collect();
    if news.len() == plan.writes.len() {
        for (write, event) in plan.writes.into_iter().zip(news) {
            pass.act_telling(Stage::Traffic, Action::Route(write), event);
        }
    } else {
        plan.writes.into_iter().for_each(|write| pass.act(Stage::Traffic, Action::Route(write)));
        news.into_iter().for_each(|event| pass.tell(event));
    }
}

/// Notes the weights in the status, and tells when the canary's is another one.
fn record(pass: &mut Pass<'_>, canary: &Canary, next: TrafficWeights) {
    let from = pass.status.canary.weights.as_ref().map_or(0, |w| w.canary.weight);
    let (to, max) = (next.canary.weight, replicas::max_weight(canary));
    if from != to {
        pass.tell(Event::normal("TrafficWeightUpdated", format!("Traffic weight updated from {from} to {to}")));
        pass.because(format!("gives the canary {to} of {max} of the traffic (before: {from})"));
    }
    pass.status.canary.weights = Some(next);
}

fn destination(service: &str, hash: &str, weight: i32) -> WeightDestination {
    WeightDestination {
        weight,
        service_name: (!service.is_empty()).then(|| service.to_owned()),
        pod_template_hash: (!hash.is_empty()).then(|| hash.to_owned()),
    }
}

fn failed(pass: &mut Pass<'_>, error: &tidegate_traffic::RouterError) -> Outcome {
    pass.tell(Event::warning(error.event_reason(), error.to_string()));
    pass.because(format!("cannot route: {error}"));
    pass.wake_after(VERIFY_SECONDS);
    Outcome { settled: false, taken: false }
}
