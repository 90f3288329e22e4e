//! AWS load balancer controller: an action in an annotation of the user's Ingress.
//!
//! The texts of the annotations are compared by other tools, so their JSON has fixed fields in a fixed order.

use crate::object::{entry, list, map, metadata, set_metadata, text};
use crate::{Capabilities, Input, ObjectRef, Objects, Plan, Read, Router, RouterError, Scope};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidegate_crds::keys;
use tidegate_crds::rollout::{AlbTrafficRouting, SetHeaderRoute};

const DEFAULT_PREFIX: &str = "alb.ingress.kubernetes.io";
/// The port name that tells the load balancer controller to look for an action.
const USE_ANNOTATION: &str = "use-annotation";

/// Edits Ingress annotations.
#[derive(Debug)]
pub(crate) struct Alb {
    rollout: String,
    namespace: String,
    api_version: String,
    ingresses: Vec<String>,
    prefix: String,
    root_service: Option<String>,
    port: String,
    /// Duration in seconds, when stickiness is enabled.
    stickiness: Option<i64>,
    managed: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Action {
    #[serde(rename = "Type")]
    kind: &'static str,
    forward_config: ForwardConfig,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ForwardConfig {
    target_groups: Vec<TargetGroup>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_group_stickiness_config: Option<Stickiness>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TargetGroup {
    service_name: String,
    service_port: String,
    weight: i32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Stickiness {
    enabled: bool,
    duration_seconds: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Condition<'a> {
    field: &'static str,
    http_header_config: HttpHeader<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HttpHeader<'a> {
    http_header_name: &'a str,
    values: [&'a str; 1],
}

/// JSON with the characters escaped that Go's encoder escapes.
fn to_text<T: Serialize>(value: &T) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

impl Alb {
    pub(crate) fn new(scope: &Scope<'_>, config: &AlbTrafficRouting) -> Self {
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let mut ingresses: Vec<String> = set(&config.ingress).into_iter().collect();
        ingresses.extend(config.ingresses.clone());
        Self {
            rollout: scope.rollout.to_owned(),
            namespace: scope.namespace.to_owned(),
            api_version: scope.options.ingress_api_version.clone(),
            ingresses,
            prefix: set(&config.annotation_prefix).unwrap_or_else(|| DEFAULT_PREFIX.to_owned()),
            root_service: set(&config.root_service),
            port: config.service_port.to_string(),
            stickiness: config.stickiness_config.as_ref().filter(|s| s.enabled).map(|s| s.duration_seconds),
            managed: scope.managed_routes(),
        }
    }

    fn target(&self, name: &str) -> ObjectRef {
        ObjectRef::new(&self.api_version, "Ingress", "ingresses", &self.namespace, name)
    }

    fn action(&self, groups: impl IntoIterator<Item = (String, i32)>) -> String {
        let group = |(service_name, weight)| TargetGroup { service_name, service_port: self.port.clone(), weight };
        to_text(&Action {
            kind: "forward",
            forward_config: ForwardConfig {
                target_groups: groups.into_iter().map(group).collect(),
                target_group_stickiness_config: self
                    .stickiness
                    .map(|duration_seconds| Stickiness { enabled: true, duration_seconds }),
            },
        })
    }

    fn conditions(&self, route: &SetHeaderRoute) -> Result<String, RouterError> {
        let mut conditions = Vec::new();
        for header in &route.match_ {
            let exact = header.header_value.exact.as_deref().ok_or_else(|| {
                let field = format!("setHeaderRoute {}.match[].headerValue", route.name);
                RouterError::config(field, "prefix or regex", "exact: an AWS load balancer knows no other")
            })?;
            conditions.push(Condition {
                field: "http-header",
                http_header_config: HttpHeader { http_header_name: &header.header_name, values: [exact] },
            });
        }
        Ok(to_text(&conditions))
    }

    /// Annotations as they should be: weights under the action of `service`, then each header route.
    fn annotations(&self, service: &str, input: &Input<'_>) -> Result<Vec<(String, String)>, RouterError> {
        let mut groups = vec![(input.canary_service.to_owned(), input.canary_weight)];
        groups.extend(input.additional.iter().map(|d| (d.service.clone(), d.weight)));
        groups.push((input.stable_service.to_owned(), input.stable_weight()));
        let mut annotations = vec![(format!("{}/actions.{service}", self.prefix), self.action(groups))];
        for route in self.header_routes(input) {
            let canary = [(input.canary_service.to_owned(), 100)];
            annotations.push((format!("{}/actions.{}", self.prefix, route.name), self.action(canary)));
            annotations.push((format!("{}/conditions.{}", self.prefix, route.name), self.conditions(route)?));
        }
        Ok(annotations)
    }

    /// Header routes in force, first has precedence.
    fn header_routes<'i>(&self, input: &Input<'i>) -> Vec<&'i SetHeaderRoute> {
        let mut routes: Vec<&SetHeaderRoute> = input.header_routes.iter().collect();
        let precedence = |route: &&SetHeaderRoute| self.managed.iter().position(|name| *name == route.name);
        routes.sort_by_key(|route| precedence(route).unwrap_or(usize::MAX));
        routes
    }

    /// The rules with a path for each header route before each path that uses our action, and no other managed ones.
    fn rules(&self, before: &Value, service: &str, input: &Input<'_>) -> Vec<Value> {
        let routes = self.header_routes(input);
        let managed = |path: &Value| {
            let name = text(path, "/backend/service/name").unwrap_or_default();
            uses_annotation(path)
                && name != service
                && (self.managed.iter().any(|m| m == name) || routes.iter().any(|route| route.name == name))
        };
        let rules = list(before, "/spec/rules").iter().map(|rule| {
            let mut paths: Vec<Value> = Vec::new();
            for path in list(rule, "/http/paths").iter().filter(|path| !managed(path)) {
                if uses_annotation(path) && text(path, "/backend/service/name") == Some(service) {
                    for route in &routes {
                        let mut path = path.clone();
                        if let Some(name) = path.pointer_mut("/backend/service/name") {
                            *name = route.name.as_str().into();
                        }
                        paths.push(path);
                    }
                }
                paths.push(path.clone());
            }
            let mut rule = rule.clone();
            if rule.get("http").is_some() {
                entry(&mut rule, "http").insert("paths".to_owned(), Value::Array(paths));
            }
            rule
        });
        rules.collect()
    }
}

fn uses_annotation(path: &Value) -> bool {
    text(path, "/backend/service/port/name") == Some(USE_ANNOTATION)
}

impl Router for Alb {
    fn name(&self) -> &'static str {
        "ALB"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { headers: true, mirrors: false, experiments: true, ping_pong: true }
    }

    fn reads(&self, _found: &Objects) -> Vec<Read> {
        self.ingresses.iter().map(|name| Read::Object(self.target(name))).collect()
    }

    fn plan(&self, input: &Input<'_>) -> Result<Plan, RouterError> {
        let mut plan = Plan::default();
        let service = self.root_service.as_deref().unwrap_or(input.stable_service);
        if let Some(seconds) = self.stickiness.filter(|seconds| !(1..=604_800).contains(seconds)) {
            let field = "spec.strategy.canary.trafficRouting.alb.stickinessConfig.durationSeconds";
            return Err(RouterError::config(field, seconds.to_string(), "1 to 604800 seconds (7 days)"));
        }
        let wanted = self.annotations(service, input)?;
        for name in &self.ingresses {
            let target = self.target(name);
            let before = input.objects.get(&target).ok_or_else(|| {
                RouterError::not_found(&target, format!("Rollout {}/{} names it", self.namespace, self.rollout))
            })?;
            let paths = list(before, "/spec/rules").iter().flat_map(|rule| list(rule, "/http/paths"));
            let paths: Vec<&Value> =
                paths.filter(|path| text(path, "/backend/service/name") == Some(service)).collect();
            let found = match &paths[..] {
                [] => format!("no backend {service}"),
                paths if !paths.iter().any(|path| uses_annotation(path)) => {
                    format!("backend {service} with another port")
                }
                _ => String::new(),
            };
            if !found.is_empty() {
                let expected = format!("a path with backend {service} and port name {USE_ANNOTATION}");
                return Err(RouterError::unfit(&target, "spec.rules[].http.paths[].backend", found, expected));
            }
            let mut after = before.clone();
            let listed = metadata(before, "annotations", keys::MANAGED_ALB_ANNOTATIONS).unwrap_or("{}");
            let listed: BTreeMap<String, Vec<String>> = serde_json::from_str(listed).map_err(|_| {
                let field = format!("metadata.annotations[{}]", keys::MANAGED_ALB_ANNOTATIONS);
                RouterError::unfit(&target, field, listed, "JSON from Rollouts to lists of annotations")
            })?;
            let former = listed.get(&self.rollout).cloned().unwrap_or_default();
            for key in former.iter().filter(|key| !wanted.iter().any(|(wanted, _)| wanted == *key)) {
                set_metadata(&mut after, "annotations", key, None);
            }
            for (key, value) in &wanted {
                set_metadata(&mut after, "annotations", key, Some(value));
            }
            let mut managed: Value = json!(listed);
            map(&mut managed).insert(self.rollout.clone(), wanted.iter().map(|(key, _)| key.as_str()).collect());
            set_metadata(&mut after, "annotations", keys::MANAGED_ALB_ANNOTATIONS, Some(&managed.to_string()));
            let rules = self.rules(before, service, input);
            entry(&mut after, "spec").insert("rules".to_owned(), Value::Array(rules));
            plan.update(&target, before, &after, "PatchingALBIngress", || {
                format!("Updating Ingress `{name}` to desiredWeight '{}'", input.canary_weight)
            });
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::{cluster, exact, object, prefix, refusal, router, settle, wanted};
    use crate::{Objects, Router};
    use serde_json::{Value, json};

    const WEIGHTS: &str = "alb.ingress.kubernetes.io/actions.stable";
    const MANAGED: &str = "rollouts.argoproj.io/managed-alb-annotations";

    fn path(path: &str, service: &str) -> Value {
        let backend = json!({ "service": { "name": service, "port": { "name": "use-annotation" } } });
        json!({ "path": path, "pathType": "ImplementationSpecific", "backend": backend })
    }

    fn ingress(name: &str, service: &str) -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": { "name": name, "namespace": "shop", "annotations": { "alb.ingress.kubernetes.io/scheme": "internal" } },
            "spec": { "rules": [{ "http": { "paths": [path("/docs", "docs"), path("/*", service)] } }] },
        })
    }

    fn alb(config: Value) -> Box<dyn Router> {
        router(json!({ "alb": config, "managedRoutes": [{ "name": "beta" }, { "name": "gamma" }] }))
    }

    fn annotation<'a>(objects: &'a Objects, name: &str, key: &str) -> Option<&'a str> {
        object(objects, "Ingress", name)["metadata"]["annotations"].get(key).and_then(Value::as_str)
    }

    #[test]
    fn writes_the_weights_byte_for_byte() {
        let mut objects = cluster([ingress("web", "stable")]);
        let router = alb(json!({ "ingress": "web", "servicePort": 443 }));
        let plan = settle(&*router, &wanted(10), &mut objects);
        assert_eq!(plan.events[0].message, "Updating Ingress `web` to desiredWeight '10'");
        assert_eq!(
            annotation(&objects, "web", WEIGHTS),
            Some(
                r#"{"Type":"forward","ForwardConfig":{"TargetGroups":[{"ServiceName":"canary","ServicePort":"443","Weight":10},{"ServiceName":"stable","ServicePort":"443","Weight":90}]}}"#
            )
        );
        assert_eq!(
            annotation(&objects, "web", MANAGED),
            Some(r#"{"web":["alb.ingress.kubernetes.io/actions.stable"]}"#)
        );
        assert_eq!(annotation(&objects, "web", "alb.ingress.kubernetes.io/scheme"), Some("internal"));
        settle(&*router, &wanted(0).experiment("exp", "h", 20), &mut objects);
        assert_eq!(
            annotation(&objects, "web", WEIGHTS),
            Some(
                r#"{"Type":"forward","ForwardConfig":{"TargetGroups":[{"ServiceName":"canary","ServicePort":"443","Weight":0},{"ServiceName":"exp","ServicePort":"443","Weight":20},{"ServiceName":"stable","ServicePort":"443","Weight":80}]}}"#
            )
        );
    }

    #[test]
    fn stickiness_root_service_prefix_and_several_ingresses() {
        let mut objects = cluster([ingress("a", "root"), ingress("b", "root")]);
        let router = alb(json!({
            "ingresses": ["a", "b"], "servicePort": 80, "rootService": "root", "annotationPrefix": "acme.io",
            "stickinessConfig": { "enabled": true, "durationSeconds": 3600 },
        }));
        let mut ping_pong = wanted(5);
        ping_pong.canary_service = "pong".into();
        ping_pong.stable_service = "ping".into();
        assert_eq!(settle(&*router, &ping_pong, &mut objects).writes.len(), 2);
        for name in ["a", "b"] {
            assert_eq!(
                annotation(&objects, name, "acme.io/actions.root"),
                Some(
                    r#"{"Type":"forward","ForwardConfig":{"TargetGroups":[{"ServiceName":"pong","ServicePort":"80","Weight":5},{"ServiceName":"ping","ServicePort":"80","Weight":95}],"TargetGroupStickinessConfig":{"Enabled":true,"DurationSeconds":3600}}}"#
                )
            );
        }
    }

    #[test]
    fn header_routes_are_paths_before_ours_with_action_and_conditions() {
        let mut objects = cluster([ingress("web", "stable")]);
        let router = alb(json!({ "ingress": "web", "servicePort": 443 }));
        let with = wanted(10).header("gamma", "X-Gamma", exact("a&b")).header("beta", "X-Beta", exact("1"));
        settle(&*router, &with, &mut objects);
        let paths = &object(&objects, "Ingress", "web")["spec"]["rules"][0]["http"]["paths"];
        assert_eq!(
            paths,
            &json!([path("/docs", "docs"), path("/*", "beta"), path("/*", "gamma"), path("/*", "stable")])
        );
        assert_eq!(
            annotation(&objects, "web", "alb.ingress.kubernetes.io/actions.beta"),
            Some(
                r#"{"Type":"forward","ForwardConfig":{"TargetGroups":[{"ServiceName":"canary","ServicePort":"443","Weight":100}]}}"#
            )
        );
        assert_eq!(
            annotation(&objects, "web", "alb.ingress.kubernetes.io/conditions.gamma"),
            Some(r#"[{"field":"http-header","httpHeaderConfig":{"httpHeaderName":"X-Gamma","values":["a\u0026b"]}}]"#)
        );
        settle(&*router, &wanted(10), &mut objects);
        let stored = object(&objects, "Ingress", "web");
        assert_eq!(stored["spec"], ingress("web", "stable")["spec"]);
        assert_eq!(stored["metadata"]["annotations"].as_object().unwrap().len(), 3);
    }

    #[test]
    fn annotations_of_other_rollouts_stay() {
        let mut other = ingress("web", "stable");
        let listed =
            r#"{"other":["alb.ingress.kubernetes.io/actions.x"],"web":["alb.ingress.kubernetes.io/actions.old"]}"#;
        other["metadata"]["annotations"][MANAGED] = listed.into();
        other["metadata"]["annotations"]["alb.ingress.kubernetes.io/actions.x"] = "x".into();
        other["metadata"]["annotations"]["alb.ingress.kubernetes.io/actions.old"] = "old".into();
        let mut objects = cluster([other]);
        settle(&*alb(json!({ "ingress": "web", "servicePort": 443 })), &wanted(10), &mut objects);
        assert_eq!(annotation(&objects, "web", "alb.ingress.kubernetes.io/actions.x"), Some("x"));
        assert_eq!(annotation(&objects, "web", "alb.ingress.kubernetes.io/actions.old"), None);
        assert_eq!(
            annotation(&objects, "web", MANAGED),
            Some(
                r#"{"other":["alb.ingress.kubernetes.io/actions.x"],"web":["alb.ingress.kubernetes.io/actions.stable"]}"#
            )
        );
    }

    #[test]
    fn says_what_is_wrong() {
        let router = alb(json!({ "ingress": "web", "servicePort": 443 }));
        assert!(refusal(&*router, &wanted(1), &Objects::default()).contains("Ingress shop/web does not exist"));
        let message = refusal(&*router, &wanted(1), &cluster([ingress("web", "x")]));
        assert!(message.contains("found no backend stable, expected a path with backend stable"), "{message}");
        let mut plain = ingress("web", "stable");
        plain["spec"]["rules"][0]["http"]["paths"][1]["backend"]["service"]["port"] = json!({ "number": 443 });
        let message = refusal(&*router, &wanted(1), &cluster([plain]));
        assert!(message.contains("backend stable with another port"), "{message}");
        let message =
            refusal(&*router, &wanted(1).header("beta", "X", prefix("a")), &cluster([ingress("web", "stable")]));
        assert!(message.contains("setHeaderRoute beta.match[].headerValue: found prefix or regex"), "{message}");
        let sticky = json!({ "ingress": "web", "servicePort": 443, "stickinessConfig": { "enabled": true, "durationSeconds": 0 } });
        assert!(refusal(&*alb(sticky), &wanted(1), &cluster([ingress("web", "stable")])).contains("1 to 604800"));
        let mut garbled = ingress("web", "stable");
        garbled["metadata"]["annotations"][MANAGED] = "[".into();
        assert!(refusal(&*router, &wanted(1), &cluster([garbled])).contains("managed-alb-annotations]: found ["));
    }
}
