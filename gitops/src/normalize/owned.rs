//! Fields that a Rollout or an autoscaler in the same application owns by design.
//!
//! Git says where a route's weights begin; from then on the Rollout says what they are. Comparing or applying them would
//! make the sync fight the rollout, so they count as nobody's difference and keep their live values when applied.

use crate::object::{self, Key};
use serde_json::Value;

/// Fields of one object, as jq path expressions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The object.
    pub key: Key,
    /// Its fields.
    pub expressions: Vec<String>,
}

/// What the Rollouts and HorizontalPodAutoscalers among `targets` own in other objects, and in themselves.
pub fn owned<'a>(targets: impl IntoIterator<Item = &'a Value>) -> Vec<Owned> {
    let mut out = Vec::new();
    for target in targets {
        match (object::group(target), object::kind(target)) {
            ("argoproj.io", "Rollout") => rollout(target, &mut out),
            ("autoscaling", "HorizontalPodAutoscaler") => autoscaler(target, &mut out),
            _ => {}
        }
    }
    out
}

/// A jq string literal.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn autoscaler(hpa: &Value, out: &mut Vec<Owned>) {
    let reference = |field| object::text(hpa, &format!("/spec/scaleTargetRef/{field}"));
    let group = reference("apiVersion").split_once('/').map_or("", |(group, _)| group);
    out.push(Owned {
        key: Key::new(group, reference("kind"), object::namespace(hpa), reference("name")),
        expressions: vec![".spec.replicas".into()],
    });
}

fn rollout(rollout: &Value, out: &mut Vec<Owned>) {
    let namespace = object::namespace(rollout);
    let canary = rollout.pointer("/spec/strategy/canary");
    workload(rollout, namespace, out);
    let Some(canary) = canary else { return };
    let Some(routing) = canary.get("trafficRouting").filter(|r| r.is_object()) else { return };
    let services: Vec<&str> = ["/stableService", "/canaryService", "/pingPong/pingService", "/pingPong/pongService"]
        .iter()
        .map(|pointer| object::text(canary, pointer))
        .filter(|service| !service.is_empty())
        .collect();
    let is_service = |field: &str| {
        let tests: Vec<String> = services.iter().map(|s| format!(".{field} == {}", quoted(s))).collect();
        if tests.is_empty() { "false".to_owned() } else { tests.join(" or ") }
    };
    let managed: Vec<&str> = object::list(routing, "/managedRoutes").iter().map(|r| object::text(r, "/name")).collect();
    let is_managed = |field: &str| {
        // A header route that is cloned for several rules is named `<route>`, `<route>-1`, …
        let pattern = |m: &str| quoted(&format!("^{}(-[0-9]+)?$", regex::escape(m)));
        let tests: Vec<String> =
            managed.iter().map(|m| format!("(.{field} | tostring | test({}))", pattern(m))).collect();
        if tests.is_empty() { "false".to_owned() } else { tests.join(" or ") }
    };
    gateway(routing, namespace, &is_service("name"), &is_managed("name"), out);
    for service in istio_services(routing) {
        out.push(Owned {
            key: Key::new("networking.istio.io", "VirtualService", namespace, service),
            expressions: vec![
                ".spec.http[]?.route[]?.weight".into(),
                ".spec.tls[]?.route[]?.weight".into(),
                ".spec.tcp[]?.route[]?.weight".into(),
                format!(".spec.http[]? | select({})", is_managed("name")),
            ],
        });
    }
    let rule = object::text(routing, "/istio/destinationRule/name");
    if !rule.is_empty() {
        out.push(Owned {
            key: Key::new("networking.istio.io", "DestinationRule", namespace, rule),
            expressions: vec![".spec.subsets[]?.labels.\"rollouts-pod-template-hash\"".into()],
        });
    }
    let alb: Vec<&str> = std::iter::once(object::text(routing, "/alb/ingress"))
        .chain(object::list(routing, "/alb/ingresses").iter().filter_map(Value::as_str))
        .filter(|ingress| !ingress.is_empty())
        .collect();
    let prefix = match object::text(routing, "/alb/annotationPrefix") {
        "" => "alb.ingress.kubernetes.io",
        prefix => prefix,
    };
    for ingress in alb {
        let root = match object::text(routing, "/alb/rootService") {
            "" => object::text(canary, "/stableService"),
            root => root,
        };
        let actions = std::iter::once(root).chain(managed.iter().copied());
        let mut expressions: Vec<String> =
            actions.map(|a| format!(".metadata.annotations[{}]", quoted(&format!("{prefix}/actions.{a}")))).collect();
        expressions.extend(
            managed.iter().map(|m| format!(".metadata.annotations[{}]", quoted(&format!("{prefix}/conditions.{m}")))),
        );
        out.push(Owned { key: Key::new("networking.k8s.io", "Ingress", namespace, ingress), expressions });
    }
    let traefik = object::text(routing, "/traefik/weightedTraefikServiceName");
    if !traefik.is_empty() {
        for group in ["traefik.io", "traefik.containo.us"] {
            out.push(Owned {
                key: Key::new(group, "TraefikService", namespace, traefik),
                expressions: vec![format!(".spec.weighted.services[]? | select({}) | .weight", is_service("name"))],
            });
        }
    }
    let apisix = object::text(routing, "/apisix/route/name");
    if !apisix.is_empty() {
        out.push(Owned {
            key: Key::new("apisix.apache.org", "ApisixRoute", namespace, apisix),
            expressions: vec![format!(".spec.http[]?.backends[]? | select({}) | .weight", is_service("serviceName"))],
        });
    }
}

/// With `workloadRef.scaleDown` the Rollout scales the workload that it refers to.
fn workload(rollout: &Value, namespace: &str, out: &mut Vec<Owned>) {
    let Some(reference) = rollout.pointer("/spec/workloadRef") else { return };
    if matches!(object::text(reference, "/scaleDown"), "" | "never") {
        return;
    }
    let group = object::text(reference, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
    out.push(Owned {
        key: Key::new(group, object::text(reference, "/kind"), namespace, object::text(reference, "/name")),
        expressions: vec![".spec.replicas".into()],
    });
}

fn istio_services(routing: &Value) -> Vec<&str> {
    std::iter::once(object::text(routing, "/istio/virtualService/name"))
        .chain(object::list(routing, "/istio/virtualServices").iter().map(|v| object::text(v, "/name")))
        .filter(|name| !name.is_empty())
        .collect()
}

fn gateway(routing: &Value, namespace: &str, is_service: &str, is_managed: &str, out: &mut Vec<Owned>) {
    let Some(plugin) = routing.pointer("/plugins/argoproj-labs~1gatewayAPI") else { return };
    let namespace = match object::text(plugin, "/namespace") {
        "" => namespace,
        other => other,
    };
    for (kind, field) in
        [("HTTPRoute", "httpRoute"), ("GRPCRoute", "grpcRoute"), ("TCPRoute", "tcpRoute"), ("TLSRoute", "tlsRoute")]
    {
        let one = object::text(plugin, &format!("/{field}"));
        let several = object::list(plugin, &format!("/{field}s")).iter().map(|route| object::text(route, "/name"));
        for name in std::iter::once(one).chain(several).filter(|name| !name.is_empty()) {
            out.push(Owned {
                key: Key::new("gateway.networking.k8s.io", kind, namespace, name),
                expressions: vec![
                    format!(".spec.rules[]?.backendRefs[]? | select({is_service}) | .weight"),
                    format!(".spec.rules[]? | select({is_managed})"),
                    ".metadata.labels[\"rollouts.argoproj.io/gatewayapi-canary\"]".into(),
                    ".metadata.annotations[\"rollouts.argoproj.io/gatewayapi-active-rollouts\"]".into(),
                ],
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalize::ignore::IgnoreRules;
    use serde_json::json;

    fn rollout(canary: Value) -> Value {
        json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "web", "namespace": "ns"},
            "spec": {"strategy": {"canary": canary}}})
    }

    fn rules(targets: &[Value]) -> IgnoreRules {
        let mut rules = IgnoreRules::default();
        for owned in owned(targets) {
            rules.add_owned(&owned.key, &owned.expressions).expect("expressions compile");
        }
        rules
    }

    /// What is left of `target` and of `live` after the rules were applied.
    fn compared(rules: &IgnoreRules, target: &Value, live: &Value) -> (Value, Value) {
        let (mut target, mut live_side) = (target.clone(), live.clone());
        rules.remove(&Key::of(live), live, &mut target, &mut live_side, None);
        (target, live_side)
    }

    #[test]
    fn weights_of_a_gateway_route_belong_to_the_rollout() {
        let rollout = rollout(json!({
            "stableService": "stable", "canaryService": "canary",
            "trafficRouting": {
                "managedRoutes": [{"name": "by-header"}],
                "plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "route", "grpcRoutes": [{"name": "grpc"}]}},
            },
        }));
        let route = |stable: i64, canary: i64, managed: bool| {
            let refs = json!([{"name": "stable", "weight": stable}, {"name": "canary", "weight": canary}, {"name": "other", "weight": 7}]);
            let mut rules = vec![json!({"backendRefs": refs})];
            if managed {
                rules.insert(0, json!({"name": "by-header", "backendRefs": [{"name": "canary"}]}));
            }
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "route", "namespace": "ns"},
                "spec": {"rules": rules}})
        };
        let rules = rules(&[rollout]);
        let (target, live) = compared(&rules, &route(100, 0, false), &route(90, 10, true));
        assert_eq!(target, live);
        assert_eq!(live.pointer("/spec/rules/0/backendRefs/2/weight"), Some(&json!(7)));

        let live = route(90, 10, false);
        let mut target = route(100, 0, false);
        rules.respect(&Key::of(&live), &live, &mut target, false);
        assert_eq!(target, live);
    }

    #[test]
    fn replicas_belong_to_the_autoscaler_and_to_scaled_down_workloads() {
        let hpa = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h", "namespace": "ns"},
            "spec": {"scaleTargetRef": {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web"}}});
        let mut referring = rollout(json!({}));
        referring["spec"]["workloadRef"] =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "scaleDown": "onsuccess"});
        let owned = owned(&[hpa, referring.clone()]);
        let keys: Vec<_> =
            owned.iter().map(|o| (o.key.group.as_str(), o.key.kind.as_str(), o.key.name.as_str())).collect();
        assert_eq!(keys, [("argoproj.io", "Rollout", "web"), ("apps", "Deployment", "web")]);
        referring["spec"]["workloadRef"]["scaleDown"] = "never".into();
        assert_eq!(super::owned(&[referring]), []);
    }

    #[test]
    fn every_router_names_its_objects() {
        let rollout = rollout(json!({
            "stableService": "stable", "canaryService": "canary",
            "trafficRouting": {
                "managedRoutes": [{"name": "m"}],
                "istio": {"virtualService": {"name": "vs"}, "destinationRule": {"name": "dr"}},
                "alb": {"ingress": "alb", "rootService": "root"},
                "traefik": {"weightedTraefikServiceName": "ts"},
                "apisix": {"route": {"name": "ar"}},
            },
        }));
        let kinds: Vec<String> =
            owned(std::slice::from_ref(&rollout)).iter().map(|o| format!("{}/{}", o.key.kind, o.key.name)).collect();
        assert_eq!(
            kinds,
            [
                "VirtualService/vs",
                "DestinationRule/dr",
                "Ingress/alb",
                "TraefikService/ts",
                "TraefikService/ts",
                "ApisixRoute/ar"
            ]
        );
        let rules = rules(&[rollout]);
        let service = |weight: i64, managed: bool| {
            let mut http =
                vec![json!({"name": "primary", "route": [{"destination": {"host": "stable"}, "weight": weight}]})];
            if managed {
                http.insert(0, json!({"name": "m"}));
            }
            json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "vs", "namespace": "ns"}, "spec": {"http": http}})
        };
        let (target, live) = compared(&rules, &service(100, false), &service(80, true));
        assert_eq!(target, live);
        let ingress = |action: &str| {
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "alb", "namespace": "ns",
                "annotations": {"alb.ingress.kubernetes.io/actions.root": action}}})
        };
        let (target, live) = compared(&rules, &ingress("a"), &ingress("b"));
        assert_eq!(target, live);
    }
}
