//! What the cluster holds about Rollouts: once, or kept up to date by watches.

use super::info::Objects;
use crate::cluster::Connection;
use crate::failure;
use anyhow::Result;
use futures::FutureExt;
use futures::stream::{BoxStream, SelectAll, StreamExt, select_all};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{Lookup, Store, reflector, store};
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use tidegate_crds::analysis::AnalysisRun;
use tidegate_crds::experiment::Experiment;
use tidegate_crds::keys;

/// Reads what Rollouts and Experiments of the namespace may own.
///
/// # Errors
/// When the API server refuses.
pub async fn objects(connection: &Connection) -> Result<Objects> {
    let hashed = ListParams::default().labels(keys::POD_TEMPLATE_HASH);
    let all = ListParams::default();
    let (replica_sets, pods, experiments, analysis_runs) = futures::try_join!(
        list::<ReplicaSet>(connection, &hashed),
        list::<Pod>(connection, &hashed),
        list::<Experiment>(connection, &all),
        list::<AnalysisRun>(connection, &all),
    )?;
    Ok(Objects { replica_sets, pods, experiments, analysis_runs })
}

/// Lists a kind; a kind that the cluster does not have is an empty list.
async fn list<K>(connection: &Connection, params: &ListParams) -> Result<Vec<K>>
where
    K: kube::Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(connection.client.clone(), &connection.namespace);
    match api.list(params).await {
        Ok(list) => Ok(list.items),
        Err(error) if failure::is_not_found(&error) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// A change somewhere, or a watch that failed before it had seen anything.
pub type Changes = SelectAll<BoxStream<'static, Result<()>>>;

/// The same objects, kept up to date.
pub struct Live {
    replica_sets: Store<ReplicaSet>,
    pods: Store<Pod>,
    experiments: Store<Experiment>,
    analysis_runs: Store<AnalysisRun>,
}

impl Live {
    /// Starts to watch. The stores fill while the changes are polled.
    pub fn start(connection: &Connection) -> (Self, Changes) {
        let hashed = watcher::Config::default().labels(keys::POD_TEMPLATE_HASH);
        let all = watcher::Config::default();
        let (replica_sets, a) = follow(namespaced(connection), hashed.clone());
        let (pods, b) = follow(namespaced(connection), hashed);
        let (experiments, c) = follow(namespaced(connection), all.clone());
        let (analysis_runs, d) = follow(namespaced(connection), all);
        (Self { replica_sets, pods, experiments, analysis_runs }, select_all([a, b, c, d]))
    }

    /// Whether the first list of every kind is there.
    pub fn is_complete(&self) -> bool {
        is_filled(&self.replica_sets)
            && is_filled(&self.pods)
            && is_filled(&self.experiments)
            && is_filled(&self.analysis_runs)
    }

    /// What is known now.
    pub fn objects(&self) -> Objects {
        Objects {
            replica_sets: values(&self.replica_sets),
            pods: values(&self.pods),
            experiments: values(&self.experiments),
            analysis_runs: values(&self.analysis_runs),
        }
    }
}

fn is_filled<K: Clone + Lookup<DynamicType = ()> + 'static>(store: &Store<K>) -> bool {
    store.wait_until_ready().now_or_never().is_some()
}

fn values<K: Clone + Lookup<DynamicType = ()>>(store: &Store<K>) -> Vec<K> {
    store.state().iter().map(|object| (**object).clone()).collect()
}

fn namespaced<K>(connection: &Connection) -> Api<K>
where
    K: kube::Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    Api::namespaced(connection.client.clone(), &connection.namespace)
}

/// Watches a kind into a store. Watches that break are taken up again with back-off; a watch that the API server refuses
/// before anything was seen is an error, unless the kind does not exist.
pub fn follow<K>(api: Api<K>, config: watcher::Config) -> (Store<K>, BoxStream<'static, Result<()>>)
where
    K: Lookup<DynamicType = ()>
        + kube::Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let (reader, writer) = store();
    let mut seen = false;
    let stream = reflector(writer, watcher::watcher(api, config)).default_backoff().filter_map(move |event| {
        let change = match event {
            Ok(event) => {
                seen = seen || !matches!(event, watcher::Event::Init);
                (!matches!(event, watcher::Event::Init | watcher::Event::InitApply(_))).then_some(Ok(()))
            }
            Err(error) if seen => {
                tracing::debug!(%error, "watch broken, trying again");
                None
            }
            Err(error) => refused(error),
        };
        futures::future::ready(change)
    });
    (reader, stream.boxed())
}

/// Whether a first failure is final: the API server answered, and it was no passing trouble.
fn refused(error: watcher::Error) -> Option<Result<()>> {
    let status = match &error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code,
        _ => return None,
    };
    match status {
        401 | 403 => match error {
            watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => {
                Some(Err(error.into()))
            }
            _ => None,
        },
        _ => None,
    }
}
