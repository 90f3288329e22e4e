//! Scenes that have to go one way only, and the troubles of the peers' users.

use crate::cluster::{Actor, Kind, ROLLOUT, World, int, label, text};
use crate::meshes::{self, Mesh, weights_now};
use crate::platform::available;
use crate::shares::{selected, shares};
use crate::simulation::Simulation;
use crate::{spec, users};
use serde_json::{Value, json};
use tidegate_crds::keys;

/// Long enough for pods to come and delays to pass.
const WHILE: i64 = 120_000;

fn canary(steps: &Value) -> Value {
    json!({"canary": {"steps": steps}})
}

pub fn routed(steps: &Value, more: &Value) -> Value {
    let mut strategy = json!({"canary": {
        "steps": steps, "canaryService": "web-canary", "stableService": "web-stable",
        "trafficRouting": {
            "plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "route", "namespace": "shop"}},
            "managedRoutes": [{"name": "header-one"}],
        },
    }});
    tidegate_crds::patch::merge_apply(&mut strategy["canary"], more);
    strategy
}

pub fn blue_green(more: &Value) -> Value {
    let mut strategy = json!({"blueGreen": {"activeService": "web-active", "previewService": "web-preview"}});
    tidegate_crds::patch::merge_apply(&mut strategy["blueGreen"], more);
    strategy
}

/// The first version is out, and nothing is going on.
pub fn deployed(replicas: i64, strategy: &Value) -> Simulation {
    let mut simulation = Simulation::new(1, &spec::rollout(replicas, strategy), true);
    simulation.world().calm = true;
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Healthy", "");
    simulation.events.clear();
    simulation
}

fn told(simulation: &mut Simulation) -> Vec<String> {
    std::mem::take(&mut simulation.events)
}

pub fn status(simulation: &Simulation, field: &str) -> String {
    text(simulation.world().rollout(), &format!("/status/{field}")).to_owned()
}

pub fn assert_phase(simulation: &Simulation, phase: &str, message: &str) {
    let world = simulation.world();
    let log = || world.trace.lines[world.trace.lines.len().saturating_sub(40)..].join("\n");
    assert_eq!(world.violation, None, "{}", log());
    assert_eq!(text(world.rollout(), "/status/phase"), phase, "{}", log());
    assert!(text(world.rollout(), "/status/message").starts_with(message), "{}", log());
}

pub fn hash_of_image(world: &World, image: &str) -> String {
    let (_, object) = world
        .of_kind(Kind::ReplicaSet)
        .find(|(_, o)| text(o, "/spec/template/spec/containers/0/image") == image)
        .unwrap();
    label(object, keys::POD_TEMPLATE_HASH).to_owned()
}

fn size_of_image(world: &World, image: &str) -> i64 {
    world
        .of_kind(Kind::ReplicaSet)
        .filter(|(_, o)| text(o, "/spec/template/spec/containers/0/image") == image)
        .map(|(_, o)| int(o, "/spec/replicas"))
        .sum()
}

pub fn share_of_image(simulation: &Simulation, image: &str) -> i64 {
    let world = simulation.world();
    let hash = hash_of_image(&world, image);
    shares(&world).get(&hash).copied().unwrap_or(0)
}

/// The ordered lists of event reasons that clients compare. `RolloutAddedToInformer`, the first of all, is told when
/// the Rollout enters the store, before any pass.
#[test]
fn events_come_in_the_order_that_clients_compare() {
    let strategy = canary(&json!([{"setWeight": 50}, {"pause": {}}]));
    let mut simulation = Simulation::new(1, &spec::rollout(1, &strategy), true);
    simulation.run_for(WHILE);
    let first =
        ["RolloutUpdated", "NewReplicaSetCreated", "RolloutNotCompleted", "ScalingReplicaSet", "RolloutCompleted"];
    assert_eq!(told(&mut simulation), first);
    users::release(&mut simulation.world(), false);
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Paused", "CanaryPauseStep");
    let update = [
        "RolloutUpdated",
        "NewReplicaSetCreated",
        "RolloutNotCompleted",
        "ScalingReplicaSet",
        "RolloutStepCompleted",
        "RolloutPaused",
    ];
    assert_eq!(told(&mut simulation), update);
    users::abort(&mut simulation.world());
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Degraded", "RolloutAborted: Rollout aborted update to revision 2");
    assert_eq!(told(&mut simulation), ["ScalingReplicaSet", "RolloutAborted"]);
    users::retry(&mut simulation.world());
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Paused", "CanaryPauseStep");
    assert_eq!(told(&mut simulation), ["ScalingReplicaSet", "RolloutStepCompleted", "RolloutPaused"]);
    users::promote(&mut simulation.world());
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Healthy", "");
    let finish = ["RolloutStepCompleted", "RolloutResumed", "ScalingReplicaSet", "RolloutCompleted"];
    assert_eq!(told(&mut simulation), finish);
}

/// What is drawn at random is drawn for each of them; here it is seen that their objects carry the weights.
#[test]
fn every_router_carries_the_weights_of_the_steps() {
    for (mesh, name) in meshes::all() {
        let mut strategy =
            routed(&json!([{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}, {"pause": {}}]), &json!({}));
        strategy["canary"]["trafficRouting"] = mesh.routing();
        let by_subsets = mesh == Mesh::IstioSubsets;
        for service in ["canaryService", "stableService"].into_iter().filter(|_| by_subsets) {
            strategy["canary"].as_object_mut().unwrap().remove(service);
        }
        let canary = match mesh {
            Mesh::IstioSubsets => "subset/canary",
            Mesh::VirtualNodes => "node/canary-node",
            _ => "web-canary",
        };
        let mut simulation = deployed(5, &strategy);
        users::release(&mut simulation.world(), false);
        for weight in [20, 60] {
            simulation.run_for(WHILE);
            assert_phase(&simulation, "Paused", "CanaryPauseStep");
            assert_eq!(share_of_image(&simulation, "web:2"), weight, "{name}");
            let now: i64 =
                weights_now(&simulation.world(), mesh).iter().filter(|(s, _)| s == canary).map(|(_, w)| w).sum();
            assert_eq!(now, weight, "{name}");
            users::promote(&mut simulation.world());
        }
        simulation.run_for(WHILE);
        assert_phase(&simulation, "Healthy", "");
        assert_eq!(share_of_image(&simulation, "web:2"), 100, "{name}");
    }
}

/// The strategy becomes another one in the middle of an update, and the Services keep their names. The stable version
/// serves whole all along, and the update goes on as the new strategy has it.
#[test]
fn a_routed_canary_and_blue_green_take_over_from_each_other() {
    let blue_green = blue_green(&json!({
        "activeService": "web-stable", "previewService": "web-canary", "autoPromotionEnabled": false,
    }));
    for dynamic in [false, true] {
        let canary = routed(&json!([{"setWeight": 50}, {"pause": {}}]), &json!({ "dynamicStableScale": dynamic }));
        for (from, to) in [(&canary, &blue_green), (&blue_green, &canary)] {
            let mut simulation = deployed(4, from);
            users::release(&mut simulation.world(), false);
            simulation.run_for(WHILE);
            assert_phase(&simulation, "Paused", "");
            {
                let mut world = simulation.world();
                let change = tidegate_crds::patch::merge_diff(from, to).unwrap();
                users::patch_rollout(&mut world, "", &json!({"spec": {"strategy": change}}));
                world.history = Some(Vec::new());
            }
            simulation.run_for(WHILE);
            assert_phase(&simulation, "Paused", "");
            let stable = hash_of_image(&simulation.world(), "web:1");
            let smallest = if dynamic { 2 } else { 4 };
            for (_, id, object) in simulation.world().history.iter().flatten() {
                if id.0 == Kind::Service && id.1 == "web-stable" {
                    assert_eq!(text(object, &format!("/spec/selector/{}", keys::POD_TEMPLATE_HASH)), stable);
                }
                let ours = id.0 == Kind::ReplicaSet && id.1.ends_with(&stable);
                assert!(!ours || int(object, "/spec/replicas") >= smallest, "{object}");
            }
            let weights = simulation.world().rollout()["status"]["canary"]["weights"].clone();
            assert_eq!(weights.is_null(), to.get("blueGreen").is_some(), "{weights}");
            users::promote(&mut simulation.world());
            simulation.run_for(WHILE);
            assert_phase(&simulation, "Healthy", "");
            assert_eq!(share_of_image(&simulation, "web:2"), 100);
            let world = simulation.world();
            assert_eq!((size_of_image(&world, "web:1"), size_of_image(&world, "web:2")), (0, 4));
            assert_eq!(text(world.rollout(), "/status/stableRS"), hash_of_image(&world, "web:2"));
        }
    }
}

#[test]
fn a_canary_goes_20_pause_50_and_out() {
    let strategy =
        routed(&json!([{"setWeight": 20}, {"pause": {}}, {"setWeight": 50}, {"pause": {"duration": 30}}]), &json!({}));
    let mut simulation = deployed(5, &strategy);
    users::release(&mut simulation.world(), false);
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Paused", "CanaryPauseStep");
    assert_eq!((share_of_image(&simulation, "web:2"), size_of_image(&simulation.world(), "web:2")), (20, 1));
    assert_eq!(size_of_image(&simulation.world(), "web:1"), 5, "with routing the stable version stays whole");
    users::promote(&mut simulation.world());
    // Pods take their time; the pause after the weight is thirty seconds.
    let mut seconds = 0;
    while share_of_image(&simulation, "web:2") != 50 && seconds < 120 {
        simulation.run_for(1000);
        seconds += 1;
    }
    assert_eq!(share_of_image(&simulation, "web:2"), 50);
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Healthy", "");
    assert_eq!(size_of_image(&simulation.world(), "web:1"), 0, "the old version goes after its delay");
    let world = simulation.world();
    let stable = text(world.rollout(), "/status/stableRS").to_owned();
    assert_eq!(stable, hash_of_image(&world, "web:2"));
    assert_eq!((selected(&world, "web-stable"), selected(&world, "web-canary")), (stable.clone(), stable));
    assert_eq!(world.get(Kind::HttpRoute, "route").unwrap()["spec"]["rules"][0]["backendRefs"][0]["weight"], 100);
}

#[test]
fn going_back_to_the_stable_template_is_instant() {
    let mut simulation = deployed(4, &routed(&json!([{"setWeight": 50}, {"pause": {}}]), &json!({})));
    users::release(&mut simulation.world(), false);
    simulation.run_for(WHILE);
    assert_eq!(share_of_image(&simulation, "web:2"), 50);
    told(&mut simulation);
    users::apply_image(&mut simulation.world(), "web:1");
    simulation.run_for(2_000);
    assert_phase(&simulation, "Healthy", "");
    assert_eq!(share_of_image(&simulation, "web:1"), 100);
    assert!(told(&mut simulation).contains(&"SkipSteps".to_owned()));
    simulation.run_for(WHILE);
    assert_eq!(size_of_image(&simulation.world(), "web:2"), 0);
}

#[test]
fn a_newer_version_overtakes_one_in_flight() {
    for strategy in [
        canary(&json!([{"setWeight": 50}, {"pause": {}}])),
        routed(&json!([{"setWeight": 50}, {"pause": {}}]), &json!({})),
        blue_green(&json!({"autoPromotionEnabled": false})),
    ] {
        let mut simulation = deployed(4, &strategy);
        users::release(&mut simulation.world(), false);
        simulation.run_for(WHILE);
        assert_phase(&simulation, "Paused", "");
        users::release(&mut simulation.world(), false);
        simulation.run_for(WHILE);
        assert_phase(&simulation, "Paused", "");
        assert!(size_of_image(&simulation.world(), "web:3") > 0);
        users::promote(&mut simulation.world());
        simulation.run_for(WHILE);
        assert_phase(&simulation, "Healthy", "");
        let world = simulation.world();
        assert_eq!(text(world.rollout(), "/status/stableRS"), hash_of_image(&world, "web:3"));
        assert_eq!((size_of_image(&world, "web:1"), size_of_image(&world, "web:2")), (0, 0));
    }
}

#[test]
fn blue_green_switches_when_it_is_promoted() {
    let mut simulation = deployed(3, &blue_green(&json!({"autoPromotionEnabled": false, "previewReplicaCount": 1})));
    users::release(&mut simulation.world(), false);
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Paused", "BlueGreenPause");
    {
        let world = simulation.world();
        assert_eq!(selected(&world, "web-active"), hash_of_image(&world, "web:1"));
        assert_eq!(selected(&world, "web-preview"), hash_of_image(&world, "web:2"));
        assert_eq!(size_of_image(&world, "web:2"), 1, "the preview is small until it is promoted");
    }
    users::promote(&mut simulation.world());
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Healthy", "");
    let world = simulation.world();
    assert_eq!(selected(&world, "web-active"), hash_of_image(&world, "web:2"));
    assert_eq!((size_of_image(&world, "web:1"), size_of_image(&world, "web:2")), (0, 3));
}

#[test]
fn a_failed_analysis_after_the_switch_switches_back() {
    let analysis = json!({"templates": [{"templateName": "check"}]});
    let mut simulation = deployed(3, &blue_green(&json!({ "postPromotionAnalysis": analysis })));
    simulation.world().verdicts = vec!["Failed"];
    users::release(&mut simulation.world(), false);
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Degraded", "RolloutAborted");
    let world = simulation.world();
    let stable = hash_of_image(&world, "web:1");
    assert_eq!((selected(&world, "web-active"), available(&world, &stable)), (stable, 3));
}

/// A ReplicaSet of the peer's making: with its own hash, and with what an API server fills in.
fn peers_replica_set(world: &mut World, image: &str, hash: &str, replicas: i64, revision: &str) {
    let owner = json!([{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": ROLLOUT,
        "uid": text(world.rollout(), "/metadata/uid"), "controller": true, "blockOwnerDeletion": true}]);
    let mut template = spec::template(image);
    template["metadata"]["labels"][keys::POD_TEMPLATE_HASH] = hash.into();
    template["metadata"]["creationTimestamp"] = Value::Null;
    template["spec"]["restartPolicy"] = "Always".into();
    template["spec"]["containers"][0]["imagePullPolicy"] = "IfNotPresent".into();
    template["spec"]["containers"][0]["resources"] = json!({});
    let labels = json!({"app": "web", keys::POD_TEMPLATE_HASH: hash});
    let replica_set = json!({
        "metadata": {"name": format!("web-{hash}"), "labels": labels, "ownerReferences": owner,
            "annotations": {"user": "a", keys::REVISION: revision, keys::DESIRED_REPLICAS: "3"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    });
    world.create(Actor::Platform, Kind::ReplicaSet, &replica_set).unwrap();
    let annotations = json!({"metadata": {"annotations": {keys::REVISION: revision}}});
    world.patch(Actor::Platform, Kind::Rollout, ROLLOUT, "", &annotations).unwrap();
}

/// A cluster that the peer has worked in: its own hash on ReplicaSet, Services, status; 3 pods run.
fn peers_cluster(strategy: &Value, more: impl FnOnce(&mut World)) -> Simulation {
    Simulation::found(1, &spec::rollout(3, strategy), true, false, |world| {
        world.calm = true;
        peers_replica_set(world, "web:1", "6fd8c9b5d4", 3, "1");
        more(world);
        world.advance(WHILE);
    })
}

fn peers_status(world: &mut World, status: &Value) {
    world.patch(Actor::Platform, Kind::Rollout, ROLLOUT, "status", &json!({ "status": status })).unwrap();
}

/// Cut-over in the middle of an update: the pause stands, no step is taken back, and a promotion goes on from there.
#[test]
fn a_peers_paused_update_is_adopted_where_it_stands() {
    let strategy = canary(&json!([{"setWeight": 34}, {"pause": {}}]));
    let mut simulation = peers_cluster(&strategy, |world| {
        users::apply_image(world, "web:2");
        peers_replica_set(world, "web:2", "7c5ddbdf54", 1, "2");
        let smaller = json!({"spec": {"replicas": 2}});
        world.patch(Actor::Platform, Kind::ReplicaSet, "web-6fd8c9b5d4", "", &smaller).unwrap();
        let status = json!({
            "currentPodHash": "7c5ddbdf54", "stableRS": "6fd8c9b5d4", "currentStepHash": "6b9bf8b66",
            "currentStepIndex": 1, "observedGeneration": "2", "phase": "Paused", "message": "CanaryPauseStep",
            "controllerPause": true,
            "pauseConditions": [{"reason": "CanaryPauseStep", "startTime": "2026-01-01T00:00:30Z"}],
        });
        peers_status(world, &status);
    });
    let pods: Vec<String> = simulation.world().pods.keys().cloned().collect();
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Paused", "CanaryPauseStep");
    let events = told(&mut simulation);
    for unexpected in ["NewReplicaSetCreated", "ScalingReplicaSet", "RolloutUpdated", "RolloutStepCompleted"] {
        assert!(!events.contains(&unexpected.to_owned()), "{events:?}");
    }
    assert_eq!(simulation.world().pods.keys().cloned().collect::<Vec<_>>(), pods, "no pod was restarted");
    users::promote(&mut simulation.world());
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Healthy", "");
    assert_eq!(status(&simulation, "stableRS"), "7c5ddbdf54");
}

#[test]
fn a_peers_rollout_is_adopted_without_a_new_revision() {
    let strategy = canary(&json!([{"setWeight": 50}, {"pause": {}}]));
    let at_rest = json!({
        "currentPodHash": "6fd8c9b5d4", "stableRS": "6fd8c9b5d4", "currentStepHash": "5fb7d8c9d", "currentStepIndex": 2,
        "observedGeneration": "1", "phase": "Healthy", "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3,
        "availableReplicas": 3, "HPAReplicas": 3, "selector": "app=web",
        "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "message": ""}],
    });
    for status in [at_rest, Value::Null] {
        let mut simulation = peers_cluster(&strategy, |world| peers_status(world, &status));
        let own = |world: &World| -> Vec<String> {
            world.pods.keys().filter(|name| name.starts_with("web-")).cloned().collect()
        };
        let pods = own(&simulation.world());
        assert_eq!(pods.len(), 3);
        simulation.run_for(WHILE);
        assert_phase(&simulation, "Healthy", "");
        let events = told(&mut simulation);
        for unexpected in ["NewReplicaSetCreated", "ScalingReplicaSet", "RolloutUpdated"] {
            assert!(!events.contains(&unexpected.to_owned()), "{events:?}");
        }
        let mut world = simulation.world();
        assert_eq!(own(&world), pods, "no pod was restarted");
        let sets = world.of_kind(Kind::ReplicaSet).filter(|(name, _)| name.starts_with("web-")).count();
        assert_eq!((sets, text(world.rollout(), "/status/stableRS")), (1, "6fd8c9b5d4"));
        // A new version from here on is an update like any other.
        users::release(&mut world, false);
        drop(world);
        simulation.run_for(WHILE);
        assert_phase(&simulation, "Paused", "CanaryPauseStep");
    }
}

/// #4973: an aborted canary is not scaled up again, and no selector flaps.
#[test]
fn an_abort_never_scales_the_canary_up_again() {
    for delay in [json!(null), json!(0), json!(20)] {
        let more = json!({ "abortScaleDownDelaySeconds": delay });
        let mut simulation = deployed(4, &routed(&json!([{"setWeight": 50}, {"pause": {}}]), &more));
        users::release(&mut simulation.world(), false);
        simulation.run_for(WHILE);
        simulation.world().history = Some(Vec::new());
        users::abort(&mut simulation.world());
        simulation.run_for(600_000);
        assert_phase(&simulation, "Degraded", "RolloutAborted");
        let world = simulation.world();
        let hash = hash_of_image(&world, "web:2");
        let history = world.history.clone().unwrap_or_default();
        let written = |kind: Kind| history.iter().filter(move |(who, id, _)| *who == Actor::Controller && id.0 == kind);
        let mut size = 2;
        for (_, _, object) in written(Kind::ReplicaSet).filter(|(_, id, _)| id.1.ends_with(&hash)) {
            assert!(int(object, "/spec/replicas") <= size, "scaled up after the abort");
            size = int(object, "/spec/replicas");
        }
        assert_eq!(size, if delay == json!(0) { 2 } else { 0 });
        assert!(written(Kind::Service).count() <= 1, "each selector switches once at the most");
        assert_eq!(shares(&world).get(&hash), None);
    }
}

/// #4898: an abort with `dynamicStableScale` gives everything back, though the stable version has to grow first.
#[test]
fn an_abort_with_dynamic_stable_scale_gives_everything_back() {
    for delay in [json!(null), json!(0), json!(5)] {
        let more = json!({"dynamicStableScale": true, "abortScaleDownDelaySeconds": delay});
        for steps in
            [json!([{"setWeight": 100}, {"pause": {}}]), json!([{"setWeight": 30}, {"setWeight": 80}, {"pause": {}}])]
        {
            let mut simulation = deployed(5, &routed(&steps, &more));
            users::release(&mut simulation.world(), false);
            simulation.run_for(WHILE);
            assert_phase(&simulation, "Paused", "");
            assert!(size_of_image(&simulation.world(), "web:1") < 5, "the stable version has made room");
            users::abort(&mut simulation.world());
            simulation.run_for(WHILE);
            assert_phase(&simulation, "Degraded", "RolloutAborted");
            assert_eq!((share_of_image(&simulation, "web:1"), size_of_image(&simulation.world(), "web:1")), (100, 5));
        }
    }
}

/// #4390: a canary that loses its last pod loses its traffic.
#[test]
fn an_empty_canary_gets_no_traffic() {
    let mut simulation = deployed(2, &routed(&json!([{"setWeight": 50}, {"pause": {}}]), &json!({})));
    users::release(&mut simulation.world(), false);
    simulation.run_for(WHILE);
    assert_eq!(share_of_image(&simulation, "web:2"), 50);
    {
        let mut world = simulation.world();
        let hash = hash_of_image(&world, "web:2");
        let pods: Vec<String> = world.pods.iter().filter(|(_, p)| p.hash == hash).map(|(n, _)| n.clone()).collect();
        for pod in pods {
            crate::platform::delete_pod(&mut world, &pod);
        }
        world.history = Some(Vec::new());
    }
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Paused", "");
    assert_eq!(share_of_image(&simulation, "web:2"), 50, "the traffic comes back with the pod");
    let world = simulation.world();
    let weights = world.history.iter().flatten().filter(|(_, id, _)| id.0 == Kind::HttpRoute);
    let canary = |route: &Value| route["spec"]["rules"][0]["backendRefs"][1]["weight"].as_i64();
    assert!(weights.into_iter().any(|(_, _, route)| canary(route) == Some(0)), "it was taken away meanwhile");
}

/// #3316: conflicts delay, and never stop.
#[test]
fn conflicts_never_stop_an_update() {
    let mut simulation = deployed(3, &routed(&json!([{"setWeight": 50}, {"pause": {"duration": 5}}]), &json!({})));
    simulation.world().faults.conflict = 500;
    users::release(&mut simulation.world(), false);
    simulation.run_for(1_800_000);
    assert_phase(&simulation, "Healthy", "");
    assert_eq!(share_of_image(&simulation, "web:2"), 100);
}

/// A promotion that the controller has not heard of is not overwritten by what it writes meanwhile.
#[test]
fn a_promotion_behind_a_broken_watch_is_not_lost() {
    let mut simulation = deployed(3, &canary(&json!([{"setWeight": 50}, {"pause": {}}])));
    users::release(&mut simulation.world(), false);
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Paused", "CanaryPauseStep");
    {
        let mut world = simulation.world();
        world.break_watch(Kind::Rollout);
        users::promote(&mut world);
        // Something for the controller to note in the status that it still believes in.
        let pod = world.pods.keys().next().cloned().unwrap();
        crate::platform::delete_pod(&mut world, &pod);
    }
    simulation.run_for(40_000);
    assert_eq!(status(&simulation, "phase"), "Paused", "it cannot know yet");
    simulation.world().relist(Kind::Rollout);
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Healthy", "");
}

/// #4486: a header route stays until the end of the update, also when the controller is replaced in between.
#[test]
fn a_header_route_stays_until_the_end() {
    let header = json!({"name": "header-one", "match": [{"headerName": "x-canary", "headerValue": {"exact": "yes"}}]});
    let steps = json!([{"setCanaryScale": {"replicas": 1}}, {"setHeaderRoute": header}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]);
    let mut simulation = deployed(3, &routed(&steps, &json!({})));
    let has_header = |simulation: &Simulation| {
        let world = simulation.world();
        let rules =
            world.get(Kind::HttpRoute, "route").unwrap()["spec"]["rules"].as_array().cloned().unwrap_or_default();
        rules.iter().any(|rule| text(rule, "/name") == "header-one")
    };
    users::release(&mut simulation.world(), false);
    simulation.run_for(WHILE);
    assert!(has_header(&simulation));
    simulation.restart();
    simulation.run_for(WHILE);
    assert!(has_header(&simulation), "a restart leaves it");
    users::promote(&mut simulation.world());
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Paused", "CanaryPauseStep");
    assert!(has_header(&simulation), "later steps leave it");
    users::promote(&mut simulation.world());
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Healthy", "");
    assert!(!has_header(&simulation), "the end of the update takes it");
}

/// Whichever write is the last of a process, the next one ends in the same place.
#[test]
fn a_kill_after_any_write_ends_in_the_same_place() {
    let analysis = json!({"templates": [{"templateName": "check"}]});
    let strategies = [
        canary(&json!([{"setWeight": 50}, {"pause": {"duration": 3}}])),
        routed(&json!([{"setWeight": 50}, {"analysis": analysis}]), &json!({"dynamicStableScale": true})),
        blue_green(&json!({"autoPromotionSeconds": 3, "postPromotionAnalysis": analysis})),
    ];
    for strategy in strategies {
        let mut writes = 1;
        loop {
            let mut simulation = deployed(3, &strategy);
            simulation.world().verdicts = vec!["Successful"; 4];
            simulation.world().kill_after_writes = Some(writes);
            users::release(&mut simulation.world(), false);
            simulation.run_for(300_000);
            assert_phase(&simulation, "Healthy", "");
            let world = simulation.world();
            assert_eq!(text(world.rollout(), "/status/stableRS"), hash_of_image(&world, "web:2"));
            assert_eq!((size_of_image(&world, "web:1"), size_of_image(&world, "web:2")), (0, 3), "write {writes}");
            let revision =
                text(world.rollout(), &format!("/metadata/annotations/{}", keys::REVISION.replace('/', "~1")));
            assert_eq!(revision, "2");
            if world.kill_after_writes.is_some() {
                assert!(writes > 8, "an update takes more than {writes} writes");
                break;
            }
            writes += 1;
        }
    }
}

/// Phases that the status went through, as the controller wrote them.
fn phases(world: &World) -> Vec<String> {
    let mut phases: Vec<String> = Vec::new();
    for (_, _, object) in world.history.iter().flatten().filter(|(_, id, _)| id.0 == Kind::Rollout) {
        let phase = text(object, "/status/phase").to_owned();
        if phases.last() != Some(&phase) {
            phases.push(phase);
        }
    }
    phases
}

/// What is complete stays Healthy while the old version's pods go.
#[test]
fn a_completed_rollout_stays_healthy_while_the_old_version_goes() {
    for strategy in [blue_green(&json!({})), routed(&json!([{"setWeight": 50}]), &json!({}))] {
        let mut simulation = deployed(3, &strategy);
        users::release(&mut simulation.world(), false);
        simulation.world().history = Some(Vec::new());
        simulation.run_for(WHILE);
        assert_phase(&simulation, "Healthy", "");
        let world = simulation.world();
        assert_eq!(size_of_image(&world, "web:1"), 0);
        assert_eq!(phases(&world), ["Healthy", "Progressing", "Healthy"]);
    }
}

/// A retry within the abort's delay is an update like the first try: the pods stand, but nobody has used them.
#[test]
fn a_retry_has_to_be_proven_again() {
    let analysis = json!({"templates": [{"templateName": "check"}]});
    let mut simulation = deployed(3, &blue_green(&json!({ "prePromotionAnalysis": analysis })));
    simulation.world().verdicts = vec!["Failed", "Failed"];
    users::release(&mut simulation.world(), false);
    let mut seconds = 0;
    while status(&simulation, "phase") != "Degraded" && seconds < 120 {
        simulation.run_for(1000);
        seconds += 1;
    }
    assert_phase(&simulation, "Degraded", "RolloutAborted");
    assert_eq!(size_of_image(&simulation.world(), "web:2"), 3, "its pods still stand");
    users::retry(&mut simulation.world());
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Degraded", "RolloutAborted");
    let world = simulation.world();
    assert_eq!(selected(&world, "web-active"), hash_of_image(&world, "web:1"));
    assert_eq!(world.verdicts.len(), 0, "the second try was judged too");
}

/// Going back to a version whose pods are long gone is an update; within the delay it is instant.
#[test]
fn only_a_version_that_still_stands_comes_back_at_once() {
    let manual = json!({"autoPromotionEnabled": false, "scaleDownDelaySeconds": 300});
    for (pause, phase) in [(100_000, "Healthy"), (600_000, "Paused")] {
        let mut simulation = deployed(3, &blue_green(&manual));
        users::release(&mut simulation.world(), false);
        simulation.run_for(WHILE);
        users::promote(&mut simulation.world());
        simulation.run_for(pause);
        assert_phase(&simulation, "Healthy", "");
        users::apply_image(&mut simulation.world(), "web:1");
        simulation.run_for(60_000);
        assert_phase(&simulation, phase, "");
    }
}

/// `promote --full` after an abort takes the abort back; an abort after it ends the promotion.
#[test]
fn the_later_of_abort_and_full_promotion_counts() {
    for strategy in [
        routed(&json!([{"setWeight": 50}, {"pause": {}}]), &json!({})),
        canary(&json!([{"setWeight": 50}, {"pause": {}}])),
        blue_green(&json!({"autoPromotionEnabled": false})),
    ] {
        let mut simulation = deployed(4, &strategy);
        users::release(&mut simulation.world(), false);
        simulation.run_for(WHILE);
        users::abort(&mut simulation.world());
        simulation.run_for(WHILE);
        assert_phase(&simulation, "Degraded", "RolloutAborted");
        users::promote_full(&mut simulation.world());
        simulation.run_for(WHILE);
        assert_phase(&simulation, "Healthy", "");
        users::release(&mut simulation.world(), false);
        simulation.run_for(WHILE);
        users::promote_full(&mut simulation.world());
        users::abort(&mut simulation.world());
        simulation.run_for(WHILE);
        assert_phase(&simulation, "Degraded", "RolloutAborted");
        let world = simulation.world();
        assert_eq!(text(world.rollout(), "/status/stableRS"), hash_of_image(&world, "web:2"));
    }
}

/// A lowered weight takes pods away only when the Gateway has taken it.
#[test]
fn pods_stay_until_the_gateway_has_taken_the_lower_weight() {
    let mut simulation =
        deployed(10, &routed(&json!([{"setWeight": 80}, {"setWeight": 10}, {"pause": {}}]), &json!({})));
    users::release(&mut simulation.world(), false);
    simulation.world().history = Some(Vec::new());
    simulation.run_for(WHILE);
    assert_phase(&simulation, "Paused", "CanaryPauseStep");
    let world = simulation.world();
    assert_eq!(size_of_image(&world, "web:2"), 1);
    let mut taken = 0;
    for (_, id, object) in world.history.iter().flatten() {
        if id.0 == Kind::HttpRoute
            && object["status"]["parents"][0]["conditions"][0]["observedGeneration"] == object["metadata"]["generation"]
        {
            taken = object["spec"]["rules"][0]["backendRefs"][1]["weight"].as_i64().unwrap_or(0);
        }
        if id.0 == Kind::ReplicaSet && text(object, "/spec/template/spec/containers/0/image") == "web:2" && taken == 80
        {
            assert!(int(object, "/spec/replicas") >= 8, "80 % of the traffic still goes there");
        }
    }
    assert_eq!(taken, 10);
}
