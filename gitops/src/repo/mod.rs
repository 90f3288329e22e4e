//! Git repositories: one bare copy per remote, asked for revisions and read without a working tree.

pub(crate) mod command;
pub mod error;
pub(crate) mod objects;
pub mod refs;
mod remote;
mod smart_http;
mod tree;
pub mod url;
pub mod version;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use command::Access;
pub use error::RepoError;
pub use objects::{Mode, TreeEntry};
pub use remote::{NetworkCounters, Remote, Revision};
pub use tree::{Found, Kind, Snapshot};

use command::Git;
use objects::lock;
use url::RepoUrl;

use crate::secret::{Repositories, RepositorySecret};

/// How remotes are treated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a remote's listing is good for polling. Default 30 s. Peer: `--revision-cache-expiration`.
    pub listing_ttl: Duration,
    /// How long a remote is left alone after it was asked, whoever asks: they share the next answer. Default 200 ms.
    pub listing_pause: Duration,
    /// Default 30 s.
    pub listing_timeout: Duration,
    /// Default 90 s. Peer: `ARGOCD_EXEC_TIMEOUT`.
    pub fetch_timeout: Duration,
    /// The program. Default `git`.
    pub git: OsString,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listing_ttl: Duration::from_secs(30),
            listing_pause: Duration::from_millis(200),
            listing_timeout: Duration::from_secs(30),
            fetch_timeout: Duration::from_secs(90),
            git: "git".into(),
        }
    }
}

/// All remotes that were asked for.
#[derive(Debug)]
pub struct Remotes {
    root: PathBuf,
    git: Arc<Git>,
    settings: Settings,
    counters: Arc<NetworkCounters>,
    remotes: Mutex<HashMap<String, Known>>,
}

/// A remote, and how it is reached as long as these hold: the Secret and what is trusted.
#[derive(Debug)]
struct Known {
    remote: Arc<Remote>,
    secret: RepositorySecret,
    trust: String,
    access: Arc<Access>,
}

impl Remotes {
    /// Keeps its copies under `root`, which belongs to this process alone.
    ///
    /// # Errors
    /// `root` cannot be written.
    pub fn new(root: &Path, settings: Settings) -> std::io::Result<Remotes> {
        use std::os::unix::fs::PermissionsExt as _;
        let temporary = root.join("tmp");
        // What a killed predecessor left may hold keys.
        let _ = std::fs::remove_dir_all(&temporary);
        std::fs::create_dir_all(&temporary)?;
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o700))?;
        Ok(Remotes {
            git: Arc::new(Git::new(settings.git.clone(), &root.join("home"))?),
            root: root.to_path_buf(),
            settings,
            counters: Arc::default(),
            remotes: Mutex::default(),
        })
    }

    /// The remote at `repo_url` as `secret` may see it, and how to reach it. Repositories that are scoped to a project
    /// have a copy of their own, so that nobody reads through somebody else's credentials.
    ///
    /// # Errors
    /// The URL or the credentials cannot be used.
    pub fn remote(
        &self,
        repo_url: &str,
        secret: &RepositorySecret,
        repositories: &Repositories,
    ) -> Result<(Arc<Remote>, Arc<Access>), RepoError> {
        let parsed = RepoUrl::parse(repo_url).map_err(RepoError::InvalidUrl)?;
        let trust = match parsed.transport {
            url::Transport::Ssh => repositories.known_hosts(),
            _ => repositories.certificates(&parsed.host).unwrap_or_default(),
        };
        // Whoever brings credentials of his own in the URL does not share what others see.
        let own = sha256(format!("{}\n{}", parsed.username, parsed.password).as_bytes());
        let key = format!("{}\n{}\n{}\n{own}", url::normalize(repo_url), secret.project, parsed.address);
        let mut remotes = lock(&self.remotes);
        if let Some(known) = remotes.get(&key)
            && known.secret == *secret
            && known.trust == trust
        {
            return Ok((known.remote.clone(), known.access.clone()));
        }
        let access = Arc::new(Access::new(&parsed, secret, repositories, &self.root.join("tmp"))?);
        let remote = match remotes.get(&key) {
            Some(known) => known.remote.clone(),
            None => {
                let dir = self.root.join("git").join(&sha256(key.as_bytes())[..40]);
                let counters = self.counters.clone();
                Arc::new(Remote::new(parsed, dir, self.git.clone(), self.settings.clone(), counters))
            }
        };
        let known =
            Known { remote: remote.clone(), secret: secret.clone(), trust: trust.to_string(), access: access.clone() };
        remotes.insert(key, known);
        Ok((remote, access))
    }

    /// Forgets what every remote with this URL lists.
    pub async fn invalidate(&self, repo_url: &str) {
        let prefix = format!("{}\n", url::normalize(repo_url));
        let matching: Vec<Arc<Remote>> = lock(&self.remotes)
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix))
            .map(|(_, known)| known.remote.clone())
            .collect();
        for remote in matching {
            remote.invalidate().await;
        }
    }

    pub fn counters(&self) -> &NetworkCounters {
        &self.counters
    }
}

/// Lower-case hexadecimal SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    objects::hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
