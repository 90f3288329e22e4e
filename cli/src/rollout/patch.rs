//! The patches behind the commands, as values. Other clients (dashboards, Argo CD, suites) write the same ones.

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tidegate_crds::analysis::AnalysisPhase;
use tidegate_crds::keys;
use tidegate_crds::rollout::Rollout;

/// Merge patches of one command: on the object, then on its `status` subresource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patches {
    /// For the object.
    pub spec: Option<Value>,
    /// For the status.
    pub status: Option<Value>,
}

impl Patches {
    /// A patch of the object only.
    fn object(patch: Value) -> Self {
        Self { spec: Some(patch), status: None }
    }

    /// A patch of the status only.
    fn status(status: Value) -> Self {
        Self { spec: None, status: Some(json!({ "status": status })) }
    }
}

/// How to promote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Promotion {
    /// End the pause, or skip the current step when there is no pause.
    #[default]
    Next,
    /// Skip everything that is left.
    Full,
    /// Skip the current step. Deprecated.
    SkipCurrentStep,
    /// Skip all steps. Deprecated.
    SkipAllSteps,
}

/// `promote`.
///
/// # Errors
/// When steps are to be skipped and there are none.
pub fn promote(ro: &Rollout, how: Promotion) -> Result<Patches> {
    let canary = ro.spec.strategy.canary.as_ref();
    let steps = canary.and_then(|canary| canary.steps.as_deref()).unwrap_or_default().len();
    let last = i32::try_from(steps).unwrap_or(i32::MAX);
    let next = ro.status.current_step_index.unwrap_or(0).saturating_add(1).min(last);
    if matches!(how, Promotion::SkipCurrentStep | Promotion::SkipAllSteps) {
        if canary.is_none() {
            bail!("Cannot skip steps of a bluegreen rollout. Run without a flags");
        }
        if steps == 0 {
            bail!("Cannot skip steps of a rollout without steps");
        }
    }
    match how {
        Promotion::SkipCurrentStep => {
            return Ok(Patches::status(json!({ "pauseConditions": null, "currentStepIndex": next })));
        }
        Promotion::SkipAllSteps => {
            return Ok(Patches::status(json!({ "pauseConditions": null, "currentStepIndex": last })));
        }
        Promotion::Full | Promotion::Next => {}
    }
    let mut patches = Patches { spec: ro.spec.paused.then(|| json!({"spec": {"paused": false}})), status: None };
    let paused = !ro.status.pause_conditions.as_deref().unwrap_or_default().is_empty();
    let inconclusive = ro.status.canary.current_step_analysis_run_status.as_ref().map(|run| run.status)
        == Some(AnalysisPhase::Inconclusive);
    let status = if how == Promotion::Full {
        (ro.status.current_pod_hash != ro.status.stable_rs).then(|| json!({"promoteFull": true}))
    } else if canary.is_some() && inconclusive && paused && ro.status.controller_pause {
        // Clearing the pause alone would measure the same step again.
        Some(json!({"pauseConditions": null, "controllerPause": false, "currentStepIndex": next}))
    } else if paused {
        Some(json!({ "pauseConditions": null }))
    } else if steps > 0 {
        Some(json!({"pauseConditions": null, "currentStepIndex": next}))
    } else {
        None
    };
    patches.status = status.map(|status| json!({ "status": status }));
    Ok(patches)
}

/// `abort`.
pub fn abort() -> Patches {
    Patches::status(json!({"abort": true}))
}

/// `retry rollout`.
pub fn retry_rollout() -> Patches {
    Patches::status(json!({"abort": false}))
}

/// `retry experiment`.
pub fn retry_experiment() -> Patches {
    Patches::status(Value::Null)
}

/// `pause`.
pub fn pause() -> Patches {
    Patches::object(json!({"spec": {"paused": true}}))
}

/// `restart`: pods made before `at` (RFC 3339) are replaced.
pub fn restart(at: jiff::Timestamp) -> Patches {
    Patches::object(json!({"spec": {"restartAt": at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}}))
}

/// `terminate analysisrun` and `terminate experiment`.
pub fn terminate() -> Patches {
    Patches::object(json!({"spec": {"terminate": true}}))
}

/// `undo`: the JSON patch that puts a ReplicaSet's pod template (as the API server holds it) back into the Rollout or
/// the workload. What the controller added to the template for its own purposes is taken out.
pub fn undo(template: &Value, ephemeral: Option<&str>, anti_affinity: bool) -> Value {
    json!([{"op": "replace", "path": "/spec/template", "value": user_template(template, ephemeral, anti_affinity)}])
}

/// The pod template as the user wrote it: without the hash, the metadata of the time of the update (`ephemeral`, the
/// annotation of the ReplicaSet) and, with `anti_affinity`, the injected terms.
pub fn user_template(template: &Value, ephemeral: Option<&str>, anti_affinity: bool) -> Value {
    let mut template = template.clone();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
    }
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(keys::POD_TEMPLATE_HASH);
    }
    let injected: Value = ephemeral.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
    for part in ["labels", "annotations"] {
        let Some(added) = injected.get(part).and_then(Value::as_object) else { continue };
        let Some(map) = template.pointer_mut(&format!("/metadata/{part}")).and_then(Value::as_object_mut) else {
            continue;
        };
        map.retain(|key, _| !added.contains_key(key));
    }
    if anti_affinity {
        drop_injected_anti_affinity(&mut template);
    }
    template
}

fn drop_injected_anti_affinity(template: &mut Value) {
    let Some(terms) = template.pointer_mut("/spec/affinity/podAntiAffinity").and_then(Value::as_object_mut) else {
        return;
    };
    for kind in ["preferredDuringSchedulingIgnoredDuringExecution", "requiredDuringSchedulingIgnoredDuringExecution"] {
        if let Some(list) = terms.get_mut(kind).and_then(Value::as_array_mut) {
            list.retain(|term| {
                let term = term.get("podAffinityTerm").unwrap_or(term);
                let keys_of = term.pointer("/labelSelector/matchExpressions").and_then(Value::as_array);
                !keys_of.is_some_and(|list| {
                    list.len() == 1 && list[0].get("key").and_then(Value::as_str) == Some(keys::POD_TEMPLATE_HASH)
                })
            });
            if list.is_empty() {
                terms.remove(kind);
            }
        }
    }
    let empty = terms.is_empty();
    if let Some(affinity) = template.pointer_mut("/spec/affinity").and_then(Value::as_object_mut)
        && empty
    {
        affinity.remove("podAntiAffinity");
        if affinity.is_empty()
            && let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut)
        {
            spec.remove("affinity");
        }
    }
}

/// `set image`: puts the image into every container of that name (`*` is any) of the pod template at `/spec/template`.
///
/// # Errors
/// When no container has the name.
pub fn set_image(object: &mut Value, container: &str, image: &str) -> Result<()> {
    let mut found = false;
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let path = format!("/spec/template/spec/{list}");
        for entry in object.pointer_mut(&path).and_then(Value::as_array_mut).into_iter().flatten() {
            if container == "*" || entry.get("name").and_then(Value::as_str) == Some(container) {
                found = true;
                entry["image"] = Value::from(image);
            }
        }
    }
    if !found {
        bail!("unable to find container named \"{container}\"");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(spec: Value, status: Value) -> Rollout {
        serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn promotes_as_the_protocol_says() {
        let canary = json!({"strategy": {"canary": {"steps": [{"setWeight": 1}, {"setWeight": 2}]}}});
        let blue_green = json!({"strategy": {"blueGreen": {"activeService": "a"}}});
        let pause = json!([{"reason": "CanaryPauseStep", "startTime": "2026-01-01T00:00:00Z"}]);
        let inconclusive = json!({"currentStepAnalysisRunStatus": {"name": "a", "status": "Inconclusive"}});
        let status = |patch: Value| Some(json!({ "status": patch }));
        let cases = [
            // (spec, status, how, status patch)
            (
                &canary,
                json!({"currentStepIndex": 0}),
                Promotion::Next,
                status(json!({"pauseConditions": null, "currentStepIndex": 1})),
            ),
            (
                &canary,
                json!({"currentStepIndex": 2}),
                Promotion::Next,
                status(json!({"pauseConditions": null, "currentStepIndex": 2})),
            ),
            (
                &canary,
                json!({"currentStepIndex": 1, "pauseConditions": pause, "controllerPause": true}),
                Promotion::Next,
                status(json!({ "pauseConditions": null })),
            ),
            (
                &canary,
                json!({"currentStepIndex": 0, "pauseConditions": pause, "controllerPause": true, "canary": inconclusive}),
                Promotion::Next,
                status(json!({"pauseConditions": null, "controllerPause": false, "currentStepIndex": 1})),
            ),
            (
                &blue_green,
                json!({"pauseConditions": pause, "controllerPause": true}),
                Promotion::Next,
                status(json!({ "pauseConditions": null })),
            ),
            (&blue_green, json!({}), Promotion::Next, None),
            (
                &canary,
                json!({"stableRS": "a", "currentPodHash": "b"}),
                Promotion::Full,
                status(json!({"promoteFull": true})),
            ),
            (&canary, json!({"stableRS": "a", "currentPodHash": "a"}), Promotion::Full, None),
            (
                &canary,
                json!({}),
                Promotion::SkipCurrentStep,
                status(json!({"pauseConditions": null, "currentStepIndex": 1})),
            ),
            (
                &canary,
                json!({}),
                Promotion::SkipAllSteps,
                status(json!({"pauseConditions": null, "currentStepIndex": 2})),
            ),
        ];
        for (spec, state, how, expected) in cases {
            let patches = promote(&rollout(spec.clone(), state.clone()), how).unwrap();
            assert_eq!(patches, Patches { spec: None, status: expected }, "{how:?} {state}");
        }
        let paused = rollout(json!({"paused": true, "strategy": {"blueGreen": {}}}), json!({}));
        assert_eq!(promote(&paused, Promotion::Next).unwrap().spec, Some(json!({"spec": {"paused": false}})));
        assert_eq!(promote(&paused, Promotion::Full).unwrap().spec, Some(json!({"spec": {"paused": false}})));
        assert!(promote(&rollout(blue_green.clone(), json!({})), Promotion::SkipAllSteps).is_err());
        assert!(promote(&rollout(json!({"strategy": {"canary": {}}}), json!({})), Promotion::SkipCurrentStep).is_err());
    }

    #[test]
    fn writes_the_other_patches_as_the_protocol_says() {
        let text = |value: Option<Value>| value.map(|value| value.to_string()).unwrap_or_default();
        assert_eq!(text(abort().status), r#"{"status":{"abort":true}}"#);
        assert_eq!(text(retry_rollout().status), r#"{"status":{"abort":false}}"#);
        assert_eq!(text(retry_experiment().status), r#"{"status":null}"#);
        assert_eq!(text(pause().spec), r#"{"spec":{"paused":true}}"#);
        assert_eq!(text(terminate().spec), r#"{"spec":{"terminate":true}}"#);
        let at = "2026-01-02T03:04:05.678Z".parse().unwrap();
        assert_eq!(text(restart(at).spec), r#"{"spec":{"restartAt":"2026-01-02T03:04:05Z"}}"#);
    }

    #[test]
    fn undo_takes_out_what_the_controller_added() {
        let template = json!({
            "metadata": {
                "creationTimestamp": null,
                "labels": {"app": "web", "rollouts-pod-template-hash": "abc", "role": "canary"},
                "annotations": {"mine": "1", "color": "x"},
            },
            "spec": {
                "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "podAffinityTerm": {"labelSelector": {"matchExpressions": [
                        {"key": "rollouts-pod-template-hash", "operator": "In", "values": ["old"]}]}}}]}},
                "containers": [{"name": "a", "odd": {"kept": true}}],
            },
        });
        let ephemeral = r#"{"labels":{"role":"canary"},"annotations":{"color":"x"}}"#;
        assert_eq!(
            user_template(&template, Some(ephemeral), true),
            json!({
                "metadata": {"labels": {"app": "web"}, "annotations": {"mine": "1"}},
                "spec": {"containers": [{"name": "a", "odd": {"kept": true}}]},
            })
        );
        let kept = undo(&template, None, false);
        assert_eq!(kept[0]["op"], "replace");
        assert_eq!(kept[0]["path"], "/spec/template");
        assert!(kept[0]["value"]["spec"]["affinity"].is_object());
    }

    #[test]
    fn sets_images_of_all_containers_of_the_name() {
        let object = json!({"spec": {"template": {"spec": {
            "initContainers": [{"name": "web", "image": "old"}],
            "containers": [{"name": "web", "image": "old"}, {"name": "side", "image": "old"}],
        }}}});
        let mut one = object.clone();
        set_image(&mut one, "web", "new").unwrap();
        assert_eq!(one["spec"]["template"]["spec"]["initContainers"][0]["image"], "new");
        assert_eq!(one["spec"]["template"]["spec"]["containers"][0]["image"], "new");
        assert_eq!(one["spec"]["template"]["spec"]["containers"][1]["image"], "old");
        let mut all = object.clone();
        set_image(&mut all, "*", "new").unwrap();
        assert_eq!(all["spec"]["template"]["spec"]["containers"][1]["image"], "new");
        let error = set_image(&mut object.clone(), "typo", "new").unwrap_err();
        assert_eq!(error.to_string(), "unable to find container named \"typo\"");
    }
}
