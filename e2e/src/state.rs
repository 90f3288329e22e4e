//! Where a cluster's files are: state in the working tree, built programs in the user's cache.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cluster::Nodes;
use crate::process::ProcessId;

/// The directory that holds one directory for each cluster: `$TIDEGATE_STATE`, or `.state` in the working tree.
pub fn root() -> PathBuf {
    match std::env::var_os("TIDEGATE_STATE") {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => repository().join(".state"),
    }
}

/// The directory for programs that are built or downloaded once: `$XDG_CACHE_HOME/tidegate` or `~/.cache/tidegate`.
pub fn cache() -> PathBuf {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache"),
    };
    base.join("tidegate")
}

/// The working tree: the current directory's when that is a Tidegate tree, else the one this program was built from.
pub fn repository() -> PathBuf {
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_path_buf();
    let Ok(current) = std::env::current_dir() else { return built_from };
    let here = current.ancestors().find(|dir| dir.join("e2e/controlplane/go.mod").is_file());
    here.map(Path::to_path_buf).unwrap_or(built_from)
}

/// What is written down about a running cluster, in `cluster.json` of its state directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub name: String,
    pub nodes: Nodes,
    pub traefik: bool,
    pub prometheus: bool,
    pub git: bool,
    /// Version and digest of the test images that were loaded, so that a rebuilt server is loaded again.
    #[serde(default)]
    pub images: String,
    /// The process for which the cluster runs; `None` for one that a person started and will stop.
    #[serde(default)]
    pub owner: Option<ProcessId>,
    pub created: jiff::Timestamp,
}

/// A held lock; freed, and its file removed, with the value.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: std::fs::File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

/// One cluster's directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    pub name: String,
    pub path: PathBuf,
}

impl StateDir {
    /// The directory of the cluster `name`, which need not exist. Fails for a name that cannot be a name of a
    /// network namespace and directory.
    pub fn new(name: &str) -> Result<Self> {
        let fits = name.len() <= 40 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if name.is_empty() || !fits || name.starts_with('-') {
            bail!("cluster name {name:?}: expected up to 40 lower-case letters, digits and dashes");
        }
        let root = root();
        let root = std::path::absolute(&root).with_context(|| format!("state directory {}", root.display()))?;
        if ["/run", "/var/run", "/var/log", "/var/lib", "/proc", "/sys"].iter().any(|taken| root.starts_with(taken)) {
            bail!(
                "state directory {}: a cluster has a /run, /var/log and /var/lib of its own, set TIDEGATE_STATE to a \
                 place outside of them",
                root.display()
            );
        }
        Ok(Self { name: name.to_owned(), path: root.join(name) })
    }

    pub fn join(&self, relative: &str) -> PathBuf {
        self.path.join(relative)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.join("admin.conf")
    }

    /// Where component `name` writes what it has to say.
    pub fn log(&self, name: &str) -> PathBuf {
        self.join("log").join(format!("{name}.log"))
    }

    pub fn record(&self) -> Option<Record> {
        let text = std::fs::read_to_string(self.join("cluster.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub fn write_record(&self, record: &Record) -> Result<()> {
        self.write("cluster.json", serde_json::to_string_pretty(record)?.as_bytes())
    }

    /// Writes a file under the directory whole or not at all.
    pub fn write(&self, relative: &str, content: &[u8]) -> Result<()> {
        let path = self.join(relative);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        let partial = path.with_extension("partial");
        std::fs::write(&partial, content).with_context(|| format!("write {}", partial.display()))?;
        std::fs::rename(&partial, &path).with_context(|| format!("rename to {}", path.display()))
    }

    /// Held while a cluster is started or removed, so that two commands do not do it at once.
    pub fn lock(&self) -> Result<Lock> {
        use std::os::unix::fs::MetadataExt;
        let root = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(root).with_context(|| format!("create {}", root.display()))?;
        let path = root.join(format!(".{}.lock", self.name));
        loop {
            let file = std::fs::File::create(&path).with_context(|| format!("open {}", path.display()))?;
            file.lock().with_context(|| format!("lock {}", path.display()))?;
            // Whoever held it before may have removed the file, which is then another one than the next process locks.
            let (held, named) = (file.metadata()?.ino(), std::fs::metadata(&path).map(|found| found.ino()));
            if named.is_ok_and(|named| named == held) {
                return Ok(Lock { path, _file: file });
            }
        }
    }

    /// Every directory under the state root that looks like a cluster's, broken ones included.
    pub fn all() -> Vec<StateDir> {
        let Ok(entries) = std::fs::read_dir(root()) else { return Vec::new() };
        let mut found: Vec<StateDir> = entries
            .filter_map(|entry| entry.ok())
            .filter(|entry| entry.path().join("log").is_dir())
            .filter_map(|entry| StateDir::new(&entry.file_name().to_string_lossy()).ok())
            .filter(|dir| !dir.name.starts_with("failed-"))
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }
}
