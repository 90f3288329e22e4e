//! The engine: from an Application's sources to manifests, at a cost that follows what a commit changed.
//!
//! Every rendering leaves a trace: what it looked at, and how that was. A later commit under which all of that is still
//! the same has the same manifests, whatever else it changed, and they are handed out without rendering. So nobody has to
//! say which paths an Application depends on, and a failure is not repeated until something that it depends on changes.

mod charts;
mod request;
mod trace;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_crds::application::Source;

use charts::Charts;
pub use request::{Freshness, ManifestRequest, Manifests, RevisionMetadata, SourceManifests};
use trace::{Outcome, Trace, Traces};

use crate::render::{self, Files, RenderError, RenderRequest, RenderSettings, Rendered, Tools};
use crate::repo::objects::lock;
use crate::repo::refs::Refs;
use crate::repo::{Access, Remote, Remotes, RepoError, Settings, Snapshot, sha256, url};
use crate::secret::Repositories;
use crate::source::{self, InvalidSource, SourceKind, text};

/// How an engine works.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    pub repo: Settings,
    pub render: RenderSettings,
    /// What remembered manifests may take, in bytes. Default 64 MiB.
    pub cache_bytes: usize,
    /// How long a result is good that something outside of Git went into, as a chart repository. Default 24 h. Peer:
    /// `reposerver.repo.cache.expiration`.
    pub remote_ttl: Duration,
}

impl Default for EngineSettings {
    fn default() -> EngineSettings {
        EngineSettings {
            repo: Settings::default(),
            render: RenderSettings::default(),
            cache_bytes: 64 << 20,
            remote_ttl: Duration::from_secs(24 * 3600),
        }
    }
}

/// How much work was done. All counts are since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineCounters {
    pub ls_remote: u64,
    pub fetch: u64,
    /// Renderings, failed ones included.
    pub renders: u64,
    /// Answers, by source, that needed no rendering.
    pub hits: u64,
    /// Bytes that remembered manifests take.
    pub cache_bytes: usize,
    pub worker_starts: u64,
}

/// Why there are no manifests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{error}", position(*.index, *.count))]
pub struct SourceError {
    /// Which source, from 0.
    pub index: usize,
    /// How many sources the Application has.
    pub count: usize,
    pub error: RenderError,
}

fn position(index: usize, count: usize) -> String {
    if count > 1 { format!("source {} of {count}: ", index + 1) } else { String::new() }
}

impl SourceError {
    /// True when the same Application may get manifests later without anything changing in it or its commit.
    pub fn is_transient(&self) -> bool {
        self.error.is_transient()
    }

    /// True when the Application itself is written wrongly: `InvalidSpecError` rather than `ComparisonError`.
    pub fn is_invalid_spec(&self) -> bool {
        matches!(self.error, RenderError::Source(_) | RenderError::Repo(RepoError::InvalidUrl(_)))
    }
}

/// See the module. Shared by all of a controller's workers.
#[derive(Debug)]
pub struct Engine {
    remotes: Remotes,
    tools: Tools,
    settings: RwLock<Arc<Rendering>>,
    repositories: RwLock<Arc<Repositories>>,
    traces: Mutex<Traces>,
    cluster: Mutex<Option<ClusterMark>>,
    charts: Charts,
    remote_ttl: Duration,
    renders: AtomicU64,
    hits: AtomicU64,
}

/// How manifests are rendered, and a text that differs when that does.
#[derive(Debug)]
struct Rendering {
    settings: RenderSettings,
    mark: String,
}

impl Rendering {
    fn new(settings: RenderSettings) -> Arc<Rendering> {
        let mark = format!("{settings:?}");
        Arc::new(Rendering { settings, mark })
    }
}

/// The cluster that was asked for last: most of the time all Applications go to the same.
#[derive(Debug)]
struct ClusterMark {
    kube_version: String,
    api_versions: Arc<[String]>,
    mark: Arc<str>,
}

/// A source whose commit is known.
struct Opened {
    /// Or the version of a chart.
    commit: String,
    /// None for a chart of a chart repository.
    snapshot: Option<Snapshot>,
}

impl Engine {
    /// Keeps its copies of repositories under `cache_dir`, which belongs to this process alone. Starts nothing and asks
    /// nobody.
    ///
    /// # Errors
    /// `cache_dir` cannot be written.
    pub fn new(cache_dir: &Path, settings: EngineSettings) -> std::io::Result<Engine> {
        Ok(Engine {
            remotes: Remotes::new(cache_dir, settings.repo)?,
            tools: Tools::new(&settings.render),
            settings: RwLock::new(Rendering::new(settings.render)),
            repositories: RwLock::default(),
            traces: Mutex::new(Traces::new(settings.cache_bytes)),
            cluster: Mutex::default(),
            charts: Charts::default(),
            remote_ttl: settings.remote_ttl,
            renders: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        })
    }

    /// Takes the repository Secrets and trusted keys that hold from now on.
    pub fn set_repositories(&self, repositories: Repositories) {
        *self.repositories.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(repositories);
    }

    /// The repository Secrets that hold.
    pub fn repositories(&self) -> Arc<Repositories> {
        self.repositories.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Takes what `argocd-cm` says about rendering from now on. Where the worker is and how many there are stays.
    pub fn set_render_settings(&self, settings: RenderSettings) {
        *self.settings.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Rendering::new(settings);
    }

    fn rendering(&self) -> Arc<Rendering> {
        self.settings.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn cluster_mark(&self, request: &ManifestRequest) -> Arc<str> {
        let mut known = lock(&self.cluster);
        if let Some(known) = &*known
            && Arc::ptr_eq(&known.api_versions, &request.api_versions)
            && known.kube_version == request.kube_version
        {
            return known.mark.clone();
        }
        let mark = render::cluster_mark(&request.kube_version, &request.api_versions);
        let (kube_version, api_versions) = (request.kube_version.clone(), request.api_versions.clone());
        *known = Some(ClusterMark { kube_version, api_versions, mark: mark.clone() });
        mark
    }

    /// Forgets what a remote lists, and its failures: a webhook says that it has news.
    pub async fn invalidate(&self, repo_url: &str) {
        self.remotes.invalidate(repo_url).await;
        self.charts.invalidate();
    }

    pub fn counters(&self) -> EngineCounters {
        let network = self.remotes.counters();
        EngineCounters {
            ls_remote: network.ls_remote.load(Ordering::Relaxed),
            fetch: network.fetch.load(Ordering::Relaxed),
            renders: self.renders.load(Ordering::Relaxed),
            hits: self.hits.load(Ordering::Relaxed),
            cache_bytes: lock(&self.traces).weight(),
            worker_starts: self.tools.started(),
        }
    }

    /// The commit that a revision of a Git repository names.
    ///
    /// # Errors
    /// The repository cannot be asked, or lists nothing of that name.
    pub async fn resolve(
        &self,
        repo_url: &str,
        project: &str,
        revision: &str,
        tag_prefix: &str,
        freshness: Freshness,
    ) -> Result<String, RepoError> {
        let (remote, access) = self.remote(repo_url, project)?;
        Ok(remote.resolve(&access, revision, tag_prefix, freshness.since()).await?.commit)
    }

    /// What the repository lists, for generators and pickers.
    ///
    /// # Errors
    /// The repository cannot be asked.
    pub async fn refs(&self, repo_url: &str, project: &str, freshness: Freshness) -> Result<Arc<Refs>, RepoError> {
        let (remote, access) = self.remote(repo_url, project)?;
        remote.refs(&access, freshness.since()).await
    }

    /// The files of a revision, for generators.
    ///
    /// # Errors
    /// As [`Engine::resolve`], or the commit cannot be fetched.
    pub async fn snapshot(
        &self,
        repo_url: &str,
        project: &str,
        revision: &str,
        freshness: Freshness,
    ) -> Result<Snapshot, RepoError> {
        let (remote, access) = self.remote(repo_url, project)?;
        let revision = if revision.is_empty() { "HEAD" } else { revision };
        let found = remote.resolve(&access, revision, "", freshness.since()).await?;
        remote.snapshot(&access, &found.commit, freshness.since()).await
    }

    /// Author, date, message and tags of a commit.
    ///
    /// # Errors
    /// The commit cannot be fetched.
    pub async fn metadata(&self, repo_url: &str, project: &str, commit: &str) -> Result<RevisionMetadata, RepoError> {
        let (remote, access) = self.remote(repo_url, project)?;
        remote.metadata(&access, commit).await
    }

    /// Paths that differ between two commits, for `manifest-generate-paths` and histories.
    ///
    /// # Errors
    /// One of them cannot be fetched.
    pub async fn changed(&self, repo_url: &str, project: &str, from: &str, to: &str) -> Result<Vec<String>, RepoError> {
        let (remote, access) = self.remote(repo_url, project)?;
        remote.changed(&access, from, to).await
    }

    fn remote(&self, repo_url: &str, project: &str) -> Result<(Arc<Remote>, Arc<Access>), RepoError> {
        let repositories = self.repositories();
        self.remotes.remote(repo_url, &repositories.find(repo_url, project), &repositories)
    }

    /// Manifests of an Application. Asks the remotes and renders only if it has to.
    ///
    /// # Errors
    /// The first source that fails, with the reason. Failures are remembered for a while (seconds at first, minutes when
    /// they repeat) unless something that they depend on changes or the request asks for a newer answer.
    pub async fn manifests(&self, request: &ManifestRequest) -> Result<Manifests, SourceError> {
        let count = request.sources.len();
        let at = |index: usize| move |error: RenderError| SourceError { index, count, error };
        if count == 0 {
            let error = InvalidSource("spec.source and spec.sources are both empty; expected one source".into());
            return Err(at(0)(error.into()));
        }
        for (index, source) in request.sources.iter().enumerate() {
            source::validate(source).map_err(|error| at(index)(error.into()))?;
        }
        let mut opened: Vec<Opened> = Vec::with_capacity(count);
        for (index, source) in request.sources.iter().enumerate() {
            let pinned = request.revisions.get(index).map(String::as_str).filter(|r| !r.is_empty());
            let open = self.open(source, pinned, &request.project, request.freshness).await;
            opened.push(open.map_err(at(index))?);
        }
        let lent = lent(&request.sources, &opened).map_err(|(index, error)| at(index)(error.into()))?;
        let mut sources = Vec::with_capacity(count);
        for (index, (source, opened)) in request.sources.iter().zip(&opened).enumerate() {
            if source::is_reference_only(source) {
                sources.push(SourceManifests {
                    commit: opened.commit.clone(),
                    source_type: None,
                    manifests: Arc::new([]),
                    key: String::new(),
                    from_cache: true,
                    paths_read: Arc::new([]),
                    warnings: Arc::new([]),
                });
                continue;
            }
            let answer = self.source_manifests(request, source, opened, lent.clone()).await;
            sources.push(answer.map_err(at(index))?);
        }
        Ok(merged(sources, &request.destination_namespace))
    }

    async fn open(
        &self,
        source: &Source,
        pinned: Option<&str>,
        project: &str,
        freshness: Freshness,
    ) -> Result<Opened, RenderError> {
        let since = freshness.since();
        if source::kind(source) != SourceKind::Git {
            let mut wanted = source.clone();
            wanted.target_revision = Some(pinned.unwrap_or_else(|| source::revision(source)).to_string());
            let repositories = self.repositories();
            let commit = self.charts.resolve(&self.tools, &wanted, &repositories, project, since).await?;
            return Ok(Opened { commit, snapshot: None });
        }
        let (remote, access) = self.remote(&source.repo_url, project)?;
        let wanted = pinned.unwrap_or_else(|| source::revision(source));
        let found = remote.resolve(&access, wanted, text(&source.tag_prefix), since).await?;
        let snapshot = remote.snapshot(&access, &found.commit, since).await?;
        Ok(Opened { commit: found.commit, snapshot: Some(snapshot) })
    }

    async fn source_manifests(
        &self,
        request: &ManifestRequest,
        source: &Source,
        opened: &Opened,
        lent: BTreeMap<String, Snapshot>,
    ) -> Result<SourceManifests, RenderError> {
        let rendering = self.rendering();
        let repositories = self.repositories();
        let mut parameters = self.parameters(request, source, &rendering.mark, &lent);
        let cluster = self.cluster_mark(request);
        let files = match &opened.snapshot {
            Some(own) => Files::new(own.clone(), lent, cluster),
            None => {
                // A version of a chart stays what it is.
                parameters = sha256(format!("{parameters}\n{}", opened.commit).as_bytes());
                let repo = url::display(&source.repo_url);
                Files::of_chart(repo, opened.commit.clone(), lent, cluster)
            }
        };
        let files = files.named(text(&source.target_revision));
        // The lock is not held while Git is read.
        let candidates = lock(&self.traces).candidates(&parameters);
        let mut failed_before = None;
        for trace in candidates {
            if !files.still(trace.seen()).await? {
                continue;
            }
            if let Some(answer) = trace.answer(request.freshness) {
                lock(&self.traces).touch(&parameters, &trace);
                self.hits.fetch_add(1, Ordering::Relaxed);
                return answer.map(|(rendered, key)| made(&opened.commit, &rendered, &key, true));
            }
            failed_before = failed_before.or_else(|| trace.pause());
        }
        self.renders.fetch_add(1, Ordering::Relaxed);
        let started = Instant::now();
        let outcome = render::render(&RenderRequest {
            source,
            files: &files,
            app_name: &request.app_name,
            app_namespace: &request.app_namespace,
            project: &request.project,
            destination_namespace: &request.destination_namespace,
            kube_version: &request.kube_version,
            api_versions: &request.api_versions,
            settings: &rendering.settings,
            tools: &self.tools,
            repositories: &repositories,
        })
        .await;
        tracing::debug!(
            app = %request.app_name, repository = %files.repo(), commit = %files.commit(), path = %text(&source.path),
            milliseconds = started.elapsed().as_millis() as u64, ok = outcome.is_ok(), "rendered"
        );
        let (outcome, answer) = match outcome {
            Ok(rendered) => {
                let (key, weight) = content_key(&rendered);
                let expires = rendered.remote.then(|| Instant::now() + self.remote_ttl);
                let answer = made(&opened.commit, &rendered, &key, false);
                (Outcome::rendered(rendered, key, weight, expires), Ok(answer))
            }
            Err(error) => (Outcome::failed(error.clone(), failed_before), Err(error)),
        };
        lock(&self.traces).remember(parameters, Trace::new(files.seen(), outcome));
        answer
    }

    /// Everything that goes into the manifests besides files, the commit and the cluster, which traces know about.
    fn parameters(
        &self,
        request: &ManifestRequest,
        source: &Source,
        settings: &str,
        lent: &BTreeMap<String, Snapshot>,
    ) -> String {
        let lent: BTreeMap<&str, &str> = lent.iter().map(|(name, snapshot)| (name.as_str(), snapshot.repo())).collect();
        // By which name the commit was found matters to those who ask for it, which their traces know.
        let source = Source { target_revision: None, ..source.clone() };
        let app = [&request.app_namespace, &request.app_name, &request.project, &request.destination_namespace];
        let all = (&source, url::normalize(&source.repo_url), app, &lent, self.tools.identity(), settings);
        sha256(serde_json::to_string(&all).unwrap_or_else(|_| format!("{all:?}")).as_bytes())
    }
}

impl Freshness {
    pub(crate) fn since(self) -> Option<Instant> {
        match self {
            Freshness::Cached => None,
            Freshness::Since(at) | Freshness::Hard(at) => Some(at),
        }
    }
}

/// The files that sources lend each other. One repository at two revisions within an Application is refused when one of
/// them is lent, as it would not be clear which one is meant.
fn lent(sources: &[Source], opened: &[Opened]) -> Result<BTreeMap<String, Snapshot>, (usize, InvalidSource)> {
    let mut lent = BTreeMap::new();
    for (index, (source, own)) in sources.iter().zip(opened).enumerate() {
        let name = text(&source.ref_);
        if name.is_empty() {
            continue;
        }
        for (other, theirs) in sources.iter().zip(opened) {
            if url::normalize(&other.repo_url) == url::normalize(&source.repo_url) && theirs.commit != own.commit {
                return Err((
                    index,
                    InvalidSource(format!(
                        "ref {name:?} is {} at {}, and another source has the same repository at {}; expected one revision",
                        url::display(&source.repo_url),
                        own.commit,
                        theirs.commit
                    )),
                ));
            }
        }
        let Some(snapshot) = &own.snapshot else {
            let shown = url::display(&source.repo_url);
            return Err((
                index,
                InvalidSource(format!("ref {name:?}: {shown} is no Git repository; a chart lends no files")),
            ));
        };
        if lent.insert(name.to_string(), snapshot.clone()).is_some() {
            return Err((index, InvalidSource(format!("ref {name:?} is given to more than one source"))));
        }
    }
    Ok(lent)
}

fn made(commit: &str, rendered: &Rendered, key: &str, from_cache: bool) -> SourceManifests {
    SourceManifests {
        commit: commit.to_string(),
        source_type: Some(rendered.source_type),
        manifests: rendered.manifests.clone(),
        key: key.to_string(),
        from_cache,
        paths_read: rendered.paths_read.clone(),
        warnings: rendered.warnings.clone(),
    }
}

/// A hash of the manifests, and about how many bytes they take in memory.
fn content_key(rendered: &Rendered) -> (String, usize) {
    let mut text = String::new();
    for manifest in rendered.manifests.iter() {
        text.push_str(&manifest.to_string());
        text.push('\n');
    }
    // A JSON value takes about three times its text.
    let paths: usize = rendered.paths_read.iter().map(|path| path.len() + 24).sum();
    (sha256(text.as_bytes()), text.len() * 3 + paths + 256)
}

/// Puts sources together. Of an object that several make, the last one stays, in its own place.
fn merged(sources: Vec<SourceManifests>, destination_namespace: &str) -> Manifests {
    let from_cache = sources.iter().all(|source| source.from_cache);
    let made: Vec<&SourceManifests> = sources.iter().filter(|source| source.source_type.is_some()).collect();
    if let [only] = made.as_slice() {
        return Manifests {
            manifests: only.manifests.clone(),
            key: only.key.clone(),
            from_cache,
            repeated: Vec::new(),
            sources,
        };
    }
    let all: Vec<(usize, &Arc<Value>)> =
        made.iter().enumerate().flat_map(|(i, source)| source.manifests.iter().map(move |m| (i, m))).collect();
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    let mut repeated = Vec::new();
    for (at, (index, manifest)) in all.iter().enumerate() {
        let Some(identity) = identity(manifest, destination_namespace) else { continue };
        if let Some(before) = last.insert(identity.clone(), at)
            && all[before].0 != *index
            && !repeated.contains(&identity)
        {
            repeated.push(identity);
        }
    }
    let manifests: Arc<[Arc<Value>]> = all
        .iter()
        .enumerate()
        .filter(|(at, (index, manifest))| match identity(manifest, destination_namespace) {
            // Doubles within one source are not ours to judge.
            Some(identity) => last.get(&identity).is_none_or(|kept| kept == at || all[*kept].0 == *index),
            None => true,
        })
        .map(|(_, (_, manifest))| (*manifest).clone())
        .collect();
    let keys: Vec<&str> = made.iter().map(|source| source.key.as_str()).collect();
    let key = sha256(keys.join("\n").as_bytes());
    Manifests { manifests, key, from_cache, repeated, sources }
}

/// `group/kind/namespace/name`; None for an object whose name the API server makes.
fn identity(manifest: &Value, destination_namespace: &str) -> Option<String> {
    let get = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let name = get("/metadata/name");
    let group = get("/apiVersion").rsplit_once('/').map(|(group, _)| group).unwrap_or_default();
    let namespace = Some(get("/metadata/namespace")).filter(|n| !n.is_empty()).unwrap_or(destination_namespace);
    (!name.is_empty()).then(|| format!("{group}/{}/{namespace}/{name}", get("/kind")))
}

#[cfg(test)]
mod tests;
