//! Apache APISIX: backend weights in an ApisixRoute, and an ApisixRoute of our own for each header route.

use crate::object::{entry, list, map, owned_by, text};
use crate::plan::{covers, owner, prefix_regex};
use crate::{Capabilities, Input, ObjectRef, Objects, Plan, Read, Router, RouterError, RouterEvent, Scope, Write};
use serde_json::{Value, json};
use tidegate_crds::rollout::{ApisixTrafficRouting, SetHeaderRoute, StringMatch};

const API_VERSION: &str = "apisix.apache.org/v2";

/// Edits an ApisixRoute; creates and deletes others.
#[derive(Debug)]
pub(crate) struct Apisix {
    rollout: String,
    namespace: String,
    route: String,
    /// Names of rules; empty is every rule with both Services.
    rules: Vec<String>,
    managed: Vec<String>,
}

impl Apisix {
    pub(crate) fn new(scope: &Scope<'_>, config: &ApisixTrafficRouting) -> Self {
        let route = config.route.clone().unwrap_or_default();
        Self {
            rollout: scope.rollout.to_owned(),
            namespace: scope.namespace.to_owned(),
            route: route.name,
            rules: route.rules,
            managed: scope.managed_routes(),
        }
    }

    fn target(&self, name: &str) -> ObjectRef {
        ObjectRef::new(API_VERSION, "ApisixRoute", "apisixroutes", &self.namespace, name)
    }

    /// Indices of the rules that are ours.
    fn selected(&self, rules: &[Value], input: &Input<'_>) -> Result<Vec<usize>, RouterError> {
        let target = self.target(&self.route);
        let splits = |rule: &Value| backend(rule, input.canary_service) && backend(rule, input.stable_service);
        let services = format!("backends {} and {}", input.canary_service, input.stable_service);
        if self.rules.is_empty() {
            let found: Vec<usize> = (0..rules.len()).filter(|index| splits(&rules[*index])).collect();
            if found.is_empty() {
                let found = format!("no rule with {services}");
                return Err(RouterError::unfit(&target, "spec.http", found, "a rule with both"));
            }
            return Ok(found);
        }
        let mut found = Vec::new();
        for name in &self.rules {
            let index = rules.iter().position(|rule| text(rule, "/name") == Some(name.as_str())).ok_or_else(|| {
                let expected = "the rule that the Rollout names in rules";
                RouterError::unfit(&target, "spec.http[].name", format!("no rule {name}"), expected)
            })?;
            if !splits(&rules[index]) {
                let field = format!("spec.http[{index}].backends[].serviceName");
                let found = format!("rule {name} without {services}");
                return Err(RouterError::unfit(&target, field, found, "both of them"));
            }
            found.push(index);
        }
        Ok(found)
    }

    /// The route with a match on headers, a higher priority, and the canary alone.
    fn header_spec(&self, base: &Value, selected: &[usize], route: &SetHeaderRoute, input: &Input<'_>) -> Value {
        let mut spec = base.get("spec").cloned().unwrap_or_else(|| json!({}));
        let rules = list(base, "/spec/http");
        let made = selected.iter().map(|index| {
            let mut rule = rules[*index].clone();
            let priority = rule.get("priority").and_then(Value::as_i64).unwrap_or(0);
            let mut backends = list(&rule, "/backends").to_vec();
            backends.retain(|b| text(b, "/serviceName") == Some(input.canary_service));
            backends.iter_mut().for_each(|b| drop(map(b).insert("weight".to_owned(), 100.into())));
            let mut conditions = list(&rule, "/match/exprs").to_vec();
            conditions.extend(route.match_.iter().map(|m| condition(&m.header_name, &m.header_value)));
            entry(&mut rule, "match").insert("exprs".to_owned(), Value::Array(conditions));
            let fields = map(&mut rule);
            fields.insert("backends".to_owned(), Value::Array(backends));
            fields.insert("priority".to_owned(), (priority + 1).into());
            rule
        });
        map(&mut spec).insert("http".to_owned(), made.collect());
        spec
    }

    fn plan_header(
        &self,
        name: &str,
        spec: Option<Value>,
        input: &Input<'_>,
        plan: &mut Plan,
    ) -> Result<(), RouterError> {
        let target = self.target(name);
        let before = input.objects.get(&target);
        match (before, spec) {
            (None, None) => {}
            (None, Some(spec)) => {
                let object = json!({
                    "apiVersion": API_VERSION,
                    "kind": target.kind,
                    "metadata": {
                        "name": target.name,
                        "namespace": target.namespace,
                        "ownerReferences": [owner(input.owner)],
                    },
                    "spec": spec,
                });
                let message = format!("ApisixRoute `{name}` created for header route");
                plan.create(&target, object, "ApisixRouteCreated", message);
            }
            (Some(before), Some(spec)) => {
                if !owned_by(before, &self.rollout) {
                    let expected = format!("Rollout {}, which names a header route so", self.rollout);
                    let found = "another owner or none";
                    return Err(RouterError::unfit(&target, "metadata.ownerReferences", found, expected));
                }
                let mut after = before.clone();
                let exclusive = ["exprs", "methods", "hosts", "remoteAddrs", "plugins", "websocket", "filter_func"];
                if !covers(&before["spec"], &spec, &exclusive) {
                    map(&mut after).insert("spec".to_owned(), spec);
                }
                plan.update(&target, before, &after, "ApisixRouteUpdated", || {
                    format!("ApisixRoute `{name}` updated for header route")
                });
            }
            // A route of the same name that is not ours is no business of ours.
            (Some(before), None) if owned_by(before, &self.rollout) => {
                plan.writes.push(Write::delete(&target, before));
                let message = format!("ApisixRoute `{name}` deleted with its header route");
                plan.events.push(RouterEvent { warning: false, reason: "ApisixRouteDeleted", message });
            }
            (Some(_), None) => {}
        }
        Ok(())
    }
}

fn backend(rule: &Value, service: &str) -> bool {
    list(rule, "/backends").iter().any(|backend| text(backend, "/serviceName") == Some(service))
}

fn condition(header: &str, value: &StringMatch) -> Value {
    let (op, value) = match value {
        StringMatch { exact: Some(exact), .. } => ("Equal", exact.clone()),
        StringMatch { prefix: Some(prefix), .. } => ("RegexMatch", prefix_regex(prefix)),
        StringMatch { regex, .. } => ("RegexMatch", regex.clone().unwrap_or_default()),
    };
    json!({ "subject": { "scope": "Header", "name": header }, "op": op, "value": value })
}

impl Router for Apisix {
    fn name(&self) -> &'static str {
        "Apisix"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { headers: true, mirrors: false, experiments: false, ping_pong: false }
    }

    fn reads(&self, _found: &Objects) -> Vec<Read> {
        let names = std::iter::once(&self.route).chain(self.managed.iter().filter(|name| **name != self.route));
        names.map(|name| Read::Object(self.target(name))).collect()
    }

    fn plan(&self, input: &Input<'_>) -> Result<Plan, RouterError> {
        let mut plan = Plan::default();
        let target = self.target(&self.route);
        let before = input.objects.get(&target).ok_or_else(|| {
            RouterError::not_found(
                &target,
                format!("Rollout {}/{} names it in route.name", self.namespace, self.rollout),
            )
        })?;
        let mut rules = list(before, "/spec/http").to_vec();
        let selected = self.selected(&rules, input)?;
        for name in self.managed.iter().filter(|name| **name != self.route) {
            let route = input.header_routes.iter().find(|route| route.name == *name);
            let spec = route.map(|route| self.header_spec(before, &selected, route, input));
            self.plan_header(name, spec, input, &mut plan)?;
        }
        for index in selected {
            let backends = map(&mut rules[index]).get_mut("backends").and_then(Value::as_array_mut);
            for backend in backends.into_iter().flatten() {
                let weight = match text(backend, "/serviceName") {
                    Some(name) if name == input.canary_service => input.canary_weight,
                    Some(name) if name == input.stable_service => input.stable_weight(),
                    _ => continue,
                };
                map(backend).insert("weight".to_owned(), weight.into());
            }
        }
        let mut after = before.clone();
        entry(&mut after, "spec").insert("http".to_owned(), Value::Array(rules));
        plan.update(&target, before, &after, "ApisixRouteUpdated", || {
            format!("ApisixRoute `{}` set to desiredWeight '{}'", self.route, input.canary_weight)
        });
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::{cluster, exact, object, prefix, refusal, router, settle, wanted};
    use crate::{Objects, Router};
    use serde_json::{Value, json};

    fn route() -> Value {
        let backend = |name: &str| json!({ "serviceName": name, "servicePort": 80, "weight": 1 });
        json!({
            "apiVersion": "apisix.apache.org/v2", "kind": "ApisixRoute",
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "ingressClassName": "apisix", "http": [
                { "name": "a", "priority": 3, "match": { "paths": ["/*"], "exprs": [{ "op": "Exists" }] },
                  "backends": [backend("stable"), backend("canary")] },
                { "name": "b", "match": { "paths": ["/b"] }, "backends": [backend("stable"), backend("canary")] },
                { "name": "docs", "match": { "paths": ["/docs"] }, "backends": [backend("docs")] },
            ] },
        })
    }

    fn apisix(rules: &[&str]) -> Box<dyn Router> {
        router(json!({
            "apisix": { "route": { "name": "web", "rules": rules } },
            "managedRoutes": [{ "name": "beta" }],
        }))
    }

    fn weights(objects: &Objects) -> Vec<Vec<i64>> {
        let rules = object(objects, "ApisixRoute", "web")["spec"]["http"].as_array().unwrap();
        let weights = |rule: &Value| {
            let backends = rule["backends"].as_array().unwrap();
            backends.iter().map(|b| b["weight"].as_i64().unwrap()).collect()
        };
        rules.iter().map(weights).collect()
    }

    #[test]
    fn sets_the_weights_of_the_rules_asked_for() {
        let mut objects = cluster([route()]);
        settle(&*apisix(&[]), &wanted(15), &mut objects);
        assert_eq!(weights(&objects), [vec![85, 15], vec![85, 15], vec![1]]);
        settle(&*apisix(&["b"]), &wanted(40), &mut objects);
        assert_eq!(weights(&objects), [vec![85, 15], vec![60, 40], vec![1]]);
    }

    #[test]
    fn a_header_route_is_a_route_of_its_own() {
        let router = apisix(&["a"]);
        let mut objects = cluster([route()]);
        settle(&*router, &wanted(10).header("beta", "X-Beta", exact("1")), &mut objects);
        let beta = object(&objects, "ApisixRoute", "beta");
        assert_eq!(beta["metadata"]["ownerReferences"][0]["name"], "web");
        assert_eq!(
            beta["spec"],
            json!({ "ingressClassName": "apisix", "http": [{
                "name": "a", "priority": 4,
                "match": { "paths": ["/*"], "exprs": [
                    { "op": "Exists" },
                    { "subject": { "scope": "Header", "name": "X-Beta" }, "op": "Equal", "value": "1" },
                ] },
                "backends": [{ "serviceName": "canary", "servicePort": 80, "weight": 100 }],
            }] })
        );
        let mut changed = wanted(10).header("beta", "X-Beta", prefix("v"));
        settle(&*router, &changed, &mut objects);
        let rule = &object(&objects, "ApisixRoute", "beta")["spec"]["http"][0];
        assert_eq!(rule["match"]["exprs"][1]["value"], "^v.*");
        assert_eq!(rule["match"]["exprs"][1]["op"], "RegexMatch");
        changed.headers.clear();
        settle(&*router, &changed, &mut objects);
        assert_eq!(objects.0.len(), 1);
    }

    #[test]
    fn a_route_of_somebody_else_is_neither_taken_nor_deleted() {
        let mut other = route();
        other["metadata"]["name"] = "beta".into();
        let mut objects = cluster([route(), other]);
        let message = refusal(&*apisix(&[]), &wanted(10).header("beta", "X", exact("1")), &objects);
        assert!(message.contains("ApisixRoute shop/beta: metadata.ownerReferences"), "{message}");
        settle(&*apisix(&[]), &wanted(10), &mut objects);
        assert_eq!(objects.0.len(), 2);
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(
            refusal(&*apisix(&[]), &wanted(1), &Objects::default()).contains("ApisixRoute shop/web does not exist")
        );
        assert!(refusal(&*apisix(&["x"]), &wanted(1), &cluster([route()])).contains("found no rule x"));
        let message = refusal(&*apisix(&["docs"]), &wanted(1), &cluster([route()]));
        assert!(message.contains("spec.http[2].backends[].serviceName: found rule docs without"), "{message}");
    }
}
