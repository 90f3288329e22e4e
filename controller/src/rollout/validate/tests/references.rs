use super::super::{References, references};
use super::{blue_green, canary, rollout};
use crate::rollout::Service;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidegate_crds::analysis::AnalysisTemplateSpec;
use tidegate_crds::patch::merge_apply;
use tidegate_traffic::{ObjectRef, Objects, RouterOptions};

fn service(selector: Value, managed_by: Option<&str>) -> Service {
    let annotations = managed_by.map(|name| json!({ "argo-rollouts.argoproj.io/managed-by-rollouts": name }));
    Service::from_value(&json!({ "metadata": { "annotations": annotations }, "spec": { "selector": selector } }))
}

#[derive(Default)]
struct Cluster {
    services: BTreeMap<String, Service>,
    templates: BTreeMap<(String, bool), AnalysisTemplateSpec>,
    routing: Objects,
}

impl Cluster {
    fn problems(&self, patch: &Value, complete: bool) -> Vec<String> {
        let found = References {
            services: &self.services,
            templates: &self.templates,
            routing: &self.routing,
            options: &RouterOptions::default(),
            complete,
        };
        let (rollout, _) = rollout(patch);
        references(&rollout, &found).iter().map(ToString::to_string).collect()
    }

    fn service(mut self, name: &str, service: Service) -> Self {
        self.services.insert(name.to_owned(), service);
        self
    }

    fn template(mut self, name: &str, cluster_scope: bool, spec: Value) -> Self {
        self.templates.insert((name.to_owned(), cluster_scope), serde_json::from_value(spec).unwrap());
        self
    }
}

#[test]
fn services_that_are_named() {
    let two = canary(
        json!({ "canaryService": "c", "stableService": "s", "stableMetadata": { "labels": { "role": "stable" } } }),
    );
    let web = || service(json!({ "app": "web", "rollouts-pod-template-hash": "x" }), Some("web"));
    let sound = || Cluster::default().service("c", web()).service("s", web());
    assert_eq!(sound().problems(&two, true), Vec::<String>::new());
    assert_eq!(
        Cluster::default().problems(&two, true),
        [
            "spec.strategy.canary.stableService: Invalid value: \"s\": service \"s\" not found in namespace shop",
            "spec.strategy.canary.canaryService: Invalid value: \"c\": service \"c\" not found in namespace shop",
        ]
    );
    assert_eq!(Cluster::default().problems(&two, false), Vec::<String>::new());
    let other = sound().service("c", service(json!({ "app": "api" }), None));
    assert_eq!(
        other.problems(&two, true),
        [
            "spec.strategy.canary.canaryService: Invalid value: \"c\": Service \"c\" selects pods with label app=api, the pod template has app=web"
        ]
    );
    let missing = sound().service("c", service(json!({ "tier": "x" }), None));
    assert!(missing.problems(&two, true)[0].ends_with("label tier=x, the pod template has no such label"));
    let ephemeral = sound().service("s", service(json!({ "app": "web", "role": "stable" }), None));
    assert_eq!(ephemeral.problems(&two, true), Vec::<String>::new(), "stableMetadata gives the label");
    let foreign = sound().service("s", service(json!({}), Some("api")));
    assert_eq!(
        foreign.problems(&two, true),
        ["spec.strategy.canary.stableService: Invalid value: \"s\": Service \"s\" is managed by another Rollout"]
    );
    let pair = canary(json!({ "pingPong": { "pingService": "a", "pongService": "b" } }));
    assert_eq!(Cluster::default().problems(&pair, true).len(), 2);
    let preview = blue_green(json!({ "activeService": "a", "previewService": "b" }));
    assert!(Cluster::default().problems(&preview, true)[1].starts_with("spec.strategy.blueGreen.previewService: "));
}

#[test]
fn analysis_templates_that_are_named() {
    let metric = |name: &str, query: &str, fields: Value| {
        let mut metric = json!({ "name": name, "provider": { "prometheus": { "query": query } } });
        merge_apply(&mut metric, &fields);
        metric
    };
    let plain = |name: &str| json!({ "metrics": [metric(name, "up", json!({}))] });
    let run = |templates: &[&str], args: Value| {
        let templates: Vec<Value> = templates.iter().map(|name| json!({ "templateName": name })).collect();
        canary(json!({ "steps": [{ "analysis": { "templates": templates, "args": args } }] }))
    };
    let none: [&str; 0] = [];
    let path = "spec.strategy.canary.steps[0].analysis";

    let one = Cluster::default().template("a", false, plain("m"));
    assert_eq!(one.problems(&run(&["a"], json!([])), true), none);
    assert_eq!(
        one.problems(&run(&["b"], json!([])), true),
        [format!(
            "{path}.templates[0].templateName: Invalid value: \"b\": AnalysisTemplate \"b\" not found in namespace shop"
        )]
    );
    assert_eq!(one.problems(&run(&["b"], json!([])), false), none);
    let cluster = canary(json!({ "analysis": { "templates": [{ "templateName": "a", "clusterScope": true }] } }));
    assert_eq!(
        one.problems(&cluster, true),
        [
            "spec.strategy.canary.analysis.templates[0].templateName: Invalid value: \"a\": ClusterAnalysisTemplate \"a\" not found"
        ]
    );

    let nested = Cluster::default()
        .template("a", false, json!({ "templates": [{ "templateName": "b" }, { "templateName": "c" }] }))
        .template(
            "b",
            false,
            json!({ "templates": [{ "templateName": "a" }], "metrics": [metric("m", "up", json!({}))] }),
        );
    assert_eq!(
        nested.problems(&run(&["a"], json!([])), true),
        [format!(
            "{path}.templates[0].templateName: Invalid value: \"c\": AnalysisTemplate \"c\" not found in namespace shop, which AnalysisTemplate a names"
        )]
    );
    assert_eq!(nested.template("c", false, json!({})).problems(&run(&["a"], json!([])), true), none);

    let twice = Cluster::default().template("a", false, plain("m")).template("b", false, plain("m"));
    assert_eq!(
        twice.problems(&run(&["a", "b"], json!([])), true),
        [format!("{path}.templates: Invalid value: \"m\": metric \"m\" stands in both a and b")]
    );

    let asking = |default: Value| {
        let args = json!([{ "name": "host", "value": default }]);
        json!({ "args": args, "metrics": [metric("m", "up{host=\"{{args.host}}\"}", json!({}))] })
    };
    let needy = Cluster::default().template("a", false, asking(Value::Null));
    assert_eq!(
        needy.problems(&run(&["a"], json!([])), true),
        [format!("{path}.args: Required value: a value for argument \"host\", which has no default in its template")]
    );
    assert_eq!(needy.problems(&run(&["a"], json!([{ "name": "host", "value": "x" }])), true), none);
    let differing = Cluster::default().template("a", false, asking("x".into())).template(
        "b",
        false,
        json!({ "args": [{ "name": "host", "value": "y" }] }),
    );
    assert_eq!(
        differing.problems(&run(&["a", "b"], json!([])), true),
        [format!(
            "{path}.templates: Invalid value: \"host\": argument \"host\" has different values in several templates"
        )]
    );
    let loose =
        Cluster::default().template("a", false, json!({ "metrics": [metric("m", "{{ args.nobody }}", json!({}))] }));
    assert_eq!(
        loose.problems(&run(&["a"], json!([])), true),
        [format!(
            "{path}.templates: Invalid value: \"{{{{args.nobody}}}}\": metric \"m\" of a uses it, no template declares it"
        )]
    );

    let endless = |count: Value| {
        let spec = json!({ "metrics": [metric("m", "up", json!({ "interval": "5s", "count": count }))],
                           "args": [{ "name": "n", "value": "3" }] });
        Cluster::default().template("a", false, spec)
    };
    assert_eq!(
        endless(Value::Null).problems(&run(&["a"], json!([])), true),
        [format!("{path}.templates: Invalid value: \"a\": metric \"m\" of a needs a count: here a run has to end")]
    );
    assert_eq!(endless(json!(0)).problems(&run(&["a"], json!([])), true).len(), 1);
    assert_eq!(endless(json!(3)).problems(&run(&["a"], json!([])), true), none);
    assert_eq!(endless(json!("{{args.n}}")).problems(&run(&["a"], json!([])), true), none);
    let background = canary(json!({ "analysis": { "templates": [{ "templateName": "a" }] } }));
    assert_eq!(endless(Value::Null).problems(&background, true), none, "a background run may go on");
}

#[test]
fn routes_that_are_named() {
    let object = |api: &str, kind: &str, plural: &str, name: &str, spec: Value| {
        let target = ObjectRef::new(api, kind, plural, "shop", name);
        (
            target,
            json!({ "apiVersion": api, "kind": kind, "metadata": { "name": name, "namespace": "shop" }, "spec": spec }),
        )
    };
    let ingress = |service: &str, port: Value| {
        let path = json!({ "backend": { "service": { "name": service, "port": port } } });
        object(
            "networking.k8s.io/v1",
            "Ingress",
            "ingresses",
            "i",
            json!({ "rules": [{ "http": { "paths": [path] } }] }),
        )
    };
    let action = json!({ "name": "use-annotation" });
    let virtual_service = |hosts: [&str; 2]| {
        let route: Vec<Value> = hosts.iter().map(|host| json!({ "destination": { "host": host } })).collect();
        let http = json!({ "http": [{ "name": "main", "route": route }] });
        object("networking.istio.io/v1alpha3", "VirtualService", "virtualservices", "v", http)
    };
    let istio = |route: &str| json!({ "istio": { "virtualService": { "name": "v", "routes": [route] } } });
    let mapping = |spec: Value| object("getambassador.io/v2", "Mapping", "mappings", "m", spec);
    let ambassador = json!({ "ambassador": { "mappings": ["m"] } });
    let nginx = json!({ "nginx": { "stableIngress": "i" } });
    let alb = json!({ "alb": { "ingress": "i", "servicePort": 80 } });
    let traefik = json!({ "traefik": { "weightedTraefikServiceName": "t" } });
    let rows = [
        (&nginx, Some(ingress("s", json!({ "number": 80 }))), ""),
        (&nginx, None, "nginx: Not found: \"Ingress shop/i\": an existing object"),
        (
            &nginx,
            Some(ingress("x", json!({ "number": 80 }))),
            "nginx: Invalid value: \"Ingress shop/i\": spec.rules[].http.paths[].backend.service.name: found no backend s, expected at least one path that leads to the stable Service s",
        ),
        (&alb, Some(ingress("s", action.clone())), ""),
        (
            &alb,
            Some(ingress("x", action)),
            "alb: Invalid value: \"Ingress shop/i\": spec.rules[].http.paths[].backend: found no backend s, expected a path with backend s and port name use-annotation",
        ),
        (&istio("main"), Some(virtual_service(["c", "s"])), ""),
        (&istio("main"), None, "istio: Not found: \"VirtualService shop/v\": an existing object"),
        (
            &istio("other"),
            Some(virtual_service(["c", "s"])),
            "istio: Invalid value: \"VirtualService shop/v\": spec.http[].name: found no route other, expected it, as spec.strategy.canary.trafficRouting.istio.virtualService.routes names it",
        ),
        (
            &istio("main"),
            Some(virtual_service(["c", "x"])),
            "istio: Invalid value: \"VirtualService shop/v\": spec.http[0].route: found no such destination, expected one for the stable version, with host \"s\"",
        ),
        (&ambassador, Some(mapping(json!({ "service": "s" }))), ""),
        (
            &ambassador,
            Some(mapping(json!({ "service": "s", "weight": 5 }))),
            "ambassador: Invalid value: \"Mapping shop/m\": spec.weight: found 5, expected no weight: it has what the canary leaves",
        ),
        (&traefik, None, ""),
    ];
    let web = || service(json!({ "app": "web" }), None);
    for (routing, found, expected) in rows {
        let mut cluster = Cluster::default().service("c", web()).service("s", web());
        cluster.routing.0.extend(found.clone());
        let patch = canary(json!({ "canaryService": "c", "stableService": "s", "trafficRouting": routing }));
        let problems = cluster.problems(&patch, true);
        let expected: Vec<String> = [expected]
            .iter()
            .filter(|e| !e.is_empty())
            .map(|e| format!("spec.strategy.canary.trafficRouting.{e}"))
            .collect();
        assert_eq!(problems, expected, "{routing}");
        if found.is_none() {
            assert_eq!(cluster.problems(&patch, false), Vec::<String>::new(), "{routing} without the cluster");
        }
    }
}
