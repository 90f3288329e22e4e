//! One remote repository: what it lists, asked once for everybody, and a bare copy of the commits that were needed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Mutex;

use super::Settings;
use super::command::{Access, Git};
use super::error::RepoError;
use super::objects::{Objects, lock};
use super::refs::{Refs, is_commit};
use super::smart_http::Dialect;
use super::tree::Snapshot;
use super::url::{RepoUrl, display};

/// The first pause after a failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// After so many fetches the copy is tidied.
const TIDY_AFTER: u64 = 64;
/// A copy with more packs than this is tidied when it is opened.
const MANY_PACKS: usize = 48;
/// The trees of so many commits are remembered.
const MANY_COMMITS: usize = 256;
/// How many commits a tidied copy keeps at least.
const KEEP: usize = 32;
/// Commits that were used so recently are kept, too.
const KEEP_FOR: Duration = Duration::from_secs(3600);

/// How often the network was used.
#[derive(Debug, Default)]
pub struct NetworkCounters {
    pub ls_remote: AtomicU64,
    pub fetch: AtomicU64,
}

/// A revision and the commit that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    pub commit: String,
    /// The full ref that led there.
    pub reference: Option<String>,
}

/// One remote repository.
#[derive(Debug)]
pub struct Remote {
    url: RepoUrl,
    repo: Arc<str>,
    dir: PathBuf,
    git: Arc<Git>,
    settings: Settings,
    counters: Arc<NetworkCounters>,
    objects: Arc<Objects>,
    listing: Mutex<Listing>,
    fetching: Mutex<Fetching>,
    used: std::sync::Mutex<HashMap<String, Instant>>,
    opened: std::sync::Mutex<Opened>,
}

/// The trees of commits that are in the copy, as long as its packs are those of this time.
#[derive(Debug, Default)]
struct Opened {
    packs: Option<SystemTime>,
    roots: HashMap<String, Arc<str>>,
}

#[derive(Debug, Default)]
struct Listing {
    refs: Option<(Arc<Refs>, Instant)>,
    failure: Option<Failure>,
    /// How the remote was last asked without `git`.
    dialect: Dialect,
}

#[derive(Debug, Default)]
struct Fetching {
    ready: bool,
    count: u64,
    failures: HashMap<String, Failure>,
}

/// A failure that is not repeated before its time.
#[derive(Clone, Debug)]
struct Failure {
    error: RepoError,
    asked: Instant,
    pause: Duration,
    /// Whose credentials were used.
    access: u64,
}

impl Failure {
    fn after(previous: Option<&Failure>, error: RepoError, asked: Instant, access: &Access) -> Failure {
        let pause = previous.map_or(FIRST_PAUSE, |failure| (failure.pause * 2).min(LONGEST_PAUSE));
        Failure { error, asked, pause, access: access.id }
    }

    fn still_holds(&self, since: Option<Instant>, access: &Access) -> bool {
        if self.access != access.id {
            return false;
        }
        match since {
            Some(since) if self.asked < since => false,
            _ => self.asked.elapsed() < self.pause,
        }
    }
}

impl Remote {
    pub(crate) fn new(
        url: RepoUrl,
        dir: PathBuf,
        git: Arc<Git>,
        settings: Settings,
        counters: Arc<NetworkCounters>,
    ) -> Remote {
        let repo: Arc<str> = display(&url.address).into();
        let objects = Objects::new(git.clone(), &dir, repo.clone());
        Remote {
            url,
            repo,
            dir,
            git,
            settings,
            counters,
            objects,
            listing: Mutex::default(),
            fetching: Mutex::default(),
            used: std::sync::Mutex::default(),
            opened: std::sync::Mutex::default(),
        }
    }

    /// The URL as it may be shown.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// What the remote lists. Whoever asks while the answer is on its way shares it; an answer is good for
    /// `Settings::listing_ttl`, or from `since` on. After a failure the remote is left alone for a while.
    ///
    /// # Errors
    /// The remote cannot be asked.
    pub async fn refs(&self, access: &Access, since: Option<Instant>) -> Result<Arc<Refs>, RepoError> {
        let mut listing = self.listing.lock().await;
        if let Some((refs, asked)) = &listing.refs {
            let fresh = match since {
                Some(since) => *asked >= since,
                None => asked.elapsed() < self.settings.listing_ttl,
            };
            if fresh {
                return Ok(refs.clone());
            }
        }
        if let Some(failure) = &listing.failure
            && failure.still_holds(since, access)
        {
            return Err(failure.error.clone());
        }
        // Whoever comes in the meantime waits for the lock, and then finds an answer that is new enough.
        if let Some((_, asked)) = &listing.refs {
            tokio::time::sleep_until((*asked + self.settings.listing_pause).into()).await;
        }
        let asked = Instant::now();
        self.counters.ls_remote.fetch_add(1, Ordering::Relaxed);
        match self.list(access, &mut listing.dialect).await {
            Ok(refs) => {
                let refs = Arc::new(refs);
                listing.refs = Some((refs.clone(), asked));
                listing.failure = None;
                Ok(refs)
            }
            Err(error) => {
                listing.failure = Some(Failure::after(listing.failure.as_ref(), error.clone(), asked, access));
                Err(error)
            }
        }
    }

    async fn list(&self, access: &Access, dialect: &mut Dialect) -> Result<Refs, RepoError> {
        let limit = self.settings.listing_timeout;
        if let Some(web) = access.web() {
            match tokio::time::timeout(limit, web.list(&self.git.browser, dialect)).await {
                Ok(Ok(listed)) => return Ok(Refs::parse(&listed)),
                // `git` finds more ways, and if there is none, the words for what is wrong.
                Ok(Err(why)) => tracing::debug!(repository = %self.repo, %why, "`git ls-remote` is asked"),
                Err(_) => {
                    let (repo, operation) = (self.repo.to_string(), "ls-remote".to_string());
                    return Err(RepoError::Timeout { repo, operation, seconds: limit.as_secs() });
                }
            }
        }
        let args = ["ls-remote", "--quiet", "--", &self.url.address];
        let output = self.git.run(&self.repo, "ls-remote", None, access, limit, &args).await?;
        Ok(Refs::parse(&String::from_utf8_lossy(&output)))
    }

    /// Forgets what the remote lists: it has news.
    pub async fn invalidate(&self) {
        let mut listing = self.listing.lock().await;
        listing.refs = None;
        listing.failure = None;
        drop(listing);
        self.fetching.lock().await.failures.clear();
    }

    /// Finds the commit of a revision. A full commit is taken without asking.
    ///
    /// # Errors
    /// The remote cannot be asked, or lists nothing of that name.
    pub async fn resolve(
        &self,
        access: &Access,
        revision: &str,
        tag_prefix: &str,
        since: Option<Instant>,
    ) -> Result<Revision, RepoError> {
        if is_commit(revision) {
            return Ok(Revision { commit: revision.to_ascii_lowercase(), reference: None });
        }
        let refs = self.refs(access, since).await?;
        let unknown = || RepoError::UnknownRevision { repo: self.repo.to_string(), revision: revision.to_string() };
        let found = refs.resolve(revision, tag_prefix).ok_or_else(unknown)?;
        if found.commit.len() == 40 {
            return Ok(Revision { commit: found.commit, reference: found.reference });
        }
        // A short commit: what we have goes first, then what the remote's branches hold.
        for attempt in 0..2 {
            if attempt == 1 {
                let mut fetching = self.fetching.lock().await;
                self.prepare(&mut fetching).await?;
                self.fetch_all(access).await?;
            } else if !self.is_intact() {
                continue;
            }
            let name = format!("{}^{{commit}}", found.commit);
            if let Some((kind, content)) = self.objects.read(&name).await?
                && kind == "commit"
            {
                return Ok(Revision { commit: commit_oid(&content), reference: None });
            }
        }
        Err(unknown())
    }

    /// The files of a commit, which is fetched if it is not here.
    ///
    /// # Errors
    /// The remote cannot be asked, or does not have the commit.
    pub async fn snapshot(&self, access: &Access, commit: &str, since: Option<Instant>) -> Result<Snapshot, RepoError> {
        lock(&self.used).insert(commit.to_string(), Instant::now());
        if let Some(root) = self.opened(commit) {
            return Ok(Snapshot::at_root(self.objects.clone(), self.repo.clone(), commit, root));
        }
        self.ensure(access, commit, since).await?;
        // Before it is read: what happens to the packs in between makes it be read again.
        let packs = self.packs();
        let snapshot = Snapshot::open(self.objects.clone(), self.repo.clone(), commit).await?;
        let mut opened = lock(&self.opened);
        if opened.packs != packs || opened.roots.len() >= MANY_COMMITS {
            *opened = Opened { packs, roots: HashMap::new() };
        }
        opened.roots.insert(commit.to_string(), snapshot.root());
        Ok(snapshot)
    }

    /// The tree of a commit that was read from the copy as it still is.
    fn opened(&self, commit: &str) -> Option<Arc<str>> {
        let packs = self.packs()?;
        let opened = lock(&self.opened);
        if opened.packs != Some(packs) || !self.dir.join("HEAD").exists() {
            return None;
        }
        opened.roots.get(commit).cloned()
    }

    /// When packs came or went the last time.
    fn packs(&self) -> Option<SystemTime> {
        std::fs::metadata(self.dir.join("objects/pack")).and_then(|found| found.modified()).ok()
    }

    /// Author, date, message and tags of a commit.
    ///
    /// # Errors
    /// As [`Remote::snapshot`].
    pub async fn metadata(&self, access: &Access, commit: &str) -> Result<crate::engine::RevisionMetadata, RepoError> {
        self.ensure(access, commit, None).await?;
        let content = self.objects.read(commit).await?.map(|(_, content)| content).unwrap_or_default();
        let tags = match &self.listing.lock().await.refs {
            Some((refs, _)) => refs.tags_of(commit),
            None => Vec::new(),
        };
        Ok(parse_metadata(&String::from_utf8_lossy(&content), tags))
    }

    /// Paths that differ between two commits.
    ///
    /// # Errors
    /// As [`Remote::snapshot`].
    pub async fn changed(&self, access: &Access, from: &str, to: &str) -> Result<Vec<String>, RepoError> {
        self.ensure(access, from, None).await?;
        self.ensure(access, to, None).await?;
        let args = ["diff-tree", "-r", "-z", "--name-only", "--no-renames", from, to, "--"];
        let limit = self.settings.fetch_timeout;
        let output = self.git.run(&self.repo, "diff-tree", Some(&self.dir), access, limit, &args).await?;
        let text = String::from_utf8_lossy(&output);
        Ok(text.split('\0').filter(|path| !path.is_empty()).map(str::to_string).collect())
    }

    async fn ensure(&self, access: &Access, commit: &str, since: Option<Instant>) -> Result<(), RepoError> {
        // A copy that cannot be read is made anew below, so that is no failure here.
        if self.is_intact() && self.objects.has_commit(commit).await.unwrap_or(false) {
            return Ok(());
        }
        let mut fetching = self.fetching.lock().await;
        self.prepare(&mut fetching).await?;
        if self.objects.has_commit(commit).await? {
            return Ok(());
        }
        if let Some(failure) = fetching.failures.get(commit)
            && failure.still_holds(since, access)
        {
            return Err(failure.error.clone());
        }
        let asked = Instant::now();
        let mut outcome = self.fetch(access, commit).await;
        if let Err(error) = &outcome
            && is_damage(error)
        {
            tracing::warn!(repository = %self.repo, %error, "the local copy is damaged and is made anew");
            self.discard(&mut fetching).await?;
            self.prepare(&mut fetching).await?;
            outcome = self.fetch(access, commit).await;
        }
        match outcome {
            Ok(()) => {
                fetching.failures.clear();
                fetching.count += 1;
                if fetching.count >= TIDY_AFTER {
                    fetching.count = 0;
                    self.tidy(access).await;
                }
                Ok(())
            }
            Err(error) => {
                let failure = Failure::after(fetching.failures.get(commit), error.clone(), asked, access);
                if fetching.failures.len() > 256 {
                    fetching.failures.clear();
                }
                fetching.failures.insert(commit.to_string(), failure);
                Err(error)
            }
        }
    }

    /// Makes the bare repository if it is not there, and removes locks that a killed predecessor left.
    async fn prepare(&self, fetching: &mut Fetching) -> Result<(), RepoError> {
        if fetching.ready && self.is_intact() {
            return Ok(());
        }
        let failed = |error: std::io::Error| RepoError::Cache {
            repo: self.repo.to_string(),
            detail: format!("{}: {error}", self.dir.display()),
        };
        if !self.is_intact() {
            self.discard(fetching).await?;
            std::fs::create_dir_all(&self.dir).map_err(failed)?;
            let dir = self.dir.to_string_lossy();
            let args = ["init", "--quiet", "--bare", "--template=", "--", &dir];
            let limit = self.settings.fetch_timeout;
            self.git.run(&self.repo, "init", None, &Access::default(), limit, &args).await?;
        }
        remove_locks(&self.dir, 3);
        let packs = std::fs::read_dir(self.dir.join("objects/pack")).map_or(0, |entries| entries.count() / 2);
        fetching.count = if packs > MANY_PACKS { TIDY_AFTER } else { 0 };
        fetching.ready = true;
        Ok(())
    }

    fn is_intact(&self) -> bool {
        self.dir.join("HEAD").exists() && self.dir.join("objects").is_dir()
    }

    async fn discard(&self, fetching: &mut Fetching) -> Result<(), RepoError> {
        self.objects.close();
        fetching.ready = false;
        match tokio::fs::remove_dir_all(&self.dir).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(RepoError::Cache {
                repo: self.repo.to_string(),
                detail: format!("{} cannot be removed: {error}", self.dir.display()),
            }),
            _ => Ok(()),
        }
    }

    async fn fetch(&self, access: &Access, commit: &str) -> Result<(), RepoError> {
        self.counters.fetch.fetch_add(1, Ordering::Relaxed);
        let depth = format!("--depth={}", access.depth.max(1));
        let refspec = format!("+{commit}:refs/tidegate/{commit}");
        let outcome = self.fetch_refs(access, &[&depth], &[&refspec]).await;
        let Err(error) = outcome else { return Ok(()) };
        // Servers that do not hand out commits by name, and copies served as plain files.
        let by_name_refused = match &error {
            RepoError::Git { detail, .. }
            | RepoError::RepositoryNotFound { detail, .. }
            | RepoError::Unreachable { detail, .. } => {
                let detail = detail.to_lowercase();
                [
                    "not our ref",
                    "unadvertised object",
                    "dumb http",
                    "does not support",
                    "couldn't find remote ref",
                    "no such remote ref",
                    "remote error: upload-pack",
                ]
                .iter()
                .any(|needle| detail.contains(needle))
            }
            _ => false,
        };
        if !by_name_refused {
            return Err(error);
        }
        self.fetch_all(access).await?;
        if self.objects.has_commit(commit).await? {
            return Ok(());
        }
        Err(RepoError::CommitNotFound {
            repo: self.repo.to_string(),
            commit: commit.to_string(),
            detail: "no branch or tag of the repository holds it".into(),
        })
    }

    async fn fetch_all(&self, access: &Access) -> Result<(), RepoError> {
        self.counters.fetch.fetch_add(1, Ordering::Relaxed);
        // Whoever fetched a single commit before has to fill the gap behind it.
        let shallow: &[&str] = if self.dir.join("shallow").exists() { &["--unshallow"] } else { &[] };
        let refspecs = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
        self.fetch_refs(access, shallow, &refspecs).await
    }

    async fn fetch_refs(&self, access: &Access, options: &[&str], refspecs: &[&str]) -> Result<(), RepoError> {
        let mut args = vec!["-c", "fetch.unpackLimit=1", "fetch", "--quiet", "--no-tags", "--force"];
        args.extend_from_slice(&["--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-gc"]);
        args.extend_from_slice(options);
        args.extend_from_slice(&["--", &self.url.address]);
        args.extend_from_slice(refspecs);
        let limit = self.settings.fetch_timeout;
        self.git.run(&self.repo, "fetch", Some(&self.dir), access, limit, &args).await.map(|_| ())
    }

    /// Drops commits that nobody used lately and packs the rest. A failure costs disk only.
    async fn tidy(&self, access: &Access) {
        let recent: Vec<String> = {
            let mut used = lock(&self.used);
            let mut by_age: Vec<(Instant, String)> = used.iter().map(|(commit, at)| (*at, commit.clone())).collect();
            by_age.sort_unstable_by(|a, b| b.cmp(a));
            let keep = by_age
                .into_iter()
                .enumerate()
                .filter(|(i, (at, _))| *i < KEEP || at.elapsed() < KEEP_FOR)
                .map(|(_, (_, commit))| commit)
                .collect::<Vec<_>>();
            used.retain(|commit, _| keep.contains(commit));
            keep
        };
        let limit = self.settings.fetch_timeout.max(Duration::from_secs(300));
        let run = |args: Vec<String>| async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            self.git.run(&self.repo, "gc", Some(&self.dir), access, limit, &args).await
        };
        let names = vec!["for-each-ref".into(), "--format=%(refname)".into(), "refs/tidegate/".into()];
        let outcome = async {
            let listed = run(names).await?;
            for name in String::from_utf8_lossy(&listed).lines() {
                let commit = name.trim_start_matches("refs/tidegate/");
                if !recent.iter().any(|kept| kept == commit) {
                    run(vec!["update-ref".into(), "-d".into(), name.into()]).await?;
                }
            }
            run(vec!["gc".into(), "--quiet".into(), "--prune=1.hour.ago".into()]).await
        };
        if let Err(error) = outcome.await {
            tracing::warn!(repository = %self.repo, %error, "the local copy could not be tidied");
        }
    }
}

/// The name of a commit from its content, as Git computes it.
fn commit_oid(content: &[u8]) -> String {
    let mut text = format!("commit {}\0", content.len()).into_bytes();
    text.extend_from_slice(content);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &text);
    super::objects::hex(digest.as_ref())
}

fn parse_metadata(commit: &str, tags: Vec<String>) -> crate::engine::RevisionMetadata {
    let (head, message) = commit.split_once("\n\n").unwrap_or((commit, ""));
    let person = |key: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(key))?;
        let (name, rest) = line.rsplit_once('>')?;
        let seconds = rest.split_whitespace().next().and_then(|s| s.parse().ok()).unwrap_or_default();
        Some((format!("{name}>"), seconds))
    };
    crate::engine::RevisionMetadata {
        author: person("author ").map(|(name, _)| name).unwrap_or_default(),
        date: person("committer ").map(|(_, date)| date).unwrap_or_default(),
        message: message.trim_end().to_string(),
        tags,
    }
}

fn is_damage(error: &RepoError) -> bool {
    let detail = match error {
        RepoError::Git { detail, .. }
        | RepoError::RepositoryNotFound { detail, .. }
        | RepoError::Unreachable { detail, .. } => detail,
        RepoError::Cache { .. } => return true,
        _ => return false,
    };
    let detail = detail.to_lowercase();
    [
        "bad object",
        "is corrupt",
        "corrupt loose object",
        "shallow file has changed",
        "did not send all necessary",
        "missing blob",
        "missing tree",
        "unable to read tree",
        "index-pack failed",
        "bad shallow",
        "packfile",
    ]
    .iter()
    .any(|needle| detail.contains(needle))
}

fn remove_locks(dir: &Path, depth: usize) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "lock") {
            let _ = std::fs::remove_file(&path);
        } else if depth > 0 && path.is_dir() && !path.ends_with("objects") {
            remove_locks(&path, depth - 1);
        }
    }
}
