//! One pass of an operation.

use super::operation::{self, Progress};
use super::reconcile::Subject;
use super::snapshot::Desired;
use super::{Controller, act, assess, decide, status};
use crate::cache::Key;
use crate::events::Event;
use crate::worker::{Failure, Next};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tidegate_crds::application::{Application, OperationState, ResourceResult, SyncOperation};
use tidegate_crds::patch::merge_diff;
use tidegate_gitops::engine::Freshness;
use tidegate_gitops::object;
use tidegate_gitops::sync::options::AppOptions;
use tidegate_gitops::sync::plan::{self, NamespaceWish, SyncState};
use tidegate_gitops::sync::record::record;
use tidegate_gitops::sync::refresh::{DELETION_APPROVED, Level};
use tidegate_gitops::sync::{OperationPhase, hook, rejected};

/// How long to wait at the most before looking at a running sync again.
const POLL: Duration = Duration::from_secs(30);
/// How long a sync that a window blocks waits at the most before it asks again.
const WINDOW_POLL: Duration = Duration::from_secs(60);

impl Controller {
    /// Notes that an operation, or its next attempt, begins.
    pub(super) async fn begin(&self, key: &Key, app: &Application, state: OperationState) -> Result<Next, Failure> {
        let body = json!({"status": {"operationState": state_patch(app, &state)?}});
        self.patch_app(key, app, body).await?;
        self.remember(key, |memory| memory.wave_at = None);
        let by = state.operation.initiated_by.clone().unwrap_or_default();
        if state.retry_count.unwrap_or(0) == 0 && !by.automated {
            let user = by.username.filter(|u| !u.is_empty()).unwrap_or_else(|| "Unknown user".to_owned());
            let to = operation::pinned(&state).join(", ");
            let to = if to.is_empty() { "the latest revision".to_owned() } else { to };
            self.tell(app, [Event::normal("OperationStarted", format!("{user} initiated sync to {to}"))]);
        }
        Ok(Next::after(Duration::ZERO))
    }

    /// Carries an operation on by one pass.
    pub(super) async fn sync(
        &self,
        subject: &Subject,
        mut state: OperationState,
        now: Timestamp,
    ) -> Result<Next, Failure> {
        let app = &subject.app;
        let operation = state.operation.clone();
        let sync = operation.sync.clone().unwrap_or_default();
        let automated = operation.initiated_by.as_ref().is_some_and(|by| by.automated);
        let terminating = state.phase == OperationPhase::Terminating.as_str() || app.operation.is_none();
        if let Err(why) = &subject.project {
            return self
                .end(subject, state, OperationPhase::Error, &format!("Failed to load application project: {why}"), now)
                .await;
        }
        if let Err(why) = &subject.place {
            return self.end(subject, state, OperationPhase::Error, why, now).await;
        }
        let is_first = state.sync_result.is_none();
        let sources = operation::sources(&app.spec, &operation);
        let desired = match self.wanted(subject, &state, &sync, sources, is_first).await {
            Ok(desired) => desired,
            Err(message) => return self.end(subject, state, OperationPhase::Error, &message, now).await,
        };
        let several = desired.sources.len() > 1 || (!app.spec.sources.is_empty() && sync.source.is_none());
        if is_first {
            let result = operation::begun(several, &desired.sources, &desired.content.revisions, &app.spec);
            state.sync_result = Some(result);
        }
        let results = state.sync_result.as_ref().map(|r| r.resources.clone()).unwrap_or_default();
        let revision = desired.content.revisions.first().cloned().unwrap_or_default();
        let started = status::at(state.started_at.as_ref()).unwrap_or(now);
        let retries = state.retry_count.unwrap_or(0);
        let hooks: Vec<Value> = desired
            .targets
            .iter()
            .flat_map(|t| hook::types(t).into_iter().filter_map(|h| h.phase()).map(move |phase| (t, phase)))
            .map(|(t, phase)| hook::concrete(t, phase, &revision, started, retries))
            .collect();
        let snapshot = self.snapshot(subject, Ok(desired.clone()), &hooks, &results).await?;
        if !snapshot.unlisted.is_empty() {
            return self.end(subject, state, OperationPhase::Error, &snapshot.unlisted.join("; "), now).await;
        }
        let problems = decide::spec_problems(&snapshot);
        if !problems.is_empty() && !terminating {
            return self.end(subject, state, OperationPhase::Error, &problems.join("; "), now).await;
        }
        let windows = decide::windows(&snapshot, now);
        let blocked = if automated { windows.blocks_auto } else { windows.blocks_manual };
        let may_finish = windows.lets_finish && !is_first;
        if blocked && !terminating && !may_finish {
            let wait =
                windows.changes_at.map_or(WINDOW_POLL, |at| at.duration_since(now).unsigned_abs()).min(WINDOW_POLL);
            let progress =
                operation::advance(state, OperationPhase::Running, "Sync operation blocked by sync window", None, now);
            self.note(subject, &progress, json!({}), now).await?;
            return Ok(Next::after(wait));
        }
        let timeout = self.settings.sync_timeout;
        let is_late = !timeout.is_zero() && started.checked_add(timeout).is_ok_and(|until| until <= now);
        if is_late && state.phase == OperationPhase::Running.as_str() {
            state.phase = OperationPhase::Terminating.as_str().to_owned();
            let message = "operation is terminating due to timeout";
            let progress = operation::advance(state, OperationPhase::Running, message, None, now);
            self.note(subject, &progress, json!({}), now).await?;
            return Ok(Next::after(Duration::ZERO));
        }
        let mut extra_changes = json!({});
        if is_first {
            // Whoever asks for a rejected revision by hand means it.
            let annotation = app.metadata.annotations.as_ref().and_then(|a| a.get(rejected::REJECTED));
            let known = rejected::read(annotation.map(String::as_str));
            if known.iter().any(|r| rejected::is_overruled(r, &operation, &desired.content)) {
                let accepted = rejected::write(&rejected::accept(&known, &desired.content));
                extra_changes["metadata"]["annotations"][rejected::REJECTED] =
                    accepted.map_or(Value::Null, Value::from);
            }
        }
        self.pass(
            subject,
            state,
            Pass {
                snapshot: &snapshot,
                desired: &desired,
                sync: &sync,
                results: &results,
                terminating,
                started,
                retries,
            },
            extra_changes,
            now,
        )
        .await
    }

    async fn pass(
        &self,
        subject: &Subject,
        mut state: OperationState,
        pass: Pass<'_>,
        mut changes: Value,
        now: Timestamp,
    ) -> Result<Next, Failure> {
        let app = &subject.app;
        let Pass { snapshot, desired, sync, results, terminating, started, retries } = pass;
        let options = AppOptions::new(&operation::sync_options(&app.spec, Some(&state.operation)));
        let assessment = assess::assess(snapshot, desired, &options);
        let (ignore, _) = assess::ignore_rules(snapshot, &desired.targets);
        let policy = app.spec.sync_policy.as_ref();
        let namespace = snapshot.destination.as_ref().map(|d| d.namespace.clone()).unwrap_or_default();
        let approved = app.metadata.annotations.as_ref().and_then(|a| a.get(DELETION_APPROVED));
        let step = plan::decide(
            &SyncState {
                targets: &desired.targets,
                live: &snapshot.live,
                extra: &assessment.extra,
                in_sync: &assessment.in_sync,
                unknown_kinds: &snapshot.unknown_kinds,
                denied: &assessment.denied,
                shared: &assessment.shared,
                operation: sync,
                options: &options,
                ignore: &ignore,
                namespace: Some(NamespaceWish {
                    name: &namespace,
                    metadata: policy.and_then(|p| p.managed_namespace_metadata.as_ref()),
                }),
                revision: desired.content.revisions.first().map(String::as_str).unwrap_or_default(),
                started_at: started,
                retry_count: retries,
                terminating,
                results,
                approved_at: approved.and_then(|a| a.parse().ok()),
                last_wave_at: snapshot.last_wave_at,
                wave_delay: self.settings.wave_delay,
            },
            now,
        );
        let Ok((cluster, _, _)) = &subject.place else { return Ok(Next::after(POLL)) };
        let outcomes = act::perform(cluster, &step).await;
        let done = Timestamp::now();
        self.remember(&subject.key, |memory| {
            memory.synced = Some(desired.content.clone());
            if step.is_wave {
                memory.wave_at = Some(done);
            }
        });
        let requeue = step.requeue;
        let recorded = record(step, &outcomes);
        if let Some(result) = &mut state.sync_result {
            result.resources.clone_from(&recorded.results);
        }
        let newer = if recorded.phase.is_completed() && recorded.phase != OperationPhase::Succeeded {
            self.newer(subject, &state).await
        } else {
            None
        };
        let progress = operation::advance(state, recorded.phase, &recorded.message, newer.as_deref(), done);
        let is_own = operation::sources(&app.spec, &progress.state.operation) == *app.spec.sources();
        if is_own && !progress.ended {
            let mut next = app.status.clone();
            decide::take_live(&assessment, &mut next, done);
            if let Some(patch) = status::patch(&app.status, &mut next, false, done) {
                changes["status"] = patch;
            }
        }
        self.note(subject, &progress, changes, done).await?;
        if let Some(error) = recorded.error {
            return Err(Failure::Error(error));
        }
        if progress.ended
            || recorded.again
            || (progress.state.retry_count != Some(retries) && progress.state.finished_at.is_some())
        {
            return Ok(Next::after(Duration::ZERO));
        }
        Ok(Next::after(requeue.unwrap_or(POLL)))
    }

    /// What an operation makes of the cluster.
    async fn wanted(
        &self,
        subject: &Subject,
        state: &OperationState,
        sync: &SyncOperation,
        sources: Vec<tidegate_crds::application::Source>,
        is_first: bool,
    ) -> Result<Desired, String> {
        let revisions = operation::pinned(state);
        let freshness =
            if is_first && revisions.is_empty() { Freshness::Since(Instant::now()) } else { Freshness::Cached };
        let answer = self.desired(subject, sources, revisions, freshness, |_| false).await;
        let mut desired = match answer {
            Ok(Some(desired)) => desired,
            Ok(None) => return Err("the engine gave no manifests".to_owned()),
            Err(failed) => return Err(failed.why.message),
        };
        if !sync.manifests.is_empty() {
            desired.targets = self.local(subject, &sync.manifests)?;
        }
        Ok(desired)
    }

    /// Manifests that the operation itself brings.
    fn local(&self, subject: &Subject, manifests: &[String]) -> Result<Vec<Value>, String> {
        let Ok((_, destination, kinds)) = &subject.place else { return Err("the destination is not known".to_owned()) };
        let tracking = self.tracking();
        let question = super::observe::Question {
            app: &subject.app,
            instance: &subject.instance,
            is_outside: false,
            sources: Vec::new(),
            revisions: Vec::new(),
            freshness: Freshness::Cached,
            namespace: &destination.namespace,
            kinds,
            tracking: &tracking,
        };
        let read = |(index, text): (usize, &String)| {
            let manifest: Value =
                serde_json::from_str(text).map_err(|e| format!("operation.sync.manifests[{index}]: {e}"))?;
            Ok(super::observe::target(&manifest, &question))
        };
        manifests.iter().enumerate().map(read).collect()
    }

    /// The revision that automatic sync would take by now, when it is another one than the operation's.
    async fn newer(&self, subject: &Subject, state: &OperationState) -> Option<String> {
        subject.app.spec.automated()?;
        let sources = subject.app.spec.sources().into_owned();
        let latest = self.desired(subject, sources, Vec::new(), Freshness::Cached, |_| false).await.ok()??;
        let own = operation::pinned(state);
        (!own.is_empty() && latest.content.revisions != own).then(|| latest.content.revisions.join(", "))
    }

    /// Ends an attempt that could not be carried out.
    async fn end(
        &self,
        subject: &Subject,
        state: OperationState,
        phase: OperationPhase,
        message: &str,
        now: Timestamp,
    ) -> Result<Next, Failure> {
        let terminating = state.phase == OperationPhase::Terminating.as_str() || subject.app.operation.is_none();
        let (phase, message) =
            if terminating { (OperationPhase::Failed, "Operation terminated") } else { (phase, message) };
        let progress = operation::advance(state, phase, message, None, now);
        self.note(subject, &progress, json!({}), now).await?;
        Ok(Next::after(Duration::ZERO))
    }

    /// Stores how far an operation is.
    async fn note(
        &self,
        subject: &Subject,
        progress: &Progress,
        mut changes: Value,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let app = &subject.app;
        let patch = state_patch(app, &progress.state)?;
        if patch != json!({}) {
            object::child(&mut changes, "status")["operationState"] = patch;
        }
        if progress.ended {
            changes["operation"] = Value::Null;
            // What was compared before says nothing about what the operation did. Times have whole seconds, so clients
            // could not tell that from `finishedAt`; the next comparison sets it again.
            object::child(&mut changes, "status")["reconciledAt"] = Value::Null;
            let history = operation::history(app, &progress.state);
            if history != app.status.history {
                object::child(&mut changes, "status")["history"] = json!(history);
            }
        }
        if changes != json!({}) {
            self.patch(subject, changes).await?;
        }
        if progress.ended {
            self.ended(subject, &progress.state, now);
        }
        Ok(())
    }

    fn ended(&self, subject: &Subject, state: &OperationState, now: Timestamp) {
        let sync = state.operation.sync.clone().unwrap_or_default();
        let result = state.sync_result.clone().unwrap_or_default();
        let revision = if result.revision.is_empty() { result.revisions.join(", ") } else { result.revision };
        let what = if sync.resources.is_empty() { "Sync" } else { "Partial sync" };
        let event = if state.phase == OperationPhase::Succeeded.as_str() {
            Event::normal("OperationCompleted", format!("{what} operation to {revision} succeeded"))
        } else {
            let why = state.message.clone().unwrap_or_default();
            Event::warning("OperationCompleted", format!("{what} operation to {revision} failed: {why}"))
        };
        self.tell(&subject.app, [event]);
        let server = subject.place.as_ref().map(|(_, d, _)| d.server.clone()).unwrap_or_default();
        let dry = if sync.dry_run { "true" } else { "false" };
        let labels = [
            ("namespace", &*subject.key.namespace),
            ("name", &*subject.key.name),
            ("project", subject.app.spec.project()),
            ("dest_server", server.as_str()),
            ("phase", state.phase.as_str()),
            ("dry_run", dry),
        ];
        self.metrics.count("argocd_app_sync_total", "Syncs.", &labels, 1.0);
        let took = status::at(state.started_at.as_ref()).map_or(0.0, |start| now.duration_since(start).as_secs_f64());
        let help = "How long syncs took.";
        self.metrics.count("argocd_app_sync_duration_seconds_total", help, &labels[..4], took);
        tracing::info!(
            application = %subject.key, phase = state.phase, message = state.message.as_deref(), revision, "Operation ended."
        );
        self.remember(&subject.key, |memory| {
            // The operation asked the repository a moment ago: what it learnt will do.
            memory.requested = memory.requested.max(Some(Level::Latest));
            memory.is_dirty = true;
            memory.wave_at = None;
        });
    }
}

/// What a pass works with.
struct Pass<'a> {
    snapshot: &'a super::snapshot::Snapshot,
    desired: &'a Desired,
    sync: &'a SyncOperation,
    results: &'a [ResourceResult],
    terminating: bool,
    started: Timestamp,
    retries: i64,
}

/// The merge patch from the stored state of the operation to `state`.
pub(super) fn state_patch(app: &Application, state: &OperationState) -> Result<Value, Failure> {
    let encode = |state: &OperationState| serde_json::to_value(state).map_err(|e| Failure::Error(e.to_string()));
    let next = encode(state)?;
    match &app.status.operation_state {
        Some(before) => Ok(merge_diff(&encode(before)?, &next).unwrap_or_else(|| json!({}))),
        None => Ok(next),
    }
}
