//! Deleting an Application with its resources.

use super::operation::sync_options;
use super::reconcile::Subject;
use super::{Controller, act, assess, status};
use crate::api::Propagation;
use crate::events::Event;
use crate::worker::{Failure, Next};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tidegate_gitops::engine::Freshness;
use tidegate_gitops::object::{self, Key};
use tidegate_gitops::sync::delete::{self, DeletionState};
use tidegate_gitops::sync::hook::{self, HookType};
use tidegate_gitops::sync::options::AppOptions;
use tidegate_gitops::sync::plan::NamespaceWish;
use tidegate_gitops::sync::refresh::DELETION_APPROVED;

/// How long to wait at the most before looking again.
const POLL: Duration = Duration::from_secs(5);

impl Controller {
    /// Carries a deletion on by one pass.
    pub(super) async fn delete(&self, subject: &Subject, now: Timestamp) -> Result<Next, Failure> {
        let app = &subject.app;
        let finalizers = app.metadata.finalizers.clone().unwrap_or_default();
        let Ok((cluster, destination, _)) = &subject.place else {
            // A cluster that is gone cannot be cleaned up.
            tracing::warn!(application = %subject.key, "Its destination is not known; deleted without its resources.");
            let rest = delete::without_ours(&finalizers);
            self.patch(subject, json!({"metadata": {"finalizers": rest}})).await?;
            return Ok(Next::WAIT);
        };
        let has_hooks = [delete::PRE_DELETE_FINALIZER, delete::POST_DELETE_FINALIZER]
            .iter()
            .any(|base| delete::has_finalizer(&finalizers, base));
        let mut hooks: Vec<Value> = Vec::new();
        if has_hooks {
            let sources = app.spec.sources().into_owned();
            match self.desired(subject, sources, Vec::new(), Freshness::Cached, |_| false).await {
                Ok(Some(desired)) => hooks = desired.targets.into_iter().filter(is_deletion_hook).collect(),
                Ok(None) => {}
                Err(failed) => {
                    let why = format!("hooks of the deletion cannot be read: {}", failed.why.message);
                    self.complain(subject, &why, now).await?;
                    return Ok(Next::after(POLL));
                }
            }
        }
        let undesired = super::snapshot::Undesired { message: String::new(), invalid_spec: false };
        let snapshot = self.snapshot(subject, Err(undesired), &hooks, &[]).await?;
        if !snapshot.unlisted.is_empty() {
            self.complain(subject, &snapshot.unlisted.join("; "), now).await?;
            return Ok(Next::after(POLL));
        }
        let objects: Vec<Value> = snapshot.live.values().map(|live| live.object.clone()).collect();
        let denied: BTreeSet<Key> = assess::denied(&snapshot, &objects).into_keys().collect();
        let hook_keys: BTreeSet<Key> = hooks.iter().map(Key::of).collect();
        let mut live = snapshot.live.clone();
        live.retain(|key, live| {
            let owner = snapshot.tracking.owner(&live.object);
            let is_own = owner.as_deref() == Some(snapshot.instance.as_str()) && assess::is_top_level(&live.object);
            hook_keys.contains(key) || is_own
        });
        let approved = app.metadata.annotations.as_ref().and_then(|a| a.get(DELETION_APPROVED));
        let own = Key::new("argoproj.io", "Application", app.namespace(), app.name());
        let step = delete::decide_deletion(&DeletionState {
            app: &own,
            finalizers: &finalizers,
            live: &live,
            hooks: &hooks,
            options: &AppOptions::new(&sync_options(&app.spec, None)),
            denied: &denied,
            deleted_at: status::at(app.metadata.deletion_timestamp.as_ref()).unwrap_or(now),
            approved_at: approved.and_then(|a| a.parse().ok()),
            namespace: Some(NamespaceWish { name: &destination.namespace, metadata: None }),
        });
        let propagation =
            if delete::is_background(&finalizers) { Propagation::Background } else { Propagation::Foreground };
        let mut errors: Vec<String> = step.error.clone().into_iter().collect();
        for target in &step.create {
            errors.extend(act::create(cluster, target).await.err());
        }
        for (keys, is_hook) in [(&step.delete, false), (&step.delete_hooks, true)] {
            for key in keys {
                let api_version = live.get(key).map(|l| object::api_version(&l.object)).unwrap_or_default();
                let outcome = match act::resource(cluster, api_version, &key.kind).await {
                    Ok(resource) if is_hook => act::delete_hook(cluster, &resource, key).await,
                    Ok(resource) => act::delete(cluster, &resource, key, propagation).await,
                    // A kind that is no longer served has no objects left.
                    Err(_) => Ok(()),
                };
                errors.extend(outcome.err());
            }
        }
        if !step.remove.is_empty() {
            let rest: Vec<&String> = finalizers.iter().filter(|f| !step.remove.contains(f)).collect();
            self.patch(subject, json!({"metadata": {"finalizers": rest}})).await?;
            if step.finished {
                self.tell(app, [Event::normal("ResourceDeleted", "The application's resources are deleted")]);
                return Ok(Next::WAIT);
            }
            return Ok(Next::after(Duration::ZERO));
        }
        if !errors.is_empty() {
            self.complain(subject, &errors.join("; "), now).await?;
        }
        tracing::debug!(application = %subject.key, message = step.message, "Is being deleted.");
        Ok(Next::after(POLL))
    }

    /// Says what holds up a deletion.
    async fn complain(&self, subject: &Subject, why: &str, now: Timestamp) -> Result<(), Failure> {
        let before = &subject.app.status.conditions;
        let next = status::conditions(before, &[("DeletionError", why.to_owned())], now);
        if next == *before {
            return Ok(());
        }
        self.patch(subject, json!({"status": {"conditions": next}})).await
    }
}

fn is_deletion_hook(target: &Value) -> bool {
    hook::types(target).iter().any(|t| matches!(t, HookType::PreDelete | HookType::PostDelete))
}
