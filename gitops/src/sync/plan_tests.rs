use super::*;
use crate::sync::record::record;
use serde_json::json;

/// A cluster of a few objects, an operation, and what was done so far.
#[derive(Clone, Debug)]
struct World {
    targets: Vec<Value>,
    live: BTreeMap<Key, Live>,
    extra: Vec<Key>,
    in_sync: BTreeSet<Key>,
    unknown: BTreeSet<(String, String)>,
    denied: BTreeMap<Key, String>,
    shared: BTreeMap<Key, String>,
    operation: SyncOperation,
    options: Vec<String>,
    ignore: IgnoreRules,
    metadata: Option<ManagedNamespaceMetadata>,
    results: Vec<ResourceResult>,
    terminating: bool,
    approved_at: Option<Timestamp>,
    last_wave_at: Option<Timestamp>,
    retry_count: i64,
    now: Timestamp,
    /// Names of objects whose writes fail.
    failing: BTreeSet<String>,
    /// Every write so far, as `verb Kind/name`.
    log: Vec<String>,
}

fn start() -> Timestamp {
    "2026-01-01T10:00:00Z".parse().expect("time")
}

fn object(kind: &str, name: &str, annotations: Value) -> Value {
    let api_version = match kind {
        "Deployment" => "apps/v1",
        "Job" => "batch/v1",
        "CustomResourceDefinition" => "apiextensions.k8s.io/v1",
        "Thing" => "x/v1",
        _ => "v1",
    };
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "ns", "annotations": annotations}})
}

fn wave(kind: &str, name: &str, wave: i64) -> Value {
    object(kind, name, json!({"argocd.argoproj.io/sync-wave": wave.to_string()}))
}

fn hook(name: &str, types: &str) -> Value {
    object("Job", name, json!({"argocd.argoproj.io/hook": types}))
}

fn healthy(status: Status, message: &str) -> Option<Health> {
    Some(Health { status, message: message.into() })
}

impl World {
    fn new(targets: &[Value]) -> Self {
        Self {
            targets: targets.to_vec(),
            live: BTreeMap::new(),
            extra: Vec::new(),
            in_sync: BTreeSet::new(),
            unknown: BTreeSet::new(),
            denied: BTreeMap::new(),
            shared: BTreeMap::new(),
            operation: SyncOperation { prune: true, ..SyncOperation::default() },
            options: Vec::new(),
            ignore: IgnoreRules::default(),
            metadata: None,
            results: Vec::new(),
            terminating: false,
            approved_at: None,
            last_wave_at: None,
            retry_count: 0,
            now: start(),
            failing: BTreeSet::new(),
            log: Vec::new(),
        }
    }

    fn options(mut self, options: &[&str]) -> Self {
        self.options = options.iter().map(|o| (*o).to_owned()).collect();
        self
    }

    fn with_extra(mut self, objects: &[Value]) -> Self {
        for object in objects {
            self.extra.push(Key::of(object));
            self.live.insert(Key::of(object), Live { object: object.clone(), health: None });
        }
        self
    }

    fn decide(&self) -> Step {
        decide(
            &SyncState {
                targets: &self.targets,
                live: &self.live,
                extra: &self.extra,
                in_sync: &self.in_sync,
                unknown_kinds: &self.unknown,
                denied: &self.denied,
                shared: &self.shared,
                operation: &self.operation,
                options: &AppOptions::new(&self.options),
                ignore: &self.ignore,
                namespace: Some(NamespaceWish { name: "ns", metadata: self.metadata.as_ref() }),
                revision: "0123456789",
                started_at: start(),
                retry_count: self.retry_count,
                terminating: self.terminating,
                results: &self.results,
                approved_at: self.approved_at,
                last_wave_at: self.last_wave_at,
                wave_delay: Duration::from_secs(2),
            },
            self.now,
        )
    }

    /// Decides, writes, and takes in the outcome. Answers with the phase and message.
    fn pass(&mut self) -> String {
        let step = self.decide();
        let mut outcomes = Vec::new();
        let mut stopped = false;
        for group in &step.groups {
            let mut failed = false;
            for operation in group {
                if stopped {
                    outcomes.push(None);
                    continue;
                }
                let outcome = self.write(operation);
                failed |= outcome.is_err();
                outcomes.push(Some(outcome));
            }
            stopped |= failed;
        }
        if step.is_wave {
            self.last_wave_at = Some(self.now);
        }
        let recorded = record(step, &outcomes);
        self.results = recorded.results;
        format!("{} {}", recorded.phase, recorded.message)
    }

    /// A pass after the delay between waves.
    fn later(&mut self) -> String {
        self.now += Duration::from_secs(3);
        self.pass()
    }

    fn write(&mut self, operation: &Operation) -> Result<String, String> {
        let Key { kind, name, .. } = &operation.key;
        if self.failing.contains(name) {
            return Err(format!("{name} is refused"));
        }
        let verb = match &operation.action {
            Action::Apply { mode: Mode::ClientSide, .. } => "apply",
            Action::Apply { mode: Mode::ServerSide { .. }, .. } => "server-apply",
            Action::Apply { mode: Mode::Replace, .. } => "replace",
            Action::Prune(_) => "prune",
            Action::DeleteHook => "delete-hook",
            Action::ReleaseHook => "release",
        };
        self.log.push(format!("{verb}{} {kind}/{name}", if operation.dry_run { "?" } else { "" }));
        if operation.dry_run {
            return Ok("would".into());
        }
        match &operation.action {
            Action::Apply { object, .. } => {
                let has_health = matches!(kind.as_str(), "Deployment" | "Job");
                let health = if has_health { healthy(Status::Progressing, "starting") } else { None };
                self.live.insert(operation.key.clone(), Live { object: (**object).clone(), health });
            }
            Action::Prune(_) | Action::DeleteHook => {
                self.live.remove(&operation.key);
                self.extra.retain(|key| *key != operation.key);
            }
            Action::ReleaseHook => {
                if let Some(live) = self.live.get_mut(&operation.key) {
                    live.object["metadata"]["finalizers"] = json!([]);
                }
            }
        }
        Ok(format!("{name} done"))
    }

    fn set(&mut self, name: &str, status: Status) {
        for (key, live) in &mut self.live {
            if key.name == name {
                live.health = healthy(status, "m");
            }
        }
    }

    fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    fn result(&self, name: &str) -> String {
        let result = self.results.iter().find(|r| r.name == name).expect("a result");
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        format!("{} {} {}", text(&result.status), text(&result.hook_phase), text(&result.message))
    }
}

#[test]
fn one_wave_does_not_wait_for_health() {
    let mut world = World::new(&[object("Deployment", "d", json!({})), object("ConfigMap", "c", json!({}))]);
    assert_eq!(world.pass(), "Succeeded successfully synced (all tasks run)");
    assert_eq!(world.take_log(), ["apply ConfigMap/c", "apply Deployment/d"]);
    assert_eq!(world.result("d"), "Synced Running d done");
}

#[test]
fn a_sync_that_was_cut_off_after_its_only_wave_succeeds() {
    let mut world = World::new(&[object("Deployment", "d", json!({}))]);
    world.pass();
    world.set("d", Status::Degraded);
    assert_eq!(world.later(), "Succeeded successfully synced (no more tasks)");
}

#[test]
fn waves_wait_for_health_and_for_the_delay() {
    let mut world = World::new(&[wave("Deployment", "a", -1), wave("Deployment", "b", 0), wave("Deployment", "c", 1)]);
    assert_eq!(world.pass(), "Running waiting for healthy state of apps/Deployment/b and 1 more resources");
    assert_eq!(world.take_log(), ["apply Deployment/a"]);
    world.set("a", Status::Healthy);
    assert_eq!(world.pass(), "Running one or more tasks are running");
    assert_eq!(world.decide().requeue, Some(Duration::from_secs(2)));
    world.set("a", Status::Progressing);
    assert_eq!(world.later(), "Running waiting for healthy state of apps/Deployment/a");
    world.set("a", Status::Suspended);
    assert_eq!(world.later(), "Running waiting for healthy state of apps/Deployment/a");
    world.set("a", Status::Healthy);
    assert_eq!(world.later(), "Running waiting for healthy state of apps/Deployment/c");
    assert_eq!(world.take_log(), ["apply Deployment/b"]);
    world.set("b", Status::Healthy);
    assert_eq!(world.later(), "Succeeded successfully synced (all tasks run)");
    assert_eq!(world.result("a"), "Synced Succeeded m");
}

#[test]
fn a_degraded_wave_fails_the_sync() {
    let mut world = World::new(&[wave("Deployment", "a", -1), wave("ConfigMap", "b", 0)]);
    world.pass();
    world.set("a", Status::Degraded);
    assert_eq!(world.later(), "Failed one or more synchronization tasks completed unsuccessfully");
    assert_eq!(world.result("a"), "Synced Failed m");
    assert_eq!(world.take_log(), ["apply Deployment/a"]);
}

#[test]
fn an_object_that_vanishes_fails_the_sync() {
    let mut world = World::new(&[wave("Deployment", "a", -1), wave("ConfigMap", "b", 0)]);
    world.pass();
    world.live.clear();
    assert_eq!(world.later(), "Failed one or more synchronization tasks completed unsuccessfully");
    assert_eq!(world.result("a"), "Synced Error Resource apps/Deployment/a is missing, it might have been deleted");
}

#[test]
fn a_refused_object_fails_the_sync() {
    let mut world = World::new(&[object("ConfigMap", "a", json!({})), object("Deployment", "d", json!({}))]);
    world.failing.insert("a".into());
    assert_eq!(world.pass(), "Running one or more tasks are running");
    assert_eq!(world.pass(), "Failed one or more objects failed to apply, reason: a is refused");
    assert_eq!(world.take_log(), Vec::<String>::new(), "later groups are not tried");
    assert_eq!(world.result("a"), "SyncFailed Failed a is refused");
}

#[test]
fn hooks_run_in_their_phases() {
    let mut world = World::new(&[
        hook("pre", "PreSync"),
        object("Deployment", "d", json!({})),
        hook("post", "PostSync"),
        hook("never", "Skip"),
    ]);
    assert_eq!(world.pass(), "Running waiting for completion of hook batch/Job/pre and 1 more hooks");
    assert_eq!(world.take_log(), ["apply Job/pre"]);
    assert_eq!(world.later(), "Running waiting for completion of hook batch/Job/pre");
    world.set("pre", Status::Healthy);
    assert_eq!(world.later(), "Running waiting for completion of hook batch/Job/post");
    assert_eq!(world.take_log(), ["release Job/pre", "apply Deployment/d"]);
    assert_eq!(world.result("pre"), "Synced Succeeded m");
    world.set("d", Status::Healthy);
    assert_eq!(world.later(), "Running waiting for completion of hook batch/Job/post");
    assert_eq!(world.take_log(), ["apply Job/post"]);
    world.set("post", Status::Healthy);
    assert_eq!(world.later(), "Succeeded successfully synced (no more tasks)");
    assert_eq!(world.take_log(), ["release Job/post"]);
}

#[test]
fn a_failed_hook_fails_the_sync_and_sync_fail_hooks_run() {
    let mut world = World::new(&[
        object(
            "Job",
            "pre",
            json!({"argocd.argoproj.io/hook": "PreSync", "argocd.argoproj.io/hook-delete-policy": "HookFailed"}),
        ),
        object("Deployment", "d", json!({})),
        hook("fail", "SyncFail"),
    ]);
    world.pass();
    world.set("pre", Status::Degraded);
    assert_eq!(world.later(), "Running waiting for completion of hook batch/Job/fail");
    assert_eq!(world.later(), "Running waiting for completion of hook batch/Job/fail");
    assert_eq!(world.take_log(), ["apply Job/pre", "release Job/pre", "apply Job/fail"]);
    world.set("fail", Status::Healthy);
    assert_eq!(world.later(), "Failed one or more synchronization tasks completed unsuccessfully");
    assert_eq!(world.take_log(), ["release Job/fail", "delete-hook Job/pre"]);
}

#[test]
fn sync_fail_hooks_are_not_part_of_a_success() {
    let mut world = World::new(&[object("ConfigMap", "c", json!({})), hook("fail", "SyncFail")]);
    assert_eq!(world.pass(), "Succeeded successfully synced (all tasks run)");
    assert_eq!(world.take_log(), ["apply ConfigMap/c"]);
}

#[test]
fn a_hook_of_a_former_operation_goes_first() {
    let mut world = World::new(&[hook("pre", "PreSync"), object("ConfigMap", "c", json!({}))]);
    let old = hook("pre", "PreSync");
    world.live.insert(Key::of(&old), Live { object: old, health: healthy(Status::Healthy, "old") });
    assert_eq!(world.pass(), "Running waiting for deletion of batch/Job/pre");
    assert_eq!(world.take_log(), ["delete-hook Job/pre"]);
    assert_eq!(world.pass(), "Running waiting for completion of hook batch/Job/pre");
    assert_eq!(world.take_log(), ["apply Job/pre"]);
}

#[test]
fn a_hook_that_nobody_noted_is_not_run_again() {
    let mut world = World::new(&[hook("pre", "PreSync"), object("ConfigMap", "c", json!({}))]);
    world.pass();
    world.results.clear();
    world.take_log();
    assert_eq!(world.later(), "Running waiting for completion of hook batch/Job/pre");
    assert_eq!(world.take_log(), Vec::<String>::new());
    // The next attempt of the same operation runs it again.
    world.retry_count = 1;
    world.results.clear();
    assert_eq!(world.later(), "Running waiting for deletion of batch/Job/pre");
}

#[test]
fn hooks_that_succeeded_are_deleted_when_the_operation_succeeds() {
    let policy =
        json!({"argocd.argoproj.io/hook": "PreSync", "argocd.argoproj.io/hook-delete-policy": "HookSucceeded"});
    let mut world = World::new(&[object("Job", "pre", policy), object("ConfigMap", "c", json!({}))]);
    world.pass();
    world.set("pre", Status::Healthy);
    assert_eq!(world.later(), "Succeeded successfully synced (all tasks run)");
    assert_eq!(world.take_log(), ["apply Job/pre", "release Job/pre", "apply ConfigMap/c", "delete-hook Job/pre"]);
}

#[test]
fn no_hooks_in_selective_and_apply_syncs() {
    let targets = [hook("pre", "PreSync"), object("ConfigMap", "c", json!({})), object("ConfigMap", "d", json!({}))];
    let mut selective = World::new(&targets);
    selective.operation =
        serde_json::from_value(json!({"resources": [{"kind": "ConfigMap", "name": "c"}]})).expect("operation");
    assert_eq!(selective.pass(), "Succeeded successfully synced (all tasks run)");
    assert_eq!(selective.take_log(), ["apply ConfigMap/c"]);
    let mut apply = World::new(&targets);
    apply.operation = serde_json::from_value(json!({"syncStrategy": {"apply": {"force": true}}})).expect("operation");
    let step = apply.decide();
    assert!(step.groups.iter().flatten().all(|o| matches!(&o.action, Action::Apply { force: true, .. })));
    assert_eq!(step.groups.iter().flatten().count(), 2);
}

#[test]
fn pruning_needs_consent() {
    let extra = [
        object("ConfigMap", "gone", json!({})),
        object("ConfigMap", "kept", json!({"argocd.argoproj.io/sync-options": "Prune=false"})),
    ];
    let mut world = World::new(&[object("ConfigMap", "c", json!({}))]).with_extra(&extra);
    assert_eq!(world.pass(), "Succeeded successfully synced (all tasks run)");
    assert_eq!(world.take_log(), ["prune ConfigMap/gone", "apply ConfigMap/c"]);
    assert_eq!(world.result("gone"), "Pruned Succeeded pruned");
    assert_eq!(world.result("kept"), "PruneSkipped Succeeded ignored (no prune)");
    let mut off = World::new(&[object("ConfigMap", "c", json!({}))]).with_extra(&extra);
    off.operation.prune = false;
    off.pass();
    assert_eq!(off.take_log(), ["apply ConfigMap/c"]);
    assert_eq!(off.result("gone"), "PruneSkipped Succeeded ignored (requires pruning)");
}

#[test]
fn pruning_may_need_a_confirmation() {
    let extra = [object("ConfigMap", "gone", json!({"argocd.argoproj.io/sync-options": "Prune=confirm"}))];
    let mut world = World::new(&[]).with_extra(&extra);
    assert_eq!(world.pass(), "Running waiting for pruning confirmation of /ConfigMap/gone");
    world.approved_at = Some(start());
    assert_eq!(world.pass(), "Succeeded successfully synced (all tasks run)");
    assert_eq!(world.take_log(), ["prune ConfigMap/gone"]);
}

#[test]
fn what_is_pruned_is_waited_for_when_more_is_to_come() {
    let extra = [object("ConfigMap", "gone", json!({}))];
    let mut world = World::new(&[wave("ConfigMap", "c", 1)]).with_extra(&extra);
    let key = world.extra[0].clone();
    let kept = world.live[&key].clone();
    assert_eq!(world.pass(), "Running waiting for healthy state of /ConfigMap/c");
    world.live.insert(key.clone(), kept);
    world.extra.push(key.clone());
    assert_eq!(world.later(), "Running waiting for deletion of /ConfigMap/gone");
    world.live.remove(&key);
    world.extra.clear();
    assert_eq!(world.later(), "Succeeded successfully synced (all tasks run)");
}

#[test]
fn prune_last_comes_after_everything() {
    let extra = [object("ConfigMap", "gone", json!({}))];
    let mut world = World::new(&[object("Deployment", "d", json!({}))]).with_extra(&extra).options(&["PruneLast=true"]);
    assert_eq!(world.pass(), "Running waiting for healthy state of /ConfigMap/gone");
    world.set("d", Status::Healthy);
    assert_eq!(world.later(), "Succeeded successfully synced (all tasks run)");
    assert_eq!(world.take_log(), ["apply Deployment/d", "prune ConfigMap/gone"]);
}

#[test]
fn a_namespace_is_made_when_it_is_missing() {
    let mut world = World::new(&[object("ConfigMap", "c", json!({}))]).options(&["CreateNamespace=true"]);
    assert_eq!(world.pass(), "Succeeded successfully synced (all tasks run)");
    assert_eq!(world.take_log(), ["apply Namespace/ns", "apply ConfigMap/c"]);
    world.results.clear();
    world.last_wave_at = None;
    world.pass();
    assert_eq!(world.take_log(), ["apply ConfigMap/c"], "it is there");
    world.results.clear();
    world.last_wave_at = None;
    world.metadata = Some(serde_json::from_value(json!({"labels": {"a": "b"}})).expect("metadata"));
    world.pass();
    assert_eq!(world.take_log(), ["server-apply Namespace/ns", "apply ConfigMap/c"]);
    assert_eq!(world.live[&Key::new("", "Namespace", "", "ns")].object["metadata"]["labels"]["a"], "b");
}

#[test]
fn a_namespace_in_git_wins() {
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns", "labels": {"mine": "1"}}});
    let mut world = World::new(&[namespace, hook("pre", "PreSync")]).options(&["CreateNamespace=true"]);
    world.metadata = Some(serde_json::from_value(json!({"labels": {"a": "b"}})).expect("metadata"));
    world.pass();
    assert_eq!(world.take_log(), ["server-apply Namespace/ns", "apply Job/pre"]);
    let labels = &world.live[&Key::new("", "Namespace", "", "ns")].object["metadata"]["labels"];
    assert_eq!(labels, &json!({"mine": "1", "a": "b"}));
}

#[test]
fn options_choose_how_an_object_is_written() {
    let own = |options: &str| object("ConfigMap", "c", json!({"argocd.argoproj.io/sync-options": options}));
    for (options, object, expected) in [
        (&[][..], own(""), "apply ConfigMap/c"),
        (&["ServerSideApply=true"][..], own(""), "server-apply ConfigMap/c"),
        (&["ServerSideApply=true"][..], own("ServerSideApply=false"), "apply ConfigMap/c"),
        (&["ServerSideApply=true"][..], own("Replace=true"), "replace ConfigMap/c"),
    ] {
        let mut world = World::new(&[object]).options(options);
        world.pass();
        assert_eq!(world.take_log(), [expected], "{options:?}");
    }
    let world = World::new(&[own("Validate=false,Force=true,ServerSideApply=true")])
        .options(&["ClientSideApplyMigration=false"]);
    let step = world.decide();
    let Action::Apply { mode, force, validate, .. } = &step.groups[0][0].action else { panic!("{step:?}") };
    assert_eq!((mode, *force, *validate), (&Mode::ServerSide { migrate: None }, true, false));
}

#[test]
fn what_is_in_sync_may_be_left_alone() {
    let mut world =
        World::new(&[object("ConfigMap", "a", json!({})), object("ConfigMap", "b", json!({})), hook("pre", "PreSync")])
            .options(&["ApplyOutOfSyncOnly=true"]);
    world.in_sync.insert(Key::of(&world.targets[0]));
    world.pass();
    world.set("pre", Status::Healthy);
    assert_eq!(world.later(), "Succeeded successfully synced (all tasks run)");
    assert_eq!(world.take_log(), ["apply Job/pre", "release Job/pre", "apply ConfigMap/b"]);
}

#[test]
fn ignored_fields_are_kept_when_asked() {
    let rule = json!([{"kind": "ConfigMap", "jsonPointers": ["/data/theirs"]}]);
    let (ignore, _) = IgnoreRules::compile(&serde_json::from_value::<Vec<_>>(rule).expect("rules"));
    let mut target = object("ConfigMap", "c", json!({}));
    target["data"] = json!({"theirs": "git", "ours": "git"});
    let mut live = target.clone();
    live["data"]["theirs"] = "live".into();
    for (options, expected) in [(&[][..], "git"), (&["RespectIgnoreDifferences=true"][..], "live")] {
        let mut world = World::new(std::slice::from_ref(&target)).options(options);
        world.ignore = ignore.clone();
        world.live.insert(Key::of(&live), Live { object: live.clone(), health: None });
        world.pass();
        assert_eq!(world.live[&Key::of(&live)].object["data"]["theirs"], expected);
    }
}

#[test]
fn tasks_that_cannot_work_are_refused() {
    let thing = object("Thing", "t", json!({}));
    let message = "Failed one or more synchronization tasks are not valid";
    let mut world = World::new(&[thing.clone(), object("ConfigMap", "c", json!({}))]);
    world.unknown.insert(("x".into(), "Thing".into()));
    assert_eq!(world.pass(), message);
    assert!(world.log.is_empty());
    assert!(
        world.result("t").starts_with("SyncFailed Failed The Kubernetes API could not find x/Thing"),
        "{}",
        world.result("t")
    );

    let mut crd = object("CustomResourceDefinition", "things.x", json!({}));
    crd["spec"] = json!({"group": "x", "names": {"kind": "Thing"}});
    let mut with_crd = World::new(&[thing.clone(), crd]);
    with_crd.unknown = world.unknown.clone();
    assert_eq!(with_crd.pass(), "Succeeded successfully synced (all tasks run)");

    let mut skipping = World::new(std::slice::from_ref(&thing)).options(&["SkipDryRunOnMissingResource=true"]);
    skipping.unknown = world.unknown.clone();
    assert_eq!(skipping.pass(), "Succeeded successfully synced (all tasks run)");

    let mut denied = World::new(std::slice::from_ref(&thing));
    denied.denied.insert(Key::of(&thing), "not permitted in project p".into());
    assert_eq!(denied.pass(), message);
    assert_eq!(denied.result("t"), "SyncFailed Failed not permitted in project p");

    let mut shared = World::new(std::slice::from_ref(&thing)).options(&["FailOnSharedResource=true"]);
    shared.shared.insert(Key::of(&thing), "other".into());
    assert_eq!(shared.pass(), "Failed Shared resource found: Thing/t is part of application other");
}

#[test]
fn a_dry_run_changes_nothing() {
    let mut world = World::new(&[object("ConfigMap", "c", json!({})), wave("Deployment", "d", 1)])
        .with_extra(&[object("ConfigMap", "gone", json!({}))]);
    world.operation.dry_run = true;
    let before = world.live.clone();
    assert_eq!(world.pass(), "Succeeded successfully synced (no more tasks)");
    assert_eq!(world.take_log(), ["apply? ConfigMap/c", "apply? Deployment/d"]);
    assert_eq!(world.live, before);
    assert_eq!(world.result("gone"), "Pruned Succeeded pruned (dry run)");
    world.results.clear();
    world.failing.insert("d".into());
    assert_eq!(world.pass(), "Failed one or more objects failed to apply (dry run)");
}

#[test]
fn terminating_ends_running_hooks() {
    let mut world = World::new(&[hook("pre", "PreSync"), object("ConfigMap", "c", json!({}))]);
    world.pass();
    world.take_log();
    world.terminating = true;
    assert_eq!(world.later(), "Failed Operation terminated");
    assert_eq!(world.take_log(), ["delete-hook Job/pre"]);
    assert_eq!(world.result("pre"), "Synced Failed Terminated");
}

#[test]
fn nothing_to_do_is_a_success() {
    assert_eq!(World::new(&[]).pass(), "Succeeded successfully synced (no more tasks)");
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn world() -> impl Strategy<Value = World> {
        let target = (0..4usize, 0..4usize, -1..2i64, 0..6usize).prop_map(|(kind, name, at, hook_kind)| {
            let kinds = ["ConfigMap", "Deployment", "Job", "Job"];
            let mut annotations = json!({"argocd.argoproj.io/sync-wave": at.to_string()});
            if kinds[kind] == "Job" {
                let types = ["PreSync", "PostSync", "Sync", "SyncFail", "PreSync,PostSync", "Skip"];
                annotations["argocd.argoproj.io/hook"] = types[hook_kind].into();
            }
            object(kinds[kind], &format!("o{name}"), annotations)
        });
        let fails = prop::collection::btree_set("o[0-3]", 0..2);
        (prop::collection::vec(target, 0..6), prop::collection::vec((0..3usize, -1..2i64), 0..3), fails, any::<bool>())
            .prop_map(|(mut targets, extra, failing, last)| {
                let mut seen = BTreeSet::new();
                targets.retain(|t| seen.insert(Key::of(t)));
                let extra: Vec<Value> = extra.iter().map(|(n, w)| wave("Secret", &format!("gone{n}"), *w)).collect();
                let mut seen = BTreeSet::new();
                let extra: Vec<Value> = extra.into_iter().filter(|e| seen.insert(Key::of(e))).collect();
                let world = World::new(&targets).with_extra(&extra);
                let mut world = if last { world.options(&["PruneLast=true"]) } else { world };
                world.failing = failing;
                world
            })
    }

    proptest! {
        /// Whatever happens, a sync ends, and losing what was noted in one pass does not run a hook twice.
        #[test]
        fn every_sync_ends(mut world in world(), lose in 0..12usize, degraded in prop::option::of(0..4usize)) {
            let mut ended = None;
            for pass in 0..60 {
                let before = world.results.clone();
                let answer = world.later();
                if answer.starts_with("Succeeded") || answer.starts_with("Failed") {
                    ended = Some(answer);
                    break;
                }
                if pass == lose {
                    world.results = before;
                    continue;
                }
                for live in world.live.values_mut().filter(|l| l.health.is_some()) {
                    let bad = degraded.is_some_and(|d| object::name(&live.object) == format!("o{d}"));
                    live.health = healthy(if bad { Status::Degraded } else { Status::Healthy }, "m");
                }
            }
            prop_assert!(ended.is_some(), "{:?} {:#?}", world.log, world.results);
            for target in world.targets.iter().filter(|t| object::kind(t) == "Job") {
                let name = object::name(target);
                let runs = world.log.iter().filter(|l| **l == format!("apply Job/{name}")).count();
                let phases = crate::sync::hook::types(target).len();
                prop_assert!(runs <= phases, "{name}: {:?}", world.log);
            }
            if ended.is_some_and(|e| e.starts_with("Succeeded")) {
                prop_assert!(world.extra.is_empty());
                for target in world.targets.iter().filter(|t| crate::sync::hook::types(t).is_empty()) {
                    prop_assert!(world.live.contains_key(&Key::of(target)));
                }
            }
        }
    }
}
