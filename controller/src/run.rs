//! The controller process: connects, waits for the Lease, runs the reconcilers, and stops in good order.

use crate::api::{Api, KubeApi, Resource};
use crate::cache::{Scope, fill};
use crate::context::{Context, Stores};
use crate::events::Recorder;
use crate::lease::{Election, LeaseOptions};
use crate::metrics::Metrics;
use crate::options::{ControllerOptions, Controllers};
use crate::rollout::primary::{self, Istio};
use anyhow::Context as _;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The component that Events name as their source.
const COMPONENT: &str = "rollouts-controller";
/// How long work that is under way may take after the signal to stop.
const GRACE: Duration = Duration::from_secs(20);

/// Runs the controllers on the cluster that `config` leads to, until `stop` is ready or the Lease is lost.
///
/// # Errors
/// When the cluster cannot be reached at the start, a port is taken, or the Lease was lost: the process must not go on
/// writing then, and is started again by the platform.
pub async fn run(
    mut config: kube::Config,
    options: ControllerOptions,
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    // Retries are the queue's business: a hidden one would hold a worker for minutes.
    config.default_retry = false;
    let namespace = options.pod_namespace.clone().unwrap_or_else(|| options.namespace.clone());
    let client = kube::Client::try_from(config).context("cannot make a client from the configuration")?;
    let metrics = Arc::new(Metrics::default());
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    metrics.set("argo_rollouts_controller_info", "The controller.", &version, 1.0);
    metrics.set("build_info", "The program.", &version, 1.0);
    crate::metrics::process::tell(&metrics);
    let own = {
        let metrics = Arc::clone(&metrics);
        KubeApi::new(client.clone(), move |resource, verb, code| metrics.api_call(resource, verb, code))
    };
    let api: Arc<dyn Api> = Arc::new(own.clone());
    // Before the election: those who stand by answer as well.
    if let Some(admission) = &options.admission {
        let address = crate::admission::serve(admission).await?;
        tracing::info!(port = address.port(), "Serves admission.");
    }
    let ready = Arc::new(AtomicBool::new(false));
    serve(options.metrics_port, options.healthz_port, Arc::clone(&metrics), Arc::clone(&ready)).await?;

    let mut stop = std::pin::pin!(stop);
    let mut election = None;
    if options.leader_elect {
        let mut candidate = Election::new(Arc::clone(&api), lease_options(&options, &namespace));
        ready.store(true, Ordering::Relaxed);
        crate::footprint::give_back();
        let since = tokio::select! {
            since = candidate.acquire() => since,
            () = &mut stop => return Ok(()),
        };
        election = Some((candidate, since));
    }

    let outcome = {
        // Renewed from the first moment on: the first lists may take longer than the Lease lasts.
        let mut lost = std::pin::pin!(async {
            match &mut election {
                Some((election, since)) => election.keep(*since).await,
                None => std::future::pending().await,
            }
        });
        let reconcilers = tokio::select! {
            reconcilers = prepare(&options, &api, &own, &client, &metrics) => Some(reconcilers?),
            reason = &mut lost => return Err(no_longer_leads(&reason)),
            () = &mut stop => None,
        };
        match reconcilers {
            Some(reconcilers) => {
                ready.store(true, Ordering::Relaxed);
                crate::footprint::give_back();
                work(reconcilers, lost, stop).await
            }
            None => Ok(()),
        }
    };
    if let (Ok(()), Some((election, _))) = (&outcome, &election) {
        election.release().await;
    }
    outcome
}

fn no_longer_leads(reason: &str) -> anyhow::Error {
    anyhow::anyhow!("no longer leads: {reason}")
}

/// Gets to know the cluster.
async fn prepare(
    options: &ControllerOptions,
    api: &Arc<dyn Api>,
    own: &KubeApi,
    client: &kube::Client,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Reconcilers> {
    let watched = if options.namespaced { options.namespace.clone() } else { String::new() };
    let primary = primary::find(api.as_ref(), &watched).await;
    let istio = if primary.is_some() { Istio::Elsewhere } else { Istio::Here };
    let routed = primary.map_or_else(|| own.clone(), |elsewhere| own.with(elsewhere));
    let client_of = {
        let routed = routed.clone();
        Box::new(move |resource: &Resource| routed.client(resource).ok().cloned())
    };
    let stores = Arc::new(Stores::new(Some(client_of), &watched));
    let recorder = {
        let metrics = Arc::clone(metrics);
        Recorder::start(Arc::clone(api), COMPONENT, move |about, event| {
            metrics.event(&about.kind, &about.namespace, &about.name, event.warning, &event.reason);
        })
    };
    let context =
        Context { api: Arc::clone(api), stores: Arc::clone(&stores), recorder, options: Arc::new(options.clone()) };
    let reconcilers = Reconcilers::new(&context, Arc::new(routed), istio, metrics, client)?;
    for (store, labels) in stores.watched(options.namespaced) {
        let scope = Scope { namespace: watched.clone(), labels: labels.to_owned() };
        tokio::spawn(fill(client.clone(), store, scope));
    }
    for (store, _) in stores.watched(options.namespaced) {
        if tokio::time::timeout(Duration::from_secs(15), store.synced()).await.is_err() {
            tracing::warn!(
                kind = %store.resource.kind,
                "No answer to the first list of {}: is its CustomResourceDefinition installed, and may this \
                 ServiceAccount list and watch it?",
                store.resource.plural
            );
            store.synced().await;
        }
    }
    tracing::info!(
        rollouts = stores.rollouts.len(),
        replica_sets = stores.replica_sets.len(),
        analysis_runs = stores.analysis_runs.len(),
        "Knows the cluster; begins to work."
    );
    Ok(reconcilers)
}

/// Works until `stop` is ready or the Lease is `lost`.
async fn work(
    reconcilers: Reconcilers,
    lost: impl Future<Output = String>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut work = tokio::spawn(reconcilers.clone().run());
    let mut lost = std::pin::pin!(lost);
    let outcome = tokio::select! {
        () = stop => Ok(()),
        reason = &mut lost => Err(no_longer_leads(&reason)),
        ended = &mut work => Err(anyhow::anyhow!("the reconcilers ended: {ended:?}")),
    };
    reconcilers.close();
    if outcome.is_ok() {
        tracing::info!("Stops: finishes what is under way.");
        tokio::select! {
            finished = tokio::time::timeout(GRACE, work) => if finished.is_err() {
                tracing::warn!("Stops although work is under way: it took longer than {GRACE:?}.");
            },
            reason = lost => return Err(no_longer_leads(&reason)),
        }
    }
    outcome
}

fn lease_options(options: &ControllerOptions, namespace: &str) -> LeaseOptions {
    let mut name = "argo-rollouts-controller-lock".to_owned();
    if let Some(id) = options.instance_id.as_deref().filter(|id| !id.is_empty()) {
        name = format!("{name}-{id}");
    }
    let host =
        std::env::var("HOSTNAME").or_else(|_| std::env::var("POD_NAME")).unwrap_or_else(|_| "tidegate".to_owned());
    let unique = k8s_openapi::jiff::Timestamp::now().as_nanosecond();
    LeaseOptions {
        namespace: namespace.to_owned(),
        name,
        identity: format!("{host}_{}-{unique:x}", std::process::id()),
        duration: options.lease_duration,
        renew_deadline: options.lease_renew_deadline,
        retry: options.lease_retry_period,
    }
}

/// The reconcilers that this process runs.
#[derive(Clone)]
struct Reconcilers {
    rollouts: Option<Arc<crate::rollout::Controller>>,
    analysis_runs: Arc<crate::analysis_run::Controller>,
    experiments: Option<Arc<crate::experiment::Controller>>,
    applications: Option<Arc<crate::application::Controller>>,
}

impl Reconcilers {
    /// `routed` is the API that Rollouts go by.
    fn new(
        context: &Context,
        routed: Arc<dyn Api>,
        istio: Istio,
        metrics: &Arc<Metrics>,
        client: &kube::Client,
    ) -> anyhow::Result<Self> {
        let all = context.options.controllers == Controllers::All;
        let routers = router_options(&context.options);
        let of_rollouts = Context { api: routed, ..context.clone() };
        Ok(Self {
            rollouts: all.then(|| crate::rollout::Controller::new(of_rollouts, routers, istio, Arc::clone(metrics))),
            analysis_runs: crate::analysis_run::Controller::new(context.clone(), Arc::clone(metrics))
                .map_err(|error| anyhow::anyhow!("cannot set up metric providers: {error}"))?,
            experiments: all.then(|| crate::experiment::Controller::new(context.clone(), Arc::clone(metrics))),
            applications: if all && context.options.gitops {
                Some(applications(context, metrics, client)?)
            } else {
                None
            },
        })
    }

    async fn run(self) {
        let rollouts = async {
            if let Some(controller) = self.rollouts {
                controller.run().await;
            }
        };
        let experiments = async {
            if let Some(controller) = self.experiments {
                controller.run().await;
            }
        };
        let applications = async {
            if let Some(controller) = self.applications {
                controller.run().await;
            }
        };
        tokio::join!(rollouts, self.analysis_runs.run(), experiments, applications);
    }

    fn close(&self) {
        if let Some(controller) = &self.rollouts {
            controller.close();
        }
        self.analysis_runs.close();
        if let Some(controller) = &self.experiments {
            controller.close();
        }
        if let Some(controller) = &self.applications {
            controller.close();
        }
    }
}

/// Makes the Application controller.
fn applications(
    context: &Context,
    metrics: &Arc<Metrics>,
    client: &kube::Client,
) -> anyhow::Result<Arc<crate::application::Controller>> {
    let options = &context.options;
    let mut settings = options.applications.clone();
    if settings.namespace.is_empty() {
        settings.namespace = options.pod_namespace.clone().unwrap_or_else(|| options.namespace.clone());
    }
    let engine = tidegate_gitops::engine::Engine::new(&settings.cache_dir, Default::default()).with_context(|| {
        format!("cannot use {} for copies of repositories (--repository-cache)", settings.cache_dir.display())
    })?;
    Ok(crate::application::Controller::new(
        context.clone(),
        settings,
        Arc::new(engine),
        client.clone(),
        Arc::clone(metrics),
    ))
}

fn router_options(options: &ControllerOptions) -> tidegate_traffic::RouterOptions {
    let routers = &options.routers;
    let defaults = tidegate_traffic::RouterOptions::default();
    tidegate_traffic::RouterOptions {
        istio_api_version: routers.istio_api_version.clone(),
        ambassador_api_version: routers.ambassador_api_version.clone(),
        traffic_split_api_version: routers.traffic_split_api_version.clone(),
        traefik_api_version: routers.traefik_api_version.clone(),
        app_mesh_crd_version: routers.appmesh_crd_version.clone(),
        ingress_api_version: routers.ingress_api_version.clone().unwrap_or(defaults.ingress_api_version),
        ..tidegate_traffic::RouterOptions::default()
    }
}

/// Serves metrics and health, each on its port.
async fn serve(
    metrics_port: u16,
    health_port: u16,
    metrics: Arc<Metrics>,
    ready: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let exposition = |State(metrics): State<Arc<Metrics>>| async move {
        ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
    };
    let health = |State(ready): State<Arc<AtomicBool>>| async move {
        if ready.load(Ordering::Relaxed) {
            (StatusCode::OK, "ok")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "starting")
        }
    };
    let metrics_app = axum::Router::new().route("/metrics", get(exposition)).with_state(metrics);
    let health_app =
        axum::Router::new().route("/healthz", get(|| async { "ok" })).route("/readyz", get(health)).with_state(ready);
    for (port, app, what) in [(metrics_port, metrics_app, "metrics"), (health_port, health_app, "health")] {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on port {port} for {what}: is another controller running here?"))?;
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, what, "The server ended.");
            }
        });
    }
    Ok(())
}
