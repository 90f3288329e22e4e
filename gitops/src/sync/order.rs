//! The order of tasks.

use super::Phase;
use super::task::Task;
use crate::object;
use std::collections::BTreeSet;

/// Kinds that come before others within a wave.
const KINDS: &[&str] = &[
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "LimitRange",
    "PodSecurityPolicy",
    "PodDisruptionBudget",
    "ServiceAccount",
    "Secret",
    "SecretList",
    "ConfigMap",
    "StorageClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleList",
    "ClusterRoleBinding",
    "ClusterRoleBindingList",
    "Role",
    "RoleList",
    "RoleBinding",
    "RoleBindingList",
    "Service",
    "DaemonSet",
    "Pod",
    "ReplicationController",
    "ReplicaSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "StatefulSet",
    "Job",
    "CronJob",
    "IngressClass",
    "Ingress",
    "APIService",
];

/// The place of a kind; kinds that are not listed come after those that are.
pub fn rank(kind: &str) -> usize {
    KINDS.iter().position(|k| *k == kind).unwrap_or(KINDS.len())
}

/// Sorts tasks, and moves what others need before them. `prune_last` says which prune tasks come at the very end.
pub fn sort(tasks: &mut Vec<Task>, prune_last: impl Fn(&Task) -> bool) {
    mirror_prune_waves(tasks);
    let last = tasks.iter().filter(|t| t.phase == Phase::Sync && !t.is_prune()).map(|t| t.wave).max().unwrap_or(0);
    for task in tasks.iter_mut().filter(|t| t.is_prune()) {
        if prune_last(task) {
            task.wave = last.saturating_add(1);
        }
    }
    tasks.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
    move_providers(tasks);
}

fn sort_key(task: &Task) -> (Phase, i64, usize, &str, &str, &str) {
    (task.phase, task.wave, rank(&task.key.kind), &task.key.kind, &task.key.name, &task.key.namespace)
}

/// What was made last is pruned first: the lowest wave of prune tasks changes places with the highest, and so on.
fn mirror_prune_waves(tasks: &mut [Task]) {
    let waves: BTreeSet<i64> = tasks.iter().filter(|t| t.is_prune()).map(|t| t.wave).collect();
    let waves: Vec<i64> = waves.into_iter().collect();
    for task in tasks.iter_mut().filter(|t| t.is_prune()) {
        if let Ok(index) = waves.binary_search(&task.wave) {
            task.wave = waves[waves.len() - 1 - index];
        }
    }
}

/// Moves a Namespace before the first task in it, and a CustomResourceDefinition before the first of its resources.
fn move_providers(tasks: &mut Vec<Task>) {
    let is_namespace = |t: &Task| !t.is_prune() && t.key.kind == "Namespace" && t.key.group.is_empty();
    let is_definition = |t: &Task| t.target.as_ref().is_some_and(object::is_crd);
    let mut index = 0;
    while index < tasks.len() {
        let provider = &tasks[index];
        let first = if is_namespace(provider) {
            tasks[..index].iter().position(|t| !t.is_prune() && t.key.namespace == provider.key.name)
        } else if is_definition(provider) {
            let target = provider.target.clone().unwrap_or_default();
            let (group, kind) = (object::text(&target, "/spec/group"), object::text(&target, "/spec/names/kind"));
            tasks[..index].iter().position(|t| !t.is_prune() && t.key.group == group && t.key.kind == kind)
        } else {
            None
        };
        if let Some(first) = first {
            let mut provider = tasks.remove(index);
            (provider.phase, provider.wave) = (tasks[first].phase, tasks[first].wave);
            tasks.insert(first, provider);
        }
        index += 1;
    }
}

/// Whether there is more than one step.
pub fn is_multi_step(tasks: &[Task]) -> bool {
    tasks.windows(2).any(|pair| (pair[0].phase, pair[0].wave) != (pair[1].phase, pair[1].wave))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Key;
    use proptest::prelude::*;
    use serde_json::json;

    fn task(phase: Phase, wave: i64, kind: &str, name: &str) -> Task {
        let target = json!({"kind": kind, "metadata": {"name": name}});
        Task {
            phase,
            wave,
            key: Key::new("", kind, "", name),
            api_version: "v1".into(),
            target: Some(target),
            hook: None,
        }
    }

    fn prune(wave: i64, kind: &str, name: &str) -> Task {
        Task { target: None, ..task(Phase::Sync, wave, kind, name) }
    }

    fn sorted(mut tasks: Vec<Task>, last: &[&str]) -> Vec<String> {
        sort(&mut tasks, |t| last.contains(&t.key.name.as_str()));
        tasks.iter().map(|t| format!("{}/{}/{}/{}", t.phase.as_str(), t.wave, t.key.kind, t.key.name)).collect()
    }

    #[test]
    fn phase_then_wave_then_kind_then_name() {
        let tasks = vec![
            task(Phase::SyncFail, 0, "Job", "fail"),
            task(Phase::PostSync, -5, "Job", "post"),
            task(Phase::Sync, 0, "Rollout", "z"),
            task(Phase::Sync, 0, "Ingress", "i"),
            task(Phase::Sync, 0, "Service", "b"),
            task(Phase::Sync, 0, "Service", "a"),
            task(Phase::Sync, 0, "Deployment", "d"),
            task(Phase::Sync, -1, "Job", "early"),
            task(Phase::PreSync, 9, "Job", "pre"),
        ];
        assert_eq!(
            sorted(tasks, &[]),
            [
                "PreSync/9/Job/pre",
                "Sync/-1/Job/early",
                "Sync/0/Service/a",
                "Sync/0/Service/b",
                "Sync/0/Deployment/d",
                "Sync/0/Ingress/i",
                "Sync/0/Rollout/z",
                "PostSync/-5/Job/post",
                "SyncFail/0/Job/fail",
            ]
        );
    }

    #[test]
    fn a_namespace_comes_before_what_is_in_it() {
        let mut job = task(Phase::PreSync, -3, "Job", "j");
        job.key.namespace = "ns".into();
        let tasks = vec![task(Phase::Sync, 5, "Namespace", "ns"), task(Phase::Sync, 0, "Namespace", "other"), job];
        assert_eq!(sorted(tasks, &[]), ["PreSync/-3/Namespace/ns", "PreSync/-3/Job/j", "Sync/0/Namespace/other"]);
    }

    #[test]
    fn a_definition_comes_before_its_resources() {
        let mut crd = task(Phase::Sync, 2, "CustomResourceDefinition", "things.x");
        crd.key.group = "apiextensions.k8s.io".into();
        crd.target = Some(json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "spec": {"group": "x", "names": {"kind": "Thing"}}}));
        let mut thing = task(Phase::Sync, 1, "Thing", "t");
        thing.key.group = "x".into();
        assert_eq!(
            sorted(vec![thing, crd, task(Phase::Sync, 0, "Pod", "p")], &[]),
            ["Sync/0/Pod/p", "Sync/1/CustomResourceDefinition/things.x", "Sync/1/Thing/t"]
        );
    }

    #[test]
    fn prune_waves_are_mirrored() {
        let tasks = vec![prune(-1, "A", "a"), prune(0, "A", "b"), prune(7, "A", "c"), task(Phase::Sync, 3, "A", "d")];
        assert_eq!(sorted(tasks, &[]), ["Sync/-1/A/c", "Sync/0/A/b", "Sync/3/A/d", "Sync/7/A/a"]);
        let tasks = vec![prune(-1, "A", "a"), prune(0, "A", "b"), task(Phase::Sync, 3, "A", "d")];
        assert_eq!(sorted(tasks, &["a", "b"]), ["Sync/3/A/d", "Sync/4/A/a", "Sync/4/A/b"]);
    }

    #[test]
    fn steps_are_counted() {
        assert!(!is_multi_step(&[]));
        assert!(!is_multi_step(&[task(Phase::Sync, 0, "A", "a"), task(Phase::Sync, 0, "B", "b")]));
        assert!(is_multi_step(&[task(Phase::Sync, 0, "A", "a"), task(Phase::Sync, 1, "B", "b")]));
        assert!(is_multi_step(&[task(Phase::PreSync, 0, "A", "a"), task(Phase::Sync, 0, "B", "b")]));
    }

    proptest! {
        #[test]
        fn sorting_loses_nothing_and_is_stable(picks in prop::collection::vec((0..4usize, -2..3i64, 0..4usize, 0..3usize, any::<bool>()), 0..12)) {
            let phases = [Phase::PreSync, Phase::Sync, Phase::PostSync, Phase::SyncFail];
            let kinds = ["Namespace", "Service", "Deployment", "Rollout"];
            let names = ["ns", "a", "b"];
            let tasks: Vec<Task> = picks.iter().map(|(p, w, k, n, in_ns)| {
                let mut t = task(phases[*p], *w, kinds[*k], names[*n]);
                if *in_ns && kinds[*k] != "Namespace" { t.key.namespace = "ns".into(); }
                t
            }).collect();
            let mut once = tasks.clone();
            sort(&mut once, |_| false);
            prop_assert_eq!(once.len(), tasks.len());
            for (index, t) in once.iter().enumerate().filter(|(_, t)| t.key.kind == "Namespace") {
                prop_assert!(once[..index].iter().all(|o| o.key.namespace != t.key.name));
            }
            let keys: Vec<_> = once.iter().map(|t| (t.phase, t.wave)).collect();
            prop_assert!(keys.is_sorted());
        }
    }
}
