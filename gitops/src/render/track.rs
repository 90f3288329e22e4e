//! Files with a memory: whatever is looked at is noted, so that a later commit can be asked whether it is still the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::repo::objects::lock;
use crate::repo::{Found, Kind, Mode, RepoError, Snapshot, TreeEntry, sha256};

/// How deep directories are read.
const MAX_DEPTH: usize = 64;

/// Something that a result depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dependency {
    /// The `ref` of the source that it is in; empty for the source itself.
    pub reference: String,
    pub what: What,
    pub path: String,
}

/// What about a path matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// Content: of a file, or of a directory with all that is in it.
    Object,
    /// Whether it is there, and as what.
    Kind,
    /// The names in a directory, and what they are.
    Listing,
    /// Names and content of the files in a directory, without what is in its sub-directories.
    Contents,
    /// The commit itself, whatever it changed, or the name that it goes by.
    Commit,
    /// The destination cluster's version and what it serves.
    Cluster,
}

/// The files that one source may read.
#[derive(Debug)]
pub struct Files {
    /// None for a chart of a chart repository, which has its own files.
    own: Option<Snapshot>,
    repo: String,
    revision: String,
    lent: BTreeMap<String, Snapshot>,
    /// How the user named the revision.
    target_revision: String,
    /// Stands for the cluster's version and what it serves.
    cluster: Arc<str>,
    seen: Mutex<BTreeMap<Dependency, String>>,
}

/// A file of a tree.
pub(crate) struct TreeFile {
    /// From the tree's root.
    pub name: String,
    pub content: Vec<u8>,
}

impl Files {
    /// `own` are the source's files, `lent` those of sources with a `ref`, by its name. `cluster` is a [`cluster_mark`].
    pub fn new(own: Snapshot, lent: BTreeMap<String, Snapshot>, cluster: Arc<str>) -> Files {
        let (repo, revision) = (own.repo().to_string(), own.commit().to_string());
        Files { own: Some(own), ..Files::of_chart(repo, revision, lent, cluster) }
    }

    /// The files of a chart that comes from a chart repository: only what others lend.
    pub fn of_chart(repo: String, version: String, lent: BTreeMap<String, Snapshot>, cluster: Arc<str>) -> Files {
        Files {
            own: None,
            repo,
            revision: version,
            target_revision: String::new(),
            lent,
            cluster,
            seen: Mutex::default(),
        }
    }

    /// Says how the user named the revision, for what is made from that name.
    pub fn named(self, target_revision: &str) -> Files {
        Files { target_revision: target_revision.to_string(), ..self }
    }

    fn revision_value(&self) -> String {
        format!("{} {}", self.revision, self.target_revision)
    }

    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// The commit, or the version of a chart.
    pub fn commit(&self) -> &str {
        &self.revision
    }

    /// The source's own files.
    ///
    /// # Errors
    /// It is a chart of a chart repository.
    pub(crate) fn own(&self) -> Result<&Snapshot, RepoError> {
        self.own.as_ref().ok_or_else(|| self.at("", "a chart of a chart repository has no files in Git"))
    }

    pub(crate) fn no_such_path(&self, path: &str) -> RepoError {
        RepoError::PathNotFound { repo: self.repo.clone(), revision: self.revision.clone(), path: path.to_string() }
    }

    pub(crate) fn at(&self, path: &str, detail: &str) -> RepoError {
        RepoError::Path {
            repo: self.repo.clone(),
            revision: self.revision.clone(),
            path: path.to_string(),
            detail: detail.to_string(),
        }
    }

    /// True when another source lends its files under this name.
    pub fn is_lent(&self, reference: &str) -> bool {
        self.lent.contains_key(reference)
    }

    pub(crate) fn depends_on_commit(&self) {
        self.note("", What::Commit, "", self.revision_value());
    }

    pub(crate) fn depends_on_cluster(&self) {
        self.note("", What::Cluster, "", self.cluster.to_string());
    }

    fn snapshot(&self, reference: &str) -> Option<&Snapshot> {
        if reference.is_empty() { self.own.as_ref() } else { self.lent.get(reference) }
    }

    fn note(&self, reference: &str, what: What, path: &str, value: String) {
        let dependency =
            Dependency { reference: reference.to_string(), what, path: path.trim_matches('/').to_string() };
        lock(&self.seen).insert(dependency, value);
    }

    /// What was looked at so far, and how it was.
    pub(crate) fn seen(&self) -> BTreeMap<Dependency, String> {
        lock(&self.seen).clone()
    }

    /// The paths that were looked at.
    pub(crate) fn paths(&self) -> Arc<[String]> {
        let seen = lock(&self.seen);
        let paths: BTreeSet<String> = seen
            .keys()
            .filter(|d| !matches!(d.what, What::Commit | What::Cluster))
            .map(|d| {
                let path = without_dots(&d.path);
                if d.reference.is_empty() { path } else { format!("${}/{path}", d.reference) }
            })
            .collect();
        paths.into_iter().collect()
    }

    /// Whether all is as it was. Looks at nothing that was not noted, and stops at the first difference.
    pub(crate) async fn still(&self, seen: &BTreeMap<Dependency, String>) -> Result<bool, RepoError> {
        for (dependency, value) in seen {
            if self.value(dependency).await?.as_ref() != Some(value) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn value(&self, dependency: &Dependency) -> Result<Option<String>, RepoError> {
        match dependency.what {
            What::Commit => return Ok(Some(self.revision_value())),
            What::Cluster => return Ok(Some(self.cluster.to_string())),
            _ => {}
        }
        let Some(snapshot) = self.snapshot(&dependency.reference) else { return Ok(None) };
        let found = {
            match snapshot.lookup(&dependency.path).await {
                Ok(found) => found,
                // A path that cannot be followed is no reason to fail here: rendering will say it.
                Err(RepoError::Path { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        };
        Ok(Some(match dependency.what {
            What::Object => object_value(found.as_ref()),
            What::Kind => kind_value(found.as_ref()),
            What::Listing | What::Contents => match &found {
                Some(found) if found.kind == Kind::Directory => {
                    let entries = snapshot.list(found).await?;
                    if dependency.what == What::Listing { listing_value(&entries) } else { contents_value(&entries) }
                }
                other => kind_value(other.as_ref()),
            },
            What::Commit | What::Cluster => String::new(),
        }))
    }

    /// Follows a path; only whether it is there, and as what, counts.
    pub(crate) async fn lookup(&self, path: &str) -> Result<Option<Found>, RepoError> {
        let found = self.own()?.lookup(path).await?;
        self.note("", What::Kind, path, kind_value(found.as_ref()));
        Ok(found)
    }

    pub(crate) async fn kind(&self, path: &str) -> Result<Option<Kind>, RepoError> {
        Ok(self.lookup(path).await?.map(|found| found.kind))
    }

    /// A file's content, or None when there is no such file.
    pub(crate) async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, RepoError> {
        self.read_from("", path).await
    }

    /// As `read`, from a source that lends its files.
    pub(crate) async fn read_from(&self, reference: &str, path: &str) -> Result<Option<Vec<u8>>, RepoError> {
        let Some(snapshot) = self.snapshot(reference) else { return Ok(None) };
        let found = snapshot.lookup(path).await?;
        self.note(reference, What::Object, path, object_value(found.as_ref()));
        match found {
            Some(found) if matches!(found.kind, Kind::File | Kind::Executable) => {
                Ok(Some(snapshot.read(&found).await?))
            }
            _ => Ok(None),
        }
    }

    /// The lines of a directory; names and what they are count. None when it is no directory.
    pub(crate) async fn list(&self, path: &str) -> Result<Option<Arc<[TreeEntry]>>, RepoError> {
        self.entries(path, What::Listing).await
    }

    /// The lines of a directory; names and content of its files count.
    pub(crate) async fn contents(&self, path: &str) -> Result<Option<Arc<[TreeEntry]>>, RepoError> {
        self.entries(path, What::Contents).await
    }

    async fn entries(&self, path: &str, what: What) -> Result<Option<Arc<[TreeEntry]>>, RepoError> {
        let own = self.own()?;
        let found = match own.lookup(path).await? {
            Some(found) if found.kind == Kind::Directory => found,
            other => {
                self.note("", What::Kind, path, kind_value(other.as_ref()));
                return Ok(None);
            }
        };
        let entries = own.list(&found).await?;
        let value = if what == What::Listing { listing_value(&entries) } else { contents_value(&entries) };
        self.note("", what, path, value);
        Ok(Some(entries))
    }

    /// Notes a directory with all that is in it.
    pub(crate) async fn depends_on_tree(&self, reference: &str, path: &str) -> Result<(), RepoError> {
        if let Some(snapshot) = self.snapshot(reference) {
            let found = snapshot.lookup(path).await?;
            self.note(reference, What::Object, path, object_value(found.as_ref()));
        }
        Ok(())
    }

    /// All files under a directory, in order of their names, links followed. None when it is no directory.
    pub(crate) async fn tree(&self, path: &str) -> Result<Option<Vec<TreeFile>>, RepoError> {
        self.depends_on_tree("", path).await?;
        let own = self.own()?;
        let Some(root) = own.lookup(path).await?.filter(|found| found.kind == Kind::Directory) else {
            return Ok(None);
        };
        let mut files = Vec::new();
        for (name, found) in self.walk("", &root, true).await? {
            files.push(TreeFile { content: own.read(&found).await?, name });
        }
        Ok(Some(files))
    }

    /// Files under a directory with their names from there. What links lead to out of the directory is noted.
    pub(crate) async fn walk(
        &self,
        reference: &str,
        root: &Found,
        follow_directories: bool,
    ) -> Result<Vec<(String, Found)>, RepoError> {
        let Some(snapshot) = self.snapshot(reference) else { return Ok(Vec::new()) };
        let mut out = Vec::new();
        // Directories still to read, the next one last.
        let mut ahead = vec![(String::new(), root.clone(), 0usize)];
        while let Some((prefix, dir, depth)) = ahead.pop() {
            if matches!(dir.kind, Kind::File | Kind::Executable) {
                out.push((prefix, dir));
                continue;
            }
            if depth > MAX_DEPTH {
                return Err(snapshot.at(&dir.path, "directories are nested too deep, or links go in circles"));
            }
            let entries = snapshot.list(&dir).await?;
            let mut sorted: Vec<&TreeEntry> = entries.iter().collect();
            sorted.sort_by(|a, b| b.name.cmp(&a.name));
            for entry in sorted {
                let name = if prefix.is_empty() { entry.name.to_string() } else { format!("{prefix}/{}", entry.name) };
                let path =
                    if dir.path.is_empty() { entry.name.to_string() } else { format!("{}/{}", dir.path, entry.name) };
                let oid = entry.oid.to_string();
                let found = match entry.mode {
                    Mode::File => Found { path, kind: Kind::File, oid },
                    Mode::Executable => Found { path, kind: Kind::Executable, oid },
                    Mode::Directory => Found { path, kind: Kind::Directory, oid },
                    Mode::Submodule => continue,
                    Mode::Symlink => {
                        let target = snapshot.lookup(&path).await?;
                        self.note(reference, What::Object, &path, object_value(target.as_ref()));
                        match target {
                            Some(target) if target.kind == Kind::Directory && !follow_directories => continue,
                            Some(target) if target.kind == Kind::Submodule => continue,
                            Some(target) => target,
                            None => continue,
                        }
                    }
                };
                ahead.push((name, found, depth + 1));
            }
        }
        Ok(out)
    }

    /// The files of a source that lends them, or of our own, for globs.
    pub(crate) async fn all_under(&self, reference: &str, dir: &str) -> Result<Vec<(String, Found)>, RepoError> {
        self.depends_on_tree(reference, dir).await?;
        let Some(snapshot) = self.snapshot(reference) else { return Ok(Vec::new()) };
        match snapshot.lookup(dir).await? {
            Some(root) if root.kind == Kind::Directory => self.walk(reference, &root, false).await,
            _ => Ok(Vec::new()),
        }
    }
}

/// Stands for a cluster's version and what it serves.
pub fn cluster_mark(kube_version: &str, api_versions: &[String]) -> Arc<str> {
    sha256(format!("{kube_version}\n{}", api_versions.join("\n")).as_bytes()).into()
}

/// A path as it is shown: without `.` and `..`.
fn without_dots(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn object_value(found: Option<&Found>) -> String {
    match found {
        // The place counts as well: what is relative to it may differ.
        Some(found) => format!("{:?} {} {}", found.kind, found.oid, found.path),
        None => "absent".to_string(),
    }
}

fn kind_value(found: Option<&Found>) -> String {
    match found {
        Some(found) => format!("{:?} {}", found.kind, found.path),
        None => "absent".to_string(),
    }
}

fn listing_value(entries: &[TreeEntry]) -> String {
    let lines: Vec<String> = entries.iter().map(|entry| format!("{:?} {}", entry.mode, entry.name)).collect();
    sha256(lines.join("\n").as_bytes())
}

fn contents_value(entries: &[TreeEntry]) -> String {
    let lines: Vec<String> = entries
        .iter()
        .filter(|entry| entry.mode != Mode::Directory)
        .map(|entry| format!("{:?} {} {}", entry.mode, entry.oid, entry.name))
        .collect();
    sha256(lines.join("\n").as_bytes())
}
