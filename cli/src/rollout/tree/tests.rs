use super::*;
use crate::rollout::info::{self, Objects};
use serde_json::{Value, json};
use tidegate_crds::rollout::Rollout;

const CREATED: &str = "2026-01-01T00:00:00Z";

fn now() -> Timestamp {
    "2026-01-08T00:00:00Z".parse().unwrap()
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn meta(name: &str, owner: &str, revision: Option<i64>) -> Value {
    let mut meta = json!({
        "name": name,
        "namespace": "shop",
        "uid": name,
        "generation": 1,
        "creationTimestamp": CREATED,
        "ownerReferences": [{"apiVersion": "v1", "kind": "Any", "name": owner, "uid": owner}],
    });
    if let Some(revision) = revision {
        meta["annotations"] = json!({"rollout.argoproj.io/revision": revision.to_string()});
    }
    meta
}

struct Scene {
    objects: Objects,
}

impl Scene {
    fn new() -> Self {
        Self { objects: Objects::default() }
    }

    fn replica_set(
        mut self,
        name: &str,
        owner: &str,
        revision: i64,
        hash: &str,
        image: &str,
        (wanted, available): (i32, i32),
    ) -> Self {
        let mut metadata = meta(name, owner, Some(revision));
        metadata["labels"] = json!({"rollouts-pod-template-hash": hash});
        self.objects.replica_sets.push(object(json!({
            "metadata": metadata,
            "spec": {"replicas": wanted, "selector": {}, "template": {"spec": {"containers": [{"name": "app", "image": image}]}}},
            "status": {"replicas": wanted, "availableReplicas": available, "observedGeneration": 1},
        })));
        self
    }

    fn annotate(mut self, key: &str, value: &str) -> Self {
        let last = self.objects.replica_sets.last_mut().unwrap();
        last.metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        self
    }

    fn pod(mut self, name: &str, owner: &str, state: Value) -> Self {
        let ready = state.get("running").is_some();
        self.objects.pods.push(object(json!({
            "metadata": meta(name, owner, None),
            "spec": {"containers": [{"name": "app"}]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "app", "image": "", "imageID": "", "ready": ready, "restartCount": 0, "state": state}]},
        })));
        self
    }

    fn analysis_run(mut self, name: &str, owner: &str, revision: i64, status: Value) -> Self {
        self.objects
            .analysis_runs
            .push(object(json!({"metadata": meta(name, owner, Some(revision)), "status": status})));
        self
    }

    fn experiment(mut self, name: &str, owner: &str, revision: i64, status: Value) -> Self {
        self.objects.experiments.push(object(json!({"metadata": meta(name, owner, Some(revision)), "status": status})));
        self
    }

    fn text(&self, spec: Value, status: Value) -> String {
        let mut metadata = meta("web", "nobody", None);
        metadata["generation"] = json!(1);
        let mut status = status;
        status["observedGeneration"] = json!("1");
        let ro: Rollout = object(json!({"metadata": metadata, "spec": spec, "status": status}));
        rollout(&info::rollout(&ro, &self.objects), now(), Paint(false))
    }
}

fn running() -> Value {
    json!({"running": {}})
}

#[test]
fn canary_paused() {
    let scene = Scene::new()
        .replica_set("web-1", "web", 1, "h1", "shop/web:1", (4, 4))
        .pod("web-1-a", "web-1", running())
        .pod("web-1-b", "web-1", running())
        .replica_set("web-2", "web", 2, "h2", "shop/web:2", (1, 1))
        .pod("web-2-a", "web-2", running())
        .replica_set("web-0", "web", 0, "h0", "shop/web:0", (0, 0))
        .replica_set("other", "other", 7, "h9", "shop/other", (1, 1));
    let steps = json!([{"setWeight": 20}, {"pause": {}}, {"setWeight": 50}]);
    let text = scene.text(
        json!({"replicas": 5, "strategy": {"canary": {"steps": steps}}}),
        json!({
            "phase": "Paused", "message": "CanaryPauseStep", "currentStepIndex": 1, "stableRS": "h1", "currentPodHash": "h2",
            "replicas": 5, "updatedReplicas": 1, "readyReplicas": 5, "availableReplicas": 5,
            "pauseConditions": [{"reason": "CanaryPauseStep", "startTime": CREATED}], "controllerPause": true,
        }),
    );
    assert_eq!(
        text,
        "\
Name:            web
Namespace:       shop
Status:          ॥ Paused
Message:         CanaryPauseStep
Strategy:        Canary
  Step:          1/3
  SetWeight:     20
  ActualWeight:  20
Images:          shop/web:1 (stable)
                 shop/web:2 (canary)
Replicas:
  Desired:       5
  Current:       5
  Updated:       1
  Ready:         5
  Available:     5

NAME                KIND        STATUS        AGE  INFO
⟳ web               Rollout     ॥ Paused      7d
├──# revision:2
│  └──⧉ web-2       ReplicaSet  ✔ Healthy     7d   canary
│     └──□ web-2-a  Pod         ✔ Running     7d   ready:1/1
├──# revision:1
│  └──⧉ web-1       ReplicaSet  ✔ Healthy     7d   stable
│     ├──□ web-1-a  Pod         ✔ Running     7d   ready:1/1
│     └──□ web-1-b  Pod         ✔ Running     7d   ready:1/1
└──# revision:0
   └──⧉ web-0       ReplicaSet  • ScaledDown  7d
"
    );
}

#[test]
fn blue_green_with_a_delayed_old_version() {
    let scene = Scene::new()
        .replica_set("web-1", "web", 1, "h1", "shop/web:1", (3, 3))
        .annotate("scale-down-deadline", "2026-01-08T03:59:59Z")
        .replica_set("web-2", "web", 2, "h2", "shop/web:2", (3, 3))
        .replica_set("web-3", "web", 3, "h3", "shop/web:3", (3, 2))
        .pod("web-3-a", "web-3", json!({"waiting": {"reason": "ImagePullBackOff"}}));
    let text = scene.text(
        json!({"replicas": 3, "strategy": {"blueGreen": {"activeService": "a"}}}),
        json!({
            "phase": "Progressing", "message": "updated replicas are still becoming available", "stableRS": "h2",
            "currentPodHash": "h3", "blueGreen": {"activeSelector": "h2", "previewSelector": "h3"},
            "replicas": 9, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3,
        }),
    );
    assert_eq!(
        text,
        "\
Name:            web
Namespace:       shop
Status:          ◌ Progressing
Message:         updated replicas are still becoming available
Strategy:        BlueGreen
Images:          shop/web:1
                 shop/web:2 (stable, active)
                 shop/web:3 (preview)
Replicas:
  Desired:       3
  Current:       9
  Updated:       3
  Ready:         3
  Available:     3

NAME                KIND        STATUS              AGE  INFO
⟳ web               Rollout     ◌ Progressing       7d
├──# revision:3
│  └──⧉ web-3       ReplicaSet  ◌ Progressing       7d   preview
│     └──□ web-3-a  Pod         ⚠ ImagePullBackOff  7d   ready:0/1
├──# revision:2
│  └──⧉ web-2       ReplicaSet  ✔ Healthy           7d   stable,active
└──# revision:1
   └──⧉ web-1       ReplicaSet  ✔ Healthy           7d   delay:3h59m
"
    );
}

#[test]
fn aborted_after_an_analysis() {
    let measurements = json!([{"phase": "Failed", "value": "1"}]);
    let scene = Scene::new()
        .replica_set("web-1", "web", 1, "h1", "shop/web:1", (1, 1))
        .replica_set("web-2", "web", 2, "h2", "shop/web:2", (0, 0))
        .analysis_run(
            "web-2-2",
            "web",
            2,
            json!({"phase": "Failed", "metricResults": [
                {"name": "a", "phase": "Failed", "failed": 1, "measurements": measurements},
                {"name": "b", "phase": "Error", "successful": 4, "inconclusive": 1, "error": 2}]}),
        );
    let text = scene.text(
        json!({"replicas": 1, "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}}),
        json!({
            "abort": true, "phase": "Degraded", "message": "RolloutAborted: metric \"a\" assessed Failed", "currentStepIndex": 0,
            "stableRS": "h1", "currentPodHash": "h2", "replicas": 1, "readyReplicas": 1, "availableReplicas": 1,
        }),
    );
    assert_eq!(
        text,
        "\
Name:            web
Namespace:       shop
Status:          ✖ Degraded
Message:         RolloutAborted: metric \"a\" assessed Failed
Strategy:        Canary
  Step:          0/2
  SetWeight:     0
  ActualWeight:  0
Images:          shop/web:1 (stable)
Replicas:
  Desired:       1
  Current:       1
  Updated:       0
  Ready:         1
  Available:     1

NAME             KIND         STATUS        AGE  INFO
⟳ web            Rollout      ✖ Degraded    7d
├──# revision:2
│  ├──⧉ web-2    ReplicaSet   • ScaledDown  7d   canary
│  └──α web-2-2  AnalysisRun  ✖ Failed      7d   ✔ 4,✖ 1,? 1,⚠ 2
└──# revision:1
   └──⧉ web-1    ReplicaSet   ✔ Healthy     7d   stable
"
    );
}

fn experiment_scene() -> Scene {
    let jobs = json!([{"phase": "Running", "startedAt": CREATED, "metadata": {"job-name": "uid.stress.1"}}]);
    Scene::new()
        .replica_set("web-1", "web", 1, "h1", "shop/web:1", (2, 2))
        .replica_set("web-2", "web", 2, "h2", "shop/web:2", (0, 0))
        .experiment("web-2-0", "web", 2, json!({"phase": "Running"}))
        .replica_set("web-2-0-preview", "web-2-0", 0, "x1", "shop/web:2", (1, 1))
        .annotate("experiment.argoproj.io/template-name", "preview")
        .pod("web-2-0-preview-a", "web-2-0-preview", running())
        .analysis_run(
            "web-2-0-stress",
            "web-2-0",
            2,
            json!({"phase": "Running", "metricResults": [{"name": "stress", "phase": "Running", "measurements": jobs}]}),
        )
}

#[test]
fn experiment_as_a_step() {
    let text = experiment_scene().text(
        json!({"replicas": 2, "strategy": {"canary": {"steps": [{"experiment": {"templates": []}}]}}}),
        json!({
            "phase": "Progressing", "message": "more replicas need to be updated", "currentStepIndex": 0,
            "stableRS": "h1", "currentPodHash": "h2", "replicas": 2, "readyReplicas": 2, "availableReplicas": 2,
        }),
    );
    let tree = text.split_once("\n\n").unwrap();
    assert!(
        tree.0.contains("Images:          shop/web:1 (stable)\n                 shop/web:2 (Σ:preview)\n"),
        "{}",
        tree.0
    );
    assert_eq!(
        tree.1,
        "\
NAME                             KIND         STATUS         AGE  INFO
⟳ web                            Rollout      ◌ Progressing  7d
├──# revision:2
│  ├──⧉ web-2                    ReplicaSet   • ScaledDown   7d   canary
│  └──Σ web-2-0                  Experiment   ◌ Running      7d
│     ├──⧉ web-2-0-preview       ReplicaSet   ✔ Healthy      7d
│     │  └──□ web-2-0-preview-a  Pod          ✔ Running      7d   ready:1/1
│     └──α web-2-0-stress        AnalysisRun  ◌ Running      7d
│        └──⊞ uid.stress.1       Job          ◌ Running      7d
└──# revision:1
   └──⧉ web-1                    ReplicaSet   ✔ Healthy      7d   stable
"
    );
}

#[test]
fn experiment_alone() {
    let scene = experiment_scene();
    let text = experiment(&info::experiment(&scene.objects.experiments[0], &scene.objects), now(), Paint(false));
    assert_eq!(
        text,
        "\
Name:            web-2-0
Namespace:       shop
Status:          ◌ Running
Images:          shop/web:2 (Σ:preview)

NAME                       KIND         STATUS     AGE  INFO
Σ web-2-0                  Experiment   ◌ Running  7d
├──⧉ web-2-0-preview       ReplicaSet   ✔ Healthy  7d
│  └──□ web-2-0-preview-a  Pod          ✔ Running  7d   ready:1/1
└──α web-2-0-stress        AnalysisRun  ◌ Running  7d
   └──⊞ uid.stress.1       Job          ◌ Running  7d
"
    );
}

#[test]
fn the_weight_of_a_routed_canary_is_the_routers() {
    let scene = Scene::new().replica_set("web-2", "web", 2, "h2", "i", (1, 1));
    let spec = json!({"strategy": {"canary": {
        "steps": [{"setWeight": 20}, {"pause": {}}],
        "trafficRouting": {"nginx": {"stableIngress": "i"}, "maxTrafficWeight": 1000}}}});
    let weights = json!({"canary": {"weight": 15}, "stable": {"weight": 85}});
    let text = scene.text(
        spec.clone(),
        json!({"currentStepIndex": 1, "canary": {"weights": weights}, "phase": "Paused", "availableReplicas": 1}),
    );
    assert!(text.contains("  SetWeight:     20\n  ActualWeight:  15\n"), "{text}");
    let early = scene.text(spec.clone(), json!({"currentStepIndex": 1, "phase": "Progressing"}));
    assert!(early.contains("  SetWeight:     20\n  ActualWeight:  0\n"), "{early}");
    let done = scene.text(spec, json!({"currentStepIndex": 2, "phase": "Healthy"}));
    assert!(done.contains("  SetWeight:     1000\n  ActualWeight:  1000\n"), "{done}");
}

#[test]
fn colours_do_not_move_columns() {
    let scene = Scene::new().replica_set("web-1", "web", 1, "h1", "i", (1, 1));
    let ro: Rollout = object(json!({
        "metadata": meta("web", "nobody", None),
        "spec": {"strategy": {"canary": {}}},
        "status": {"phase": "Healthy", "stableRS": "h1", "observedGeneration": "1"},
    }));
    let info = info::rollout(&ro, &scene.objects);
    let colored = rollout(&info, now(), Paint(true));
    assert!(colored.contains("\u{1b}[32m✔\u{1b}[0m Healthy"));
    let mut plain = String::new();
    let mut code = false;
    for c in colored.chars() {
        match (code, c) {
            (false, '\u{1b}') => code = true,
            (true, 'm') => code = false,
            (true, _) => {}
            (false, c) => plain.push(c),
        }
    }
    assert_eq!(plain, rollout(&info, now(), Paint(false)));
}
