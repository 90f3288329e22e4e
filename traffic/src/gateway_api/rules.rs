//! The rules of one route, as they should be.

use super::config::RouteKind;
use super::is_service;
use crate::object::{list, map, text};
use crate::plan::{covers, prefix_regex};
use crate::{Destination, Input, ObjectRef, RouterError};
use serde_json::{Value, json};
use tidegate_crds::rollout::{RouteMatch, SetHeaderRoute, SetMirrorRoute, StringMatch};

/// Fields whose absence from a rule of ours means something, as opposed to fields that an API server fills in.
const EXCLUSIVE: [&str; 8] =
    ["percent", "method", "headers", "queryParams", "filters", "timeouts", "retry", "sessionPersistence"];

/// What is to be made of a route's rules.
pub(super) struct Edit<'a> {
    pub input: &'a Input<'a>,
    pub target: &'a ObjectRef,
    pub kind: &'a RouteKind,
    pub route_namespace: &'a str,
    pub service_namespace: &'a str,
    pub rule_name: Option<&'a str>,
    pub managed: &'a [String],
    pub use_headers: bool,
    pub step_mirrors: &'a [SetMirrorRoute],
    /// Services that experiments have put into the route.
    pub former_experiments: &'a [String],
}

impl Edit<'_> {
    /// The rules as they should be. Rules that hold both Services keep their place and get weights; header and mirror
    /// rules follow them, in the order of `managedRoutes`. A mirror rule that matches exactly what a user's rule
    /// matches comes before it, because of two equal matches the first wins.
    pub(super) fn rules(&self, before: &[Value]) -> Result<Vec<Value>, RouterError> {
        let bare_mirror = |rule: &Value| text(rule, "/name").is_none() && self.mirrors(rule);
        let splits = before.iter().filter(|r| !self.is_managed(r) && !bare_mirror(r) && self.is_source(r));
        let splits: Vec<Value> = splits.cloned().collect();
        let of_steps = self.mirror_rules(self.step_mirrors, &splits).unwrap_or_default();
        let (ours, kept): (Vec<&Value>, Vec<&Value>) = before.iter().partition(|rule| {
            self.is_managed(rule) || bare_mirror(rule) && of_steps.iter().any(|made| same_matches(rule, made))
        });
        let mut kept: Vec<Value> = kept.into_iter().cloned().collect();
        let mut sources: Vec<Value> = Vec::new();
        for rule in kept.iter_mut().filter(|rule| self.is_source(rule)) {
            self.set_weights(rule);
            sources.push(rule.clone());
        }
        if sources.is_empty() {
            return Err(self.no_source());
        }
        let mut wanted = if self.use_headers { self.header_rules(&sources)? } else { Vec::new() };
        wanted.extend(self.mirror_rules(self.input.mirror_routes, &sources)?);
        wanted.sort_by_key(|rule| self.precedence(text(rule, "/name").unwrap_or_default()));
        let (mut rules, last): (Vec<Value>, Vec<Value>) = wanted
            .into_iter()
            .map(|rule| self.settle(rule, &ours))
            .partition(|rule| self.mirrors(rule) && sources.iter().any(|source| shares_match(rule, source)));
        rules.extend(kept);
        rules.extend(last);
        Ok(rules)
    }

    fn no_source(&self) -> RouterError {
        let Input { canary_service, stable_service, .. } = self.input;
        let services = format!("backendRefs to Services {canary_service} and {stable_service}");
        let (found, expected) = match self.rule_name {
            Some(name) => (format!("no rule named {name} with {services}"), format!("a rule named {name} with both")),
            None => (format!("no rule with {services}"), "a rule with both".to_owned()),
        };
        RouterError::unfit(self.target, "spec.rules", found, expected)
    }

    fn is(&self, backend: &Value, service: &str) -> bool {
        is_service(backend, service, self.service_namespace, self.route_namespace)
    }

    fn backend<'r>(&self, rule: &'r Value, service: &str) -> Option<&'r Value> {
        list(rule, "/backendRefs").iter().find(|backend| self.is(backend, service))
    }

    /// Whether the rule splits traffic between the two Services and is not one that we made.
    fn is_source(&self, rule: &Value) -> bool {
        self.rule_name.is_none_or(|name| text(rule, "/name") == Some(name))
            && self.backend(rule, self.input.canary_service).is_some()
            && self.backend(rule, self.input.stable_service).is_some()
    }

    /// Whether we made the rule for a managed route: it has that name, perhaps with a number, and the form that we give
    /// such a rule, so that a user's rule of a similar name is left alone.
    fn is_managed(&self, rule: &Value) -> bool {
        let Some(name) = text(rule, "/name") else { return false };
        let in_force = self.input.header_routes.iter().map(|r| &r.name);
        let in_force = in_force.chain(self.input.mirror_routes.iter().map(|r| &r.name));
        let named = self.managed.iter().chain(in_force).any(|managed| is_numbered(name, managed));
        let services = [self.input.canary_service, self.input.stable_service];
        let one_backend = match list(rule, "/backendRefs") {
            [only] => services.iter().any(|service| self.is(only, service)),
            _ => false,
        };
        named && (one_backend || self.mirrors(rule))
    }

    /// Whether the rule mirrors to one of the two Services.
    fn mirrors(&self, rule: &Value) -> bool {
        list(rule, "/filters").iter().any(|filter| {
            text(filter, "/type") == Some("RequestMirror")
                && filter.pointer("/requestMirror/backendRef").is_some_and(|backend| {
                    self.is(backend, self.input.canary_service) || self.is(backend, self.input.stable_service)
                })
        })
    }

    fn precedence(&self, rule: &str) -> usize {
        self.managed.iter().position(|managed| is_numbered(rule, managed)).unwrap_or(usize::MAX)
    }

    fn set_weights(&self, rule: &mut Value) {
        let input = self.input;
        let canary = self.backend(rule, input.canary_service).cloned();
        let Some(backends) = map(rule).get_mut("backendRefs").and_then(Value::as_array_mut) else { return };
        let wanted = |service: &str| input.additional.iter().any(|d| d.service == service);
        backends.retain(|backend| {
            !self.former_experiments.iter().any(|former| self.is(backend, former) && !wanted(former))
        });
        let mut weights: Vec<(&str, i32, Option<i32>)> = vec![
            (input.canary_service, input.canary_weight, None),
            (input.stable_service, input.stable_weight(), None),
        ];
        let port = canary.as_ref().and_then(|c| i32::try_from(c.get("port")?.as_i64()?).ok());
        let port = |d: &Destination| port.and_then(|port| d.ports.get(&port).copied());
        weights.extend(input.additional.iter().map(|d| (d.service.as_str(), d.weight, port(d))));
        for (service, weight, port) in weights {
            let found = backends.iter().position(|backend| self.is(backend, service));
            let Some(index) = found.or_else(|| {
                let mut backend = canary.clone()?;
                map(&mut backend).insert("name".to_owned(), service.into());
                backends.push(backend);
                Some(backends.len() - 1)
            }) else {
                continue;
            };
            let backend = map(&mut backends[index]);
            backend.insert("weight".to_owned(), weight.into());
            if let Some(port) = port {
                backend.insert("port".to_owned(), port.into());
            }
        }
    }

    /// One rule for each header route and source rule. Its only backend is the canary and carries no weight.
    fn header_rules(&self, sources: &[Value]) -> Result<Vec<Value>, RouterError> {
        if !self.kind.headers {
            return Ok(Vec::new());
        }
        let mut rules = Vec::new();
        for route in self.input.header_routes {
            for (index, source) in sources.iter().enumerate() {
                let mut rule = source.clone();
                let matches = self.matches(source).into_iter().map(|matched| with_headers(matched, route)).collect();
                let fields = map(&mut rule);
                fields.insert("name".to_owned(), numbered(&route.name, index).into());
                fields.insert("matches".to_owned(), Value::Array(matches));
                fields.insert("backendRefs".to_owned(), json!([self.canary_backend(source)]));
                rules.push(rule);
            }
        }
        Ok(rules)
    }

    /// One rule for each mirror route and source rule: the source's backends and weights, and a copy to the canary.
    fn mirror_rules(&self, routes: &[SetMirrorRoute], sources: &[Value]) -> Result<Vec<Value>, RouterError> {
        if !self.kind.http {
            return Ok(Vec::new());
        }
        let mut rules: Vec<Value> = Vec::new();
        for route in routes {
            let first = rules.len();
            for source in sources {
                let index = rules.len() - first;
                let mut matches: Vec<Value> = Vec::new();
                for wanted in &route.match_ {
                    for matched in self.matches(source) {
                        let matched = self.with_match(matched, wanted, &route.name)?;
                        if !matches.contains(&matched) {
                            matches.push(matched);
                        }
                    }
                }
                // A step's path stands for every source rule's; the first rule of equal ones is the one that counts.
                let earlier =
                    |matched: &Value| rules[first..].iter().any(|rule| list(rule, "/matches").contains(matched));
                matches.retain(|matched| !earlier(matched));
                if matches.is_empty() {
                    continue;
                }
                let mut mirror = json!({ "backendRef": self.canary_backend(source) });
                if let Some(backend) = mirror.get_mut("backendRef").and_then(Value::as_object_mut) {
                    backend.remove("filters");
                }
                // All is the default; saying so would need a newer version of the API.
                if let Some(percent) = route.percentage.filter(|percent| *percent != 100) {
                    map(&mut mirror).insert("percent".to_owned(), percent.into());
                }
                let mut rule = source.clone();
                let fields = map(&mut rule);
                fields.insert("name".to_owned(), numbered(&route.name, index).into());
                fields.insert("matches".to_owned(), Value::Array(matches));
                let filter = json!({ "type": "RequestMirror", "requestMirror": mirror });
                match fields.get_mut("filters").and_then(Value::as_array_mut) {
                    Some(filters) => filters.push(filter),
                    None => {
                        fields.insert("filters".to_owned(), json!([filter]));
                    }
                }
                rules.push(rule);
            }
        }
        Ok(rules)
    }

    /// What a rule matches. A rule without matches matches everything.
    fn matches(&self, rule: &Value) -> Vec<Value> {
        match list(rule, "/matches") {
            [] if self.kind.http => vec![json!({ "path": { "type": "PathPrefix", "value": "/" } })],
            [] => vec![json!({})],
            matches => matches.to_vec(),
        }
    }

    fn canary_backend(&self, source: &Value) -> Value {
        let mut backend = self.backend(source, self.input.canary_service).cloned().unwrap_or_else(|| json!({}));
        map(&mut backend).remove("weight");
        backend
    }

    fn with_match(&self, mut matched: Value, wanted: &RouteMatch, route: &str) -> Result<Value, RouterError> {
        if let Some(method) = &wanted.method {
            let Some(exact) = &method.exact else {
                let field = format!("setMirrorRoute {route}.match.method");
                return Err(RouterError::config(field, "prefix or regex", "exact: Gateway API knows no other"));
            };
            map(&mut matched).insert("method".to_owned(), exact.to_uppercase().into());
        }
        if let Some(path) = &wanted.path {
            let empty = String::new();
            let (kind, value) = match path {
                StringMatch { exact: Some(value), .. } => ("Exact", value),
                StringMatch { prefix: Some(value), .. } => ("PathPrefix", value),
                StringMatch { regex, .. } => ("RegularExpression", regex.as_ref().unwrap_or(&empty)),
            };
            map(&mut matched).insert("path".to_owned(), json!({ "type": kind, "value": value }));
        }
        for (name, value) in &wanted.headers {
            add_header(&mut matched, name, value);
        }
        Ok(matched)
    }

    /// The rule that is there already, when it is as wanted but for defaults.
    fn settle(&self, wanted: Value, ours: &[&Value]) -> Value {
        let name = text(&wanted, "/name");
        let found = ours.iter().find(|rule| text(rule, "/name") == name);
        // A header rule whose only backend has weight 0 answers every request with an error.
        let silent = |rule: &Value| {
            let backends = list(rule, "/backendRefs");
            backends.len() == 1 && backends[0].get("weight").and_then(Value::as_i64) == Some(0)
        };
        match found {
            Some(found) if covers(found, &wanted, &EXCLUSIVE) && !silent(found) => (*found).clone(),
            _ => wanted,
        }
    }
}

/// `name`, `name-1`, `name-2`: rule names are unique within a route.
fn numbered(name: &str, index: usize) -> String {
    if index == 0 { name.to_owned() } else { format!("{name}-{index}") }
}

fn is_numbered(rule: &str, name: &str) -> bool {
    let Some(rest) = rule.strip_prefix(name) else { return false };
    rest.is_empty()
        || rest.strip_prefix('-').is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
}

fn with_headers(mut matched: Value, route: &SetHeaderRoute) -> Value {
    for header in &route.match_ {
        add_header(&mut matched, &header.header_name, &header.header_value);
    }
    matched
}

/// Adds a header to a match; one of the same name is replaced. There is no prefix match, so a prefix becomes a regular
/// expression.
fn add_header(matched: &mut Value, name: &str, value: &StringMatch) {
    let header = match value {
        StringMatch { exact: Some(exact), .. } => json!({ "name": name, "type": "Exact", "value": exact }),
        StringMatch { prefix: Some(prefix), .. } => {
            json!({ "name": name, "type": "RegularExpression", "value": prefix_regex(prefix) })
        }
        StringMatch { regex, .. } => {
            json!({ "name": name, "type": "RegularExpression", "value": regex.as_deref().unwrap_or_default() })
        }
    };
    let headers = map(matched).entry("headers").or_insert_with(|| json!([]));
    let Some(headers) = headers.as_array_mut() else { return };
    headers.retain(|h| !text(h, "/name").is_some_and(|n| n.eq_ignore_ascii_case(name)));
    headers.push(header);
}

fn same_matches(a: &Value, b: &Value) -> bool {
    covers(&a["matches"], &b["matches"], &EXCLUSIVE)
}

/// Whether both rules match some requests by exactly the same means.
fn shares_match(a: &Value, b: &Value) -> bool {
    let everything = [json!({ "path": { "type": "PathPrefix", "value": "/" } })];
    let of = |rule: &Value| match list(rule, "/matches") {
        [] => everything.to_vec(),
        matches => matches.to_vec(),
    };
    let of_b = of(b);
    of(a).iter().any(|m| of_b.contains(m))
}
