//! People: they apply, promote, abort, retry, pause, scale, restart, undo and delete pods, at any moment.

use crate::cluster::{Actor, Happening, Kind, Millis, ROLLOUT, World, int, label, text};
use crate::platform::is_bad;
use crate::spec;
use serde_json::{Value, json};
use tidegate_crds::keys;

/// What the people of this run are like.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// Number of the newest image.
    pub release: i64,
    /// How many things are still to be done.
    pub actions: i64,
    /// Longest time between two of them.
    pub pace: Millis,
    /// The last thing done was to promote a pause: when, which version and step.
    pub promoted: Option<(Millis, String, i64)>,
}

pub fn patch_rollout(world: &mut World, subresource: &str, body: &Value) {
    let _ = world.patch(Actor::User, Kind::Rollout, ROLLOUT, subresource, body);
}

/// Applies a template with this image.
pub fn apply_image(world: &mut World, image: &str) {
    world.user.promoted = None;
    let body = json!({"spec": {"template": spec::template(image)}});
    if world.rollout().pointer("/spec/workloadRef").is_some() {
        patch_workload(world, &body);
    } else {
        patch_rollout(world, "", &body);
    }
}

/// Changes the Deployment to which the Rollout refers.
pub fn patch_workload(world: &mut World, body: &Value) {
    let name = text(world.rollout(), "/spec/workloadRef/name").to_owned();
    let _ = world.patch(Actor::User, Kind::Deployment, &name, "", body);
}

/// Follows the load up and down.
pub fn autoscale(world: &mut World) {
    let size = int(world.rollout(), "/spec/replicas");
    if size > 0 {
        let pods = (size + world.random.pick(&[-2, -1, -1, 1, 1, 2])).clamp(1, 10);
        patch_rollout(world, "", &json!({"spec": {"replicas": pods}}));
    }
    let after = world.random.range(5_000, 60_000);
    world.plan(after, Happening::Autoscaler);
}

/// A new version.
pub fn release(world: &mut World, bad: bool) {
    world.user.release += 1;
    let image = format!("web:{}{}", world.user.release, if bad { "-bad" } else { "" });
    apply_image(world, &image);
}

pub fn abort(world: &mut World) {
    patch_rollout(world, "status", &json!({"status": {"abort": true}}));
}

pub fn retry(world: &mut World) {
    patch_rollout(world, "status", &json!({"status": {"abort": false}}));
}

/// `promote`, as the command line does it.
pub fn promote(world: &mut World) {
    let rollout = world.rollout().clone();
    if rollout.pointer("/spec/paused") == Some(&Value::Bool(true)) {
        patch_rollout(world, "", &json!({"spec": {"paused": false}}));
    }
    let status = &rollout["status"];
    let canary = rollout.pointer("/spec/strategy/canary");
    let steps = canary.and_then(|c| c["steps"].as_array()).map_or(0, Vec::len) as i64;
    let index = int(status, "/currentStepIndex");
    let paused = status["pauseConditions"].as_array().is_some_and(|p| !p.is_empty());
    let inconclusive = text(status, "/canary/currentStepAnalysisRunStatus/status") == "Inconclusive";
    let next = (index + 1).min(steps);
    let body = if canary.is_some() && inconclusive && paused && status["controllerPause"] == true {
        json!({"pauseConditions": null, "controllerPause": false, "currentStepIndex": next})
    } else if paused {
        let step = text(&status["pauseConditions"][0], "/reason") != "InconclusiveAnalysisRun";
        if step {
            world.user.promoted = Some((world.now, text(status, "/currentPodHash").to_owned(), index));
        }
        json!({"pauseConditions": null})
    } else if steps > 0 {
        json!({"pauseConditions": null, "currentStepIndex": next})
    } else {
        return;
    };
    patch_rollout(world, "status", &json!({ "status": body }));
}

pub fn promote_full(world: &mut World) {
    let rollout = world.rollout().clone();
    if rollout.pointer("/spec/paused") == Some(&Value::Bool(true)) {
        patch_rollout(world, "", &json!({"spec": {"paused": false}}));
    }
    if text(&rollout, "/status/currentPodHash") != text(&rollout, "/status/stableRS") {
        patch_rollout(world, "status", &json!({"status": {"promoteFull": true}}));
    }
}

/// The image of the ReplicaSet with this hash.
pub fn image_of(world: &World, hash: &str) -> Option<String> {
    let of = |o: &Value| label(o, keys::POD_TEMPLATE_HASH) == hash;
    let (_, found) = world.of_kind(Kind::ReplicaSet).find(|(_, o)| of(o))?;
    Some(text(found, "/spec/template/spec/containers/0/image").to_owned())
}

/// One thing that a person does.
pub fn act(world: &mut World) {
    world.user.actions -= 1;
    if world.user.actions > 0 {
        let wait = if world.random.percent(20) { 200 } else { world.user.pace };
        let after = world.random.range(10, wait.max(11));
        world.plan(after, Happening::User);
    }
    let choice = world.random.range(0, 99);
    if choice < 30 {
        world.user.promoted = None;
    }
    match choice {
        0..=14 => release(world, false),
        15..=19 => release(world, true),
        20..=24 => {
            let stable = text(world.rollout(), "/status/stableRS").to_owned();
            if let Some(image) = image_of(world, &stable) {
                apply_image(world, &image);
            }
        }
        25..=28 => {
            let images: Vec<String> = world
                .of_kind(Kind::ReplicaSet)
                .filter(|(_, o)| text(o, "/metadata/ownerReferences/0/name") == ROLLOUT)
                .map(|(_, o)| text(o, "/spec/template/spec/containers/0/image").to_owned())
                .collect();
            if !images.is_empty() {
                let image = world.random.pick(&images);
                apply_image(world, &image);
            }
        }
        29..=38 => {
            world.user.promoted = None;
            abort(world);
        }
        39..=44 => {
            world.user.promoted = None;
            retry(world);
        }
        45..=64 => promote(world),
        65..=69 => {
            world.user.promoted = None;
            promote_full(world);
        }
        70..=74 => {
            world.user.promoted = None;
            let paused = world.rollout().pointer("/spec/paused") == Some(&Value::Bool(true));
            patch_rollout(world, "", &json!({"spec": {"paused": !paused}}));
        }
        75..=83 => {
            world.user.promoted = None;
            let pods = if world.random.percent(5) { 0 } else { world.random.range(1, 10) };
            patch_rollout(world, "", &json!({"spec": {"replicas": pods}}));
        }
        84 if world.rollout().pointer("/spec/workloadRef").is_some() => {
            // Somebody applies the old manifest of the Deployment again, with its pods.
            let pods = world.random.range(1, 4);
            patch_workload(world, &json!({"spec": {"replicas": pods}}));
        }
        84..=86 => {
            let at = world.now + world.random.range(0, 20_000);
            let at = world.time_text(at);
            patch_rollout(world, "", &json!({"spec": {"restartAt": at}}));
        }
        87..=89 => {
            world.user.promoted = None;
            spec::change_steps(world);
        }
        90..=91 => {
            world.user.promoted = None;
            spec::change_strategy(world);
        }
        92 => spec::mistake(world),
        _ => {
            let pods: Vec<String> = world.pods.keys().cloned().collect();
            if !pods.is_empty() {
                let pod = world.random.pick(&pods);
                world.say(|| format!("user       deletes pod {pod}"));
                crate::platform::delete_pod(world, &pod);
            }
        }
    }
}

/// Whatever state the Rollout is in: somebody wants a good version out now.
pub fn finish(world: &mut World) {
    let rollout = world.rollout().clone();
    if is_bad(world.template()) {
        release(world, false);
    }
    patch_rollout(world, "", &json!({"spec": {"paused": false}}));
    if rollout["spec"]["progressDeadlineSeconds"] == 0 {
        spec::mistake(world);
    }
    if int(&rollout, "/spec/replicas") == 0 {
        patch_rollout(world, "", &json!({"spec": {"replicas": 2}}));
    }
    retry(world);
}
