//! The files of one commit, read without a working tree.

use std::collections::VecDeque;
use std::sync::Arc;

use super::error::RepoError;
use super::objects::{Mode, Objects, TreeEntry, entry};

/// How many symbolic links one path may follow.
const MAX_LINKS: usize = 40;

/// The files of one commit.
#[derive(Clone, Debug)]
pub struct Snapshot {
    objects: Arc<Objects>,
    repo: Arc<str>,
    commit: Arc<str>,
    root: Arc<str>,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// From the repository's root, without links, `.` or `..`. Empty for the root.
    pub path: String,
    pub kind: Kind,
    /// Hexadecimal.
    pub oid: String,
}

/// What is at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Executable,
    Directory,
    Submodule,
}

/// Why a path leads nowhere that may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Astray {
    Outside,
    Loop,
}

impl Snapshot {
    /// Opens a commit that is there.
    pub(crate) async fn open(objects: Arc<Objects>, repo: Arc<str>, commit: &str) -> Result<Snapshot, RepoError> {
        let not_found =
            |detail: String| RepoError::CommitNotFound { repo: repo.to_string(), commit: commit.to_string(), detail };
        let (kind, content) = objects.read(commit).await?.ok_or_else(|| not_found("it was not fetched".into()))?;
        let text = String::from_utf8_lossy(&content);
        let root = (kind == "commit").then(|| text.lines().next()?.strip_prefix("tree ")).flatten();
        let root: Arc<str> = root.ok_or_else(|| not_found(format!("it is a {kind}; expected a commit")))?.into();
        Ok(Snapshot::at_root(objects, repo, commit, root))
    }

    /// A commit that is there, and whose tree is known.
    pub(crate) fn at_root(objects: Arc<Objects>, repo: Arc<str>, commit: &str, root: Arc<str>) -> Snapshot {
        Snapshot { objects, repo, commit: commit.into(), root }
    }

    /// The tree of the commit.
    pub(crate) fn root(&self) -> Arc<str> {
        self.root.clone()
    }

    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// The repository's URL as it may be shown.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// Follows a path from the repository's root. None when nothing is there.
    ///
    /// # Errors
    /// The path, or a link on it, leaves the repository, or links go in circles.
    pub async fn lookup(&self, path: &str) -> Result<Option<Found>, RepoError> {
        match self.walk(path).await? {
            Ok(found) => Ok(found),
            Err(Astray::Outside) => Err(self.at(path, "path leads out of the repository, which is refused")),
            Err(Astray::Loop) => Err(self.at(path, "too many levels of symbolic links")),
        }
    }

    async fn walk(&self, path: &str) -> Result<Result<Option<Found>, Astray>, RepoError> {
        // Directories from the root to where we are.
        let mut above: Vec<(String, String)> = vec![(String::new(), self.root.to_string())];
        let mut file: Option<Found> = None;
        let mut ahead: VecDeque<String> = path.split('/').map(str::to_string).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            match name.as_str() {
                "" | "." => continue,
                ".." if file.is_some() => return Ok(Ok(None)),
                ".." => {
                    above.pop();
                    if above.is_empty() {
                        return Ok(Err(Astray::Outside));
                    }
                    continue;
                }
                _ if file.is_some() => return Ok(Ok(None)),
                _ => {}
            }
            let Some((dir, oid)) = above.last() else { return Ok(Err(Astray::Outside)) };
            let tree = self.objects.tree(oid).await?;
            let Some(entry) = entry(&tree, &name) else { return Ok(Ok(None)) };
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let oid = entry.oid.to_string();
            match entry.mode {
                Mode::Directory => above.push((path, oid)),
                Mode::File => file = Some(Found { path, kind: Kind::File, oid }),
                Mode::Executable => file = Some(Found { path, kind: Kind::Executable, oid }),
                Mode::Submodule => file = Some(Found { path, kind: Kind::Submodule, oid }),
                Mode::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Ok(Err(Astray::Loop));
                    }
                    let target = self.blob(&path, &oid).await?;
                    let target = String::from_utf8_lossy(&target).into_owned();
                    if target.starts_with('/') {
                        return Ok(Err(Astray::Outside));
                    }
                    for part in target.rsplit('/') {
                        ahead.push_front(part.to_string());
                    }
                }
            }
        }
        if file.is_some() {
            return Ok(Ok(file));
        }
        Ok(Ok(above.pop().map(|(path, oid)| Found { path, kind: Kind::Directory, oid })))
    }

    /// The content of a file that was found.
    pub async fn read(&self, found: &Found) -> Result<Vec<u8>, RepoError> {
        self.blob(&found.path, &found.oid).await
    }

    /// The entries of a directory that was found, in Git's order. Links are not followed.
    pub async fn list(&self, found: &Found) -> Result<Arc<[TreeEntry]>, RepoError> {
        self.objects.tree(&found.oid).await
    }

    async fn blob(&self, path: &str, oid: &str) -> Result<Vec<u8>, RepoError> {
        match self.objects.read(oid).await? {
            Some((kind, content)) if kind == "blob" => Ok(content),
            Some((kind, _)) => Err(self.at(path, &format!("object {oid} is a {kind}; expected a file"))),
            None => Err(self.at(path, &format!("object {oid} is missing in the local copy"))),
        }
    }

    /// An error about a path of this commit.
    pub fn at(&self, path: &str, detail: &str) -> RepoError {
        RepoError::Path {
            repo: self.repo.to_string(),
            revision: self.commit.to_string(),
            path: path.to_string(),
            detail: detail.to_string(),
        }
    }

    /// The error that a source's path is not there.
    pub fn no_such_path(&self, path: &str) -> RepoError {
        RepoError::PathNotFound {
            repo: self.repo.to_string(),
            revision: self.commit.to_string(),
            path: path.to_string(),
        }
    }
}
