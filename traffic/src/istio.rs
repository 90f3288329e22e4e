//! Istio: weights in VirtualServices, hashes in a DestinationRule.
//!
//! Ours are, in a VirtualService: the destinations and weights of the routes that the Rollout names, and the `http`
//! entries that are named after a managed route. In a DestinationRule: the subsets.

mod select;
#[cfg(test)]
mod tests;

use crate::object::{entry, list, map, set_metadata, text};
use crate::{Capabilities, Input, ObjectRef, Objects, Plan, Read, Router, RouterError, Scope};
use serde_json::{Value, json};
use tidegate_crds::keys;
use tidegate_crds::rollout::{
    IstioDestinationRule, IstioTrafficRouting, IstioVirtualService, RouteMatch, SetHeaderRoute, SetMirrorRoute,
    StringMatch,
};

/// The Rollout that a DestinationRule says it is managed by.
pub fn rule_is_managed_by(rule: &Value) -> Option<&str> {
    rule.pointer("/metadata/annotations")?.get(keys::MANAGED_BY)?.as_str()
}

/// The merge patch that gives a DestinationRule back to its user: its subsets select no hash any more. `None` when there
/// is nothing of ours in it.
pub fn released_rule(rule: &Value) -> Option<Value> {
    rule_is_managed_by(rule)?;
    let mut subsets = list(rule, "/spec/subsets").to_vec();
    for subset in &mut subsets {
        if let Some(labels) = subset.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(keys::POD_TEMPLATE_HASH);
        }
    }
    Some(json!({
        "metadata": {"annotations": {keys::MANAGED_BY: null}},
        "spec": {"subsets": subsets},
    }))
}

/// Edits VirtualServices and a DestinationRule.
#[derive(Debug)]
pub(crate) struct Istio {
    rollout: String,
    namespace: String,
    api_version: String,
    services: Vec<IstioVirtualService>,
    rule: Option<IstioDestinationRule>,
    /// Names in `managedRoutes`, first has precedence.
    managed: Vec<String>,
}

impl Istio {
    pub(crate) fn new(scope: &Scope<'_>, config: &IstioTrafficRouting) -> Self {
        let mut services = config.virtual_services.clone();
        services.extend(config.virtual_service.clone());
        Self {
            rollout: scope.rollout.to_owned(),
            namespace: scope.namespace.to_owned(),
            api_version: format!("networking.istio.io/{}", scope.options.istio_api_version),
            services,
            rule: config.destination_rule.clone().filter(|rule| !rule.name.is_empty()),
            managed: scope.managed_routes(),
        }
    }

    fn virtual_service(&self, service: &IstioVirtualService) -> ObjectRef {
        let (name, namespace) = service.name.split_once('.').unwrap_or((&service.name, &self.namespace));
        ObjectRef::new(&self.api_version, "VirtualService", "virtualservices", namespace, name)
    }

    fn destination_rule(&self, rule: &IstioDestinationRule) -> ObjectRef {
        ObjectRef::new(&self.api_version, "DestinationRule", "destinationrules", &self.namespace, &rule.name)
    }

    fn find<'o>(&self, objects: &'o Objects, target: &ObjectRef) -> Result<&'o Value, RouterError> {
        objects.get(target).ok_or_else(|| {
            RouterError::not_found(target, format!("Rollout {}/{} moves its traffic", self.namespace, self.rollout))
        })
    }

    fn subsets(&self, rule: &IstioDestinationRule, before: &Value, input: &Input<'_>) -> Vec<Value> {
        let mut subsets: Vec<Value> = Vec::new();
        let labelled = |subset: &mut Value, hash: &str| {
            let labels = entry(subset, "labels");
            if hash.is_empty() {
                labels.remove(keys::POD_TEMPLATE_HASH);
            } else {
                labels.insert(keys::POD_TEMPLATE_HASH.to_owned(), hash.into());
            }
        };
        let name = |subset: &Value| text(subset, "/name").unwrap_or_default().to_owned();
        for subset in list(before, "/spec/subsets") {
            let mut subset = subset.clone();
            let named = name(&subset);
            if named == rule.canary_subset_name {
                labelled(&mut subset, input.canary_hash);
            } else if named == rule.stable_subset_name {
                labelled(&mut subset, input.stable_hash);
            } else if let Some(destination) = input.additional.iter().find(|d| d.service == named) {
                labelled(&mut subset, &destination.hash);
            } else if !rule.additional_subset_names.contains(&named) {
                continue;
            }
            subsets.push(subset);
        }
        for destination in input.additional {
            if !subsets.iter().any(|subset| name(subset) == destination.service) {
                let mut subset = json!({ "name": destination.service });
                labelled(&mut subset, &destination.hash);
                subsets.push(subset);
            }
        }
        subsets
    }

    fn plan_destination_rule(
        &self,
        rule: &IstioDestinationRule,
        input: &Input<'_>,
        plan: &mut Plan,
    ) -> Result<String, RouterError> {
        let target = self.destination_rule(rule);
        let before = self.find(input.objects, &target)?;
        let mut after = before.clone();
        let subsets = self.subsets(rule, before, input);
        for subset in [&rule.canary_subset_name, &rule.stable_subset_name] {
            if !subsets.iter().any(|found| text(found, "/name") == Some(subset.as_str())) {
                let expected = "the subset that the Rollout names";
                return Err(RouterError::unfit(&target, "spec.subsets", format!("no subset {subset}"), expected));
            }
        }
        entry(&mut after, "spec").insert("subsets".to_owned(), Value::Array(subsets));
        set_metadata(&mut after, "annotations", keys::MANAGED_BY, Some(&self.rollout));
        plan.update(&target, before, &after, "UpdatedDestinationRule", || {
            format!(
                "DestinationRule {} subset updated ({}: {}, {}: {})",
                rule.name, rule.canary_subset_name, input.canary_hash, rule.stable_subset_name, input.stable_hash
            )
        });
        Ok(text(before, "/spec/host").unwrap_or_default().to_owned())
    }

    fn is_managed(&self, route: &Value, input: &Input<'_>) -> bool {
        let Some(name) = text(route, "/name") else { return false };
        self.managed.iter().any(|managed| managed == name)
            || input.header_routes.iter().any(|route| route.name == name)
            || input.mirror_routes.iter().any(|route| route.name == name)
    }

    /// Sets the weights of one route's destinations. A destination that is neither of ours nor kept by name goes,
    /// because Istio wants the weights to add up.
    fn weigh(&self, target: &ObjectRef, field: &str, route: &mut Value, input: &Input<'_>) -> Result<(), RouterError> {
        let destinations = list(route, "/route");
        let role = |destination: &Value| self.role(destination, input);
        for (wanted, what) in [(Role::Canary, "canary"), (Role::Stable, "stable version")] {
            if !destinations.iter().any(|destination| role(destination) == wanted) {
                let (service, subset) = match (wanted, &self.rule) {
                    (Role::Canary, rule) => (input.canary_service, rule.as_ref().map(|r| &r.canary_subset_name)),
                    (_, rule) => (input.stable_service, rule.as_ref().map(|r| &r.stable_subset_name)),
                };
                let place = match subset {
                    Some(subset) => format!("host {service:?} or subset {subset:?}"),
                    None => format!("host {service:?}"),
                };
                let expected = format!("one for the {what}, with {place}");
                return Err(RouterError::unfit(target, field, "no such destination", expected));
            }
        }
        let mut weighed: Vec<Value> = Vec::new();
        let mut seen: Vec<Role> = Vec::new();
        for destination in destinations {
            let role = role(destination);
            let weight = match role {
                Role::Canary => input.canary_weight,
                Role::Stable => input.stable_weight(),
                Role::Experiment(index) => input.additional[index].weight,
                Role::Kept => {
                    weighed.push(destination.clone());
                    continue;
                }
                Role::Foreign => continue,
            };
            // A second destination of the same role would make the sum exceed the whole.
            if seen.contains(&role) {
                continue;
            }
            seen.push(role);
            let mut destination = destination.clone();
            set_weight(&mut destination, weight);
            weighed.push(destination);
        }
        for (index, destination) in input.additional.iter().enumerate() {
            if !seen.contains(&Role::Experiment(index)) {
                weighed.push(json!({ "destination": { "host": destination.service }, "weight": destination.weight }));
            }
        }
        map(route).insert("route".to_owned(), Value::Array(weighed));
        Ok(())
    }

    /// A subset selects its pods before traffic goes there. Only when the canary subset is to select other pods, which
    /// may not be ready, the traffic that the canary loses leaves first.
    fn leaves_first(&self, input: &Input<'_>) -> bool {
        let Some(rule) = &self.rule else { return false };
        let Some(before) = input.objects.get(&self.destination_rule(rule)) else { return false };
        let subset = |s: &&Value| text(s, "/name") == Some(rule.canary_subset_name.as_str());
        let selected = list(before, "/spec/subsets").iter().find(subset);
        let selected = selected.and_then(|s| text(s, &format!("/labels/{}", keys::POD_TEMPLATE_HASH)));
        let loses = |service| {
            let Some(found) = input.objects.get(&self.virtual_service(service)) else { return false };
            let routes = ["/spec/http", "/spec/tls", "/spec/tcp"].into_iter().flat_map(|field| list(found, field));
            let more = |d: &Value| d.get("weight").and_then(Value::as_i64) > Some(input.canary_weight.into());
            let mut ours =
                routes.filter(|route| !self.is_managed(route, input)).flat_map(|route| list(route, "/route"));
            ours.any(|destination| self.role(destination, input) == Role::Canary && more(destination))
        };
        selected.is_some_and(|hash| hash != input.canary_hash) && self.services.iter().any(loses)
    }

    fn role(&self, destination: &Value, input: &Input<'_>) -> Role {
        let host = text(destination, "/destination/host").unwrap_or_default();
        let host = host.split('.').next().unwrap_or_default();
        let subset = text(destination, "/destination/subset").filter(|subset| !subset.is_empty());
        if let Some(rule) = &self.rule {
            if subset == Some(rule.canary_subset_name.as_str()) {
                return Role::Canary;
            }
            if subset == Some(rule.stable_subset_name.as_str()) {
                return Role::Stable;
            }
            if subset.is_some_and(|subset| rule.additional_subset_names.iter().any(|kept| kept == subset)) {
                return Role::Kept;
            }
        }
        if host.is_empty() {
            Role::Foreign
        } else if host == input.canary_service {
            Role::Canary
        } else if host == input.stable_service {
            Role::Stable
        } else {
            let experiment = input.additional.iter().position(|d| d.service == host);
            experiment.map_or(Role::Foreign, Role::Experiment)
        }
    }

    /// Where the canary is reached: host, subset and port, as the first weighed route has them.
    fn canary_destination(&self, host: &str, first: Option<&Value>, input: &Input<'_>) -> Value {
        let mut destination = match &self.rule {
            Some(rule) => json!({ "host": host, "subset": rule.canary_subset_name }),
            None => json!({ "host": input.canary_service }),
        };
        let port = first.and_then(|route| list(route, "/route").first()).and_then(|d| d.pointer("/destination/port"));
        if let Some(port) = port {
            map(&mut destination).insert("port".to_owned(), port.clone());
        }
        destination
    }

    /// The `http` list as it should be: managed routes first, in the order of `managedRoutes`.
    fn http(
        &self,
        target: &ObjectRef,
        service: &IstioVirtualService,
        before: &Value,
        host: &str,
        input: &Input<'_>,
    ) -> Result<Vec<Value>, RouterError> {
        let (ours, mut kept): (Vec<Value>, Vec<Value>) =
            list(before, "/spec/http").iter().cloned().partition(|route| self.is_managed(route, input));
        let selected = select::http(target, service, &kept)?;
        for index in &selected {
            self.weigh(target, &format!("spec.http[{index}].route"), &mut kept[*index], input)?;
        }
        let Some(first) = selected.first().map(|index| kept[*index].clone()) else {
            // Only TLS or TCP is routed here; neither knows headers or mirrors.
            return Ok(list(before, "/spec/http").to_vec());
        };
        let canary = self.canary_destination(host, Some(&first), input);
        let mut wanted: Vec<Value> = input.header_routes.iter().map(|route| header_route(route, &canary)).collect();
        wanted.extend(input.mirror_routes.iter().map(|route| mirror_route(route, &canary, &first)));
        let precedence = |route: &Value| {
            let name = text(route, "/name").unwrap_or_default();
            self.managed.iter().position(|managed| managed == name).unwrap_or(usize::MAX)
        };
        wanted.sort_by_key(precedence);
        let settled = wanted.into_iter().map(|wanted| {
            let found = ours.iter().find(|route| text(route, "/name") == text(&wanted, "/name"));
            found.filter(|found| same(found, &wanted)).cloned().unwrap_or(wanted)
        });
        Ok(settled.chain(kept.clone()).collect())
    }
}

/// What a destination is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Canary,
    Stable,
    /// By its place in [`Input::additional`].
    Experiment(usize),
    /// A subset that the user asked to keep.
    Kept,
    Foreign,
}

impl Router for Istio {
    fn name(&self) -> &'static str {
        "Istio"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { headers: true, mirrors: true, experiments: true, ping_pong: true }
    }

    fn reads(&self, _found: &Objects) -> Vec<Read> {
        let rule = self.rule.iter().map(|rule| Read::Object(self.destination_rule(rule)));
        rule.chain(self.services.iter().map(|service| Read::Object(self.virtual_service(service)))).collect()
    }

    fn plan(&self, input: &Input<'_>) -> Result<Plan, RouterError> {
        let mut selection = Plan::default();
        let host = match &self.rule {
            Some(rule) => self.plan_destination_rule(rule, input, &mut selection)?,
            None => String::new(),
        };
        let mut plan = Plan::default();
        for service in &self.services {
            let target = self.virtual_service(service);
            let before = self.find(input.objects, &target)?;
            let mut after = before.clone();
            if before.pointer("/spec/http").is_some() {
                let http = self.http(&target, service, before, &host, input)?;
                entry(&mut after, "spec").insert("http".to_owned(), Value::Array(http));
            }
            for protocol in [select::Protocol::Tls, select::Protocol::Tcp] {
                let field = protocol.field();
                let mut routes = list(before, &format!("/spec/{field}")).to_vec();
                if routes.is_empty() {
                    continue;
                }
                for index in select::stream(&target, service, protocol, &routes)? {
                    self.weigh(&target, &format!("spec.{field}[{index}].route"), &mut routes[index], input)?;
                }
                entry(&mut after, "spec").insert(field.to_owned(), Value::Array(routes));
            }
            if ["http", "tls", "tcp"].iter().all(|field| list(before, &format!("/spec/{field}")).is_empty()) {
                return Err(RouterError::unfit(&target, "spec", "no routes", "http, tls or tcp routes"));
            }
            plan.update(&target, before, &after, "Updated VirtualService", || {
                format!("VirtualService `{}` set to desiredWeight '{}'", target.name, input.canary_weight)
            });
        }
        Ok(if self.leaves_first(input) { plan.then(selection) } else { selection.then(plan) })
    }
}

/// Numbers may come back as integers or with a fraction of zero; neither is a reason to write.
fn set_weight(destination: &mut Value, weight: i32) {
    if destination.get("weight").and_then(Value::as_f64) != Some(f64::from(weight)) {
        map(destination).insert("weight".to_owned(), weight.into());
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn string_match(value: &StringMatch) -> Value {
    let mut result = json!({});
    for (kind, text) in [("exact", &value.exact), ("regex", &value.regex), ("prefix", &value.prefix)] {
        if let Some(text) = text {
            map(&mut result).insert(kind.to_owned(), text.as_str().into());
        }
    }
    result
}

/// Requests that match any of the headers go to the canary.
fn header_route(route: &SetHeaderRoute, canary: &Value) -> Value {
    let matches: Vec<Value> = route
        .match_
        .iter()
        .map(|header| json!({ "headers": { &header.header_name: string_match(&header.header_value) } }))
        .collect();
    json!({ "name": route.name, "match": matches, "route": [{ "destination": canary, "weight": 100 }] })
}

fn mirror_route(route: &SetMirrorRoute, canary: &Value, first: &Value) -> Value {
    let matches: Vec<Value> = route.match_.iter().map(mirror_match).collect();
    json!({
        "name": route.name,
        "match": matches,
        "route": first.get("route"),
        "mirror": canary,
        "mirrorPercentage": { "value": route.percentage.unwrap_or(100) },
    })
}

fn mirror_match(wanted: &RouteMatch) -> Value {
    let mut result = json!({});
    let fields = map(&mut result);
    if let Some(method) = &wanted.method {
        fields.insert("method".to_owned(), string_match(method));
    }
    if let Some(path) = &wanted.path {
        fields.insert("uri".to_owned(), string_match(path));
    }
    if !wanted.headers.is_empty() {
        let headers = wanted.headers.iter().map(|(name, value)| (name.clone(), string_match(value)));
        fields.insert("headers".to_owned(), Value::Object(headers.collect()));
    }
    result
}
