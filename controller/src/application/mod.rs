//! The Application controller: what Git says, and the cluster that shall look like it.

mod act;
pub mod assess;
pub mod clusters;
pub mod decide;
mod deletion;
pub mod kinds;
pub mod live;
mod observe;
pub mod operation;
mod reconcile;
pub mod settings;
pub mod snapshot;
mod status;
mod syncing;
mod webhook;

pub use settings::Settings;

use crate::api::resources;
use crate::cache::{Key, Scope, Store, fill};
use crate::context::Context;
use crate::metrics::Metrics;
use crate::worker::Queue;
use clusters::{Cluster, Clusters};
use jiff::Timestamp;
use kinds::Catalogue;
use live::LiveState;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_gitops::engine::Engine;
use tidegate_gitops::render::RenderSettings;
use tidegate_gitops::secret::Repositories;
use tidegate_gitops::sync::refresh::Level;
use tidegate_gitops::sync::rejected::Content;
use tidegate_gitops::tracking::Tracking;
use tidegate_gitops::{glob, tracking};

/// Label of Secrets that describe repositories and clusters.
const SECRET_TYPE: &str = "argocd.argoproj.io/secret-type";
/// ConfigMap with the settings of the installation.
const CONFIG: &str = "argocd-cm";

/// What this process remembers of an Application between reconciliations; nothing that may not be lost.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// What something asked for since the last comparison.
    requested: Option<Level>,
    /// One of its objects changed since the last comparison.
    is_dirty: bool,
    /// When it was compared.
    compared_at: Option<Timestamp>,
    /// Key of the manifests of the last comparison that went well.
    manifests: Option<String>,
    /// Hash of what else went into it.
    inputs: u64,
    /// When its repository could be read the last time.
    read_at: Option<Instant>,
    /// Its repository could not be read the last time: what is remembered of it does not count as an answer.
    is_unread: bool,
    /// A hash of what decides about syncs, as it was compared.
    policy: Option<u64>,
    /// When the Application itself changed the last time.
    changed_at: Option<Instant>,
    /// When it was compared without caches.
    hard_at: Option<Timestamp>,
    /// What the last operation applied.
    synced: Option<Content>,
    /// When the last wave was applied.
    wave_at: Option<Timestamp>,
}

/// Reconciles Applications.
pub struct Controller {
    context: Context,
    settings: Settings,
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    queue: Arc<Queue>,
    applications: Arc<Store>,
    projects: Arc<Store>,
    secrets: Arc<Store>,
    config_maps: Arc<Store>,
    definitions: Arc<Store>,
    memory: Arc<Mutex<HashMap<Key, Memory>>>,
    clusters: tokio::sync::OnceCell<Clusters>,
    tracking: std::sync::OnceLock<Tracking>,
    client: kube::Client,
    closing: tokio::sync::watch::Sender<bool>,
}

impl Controller {
    /// A controller that reads manifests through `engine` and the cluster through `client`. Nothing starts before
    /// [`Controller::run`].
    pub fn new(
        context: Context,
        settings: Settings,
        engine: Arc<Engine>,
        client: kube::Client,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        const DEFINITION: crate::api::Resource = crate::api::Resource::fixed(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            false,
        );
        Arc::new(Self {
            context,
            settings,
            engine,
            metrics,
            queue: Queue::new(),
            applications: Store::new(resources::APPLICATION, |_| Vec::new()),
            projects: Store::new(resources::APP_PROJECT, |_| Vec::new()),
            secrets: Store::new(resources::SECRET, |_| Vec::new()),
            config_maps: Store::new(resources::CONFIG_MAP, |_| Vec::new()),
            definitions: Store::new(DEFINITION, |_| Vec::new()),
            memory: Arc::default(),
            clusters: tokio::sync::OnceCell::new(),
            tracking: std::sync::OnceLock::new(),
            client,
            closing: tokio::sync::watch::Sender::new(false),
        })
    }

    /// Works until [`Controller::close`].
    pub async fn run(self: Arc<Self>) {
        let all = if self.context.options.namespaced { self.context.options.namespace.clone() } else { String::new() };
        let own = || self.settings.namespace.clone();
        let everywhere = if self.settings.application_namespaces.is_empty() { own() } else { all.clone() };
        let watch = |store: &Arc<Store>, namespace: String, labels: &str| {
            tokio::spawn(fill(self.client.clone(), Arc::clone(store), Scope { namespace, labels: labels.to_owned() }));
        };
        watch(&self.applications, everywhere, "");
        watch(&self.projects, own(), "");
        watch(&self.secrets, own(), SECRET_TYPE);
        watch(&self.config_maps, own(), "app.kubernetes.io/part-of=argocd");
        if !self.context.options.namespaced {
            watch(&self.definitions, String::new(), "");
        }
        // Without the definition of Applications this takes for ever, and must not hold up the end of the process.
        let mut closing = self.closing.subscribe();
        tokio::select! {
            () = self.applications.synced() => {}
            _ = closing.wait_for(|closing| *closing) => return,
        }
        for (store, what) in
            [(&self.projects, "AppProjects"), (&self.secrets, "Secrets"), (&self.config_maps, "ConfigMaps")]
        {
            if tokio::time::timeout(Duration::from_secs(15), store.synced()).await.is_err() {
                tracing::warn!("Cannot list {what} of namespace {}; works without them.", self.settings.namespace);
            }
        }
        let config = self.config_maps.value(&Key::new(&self.settings.namespace, CONFIG));
        let (tracking, problem) = settings::tracking(config.as_ref());
        if let Some(problem) = problem {
            tracing::warn!(problem, "A setting of ConfigMap {CONFIG} cannot be used.");
        }
        let _ = self.tracking.set(tracking.clone());
        self.configure_engine();
        let live = self.make_live(self.client.clone(), &all, &tracking);
        let own = Arc::new(Cluster {
            server: clusters::IN_CLUSTER.to_owned(),
            name: clusters::IN_CLUSTER_NAME.to_owned(),
            project: String::new(),
            api: Arc::clone(&self.context.api),
            live,
            catalogue: Catalogue::new(self.client.clone()),
        });
        let this = Arc::clone(&self);
        let made = Clusters::new(own, move |client, namespace| this.make_live(client, namespace, &tracking));
        let _ = self.clusters.set(made);
        self.subscribe();
        self.serve_webhooks().await;
        let this = Arc::clone(&self);
        let metrics = Arc::clone(&self.metrics);
        crate::worker::run("application", Arc::clone(&self.queue), self.settings.workers, metrics, move |key| {
            let this = Arc::clone(&this);
            async move { this.reconcile(&key).await }
        })
        .await;
    }

    /// Finishes what is under way and begins nothing new.
    pub fn close(&self) {
        self.closing.send_replace(true);
        self.queue.close();
    }

    fn make_live(&self, client: kube::Client, namespace: &str, tracking: &Tracking) -> Arc<LiveState> {
        let (queue, memory, control) =
            (Arc::clone(&self.queue), Arc::clone(&self.memory), self.settings.namespace.clone());
        LiveState::new(Some(client), namespace, tracking.clone(), move |owner, apps| {
            let owner = owner.map(|instance| match instance.split_once('_') {
                Some((namespace, name)) => Key::new(namespace, name),
                None => Key::new(&control, instance),
            });
            for key in owner.iter().chain(apps) {
                let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                let memory = memory.entry(key.clone()).or_default();
                memory.is_dirty = true;
                memory.requested = memory.requested.max(Some(Level::Recent));
                queue.add(key.clone());
            }
        })
    }

    fn subscribe(self: &Arc<Self>) {
        let this = Arc::clone(self);
        self.applications.on_change(move |change| {
            if change.object.is_some() {
                this.remember(change.key, |memory| memory.changed_at = Some(Instant::now()));
            }
            this.queue.add(change.key.clone());
        });
        let this = Arc::clone(self);
        self.projects.on_change(move |change| {
            this.refresh_where(|app| {
                let project = app.pointer("/spec/project").and_then(Value::as_str).unwrap_or_default();
                *change.key.name == *if project.is_empty() { "default" } else { project }
            })
        });
        let this = Arc::clone(self);
        self.secrets.on_change(move |change| {
            this.configure_engine();
            if !change.initial {
                this.refresh_where(|_| true);
            }
        });
        let this = Arc::clone(self);
        self.config_maps.on_change(move |change| {
            this.configure_engine();
            if !change.initial {
                this.refresh_where(|_| true);
            }
        });
        let this = Arc::clone(self);
        self.definitions.on_change(move |change| {
            if !change.initial
                && let Some(clusters) = this.clusters.get()
            {
                clusters.outdate();
            }
        });
    }

    /// Hands repositories, trusted keys and settings of rendering to the engine.
    fn configure_engine(&self) {
        let mut repositories = Repositories::new();
        for secret in self.secrets.keys().iter().filter_map(|key| self.secrets.value(key)) {
            if let Err(error) = repositories.add_secret(&secret) {
                tracing::warn!(%error, "A repository Secret cannot be used.");
            }
        }
        let config = |name: &str| self.config_maps.value(&Key::new(&self.settings.namespace, name));
        if let Some(certificates) = config("argocd-tls-certs-cm") {
            repositories.set_certificates(&certificates);
        }
        if let Some(hosts) = config("argocd-ssh-known-hosts-cm") {
            repositories.set_known_hosts(&hosts);
        }
        self.engine.set_repositories(repositories);
        if let Some(settings) = config(CONFIG) {
            let mut render = RenderSettings::default();
            render.apply_config_map(&settings);
            self.engine.set_render_settings(render);
        }
    }

    /// Asks for a comparison of an Application.
    pub fn refresh(&self, key: &Key, level: Level) {
        self.remember(key, |memory| memory.requested = memory.requested.max(Some(level)));
        self.queue.add(key.clone());
    }

    /// Asks for a comparison of all Applications that `wanted` picks.
    fn refresh_where(&self, wanted: impl Fn(&Value) -> bool) {
        for key in self.applications.keys() {
            if self.applications.value(&key).is_some_and(|app| wanted(&app)) {
                self.remember(&key, |memory| memory.is_dirty = true);
                self.refresh(&key, Level::Latest);
            }
        }
    }

    fn remember<T>(&self, key: &Key, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(memory.entry(key.clone()).or_default())
    }

    fn forget(&self, key: &Key) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        if let Some(clusters) = self.clusters.get() {
            clusters.forget(key);
        }
        self.metrics.forget("argocd_app_info", &[("namespace", &key.namespace), ("name", &key.name)]);
    }

    fn tracking(&self) -> Tracking {
        self.tracking.get().cloned().unwrap_or_default()
    }

    /// Whether Applications in this namespace are ours.
    fn is_ours(&self, namespace: &str) -> bool {
        namespace == self.settings.namespace
            || self.settings.application_namespaces.iter().any(|pattern| glob::matches_or_regex(pattern, namespace))
    }

    fn instance(&self, key: &Key) -> String {
        tracking::instance_name(&self.settings.namespace, &key.namespace, &key.name)
    }

    /// The cluster Secrets.
    fn cluster_secrets(&self) -> Vec<Value> {
        let keys: BTreeSet<Key> = self.secrets.keys().into_iter().collect();
        let is_cluster = |secret: &Value| tidegate_gitops::object::label(secret, SECRET_TYPE) == Some("cluster");
        keys.iter().filter_map(|key| self.secrets.value(key)).filter(is_cluster).collect()
    }
}
