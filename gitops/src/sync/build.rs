//! The tasks of a sync, and whether they can work at all.

use super::plan::{Step, SyncState};
use super::task::{self, Task};
use super::{OperationPhase, Phase, hook, order};
use crate::object::{self, Key};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tidegate_crds::application::{ManagedNamespaceMetadata, ResourceResult};

/// The tasks of this operation, in order.
pub(super) fn tasks(state: &SyncState<'_>) -> Vec<Task> {
    let selective = !state.operation.resources.is_empty();
    let selected = |key: &Key| {
        state.operation.resources.iter().any(|r| {
            r.group.as_deref().unwrap_or_default() == key.group
                && r.kind == key.kind
                && r.name == key.name
                && r.namespace.as_deref().is_none_or(|ns| ns.is_empty() || ns == key.namespace)
        })
    };
    let with_hooks = !selective && state.operation.sync_strategy.as_ref().is_none_or(|s| s.apply.is_none());
    let mut tasks = Vec::new();
    for target in state.targets {
        let types = hook::types(target);
        if types.is_empty() {
            let key = Key::of(target);
            if selective && !selected(&key) {
                continue;
            }
            let task = ordinary(state, key, target.clone());
            let is_known = state.results.iter().any(|r| task.has(r));
            if state.options.out_of_sync_only && state.in_sync.contains(&task.key) && !is_known {
                continue;
            }
            tasks.push(task);
        } else if with_hooks {
            for hook in types {
                let Some(phase) = hook.phase() else { continue };
                let target = hook::concrete(target, phase, state.revision, state.started_at, state.retry_count);
                tasks.push(Task {
                    phase,
                    wave: task::wave(&target),
                    key: Key::of(&target),
                    api_version: object::api_version(&target).to_owned(),
                    target: Some(target),
                    hook: Some(hook),
                });
            }
        }
    }
    for key in state.extra.iter().filter(|key| !selective || selected(key)) {
        let Some(live) = state.live.get(key) else { continue };
        tasks.push(Task {
            phase: Phase::Sync,
            wave: task::wave(&live.object),
            key: key.clone(),
            api_version: object::api_version(&live.object).to_owned(),
            target: None,
            hook: None,
        });
    }
    tasks.extend(namespace(state, selective));
    order::sort(&mut tasks, |t| {
        state.live.get(&t.key).map_or(state.options.prune_last, |live| state.options.of(&live.object).prune_last)
    });
    tasks
}

fn ordinary(state: &SyncState<'_>, key: Key, mut target: Value) -> Task {
    // A Namespace in Git stands for the one that CreateNamespace asks for, and gets its metadata.
    if let Some(wish) = state.namespace.filter(|w| is_namespace(&key, w.name)) {
        add_metadata(&mut target, wish.metadata);
    }
    Task {
        phase: Phase::Sync,
        wave: task::wave(&target),
        key,
        api_version: object::api_version(&target).to_owned(),
        target: Some(target),
        hook: None,
    }
}

pub(super) fn is_namespace(key: &Key, name: &str) -> bool {
    key.group.is_empty() && key.kind == "Namespace" && key.name == name
}

fn add_metadata(namespace: &mut Value, metadata: Option<&ManagedNamespaceMetadata>) {
    let Some(metadata) = metadata else { return };
    for (key, value) in &metadata.labels {
        object::set_label(namespace, key, value);
    }
    for (key, value) in &metadata.annotations {
        object::set_annotation(namespace, key, value);
    }
}

/// The task that makes the namespace of `CreateNamespace`, when it is missing or its metadata is managed.
fn namespace(state: &SyncState<'_>, selective: bool) -> Option<Task> {
    let wish = state.namespace.filter(|w| state.options.create_namespace && !w.name.is_empty())?;
    if state.targets.iter().any(|t| is_namespace(&Key::of(t), wish.name)) {
        return None;
    }
    let key = Key::new("", "Namespace", "", wish.name);
    let mut target = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": wish.name}});
    let task = |target| Task {
        phase: Phase::PreSync,
        wave: 0,
        key: key.clone(),
        api_version: "v1".into(),
        target: Some(target),
        hook: None,
    };
    let exists = state.live.contains_key(&key);
    let is_done = state.results.iter().any(|r| r.kind == "Namespace" && r.group.is_empty() && r.name == wish.name);
    if exists && !is_done && (wish.metadata.is_none() || selective) {
        return None;
    }
    add_metadata(&mut target, wish.metadata);
    // It is made with the first thing that is made, whatever phase and wave that is in.
    let mut task = task(target);
    let first = state
        .targets
        .iter()
        .filter(|_| !selective)
        .flat_map(|t| {
            let types = hook::types(t);
            let phases: Vec<Phase> =
                if types.is_empty() { vec![Phase::Sync] } else { types.iter().filter_map(|h| h.phase()).collect() };
            phases.into_iter().map(|phase| (phase, task::wave(t)))
        })
        .filter(|(phase, _)| {
            *phase == Phase::Sync || state.operation.sync_strategy.as_ref().is_none_or(|s| s.apply.is_none())
        })
        .min();
    (task.phase, task.wave) = first.unwrap_or((Phase::Sync, 0));
    Some(task)
}

/// Refuses a sync with tasks that cannot work.
pub(super) fn refuse(state: &SyncState<'_>, tasks: &[Task], results: &mut Vec<ResourceResult>) -> Option<Step> {
    let defined: BTreeSet<(&str, &str)> = tasks
        .iter()
        .filter_map(|t| t.target.as_ref())
        .filter(|t| object::is_crd(t))
        .map(|t| (object::text(t, "/spec/group"), object::text(t, "/spec/names/kind")))
        .collect();
    let mut invalid = false;
    for task in tasks {
        let Key { group, kind, .. } = &task.key;
        let is_unknown = state.unknown_kinds.contains(&(group.clone(), kind.clone()));
        let may_come = defined.contains(&(group.as_str(), kind.as_str()))
            || task.target.as_ref().is_some_and(|t| state.options.of(t).skip_missing_kind);
        let problem = match state.denied.get(&task.key) {
            Some(reason) => Some(reason.clone()),
            None if is_unknown && !may_come => Some(format!(
                "The Kubernetes API could not find {group}/{kind} for requested resource {}/{}. Make sure the {kind:?} CRD is installed on the destination cluster.",
                task.key.namespace, task.key.name
            )),
            None if task.key.name.is_empty() => Some(format!("{group}/{kind}: metadata.name is missing")),
            None => None,
        };
        if let Some(problem) = problem {
            invalid = true;
            task::upsert(results, task.result(Some("SyncFailed"), OperationPhase::Failed, &problem));
        }
    }
    invalid.then(|| {
        Step::new(std::mem::take(results), OperationPhase::Failed, "one or more synchronization tasks are not valid")
    })
}
