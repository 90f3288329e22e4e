//! The simulated API server: objects as JSON, resource versions, watches, and a virtual clock.

use crate::invariants::Invariants;
use crate::platform::Pod;
use crate::random::Random;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use tidegate_controller::api::{ApiError, ApiResult, Resource};
use tidegate_crds::patch;

/// Milliseconds of virtual time since the simulation began.
pub type Millis = i64;

/// Where everything happens.
pub const NAMESPACE: &str = "shop";
/// The Rollout.
pub const ROLLOUT: &str = "web";
/// When the virtual clock begins: 2026-01-01T00:00:00Z.
const EPOCH_SECONDS: i64 = 1_767_225_600;

/// Kinds that the simulated API server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Rollout,
    ReplicaSet,
    Service,
    AnalysisRun,
    AnalysisTemplate,
    Experiment,
    HttpRoute,
    Ingress,
    Deployment,
    EndpointSlice,
    VirtualService,
    DestinationRule,
    TrafficSplit,
    TraefikService,
    ApisixRoute,
    Mapping,
    /// A VirtualService of App Mesh.
    MeshService,
    VirtualRouter,
    VirtualNode,
}

/// All kinds.
pub const KINDS: [Kind; 19] = [
    Kind::Rollout,
    Kind::ReplicaSet,
    Kind::Service,
    Kind::AnalysisRun,
    Kind::AnalysisTemplate,
    Kind::Experiment,
    Kind::HttpRoute,
    Kind::Ingress,
    Kind::Deployment,
    Kind::EndpointSlice,
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::TrafficSplit,
    Kind::TraefikService,
    Kind::ApisixRoute,
    Kind::Mapping,
    Kind::MeshService,
    Kind::VirtualRouter,
    Kind::VirtualNode,
];

impl Kind {
    pub fn of(resource: &Resource) -> Option<Self> {
        let group = |kind: &Self| kind.api_version().split_once('/').map_or("", |(group, _)| group);
        KINDS.into_iter().find(|kind| kind.as_str() == resource.kind && group(kind) == resource.group)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollout => "Rollout",
            Self::ReplicaSet => "ReplicaSet",
            Self::Service => "Service",
            Self::AnalysisRun => "AnalysisRun",
            Self::AnalysisTemplate => "AnalysisTemplate",
            Self::Experiment => "Experiment",
            Self::HttpRoute => "HTTPRoute",
            Self::Ingress => "Ingress",
            Self::Deployment => "Deployment",
            Self::EndpointSlice => "EndpointSlice",
            Self::VirtualService | Self::MeshService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::TrafficSplit => "TrafficSplit",
            Self::TraefikService => "TraefikService",
            Self::ApisixRoute => "ApisixRoute",
            Self::Mapping => "Mapping",
            Self::VirtualRouter => "VirtualRouter",
            Self::VirtualNode => "VirtualNode",
        }
    }

    pub fn api_version(self) -> &'static str {
        match self {
            Self::Service => "v1",
            Self::ReplicaSet | Self::Deployment => "apps/v1",
            Self::HttpRoute => "gateway.networking.k8s.io/v1",
            Self::Ingress => "networking.k8s.io/v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::VirtualService | Self::DestinationRule => "networking.istio.io/v1alpha3",
            Self::TrafficSplit => "split.smi-spec.io/v1alpha1",
            Self::TraefikService => "traefik.io/v1alpha1",
            Self::ApisixRoute => "apisix.apache.org/v2",
            Self::Mapping => "getambassador.io/v2",
            Self::MeshService | Self::VirtualRouter | Self::VirtualNode => "appmesh.k8s.aws/v1beta2",
            _ => "argoproj.io/v1alpha1",
        }
    }

    /// The status is a subresource of its own, so that writes of the object leave it alone.
    fn has_status_subresource(self) -> bool {
        !matches!(self, Self::AnalysisRun | Self::Experiment | Self::AnalysisTemplate)
    }
}

/// An object's place.
pub type Id = (Kind, String);

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The controller that is tested.
    Controller,
    /// A person.
    User,
    /// Kubernetes and the data plane.
    Platform,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Controller => "controller",
            Self::User => "user      ",
            Self::Platform => "platform  ",
        })
    }
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The ReplicaSet controller looks at a ReplicaSet.
    SyncReplicaSet(String),
    /// The endpoints of a Service are looked at.
    SyncEndpoints(String),
    /// A pod becomes ready.
    PodReady(String),
    /// A pod's node goes away.
    NodeFails,
    /// A pod is gone for good.
    PodGone(String),
    /// The Gateway takes a generation of a route.
    Gateway(String),
    /// An AnalysisRun goes on.
    Analysis(String),
    /// An Experiment goes on.
    Experiment(String),
    /// The load balancer takes the weights of its Ingress.
    Balancer,
    /// The target groups of a Service take its endpoints.
    Targets(String),
    /// AWS answers.
    AwsAnswers,
    /// A person acts.
    User,
    /// An autoscaler resizes the Rollout.
    Autoscaler,
    /// The watch of a kind breaks.
    WatchBreaks(Kind),
    /// The watch of a kind is there again, and begins with a list.
    Relist(Kind),
    /// The controller's process is killed.
    Kill,
}

/// Something under way to the controller's stores.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// A watch event.
    Event {
        id: Id,
        version: u64,
        /// `None`: the object was deleted.
        object: Option<Arc<Value>>,
    },
    /// The list with which a watch begins.
    List { kind: Kind, objects: Vec<Arc<Value>> },
}

impl Delivery {
    fn kind(&self) -> Kind {
        match self {
            Self::Event { id, .. } => id.0,
            Self::List { kind, .. } => *kind,
        }
    }
}

/// How often the API misbehaves, in thousandths of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultRates {
    pub conflict: u64,
    pub throttled: u64,
    pub broken_before: u64,
    pub broken_after: u64,
    pub timeout_before: u64,
    pub timeout_after: u64,
    pub kill_before: u64,
    pub kill_after: u64,
    /// Watch events that come late, twice, or twice with the old one last.
    pub late: u64,
    pub doubled: u64,
}

/// The lines of a replay.
#[derive(Debug, Default)]
pub struct Trace {
    pub on: bool,
    pub lines: Vec<String>,
}

/// The cluster.
pub struct World {
    pub now: Millis,
    pub random: Random,
    /// By kind and name.
    objects: [BTreeMap<String, Arc<Value>>; KINDS.len()],
    pub pods: BTreeMap<String, Pod>,
    version: u64,
    serial: u64,
    pub agenda: BTreeMap<(Millis, u64), Happening>,
    pub deliveries: BTreeMap<(Millis, u64), Delivery>,
    /// When each kind's last delivery is due: a watch keeps the order.
    last_due: BTreeMap<Kind, Millis>,
    pub broken_watches: Vec<Kind>,
    pub faults: FaultRates,
    pub trace: Trace,
    pub invariants: Invariants,
    pub violation: Option<String>,
    /// Writes of the controller that took effect.
    pub writes: u64,
    pub user: crate::users::User,
    /// Verdicts that AnalysisRuns get from now on; empty: random.
    pub verdicts: Vec<&'static str>,
    /// For how long EndpointSlices stay behind; by default a moment, now and then longer.
    pub endpoints_after: Option<Millis>,
    /// The controller asks AWS, and AWS follows what the cluster says, in its own time.
    pub aws: bool,
    /// Pods that are targets, by Service.
    pub targets: BTreeMap<String, BTreeSet<String>>,
    /// Only good things happen by themselves.
    pub calm: bool,
    /// The process has been killed by the clock.
    pub killed: bool,
    /// The process is killed after this many more writes.
    pub kill_after_writes: Option<u64>,
    /// Everything that was written, when somebody wants to know.
    pub history: Option<Vec<(Actor, Id, Value)>>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            now: 0,
            random: Random::new(seed),
            objects: Default::default(),
            pods: BTreeMap::new(),
            version: 100,
            serial: 0,
            agenda: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            last_due: BTreeMap::new(),
            broken_watches: Vec::new(),
            faults: FaultRates::default(),
            trace: Trace::default(),
            invariants: Invariants::default(),
            violation: None,
            writes: 0,
            user: crate::users::User::default(),
            verdicts: Vec::new(),
            endpoints_after: None,
            aws: false,
            targets: BTreeMap::new(),
            calm: false,
            killed: false,
            kill_after_writes: None,
            history: None,
        }
    }

    pub fn timestamp(&self) -> Timestamp {
        Timestamp::from_millisecond(EPOCH_SECONDS * 1000 + self.now).unwrap_or_default()
    }

    /// A time as objects carry it.
    pub fn time_text(&self, at: Millis) -> String {
        Timestamp::from_second(EPOCH_SECONDS + at.div_euclid(1000)).unwrap_or_default().to_string()
    }

    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if self.trace.on {
            let line = line();
            let clock = format!("{:>5}.{:03}", self.now / 1000, self.now % 1000);
            self.trace.lines.push(format!("{clock} {line}"));
        }
    }

    /// Notes the first thing that must not be.
    pub fn violated(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.say(|| format!("VIOLATION  {what}"));
        self.violation.get_or_insert(what);
    }

    pub fn plan(&mut self, after: Millis, happening: Happening) {
        self.serial += 1;
        self.agenda.insert((self.now + after.max(0), self.serial), happening);
    }

    /// Plans it unless it is planned already.
    pub fn plan_once(&mut self, after: Millis, happening: Happening) {
        if !self.agenda.values().any(|h| *h == happening) {
            self.plan(after, happening);
        }
    }

    pub fn next_happening(&self) -> Option<Millis> {
        self.agenda.keys().next().map(|(at, _)| *at)
    }

    pub fn next_delivery(&self) -> Option<Millis> {
        self.deliveries.keys().next().map(|(at, _)| *at)
    }

    /// Lets time pass, and with it all that happens by itself.
    pub fn advance(&mut self, to: Millis) {
        while let Some((&(at, serial), _)) = self.agenda.first_key_value() {
            if at > to {
                break;
            }
            self.now = self.now.max(at);
            if let Some(happening) = self.agenda.remove(&(at, serial)) {
                crate::platform::happen(self, happening);
            }
        }
        self.now = self.now.max(to);
    }

    pub fn get(&self, kind: Kind, name: &str) -> Option<&Value> {
        self.objects[kind as usize].get(name).map(Arc::as_ref)
    }

    /// The object, to keep.
    pub fn kept(&self, kind: Kind, name: &str) -> Option<Arc<Value>> {
        self.objects[kind as usize].get(name).cloned()
    }

    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&String, &Value)> {
        self.objects[kind as usize].iter().map(|(name, object)| (name, object.as_ref()))
    }

    pub fn rollout(&self) -> &Value {
        self.get(Kind::Rollout, ROLLOUT).unwrap_or(&Value::Null)
    }

    /// The pod template that counts: the Rollout's own, or that of the Deployment to which it refers.
    pub fn template(&self) -> &Value {
        let rollout = self.rollout();
        let name = rollout.pointer("/spec/workloadRef").map(|reference| text(reference, "/name"));
        let from = name.map_or(Some(rollout), |name| self.get(Kind::Deployment, name));
        from.and_then(|o| o.pointer("/spec/template")).unwrap_or(&Value::Null)
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Puts an object in place, tells the watches and the platform.
    fn store(&mut self, actor: Actor, id: Id, mut object: Value) -> Arc<Value> {
        let version = self.next_version();
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let object = Arc::new(object);
        let before = self.objects[id.0 as usize].insert(id.1.clone(), Arc::clone(&object));
        self.deliver(&id, version, Some(&object), before.as_ref());
        if actor == Actor::Controller {
            self.writes += 1;
        }
        if let Some(history) = &mut self.history {
            history.push((actor, id.clone(), Value::clone(&object)));
        }
        crate::invariants::written(self, actor, &id, before.as_deref(), Some(&object));
        crate::platform::written(self, &id, before.as_deref(), &object);
        object
    }

    fn deliver(&mut self, id: &Id, version: u64, object: Option<&Arc<Value>>, before: Option<&Arc<Value>>) {
        if self.broken_watches.contains(&id.0) {
            return;
        }
        let mut delay = self.random.range(1, 60);
        if self.random.permille(self.faults.late) {
            delay += self.random.range(100, 20_000);
            self.invariants.blind_until = self.invariants.blind_until.max(self.now + delay + 1000);
        }
        let due = (self.now + delay).max(self.last_due.get(&id.0).copied().unwrap_or(0));
        self.last_due.insert(id.0, due);
        self.serial += 1;
        let deleted = object.is_none();
        let event = Delivery::Event { id: id.clone(), version, object: object.cloned() };
        self.deliveries.insert((due, self.serial), event);
        if !deleted && self.random.permille(self.faults.doubled) {
            self.serial += 1;
            // Either the same once more, or an older version after the newer one.
            let object = before.filter(|_| self.random.percent(50)).or(object).cloned();
            let version = object.as_ref().map_or(version, |object| version_of(object));
            self.deliveries.insert((due, self.serial), Delivery::Event { id: id.clone(), version, object });
        }
    }

    /// Changes of this kind are not told until the next list.
    pub fn break_watch(&mut self, kind: Kind) {
        if !self.broken_watches.contains(&kind) {
            self.broken_watches.push(kind);
        }
        self.invariants.blind_until = self.invariants.blind_until.max(self.now + 35_000);
        if self.random.percent(50) {
            self.deliveries.retain(|_, d| d.kind() != kind);
        }
    }

    /// The watch begins again with a list.
    pub fn relist(&mut self, kind: Kind) {
        self.broken_watches.retain(|k| *k != kind);
        self.say(|| format!("platform   {} is listed again", kind.as_str()));
        let objects = self.objects[kind as usize].values().cloned().collect();
        let delay = self.random.range(1, 500);
        let due = (self.now + delay).max(self.last_due.get(&kind).copied().unwrap_or(0));
        self.last_due.insert(kind, due);
        self.serial += 1;
        self.deliveries.insert((due, self.serial), Delivery::List { kind, objects });
    }

    /// The process is gone, and its connections with it.
    pub fn disconnect(&mut self) {
        self.deliveries.clear();
        self.last_due.clear();
        self.broken_watches.clear();
        self.agenda.retain(|_, h| !matches!(h, Happening::Relist(_)));
    }

    /// A name as the API server generates it for a pod of a ReplicaSet.
    pub fn fresh_pod_name(&mut self, replica_set: &str) -> String {
        self.serial += 1;
        format!("{replica_set}-{:05}", self.serial)
    }

    fn missing(kind: Kind, name: &str) -> ApiError {
        ApiError::NotFound(format!("{} {name:?} not found", kind.as_str()))
    }

    pub fn create(&mut self, actor: Actor, kind: Kind, object: &Value) -> ApiResult<Arc<Value>> {
        let mut object = object.clone();
        let name = text(&object, "/metadata/name").to_owned();
        let id = (kind, name.clone());
        if self.get(kind, &name).is_some() {
            return Err(ApiError::AlreadyExists(format!("{} {name:?} already exists", kind.as_str())));
        }
        self.serial += 1;
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.as_str().into();
        object["metadata"]["namespace"] = NAMESPACE.into();
        object["metadata"]["uid"] = format!("uid-{}", self.serial).into();
        object["metadata"]["generation"] = 1.into();
        object["metadata"]["creationTimestamp"] = self.time_text(self.now).into();
        if kind.has_status_subresource()
            && actor == Actor::Controller
            && let Some(map) = object.as_object_mut()
        {
            map.remove("status");
        }
        self.say(|| format!("{actor} creates {} {name}{}", kind.as_str(), replicas_of(&object)));
        Ok(self.store(actor, id, object))
    }

    /// A merge patch, as the API server takes it.
    pub fn patch(
        &mut self,
        actor: Actor,
        kind: Kind,
        name: &str,
        subresource: &str,
        body: &Value,
    ) -> ApiResult<Arc<Value>> {
        let Some(before) = self.objects[kind as usize].get(name).cloned() else {
            return Err(Self::missing(kind, name));
        };
        for (field, what) in [("resourceVersion", "the object has been modified"), ("uid", "another uid")] {
            let wanted = body.pointer("/metadata").and_then(|m| m.get(field)).and_then(Value::as_str);
            if wanted.is_some_and(|w| before["metadata"][field] != *w) {
                return Err(ApiError::Conflict(format!("{} {name:?}: {what}", kind.as_str())));
            }
        }
        let mut body = body.clone();
        if let Some(map) = body.as_object_mut() {
            if subresource == "status" {
                map.retain(|key, _| key == "status");
            } else if kind.has_status_subresource() && actor != Actor::Platform {
                map.remove("status");
            }
        }
        if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["resourceVersion", "uid", "generation", "creationTimestamp"] {
                metadata.remove(field);
            }
        }
        let mut after = Value::clone(&before);
        patch::merge_apply(&mut after, &body);
        if after == *before {
            // A write without a change makes no new version.
            return Ok(before);
        }
        if after.get("spec") != before.get("spec") {
            let generation = before.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
            after["metadata"]["generation"] = (generation + 1).into();
        }
        self.say(|| {
            let part = if subresource.is_empty() { "" } else { "/status" };
            format!("{actor} patches {} {name}{part} {}", kind.as_str(), short(&body))
        });
        Ok(self.store(actor, (kind, name.to_owned()), after))
    }

    pub fn delete(&mut self, actor: Actor, kind: Kind, name: &str, uid: &str) -> ApiResult<()> {
        let id = (kind, name.to_owned());
        let Some(before) = self.objects[kind as usize].get(name).cloned() else { return Ok(()) };
        if !uid.is_empty() && uid != text(&before, "/metadata/uid") {
            return Ok(());
        }
        self.say(|| format!("{actor} deletes {} {name}", kind.as_str()));
        self.objects[kind as usize].remove(name);
        let version = self.next_version();
        // Nothing older may come after a deletion: a watch keeps the order of one object.
        self.deliver(&id, version, None, None);
        if actor == Actor::Controller {
            self.writes += 1;
        }
        crate::invariants::written(self, actor, &id, Some(&before), None);
        crate::platform::deleted(self, &id, &before);
        Ok(())
    }

    /// Ends the run's faults: watches work, calls succeed.
    pub fn heal(&mut self) {
        self.faults = FaultRates::default();
        self.agenda.retain(|_, h| {
            !matches!(h, Happening::NodeFails | Happening::WatchBreaks(_) | Happening::Kill | Happening::Autoscaler)
        });
    }
}

/// A label of an object; empty when there is none.
pub fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    object.pointer("/metadata/labels").and_then(|labels| labels.get(key)).and_then(Value::as_str).unwrap_or_default()
}

/// Resource version as a number.
pub fn version_of(object: &Value) -> u64 {
    text(object, "/metadata/resourceVersion").parse().unwrap_or(0)
}

/// A text in an object; empty when there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A number in an object; 0 when there is none.
pub fn int(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn replicas_of(object: &Value) -> String {
    object.pointer("/spec/replicas").map(|r| format!(" with {r} replicas")).unwrap_or_default()
}

/// A patch as a line of the trace, without what nobody reads.
fn short(body: &Value) -> String {
    let mut body = body.clone();
    if let Some(map) = body.get_mut("status").and_then(Value::as_object_mut) {
        if let Some(conditions) = map.get_mut("conditions").and_then(Value::as_array_mut) {
            let line = |c: &Value| {
                let part = |key: &str| c.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                format!("{}={}({})", part("type"), part("status"), part("reason"))
            };
            let lines: Vec<Value> = conditions.iter().map(|c| line(c).into()).collect();
            *conditions = lines;
        }
        map.remove("selector");
    }
    if let Some(template) = body.pointer_mut("/spec/template") {
        *template = json!(text(template, "/spec/containers/0/image"));
    }
    body.to_string()
}
