//! AWS App Mesh: weights in the VirtualRouter that a VirtualService uses, hashes in two VirtualNodes.

use crate::object::{entry, list, map, set_metadata, text};
use crate::{Capabilities, Input, ObjectRef, Objects, Plan, Read, Router, RouterError, Scope};
use serde_json::Value;
use tidegate_crds::keys;
use tidegate_crds::rollout::AppMeshTrafficRouting;

/// The kinds of routes that have weights.
const ROUTE_KINDS: [&str; 4] = ["httpRoute", "tcpRoute", "http2Route", "grpcRoute"];
/// The mesh refuses two VirtualNodes with the same selector; without a canary its node selects this, which no pod has.
const NO_CANARY: &str = "canary-hash";
/// The same for a stable version that is not there yet.
const NO_STABLE: &str = "stable-hash";

/// Edits a VirtualRouter and two VirtualNodes.
#[derive(Debug)]
pub(crate) struct AppMesh {
    rollout: String,
    namespace: String,
    api_version: String,
    service: String,
    routes: Vec<String>,
    canary_node: String,
    stable_node: String,
}

impl AppMesh {
    pub(crate) fn new(scope: &Scope<'_>, config: &AppMeshTrafficRouting) -> Self {
        let service = config.virtual_service.clone().unwrap_or_default();
        let nodes = config.virtual_node_group.clone().unwrap_or_default();
        Self {
            rollout: scope.rollout.to_owned(),
            namespace: scope.namespace.to_owned(),
            api_version: format!("appmesh.k8s.aws/{}", scope.options.app_mesh_crd_version),
            service: service.name,
            routes: service.routes,
            canary_node: nodes.canary_virtual_node_ref.unwrap_or_default().name,
            stable_node: nodes.stable_virtual_node_ref.unwrap_or_default().name,
        }
    }

    fn target(&self, kind: &str, plural: &str, namespace: &str, name: &str) -> ObjectRef {
        ObjectRef::new(&self.api_version, kind, plural, namespace, name)
    }

    fn service(&self) -> ObjectRef {
        self.target("VirtualService", "virtualservices", &self.namespace, &self.service)
    }

    fn node(&self, name: &str) -> ObjectRef {
        self.target("VirtualNode", "virtualnodes", &self.namespace, name)
    }

    /// The VirtualRouter that the VirtualService uses.
    fn router(&self, service: &Value) -> Option<ObjectRef> {
        let reference = service.pointer("/spec/provider/virtualRouter/virtualRouterRef")?;
        let namespace = text(reference, "/namespace").unwrap_or(&self.namespace);
        Some(self.target("VirtualRouter", "virtualrouters", namespace, text(reference, "/name")?))
    }

    fn find<'o>(&self, objects: &'o Objects, target: &ObjectRef) -> Result<&'o Value, RouterError> {
        objects.get(target).ok_or_else(|| {
            RouterError::not_found(target, format!("Rollout {}/{} moves its traffic", self.namespace, self.rollout))
        })
    }

    fn select(&self, node: &str, hash: &str, input: &Input<'_>, plan: &mut Plan) -> Result<(), RouterError> {
        let target = self.node(node);
        let before = self.find(input.objects, &target)?;
        let mut after = before.clone();
        let selector = map(entry(&mut after, "spec").entry("podSelector").or_insert(Value::Null));
        map(selector.entry("matchLabels").or_insert(Value::Null))
            .insert(keys::POD_TEMPLATE_HASH.to_owned(), hash.into());
        set_metadata(&mut after, "annotations", keys::MANAGED_BY, Some(&self.rollout));
        plan.update(&target, before, &after, "UpdatedVirtualNode", || {
            format!("VirtualNode `{node}` selects pods with hash {hash}")
        });
        Ok(())
    }

    /// Whether the canary has more weight now than it is to have.
    fn loses(&self, routes: &[Value], input: &Input<'_>) -> bool {
        let targets = routes.iter().flat_map(|route| {
            let rules = ROUTE_KINDS.iter().filter_map(|kind| route.get(*kind));
            rules.flat_map(|rule| list(rule, "/action/weightedTargets"))
        });
        let mut weights = targets
            .filter(|target| text(target, "/virtualNodeRef/name") == Some(self.canary_node.as_str()))
            .filter_map(|target| target.get("weight").and_then(Value::as_i64));
        weights.any(|weight| weight > input.canary_weight.into())
    }

    /// Sets the weights of a route. False when it does not lead to both nodes.
    fn weigh(&self, route: &mut Value, router_namespace: &str, input: &Input<'_>) -> bool {
        let Some(kind) = ROUTE_KINDS.iter().find(|kind| route.get(**kind).is_some()) else { return false };
        let targets = route.get_mut(*kind).and_then(|rule| rule.pointer_mut("/action/weightedTargets"));
        let mut seen = [false; 2];
        for target in targets.and_then(Value::as_array_mut).into_iter().flatten() {
            let namespace = text(target, "/virtualNodeRef/namespace").unwrap_or(router_namespace);
            let name = text(target, "/virtualNodeRef/name").filter(|_| namespace == self.namespace);
            let weight = match name {
                Some(name) if name == self.canary_node => {
                    seen[0] = true;
                    input.canary_weight
                }
                Some(name) if name == self.stable_node => {
                    seen[1] = true;
                    input.stable_weight()
                }
                _ => continue,
            };
            map(target).insert("weight".to_owned(), weight.into());
        }
        seen == [true, true]
    }
}

impl Router for AppMesh {
    fn name(&self) -> &'static str {
        "AppMesh"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { headers: false, mirrors: false, experiments: false, ping_pong: false }
    }

    fn reads(&self, found: &Objects) -> Vec<Read> {
        let mut reads = vec![self.service(), self.node(&self.canary_node), self.node(&self.stable_node)];
        reads.extend(found.get(&self.service()).and_then(|service| self.router(service)));
        reads.into_iter().map(Read::Object).collect()
    }

    fn plan(&self, input: &Input<'_>) -> Result<Plan, RouterError> {
        let mut selection = Plan::default();
        let stable_hash = if input.stable_hash.is_empty() { NO_STABLE } else { input.stable_hash };
        let same = input.canary_hash.is_empty() || input.canary_hash == input.stable_hash;
        let canary_hash = if same { NO_CANARY } else { input.canary_hash };
        // The node that has the other's selector now has to give it up first.
        let canary_node = input.objects.get(&self.node(&self.canary_node));
        let selector = format!("/spec/podSelector/matchLabels/{}", keys::POD_TEMPLATE_HASH);
        let canary_first = canary_node.and_then(|node| text(node, &selector)) == Some(stable_hash);
        let mut nodes = [(&self.stable_node, stable_hash), (&self.canary_node, canary_hash)];
        if canary_first {
            nodes.reverse();
        }
        for (node, hash) in nodes {
            self.select(node, hash, input, &mut selection)?;
        }
        let mut plan = Plan::default();
        let service = self.find(input.objects, &self.service())?;
        let target = self.router(service).ok_or_else(|| {
            let field = "spec.provider.virtualRouter.virtualRouterRef";
            RouterError::unfit(&self.service(), field, "nothing", "the VirtualRouter that has the routes")
        })?;
        let before = self.find(input.objects, &target)?;
        let mut routes = list(before, "/spec/routes").to_vec();
        let mut any = false;
        // Only when the canary's node is to select other pods, the traffic that it loses leaves first.
        let selected = canary_node.and_then(|node| text(node, &selector));
        let leaves_first = selected.is_some_and(|hash| hash != canary_hash) && self.loses(&routes, input);
        for (index, route) in routes.iter_mut().enumerate() {
            let name = text(route, "/name").unwrap_or_default().to_owned();
            if !self.routes.is_empty() && !self.routes.contains(&name) {
                continue;
            }
            if !self.weigh(route, &target.namespace, input) {
                let found = format!("route {name} without weightedTargets for both VirtualNodes");
                let expected = format!("{} and {}", self.canary_node, self.stable_node);
                return Err(RouterError::unfit(&target, format!("spec.routes[{index}]"), found, expected));
            }
            any = true;
        }
        if !any {
            let expected = "at least one route that the Rollout moves traffic in";
            return Err(RouterError::unfit(&target, "spec.routes", "no such route", expected));
        }
        let mut after = before.clone();
        entry(&mut after, "spec").insert("routes".to_owned(), Value::Array(routes));
        plan.update(&target, before, &after, "UpdatedVirtualRouter", || {
            format!("VirtualRouter `{}` set to desiredWeight '{}'", target.name, input.canary_weight)
        });
        Ok(if leaves_first { plan.then(selection) } else { selection.then(plan) })
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::{cluster, object, refusal, router, settle, wanted};
    use crate::{Objects, Read, Router};
    use serde_json::{Value, json};
    use tidegate_crds::keys::POD_TEMPLATE_HASH;

    fn mesh() -> Vec<Value> {
        let object = |kind: &str, name: &str, spec: Value| {
            json!({ "apiVersion": "appmesh.k8s.aws/v1beta2", "kind": kind,
                    "metadata": { "name": name, "namespace": "shop" }, "spec": spec })
        };
        let target = |node: &str| json!({ "virtualNodeRef": { "name": node }, "weight": 1 });
        let action = json!({ "weightedTargets": [target("stable-node"), target("canary-node"), target("other")] });
        vec![
            object(
                "VirtualService",
                "web",
                json!({ "provider": { "virtualRouter": { "virtualRouterRef": { "name": "r" } } } }),
            ),
            object(
                "VirtualRouter",
                "r",
                json!({ "routes": [
                { "name": "primary", "httpRoute": { "action": action } },
                { "name": "other", "tcpRoute": { "action": { "weightedTargets": [target("other")] } } },
            ] }),
            ),
            object("VirtualNode", "stable-node", json!({ "podSelector": { "matchLabels": { "app": "web" } } })),
            object("VirtualNode", "canary-node", json!({})),
        ]
    }

    fn app_mesh() -> Box<dyn Router> {
        router(json!({ "appMesh": {
            "virtualService": { "name": "web", "routes": ["primary"] },
            "virtualNodeGroup": {
                "canaryVirtualNodeRef": { "name": "canary-node" },
                "stableVirtualNodeRef": { "name": "stable-node" },
            },
        } }))
    }

    #[test]
    fn selects_pods_and_sets_weights() {
        let mut objects = cluster(mesh());
        let plan = settle(&*app_mesh(), &wanted(25), &mut objects);
        assert_eq!(plan.writes.len(), 3);
        let routes = &object(&objects, "VirtualRouter", "r")["spec"]["routes"];
        let targets = routes[0]["httpRoute"]["action"]["weightedTargets"].as_array().unwrap();
        assert_eq!(targets.iter().map(|t| &t["weight"]).collect::<Vec<_>>(), [75, 25, 1]);
        assert_eq!(routes[1]["tcpRoute"]["action"]["weightedTargets"][0]["weight"], 1);
        let stable = &object(&objects, "VirtualNode", "stable-node")["spec"]["podSelector"]["matchLabels"];
        assert_eq!(stable, &json!({ "app": "web", POD_TEMPLATE_HASH: "old" }));
        let mut promoted = wanted(0);
        promoted.stable_hash = "new".into();
        let plan = settle(&*app_mesh(), &promoted, &mut objects);
        // Two nodes never select the same pods, and a node that loses its pods has lost its traffic before.
        let names: Vec<_> = plan.writes.iter().map(|write| write.target().name.as_str()).collect();
        assert_eq!(names, ["r", "canary-node", "stable-node"]);
        let canary = &object(&objects, "VirtualNode", "canary-node")["spec"]["podSelector"]["matchLabels"];
        assert_eq!(canary[POD_TEMPLATE_HASH], "canary-hash");
    }

    #[test]
    fn a_superseded_canary_loses_its_traffic_before_its_node_selects_other_pods() {
        let mut objects = cluster(mesh());
        let last = |plan: crate::Plan| plan.writes.last().map(|write| write.target().kind.clone()).unwrap();
        assert_eq!(last(settle(&*app_mesh(), &wanted(25), &mut objects)), "VirtualRouter");
        let mut next = wanted(0);
        next.canary_hash = "newer".into();
        assert_eq!(last(settle(&*app_mesh(), &next, &mut objects)), "VirtualNode");
    }

    #[test]
    fn finds_the_router_through_the_service() {
        let router = app_mesh();
        assert_eq!(router.reads(&Objects::default()).len(), 3);
        let reads = router.reads(&cluster(mesh()));
        assert!(matches!(&reads[3], Read::Object(target) if target.kind == "VirtualRouter" && target.name == "r"));
    }

    #[test]
    fn says_what_is_wrong() {
        let missing = |kind: &str| {
            let objects = cluster(mesh().into_iter().filter(|o| o["kind"] != kind));
            refusal(&*app_mesh(), &wanted(1), &objects)
        };
        assert!(missing("VirtualNode").contains("VirtualNode shop/stable-node does not exist"));
        assert!(missing("VirtualService").contains("VirtualService shop/web does not exist"));
        assert!(missing("VirtualRouter").contains("VirtualRouter shop/r does not exist"));
        let mut objects = mesh();
        objects[1]["spec"]["routes"][0]["name"] = "x".into();
        assert!(refusal(&*app_mesh(), &wanted(1), &cluster(objects)).contains("spec.routes: found no such route"));
        let mut objects = mesh();
        objects[1]["spec"]["routes"][0]["httpRoute"]["action"]["weightedTargets"].as_array_mut().unwrap().remove(0);
        let message = refusal(&*app_mesh(), &wanted(1), &cluster(objects));
        assert!(message.contains("spec.routes[0]: found route primary without weightedTargets"), "{message}");
    }
}
