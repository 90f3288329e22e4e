//! Reading objects out of a bare repository by a `git cat-file` that stays.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::Semaphore;

use super::command::{Access, Git, ProcessGroup};
use super::error::RepoError;
use crate::cache::Lru;

/// How long an unused reader stays.
const IDLE: Duration = Duration::from_secs(30);
/// Longer than any disk takes; a reader that is stuck is replaced.
const LIMIT: Duration = Duration::from_secs(60);
/// Readers of one repository at the same time.
const READERS: usize = 2;
/// What parsed trees may take, in bytes.
const TREES: usize = 4 << 20;
/// Objects beyond this are not manifests, and are not read.
const MAX_OBJECT: usize = 256 << 20;

/// One line of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeEntry {
    pub name: Box<str>,
    pub mode: Mode,
    /// Hexadecimal.
    pub oid: Box<str>,
}

/// What a line of a tree names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    File,
    Executable,
    Directory,
    Symlink,
    Submodule,
}

/// The objects of one repository.
#[derive(Debug)]
pub(crate) struct Objects {
    git: Arc<Git>,
    dir: PathBuf,
    repo: Arc<str>,
    idle: Mutex<Vec<Reader>>,
    permits: Semaphore,
    trees: Mutex<Lru<String, Arc<[TreeEntry]>>>,
}

#[derive(Debug)]
struct Reader {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    used: Instant,
}

impl Objects {
    pub(crate) fn new(git: Arc<Git>, dir: &Path, repo: Arc<str>) -> Arc<Objects> {
        Arc::new(Objects {
            git,
            dir: dir.to_path_buf(),
            repo,
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(READERS),
            trees: Mutex::new(Lru::new(TREES)),
        })
    }

    /// Type and content of an object, or None when it is not there. `name` is anything that names an object.
    pub(crate) async fn read(self: &Arc<Self>, name: &str) -> Result<Option<(String, Vec<u8>)>, RepoError> {
        self.ask("contents", name).await
    }

    /// True when the commit is there. Packs arrive whole, so its trees and files are there as well.
    pub(crate) async fn has_commit(self: &Arc<Self>, commit: &str) -> Result<bool, RepoError> {
        Ok(self.ask("info", commit).await?.is_some_and(|(kind, _)| kind == "commit"))
    }

    /// The parsed tree with this name.
    pub(crate) async fn tree(self: &Arc<Self>, oid: &str) -> Result<Arc<[TreeEntry]>, RepoError> {
        if let Some(tree) = lock(&self.trees).get(oid) {
            return Ok(tree.clone());
        }
        let (kind, content) = self.read(oid).await?.ok_or_else(|| self.damaged(format!("tree {oid} is missing")))?;
        if kind != "tree" {
            return Err(self.damaged(format!("{oid} is a {kind}; expected a tree")));
        }
        let tree: Arc<[TreeEntry]> =
            parse_tree(&content).ok_or_else(|| self.damaged(format!("tree {oid} cannot be parsed")))?.into();
        let weight = content.len() * 2 + tree.len() * size_of::<TreeEntry>();
        lock(&self.trees).insert(oid.to_string(), tree.clone(), weight);
        Ok(tree)
    }

    /// Ends all readers, so that nothing holds files of the repository.
    pub(crate) fn close(&self) {
        lock(&self.idle).clear();
        *lock(&self.trees) = Lru::new(TREES);
    }

    fn damaged(&self, detail: String) -> RepoError {
        RepoError::Cache { repo: self.repo.to_string(), detail }
    }

    async fn ask(self: &Arc<Self>, verb: &str, name: &str) -> Result<Option<(String, Vec<u8>)>, RepoError> {
        if name.contains(['\n', '\0']) {
            return Ok(None);
        }
        let failed = |error: std::io::Error| self.damaged(format!("git cat-file: {error}"));
        let _permit = self.permits.acquire().await.map_err(|e| self.damaged(e.to_string()))?;
        let waiting = lock(&self.idle).pop();
        // One that waited may have died, which is no failure; a new one that dies is.
        if let Some(mut reader) = waiting
            && let Ok(Ok(answer)) = tokio::time::timeout(LIMIT, reader.ask(verb, name)).await
        {
            self.put_back(reader);
            return Ok(answer);
        }
        let mut reader = self.spawn().map_err(failed)?;
        let answer = tokio::time::timeout(LIMIT, reader.ask(verb, name))
            .await
            .map_err(|_| self.damaged("git cat-file does not answer".into()))?
            .map_err(failed)?;
        self.put_back(reader);
        Ok(answer)
    }

    fn spawn(self: &Arc<Self>) -> std::io::Result<Reader> {
        let mut child = self
            .git
            .command(Some(&self.dir), &Access::default())
            .args(["cat-file", "--batch-command"])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()?;
        let missing = || std::io::Error::other("no pipe");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = BufReader::with_capacity(64 << 10, child.stdout.take().ok_or_else(missing)?);
        Ok(Reader { child, stdin, stdout, used: Instant::now() })
    }

    fn put_back(self: &Arc<Self>, mut reader: Reader) {
        reader.used = Instant::now();
        let mut idle = lock(&self.idle);
        let first = idle.is_empty();
        idle.push(reader);
        if first {
            tokio::spawn(reap(Arc::downgrade(self)));
        }
    }
}

/// Ends readers that nobody used for a while. Ends itself when there are none, or the repository is gone.
async fn reap(objects: Weak<Objects>) {
    loop {
        tokio::time::sleep(IDLE).await;
        let Some(objects) = objects.upgrade() else { return };
        let mut idle = lock(&objects.idle);
        idle.retain(|reader| reader.used.elapsed() < IDLE);
        if idle.is_empty() {
            return;
        }
    }
}

impl Reader {
    async fn ask(&mut self, verb: &str, name: &str) -> std::io::Result<Option<(String, Vec<u8>)>> {
        self.stdin.write_all(format!("{verb} {name}\n").as_bytes()).await?;
        self.stdin.flush().await?;
        let mut header = String::new();
        if self.stdout.read_line(&mut header).await? == 0 {
            return Err(std::io::Error::other("it ended"));
        }
        let header = header.trim_end();
        if header.ends_with(" missing") || header.ends_with(" ambiguous") {
            return Ok(None);
        }
        let mut words = header.rsplit(' ');
        let (size, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let size: usize = size.parse().map_err(|_| std::io::Error::other(format!("unexpected answer {header:?}")))?;
        if verb == "info" {
            return Ok(Some((kind.to_string(), Vec::new())));
        }
        if size > MAX_OBJECT {
            return Err(std::io::Error::other(format!(
                "object {name} has {size} bytes; at most {MAX_OBJECT} are read"
            )));
        }
        let mut content = vec![0; size + 1];
        self.stdout.read_exact(&mut content).await?;
        content.pop();
        Ok(Some((kind.to_string(), content)))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop(ProcessGroup::of(&self.child));
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The line with this name. Git sorts directories as if their names ended in `/`.
pub(crate) fn entry<'a>(tree: &'a [TreeEntry], name: &str) -> Option<&'a TreeEntry> {
    let ending = |is_directory: bool| if is_directory { "/" } else { "" };
    let search = |is_directory: bool| {
        let wanted = || name.bytes().chain(ending(is_directory).bytes());
        let at = tree.binary_search_by(|line| {
            line.name.bytes().chain(ending(line.mode == Mode::Directory).bytes()).cmp(wanted())
        });
        at.ok().map(|at| &tree[at]).filter(|line| *line.name == *name)
    };
    // Names with replacements may be in another order.
    search(true).or_else(|| search(false)).or_else(|| tree.iter().find(|line| *line.name == *name))
}

/// Parses a tree object: mode, blank, name, NUL, 20 bytes. Names that are not UTF-8 are shown with replacements.
fn parse_tree(mut content: &[u8]) -> Option<Vec<TreeEntry>> {
    let mut entries = Vec::new();
    while !content.is_empty() {
        let blank = content.iter().position(|b| *b == b' ')?;
        let (mode, rest) = (&content[..blank], &content[blank + 1..]);
        let end = rest.iter().position(|b| *b == 0)?;
        let oid = rest.get(end + 1..end + 21)?;
        let mode = match mode {
            b"40000" => Mode::Directory,
            b"120000" => Mode::Symlink,
            b"160000" => Mode::Submodule,
            b"100755" => Mode::Executable,
            _ => Mode::File,
        };
        entries.push(TreeEntry { name: String::from_utf8_lossy(&rest[..end]).into(), mode, oid: hex(oid).into() });
        content = &rest[end + 21..];
    }
    Some(entries)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_name() {
        let line = |name: &str, mode: Mode| TreeEntry { name: name.into(), mode, oid: "".into() };
        // As Git sorts them: `a.b` before `a/`, `a0` after it; the last two by bytes that were replaced.
        let tree = [
            line("a.b", Mode::File),
            line("a", Mode::Directory),
            line("a0", Mode::File),
            line("b", Mode::Executable),
            line("z\u{fffd}", Mode::File),
            line("z\u{e9}", Mode::File),
        ];
        for wanted in &tree {
            assert_eq!(entry(&tree, &wanted.name), Some(wanted));
        }
        for missing in ["", "A", "a.", "a/", "c", "zz"] {
            assert_eq!(entry(&tree, missing), None, "{missing:?}");
        }
        assert_eq!(entry(&[], "a"), None);
    }

    #[test]
    fn trees_are_parsed() {
        let mut raw = Vec::new();
        for (mode, name) in [("100644", "a b.yaml"), ("40000", "dir"), ("120000", "link"), ("160000", "sub")] {
            raw.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            raw.extend_from_slice(&[0xab; 20]);
        }
        let entries = parse_tree(&raw).unwrap();
        let modes: Vec<Mode> = entries.iter().map(|e| e.mode).collect();
        assert_eq!(modes, [Mode::File, Mode::Directory, Mode::Symlink, Mode::Submodule]);
        assert_eq!((&*entries[0].name, &*entries[0].oid), ("a b.yaml", &*"ab".repeat(20)));
        assert_eq!(parse_tree(&raw[..raw.len() - 1]), None);
    }
}
