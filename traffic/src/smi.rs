//! Service Mesh Interface: a TrafficSplit of the Rollout's own.

use crate::object::{entry, list, map, owned_by};
use crate::plan::owner;
use crate::{Capabilities, Input, ObjectRef, Objects, Plan, Read, Router, RouterError, Scope};
use serde_json::{Value, json};
use tidegate_crds::rollout::SmiTrafficRouting;

/// Creates and edits a TrafficSplit.
#[derive(Debug)]
pub(crate) struct Smi {
    rollout: String,
    version: String,
    target: ObjectRef,
    root_service: Option<String>,
}

impl Smi {
    pub(crate) fn new(scope: &Scope<'_>, config: &SmiTrafficRouting) -> Self {
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let version = scope.options.traffic_split_api_version.clone();
        let name = set(&config.traffic_split_name).unwrap_or_else(|| scope.rollout.to_owned());
        let api_version = format!("split.smi-spec.io/{version}");
        Self {
            rollout: scope.rollout.to_owned(),
            version,
            target: ObjectRef::new(&api_version, "TrafficSplit", "trafficsplits", scope.namespace, &name),
            root_service: set(&config.root_service),
        }
    }

    fn backends(&self, input: &Input<'_>) -> Value {
        // The first version of the API has quantities, which are texts.
        let weight = |weight: i32| match self.version.as_str() {
            "v1alpha1" => Value::from(weight.to_string()),
            _ => Value::from(weight),
        };
        let mut backends = vec![json!({ "service": input.canary_service, "weight": weight(input.canary_weight) })];
        for destination in input.additional {
            backends.push(json!({ "service": destination.service, "weight": weight(destination.weight) }));
        }
        backends.push(json!({ "service": input.stable_service, "weight": weight(input.stable_weight()) }));
        Value::Array(backends)
    }
}

impl Router for Smi {
    fn name(&self) -> &'static str {
        "SMI"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { headers: false, mirrors: false, experiments: true, ping_pong: false }
    }

    fn reads(&self, _found: &Objects) -> Vec<Read> {
        vec![Read::Object(self.target.clone())]
    }

    fn plan(&self, input: &Input<'_>) -> Result<Plan, RouterError> {
        let mut plan = Plan::default();
        let service = self.root_service.as_deref().unwrap_or(input.stable_service);
        let backends = self.backends(input);
        let name = &self.target.name;
        let Some(before) = input.objects.get(&self.target) else {
            let object = json!({
                "apiVersion": self.target.api_version,
                "kind": self.target.kind,
                "metadata": {
                    "name": name,
                    "namespace": self.target.namespace,
                    "ownerReferences": [owner(input.owner)],
                },
                "spec": { "service": service, "backends": backends },
            });
            plan.create(&self.target, object, "TrafficSplitCreated", format!("TrafficSplit `{name}` created"));
            return Ok(plan);
        };
        if !owned_by(before, &self.rollout) {
            return Err(RouterError::unfit(
                &self.target,
                "metadata.ownerReferences",
                format!("{} owners, none of them the Rollout", list(before, "/metadata/ownerReferences").len()),
                format!("Rollout {}, which makes and owns its TrafficSplit", self.rollout),
            ));
        }
        let mut after = before.clone();
        let spec = entry(&mut after, "spec");
        spec.insert("service".to_owned(), service.into());
        let found = spec.get("backends").cloned().unwrap_or_default();
        if !same_backends(&found, &backends) {
            spec.insert("backends".to_owned(), backends);
        }
        plan.update(&self.target, before, &after, "TrafficSplitModified", || format!("TrafficSplit `{name}` modified"));
        Ok(plan)
    }
}

/// Whether the backends are equal. A weight may be a number or a text.
fn same_backends(a: &Value, b: &Value) -> bool {
    let normal = |backends: &Value| -> Value {
        let mut backends = backends.clone();
        for backend in backends.as_array_mut().into_iter().flatten() {
            if let Some(number) = backend.get("weight").filter(|weight| weight.is_number()).map(Value::to_string) {
                map(backend).insert("weight".to_owned(), number.into());
            }
        }
        backends
    };
    normal(a) == normal(b)
}

#[cfg(test)]
mod tests {
    use crate::fixture::{canary, cluster, object, refusal, router, settle, wanted};
    use crate::{Objects, RouterOptions, routers};
    use serde_json::json;

    #[test]
    fn creates_and_edits_its_own_split() {
        let router = router(json!({ "smi": {} }));
        let mut objects = Objects::default();
        let plan = settle(&*router, &wanted(10), &mut objects);
        assert_eq!(plan.events[0].message, "TrafficSplit `web` created");
        let split = object(&objects, "TrafficSplit", "web");
        assert_eq!(split["apiVersion"], "split.smi-spec.io/v1alpha1");
        assert_eq!(split["metadata"]["ownerReferences"][0]["uid"], "1234");
        let backends = json!([{ "service": "canary", "weight": "10" }, { "service": "stable", "weight": "90" }]);
        assert_eq!(split["spec"], json!({ "service": "stable", "backends": backends }));
        let plan = settle(&*router, &wanted(20).experiment("exp", "h", 5), &mut objects);
        assert_eq!(plan.events[0].reason, "TrafficSplitModified");
        assert_eq!(
            object(&objects, "TrafficSplit", "web")["spec"]["backends"],
            json!([
                { "service": "canary", "weight": "20" },
                { "service": "exp", "weight": "5" },
                { "service": "stable", "weight": "75" },
            ])
        );
    }

    #[test]
    fn later_versions_have_numbers() {
        let options = RouterOptions { traffic_split_api_version: "v1alpha3".into(), ..Default::default() };
        let config = json!({ "smi": { "rootService": "root", "trafficSplitName": "split" } });
        let mut routers = routers("web", "shop", &canary(config), &options).unwrap();
        let mut objects = Objects::default();
        settle(&*routers.remove(0), &wanted(10), &mut objects);
        let split = object(&objects, "TrafficSplit", "split");
        assert_eq!(split["spec"]["service"], "root");
        assert_eq!(split["spec"]["backends"][1], json!({ "service": "stable", "weight": 90 }));
    }

    #[test]
    fn leaves_a_split_of_somebody_else_alone() {
        let split = json!({ "apiVersion": "split.smi-spec.io/v1alpha1", "kind": "TrafficSplit",
            "metadata": { "name": "web", "namespace": "shop" }, "spec": {} });
        let message = refusal(&*router(json!({ "smi": {} })), &wanted(10), &cluster([split]));
        assert!(message.contains("TrafficSplit shop/web: metadata.ownerReferences"), "{message}");
    }
}
