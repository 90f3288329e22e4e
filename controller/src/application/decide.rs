//! What a comparison means for an Application: its next status, what it remembers, what is synced by itself. Pure.

use super::assess::{Assessment, assess};
use super::operation;
use super::snapshot::{Desired, Snapshot};
use super::status;
use crate::events::Event;
use jiff::Timestamp;
use std::time::Duration;
use tidegate_crds::application::{ApplicationStatus, Operation, SyncStatus};
use tidegate_gitops::project;
use tidegate_gitops::sync::auto::{self, AutoState, AutoSync};
use tidegate_gitops::sync::options::AppOptions;
use tidegate_gitops::sync::refresh::compared_to;
use tidegate_gitops::sync::rejected::{self, Observation, Rejection};
use tidegate_gitops::sync::{delete, hook};
use tidegate_gitops::window::{self, Subject};

/// What is written and done after a comparison.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// The next status.
    pub status: ApplicationStatus,
    /// What is remembered of rejected revisions.
    pub rejections: Vec<Rejection>,
    /// The operation to ask for.
    pub operation: Option<Box<Operation>>,
    /// Finalizers to add, because the Application has hooks of its deletion.
    pub finalizers: Vec<String>,
    /// Events to emit.
    pub events: Vec<Event>,
    /// When to look again.
    pub after: Option<Duration>,
    /// Why nothing is synced, or what is.
    pub reason: String,
}

/// Everything that the spec itself has wrong.
pub fn spec_problems(snapshot: &Snapshot) -> Vec<String> {
    let spec = &snapshot.app.spec;
    let mut found = Vec::new();
    if spec.sources().is_empty() {
        found.push(
            "spec.source.repoURL and either spec.source.path, spec.source.chart, or spec.source.ref are required"
                .to_owned(),
        );
    }
    if let Err(why) = &snapshot.destination {
        found.push(why.clone());
    }
    match (&snapshot.project, &snapshot.destination) {
        (Err(why), _) => found.push(why.clone()),
        (Ok(project), Ok(destination)) => {
            let place = project::Destination {
                server: &destination.server,
                name: &destination.name,
                namespace: &destination.namespace,
            };
            found.extend(project::violations(spec.project(), project, spec, &place));
        }
        _ => {}
    }
    found
}

/// Asks the project's windows.
pub fn windows(snapshot: &Snapshot, now: Timestamp) -> window::Verdict {
    let (Ok(project), Ok(destination)) = (&snapshot.project, &snapshot.destination) else {
        return window::Verdict::default();
    };
    let subject = Subject {
        application: snapshot.app.name(),
        namespace: &destination.namespace,
        server: &destination.server,
        cluster: &destination.name,
    };
    window::verdict(&project.sync_windows, &subject, now)
}

/// Decides after a comparison.
pub fn decide(snapshot: &Snapshot, now: Timestamp) -> Decision {
    let app = &snapshot.app;
    let before = &app.status;
    let mut next = before.clone();
    let mut wrong: Vec<(&'static str, String)> = Vec::new();
    let rejections =
        rejected::read(app.metadata.annotations.as_ref().and_then(|a| a.get(rejected::REJECTED)).map(String::as_str));
    let mut decision = Decision { rejections: rejections.clone(), ..Decision::default() };
    let mut sync = before.sync.clone().unwrap_or_default();
    sync.compared_to = Some(compared_to(app));

    let problems = spec_problems(snapshot);
    let mut invalid = !problems.is_empty();
    wrong.extend(problems.into_iter().map(|p| ("InvalidSpecError", p)));
    let desired = match &snapshot.desired {
        Ok(desired) if !invalid => Some(desired),
        Ok(_) => None,
        Err(why) => {
            if !invalid {
                invalid = why.invalid_spec;
                wrong
                    .push((if why.invalid_spec { "InvalidSpecError" } else { "ComparisonError" }, why.message.clone()));
            }
            None
        }
    };
    wrong.extend(snapshot.unlisted.iter().map(|why| ("ComparisonError", why.clone())));
    let desired = desired.filter(|_| snapshot.unlisted.is_empty());
    let options = AppOptions::new(&operation::sync_options(&app.spec, None));
    match desired {
        None => {
            sync.status = "Unknown".to_owned();
            // What is wrong with the source says nothing about the health.
            if invalid || before.health.is_none() {
                next.health = Some(status::health(before.health.as_ref(), &status::unknown(), now));
            }
        }
        Some(desired) => {
            let assessment = assess(snapshot, desired, &options);
            take(snapshot, desired, &assessment, &mut next, &mut sync, now);
            wrong.extend(assessment.conditions.iter().cloned());
            decision.finalizers = finalizers(snapshot, desired);
            decision.rejections = rejected::update(
                &rejections,
                &Observation {
                    desired: Some(&desired.content),
                    synced: &rejected::synced_revisions(before.operation_state.as_ref()),
                    in_sync: !assessment.out_of_sync,
                    aborted: &assessment.aborted,
                },
                now,
            );
            let rejection = rejected::find(&decision.rejections, &desired.content).cloned();
            if let Some(rejection) = &rejection {
                wrong.push((rejected::CONDITION, rejection.condition()));
            }
            automatic(snapshot, desired, &assessment, rejection.as_ref(), &mut decision, &mut wrong, now);
        }
    }
    let health = next.health.as_ref().and_then(|h| h.status.as_deref());
    let changed = events(before, &sync, health, &next);
    decision.events.splice(0..0, changed);
    next.sync = Some(sync);
    next.conditions = status::conditions(&before.conditions, &wrong, now);
    decision.status = next;
    decision
}

/// Takes an assessment into the status.
fn take(
    snapshot: &Snapshot,
    desired: &Desired,
    assessment: &Assessment,
    next: &mut ApplicationStatus,
    sync: &mut SyncStatus,
    now: Timestamp,
) {
    let several = snapshot.app.spec.source_hydrator.is_none() && !snapshot.app.spec.sources.is_empty();
    sync.status = if assessment.out_of_sync { "OutOfSync" } else { "Synced" }.to_owned();
    status::revisions(sync, several, &desired.content.revisions);
    next.source_type = if several { None } else { desired.source_types.first().cloned() };
    next.source_types = if several { desired.source_types.clone() } else { Vec::new() };
    take_live(assessment, next, now);
}

/// Takes what an assessment says about the live objects into the status.
pub fn take_live(assessment: &Assessment, next: &mut ApplicationStatus, now: Timestamp) {
    next.resources = status::resources(&next.resources, assessment);
    next.summary = Some(assessment.summary.clone());
    if let Some(health) = &assessment.health {
        next.health = Some(status::health(next.health.as_ref(), health, now));
    }
}

/// Whether the last operation applied just what is desired now, though perhaps from another commit.
fn is_same_content(snapshot: &Snapshot, desired: &Desired) -> bool {
    let last = rejected::synced_revisions(snapshot.app.status.operation_state.as_ref());
    snapshot.synced.as_ref().is_some_and(|synced| {
        synced.revisions == last && !synced.tree.is_empty() && synced.tree == desired.content.tree
    })
}

/// The finalizers that hooks of the deletion need.
fn finalizers(snapshot: &Snapshot, desired: &Desired) -> Vec<String> {
    let has = |kind| desired.targets.iter().any(|t| hook::types(t).contains(&kind));
    let mut wanted = Vec::new();
    for (kind, finalizer) in [
        (hook::HookType::PreDelete, delete::PRE_DELETE_FINALIZER),
        (hook::HookType::PostDelete, delete::POST_DELETE_FINALIZER),
    ] {
        if has(kind) {
            wanted.push(finalizer.to_owned());
            wanted.push(format!("{finalizer}{}", delete::CLEANUP));
        }
    }
    let present = snapshot.app.metadata.finalizers.clone().unwrap_or_default();
    wanted.retain(|finalizer| !present.contains(finalizer));
    wanted
}

fn automatic(
    snapshot: &Snapshot,
    desired: &Desired,
    assessment: &Assessment,
    rejection: Option<&Rejection>,
    decision: &mut Decision,
    wrong: &mut Vec<(&'static str, String)>,
    now: Timestamp,
) {
    let app = &snapshot.app;
    let windows = windows(snapshot, now);
    wrong.extend(windows.invalid.iter().map(|w| ("SyncWindowWarning", w.to_string())));
    let active = app.status.operation_state.as_ref().is_some_and(|s| s.phase == "Running" || s.phase == "Terminating");
    let state = AutoState {
        spec: &app.spec,
        status: &app.status,
        in_progress: app.operation.is_some() || active,
        deleting: app.metadata.deletion_timestamp.is_some(),
        window_closed: windows.blocks_auto,
        out_of_sync: assessment.out_of_sync,
        revisions: &desired.content.revisions,
        sources: &desired.sources,
        same_content: is_same_content(snapshot, desired),
        resources: &assessment.compared,
        rejection,
    };
    match auto::decide_auto(&state, now) {
        AutoSync::Nothing(reason) => {
            decision.reason = reason.to_owned();
            if windows.blocks_auto && assessment.out_of_sync {
                decision.after = windows.changes_at.map(|at| at.duration_since(now).unsigned_abs());
            }
        }
        AutoSync::Wait(wait) => {
            decision.reason = "self-healing waits".to_owned();
            decision.after = Some(wait);
        }
        AutoSync::Refused(message) => {
            decision.reason.clone_from(&message);
            wrong.push(("SyncError", message));
        }
        AutoSync::Sync(operation) => {
            let to = desired.content.revisions.join(", ");
            decision.reason = format!("syncs to {to}");
            decision.events.push(Event::normal("OperationStarted", format!("Initiated automated sync to '{to}'")));
            decision.operation = Some(operation);
        }
    }
}

fn events(before: &ApplicationStatus, sync: &SyncStatus, health: Option<&str>, next: &ApplicationStatus) -> Vec<Event> {
    let mut events = Vec::new();
    let old = before.sync.as_ref().map(|s| s.status.as_str()).unwrap_or_default();
    if old != sync.status {
        events.push(Event::normal("ResourceUpdated", format!("Updated sync status: {old} -> {}", sync.status)));
    }
    let old = before.health.as_ref().and_then(|h| h.status.as_deref()).unwrap_or_default();
    let new = health.unwrap_or_default();
    if old != new {
        let why = next.health.as_ref().and_then(|h| h.message.as_deref()).unwrap_or_default();
        let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
        events.push(Event::normal("ResourceUpdated", format!("Updated health status: {old} -> {new}{why}")));
    }
    events
}

#[cfg(test)]
mod tests;
