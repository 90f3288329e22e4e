//! Rollouts drawn at random from the whole specification, and what has to be there for them.

use crate::cluster::{Actor, Kind, ROLLOUT, World, text};
use crate::meshes::{self, MESHES, Mesh};
use crate::random::Random;
use serde_json::{Value, json};

/// The Deployment to which a Rollout may refer.
pub const WORKLOAD: &str = "web-before";

/// A pod template with this image.
pub fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": image}]}})
}

fn analysis() -> Value {
    json!({"templates": [{"templateName": "check"}]})
}

/// A number of pods or a percentage, in all forms.
fn bound(random: &mut Random) -> Value {
    match random.range(0, 7) {
        0 => json!(0),
        1 => json!(1),
        2 => json!(3),
        3 => json!("0"),
        4 => json!("20%"),
        5 => json!("50"),
        6 => json!("100%"),
        _ => json!(2),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Router {
    None,
    Gateway,
    Nginx,
    Mesh(Mesh),
}

impl Router {
    fn knows_headers(self) -> bool {
        match self {
            Self::Mesh(mesh) => mesh.knows_headers(),
            _ => self == Self::Gateway,
        }
    }

    fn weighs_experiments(self) -> bool {
        match self {
            Self::Mesh(mesh) => mesh.weighs_experiments(),
            _ => self == Self::Gateway,
        }
    }
}

fn step(random: &mut Random, router: Router) -> Value {
    let routed = router != Router::None;
    let weight = json!({"setWeight": random.pick(&[0, 1, 5, 10, 20, 25, 33, 50, 60, 75, 80, 99, 100])});
    match random.range(0, 19) {
        0..=7 => weight,
        8..=9 => json!({"pause": {}}),
        10 => json!({"pause": {"duration": random.range(1, 90)}}),
        11 => json!({"pause": {"duration": random.pick(&["10", "30s", "1m", "0"])}}),
        12..=13 => json!({"analysis": analysis()}),
        14 if routed => json!({"setCanaryScale": {"replicas": random.range(1, 6)}}),
        15 if routed => json!({"setCanaryScale": {"weight": random.pick(&[10, 25, 50, 100])}}),
        16 if routed => json!({"setCanaryScale": {"matchTrafficWeight": true}}),
        17 if router.knows_headers() => {
            let matches = json!([{"headerName": "x-canary", "headerValue": {"exact": "yes"}}]);
            let name = random.pick(&["header-one", "header-two"]);
            if random.percent(70) {
                json!({"setHeaderRoute": {"name": name, "match": matches}})
            } else {
                json!({"setHeaderRoute": {"name": name}})
            }
        }
        19 if router == Router::Gateway && random.percent(40) => {
            let matches = json!([{"path": {"prefix": "/mirrored"}}]);
            json!({"setMirrorRoute": {"name": "mirror", "match": matches, "percentage": random.pick(&[5, 100])}})
        }
        18 if router.weighs_experiments() => {
            let mut variant = json!({"name": "variant", "specRef": random.pick(&["canary", "stable"]), "replicas": 1});
            if random.percent(50) {
                variant["weight"] = json!(5);
            }
            json!({"experiment": {"duration": "30s", "templates": [variant]}})
        }
        18 => json!({"experiment": {"duration": "30s", "templates": [
            {"name": "variant", "specRef": "canary", "replicas": 1}]}}),
        _ => weight,
    }
}

fn steps(random: &mut Random, router: Router) -> Value {
    let count = random.range(0, 5);
    let mut steps: Vec<Value> = (0..count).map(|_| step(random, router)).collect();
    // An experiment's own share and the canary's together are everything at the most.
    let weighted = steps.iter().any(|s| s.pointer("/experiment/templates/0/weight").is_some());
    if weighted {
        for step in &mut steps {
            if let Some(weight) = step.get_mut("setWeight")
                && weight.as_i64().is_some_and(|w| w > 90)
            {
                *weight = json!(90);
            }
        }
    }
    Value::Array(steps)
}

fn canary(random: &mut Random, router: Router) -> Value {
    let mut canary = json!({});
    let routed = router != Router::None;
    if random.percent(85) {
        canary["steps"] = steps(random, router);
    }
    if random.percent(60) {
        let (mut surge, unavailable) = (bound(random), bound(random));
        if (surge == json!(0) || surge == json!("0")) && (unavailable == json!(0) || unavailable == json!("0")) {
            surge = json!(1);
        }
        canary["maxSurge"] = surge;
        canary["maxUnavailable"] = unavailable;
    }
    if routed || random.percent(40) {
        canary["canaryService"] = json!("web-canary");
        canary["stableService"] = json!("web-stable");
    }
    if random.percent(15) {
        let mut background = analysis();
        background["startingStep"] = json!(random.range(0, 2));
        canary["analysis"] = background;
    }
    if random.percent(15) {
        canary["canaryMetadata"] = json!({"labels": {"role": "canary"}});
        canary["stableMetadata"] = json!({"labels": {"role": "stable"}, "annotations": {"note": "settled"}});
    }
    if random.percent(10) {
        canary["antiAffinity"] = json!({"preferredDuringSchedulingIgnoredDuringExecution": {"weight": 10}});
    }
    if random.percent(15) {
        canary["replicaProgressThreshold"] = if random.percent(50) {
            json!({"type": "Percent", "value": random.range(30, 100)})
        } else {
            json!({"type": "Pods", "value": 1})
        };
    }
    if !routed {
        return canary;
    }
    canary["trafficRouting"] = match router {
        Router::Mesh(mesh) => mesh.routing(),
        Router::Gateway => json!({
            "plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "route", "namespace": crate::cluster::NAMESPACE}},
            "managedRoutes": [{"name": "header-one"}, {"name": "header-two"}, {"name": "mirror"}],
        }),
        _ => json!({"nginx": {"stableIngress": "ingress"}}),
    };
    if !matches!(router, Router::Mesh(_)) && random.percent(15) {
        canary["trafficRouting"]["maxTrafficWeight"] = json!(1000);
    }
    if router == Router::Mesh(Mesh::IstioSubsets)
        && random.percent(75)
        && let Some(map) = canary.as_object_mut()
    {
        map.remove("canaryService");
        map.remove("stableService");
    }
    if router == Router::Gateway && random.percent(15) {
        canary["pingPong"] = json!({"pingService": "web-stable", "pongService": "web-canary"});
        if let Some(map) = canary.as_object_mut() {
            map.remove("canaryService");
            map.remove("stableService");
        }
    }
    if random.percent(25) {
        canary["dynamicStableScale"] = json!(true);
    } else if random.percent(50) {
        canary["scaleDownDelaySeconds"] = json!(random.range(0, 60));
    }
    if random.percent(30) {
        canary["abortScaleDownDelaySeconds"] = json!(random.pick(&[0, 1, 10, 40]));
    }
    if random.percent(20) {
        canary["minPodsPerReplicaSet"] = json!(random.range(1, 3));
    }
    if random.percent(15) {
        canary["scaleDownDelayRevisionLimit"] = json!(random.range(0, 2));
    }
    canary
}

fn blue_green(random: &mut Random) -> Value {
    let mut strategy = json!({"activeService": "web-active"});
    if random.percent(70) {
        strategy["previewService"] = json!("web-preview");
    }
    if random.percent(40) {
        strategy["previewReplicaCount"] = json!(random.range(1, 4));
    }
    if random.percent(40) {
        strategy["autoPromotionEnabled"] = json!(random.percent(40));
    }
    if random.percent(30) {
        strategy["autoPromotionSeconds"] = json!(random.range(1, 60));
    }
    if random.percent(30) {
        strategy["prePromotionAnalysis"] = analysis();
    }
    if random.percent(30) {
        strategy["postPromotionAnalysis"] = analysis();
    }
    if random.percent(50) {
        strategy["scaleDownDelaySeconds"] = json!(random.range(0, 60));
    }
    if random.percent(30) {
        strategy["abortScaleDownDelaySeconds"] = json!(random.pick(&[0, 1, 10, 40]));
    }
    if random.percent(15) {
        strategy["scaleDownDelayRevisionLimit"] = json!(random.range(0, 2));
    }
    if random.percent(15) {
        strategy["activeMetadata"] = json!({"labels": {"role": "active"}});
        strategy["previewMetadata"] = json!({"labels": {"role": "preview"}});
    }
    strategy
}

/// A Rollout with this strategy.
pub fn rollout(replicas: i64, strategy: &Value) -> Value {
    json!({
        "metadata": {"name": ROLLOUT, "labels": {"user": "l"}, "annotations": {"user": "a"}},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": template("web:1"), "strategy": strategy,
        },
    })
}

fn strategy(random: &mut Random) -> Value {
    match random.range(0, 9) {
        0..=1 => json!({"canary": canary(random, Router::None)}),
        2 => {
            let (mesh, _) = random.pick(&MESHES);
            json!({"canary": canary(random, Router::Mesh(mesh))})
        }
        3..=5 => json!({"canary": canary(random, Router::Gateway)}),
        6 => json!({"canary": canary(random, Router::Nginx)}),
        _ => json!({"blueGreen": blue_green(random)}),
    }
}

/// A Rollout from the whole specification.
pub fn random_rollout(random: &mut Random) -> Value {
    let strategy = strategy(random);
    let mut rollout = rollout(random.range(1, 10), &strategy);
    if random.percent(5)
        && let Some(spec) = rollout["spec"].as_object_mut()
    {
        spec.remove("replicas");
    }
    if random.percent(40) {
        rollout["spec"]["minReadySeconds"] = json!(random.range(1, 20));
    }
    if random.percent(60) {
        rollout["spec"]["progressDeadlineSeconds"] = json!(random.range(60, 300));
    }
    if random.percent(20) {
        rollout["spec"]["progressDeadlineAbort"] = json!(true);
    }
    if random.percent(30) {
        let delayed = rollout.pointer("/spec/strategy/blueGreen/scaleDownDelayRevisionLimit").and_then(Value::as_i64);
        rollout["spec"]["revisionHistoryLimit"] = json!(random.range(delayed.unwrap_or(0), 3));
    }
    if random.percent(20) {
        rollout["spec"]["rollbackWindow"] = json!({"revisions": random.range(1, 3)});
    }
    if random.percent(12) {
        let mut reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": WORKLOAD});
        if random.percent(75) {
            reference["scaleDown"] = json!(random.pick(&["never", "onsuccess", "progressively", "progressively"]));
        }
        rollout["spec"]["workloadRef"] = reference;
        for part in ["template", "selector"] {
            rollout["spec"].as_object_mut().map(|spec| spec.remove(part));
        }
    }
    if random.percent(20) {
        let limit = random.range(0, 2);
        rollout["spec"]["analysis"] = json!({"successfulRunHistoryLimit": limit, "unsuccessfulRunHistoryLimit": limit});
    }
    rollout
}

/// What is drawn beside the Rollout, with numbers of its own, so that the seeds that found something before stay what they
/// were. Gives whether AWS is asked.
pub fn draw_more(random: &mut Random, rollout: &mut Value) -> bool {
    let routing = rollout.pointer("/spec/strategy/canary/trafficRouting");
    let mesh = routing.and_then(Mesh::of);
    let aws = (mesh == Some(Mesh::Alb) || rollout.pointer("/spec/strategy/blueGreen").is_some()) && random.percent(50);
    let Some(canary) = rollout.pointer_mut("/spec/strategy/canary") else { return aws };
    if mesh.is_some_and(|mesh| mesh != Mesh::Alb) && random.percent(15) {
        canary["trafficRouting"] = Mesh::VirtualNodes.routing();
        canary["canaryService"] = json!("web-canary");
        canary["stableService"] = json!("web-stable");
        for step in canary.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten() {
            if step.get("setHeaderRoute").is_some() || step.get("experiment").is_some() {
                *step = json!({"setWeight": 40});
            }
        }
    }
    if random.percent(3)
        && let Some(steps) = canary.get_mut("steps").and_then(Value::as_array_mut)
    {
        let at = random.range(0, steps.len() as i64);
        steps.insert(usize::try_from(at).unwrap_or(0), json!({"plugin": {"name": "acme/gate", "config": {"a": 1}}}));
    }
    aws
}

/// The user edits the steps of a running update.
pub fn change_steps(world: &mut World) {
    let rollout = world.rollout().clone();
    let Some(canary) = rollout.pointer("/spec/strategy/canary") else { return };
    let steps = steps(&mut world.random, router_of(canary));
    crate::users::patch_rollout(world, "", &json!({"spec": {"strategy": {"canary": {"steps": steps}}}}));
}

/// The user moves between canary, with routes and without, and blue-green. A routed canary's Services keep their names.
/// Routes are nobody's without a canary that has them: the user gives everything to the stable Service, after a move
/// away from them as before a move to them.
pub fn change_strategy(world: &mut World) {
    let rollout = world.rollout().clone();
    let before = rollout.pointer("/spec/strategy/canary");
    let (strategy, router) = if let Some(canary) = before {
        let mut blue_green = blue_green(&mut world.random);
        if let Some(map) = blue_green.as_object_mut() {
            map.remove("scaleDownDelayRevisionLimit");
        }
        if canary.get("trafficRouting").is_some() {
            let mut services = ["web-stable", "web-canary"];
            if canary.get("pingPong").is_some() && text(&rollout, "/status/canary/stablePingPong") == "pong" {
                services.reverse();
            }
            for (field, service) in ["activeService", "previewService"].into_iter().zip(services) {
                if blue_green.get(field).is_some() {
                    blue_green[field] = json!(service);
                }
            }
        }
        (json!({"canary": null, "blueGreen": blue_green}), router_of(canary))
    } else {
        let router = match world.random.range(0, 9) {
            0..=3 => Router::None,
            4 => Router::Nginx,
            5..=6 => Router::Mesh(world.random.pick(&MESHES).0),
            _ => Router::Gateway,
        };
        (json!({"canary": canary(&mut world.random, router), "blueGreen": null}), router)
    };
    let change = json!({"spec": {"strategy": strategy}});
    if before.is_some() {
        crate::users::patch_rollout(world, "", &change);
        apply_routes(world, router);
    } else {
        apply_routes(world, router);
        crate::users::patch_rollout(world, "", &change);
    }
}

fn router_of(canary: &Value) -> Router {
    match canary.get("trafficRouting") {
        None => Router::None,
        Some(routing) if routing.get("nginx").is_some() => Router::Nginx,
        Some(routing) => Mesh::of(routing).map_or(Router::Gateway, Router::Mesh),
    }
}

/// The user makes a mistake, or mends it.
pub fn mistake(world: &mut World) {
    let deadline = world.rollout()["spec"]["progressDeadlineSeconds"].as_i64();
    let seconds = if deadline == Some(0) { 200 } else { 0 };
    crate::users::patch_rollout(world, "", &json!({"spec": {"progressDeadlineSeconds": seconds}}));
}

fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"user": "l"}, "annotations": {"user": "a"}},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    })
}

/// The user applies what a router goes by, with everything on the stable Service.
fn apply_routes(world: &mut World, router: Router) {
    match router {
        Router::None => {}
        Router::Gateway => {
            let backend = |name: &str, weight: i64| json!({"name": name, "port": 80, "weight": weight});
            let spec = json!({
                "parentRefs": [{"name": "gateway"}],
                "rules": [
                    {"backendRefs": [backend("web-stable", 100), backend("web-canary", 0)]},
                    {"name": "foreign", "matches": [{"path": {"type": "Exact", "value": "/other"}}],
                     "backendRefs": [backend("other", 3), backend("third", 7)]},
                ],
            });
            meshes::apply(world, Kind::HttpRoute, "route", &spec);
        }
        Router::Nginx => {
            let backend = json!({"service": {"name": "web-stable", "port": {"number": 80}}});
            let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
            let spec = json!({"rules": [{"host": "web.example.com", "http": {"paths": [path]}}]});
            let _ = world.delete(Actor::User, Kind::Ingress, "web-ingress-canary", "");
            meshes::apply(world, Kind::Ingress, "ingress", &spec);
        }
        Router::Mesh(mesh) => mesh.furnish(world),
    }
}

/// Puts everything in place that the Rollout needs, and some things that are somebody else's.
pub fn furnish(world: &mut World, rollout: &Value) {
    for name in ["web-canary", "web-stable", "web-active", "web-preview", "other"] {
        let _ = world.create(Actor::User, Kind::Service, &service(name));
    }
    apply_routes(world, Router::Gateway);
    apply_routes(world, Router::Nginx);
    if let Some(mesh) = rollout.pointer("/spec/strategy/canary/trafficRouting").and_then(Mesh::of) {
        mesh.furnish(world);
    }
    let check = json!({
        "metadata": {"name": "check"},
        "spec": {"metrics": [{
            "name": "errors", "count": 1, "successCondition": "result[0] < 1",
            "provider": {"prometheus": {"address": "http://prometheus:9090", "query": "errors"}},
        }]},
    });
    let _ = world.create(Actor::User, Kind::AnalysisTemplate, &check);
    if let Some(reference) = rollout.pointer("/spec/workloadRef") {
        let pods = rollout.pointer("/spec/replicas").cloned().unwrap_or_else(|| json!(1));
        let deployment = json!({
            "metadata": {"name": text(reference, "/name"), "labels": {"user": "l"}, "annotations": {"user": "a"}},
            "spec": {"replicas": pods, "selector": {"matchLabels": {"app": "web"}}, "template": template("web:1")},
        });
        let _ = world.create(Actor::User, Kind::Deployment, &deployment);
    }
    // Somebody else's pods, that the Rollout's selector would select were they not owned.
    let foreign = json!({
        "metadata": {
            "name": "foreign-1", "labels": {"app": "web", "rollouts-pod-template-hash": "1"},
            "ownerReferences": [{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "foreign",
                "uid": "uid-foreign", "controller": true}],
        },
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web", "rollouts-pod-template-hash": "1"}},
            "template": template("foreign:1")},
    });
    let _ = world.create(Actor::User, Kind::ReplicaSet, &foreign);
    let _ = world.create(Actor::User, Kind::Rollout, rollout);
    world.user.release = 1;
}
