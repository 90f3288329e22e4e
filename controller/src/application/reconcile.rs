//! One reconciliation of an Application.

use super::clusters::Cluster;
use super::decide::{self, Decision};
use super::kinds::Kinds;
use super::observe::{self, NoAnswer, Question, Search};
use super::operation::Stage;
use super::snapshot::{Desired, Destination, Snapshot, Undesired};
use super::{Controller, assess, operation, settings, status, syncing};
use crate::api::{PatchCall, PatchKind, resources};
use crate::cache::Key;
use crate::events::{About, Event};
use crate::worker::{Failure, Next};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_crds::application::{Application, ApplicationSpec, ApplicationStatus, Operation, Source};
use tidegate_crds::project::{AppProject, AppProjectSpec};
use tidegate_gitops::engine::Freshness;
use tidegate_gitops::object::{self, Key as ObjectKey};
use tidegate_gitops::project;
use tidegate_gitops::sync::refresh::{self, Level, Refresh, RefreshState};
use tidegate_gitops::sync::{delete, hook, rejected};

/// How soon to look again at a repository that fails for a moment.
const SOON: Duration = Duration::from_secs(10);

/// An Application and where its manifests go.
pub(super) struct Subject {
    pub key: Key,
    pub app: Application,
    pub instance: String,
    pub project: Result<AppProjectSpec, String>,
    pub place: Result<(Arc<Cluster>, Destination, Arc<Kinds>), String>,
}

impl Controller {
    pub(super) async fn reconcile(self: &Arc<Self>, key: &Key) -> Result<Next, Failure> {
        let Some(app) = self.application(key)? else {
            self.forget(key);
            return Ok(Next::WAIT);
        };
        let is_skipped = app.metadata.annotations.as_ref().and_then(|a| a.get(refresh::SKIP_RECONCILE));
        if !self.is_ours(&key.namespace) || is_skipped.is_some_and(|skipped| skipped == "true") {
            return Ok(Next::WAIT);
        }
        let started = Instant::now();
        let now = Timestamp::now();
        let is_deleting = app.metadata.deletion_timestamp.is_some();
        let memory = self.remember(key, |memory| memory.clone());
        let stage = operation::stage(&app, now);
        let expiry = self.expiry(key);
        // What was compared stands, but another policy or project may make something else of it.
        let has_new_policy = memory.policy.is_some_and(|known| known != policy(&app));
        let requested = memory.requested.max(has_new_policy.then_some(Level::Latest));
        let refresh = refresh::decide_refresh(
            &RefreshState {
                app: &app,
                requested,
                compared_at: memory.compared_at,
                expiry,
                hard_expiry: self.settings.hard_resync,
                last_hard: memory.hard_at,
            },
            now,
        );
        if is_deleting {
            let finalizers = app.metadata.finalizers.clone().unwrap_or_default();
            if delete::without_ours(&finalizers).len() == finalizers.len() {
                return Ok(Next::WAIT);
            }
            let subject = self.subject(key, app).await;
            return self.delete(&subject, now).await;
        }
        let server = app.spec.destination.server.clone().unwrap_or_else(|| super::clusters::IN_CLUSTER.to_owned());
        let next = match (stage, refresh) {
            (Stage::Begin(state), _) => self.begin(key, &app, *state).await,
            (Stage::Run(state), _) => {
                let subject = self.subject(key, app).await;
                self.sync(&subject, *state, now).await
            }
            (Stage::Wait(wait), None) => Ok(Next::after(wait)),
            (Stage::Idle, None) => Ok(Next::after(self.until_expiry(&app, memory.compared_at, expiry, now))),
            (stage, Some(refresh)) => {
                let subject = self.subject(key, app).await;
                let next = self.compare(&subject, &refresh, now).await?;
                Ok(match stage {
                    Stage::Wait(wait) => Next::after(next.after.map_or(wait, |after| after.min(wait))),
                    _ => next,
                })
            }
        };
        let labels = [("namespace", &*key.namespace), ("dest_server", server.as_str())];
        let help = "How long the reconciliation of an Application takes.";
        self.metrics.observe("argocd_app_reconcile", help, &labels, started.elapsed().as_secs_f64());
        next
    }

    fn application(&self, key: &Key) -> Result<Option<Application>, Failure> {
        /// All of an Application, when every field fits: the rule, and read at a third of the cost.
        #[derive(serde::Deserialize)]
        struct Fitting {
            metadata: tidegate_crds::ObjectMeta,
            spec: ApplicationSpec,
            #[serde(default)]
            status: ApplicationStatus,
            operation: Option<Operation>,
        }
        if let Some(Fitting { metadata, spec, status, operation }) = self.applications.get(key) {
            return Ok(Some(Application { metadata, spec, status, operation }));
        }
        let Some(raw) = self.applications.value(key) else { return Ok(None) };
        let (app, dropped) = Application::decode(raw).map_err(|e| Failure::Error(format!("metadata: {e}")))?;
        for field in dropped {
            tracing::debug!(application = %key, path = field.path, reason = field.reason, "A field cannot be read and is left out.");
        }
        Ok(Some(app))
    }

    /// How long a comparison of this Application is good for.
    fn expiry(&self, key: &Key) -> Duration {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let share = u32::try_from(hasher.finish() % 1000).unwrap_or(0);
        self.settings.resync + self.settings.jitter * share / 1000
    }

    fn until_expiry(
        &self,
        app: &Application,
        compared: Option<Timestamp>,
        expiry: Duration,
        now: Timestamp,
    ) -> Duration {
        if expiry.is_zero() {
            return Duration::from_secs(3600);
        }
        let since = status::at(app.status.reconciled_at.as_ref()).max(compared).unwrap_or(now);
        let until = since.checked_add(expiry).unwrap_or(now);
        until.duration_since(now).unsigned_abs().max(Duration::from_secs(1))
    }

    /// Finds out where an Application goes.
    async fn subject(&self, key: &Key, app: Application) -> Subject {
        let project = self.project(&app);
        let place = match self.clusters.get() {
            None => Err("the controller is starting".to_owned()),
            Some(clusters) => match clusters.resolve(&app.spec.destination, &self.cluster_secrets()).await {
                Err(why) => Err(why),
                Ok((cluster, destination)) => {
                    let scoped = project.as_ref().is_ok_and(|p| p.permit_only_project_scoped_clusters);
                    if scoped && cluster.project != app.spec.project() {
                        Err(format!("cluster {} is not part of project '{}'", cluster.server, app.spec.project()))
                    } else {
                        cluster.catalogue.kinds(|_| false).await.map(|kinds| (cluster, destination, kinds))
                    }
                }
            },
        };
        Subject { key: key.clone(), instance: self.instance(key), app, project, place }
    }

    fn project(&self, app: &Application) -> Result<AppProjectSpec, String> {
        let name = app.spec.project();
        let found: Option<AppProject> = self.projects.get(&Key::new(&self.settings.namespace, name));
        let spec = match found {
            Some(project) => project.spec,
            None if name == "default" => {
                let mut spec = project::permissive();
                // Whoever opened a namespace for Applications and made no project meant the default one.
                spec.source_namespaces.push("*".to_owned());
                spec
            }
            None => return Err(format!("Application referencing project {name} which does not exist")),
        };
        if !project::permits_namespace(&spec, &self.settings.namespace, app.namespace()) {
            return Err(format!(
                "application '{}' in namespace '{}' is not permitted to use project '{name}'",
                app.name(),
                app.namespace()
            ));
        }
        Ok(spec)
    }

    /// Asks the engine for manifests.
    pub(super) async fn desired(
        &self,
        subject: &Subject,
        sources: Vec<Source>,
        revisions: Vec<String>,
        freshness: Freshness,
        is_known: impl FnOnce(&str) -> bool,
    ) -> Result<Option<Desired>, NoAnswer> {
        let Ok((_, destination, kinds)) = &subject.place else {
            let why = Undesired { message: "the destination is not known".to_owned(), invalid_spec: true };
            return Err(NoAnswer { why, is_transient: false });
        };
        let question = Question {
            app: &subject.app,
            instance: &subject.instance,
            is_outside: subject.app.namespace() != self.settings.namespace,
            sources,
            revisions,
            freshness,
            namespace: &destination.namespace,
            kinds,
            tracking: &self.tracking(),
        };
        observe::desired(&self.engine, &question, is_known).await
    }

    /// Puts everything together that decisions look at.
    pub(super) async fn snapshot(
        &self,
        subject: &Subject,
        desired: Result<Desired, Undesired>,
        hooks: &[Value],
        results: &[tidegate_crds::application::ResourceResult],
    ) -> Result<Snapshot, Failure> {
        let config = self.config_maps.value(&Key::new(&self.settings.namespace, super::CONFIG));
        let mut snapshot = Snapshot {
            app: subject.app.clone(),
            instance: subject.instance.clone(),
            project: subject.project.clone(),
            destination: subject.place.as_ref().map(|(_, destination, _)| destination.clone()).map_err(Clone::clone),
            desired,
            live: Default::default(),
            namespaced: BTreeSet::new(),
            unknown_kinds: BTreeSet::new(),
            unlisted: Vec::new(),
            tracking: self.tracking(),
            compare: settings::compare_options(config.as_ref()),
            synced: self.remember(&subject.key, |memory| memory.synced.clone()),
            last_wave_at: self.remember(&subject.key, |memory| memory.wave_at),
        };
        let Ok((cluster, destination, kinds)) = &subject.place else { return Ok(snapshot) };
        let mut kinds_used = observe::kinds_used(&subject.app);
        let mut named: Vec<(ObjectKey, String)> = Vec::new();
        let none = Vec::new();
        let targets = snapshot.desired.as_ref().map_or(&none, |d| &d.targets);
        let of = |object: &Value| (ObjectKey::of(object), object::version(object).to_owned());
        named.extend(targets.iter().filter(|t| !object::name(t).is_empty() && !hook::is_skipped(t)).map(of));
        named.extend(hooks.iter().map(of));
        let namespace = ObjectKey::new("", "Namespace", "", &destination.namespace);
        if subject.app.spec.sync_option("CreateNamespace") == Some("true")
            || subject
                .app
                .operation
                .as_ref()
                .and_then(|o| o.sync.as_ref())
                .is_some_and(|s| s.sync_option("CreateNamespace") == Some("true"))
        {
            named.push((namespace, "v1".to_owned()));
        }
        for result in results {
            kinds_used.insert((result.group.clone(), result.version.clone(), result.kind.clone()));
        }
        named.sort();
        named.dedup();
        let missing =
            |kinds: &Kinds| named.iter().any(|(key, version)| kinds.find(&key.group, version, &key.kind).is_none());
        let kinds = if missing(kinds) {
            cluster.catalogue.kinds(missing).await.unwrap_or_else(|_| Arc::clone(kinds))
        } else {
            Arc::clone(kinds)
        };
        let (ignore, _) = assess::ignore_rules(&snapshot, targets);
        let found = observe::live(&Search {
            cluster,
            kinds: &kinds,
            app: &subject.key,
            instance: &subject.instance,
            named,
            kinds_used,
            ignore: &ignore,
            results,
            patience: self.settings.list_patience,
        })
        .await
        .map_err(Failure::Error)?;
        snapshot.live = found.live;
        snapshot.namespaced = found.namespaced;
        snapshot.unknown_kinds = found.unknown_kinds;
        snapshot.unlisted = found.unlisted;
        Ok(snapshot)
    }

    /// Compares an Application, and asks for a sync when it is automatic.
    async fn compare(self: &Arc<Self>, subject: &Subject, refresh: &Refresh, now: Timestamp) -> Result<Next, Failure> {
        let key = &subject.key;
        let app = &subject.app;
        let asked = app.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(refresh::REFRESH));
        let instant = Instant::now();
        let inputs = inputs(app);
        let policy = policy(app);
        let memory = self.remember(key, |memory| {
            let before = memory.clone();
            memory.policy = Some(policy);
            memory.requested = None;
            memory.is_dirty = false;
            before
        });
        // An answer is new enough that was asked for after whatever changed the Application: those that change together
        // share one.
        let changed = memory.changed_at.unwrap_or(instant);
        let freshness = match refresh.level {
            _ if refresh.hard => Freshness::Hard(instant),
            Level::LatestForced => Freshness::Since(changed),
            // Else a look at the cluster would take back what a look at the repository found wrong.
            _ if memory.is_unread => Freshness::Since(instant),
            _ => Freshness::Cached,
        };
        let restore = |this: &Self| {
            this.remember(key, |memory| {
                memory.requested = memory.requested.max(Some(refresh.level));
                memory.is_dirty = true;
            });
        };
        // A commit that leaves the manifests alone costs nothing more than this question.
        let may_skip = !asked && !memory.is_dirty && memory.inputs == inputs && app.status.sync.is_some();
        let manifests = memory.manifests.clone();
        let is_known = |found: &str| may_skip && manifests.as_deref() == Some(found);
        let answer = self.desired(subject, app.spec.sources().into_owned(), Vec::new(), freshness, is_known).await;
        let is_unread = answer.as_ref().err().is_some_and(|failed| failed.is_transient);
        self.remember(key, |memory| memory.is_unread = is_unread);
        let desired = match answer {
            Ok(None) => {
                self.remember(key, |memory| {
                    memory.compared_at = Some(now);
                    memory.read_at = Some(instant);
                });
                return Ok(Next::after(self.until_expiry(app, Some(now), self.expiry(key), now)));
            }
            Ok(Some(desired)) => Ok(desired),
            Err(failed) => {
                let lately = memory.read_at.is_some_and(|at| at.elapsed() < self.settings.repo_error_grace);
                // Whoever waits for an operation waits for the comparison after it, too.
                if failed.is_transient && lately && !asked && !is_after_operation(app) {
                    tracing::debug!(application = %key, error = failed.why.message, "The repository fails for a moment.");
                    restore(self);
                    return Ok(Next::after(SOON));
                }
                Err((failed.why, failed.is_transient))
            }
        };
        let transient = desired.as_ref().err().is_some_and(|(_, transient)| *transient);
        let tree = desired.as_ref().ok().map(|d| d.content.tree.clone());
        let snapshot = match self.snapshot(subject, desired.map_err(|(why, _)| why), &[], &[]).await {
            Ok(snapshot) => snapshot,
            Err(failure) => {
                restore(self);
                return Err(failure);
            }
        };
        let decision = decide::decide(&snapshot, now);
        if let Err(failure) = self.store(subject, &decision, asked, now).await {
            restore(self);
            return Err(failure);
        }
        let is_complete = tree.is_some() && snapshot.unlisted.is_empty();
        self.remember(key, |memory| {
            memory.compared_at = Some(now);
            memory.inputs = inputs;
            memory.manifests = tree.clone().filter(|_| is_complete);
            if tree.is_some() {
                memory.read_at = Some(instant);
            }
            if refresh.hard || memory.hard_at.is_none() {
                memory.hard_at = Some(now);
            }
            if decision.after.is_some() || !is_complete {
                memory.requested = memory.requested.max(Some(Level::Recent));
                memory.is_dirty = true;
            }
        });
        tracing::info!(
            application = %key, why = refresh.reason, sync = decision.status.sync.as_ref().map(|s| s.status.as_str()),
            health = decision.status.health.as_ref().and_then(|h| h.status.as_deref()), decision = decision.reason, "Compared."
        );
        self.show(subject, &decision);
        let expiry = self.until_expiry(app, Some(now), self.expiry(key), now);
        let soon = (transient || !is_complete).then_some(SOON);
        Ok(Next::after([decision.after, soon].into_iter().flatten().min().unwrap_or(expiry).min(expiry)))
    }

    fn show(&self, subject: &Subject, decision: &Decision) {
        let key = &subject.key;
        let app = &subject.app;
        let sync = decision.status.sync.as_ref().map(|s| s.status.clone()).unwrap_or_default();
        let health = decision.status.health.as_ref().and_then(|h| h.status.clone()).unwrap_or_default();
        let (server, namespace) = match &subject.place {
            Ok((_, destination, _)) => (destination.server.clone(), destination.namespace.clone()),
            Err(_) => Default::default(),
        };
        let repo = app.spec.sources().first().map(|s| s.repo_url.clone()).unwrap_or_default();
        let auto = if app.spec.automated().is_some() { "true" } else { "false" };
        self.metrics.forget("argocd_app_info", &[("namespace", &key.namespace), ("name", &key.name)]);
        let labels = [
            ("namespace", &*key.namespace),
            ("name", &*key.name),
            ("project", app.spec.project()),
            ("autosync_enabled", auto),
            ("repo", repo.as_str()),
            ("dest_server", server.as_str()),
            ("dest_namespace", namespace.as_str()),
            ("sync_status", sync.as_str()),
            ("health_status", health.as_str()),
            ("operation", if decision.operation.is_some() { "sync" } else { "" }),
        ];
        self.metrics.set("argocd_app_info", "Applications.", &labels, 1.0);
    }

    /// Stores what a comparison decided.
    async fn store(&self, subject: &Subject, decision: &Decision, asked: bool, now: Timestamp) -> Result<(), Failure> {
        let app = &subject.app;
        let mut body = json!({});
        let mut next = decision.status.clone();
        if let Some(patch) = status::patch(&app.status, &mut next, asked || is_after_operation(app), now) {
            body["status"] = patch;
        }
        if asked {
            body["metadata"]["annotations"][refresh::REFRESH] = Value::Null;
        }
        let stored = app.metadata.annotations.as_ref().and_then(|a| a.get(rejected::REJECTED));
        let wanted = rejected::write(&decision.rejections);
        if stored != wanted.as_ref() {
            body["metadata"]["annotations"][rejected::REJECTED] = wanted.map_or(Value::Null, Value::from);
        }
        if !decision.finalizers.is_empty() {
            let mut all = app.metadata.finalizers.clone().unwrap_or_default();
            all.extend(decision.finalizers.iter().cloned());
            body["metadata"]["finalizers"] = json!(all);
        }
        if let Some(operation) = &decision.operation {
            let encode = |error: serde_json::Error| Failure::Error(error.to_string());
            body["operation"] = serde_json::to_value(operation).map_err(encode)?;
            // What is asked for by ourselves need not be noticed by ourselves first.
            let begun = operation::first_attempt(operation, now);
            object::child(&mut body, "status")["operationState"] = syncing::state_patch(app, &begun)?;
        }
        if body != json!({}) {
            self.patch(subject, body).await?;
        }
        if decision.operation.is_some() {
            self.remember(&subject.key, |memory| memory.wave_at = None);
        }
        self.tell(&subject.app, decision.events.iter().cloned());
        Ok(())
    }

    /// Changes an Application, unless somebody else did in between.
    pub(super) async fn patch(&self, subject: &Subject, body: Value) -> Result<(), Failure> {
        self.patch_app(&subject.key, &subject.app, body).await
    }

    pub(super) async fn patch_app(&self, key: &Key, app: &Application, mut body: Value) -> Result<(), Failure> {
        object::child(&mut body, "metadata")["resourceVersion"] = json!(app.metadata.resource_version);
        let call = PatchCall {
            resource: &resources::APPLICATION,
            namespace: &key.namespace,
            name: &key.name,
            subresource: "",
            kind: PatchKind::Merge,
            body: &body,
            dry_run: false,
        };
        let stored = self.context.api.patch(call).await?;
        self.applications.apply(stored);
        Ok(())
    }

    pub(super) fn tell(&self, app: &Application, events: impl IntoIterator<Item = Event>) {
        let about = About {
            api_version: tidegate_crds::API_VERSION.to_owned(),
            kind: "Application".to_owned(),
            namespace: app.namespace().to_owned(),
            name: app.name().to_owned(),
            uid: app.metadata.uid.clone().unwrap_or_default(),
        };
        self.context.recorder.tell(&about, events);
    }
}

/// Whether an operation has ended since the last comparison that was stored.
fn is_after_operation(app: &Application) -> bool {
    status::at(app.status.operation_state.as_ref().and_then(|s| s.finished_at.as_ref()))
        .is_some_and(|finished| status::at(app.status.reconciled_at.as_ref()).is_none_or(|at| at < finished))
}

/// A hash of what decides about syncs and is no part of what is compared.
fn policy(app: &Application) -> u64 {
    let mut hasher = DefaultHasher::new();
    app.spec.project().hash(&mut hasher);
    serde_json::to_string(&app.spec.sync_policy).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

/// A hash of what goes into a comparison besides manifests and live objects.
fn inputs(app: &Application) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&app.spec).unwrap_or_default().hash(&mut hasher);
    let state = app.status.operation_state.as_ref();
    state.and_then(|s| s.finished_at.as_ref()).map(|t| t.0.as_second()).hash(&mut hasher);
    app.operation.is_some().hash(&mut hasher);
    app.metadata.annotations.as_ref().and_then(|a| a.get(rejected::REJECTED)).hash(&mut hasher);
    hasher.finish()
}
