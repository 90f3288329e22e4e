//! ingress-nginx: a canary Ingress beside each of the user's, with the weight in its annotations.

use crate::object::{entry, list, map, metadata, owned_by, set_metadata, text};
use crate::plan::{owner, shortened};
use crate::{Capabilities, Input, ObjectRef, Objects, Plan, Read, Router, RouterError, Scope};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tidegate_crds::rollout::NginxTrafficRouting;

const DEFAULT_PREFIX: &str = "nginx.ingress.kubernetes.io";
/// The class in the form that Kubernetes 1.18 replaced.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// The longest name that an Ingress may have.
const MAX_NAME: usize = 253;
const SUFFIX: &str = "-canary";

/// Creates and edits canary Ingresses.
#[derive(Debug)]
pub(crate) struct Nginx {
    rollout: String,
    namespace: String,
    api_version: String,
    /// The user's Ingresses.
    stable: Vec<String>,
    prefix: String,
    /// `maxTrafficWeight`, when the user set it.
    total: Option<i32>,
    /// Annotations of the canary Ingress that the user asks for, with their prefix.
    extra: BTreeMap<String, String>,
}

impl Nginx {
    pub(crate) fn new(scope: &Scope<'_>, config: &NginxTrafficRouting) -> Self {
        let prefix = config.annotation_prefix.clone().filter(|p| !p.is_empty());
        let prefix = prefix.unwrap_or_else(|| DEFAULT_PREFIX.to_owned());
        let mut extra: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in &config.additional_ingress_annotations {
            let key = if key.starts_with(&prefix) { key.clone() } else { format!("{prefix}/{key}") };
            extra.insert(key, value.clone());
        }
        extra.extend(config.canary_ingress_annotations.clone());
        let mut stable: Vec<String> = config.stable_ingress.iter().filter(|name| !name.is_empty()).cloned().collect();
        stable.extend(config.stable_ingresses.clone());
        Self {
            rollout: scope.rollout.to_owned(),
            namespace: scope.namespace.to_owned(),
            api_version: scope.options.ingress_api_version.clone(),
            stable,
            prefix,
            total: scope.canary.traffic_routing.as_ref().and_then(|r| r.max_traffic_weight),
            extra,
        }
    }

    fn target(&self, name: &str) -> ObjectRef {
        ObjectRef::new(&self.api_version, "Ingress", "ingresses", &self.namespace, name)
    }

    /// Name of the canary Ingress beside `stable`. Cut to the length that names may have.
    fn canary_name(&self, stable: &str) -> String {
        shortened(&format!("{}-{stable}", self.rollout), MAX_NAME - SUFFIX.len()) + SUFFIX
    }

    fn annotations(&self, weight: i32) -> BTreeMap<String, String> {
        let mut annotations = self.extra.clone();
        annotations.insert(format!("{}/canary", self.prefix), "true".to_owned());
        annotations.insert(format!("{}/canary-weight", self.prefix), weight.to_string());
        if let Some(total) = self.total {
            annotations.insert(format!("{}/canary-weight-total", self.prefix), total.to_string());
        }
        annotations
    }

    /// The user's rules that lead to the stable Service, leading to the canary instead. Paths that lead elsewhere are
    /// left out.
    fn rules(&self, stable: &Value, target: &ObjectRef, input: &Input<'_>) -> Result<Vec<Value>, RouterError> {
        let mut rules = Vec::new();
        for rule in list(stable, "/spec/rules") {
            let mut paths = Vec::new();
            for path in list(rule, "/http/paths") {
                if text(path, "/backend/service/name") != Some(input.stable_service) {
                    continue;
                }
                let mut path = path.clone();
                if let Some(name) = path.pointer_mut("/backend/service/name") {
                    *name = input.canary_service.into();
                }
                paths.push(path);
            }
            if !paths.is_empty() {
                let mut rule = rule.clone();
                entry(&mut rule, "http").insert("paths".to_owned(), Value::Array(paths));
                rules.push(rule);
            }
        }
        if rules.is_empty() {
            return Err(RouterError::unfit(
                target,
                "spec.rules[].http.paths[].backend.service.name",
                format!("no backend {}", input.stable_service),
                format!("at least one path that leads to the stable Service {}", input.stable_service),
            ));
        }
        Ok(rules)
    }
}

impl Router for Nginx {
    fn name(&self) -> &'static str {
        "Nginx"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { headers: false, mirrors: false, experiments: false, ping_pong: false }
    }

    fn reads(&self, _found: &Objects) -> Vec<Read> {
        let names = self.stable.iter().flat_map(|stable| [stable.clone(), self.canary_name(stable)]);
        names.map(|name| Read::Object(self.target(&name))).collect()
    }

    fn plan(&self, input: &Input<'_>) -> Result<Plan, RouterError> {
        let mut plan = Plan::default();
        for stable_name in &self.stable {
            let stable_target = self.target(stable_name);
            let stable = input.objects.get(&stable_target).ok_or_else(|| {
                RouterError::not_found(
                    &stable_target,
                    format!("Rollout {}/{} names it as stable Ingress", self.namespace, self.rollout),
                )
            })?;
            let target = self.target(&self.canary_name(stable_name));
            let mut spec = json!({ "rules": self.rules(stable, &stable_target, input)? });
            for field in ["ingressClassName", "tls"] {
                if let Some(value) = stable.pointer("/spec").and_then(|spec| spec.get(field)) {
                    map(&mut spec).insert(field.to_owned(), value.clone());
                }
            }
            let mut annotations = self.annotations(input.canary_weight);
            if let Some(class) = metadata(stable, "annotations", CLASS_ANNOTATION) {
                annotations.insert(CLASS_ANNOTATION.to_owned(), class.to_owned());
            }
            let Some(before) = input.objects.get(&target) else {
                let object = json!({
                    "apiVersion": self.api_version,
                    "kind": "Ingress",
                    "metadata": {
                        "name": target.name,
                        "namespace": target.namespace,
                        "annotations": annotations,
                        "ownerReferences": [owner(input.owner)],
                    },
                    "spec": spec,
                });
                let message =
                    format!("Creating canary ingress `{}` with weight `{}`", target.name, input.canary_weight);
                plan.create(&target, object, "CreatingCanaryIngress", message);
                continue;
            };
            if !owned_by(before, &self.rollout) {
                return Err(RouterError::unfit(
                    &target,
                    "metadata.ownerReferences",
                    owners(before),
                    format!("Rollout {}, which needs this name for its canary Ingress", self.rollout),
                ));
            }
            let mut after = before.clone();
            let stale = before.pointer("/metadata/annotations").and_then(Value::as_object);
            let stale = stale.into_iter().flat_map(Map::keys).filter(|key| {
                // Annotations with other prefixes may be another controller's.
                key.starts_with(&format!("{}/", self.prefix)) && !annotations.contains_key(*key)
            });
            for key in stale.cloned().collect::<Vec<_>>() {
                set_metadata(&mut after, "annotations", &key, None);
            }
            for (key, value) in &annotations {
                set_metadata(&mut after, "annotations", key, Some(value));
            }
            for field in ["rules", "tls", "ingressClassName"] {
                let wanted = spec.get(field);
                let found = before.get("spec").and_then(|spec| spec.get(field));
                match wanted {
                    Some(wanted) if found != Some(wanted) => {
                        entry(&mut after, "spec").insert(field.to_owned(), wanted.clone());
                    }
                    // An API server may have given the Ingress the default class.
                    None if field != "ingressClassName" => {
                        entry(&mut after, "spec").remove(field);
                    }
                    _ => {}
                }
            }
            plan.update(&target, before, &after, "PatchingCanaryIngress", || {
                format!("Updating Ingress `{}` to desiredWeight '{}'", target.name, input.canary_weight)
            });
        }
        Ok(plan)
    }
}

/// The owners of an object, for messages.
fn owners(object: &Value) -> String {
    let owners = list(object, "/metadata/ownerReferences").iter().map(|owner| {
        format!("{} {}", text(owner, "/kind").unwrap_or_default(), text(owner, "/name").unwrap_or_default())
    });
    let owners: Vec<String> = owners.collect();
    if owners.is_empty() { "no owner".to_owned() } else { owners.join(", ") }
}

#[cfg(test)]
mod tests {
    use crate::fixture::{cluster, object, refusal, router, settle, wanted};
    use crate::{Objects, Write};
    use serde_json::{Value, json};

    fn path(service: &str) -> Value {
        json!({ "path": "/", "pathType": "Prefix", "backend": { "service": { "name": service, "port": { "number": 80 } } } })
    }

    fn ingress(name: &str) -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {
                "name": name, "namespace": "shop", "labels": { "a": "b" },
                "annotations": { "kubernetes.io/ingress.class": "nginx", "nginx.ingress.kubernetes.io/rewrite-target": "/" },
            },
            "spec": {
                "ingressClassName": "nginx",
                "tls": [{ "hosts": ["shop.example"], "secretName": "cert" }],
                "rules": [
                    { "host": "shop.example", "http": { "paths": [path("docs"), path("stable")] } },
                    { "host": "docs.example", "http": { "paths": [path("docs")] } },
                ],
            },
        })
    }

    #[test]
    fn creates_a_canary_ingress_with_the_stable_rules_and_the_weight() {
        let router = router(json!({ "nginx": {
            "stableIngress": "web",
            "additionalIngressAnnotations": { "canary-by-header": "X-Canary", "nginx.ingress.kubernetes.io/x": "y" },
            "canaryIngressAnnotations": { "acme/plain": "1" },
        } }));
        let mut objects = cluster([ingress("web")]);
        let plan = settle(&*router, &wanted(10), &mut objects);
        assert_eq!(plan.events[0].reason, "CreatingCanaryIngress");
        let Write::Create { target, object } = &plan.writes[0] else { panic!("{:?}", plan.writes) };
        assert_eq!(target.to_string(), "Ingress shop/web-web-canary");
        assert_eq!(
            object,
            &json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                "metadata": {
                    "name": "web-web-canary", "namespace": "shop",
                    "annotations": {
                        "acme/plain": "1",
                        "kubernetes.io/ingress.class": "nginx",
                        "nginx.ingress.kubernetes.io/canary": "true",
                        "nginx.ingress.kubernetes.io/canary-by-header": "X-Canary",
                        "nginx.ingress.kubernetes.io/canary-weight": "10",
                        "nginx.ingress.kubernetes.io/x": "y",
                    },
                    "ownerReferences": [{ "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web",
                        "uid": "1234", "controller": true, "blockOwnerDeletion": true }],
                },
                "spec": {
                    "ingressClassName": "nginx",
                    "tls": [{ "hosts": ["shop.example"], "secretName": "cert" }],
                    "rules": [{ "host": "shop.example", "http": { "paths": [path("canary")] } }],
                },
            })
        );
    }

    #[test]
    fn writes_only_the_weight_when_only_the_weight_changes() {
        let router = router(json!({ "nginx": { "stableIngress": "web" } }));
        let mut objects = cluster([ingress("web")]);
        settle(&*router, &wanted(10), &mut objects);
        let plan = settle(&*router, &wanted(0), &mut objects);
        let Write::Patch { patch, .. } = &plan.writes[0] else { panic!("{:?}", plan.writes) };
        let weight = json!({ "nginx.ingress.kubernetes.io/canary-weight": "0" });
        assert_eq!(patch, &json!({ "metadata": { "annotations": weight, "resourceVersion": "1" } }));
        assert_eq!(plan.events[0].message, "Updating Ingress `web-web-canary` to desiredWeight '0'");
    }

    #[test]
    fn follows_the_stable_ingress_and_keeps_what_others_wrote() {
        let router =
            router(json!({ "nginx": { "stableIngress": "web", "additionalIngressAnnotations": { "x": "y" } } }));
        let mut objects = cluster([ingress("web")]);
        settle(&*router, &wanted(10), &mut objects);
        for (target, object) in &mut objects.0 {
            if target.name == "web" {
                object["spec"]["rules"][0]["host"] = "new.example".into();
                object["spec"].as_object_mut().unwrap().remove("tls");
            } else {
                object["metadata"]["annotations"]["cloud/endpoints"] = "[]".into();
                object["metadata"]["annotations"]["nginx.ingress.kubernetes.io/stale"] = "1".into();
            }
        }
        settle(&*router, &wanted(10), &mut objects);
        let canary = object(&objects, "Ingress", "web-web-canary");
        assert_eq!(canary["spec"]["rules"][0]["host"], "new.example");
        assert_eq!(canary["spec"].get("tls"), None);
        assert_eq!(canary["metadata"]["annotations"]["cloud/endpoints"], "[]");
        assert_eq!(canary["metadata"]["annotations"].get("nginx.ingress.kubernetes.io/stale"), None);
    }

    #[test]
    fn serves_several_ingresses_another_prefix_and_another_largest_weight() {
        let router = router(json!({
            "maxTrafficWeight": 1000,
            "nginx": { "stableIngresses": ["a", "b"], "annotationPrefix": "acme.io" },
        }));
        let mut objects = cluster([ingress("a"), ingress("b")]);
        let mut wanted = wanted(5);
        wanted.max = 1000;
        let plan = settle(&*router, &wanted, &mut objects);
        assert_eq!(plan.writes.len(), 2);
        for name in ["web-a-canary", "web-b-canary"] {
            let annotations = &object(&objects, "Ingress", name)["metadata"]["annotations"];
            assert_eq!(annotations["acme.io/canary-weight"], "5");
            assert_eq!(annotations["acme.io/canary-weight-total"], "1000");
        }
    }

    #[test]
    fn cuts_long_names() {
        let long = "x".repeat(260);
        let router = router(json!({ "nginx": { "stableIngress": long } }));
        let mut objects = cluster([ingress(&long)]);
        let plan = settle(&*router, &wanted(5), &mut objects);
        let name = &plan.writes[0].target().name;
        assert_eq!(name.len(), 253);
        assert!(name.ends_with("x-canary"));
    }

    #[test]
    fn says_what_is_wrong() {
        let router = router(json!({ "nginx": { "stableIngress": "web" } }));
        let missing = refusal(&*router, &wanted(1), &Objects::default());
        assert_eq!(missing, "Ingress shop/web does not exist: Rollout shop/web names it as stable Ingress");
        let mut elsewhere = ingress("web");
        elsewhere["spec"]["rules"].as_array_mut().unwrap().remove(0);
        assert!(refusal(&*router, &wanted(1), &cluster([elsewhere])).contains("found no backend stable"));
        let message = refusal(&*router, &wanted(1), &cluster([ingress("web"), ingress("web-web-canary")]));
        assert!(message.contains("metadata.ownerReferences: found no owner, expected Rollout web"), "{message}");
    }
}
