//! Traefik: the two weights of a TraefikService.

use crate::object::{entry, list, map, text};
use crate::{Capabilities, Input, ObjectRef, Objects, Plan, Read, Router, RouterError, Scope};
use serde_json::Value;
use tidegate_crds::rollout::TraefikTrafficRouting;

/// Edits a TraefikService.
#[derive(Debug)]
pub(crate) struct Traefik {
    rollout: String,
    target: ObjectRef,
}

impl Traefik {
    pub(crate) fn new(scope: &Scope<'_>, config: &TraefikTrafficRouting) -> Self {
        let name = &config.weighted_traefik_service_name;
        let version = &scope.options.traefik_api_version;
        Self {
            rollout: scope.rollout.to_owned(),
            target: ObjectRef::new(version, "TraefikService", "traefikservices", scope.namespace, name),
        }
    }
}

impl Router for Traefik {
    fn name(&self) -> &'static str {
        "Traefik"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { headers: false, mirrors: false, experiments: false, ping_pong: false }
    }

    fn reads(&self, _found: &Objects) -> Vec<Read> {
        vec![Read::Object(self.target.clone())]
    }

    fn plan(&self, input: &Input<'_>) -> Result<Plan, RouterError> {
        let mut plan = Plan::default();
        let before = input.objects.get(&self.target).ok_or_else(|| {
            RouterError::not_found(
                &self.target,
                format!("Rollout {} names it in weightedTraefikServiceName", self.rollout),
            )
        })?;
        let mut services = list(before, "/spec/weighted/services").to_vec();
        let weights = [(input.canary_service, input.canary_weight), (input.stable_service, input.stable_weight())];
        for (service, weight) in weights {
            let found = services.iter_mut().find(|s| text(s, "/name") == Some(service)).ok_or_else(|| {
                let field = "spec.weighted.services[].name";
                let found = format!("no service {service}");
                RouterError::unfit(&self.target, field, found, "canaryService and stableService of the Rollout")
            })?;
            map(found).insert("weight".to_owned(), weight.into());
        }
        let mut after = before.clone();
        map(entry(&mut after, "spec").entry("weighted").or_insert(Value::Null))
            .insert("services".to_owned(), Value::Array(services));
        plan.update(&self.target, before, &after, "TraefikServiceUpdated", || {
            format!("TraefikService `{}` set to desiredWeight '{}'", self.target.name, input.canary_weight)
        });
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use crate::Objects;
    use crate::fixture::{cluster, object, refusal, router, settle, wanted};
    use serde_json::{Value, json};

    fn service(names: &[&str]) -> Value {
        let services: Vec<Value> = names.iter().map(|name| json!({ "name": name, "port": 80, "weight": 7 })).collect();
        json!({
            "apiVersion": "traefik.io/v1alpha1", "kind": "TraefikService",
            "metadata": { "name": "split", "namespace": "shop" },
            "spec": { "weighted": { "services": services, "sticky": { "cookie": {} } } },
        })
    }

    #[test]
    fn sets_both_weights_and_nothing_else() {
        let router = router(json!({ "traefik": { "weightedTraefikServiceName": "split" } }));
        let mut objects = cluster([service(&["stable", "tap", "canary"])]);
        settle(&*router, &wanted(35), &mut objects);
        let weighted = &object(&objects, "TraefikService", "split")["spec"]["weighted"];
        let weights: Vec<_> = weighted["services"].as_array().unwrap().iter().map(|s| &s["weight"]).collect();
        assert_eq!(weights, [65, 7, 35]);
        assert_eq!(weighted["sticky"], json!({ "cookie": {} }));
    }

    #[test]
    fn says_what_is_wrong() {
        let router = router(json!({ "traefik": { "weightedTraefikServiceName": "split" } }));
        assert!(
            refusal(&*router, &wanted(1), &Objects::default()).contains("TraefikService shop/split does not exist")
        );
        let message = refusal(&*router, &wanted(1), &cluster([service(&["stable"])]));
        assert!(message.contains("spec.weighted.services[].name: found no service canary"), "{message}");
    }
}
