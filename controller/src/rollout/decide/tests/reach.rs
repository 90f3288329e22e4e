//! What is decided before, and after, a data plane can reach a version.

use super::*;
use crate::rollout::alb::{self, Answer, Balancer, Balancers, Registration, TargetGroup};
use crate::rollout::snapshot::Endpoints;

/// The Service leads to a pod of each of these versions.
fn leads(snapshot: &mut Snapshot, service: &str, versions: &[&str]) {
    let pods = versions.iter().map(|version| format!("web-{version}-abcde")).collect();
    snapshot.endpoints.insert(service.to_owned(), Endpoints { pods });
}

fn routed(routing: Value) -> Value {
    canary(json!({
        "steps": [{"setWeight": 25}, {"pause": {}}],
        "canaryService": "web-canary", "stableService": "web-stable", "trafficRouting": routing,
    }))
}

fn weight(decision: &Decision) -> i32 {
    decision.status.canary.weights.as_ref().map_or(-1, |w| w.canary.weight)
}

#[test]
fn no_weight_goes_to_a_service_that_leads_nowhere() {
    let strategy = routed(json!({"plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "web"}}}));
    let mut snapshot = updating(&strategy, 4, 1, 0);
    snapshot.replica_sets[1] = replica_set("v2", 1, 1);
    leads(&mut snapshot, "web-stable", &["v1"]);
    leads(&mut snapshot, "web-canary", &["v1"]);
    let decision = decide(&snapshot, now());
    assert_eq!(weight(&decision), 0);
    let waits = "waits until Service web-canary has a ready endpoint of ReplicaSet web-v2";
    assert!(decision.why.iter().any(|why| why == waits), "{:?}", decision.why);
    assert!(decision.wake.is_some(), "looks again even when no news comes");
    leads(&mut snapshot, "web-canary", &["v2"]);
    assert_eq!(weight(&decide(&snapshot, now())), 0, "the Service is switched in this very pass");
    snapshot.services.insert("web-canary".to_owned(), service("v2"));
    assert_eq!(weight(&decide(&snapshot, now())), 25);
    snapshot.endpoints.clear();
    assert_eq!(weight(&decide(&snapshot, now())), 25, "nobody knows of endpoints");
}

#[test]
fn no_weight_goes_to_a_variant_of_an_experiment_that_leads_nowhere() {
    let variant = |name: &str, weight: i32| json!({"name": name, "specRef": "canary", "weight": weight});
    let strategy = canary(json!({
        "steps": [{"experiment": {"templates": [variant("a", 10), variant("b", 20)]}}, {"pause": {}}],
        "canaryService": "web-canary", "stableService": "web-stable",
        "trafficRouting": {"plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "web"}}},
    }));
    let mut snapshot = updating(&strategy, 4, 1, 0);
    let variant = |name: &str| json!({"name": name, "availableReplicas": 1, "serviceName": format!("e-{name}"), "podTemplateHash": name});
    let experiment = json!({
        "metadata": {"name": "e", "namespace": "shop"}, "spec": {"templates": []},
        "status": {"phase": "Running", "templateStatuses": [variant("a"), variant("b")]},
    });
    snapshot.experiments = vec![serde_json::from_value(experiment).unwrap()];
    snapshot.rollout.status.canary.current_experiment = Some("e".to_owned());
    let shares = |snapshot: &Snapshot| -> Vec<(String, i32)> {
        let weights = decide(snapshot, now()).status.canary.weights.unwrap_or_default();
        let all = [&weights.stable].into_iter().chain(&weights.additional);
        all.map(|w| (w.service_name.clone().unwrap_or_default(), w.weight)).collect()
    };
    let expected = |shares: &[(&str, i32)]| -> Vec<(String, i32)> {
        shares.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
    };
    snapshot.endpoints.insert("e-a".to_owned(), Endpoints::default());
    snapshot.endpoints.insert("e-b".to_owned(), Endpoints { pods: ["e-b-abcde".to_owned()].into() });
    assert_eq!(shares(&snapshot), expected(&[("web-stable", 80), ("e-b", 20)]));
    let decision = decide(&snapshot, now());
    assert!(decision.why.iter().any(|why| why == "waits until Service e-a has a ready endpoint"), "{:?}", decision.why);
    snapshot.endpoints.insert("e-a".to_owned(), Endpoints { pods: ["e-a-abcde".to_owned()].into() });
    assert_eq!(shares(&snapshot), expected(&[("web-stable", 70), ("e-a", 10), ("e-b", 20)]));
    snapshot.endpoints.clear();
    assert_eq!(
        shares(&snapshot),
        expected(&[("web-stable", 70), ("e-a", 10), ("e-b", 20)]),
        "nobody knows of endpoints"
    );
}

#[test]
fn users_have_switched_when_the_endpoints_have() {
    let strategy = json!({"blueGreen": {"activeService": "web-active", "scaleDownDelaySeconds": 0}});
    let mut snapshot = updating(&strategy, 4, 4, 0);
    snapshot.replica_sets[1] = replica_set("v2", 4, 4);
    leads(&mut snapshot, "web-active", &["v2"]);
    let switch = ["web-active selects v2", "tell SwitchService", "Progressing"];
    assert_eq!(words(&decide(&snapshot, now())), switch, "what was behind it before the switch says nothing");
    leads(&mut snapshot, "web-active", &["v1"]);
    let decision = decide(&snapshot, now());
    assert_eq!(words(&decision), switch);
    snapshot.rollout.status = decision.status;
    snapshot.services.insert("web-active".to_owned(), service("v2"));
    let decision = decide(&snapshot, now());
    assert_eq!(words(&decision), ["Progressing"], "the old version stays as long as users reach it");
    leads(&mut snapshot, "web-active", &["v2"]);
    snapshot.replica_sets[1] = replica_set("v2", 4, 3);
    let told = words(&decide(&snapshot, now()));
    assert_eq!(told, ["Progressing"], "a pod was lost since the switch, and the old version is the way back");
    snapshot.replica_sets[1] = replica_set("v2", 4, 4);
    let told = words(&decide(&snapshot, now()));
    assert_eq!(told, ["patch web-v1 +scale-down-deadline", "tell RolloutCompleted", "Healthy"]);
}

#[test]
fn a_header_route_goes_before_the_last_pod_that_it_leads_to() {
    let header = json!({"name": "testers", "match": [{"headerName": "x", "headerValue": {"exact": "1"}}]});
    let strategy = canary(json!({
        "steps": [
            {"setCanaryScale": {"replicas": 1}}, {"setHeaderRoute": header}, {"pause": {}},
            {"setCanaryScale": {"matchTrafficWeight": true}}, {"pause": {}},
        ],
        "canaryService": "web-canary", "stableService": "web-stable",
        "trafficRouting": {
            "managedRoutes": [{"name": "testers"}], "plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "web"}},
        },
    }));
    let mut snapshot = updating(&strategy, 4, 1, 1);
    snapshot.services.insert("web-canary".to_owned(), service("v2"));
    let rules = |snapshot: &Snapshot| {
        let route = snapshot.routing.0.values().next().unwrap();
        route["spec"]["rules"].as_array().unwrap().len()
    };
    snapshot.rollout.status.current_step_index = Some(2);
    for action in decide(&snapshot, now()).actions {
        let Action::Route(tidegate_traffic::Write::Patch { patch, .. }) = action else { continue };
        snapshot.routing.0.values_mut().for_each(|route| tidegate_crds::patch::merge_apply(route, &patch));
    }
    assert_eq!(rules(&snapshot), 2, "testers are led to the canary");
    snapshot.rollout.status.current_step_index = Some(3);
    let decision = decide(&snapshot, now());
    let told: Vec<&str> = decision
        .actions
        .iter()
        .map(|action| match action {
            Action::Route(tidegate_traffic::Write::Patch { patch, .. }) => {
                assert_eq!(patch["spec"]["rules"].as_array().unwrap().len(), 1, "{patch}");
                "route"
            }
            Action::PatchReplicaSet { change, .. } => {
                assert_eq!(change.replicas, Some(0));
                "shrink"
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["route", "shrink"]);
}

/// An Ingress whose load balancer has these weights for canary and stable version.
fn load_balancer(weights: [i32; 2]) -> Answer {
    let group = |service: &str, weight: i32| TargetGroup {
        resource: format!("shop/web-{service}:80"),
        name: service.to_owned(),
        arn: format!("arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/{service}/6d0e"),
        weights: [weight].into(),
    };
    let balancer = Balancer {
        name: "shop".to_owned(),
        arn: "arn:aws:elasticloadbalancing:eu-west-1:1:loadbalancer/app/shop/50dc".to_owned(),
        groups: vec![group("web-canary", weights[0]), group("web-stable", weights[1])],
    };
    let balancers = Balancers { found: vec![balancer], unknown: Vec::new() };
    Answer {
        tag: "ingress.k8s.aws/resource".into(),
        ingresses: [("web".into(), Ok(balancers))].into(),
        ..Default::default()
    }
}

#[test]
fn a_step_waits_until_the_load_balancer_has_its_weight() {
    let strategy = routed(json!({"alb": {"ingress": "web", "servicePort": 80}}));
    let path = json!({"path": "/", "backend": {"service": {"name": "web-stable", "port": {"name": "use-annotation"}}}});
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"rules": [{"http": {"paths": [path]}}]},
        "status": {"loadBalancer": {"ingress": [{"hostname": "shop-1.eu-west-1.elb.amazonaws.com"}]}},
    });
    let target = ObjectRef::new("networking.k8s.io/v1", "Ingress", "ingresses", "shop", "web");
    let mut snapshot = Snapshot {
        rollout: rollout(&strategy, "v1", json!({})),
        replica_sets: vec![replica_set("v1", PODS, PODS)],
        services: ["web-stable", "web-canary"].map(|name| (name.to_owned(), service("v1"))).into(),
        aws: Some(Answer::default()),
        ..Snapshot::default()
    };
    snapshot.routing.0.insert(target.clone(), ingress);
    let step = |snapshot: &mut Snapshot| {
        let decision = decide(snapshot, now());
        for action in &decision.actions {
            if let Action::Route(tidegate_traffic::Write::Patch { patch, .. }) = action {
                tidegate_crds::patch::merge_apply(snapshot.routing.0.get_mut(&target).unwrap(), patch);
            }
        }
        snapshot.rollout.status = decision.status.clone();
        decision
    };
    step(&mut snapshot);
    assert_eq!(step(&mut snapshot).status.canary.weights.unwrap().verified, Some(false), "nobody has asked yet");
    let question = alb::question(&snapshot);
    assert_eq!(question.ingresses["web"], ["shop-1.eu-west-1.elb.amazonaws.com".to_owned()].into());
    snapshot.aws = Some(load_balancer([0, 100]));
    assert_eq!(step(&mut snapshot).status.canary.weights.unwrap().verified, Some(true));
    assert!(alb::question(&snapshot).is_empty(), "what is known is not asked again");

    let status = serde_json::to_value(&snapshot.rollout.status).unwrap();
    snapshot.rollout = rollout(&strategy, "v2", status);
    snapshot.replica_sets.push(replica_set("v2", 1, 1));
    snapshot.services.insert("web-canary".to_owned(), service("v2"));
    let decision = step(&mut snapshot);
    let weights = decision.status.canary.weights.unwrap();
    assert_eq!((weights.canary.weight, weights.verified), (25, Some(false)), "just written");
    let decision = step(&mut snapshot);
    assert_eq!(decision.status.current_step_index, Some(0));
    let wrong = "target group web-canary of load balancer shop has weight {0}, not 25";
    assert!(decision.why.iter().any(|why| why == wrong), "{:?}", decision.why);
    let alb = decision.status.alb.unwrap();
    assert_eq!(alb.load_balancer.full_name.as_deref(), Some("app/shop/50dc"));
    assert_eq!(alb.canary_target_group.full_name.as_deref(), Some("targetgroup/web-canary/6d0e"));
    assert_eq!(alb.stable_target_group.name, "web-stable");

    snapshot
        .aws
        .as_mut()
        .unwrap()
        .ingresses
        .insert("web".into(), Err("AWS answered DescribeTags with Throttling".into()));
    let told: Vec<String> = step(&mut snapshot).events.into_iter().map(|event| event.reason).collect();
    assert_eq!(told, ["WeightVerifyError"]);
    snapshot.aws = Some(load_balancer([25, 75]));
    assert_eq!(step(&mut snapshot).status.current_step_index, Some(1));
}

#[test]
fn users_have_switched_when_the_target_groups_have() {
    let strategy = json!({"blueGreen": {"activeService": "web-active"}});
    let mut snapshot = updating(&strategy, 4, 4, 0);
    snapshot.replica_sets[1] = replica_set("v2", 4, 4);
    leads(&mut snapshot, "web-active", &["v1"]);
    snapshot.rollout.status = decide(&snapshot, now()).status;
    snapshot.services.insert("web-active".to_owned(), service("v2"));
    leads(&mut snapshot, "web-active", &["v2"]);
    let question = alb::question(&snapshot);
    assert_eq!(question.services, ["web-active".to_owned()].into());
    leads(&mut snapshot, "web-active", &["v1"]);
    assert_ne!(alb::question(&snapshot), question, "an answer about the former endpoints is none");
    leads(&mut snapshot, "web-active", &["v2"]);
    let registration = |missing| Registration { groups: vec!["arn:1".into()], endpoints: 4, missing };
    let of = |found| Answer { services: [("web-active".to_owned(), found)].into(), ..Answer::default() };
    let table = [
        (Ok(registration(3)), "tell TargetGroupUnverified", "Progressing"),
        (
            Err("AWS answered DescribeTargetHealth with AccessDenied".to_owned()),
            "tell TargetGroupVerifyError",
            "Progressing",
        ),
        (Ok(registration(0)), "tell TargetGroupVerified", "Healthy"),
    ];
    let phase = |snapshot: &Snapshot| decide(snapshot, now()).status.phase.unwrap_or_default();
    snapshot.aws = Some(Answer::default());
    assert_eq!(phase(&snapshot), "Progressing", "nobody has answered yet");
    snapshot.aws = Some(Answer { complete: true, ..Answer::default() });
    assert_eq!(phase(&snapshot), "Healthy", "no target group is bound to the Service");
    for (found, told, phase) in table {
        snapshot.aws = Some(of(found));
        let words = words(&decide(&snapshot, now()));
        assert!(words.iter().any(|word| word == told), "{words:?}");
        assert_eq!(words.last().unwrap(), phase);
    }
}
