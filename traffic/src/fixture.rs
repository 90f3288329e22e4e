//! What the tests of all routers share: a Rollout, what it wants, and a cluster in memory.

use crate::{Destination, Input, ObjectRef, Objects, Plan, Router, RouterError, RouterOptions, Write, routers};
use serde_json::{Value, json};
use tidegate_crds::OwnerReference;
use tidegate_crds::rollout::{Canary, HeaderMatch, RouteMatch, SetHeaderRoute, SetMirrorRoute, StringMatch};

/// What is wanted of a router.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub owner: OwnerReference,
    pub canary_service: String,
    pub stable_service: String,
    pub weight: i32,
    pub max: i32,
    pub canary_hash: String,
    pub stable_hash: String,
    pub additional: Vec<Destination>,
    pub headers: Vec<SetHeaderRoute>,
    pub mirrors: Vec<SetMirrorRoute>,
    pub in_progress: bool,
}

/// The canary of Rollout `web` at `weight`, in the middle of an update unless the weight is 0.
pub(crate) fn wanted(weight: i32) -> Wanted {
    Wanted {
        owner: OwnerReference {
            api_version: "argoproj.io/v1alpha1".into(),
            kind: "Rollout".into(),
            name: "web".into(),
            uid: "1234".into(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        },
        canary_service: "canary".into(),
        stable_service: "stable".into(),
        weight,
        max: 100,
        canary_hash: "new".into(),
        stable_hash: "old".into(),
        additional: Vec::new(),
        headers: Vec::new(),
        mirrors: Vec::new(),
        in_progress: weight > 0,
    }
}

impl Wanted {
    pub fn header(mut self, name: &str, header: &str, value: StringMatch) -> Self {
        let header_match = HeaderMatch { header_name: header.into(), header_value: value };
        self.headers.push(SetHeaderRoute { name: name.into(), match_: vec![header_match] });
        self
    }

    pub fn mirror(mut self, name: &str, matched: RouteMatch, percentage: Option<i32>) -> Self {
        self.mirrors.push(SetMirrorRoute { name: name.into(), match_: vec![matched], percentage });
        self
    }

    pub fn experiment(mut self, service: &str, hash: &str, weight: i32) -> Self {
        self.additional.push(Destination { service: service.into(), hash: hash.into(), weight, ..Default::default() });
        self
    }

    /// The Service of the last experiment has another port than the canary's.
    pub fn behind_port(mut self, port: i32, own: i32) -> Self {
        self.additional.last_mut().unwrap().ports.insert(port, own);
        self
    }

    pub fn input<'a>(&'a self, objects: &'a Objects) -> Input<'a> {
        Input {
            owner: &self.owner,
            canary_service: &self.canary_service,
            stable_service: &self.stable_service,
            canary_weight: self.weight,
            max_weight: self.max,
            canary_hash: &self.canary_hash,
            stable_hash: &self.stable_hash,
            additional: &self.additional,
            header_routes: &self.headers,
            mirror_routes: &self.mirrors,
            in_progress: self.in_progress,
            objects,
        }
    }
}

pub(crate) fn exact(value: &str) -> StringMatch {
    StringMatch { exact: Some(value.into()), ..Default::default() }
}

pub(crate) fn prefix(value: &str) -> StringMatch {
    StringMatch { prefix: Some(value.into()), ..Default::default() }
}

pub(crate) fn regex(value: &str) -> StringMatch {
    StringMatch { regex: Some(value.into()), ..Default::default() }
}

/// The canary strategy with `trafficRouting` as given.
pub(crate) fn canary(routing: Value) -> Canary {
    let canary = json!({ "canaryService": "canary", "stableService": "stable", "trafficRouting": routing });
    serde_json::from_value(canary).unwrap()
}

/// The only router of Rollout `shop/web` with `trafficRouting` as given.
pub(crate) fn router(routing: Value) -> Box<dyn Router> {
    try_router(routing).unwrap()
}

pub(crate) fn try_router(routing: Value) -> Result<Box<dyn Router>, RouterError> {
    routers("web", "shop", &canary(routing), &RouterOptions::default()).map(|mut routers| routers.remove(0))
}

/// A cluster that holds these objects, given as JSON or YAML-like JSON with kind, apiVersion and metadata. `plurals` are
/// made from the kinds.
pub(crate) fn cluster(objects: impl IntoIterator<Item = Value>) -> Objects {
    let mut cluster = Objects::default();
    for mut object in objects {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("shop").to_owned();
        let kind = text("/kind");
        let plural = match kind.as_str() {
            "Ingress" => "ingresses".to_owned(),
            kind => format!("{}s", kind.to_lowercase()),
        };
        let target =
            ObjectRef::new(&text("/apiVersion"), &kind, &plural, &text("/metadata/namespace"), &text("/metadata/name"));
        object["metadata"]["resourceVersion"] = "1".into();
        object["metadata"]["generation"] = 1.into();
        cluster.insert(target, object);
    }
    cluster
}

/// The object of that kind and name.
pub(crate) fn object<'a>(objects: &'a Objects, kind: &str, name: &str) -> &'a Value {
    let found = objects.0.iter().find(|(target, _)| target.kind == kind && target.name == name);
    found.map(|(_, object)| object).unwrap_or_else(|| panic!("{kind} {name} is not there"))
}

/// Plans and writes until nothing is left to write, and checks that this happens at once: after the writes of one plan
/// the next one is empty. `rounds` is the number of plans with writes that are allowed. Returns the first plan.
pub(crate) fn settle_in(rounds: usize, router: &dyn Router, wanted: &Wanted, objects: &mut Objects) -> Option<Plan> {
    let mut first: Option<Plan> = None;
    for _ in 0..rounds {
        let plan = router.plan(&wanted.input(objects)).unwrap();
        for write in &plan.writes {
            objects.apply(write).unwrap();
        }
        first.get_or_insert(plan);
    }
    let again = router.plan(&wanted.input(objects)).unwrap();
    assert_eq!(again.writes, Vec::<Write>::new(), "{} writes again what it has written", router.name());
    assert_eq!(again.events, Vec::new());
    first
}

/// [`settle_in`] one round.
pub(crate) fn settle(router: &dyn Router, wanted: &Wanted, objects: &mut Objects) -> Plan {
    settle_in(1, router, wanted, objects).unwrap()
}

/// The message of the error that planning ends with.
pub(crate) fn refusal(router: &dyn Router, wanted: &Wanted, objects: &Objects) -> String {
    router.plan(&wanted.input(objects)).unwrap_err().to_string()
}
