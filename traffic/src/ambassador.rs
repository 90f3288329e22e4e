//! Ambassador: a canary Mapping beside each of the user's, with the weight in it.

use crate::object::{entry, map, text};
use crate::plan::{owner, shortened};
use crate::{Capabilities, Input, ObjectRef, Objects, Plan, Read, Router, RouterError, RouterEvent, Scope, Write};
use serde_json::{Value, json};
use tidegate_crds::rollout::AmbassadorTrafficRouting;

/// The longest part of a Mapping's name that goes into the canary Mapping's.
const MAX_NAME: usize = 246;

/// Creates, edits and deletes canary Mappings.
#[derive(Debug)]
pub(crate) struct Ambassador {
    rollout: String,
    namespace: String,
    api_version: String,
    mappings: Vec<String>,
}

impl Ambassador {
    pub(crate) fn new(scope: &Scope<'_>, config: &AmbassadorTrafficRouting) -> Self {
        Self {
            rollout: scope.rollout.to_owned(),
            namespace: scope.namespace.to_owned(),
            api_version: scope.options.ambassador_api_version.clone(),
            mappings: config.mappings.clone(),
        }
    }

    fn target(&self, name: &str) -> ObjectRef {
        let (kind, plural) = match self.api_version.starts_with("x.") {
            true => ("AmbassadorMapping", "ambassadormappings"),
            false => ("Mapping", "mappings"),
        };
        ObjectRef::new(&self.api_version, kind, plural, &self.namespace, name)
    }

    fn canary_target(&self, mapping: &str) -> ObjectRef {
        self.target(&format!("{}-canary", shortened(mapping, MAX_NAME)))
    }

    /// The user's Mapping with the canary's Service and a weight.
    fn canary_spec(&self, base: &Value, input: &Input<'_>) -> Value {
        let mut spec = base.get("spec").cloned().unwrap_or_else(|| json!({}));
        let service = canary_service(text(base, "/spec/service").unwrap_or_default(), input.canary_service);
        let fields = map(&mut spec);
        fields.insert("service".to_owned(), service.into());
        fields.insert("weight".to_owned(), input.canary_weight.into());
        spec
    }
}

/// The canary's Service, with the port that the Mapping's service has.
fn canary_service(service: &str, canary: &str) -> String {
    match service.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => format!("{canary}:{port}"),
        _ => canary.to_owned(),
    }
}

impl Router for Ambassador {
    fn name(&self) -> &'static str {
        "Ambassador"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { headers: false, mirrors: false, experiments: false, ping_pong: false }
    }

    fn reads(&self, _found: &Objects) -> Vec<Read> {
        let targets = self.mappings.iter().flat_map(|name| [self.target(name), self.canary_target(name)]);
        targets.map(Read::Object).collect()
    }

    fn plan(&self, input: &Input<'_>) -> Result<Plan, RouterError> {
        let mut plan = Plan::default();
        let message = || format!("Set canary mapping weight to {}", input.canary_weight);
        for name in &self.mappings {
            let target = self.target(name);
            let base = input.objects.get(&target).ok_or_else(|| {
                RouterError::not_found(
                    &target,
                    format!("Rollout {}/{} names it in mappings", self.namespace, self.rollout),
                )
            })?;
            let weight = base.pointer("/spec/weight").filter(|weight| weight.as_f64() != Some(0.0));
            if let Some(weight) = weight {
                let expected = "no weight: it has what the canary leaves";
                return Err(RouterError::unfit(&target, "spec.weight", weight.to_string(), expected));
            }
            let canary = self.canary_target(name);
            match input.objects.get(&canary) {
                None if input.canary_weight == 0 => {}
                None => {
                    let object = json!({
                        "apiVersion": self.api_version,
                        "kind": canary.kind,
                        "metadata": {
                            "name": canary.name,
                            "namespace": canary.namespace,
                            "ownerReferences": [owner(input.owner)],
                        },
                        "spec": self.canary_spec(base, input),
                    });
                    plan.create(&canary, object, "CanaryMappingWeightUpdate", message());
                }
                // First without weight, for the data plane to see; then away. In the middle of an update it stays.
                Some(before)
                    if input.canary_weight == 0
                        && !input.in_progress
                        && before.pointer("/spec/weight").and_then(Value::as_f64) == Some(0.0) =>
                {
                    plan.writes.push(Write::delete(&canary, before));
                    let message = format!("Deleted canary mapping {}", canary.name);
                    plan.events.push(RouterEvent { warning: false, reason: "CanaryMappingWeightUpdate", message });
                }
                Some(before) => {
                    let mut after = before.clone();
                    let spec = entry(&mut after, "spec");
                    for (key, value) in map(&mut self.canary_spec(base, input)).iter() {
                        spec.insert(key.clone(), value.clone());
                    }
                    plan.update(&canary, before, &after, "CanaryMappingWeightUpdate", message);
                }
            }
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::canary_service;
    use crate::fixture::{canary, cluster, object, refusal, router, settle, settle_in, wanted};
    use crate::{Objects, RouterOptions, Write, routers};
    use serde_json::{Value, json};

    fn mapping() -> Value {
        json!({
            "apiVersion": "getambassador.io/v2", "kind": "Mapping",
            "metadata": { "name": "web", "namespace": "shop", "annotations": { "a": "b" } },
            "spec": { "prefix": "/", "service": "stable:8080", "timeout_ms": 5 },
        })
    }

    #[test]
    fn a_canary_mapping_lives_as_long_as_it_has_weight() {
        let router = router(json!({ "ambassador": { "mappings": ["web"] } }));
        let mut objects = cluster([mapping()]);
        assert_eq!(settle_in(0, &*router, &wanted(0), &mut objects), None);
        let plan = settle(&*router, &wanted(20), &mut objects);
        assert_eq!(plan.events[0].message, "Set canary mapping weight to 20");
        let canary = object(&objects, "Mapping", "web-canary");
        let spec = json!({ "prefix": "/", "service": "canary:8080", "timeout_ms": 5, "weight": 20 });
        assert_eq!(canary["spec"], spec);
        assert_eq!(canary["metadata"].get("annotations"), None);
        settle(&*router, &wanted(30), &mut objects);
        assert_eq!(object(&objects, "Mapping", "web-canary")["spec"]["weight"], 30);

        // At weight 0 in the middle of an update it stays; at the end it goes, but only after it had no weight.
        let mut none = wanted(0);
        none.in_progress = true;
        settle(&*router, &none, &mut objects);
        assert_eq!(object(&objects, "Mapping", "web-canary")["spec"]["weight"], 0);
        settle(&*router, &wanted(30), &mut objects);
        let plan = settle_in(2, &*router, &wanted(0), &mut objects).unwrap();
        assert!(matches!(plan.writes[..], [Write::Patch { .. }]), "{plan:?}");
        assert_eq!(objects.0.len(), 1);
    }

    #[test]
    fn other_api_versions_have_another_kind() {
        let options =
            RouterOptions { ambassador_api_version: "x.getambassador.io/v3alpha1".into(), ..Default::default() };
        let config = canary(json!({ "ambassador": { "mappings": ["web"] } }));
        let mut routers = routers("web", "shop", &config, &options).unwrap();
        let mut base = mapping();
        base["apiVersion"] = "x.getambassador.io/v3alpha1".into();
        base["kind"] = "AmbassadorMapping".into();
        let mut objects = cluster([base]);
        settle(&*routers.remove(0), &wanted(5), &mut objects);
        assert_eq!(object(&objects, "AmbassadorMapping", "web-canary")["spec"]["weight"], 5);
    }

    #[test]
    fn keeps_the_port() {
        for (service, expected) in [
            ("stable", "c"),
            ("stable:80", "c:80"),
            ("http://stable:80", "c:80"),
            ("http://stable", "c"),
            ("stable:http", "c"),
            ("", "c"),
        ] {
            assert_eq!(canary_service(service, "c"), expected, "{service}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let router = router(json!({ "ambassador": { "mappings": ["web"] } }));
        assert!(refusal(&*router, &wanted(1), &Objects::default()).contains("Mapping shop/web does not exist"));
        let mut base = mapping();
        base["spec"]["weight"] = 10.into();
        let message = refusal(&*router, &wanted(1), &cluster([base]));
        assert!(message.contains("spec.weight: found 10, expected no weight"), "{message}");
    }
}
