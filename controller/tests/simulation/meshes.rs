//! The routers that tell nothing of the data plane: what users write for them, and which weights stand in their objects.

use crate::cluster::{Actor, Kind, ROLLOUT, World, text};
use serde_json::{Value, json};

/// A router whose objects have weights, and that is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mesh {
    Istio,
    Alb,
    Smi,
    Traefik,
    Apisix,
    Ambassador,
}

/// All of them, with their fields in `trafficRouting`.
pub const MESHES: [(Mesh, &str); 6] = [
    (Mesh::Istio, "istio"),
    (Mesh::Alb, "alb"),
    (Mesh::Smi, "smi"),
    (Mesh::Traefik, "traefik"),
    (Mesh::Apisix, "apisix"),
    (Mesh::Ambassador, "ambassador"),
];

/// Name of the object that the user writes.
const OBJECT: &str = "mesh";
const ACTION: &str = "alb.ingress.kubernetes.io/actions.web-stable";

impl Mesh {
    /// The router that a Rollout's `trafficRouting` names.
    pub fn of(routing: &Value) -> Option<Self> {
        MESHES.iter().find(|(_, field)| routing.get(field).is_some()).map(|(mesh, _)| *mesh)
    }

    pub fn knows_headers(self) -> bool {
        matches!(self, Self::Istio | Self::Alb | Self::Apisix)
    }

    pub fn weighs_experiments(self) -> bool {
        matches!(self, Self::Istio | Self::Alb | Self::Smi)
    }

    /// `trafficRouting` of a Rollout.
    pub fn routing(self) -> Value {
        let mut routing = match self {
            Self::Istio => json!({"istio": {"virtualService": {"name": OBJECT, "routes": ["primary"]}}}),
            Self::Alb => json!({"alb": {"ingress": OBJECT, "servicePort": 80}}),
            Self::Smi => json!({"smi": {}}),
            Self::Traefik => json!({"traefik": {"weightedTraefikServiceName": OBJECT}}),
            Self::Apisix => json!({"apisix": {"route": {"name": OBJECT, "rules": ["primary"]}}}),
            Self::Ambassador => json!({"ambassador": {"mappings": [OBJECT]}}),
        };
        if self.knows_headers() {
            routing["managedRoutes"] = json!([{"name": "header-one"}, {"name": "header-two"}]);
        }
        routing
    }

    /// The object that the weights stand in, and its name.
    fn place(self) -> (Kind, &'static str) {
        match self {
            Self::Istio => (Kind::VirtualService, OBJECT),
            Self::Alb => (Kind::Ingress, OBJECT),
            Self::Smi => (Kind::TrafficSplit, ROLLOUT),
            Self::Traefik => (Kind::TraefikService, OBJECT),
            Self::Apisix => (Kind::ApisixRoute, OBJECT),
            Self::Ambassador => (Kind::Mapping, "mesh-canary"),
        }
    }

    /// What the user writes, with everything on the stable version.
    pub fn furnish(self, world: &mut World) {
        let spec = match self {
            Self::Smi => return,
            Self::Istio => {
                let to = |host: &str, weight: i64| json!({"destination": {"host": host}, "weight": weight});
                json!({"hosts": ["web"], "http": [
                    {"name": "primary", "route": [to("web-stable", 100), to("web-canary", 0)]},
                    {"name": "foreign", "route": [to("other", 3), to("third", 97)]},
                ]})
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
        };
        let kind = if self == Self::Ambassador { Kind::Mapping } else { self.place().0 };
        let metadata = json!({"name": OBJECT, "labels": {"user": "l"}, "annotations": {"user": "a"}});
        let _ = world.create(Actor::User, kind, &json!({"metadata": metadata, "spec": spec}));
    }
}

fn all<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn named<'a>(object: &'a Value, pointer: &str, name: &str) -> &'a Value {
    all(object, pointer).find(|entry| text(entry, "/name") == name).unwrap_or(&Value::Null)
}

fn number(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

/// Weights by Service in an object that a router writes; `None` for one in which it has no weights.
pub fn weights(kind: Kind, name: &str, object: &Value) -> Option<Vec<(String, i64)>> {
    let (mesh, _) = MESHES.into_iter().find(|(mesh, _)| mesh.place() == (kind, name))?;
    let pairs = |entries: Vec<&Value>, service: &str, weight: &str| -> Vec<(String, i64)> {
        entries
            .into_iter()
            .map(|e| (text(e, service).to_owned(), number(e.pointer(weight).unwrap_or(&Value::Null))))
            .collect()
    };
    Some(match mesh {
        Mesh::Istio => {
            pairs(all(named(object, "/spec/http", "primary"), "/route").collect(), "/destination/host", "/weight")
        }
        Mesh::Alb => {
            let action = object["metadata"]["annotations"][ACTION].as_str();
            let action: Value = action.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            pairs(all(&action, "/ForwardConfig/TargetGroups").collect(), "/ServiceName", "/Weight")
        }
        Mesh::Smi => pairs(all(object, "/spec/backends").collect(), "/service", "/weight"),
        Mesh::Traefik => {
            let ours = all(object, "/spec/weighted/services").filter(|s| text(s, "/name") != "foreign");
            pairs(ours.collect(), "/name", "/weight")
        }
        Mesh::Apisix => {
            pairs(all(named(object, "/spec/http", "primary"), "/backends").collect(), "/serviceName", "/weight")
        }
        Mesh::Ambassador => {
            let weight = number(&object["spec"]["weight"]);
            vec![("web-canary".to_owned(), weight), ("web-stable".to_owned(), 100 - weight)]
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
pub fn foreign(object: &Value) -> [&Value; 2] {
    [named(object, "/spec/http", "foreign"), named(object, "/spec/weighted/services", "foreign")]
}

/// The user's object of a router, which it may write.
pub fn is_ours(name: &str) -> bool {
    name == OBJECT || name == "mesh-canary"
}
