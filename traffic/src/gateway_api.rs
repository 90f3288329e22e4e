//! Gateway API: `backendRefs[].weight` of HTTPRoute, GRPCRoute, TCPRoute and TLSRoute.
//!
//! Configured as the peer's plugin `argoproj-labs/gatewayAPI`. Ours are, in each route: the weights of rules that hold
//! both Services, the rules that are named after a managed route, the backendRefs of experiments, one label and one
//! annotation. What header and mirror rules there are is read from the route itself, by rule name, so that nothing has to
//! be remembered elsewhere and a rule that got lost comes back.

mod config;
mod rules;
mod status;
#[cfg(test)]
mod tests;

use crate::object::{entry, list, metadata, selects, set_metadata, text};
use crate::plan::Observation;
use crate::{Capabilities, Input, ObjectRef, Objects, Plan, Read, Router, RouterError, Scope, Write};
use config::{Config, RouteKind};
use serde_json::{Value, json};
use tidegate_crds::rollout::SetMirrorRoute;

/// Annotation of a route: which backendRefs are experiments, as JSON from `namespace/rollout` to names of Services.
const EXPERIMENT_SERVICES: &str = "rollouts.argoproj.io/gatewayapi-experiment-services";
const GROUP: &str = "gateway.networking.k8s.io";

/// Edits Gateway API routes.
#[derive(Debug)]
pub(crate) struct GatewayApi {
    /// Name of the Rollout.
    rollout: String,
    /// Namespace of the Rollout and of its Services.
    namespace: String,
    config: Config,
    /// `apiVersion` by kind, in the order of [`config::KINDS`].
    api_versions: [String; 4],
    /// Names in `managedRoutes`, first has precedence.
    managed: Vec<String>,
    /// Mirror routes that any step asks for. Earlier controllers left mirror rules without a name; this is how such a
    /// rule is recognised after they are replaced in the middle of an update.
    step_mirrors: Vec<SetMirrorRoute>,
}

/// One route that this Rollout moves traffic in.
struct Route {
    target: ObjectRef,
    kind: &'static RouteKind,
    use_headers: bool,
    rule_name: Option<String>,
}

impl GatewayApi {
    /// Reads the plugin's configuration.
    ///
    /// # Errors
    /// When a field has the wrong type, or no route is named.
    pub(crate) fn new(scope: &Scope<'_>, config: &Value) -> Result<Self, RouterError> {
        let version = |version: &str| format!("{GROUP}/{version}");
        let options = scope.options;
        let steps = scope.canary.steps.iter().flatten();
        Ok(Self {
            rollout: scope.rollout.to_owned(),
            namespace: scope.namespace.to_owned(),
            config: Config::read(config)?,
            api_versions: [
                version(&options.gateway_route_version),
                version(&options.gateway_route_version),
                version(&options.gateway_tcp_route_version),
                version(&options.gateway_tls_route_version),
            ],
            managed: scope.managed_routes(),
            step_mirrors: steps.filter_map(|s| s.set_mirror_route.clone()).filter(|m| !m.match_.is_empty()).collect(),
        })
    }

    fn routes_namespace(&self) -> &str {
        self.config.namespace.as_deref().unwrap_or(&self.namespace)
    }

    fn api_version(&self, kind: &RouteKind) -> &str {
        let index = config::KINDS.iter().position(|k| k.kind == kind.kind).unwrap_or(0);
        &self.api_versions[index]
    }

    fn target(&self, kind: &RouteKind, name: &str) -> ObjectRef {
        ObjectRef::new(self.api_version(kind), kind.kind, kind.plural, self.routes_namespace(), name)
    }

    /// The routes that are named, then those that a selector finds.
    fn routes(&self, objects: &Objects) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        for named in &self.config.named {
            routes.push(Route {
                target: self.target(named.kind, &named.name),
                kind: named.kind,
                use_headers: named.use_headers,
                rule_name: named.rule_name.clone(),
            });
        }
        for (kind, selector) in &self.config.selected {
            for (target, object) in &objects.0 {
                let fits = target.kind == kind.kind
                    && target.api_version == self.api_version(kind)
                    && target.namespace == self.routes_namespace()
                    && selects(selector, object);
                if fits && !routes.iter().any(|r| r.target == *target) {
                    routes.push(Route { target: target.clone(), kind, use_headers: true, rule_name: None });
                }
            }
        }
        routes
    }

    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.rollout)
    }

    /// Names of Services that this Rollout's experiments have put into the route.
    fn recorded_experiments(&self, route: &Value) -> Vec<String> {
        let all: Value = metadata(route, "annotations", EXPERIMENT_SERVICES)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or(Value::Null);
        let ours = all.get(self.key()).and_then(Value::as_array);
        ours.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    }

    fn record_experiments(&self, route: &mut Value, services: &[&str]) {
        let mut all: Value = metadata(route, "annotations", EXPERIMENT_SERVICES)
            .and_then(|text| serde_json::from_str(text).ok())
            .filter(Value::is_object)
            .unwrap_or_else(|| json!({}));
        let Some(map) = all.as_object_mut() else { return };
        if services.is_empty() {
            map.remove(&self.key());
        } else {
            map.insert(self.key(), json!(services));
        }
        let text = (!map.is_empty()).then(|| all.to_string());
        set_metadata(route, "annotations", EXPERIMENT_SERVICES, text.as_deref());
    }

    /// Marks the route while any Rollout is at work in it, so that GitOps tools leave it alone.
    fn mark(&self, route: &mut Value, active: bool) {
        let Some((label, value)) = &self.config.in_progress_label else { return };
        let annotation = &self.config.active_rollouts_annotation;
        let key = self.key();
        let listed = metadata(route, "annotations", annotation).unwrap_or_default();
        let mut rollouts: Vec<String> =
            listed.split(',').map(str::trim).filter(|r| !r.is_empty()).map(str::to_owned).collect();
        if !active {
            rollouts.retain(|r| *r != key);
        } else if !rollouts.contains(&key) {
            rollouts.push(key);
        }
        let list = (!rollouts.is_empty()).then(|| rollouts.join(","));
        if list.as_deref() != Some(listed) {
            set_metadata(route, "annotations", annotation, list.as_deref());
        }
        set_metadata(route, "labels", label, list.is_some().then_some(value.as_str()));
    }
}

impl Router for GatewayApi {
    fn name(&self) -> &'static str {
        "GatewayAPI"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { headers: true, mirrors: true, experiments: true, ping_pong: true }
    }

    fn reads(&self, _found: &Objects) -> Vec<Read> {
        let named = self.config.named.iter().map(|named| Read::Object(self.target(named.kind, &named.name)));
        let selected = self.config.selected.iter().map(|(kind, selector)| Read::Select {
            api_version: self.api_version(kind).to_owned(),
            kind: kind.kind.to_owned(),
            plural: kind.plural.to_owned(),
            namespace: Some(self.routes_namespace().to_owned()),
            selector: selector.clone(),
        });
        named.chain(selected).collect()
    }

    fn plan(&self, input: &Input<'_>) -> Result<Plan, RouterError> {
        let mut plan = Plan::default();
        let routes = self.routes(input.objects);
        if routes.is_empty() {
            return Err(RouterError::config(
                format!("{}.*RouteSelector", config::PATH),
                format!("no route in namespace {}", self.routes_namespace()),
                "at least one route with the selected labels",
            ));
        }
        let services: Vec<&str> = input.additional.iter().map(|d| d.service.as_str()).collect();
        let active = input.in_progress
            || input.canary_weight > 0
            || !services.is_empty()
            || !input.header_routes.is_empty()
            || !input.mirror_routes.is_empty();
        for route in &routes {
            let before = input.objects.get(&route.target).ok_or_else(|| {
                RouterError::not_found(&route.target, format!("Rollout {} moves its traffic", self.key()))
            })?;
            let mut after = before.clone();
            let edit = rules::Edit {
                input,
                target: &route.target,
                kind: route.kind,
                route_namespace: self.routes_namespace(),
                service_namespace: &self.namespace,
                rule_name: route.rule_name.as_deref(),
                managed: &self.managed,
                use_headers: route.use_headers,
                step_mirrors: &self.step_mirrors,
                former_experiments: &self.recorded_experiments(before),
            };
            let rules = edit.rules(list(before, "/spec/rules"))?;
            entry(&mut after, "spec").insert("rules".to_owned(), Value::Array(rules));
            self.record_experiments(&mut after, &services);
            self.mark(&mut after, active);
            let changed = before.get("spec") != after.get("spec");
            plan.writes.extend(Write::patch(&route.target, before, &after));
            plan.observe(match status::observe(&route.target, before) {
                Observation::Unknown => Observation::Unknown,
                _ if changed => Observation::Pending(format!("{} is being changed", route.target)),
                seen => seen,
            });
        }
        Ok(plan)
    }
}

/// Whether `backend` is the Service `name` in `service_namespace`, seen from a route in `route_namespace`.
fn is_service(backend: &Value, name: &str, service_namespace: &str, route_namespace: &str) -> bool {
    text(backend, "/name") == Some(name)
        && text(backend, "/kind").unwrap_or("Service") == "Service"
        && text(backend, "/group").unwrap_or_default().is_empty()
        && text(backend, "/namespace").unwrap_or(route_namespace) == service_namespace
}
