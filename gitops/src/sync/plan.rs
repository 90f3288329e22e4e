//! One pass of a sync: from the state of everything to what is done now.

use super::build::{is_namespace, refuse, tasks};
use super::hook::{self, DeletePolicy};
use super::options::{AppOptions, Consent, DEFAULT_MIGRATION_MANAGER, MIGRATION_MANAGER, Propagation, ResourceOptions};
use super::order;
use super::task::{self, Task};
use super::{OperationPhase, Phase};
use crate::health::{Health, Status};
use crate::normalize::ignore::IgnoreRules;
use crate::object::{self, Key};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate_crds::application::{ManagedNamespaceMetadata, ResourceResult, SyncOperation};

/// A live object and how it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// The object.
    pub object: Value,
    /// Its health; `None` for kinds without a rule.
    pub health: Option<Health>,
}

/// The namespace that `CreateNamespace` asks for.
#[derive(Clone, Copy, Debug)]
pub struct NamespaceWish<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels and annotations, when they are managed.
    pub metadata: Option<&'a ManagedNamespaceMetadata>,
}

/// Everything that a pass looks at.
#[derive(Clone, Copy, Debug)]
pub struct SyncState<'a> {
    /// What shall be, hooks included: namespaced and marked.
    pub targets: &'a [Value],
    /// Live objects: those of targets, of hooks (by the names that [`hook::concrete`] gives) and of `extra`.
    pub live: &'a BTreeMap<Key, Live>,
    /// Objects that belong to the application and are no longer among the targets.
    pub extra: &'a [Key],
    /// Objects that are as their targets say.
    pub in_sync: &'a BTreeSet<Key>,
    /// Kinds among the targets that the API server does not know.
    pub unknown_kinds: &'a BTreeSet<(String, String)>,
    /// Objects that the project does not permit, and why.
    pub denied: &'a BTreeMap<Key, String>,
    /// Targets that belong to another application, and to which.
    pub shared: &'a BTreeMap<Key, String>,
    /// What was asked for.
    pub operation: &'a SyncOperation,
    /// The options in force.
    pub options: &'a AppOptions,
    /// Fields that are left alone.
    pub ignore: &'a IgnoreRules,
    /// The namespace that `CreateNamespace` asks for.
    pub namespace: Option<NamespaceWish<'a>>,
    /// The revision that is synced.
    pub revision: &'a str,
    /// When the operation began.
    pub started_at: Timestamp,
    /// Which attempt this is, from 0.
    pub retry_count: i64,
    /// The operation is to be ended.
    pub terminating: bool,
    /// What was done so far.
    pub results: &'a [ResourceResult],
    /// When deletions were approved.
    pub approved_at: Option<Timestamp>,
    /// When the last wave was applied, as far as is known.
    pub last_wave_at: Option<Timestamp>,
    /// How long to wait between waves.
    pub wave_delay: Duration,
}

/// How an object is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Three-way merge with what was applied last.
    ClientSide,
    /// By the API server; fields of the manager are taken over before.
    ServerSide {
        /// Whose fields become ours.
        migrate: Option<String>,
    },
    /// As a whole.
    Replace,
}

/// What to do with one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make it what `object` says.
    Apply {
        /// What it shall be.
        object: Box<Value>,
        /// How.
        mode: Mode,
        /// Delete it and make it anew when it cannot be changed.
        force: bool,
        /// Have the API server refuse unknown fields.
        validate: bool,
    },
    /// Delete it.
    Prune(Propagation),
    /// Delete it, whatever finalizer of ours it has.
    DeleteHook,
    /// Remove the finalizer of hooks.
    ReleaseHook,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Which object.
    pub key: Key,
    /// `apiVersion` to write in.
    pub api_version: String,
    /// What to do.
    pub action: Action,
    /// Ask only what would come out.
    pub dry_run: bool,
    /// The result that the outcome completes; `None` for cleaning up.
    pub result: Option<Box<ResourceResult>>,
}

/// What a pass decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Writes: groups one after another, the writes of a group at the same time. A failure stops what follows.
    pub groups: Vec<Vec<Operation>>,
    /// Results before the writes.
    pub results: Vec<ResourceResult>,
    /// Where the operation stands when all writes succeed.
    pub phase: OperationPhase,
    /// What is said about it then.
    pub message: String,
    /// Where it stands when a write fails; without it the next pass sees.
    pub on_failure: Option<String>,
    /// When to look again, if nothing happens before.
    pub requeue: Option<Duration>,
    /// A wave is applied by this step.
    pub is_wave: bool,
}

impl Step {
    pub(super) fn new(results: Vec<ResourceResult>, phase: OperationPhase, message: impl Into<String>) -> Self {
        Self {
            groups: Vec::new(),
            results,
            phase,
            message: message.into(),
            on_failure: None,
            requeue: None,
            is_wave: false,
        }
    }
}

/// Decides what is done now.
pub fn decide(state: &SyncState<'_>, now: Timestamp) -> Step {
    let mut results = state.results.to_vec();
    if state.options.fail_on_shared
        && let Some((key, owner)) = state.shared.first_key_value()
    {
        let message = format!("Shared resource found: {}/{} is part of application {owner}", key.kind, key.name);
        return Step::new(results, OperationPhase::Failed, message);
    }
    let tasks = tasks(state);
    if state.terminating {
        return terminate(state, &tasks, results);
    }
    if let Some(step) = refuse(state, &tasks, &mut results) {
        return step;
    }
    if state.operation.dry_run {
        return dry_run(state, &tasks, results);
    }
    let multi_step = order::is_multi_step(&tasks);
    if let Some(wait) = settle_wait(state, now) {
        let mut step = Step::new(results, OperationPhase::Running, "one or more tasks are running");
        step.requeue = Some(wait);
        return step;
    }
    let has_hooks = tasks.iter().any(|t| t.hook.is_some());
    if multi_step || has_hooks {
        observe(state, &tasks, &mut results);
    }
    let states: Vec<Option<OperationPhase>> =
        tasks.iter().map(|t| results.iter().find(|r| t.has(r)).and_then(task::phase_of)).collect();
    let view = View { state, tasks: &tasks, states: &states };
    let release = view.release();

    let failed = |t: &Task| results.iter().any(|r| t.has(r) && r.status.as_deref() == Some("SyncFailed"));
    let apply_failed = tasks.iter().any(|t| t.phase != Phase::SyncFail && failed(t));
    let running = view.with(|t, s| {
        s == Some(OperationPhase::Running) && !t.is_prune() && (!apply_failed || t.phase == Phase::SyncFail)
    });
    if !running.is_empty() && (multi_step || running.iter().any(|t| t.hook.is_some())) {
        let mut step = Step::new(results, OperationPhase::Running, waiting(&running));
        step.groups.extend(release);
        return step;
    }
    let going =
        view.with(|t, s| s == Some(OperationPhase::Succeeded) && t.is_prune() && state.live.contains_key(&t.key));
    let going: Vec<&Task> = going.into_iter().filter(|t| results.iter().any(|r| t.has(r) && is_pruned(r))).collect();
    if !apply_failed && !going.is_empty() {
        return Step::new(results, OperationPhase::Running, waiting_for("deletion of", &going, "resources"));
    }
    let unsuccessful = view
        .with(|t, s| t.phase != Phase::SyncFail && matches!(s, Some(OperationPhase::Failed | OperationPhase::Error)));
    if !unsuccessful.is_empty() {
        return fail(&view, results, apply_failed, release);
    }
    let pending = view.with(|t, s| s.is_none() && t.phase != Phase::SyncFail);
    let Some(first) = pending.first() else {
        let mut step = Step::new(results, OperationPhase::Succeeded, "successfully synced (no more tasks)");
        step.groups.extend(release);
        step.groups.extend(view.delete_hooks(DeletePolicy::HookSucceeded));
        return step;
    };
    let (phase, wave) = (first.phase, first.wave);
    let in_wave: Vec<&Task> = pending.iter().copied().filter(|t| t.phase == phase && t.wave == wave).collect();
    let later: Vec<&Task> =
        pending.iter().copied().filter(|t| t.phase != phase || t.wave != wave || t.hook.is_some()).collect();
    let mut step = run(&view, results, &in_wave);
    step.groups.splice(0..0, release);
    // What was just waited for or is deleted first keeps its message.
    if step.phase == OperationPhase::Running && step.is_wave {
        if later.is_empty() {
            step.phase = OperationPhase::Succeeded;
            step.message = "successfully synced (all tasks run)".to_owned();
            step.groups.extend(view.delete_hooks(DeletePolicy::HookSucceeded));
        } else {
            step.message = waiting(&later);
        }
    }
    step
}

fn is_pruned(result: &ResourceResult) -> bool {
    result.status.as_deref() == Some("Pruned")
}

/// How long to let other controllers notice the wave that was just applied, before their status is believed.
fn settle_wait(state: &SyncState<'_>, now: Timestamp) -> Option<Duration> {
    if state.results.iter().any(|r| r.status.as_deref() == Some("SyncFailed")) {
        return None;
    }
    let until = state.last_wave_at?.checked_add(state.wave_delay).ok()?;
    let wait = until.duration_since(now);
    if wait.is_positive() { wait.unsigned_abs().into() } else { None }
}

/// The tasks with how far each is.
struct View<'a> {
    state: &'a SyncState<'a>,
    tasks: &'a [Task],
    states: &'a [Option<OperationPhase>],
}

impl<'a> View<'a> {
    fn with(&self, wanted: impl Fn(&Task, Option<OperationPhase>) -> bool) -> Vec<&'a Task> {
        self.tasks.iter().zip(self.states).filter(|(t, s)| wanted(t, **s)).map(|(t, _)| t).collect()
    }

    fn cleanup(task: &Task, action: Action) -> Operation {
        Operation { key: task.key.clone(), api_version: task.api_version.clone(), action, dry_run: false, result: None }
    }

    /// Hooks that have ended no longer need their finalizer.
    fn release(&self) -> Option<Vec<Operation>> {
        let ended = self.with(|t, s| t.hook.is_some() && s.is_some_and(OperationPhase::is_completed));
        let mut keys = BTreeSet::new();
        let operations: Vec<Operation> = ended
            .into_iter()
            .filter(|t| self.state.live.get(&t.key).is_some_and(|live| hook::has_finalizer(&live.object)))
            .filter(|t| keys.insert(t.key.clone()))
            .map(|t| Self::cleanup(t, Action::ReleaseHook))
            .collect();
        (!operations.is_empty()).then_some(operations)
    }

    /// Deletes the hooks of this operation that have the policy.
    fn delete_hooks(&self, policy: DeletePolicy) -> Option<Vec<Operation>> {
        let mut keys = BTreeSet::new();
        let ran = self.with(|t, s| t.hook.is_some() && s.is_some());
        let operations: Vec<Operation> = ran
            .into_iter()
            .filter(|t| t.target.as_ref().is_some_and(|target| hook::delete_policies(target).contains(&policy)))
            .filter(|t| self.state.live.contains_key(&t.key) && keys.insert(t.key.clone()))
            .map(|t| Self::cleanup(t, Action::DeleteHook))
            .collect();
        (!operations.is_empty()).then_some(operations)
    }
}

/// Takes in how the objects are that this operation applied.
fn observe(state: &SyncState<'_>, tasks: &[Task], results: &mut Vec<ResourceResult>) {
    for task in tasks.iter().filter(|t| !t.is_prune()) {
        let live = state.live.get(&task.key);
        let known = results.iter().find(|r| task.has(r)).cloned();
        let result = match known {
            Some(result) => result,
            // Made by this attempt, although nobody noted so.
            None if task.hook.is_some() && live.is_some_and(|live| is_of_attempt(state, task, live)) => {
                task.result(None, OperationPhase::Running, "")
            }
            None => continue,
        };
        if task::phase_of(&result) != Some(OperationPhase::Running) {
            continue;
        }
        let status = result.status.clone();
        let (phase, message) = match live {
            None => (OperationPhase::Error, format!("Resource {} is missing, it might have been deleted", task.key)),
            Some(live) => judge(task, live.health.as_ref(), result.message.as_deref().unwrap_or_default()),
        };
        task::upsert(results, task.result(status.as_deref(), phase, &message));
    }
}

fn is_of_attempt(state: &SyncState<'_>, task: &Task, live: &Live) -> bool {
    let attempt = hook::attempt(state.started_at, state.retry_count, task.phase);
    object::annotation(&live.object, hook::ATTEMPT) == Some(attempt.as_str())
}

/// What an object's health means for the task that applied it.
fn judge(task: &Task, health: Option<&Health>, message: &str) -> (OperationPhase, String) {
    let Some(health) = health else { return (OperationPhase::Succeeded, message.to_owned()) };
    let message = if health.message.is_empty() { message } else { &health.message };
    let phase = match (health.status, task.hook.is_some()) {
        (Status::Healthy, _) => OperationPhase::Succeeded,
        (Status::Degraded, _) | (Status::Unknown, true) => OperationPhase::Failed,
        _ => OperationPhase::Running,
    };
    (phase, message.to_owned())
}

/// Ends the operation because a user or a time limit says so.
fn terminate(state: &SyncState<'_>, tasks: &[Task], mut results: Vec<ResourceResult>) -> Step {
    let mut group = Vec::new();
    for task in tasks.iter().filter(|t| t.hook.is_some()) {
        let Some(result) = results.iter().find(|r| task.has(r)).cloned() else { continue };
        if task::phase_of(&result) != Some(OperationPhase::Running) {
            continue;
        }
        if state.live.contains_key(&task.key) {
            group.push(View::cleanup(task, Action::DeleteHook));
        }
        task::upsert(&mut results, task.result(result.status.as_deref(), OperationPhase::Failed, "Terminated"));
    }
    let mut step = Step::new(results, OperationPhase::Failed, "Operation terminated");
    if !group.is_empty() {
        step.groups.push(group);
    }
    step
}

/// Ends the operation without success, after the hooks for that case have run.
fn fail(
    view: &View<'_>,
    mut results: Vec<ResourceResult>,
    apply_failed: bool,
    release: Option<Vec<Operation>>,
) -> Step {
    let cause = if apply_failed {
        "one or more objects failed to apply"
    } else {
        "one or more synchronization tasks completed unsuccessfully"
    };
    let reasons = |phase_matches: &dyn Fn(&ResourceResult) -> bool, results: &[ResourceResult]| {
        let failed = results.iter().filter(|r| r.status.as_deref() == Some("SyncFailed") && phase_matches(r));
        failed.filter_map(|r| r.message.clone()).filter(|m| !m.is_empty()).collect::<Vec<_>>().join(",")
    };
    let with_reason = |text: &str, reason: String| {
        if reason.is_empty() { text.to_owned() } else { format!("{text}, reason: {reason}") }
    };
    let is_sync_fail = |r: &ResourceResult| r.sync_phase.as_deref() == Some(Phase::SyncFail.as_str());
    let message = with_reason(cause, reasons(&|r| !is_sync_fail(r), &results));

    // Hooks that still run have nothing left to run for.
    let mut groups: Vec<Vec<Operation>> = release.into_iter().collect();
    let running =
        view.with(|t, s| t.hook.is_some() && t.phase != Phase::SyncFail && s == Some(OperationPhase::Running));
    let mut stopped = Vec::new();
    for task in running {
        if view.state.live.contains_key(&task.key) {
            stopped.push(View::cleanup(task, Action::DeleteHook));
        }
        task::upsert(&mut results, task.result(None, OperationPhase::Failed, "Terminated"));
    }
    if !stopped.is_empty() {
        groups.push(stopped);
    }
    let pending = view.with(|t, s| t.phase == Phase::SyncFail && s.is_none());
    if let Some(first) = pending.first() {
        let in_wave: Vec<&Task> = pending.iter().copied().filter(|t| t.wave == first.wave).collect();
        let mut step = run(view, results, &in_wave);
        step.groups.splice(0..0, groups);
        if step.is_wave {
            step.message = waiting(&pending);
        }
        return step;
    }
    let message = with_reason(&message, reasons(&is_sync_fail, &results));
    let mut step = Step::new(results, OperationPhase::Failed, message);
    step.groups = groups;
    step.groups.extend(view.delete_hooks(DeletePolicy::HookFailed));
    step
}

/// Asks the API server what every task would do.
fn dry_run(state: &SyncState<'_>, tasks: &[Task], mut results: Vec<ResourceResult>) -> Step {
    let mut groups = Vec::new();
    for group in tasks.chunk_by(|a, b| a.phase == b.phase && a.wave == b.wave && a.key.kind == b.key.kind) {
        let mut operations = Vec::new();
        for task in group {
            match &task.target {
                Some(target) => operations.push(apply(state, task, target, true)),
                None => match pruning(state, task) {
                    Pruning::Skip(why) => {
                        task::upsert(&mut results, task.result(Some("PruneSkipped"), OperationPhase::Succeeded, why));
                    }
                    // Nothing is asked of the API server: whether a deletion works shows only when it is done.
                    Pruning::Delete | Pruning::Confirm => task::upsert(
                        &mut results,
                        task.result(Some("Pruned"), OperationPhase::Succeeded, "pruned (dry run)"),
                    ),
                },
            }
        }
        groups.push(operations);
    }
    groups.retain(|group| !group.is_empty());
    let mut step = Step::new(results, OperationPhase::Succeeded, "successfully synced (no more tasks)");
    step.groups = groups;
    step.on_failure = Some("one or more objects failed to apply (dry run)".to_owned());
    step
}

enum Pruning {
    Skip(&'static str),
    Confirm,
    Delete,
}

fn pruning(state: &SyncState<'_>, task: &Task) -> Pruning {
    let options = state.live.get(&task.key).map(|live| state.options.of(&live.object));
    match options.map(|o| o.prune) {
        Some(Consent::No) => Pruning::Skip("ignored (no prune)"),
        _ if !state.operation.prune => Pruning::Skip("ignored (requires pruning)"),
        Some(Consent::Confirm) if state.approved_at.is_none_or(|at| at < state.started_at) => Pruning::Confirm,
        _ => Pruning::Delete,
    }
}

/// Runs one wave: prunes, deletes hooks that have to be made anew, applies.
fn run(view: &View<'_>, mut results: Vec<ResourceResult>, wave: &[&Task]) -> Step {
    let state = view.state;
    let unconfirmed: Vec<&Task> =
        wave.iter().copied().filter(|t| t.is_prune() && matches!(pruning(state, t), Pruning::Confirm)).collect();
    if !unconfirmed.is_empty() {
        let message = waiting_for("pruning confirmation of", &unconfirmed, "resources");
        return Step::new(results, OperationPhase::Running, message);
    }
    let mut prunes = Vec::new();
    for task in wave.iter().filter(|t| t.is_prune()) {
        if let Pruning::Skip(why) = pruning(state, task) {
            task::upsert(&mut results, task.result(Some("PruneSkipped"), OperationPhase::Succeeded, why));
        } else {
            let result = task.result(Some("Pruned"), OperationPhase::Succeeded, "pruned");
            let mut operation = View::cleanup(task, Action::Prune(state.options.propagation));
            operation.result = Some(Box::new(result));
            prunes.push(operation);
        }
    }
    let mut groups = vec![prunes];

    let stale: Vec<&Task> = wave.iter().copied().filter(|t| must_go_first(state, t)).collect();
    if !stale.is_empty() {
        groups.push(stale.iter().map(|t| View::cleanup(t, Action::DeleteHook)).collect());
        groups.retain(|group| !group.is_empty());
        let mut step = Step::new(results, OperationPhase::Running, waiting_for("deletion of", &stale, "hooks"));
        step.groups = groups;
        return step;
    }
    let applied: Vec<&&Task> = wave.iter().filter(|t| !t.is_prune()).collect();
    for group in applied.chunk_by(|a, b| a.key.kind == b.key.kind) {
        groups.push(
            group.iter().filter_map(|t| t.target.as_ref().map(|target| apply(state, t, target, false))).collect(),
        );
    }
    groups.retain(|group| !group.is_empty());
    let mut step = Step::new(results, OperationPhase::Running, "one or more tasks are running");
    step.groups = groups;
    step.is_wave = true;
    step
}

/// Whether an object of a former operation, or of the hook's former phase, is in the hook's place.
fn must_go_first(state: &SyncState<'_>, task: &Task) -> bool {
    let Some(target) = task.target.as_ref().filter(|_| task.hook.is_some()) else { return false };
    let Some(live) = state.live.get(&task.key) else { return false };
    object::is_deleting(&live.object) || hook::delete_policies(target).contains(&DeletePolicy::BeforeHookCreation)
}

fn apply(state: &SyncState<'_>, task: &Task, target: &Value, dry_run: bool) -> Operation {
    let options: ResourceOptions = state.options.of(target);
    let mut object = target.clone();
    if let Some(live) = state.live.get(&task.key).filter(|_| task.hook.is_none()) {
        state.ignore.respect(&task.key, &live.object, &mut object, state.options.respect_ignored);
    }
    let strategy = state.operation.sync_strategy.as_ref();
    let forced = strategy.and_then(|s| s.apply.as_ref().or(s.hook.as_ref())).is_some_and(|s| s.force);
    let managed_namespace = state.namespace.is_some_and(|w| w.metadata.is_some() && is_namespace(&task.key, w.name));
    let mode = if options.replace {
        Mode::Replace
    } else if options.server_side || managed_namespace {
        let manager = object::annotation(target, MIGRATION_MANAGER).unwrap_or(DEFAULT_MIGRATION_MANAGER);
        Mode::ServerSide { migrate: state.options.migrate.then(|| manager.to_owned()) }
    } else {
        Mode::ClientSide
    };
    Operation {
        key: task.key.clone(),
        api_version: task.api_version.clone(),
        action: Action::Apply {
            object: Box::new(object),
            mode,
            force: options.force || forced,
            validate: options.validate,
        },
        dry_run,
        result: Some(Box::new(task.result(Some("Synced"), OperationPhase::Running, ""))),
    }
}

/// What is waited for: hooks first.
fn waiting(tasks: &[&Task]) -> String {
    let hooks: Vec<&Task> = tasks.iter().copied().filter(|t| t.hook.is_some()).collect();
    if hooks.is_empty() {
        waiting_for("healthy state of", tasks, "resources")
    } else {
        waiting_for("completion of hook", &hooks, "hooks")
    }
}

fn waiting_for(what: &str, tasks: &[&Task], plural: &str) -> String {
    let Some(first) = tasks.first() else { return "one or more tasks are running".to_owned() };
    match tasks.len() - 1 {
        0 => format!("waiting for {what} {}", first.key),
        more => format!("waiting for {what} {} and {more} more {plural}", first.key),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
