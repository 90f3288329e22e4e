//! Deleting an application's resources with it.

use super::hook::{self, HookType};
use super::options::{AppOptions, Consent};
use super::plan::{Live, NamespaceWish};
use super::task;
use crate::health::Status;
use crate::object::{self, Key};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Finalizer of an Application whose resources go with it; `/background` or `/foreground` may follow.
pub const RESOURCES_FINALIZER: &str = "resources-finalizer.argocd.argoproj.io";
/// Finalizer of an Application with hooks that run before its resources are deleted; `/cleanup` may follow.
pub const PRE_DELETE_FINALIZER: &str = "pre-delete-finalizer.argocd.argoproj.io";
/// Finalizer of an Application with hooks that run after its resources were deleted; `/cleanup` may follow.
pub const POST_DELETE_FINALIZER: &str = "post-delete-finalizer.argocd.argoproj.io";

/// Whether one of `finalizers` is `base`, alone or with a suffix.
pub fn has_finalizer(finalizers: &[String], base: &str) -> bool {
    finalizers.iter().any(|f| is_finalizer(f, base))
}

fn is_finalizer(finalizer: &str, base: &str) -> bool {
    finalizer == base || finalizer.strip_prefix(base).is_some_and(|rest| rest.starts_with('/'))
}

/// `finalizers` without ours.
pub fn without_ours(finalizers: &[String]) -> Vec<String> {
    let ours = [RESOURCES_FINALIZER, PRE_DELETE_FINALIZER, POST_DELETE_FINALIZER];
    finalizers.iter().filter(|f| !ours.iter().any(|base| is_finalizer(f, base))).cloned().collect()
}

/// Everything that a pass of a deletion looks at.
#[derive(Clone, Copy, Debug)]
pub struct DeletionState<'a> {
    /// The application itself.
    pub app: &'a Key,
    /// The Application's finalizers.
    pub finalizers: &'a [String],
    /// Live objects of the application, hooks included.
    pub live: &'a BTreeMap<Key, Live>,
    /// Hooks of the deletion, marked and namespaced; empty when Git could not be read.
    pub hooks: &'a [Value],
    /// The options in force.
    pub options: &'a AppOptions,
    /// Objects that the project does not permit.
    pub denied: &'a BTreeSet<Key>,
    /// When the deletion was asked for.
    pub deleted_at: Timestamp,
    /// When deletions were approved.
    pub approved_at: Option<Timestamp>,
    /// The namespace that `CreateNamespace` made; it stays.
    pub namespace: Option<NamespaceWish<'a>>,
}

/// What is done now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeletionStep {
    /// Hooks to make.
    pub create: Vec<Value>,
    /// Objects to delete.
    pub delete: Vec<Key>,
    /// Hooks to delete, whatever finalizer of ours they have.
    pub delete_hooks: Vec<Key>,
    /// Finalizers to remove from the Application, because their stage is done.
    pub remove: Vec<String>,
    /// Nothing of ours holds the Application any more, once `remove` is done.
    pub finished: bool,
    /// What is waited for. Empty when finished.
    pub message: String,
    /// What went wrong; becomes a DeletionError.
    pub error: Option<String>,
}

/// Whether dependents are collected afterwards instead of before.
pub fn is_background(finalizers: &[String]) -> bool {
    finalizers.iter().any(|f| f.strip_prefix(RESOURCES_FINALIZER) == Some("/background"))
}

/// The suffix of a finalizer that stands for deleting the hooks themselves.
pub const CLEANUP: &str = "/cleanup";

/// Decides what is done now. Each stage of the deletion is held by a finalizer of its own, which goes when the stage is
/// done, so that a hook never runs twice.
pub fn decide_deletion(state: &DeletionState<'_>) -> DeletionStep {
    let has = |finalizer: &str| state.finalizers.iter().any(|f| f == finalizer);
    let stages: [(String, Stage); 5] = [
        (PRE_DELETE_FINALIZER.into(), Stage::Run(HookType::PreDelete)),
        (format!("{PRE_DELETE_FINALIZER}{CLEANUP}"), Stage::CleanUp(HookType::PreDelete)),
        (RESOURCES_FINALIZER.into(), Stage::Resources),
        (POST_DELETE_FINALIZER.into(), Stage::Run(HookType::PostDelete)),
        (format!("{POST_DELETE_FINALIZER}{CLEANUP}"), Stage::CleanUp(HookType::PostDelete)),
    ];
    let mut done = Vec::new();
    for (finalizer, stage) in stages {
        let held = match stage {
            Stage::Resources => has_finalizer(state.finalizers, &finalizer),
            _ => has(&finalizer),
        };
        if !held {
            continue;
        }
        let mut step = match stage {
            Stage::Run(kind) => run_hooks(state, kind),
            Stage::CleanUp(kind) => clean_up(state, kind),
            Stage::Resources => delete_resources(state),
        };
        if !step.finished {
            // What is done already is noted before the next stage writes anything.
            if !done.is_empty() {
                step = DeletionStep { message: step.message, ..DeletionStep::default() };
            }
            step.remove = done;
            return step;
        }
        done.extend(
            state
                .finalizers
                .iter()
                .filter(|f| match stage {
                    Stage::Resources => is_finalizer(f, &finalizer),
                    _ => **f == finalizer,
                })
                .cloned(),
        );
    }
    DeletionStep { finished: true, remove: done, ..DeletionStep::default() }
}

enum Stage {
    Run(HookType),
    CleanUp(HookType),
    Resources,
}

fn clean_up(state: &DeletionState<'_>, kind: HookType) -> DeletionStep {
    let hooks = state.hooks.iter().filter(|h| hook::types(h).contains(&kind)).map(Key::of);
    let left: Vec<Key> = hooks.filter(|key| state.live.contains_key(key)).collect();
    DeletionStep {
        finished: left.is_empty(),
        message: waiting("deletion of", &left),
        delete_hooks: left,
        ..DeletionStep::default()
    }
}

fn waiting(what: &str, keys: &[Key]) -> String {
    match keys {
        [] => String::new(),
        [one] => format!("waiting for {what} {one}"),
        [first, rest @ ..] => format!("waiting for {what} {first} and {} more resources", rest.len()),
    }
}

fn run_hooks(state: &DeletionState<'_>, kind: HookType) -> DeletionStep {
    let mut step = DeletionStep::default();
    let mut running = Vec::new();
    let mut hooks: Vec<&Value> = state.hooks.iter().filter(|h| hook::types(h).contains(&kind)).collect();
    hooks.sort_by_key(|h| task::wave(h));
    let mut wave = None;
    for target in hooks {
        // The next wave waits for this one.
        if wave.is_some_and(|w| w != task::wave(target)) && !(running.is_empty() && step.create.is_empty()) {
            break;
        }
        wave = Some(task::wave(target));
        let key = Key::of(target);
        match state.live.get(&key) {
            None => {
                step.create.push(target.clone());
                running.push(key);
            }
            Some(live) => match live.health.as_ref().map(|h| (h.status, h.message.clone())) {
                None | Some((Status::Healthy, _)) => {}
                Some((Status::Degraded | Status::Unknown, message)) => {
                    step.error = Some(format!("{} hook {key} failed: {message}", kind.as_str()));
                    step.delete_hooks.push(key.clone());
                    running.push(key);
                }
                Some(_) => running.push(key),
            },
        }
    }
    step.finished = running.is_empty();
    step.message = waiting("completion of hook", &running);
    step
}

fn delete_resources(state: &DeletionState<'_>) -> DeletionStep {
    let mut waves: BTreeMap<i64, Vec<&Key>> = BTreeMap::new();
    let mut unconfirmed = Vec::new();
    let hooks: BTreeSet<Key> = state.hooks.iter().map(Key::of).collect();
    for (key, live) in state.live {
        let is_app_namespace =
            state.namespace.is_some_and(|w| key.group.is_empty() && key.kind == "Namespace" && key.name == w.name);
        if key == state.app
            || object::is_crd(&live.object)
            || state.denied.contains(key)
            || hooks.contains(key)
            || (is_app_namespace && object::annotation(&live.object, crate::tracking::TRACKING_ID).is_none())
        {
            continue;
        }
        match state.options.of(&live.object).delete {
            Consent::No => {}
            Consent::Confirm if state.approved_at.is_none_or(|at| at < state.deleted_at) => {
                unconfirmed.push(key.clone())
            }
            _ => waves.entry(task::wave(&live.object)).or_default().push(key),
        }
    }
    if !unconfirmed.is_empty() {
        return DeletionStep { message: waiting("deletion confirmation of", &unconfirmed), ..DeletionStep::default() };
    }
    let Some((_, last)) = waves.pop_last() else { return DeletionStep { finished: true, ..DeletionStep::default() } };
    let keys: Vec<Key> = last.into_iter().cloned().collect();
    let is_hook = |key: &Key| state.live.get(key).is_some_and(|live| hook::has_finalizer(&live.object));
    let pending = keys.iter().filter(|key| state.live.get(*key).is_some_and(|live| !object::is_deleting(&live.object)));
    DeletionStep {
        delete: pending.filter(|key| !is_hook(key)).cloned().collect(),
        delete_hooks: keys.iter().filter(|key| is_hook(key)).cloned().collect(),
        message: waiting("deletion of", &keys),
        ..DeletionStep::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;
    use serde_json::json;

    struct Case {
        finalizers: Vec<String>,
        live: BTreeMap<Key, Live>,
        hooks: Vec<Value>,
        options: AppOptions,
        approved_at: Option<Timestamp>,
    }

    fn now() -> Timestamp {
        "2026-01-01T10:00:00Z".parse().expect("time")
    }

    fn map(name: &str, annotations: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "n", "annotations": annotations}})
    }

    fn job(name: &str, hook: &str) -> Value {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "n", "annotations": {hook::HOOK: hook}}})
    }

    impl Case {
        fn new(objects: &[Value]) -> Self {
            let live = objects.iter().map(|o| (Key::of(o), Live { object: o.clone(), health: None })).collect();
            let finalizers = vec![RESOURCES_FINALIZER.to_owned()];
            Self { finalizers, live, hooks: Vec::new(), options: AppOptions::default(), approved_at: None }
        }

        fn decide(&self) -> DeletionStep {
            decide_deletion(&DeletionState {
                app: &Key::new("argoproj.io", "Application", "argocd", "self"),
                finalizers: &self.finalizers,
                live: &self.live,
                hooks: &self.hooks,
                options: &self.options,
                denied: &BTreeSet::from([Key::new("", "ConfigMap", "n", "denied")]),
                deleted_at: now(),
                approved_at: self.approved_at,
                namespace: None,
            })
        }

        fn names(&self) -> Vec<String> {
            self.decide().delete.iter().map(|k| k.name.clone()).collect()
        }
    }

    #[test]
    fn the_last_wave_goes_first() {
        let mut case =
            Case::new(&[map("first", json!({task::SYNC_WAVE: "-1"})), map("a", json!({})), map("b", json!({}))]);
        assert_eq!(case.names(), ["a", "b"]);
        assert_eq!(case.decide().message, "waiting for deletion of /ConfigMap/a and 1 more resources");
        let going = case.live.get_mut(&Key::new("", "ConfigMap", "n", "a")).expect("a");
        going.object["metadata"]["deletionTimestamp"] = "2026-01-01T10:00:00Z".into();
        assert_eq!(case.names(), ["b"], "what is being deleted is waited for");
        case.live.retain(|key, _| key.name == "first");
        assert_eq!(case.names(), ["first"]);
        case.live.clear();
        assert!(case.decide().finished);
    }

    #[test]
    fn some_objects_stay() {
        let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "x"}});
        let app = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "self", "namespace": "argocd"}});
        let case = Case::new(&[
            crd,
            app,
            map("denied", json!({})),
            map("kept", json!({"argocd.argoproj.io/sync-options": "Delete=false"})),
            map("helm", json!({"helm.sh/resource-policy": "keep"})),
        ]);
        assert!(case.decide().finished);
        let mut none = Case::new(&[map("a", json!({}))]);
        none.finalizers = vec!["foregroundDeletion".into()];
        assert!(none.decide().finished, "without the finalizer nothing is deleted");
    }

    #[test]
    fn a_confirmation_is_waited_for() {
        let mut case = Case::new(&[map("a", json!({"argocd.argoproj.io/sync-options": "Delete=confirm"}))]);
        assert_eq!(case.decide().message, "waiting for deletion confirmation of /ConfigMap/a");
        case.approved_at = Some(now());
        assert_eq!(case.names(), ["a"]);
    }

    #[test]
    fn hooks_run_before_and_after() {
        let mut case = Case::new(&[map("a", json!({}))]);
        let mut finalizers: Vec<String> = vec![
            PRE_DELETE_FINALIZER.into(),
            format!("{PRE_DELETE_FINALIZER}/cleanup"),
            format!("{RESOURCES_FINALIZER}/foreground"),
            POST_DELETE_FINALIZER.into(),
            format!("{POST_DELETE_FINALIZER}/cleanup"),
        ];
        case.finalizers = finalizers.clone();
        case.hooks = vec![job("before", "PreDelete"), job("after", "PostDelete")];
        let created = |step: &DeletionStep| step.create.iter().map(|h| object::name(h).to_owned()).collect::<Vec<_>>();
        let set = |case: &mut Case, name: &str, status: Status| {
            let object = case.hooks.iter().find(|h| object::name(h) == name).expect("hook").clone();
            let health = Some(Health { status, message: "m".into() });
            case.live.insert(Key::of(&object), Live { object, health });
        };
        let step = case.decide();
        assert_eq!((created(&step), step.delete), (vec!["before".to_owned()], vec![]));
        set(&mut case, "before", Status::Progressing);
        assert_eq!(case.decide().message, "waiting for completion of hook batch/Job/before");
        set(&mut case, "before", Status::Degraded);
        let step = case.decide();
        assert_eq!(step.error.as_deref(), Some("PreDelete hook batch/Job/before failed: m"));
        assert_eq!(step.delete_hooks.len(), 1);
        set(&mut case, "before", Status::Healthy);
        let step = case.decide();
        assert_eq!(
            (step.remove, step.delete_hooks),
            (vec![finalizers.remove(0)], vec![]),
            "noted before anything else"
        );
        case.finalizers = finalizers.clone();
        assert_eq!(case.decide().delete_hooks.len(), 1);
        case.live.remove(&Key::new("batch", "Job", "n", "before"));
        assert_eq!(case.decide().remove, [finalizers.remove(0)]);
        case.finalizers = finalizers.clone();
        assert_eq!(case.names(), ["a"]);
        case.live.remove(&Key::new("", "ConfigMap", "n", "a"));
        assert_eq!(case.decide().remove, [finalizers.remove(0)]);
        case.finalizers = finalizers.clone();
        assert_eq!(created(&case.decide()), ["after"]);
        set(&mut case, "after", Status::Healthy);
        assert_eq!(case.decide().remove, [finalizers.remove(0)]);
        case.finalizers = finalizers.clone();
        assert_eq!(case.decide().delete_hooks.len(), 1);
        case.live.clear();
        let step = case.decide();
        assert!(step.finished);
        assert_eq!(step.remove, finalizers);
    }

    #[test]
    fn finalizers_are_told_apart() {
        let all: Vec<String> = [
            "resources-finalizer.argocd.argoproj.io/background",
            "mine",
            "post-delete-finalizer.argocd.argoproj.io/cleanup",
            "resources-finalizer.argocd.argoproj.io.other",
        ]
        .iter()
        .map(|s| (*s).to_owned())
        .collect();
        assert!(has_finalizer(&all, RESOURCES_FINALIZER) && is_background(&all));
        assert!(!has_finalizer(&all, PRE_DELETE_FINALIZER));
        assert_eq!(without_ours(&all), ["mine", "resources-finalizer.argocd.argoproj.io.other"]);
    }
}
