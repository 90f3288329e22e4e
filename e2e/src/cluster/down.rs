//! Removing clusters, and what is left of them.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::netns::NetworkNamespace;
use crate::process::{ProcessId, poll_until, say};
use crate::sandbox::{ControlGroups, Sandbox};
use crate::state::StateDir;

/// Takes a cluster down and removes all that it left. Nothing to do is no error. True when there was something.
pub fn remove(name: &str) -> Result<bool> {
    let state = StateDir::new(name)?;
    let _lock = state.lock()?;
    let existed = state.path.exists() || NetworkNamespace::of_cluster(name).exists();
    clean(&state)?;
    Ok(existed)
}

/// Removes whatever there is of a cluster; the caller holds its lock.
pub(super) fn clean(state: &StateDir) -> Result<()> {
    let namespace = NetworkNamespace::of_cluster(&state.name);
    if let Some(foreign) = foreign_owner(&namespace, state) {
        bail!(
            "network namespace {} belongs to a cluster whose state is in {foreign}; use another name, or take that \
             one down from there",
            namespace.name
        );
    }
    if let Some(sandbox) = Sandbox::find(state) {
        sandbox.kill()?;
    }
    // Shells and tests that were moved into the namespace, and an anchor that never got to write itself down.
    let ours = own_ancestry();
    let others: Vec<ProcessId> =
        namespace.processes().into_iter().filter(|process| !ours.contains(&process.pid)).collect();
    for process in &others {
        process.signal(Signal::SIGKILL);
    }
    if !poll_until(Duration::from_secs(10), || others.iter().all(|process| !process.alive())) {
        let alive = others.iter().filter(|process| process.alive()).map(|process| process.pid.to_string());
        bail!("processes in {} do not end: {}", namespace.name, alive.collect::<Vec<_>>().join(", "));
    }
    namespace.delete()?;
    ControlGroups::of_cluster(&state.name).remove()?;
    match fs::remove_dir_all(&state.path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", state.path.display()))
        }
        _ => Ok(()),
    }
}

/// The state directory of the living cluster that has this namespace, when it is another one than ours: a second
/// working tree may use the same names.
fn foreign_owner(namespace: &NetworkNamespace, state: &StateDir) -> Option<String> {
    namespace.processes().into_iter().find_map(|process| {
        let command = fs::read(format!("/proc/{}/cmdline", process.pid)).ok()?;
        let words: Vec<String> =
            command.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        // As `sandbox::Sandbox::start` writes it; the wrappers around it repeat the words.
        let at = words.iter().position(|word| word == "anchor")?;
        let directory = words.get(at + 1)?;
        (*directory != state.path.to_string_lossy()).then(|| directory.clone())
    })
}

/// This process and those that started it, who may sit in the namespace themselves.
fn own_ancestry() -> Vec<i32> {
    let mut pids = Vec::new();
    let mut next = i32::try_from(std::process::id()).ok();
    while let Some(pid) = next.filter(|pid| *pid > 1) {
        pids.push(pid);
        next = fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| {
            let after = stat.rfind(')')? + 1;
            stat.get(after..)?.split_whitespace().nth(1)?.parse().ok()
        });
    }
    pids
}

/// Removes clusters that nobody uses any more: whose owner has ended, whose processes have died, that were never
/// finished, and namespaces and control groups without a cluster. Returns what was removed.
pub fn prune() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for state in StateDir::all() {
        let _lock = state.lock()?;
        let running = Sandbox::find(&state).is_some();
        let wanted = match state.record() {
            Some(record) => running && record.owner.is_none_or(|owner| owner.alive()),
            None => false,
        };
        if !wanted {
            say(&format!("removing what is left of cluster {:?}", state.name));
            clean(&state)?;
            removed.push(state.name.clone());
        }
    }
    for namespace in NetworkNamespace::all() {
        let name = namespace.name.trim_start_matches(crate::netns::PREFIX).to_owned();
        let state = StateDir::new(&name)?;
        // A young one may be that of another working tree's cluster, which is just starting.
        let age =
            fs::metadata(namespace.path()).and_then(|found| found.modified()).ok().and_then(|at| at.elapsed().ok());
        let old = age.is_some_and(|age| age > Duration::from_secs(60));
        if old && !state.path.exists() && namespace.processes().is_empty() {
            say(&format!("removing network namespace {}, which nobody uses", namespace.name));
            let _lock = state.lock()?;
            clean(&state)?;
            removed.push(name);
        }
    }
    Ok(removed)
}
