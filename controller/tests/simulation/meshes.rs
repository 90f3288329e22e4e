//! The routers that tell nothing of the data plane: what users write for them, and which weights stand in their objects.

use crate::cluster::{Actor, Kind, ROLLOUT, World, text};
use serde_json::{Value, json};
use tidegate_crds::keys;

/// A router whose objects have weights, and that is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mesh {
    Istio,
    /// By the subsets of a DestinationRule.
    IstioSubsets,
    Alb,
    Smi,
    Traefik,
    Apisix,
    Ambassador,
    /// App Mesh.
    VirtualNodes,
}

/// Those that a strategy is drawn from, with their fields in `trafficRouting`.
pub const MESHES: [(Mesh, &str); 7] = [
    (Mesh::Istio, "istio"),
    (Mesh::IstioSubsets, "istio"),
    (Mesh::Alb, "alb"),
    (Mesh::Smi, "smi"),
    (Mesh::Traefik, "traefik"),
    (Mesh::Apisix, "apisix"),
    (Mesh::Ambassador, "ambassador"),
];

/// All of them. The last one takes another's place now and then, so that the seeds stay what they were.
pub fn all() -> impl Iterator<Item = (Mesh, &'static str)> {
    MESHES.into_iter().chain([(Mesh::VirtualNodes, "appMesh")])
}

/// Name of the object that the user writes.
pub const OBJECT: &str = "mesh";
const ACTION: &str = "alb.ingress.kubernetes.io/actions.web-stable";
/// Tells a subset from a Service.
const SUBSET: &str = "subset/";
/// The same for a VirtualNode.
const NODE: &str = "node/";
const NODES: [&str; 2] = ["stable-node", "canary-node"];

impl Mesh {
    /// The router that a Rollout's `trafficRouting` names.
    pub fn of(routing: &Value) -> Option<Self> {
        if routing.pointer("/istio/destinationRule").is_some() {
            return Some(Self::IstioSubsets);
        }
        all().find(|(_, field)| routing.get(field).is_some()).map(|(mesh, _)| mesh)
    }

    pub fn knows_headers(self) -> bool {
        matches!(self, Self::Istio | Self::IstioSubsets | Self::Alb | Self::Apisix)
    }

    pub fn weighs_experiments(self) -> bool {
        matches!(self, Self::Istio | Self::IstioSubsets | Self::Alb | Self::Smi)
    }

    /// `trafficRouting` of a Rollout.
    pub fn routing(self) -> Value {
        let mut routing = match self {
            Self::Istio => json!({"istio": {"virtualService": {"name": OBJECT, "routes": ["primary"]}}}),
            Self::IstioSubsets => json!({"istio": {
                "virtualService": {"name": OBJECT, "routes": ["primary"]},
                "destinationRule": {"name": OBJECT, "canarySubsetName": "canary", "stableSubsetName": "stable",
                    "additionalSubsetNames": ["kept"]},
            }}),
            Self::Alb => json!({"alb": {"ingress": OBJECT, "servicePort": 80}}),
            Self::Smi => json!({"smi": {}}),
            Self::Traefik => json!({"traefik": {"weightedTraefikServiceName": OBJECT}}),
            Self::Apisix => json!({"apisix": {"route": {"name": OBJECT, "rules": ["primary"]}}}),
            Self::Ambassador => json!({"ambassador": {"mappings": [OBJECT]}}),
            Self::VirtualNodes => json!({"appMesh": {
                "virtualService": {"name": OBJECT, "routes": ["primary"]},
                "virtualNodeGroup": {
                    "stableVirtualNodeRef": {"name": NODES[0]}, "canaryVirtualNodeRef": {"name": NODES[1]},
                },
            }}),
        };
        if self.knows_headers() {
            routing["managedRoutes"] = json!([{"name": "header-one"}, {"name": "header-two"}]);
        }
        routing
    }

    /// The object that the weights stand in, and its name.
    fn place(self) -> (Kind, &'static str) {
        match self {
            Self::Istio | Self::IstioSubsets => (Kind::VirtualService, OBJECT),
            Self::Alb => (Kind::Ingress, OBJECT),
            Self::Smi => (Kind::TrafficSplit, ROLLOUT),
            Self::Traefik => (Kind::TraefikService, OBJECT),
            Self::Apisix => (Kind::ApisixRoute, OBJECT),
            Self::Ambassador => (Kind::Mapping, "mesh-canary"),
            Self::VirtualNodes => (Kind::VirtualRouter, OBJECT),
        }
    }

    /// The user applies the objects, with everything on the stable version, and removes what a Rollout made of its own.
    pub fn furnish(self, world: &mut World) {
        let (place, own) = self.place();
        if matches!(self, Self::Smi | Self::Ambassador) {
            let _ = world.delete(Actor::User, place, own, "");
        }
        let to = |host: &str, weight: i64| json!({"destination": {"host": host}, "weight": weight});
        let subset =
            |name: &str, weight: i64| json!({"destination": {"host": "web", "subset": name}, "weight": weight});
        let virtual_service = |stable: Value, canary: Value| {
            json!({"hosts": ["web"], "http": [
                {"name": "primary", "route": [stable, canary]},
                {"name": "foreign", "route": [to("other", 3), to("third", 97)]},
            ]})
        };
        let spec = match self {
            Self::Smi => return,
            Self::Istio => virtual_service(to("web-stable", 100), to("web-canary", 0)),
            Self::IstioSubsets => {
                let pods = |name: &str| json!({"name": name, "labels": {"app": "web"}});
                let rule = json!({"host": "web", "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 9}}},
                    "subsets": [pods("stable"), pods("canary"), pods("kept")]});
                apply(world, Kind::DestinationRule, OBJECT, &rule);
                virtual_service(subset("stable", 100), subset("canary", 0))
            }
            Self::Alb => json!({"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {
                "service": {"name": "web-stable", "port": {"name": "use-annotation"}}}}]}}]}),
            Self::Traefik => {
                let one = |name: &str, weight: i64| json!({"name": name, "port": 80, "weight": weight});
                json!({"weighted": {"services": [one("web-stable", 100), one("web-canary", 0), one("foreign", 5)]}})
            }
            Self::Apisix => {
                let one = |name: &str, weight: i64| json!({"serviceName": name, "servicePort": 80, "weight": weight});
                json!({"http": [
                    {"name": "primary", "match": {"hosts": ["web"], "paths": ["/*"]},
                     "backends": [one("web-stable", 100), one("web-canary", 0)]},
                    {"name": "foreign", "match": {"hosts": ["other"], "paths": ["/*"]}, "backends": [one("other", 9)]},
                ]})
            }
            Self::Ambassador => json!({"prefix": "/", "service": "web-stable:80"}),
            Self::VirtualNodes => {
                let service = json!({"provider": {"virtualRouter": {"virtualRouterRef": {"name": OBJECT}}}});
                apply(world, Kind::MeshService, OBJECT, &service);
                for node in NODES {
                    apply(world, Kind::VirtualNode, node, &json!({"podSelector": {"matchLabels": {"app": "web"}}}));
                }
                let to = |node: &str, weight: i64| json!({"virtualNodeRef": {"name": node}, "weight": weight});
                let route = |name: &str, kind: &str, targets: Value| json!({"name": name, kind: {"action": {"weightedTargets": targets}}});
                json!({"routes": [
                    route("primary", "httpRoute", json!([to(NODES[0], 100), to(NODES[1], 0)])),
                    route("foreign", "tcpRoute", json!([to("other", 3)])),
                ]})
            }
        };
        apply(world, place, OBJECT, &spec);
        if self == Self::Alb {
            let nothing = json!({"metadata": {"annotations": {ACTION: null}}});
            let _ = world.patch(Actor::User, place, OBJECT, "", &nothing);
            if world.aws {
                let status = json!({"status": {"loadBalancer": {"ingress": [{"hostname": crate::aws::HOST}]}}});
                let _ = world.patch(Actor::Platform, place, OBJECT, "status", &status);
            }
        }
    }
}

/// The user makes an object, or writes its spec anew.
pub fn apply(world: &mut World, kind: Kind, name: &str, spec: &Value) {
    if world.get(kind, name).is_some() {
        let _ = world.patch(Actor::User, kind, name, "", &json!({ "spec": spec }));
        return;
    }
    let metadata = json!({"name": name, "labels": {"user": "l"}, "annotations": {"user": "a"}});
    let _ = world.create(Actor::User, kind, &json!({"metadata": metadata, "spec": spec}));
}

fn all_of<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn named<'a>(object: &'a Value, pointer: &str, name: &str) -> &'a Value {
    all_of(object, pointer).find(|entry| text(entry, "/name") == name).unwrap_or(&Value::Null)
}

fn number(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

/// Weights by Service in an object that a router writes; `None` for one in which it has no weights.
pub fn weights(kind: Kind, name: &str, object: &Value) -> Option<Vec<(String, i64)>> {
    let (mesh, _) = all().find(|(mesh, _)| mesh.place() == (kind, name))?;
    let pairs = |entries: Vec<&Value>, service: &str, weight: &str| -> Vec<(String, i64)> {
        entries
            .into_iter()
            .map(|e| (text(e, service).to_owned(), number(e.pointer(weight).unwrap_or(&Value::Null))))
            .collect()
    };
    Some(match mesh {
        Mesh::Istio | Mesh::IstioSubsets => {
            let route = all_of(named(object, "/spec/http", "primary"), "/route");
            let place = |d: &Value| match text(d, "/destination/subset") {
                "" => text(d, "/destination/host").to_owned(),
                subset => format!("{SUBSET}{subset}"),
            };
            route.map(|d| (place(d), number(&d["weight"]))).collect()
        }
        Mesh::Alb => {
            let action = object["metadata"]["annotations"][ACTION].as_str();
            let action: Value = action.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            pairs(all_of(&action, "/ForwardConfig/TargetGroups").collect(), "/ServiceName", "/Weight")
        }
        Mesh::Smi => pairs(all_of(object, "/spec/backends").collect(), "/service", "/weight"),
        Mesh::Traefik => {
            let ours = all_of(object, "/spec/weighted/services").filter(|s| text(s, "/name") != "foreign");
            pairs(ours.collect(), "/name", "/weight")
        }
        Mesh::Apisix => {
            pairs(all_of(named(object, "/spec/http", "primary"), "/backends").collect(), "/serviceName", "/weight")
        }
        Mesh::Ambassador => {
            let weight = number(&object["spec"]["weight"]);
            vec![("web-canary".to_owned(), weight), ("web-stable".to_owned(), 100 - weight)]
        }
        Mesh::VirtualNodes => {
            let targets = all_of(named(object, "/spec/routes", "primary"), "/httpRoute/action/weightedTargets");
            targets.map(|t| (format!("{NODE}{}", text(t, "/virtualNodeRef/name")), number(&t["weight"]))).collect()
        }
    })
}

/// Weights by Service, as they stand now; everything is on the stable Service as long as nothing stands anywhere.
pub fn weights_now(world: &World, mesh: Mesh) -> Vec<(String, i64)> {
    let (kind, name) = mesh.place();
    let found = world.get(kind, name).and_then(|object| weights(kind, name, object)).filter(|w| !w.is_empty());
    found.unwrap_or_else(|| vec![("web-canary".to_owned(), 0), ("web-stable".to_owned(), 100)])
}

/// What is the user's own in such an object.
pub fn foreign(object: &Value) -> [&Value; 6] {
    [
        named(object, "/spec/http", "foreign"),
        named(object, "/spec/routes", "foreign"),
        object.pointer("/spec/podSelector/matchLabels/app").unwrap_or(&Value::Null),
        named(object, "/spec/weighted/services", "foreign"),
        named(object, "/spec/subsets", "kept"),
        object.pointer("/spec/trafficPolicy").unwrap_or(&Value::Null),
    ]
}

/// Hash behind a place that weights lead to, where that is a subset or a VirtualNode.
pub fn behind<'a>(world: &'a World, place: &str) -> Option<&'a str> {
    if let Some(name) = place.strip_prefix(NODE) {
        return Some(node_hash(world.get(Kind::VirtualNode, name)?));
    }
    let rule = world.get(Kind::DestinationRule, OBJECT)?;
    let name = place.strip_prefix(SUBSET)?;
    Some(named(rule, "/spec/subsets", name)["labels"][keys::POD_TEMPLATE_HASH].as_str().unwrap_or_default())
}

fn node_hash(node: &Value) -> &str {
    node["spec"]["podSelector"]["matchLabels"][keys::POD_TEMPLATE_HASH].as_str().unwrap_or_default()
}

/// The subsets that a change of a DestinationRule lets select other pods, or the VirtualNode that changed, as weights name
/// them.
pub fn moved(before: &Value, after: &Value) -> Vec<String> {
    if node_hash(before) != node_hash(after) {
        return vec![format!("{NODE}{}", text(after, "/metadata/name"))];
    }
    let hash = |rule: &Value, name: &str| named(rule, "/spec/subsets", name)["labels"][keys::POD_TEMPLATE_HASH].clone();
    let moved = all_of(after, "/spec/subsets").map(|s| text(s, "/name"));
    moved.filter(|name| hash(before, name) != hash(after, name)).map(|name| format!("{SUBSET}{name}")).collect()
}

/// The user's object of a router, which it may write.
pub fn is_ours(name: &str) -> bool {
    name == OBJECT || name == "mesh-canary" || NODES.contains(&name)
}
