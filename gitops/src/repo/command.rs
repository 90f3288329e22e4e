//! Running `git`: nothing of the user's or the machine's configuration gets in, no secret gets out, and what does not end
//! in time is killed with all its children.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use super::error::RepoError;
use super::smart_http::{Browser, Trust, Web};
use super::url::{RepoUrl, Transport, display};
use crate::secret::{Repositories, RepositorySecret};

/// Variables of our own environment that `git` gets to see.
const INHERITED: [&str; 12] = [
    "PATH",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// The program and where it keeps its settings.
#[derive(Debug)]
pub struct Git {
    program: OsString,
    home: PathBuf,
    /// Not everybody at once when many repositories are due.
    permits: Semaphore,
    /// For what is asked without the program.
    pub(crate) browser: Browser,
}

/// How many `git` processes talk to remotes at the same time.
const AT_ONCE: usize = 8;

/// How one remote is reached: environment for `git`, files that live as long as this value, and what must not be shown.
#[derive(Default)]
pub struct Access {
    env: Vec<(String, OsString)>,
    config: Vec<(String, String)>,
    hidden: Vec<String>,
    files: Option<tempfile::TempDir>,
    /// How to ask without `git`, where that is possible.
    web: Option<Web>,
    /// Commits of history to fetch; 0 leaves the choice to us.
    pub depth: u32,
    /// Differs between any two that were made: a failure with one says nothing about another.
    pub(crate) id: u64,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Access(***)")
    }
}

impl Git {
    /// Prepares `home` for the settings that cannot travel by environment.
    ///
    /// # Errors
    /// `home` cannot be written.
    pub fn new(program: OsString, home: &Path) -> std::io::Result<Git> {
        std::fs::create_dir_all(home)?;
        // The upload side of a local remote does not see our environment's settings, only this file.
        std::fs::write(
            home.join("gitconfig"),
            "[safe]\n\tdirectory = *\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[core]\n\tfsync = none\n\
             [protocol \"ext\"]\n\tallow = never\n[credential]\n\thelper =\n[advice]\n\tdetachedHead = false\n",
        )?;
        Ok(Git {
            program: found(program),
            home: home.to_path_buf(),
            permits: Semaphore::new(AT_ONCE),
            browser: Browser::default(),
        })
    }

    /// A command with our environment and settings, and none of the caller's.
    pub(crate) fn command(&self, dir: Option<&Path>, access: &Access) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear();
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", &self.home)
            .env("GIT_CONFIG_GLOBAL", self.home.join("gitconfig"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "")
            .env("SSH_ASKPASS", "")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("LC_ALL", "C");
        // For repositories without an entry; the user's own ssh settings stay out.
        command.env("GIT_SSH_COMMAND", "ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=15");
        if let Some(dir) = dir {
            command.env("GIT_DIR", dir);
        }
        for (name, value) in &access.env {
            command.env(name, value);
        }
        command.env("GIT_CONFIG_COUNT", access.config.len().to_string());
        for (i, (key, value)) in access.config.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{i}"), key).env(format!("GIT_CONFIG_VALUE_{i}"), value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        command
    }

    /// Runs to the end and returns standard output.
    ///
    /// # Errors
    /// The program is missing, takes longer than `limit`, or ends with a failure, which is classified.
    pub(crate) async fn run(
        &self,
        repo: &str,
        operation: &str,
        dir: Option<&Path>,
        access: &Access,
        limit: Duration,
        args: &[&str],
    ) -> Result<Vec<u8>, RepoError> {
        let _permit = self.permits.acquire().await;
        let mut command = self.command(dir, access);
        command.args(args);
        let child = command.spawn().map_err(|error| RepoError::Git {
            repo: repo.to_string(),
            operation: operation.to_string(),
            detail: format!("{} cannot be started: {error}", self.program.to_string_lossy()),
        })?;
        let group = ProcessGroup::of(&child);
        let waited = tokio::time::timeout(limit, child.wait_with_output()).await;
        let output = match waited {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => {
                return Err(RepoError::Git {
                    repo: repo.to_string(),
                    operation: operation.to_string(),
                    detail: error.to_string(),
                });
            }
            Err(_) => {
                return Err(RepoError::Timeout {
                    repo: repo.to_string(),
                    operation: operation.to_string(),
                    seconds: limit.as_secs(),
                });
            }
        };
        group.ended();
        if output.status.success() {
            return Ok(output.stdout);
        }
        let stderr = access.redact(&String::from_utf8_lossy(&output.stderr));
        Err(RepoError::classify(repo, operation, &stderr))
    }
}

/// A program by its path: what is looked for in `PATH` at each start cannot be started without copying our own memory's
/// tables. As it is where it is not found.
fn found(program: OsString) -> OsString {
    use std::os::unix::fs::PermissionsExt as _;
    if Path::new(&program).components().count() != 1 {
        return program;
    }
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::env::split_paths(&search_path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(&program));
    candidates.into_iter().find(is_program).map_or(program, PathBuf::into_os_string)
}

/// Kills a child's whole process group when it goes away before the child has ended: `git` leaves transport helpers and
/// `ssh` behind otherwise.
pub(crate) struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    pub(crate) fn of(child: &Child) -> ProcessGroup {
        ProcessGroup(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    /// The child is gone; its number may belong to somebody else from now on.
    pub(crate) fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(pid) = self.0.take() {
            // Fails only when the group is gone already.
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

impl Access {
    /// What the Secret and the trusted certificates and host keys mean for `git`.
    ///
    /// # Errors
    /// A way to authenticate that is not known, or the temporary directory cannot be written.
    pub fn new(
        url: &RepoUrl,
        secret: &RepositorySecret,
        repositories: &Repositories,
        temporary: &Path,
    ) -> Result<Access, RepoError> {
        let repo = display(&url.address);
        let invalid = |detail: String| RepoError::InvalidCredentials { repo: repo.clone(), detail };
        if let Some(field) = secret.unsupported() {
            return Err(invalid(format!(
                "Secret {} authenticates with {field}, which is not supported; use username and password, bearerToken or \
                 sshPrivateKey",
                secret.secret_name
            )));
        }
        static MADE: AtomicU64 = AtomicU64::new(1);
        let id = MADE.fetch_add(1, Ordering::Relaxed);
        let mut access = Access { depth: secret.depth, id, ..Access::default() };
        access.hide(url, secret);
        match url.transport {
            Transport::Https | Transport::Http => access.http(url, secret, repositories, temporary),
            Transport::Ssh => access.ssh(secret, repositories, temporary),
            Transport::File | Transport::Git => Ok(()),
        }
        .map_err(|error| invalid(format!("temporary files cannot be written: {error}")))?;
        Ok(access)
    }

    fn hide(&mut self, url: &RepoUrl, secret: &RepositorySecret) {
        let plain = secret.secrets().into_iter().map(str::to_string).chain([url.password.clone()]);
        for text in plain.filter(|text| !text.is_empty()) {
            // Git prints URLs with the password as it was escaped.
            let escaped: String = text
                .bytes()
                .map(|b| {
                    if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                        char::from(b).to_string()
                    } else {
                        format!("%{b:02X}")
                    }
                })
                .collect();
            self.hidden.push(escaped);
            self.hidden.push(text);
        }
    }

    fn http(
        &mut self,
        url: &RepoUrl,
        secret: &RepositorySecret,
        repositories: &Repositories,
        temporary: &Path,
    ) -> std::io::Result<()> {
        let root =
            url.address.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://{}/", url.host));
        let (username, password) = if secret.username.is_empty() && secret.password.is_empty() {
            (url.username.as_str(), url.password.as_str())
        } else {
            (secret.username.as_str(), secret.password.reveal())
        };
        // Only for this host: it must not follow a redirection to another.
        let header = format!("http.{root}.extraHeader");
        let mut authorization = String::new();
        if !secret.bearer_token.is_empty() {
            authorization = format!("Bearer {}", secret.bearer_token.reveal());
        } else if !username.is_empty() || !password.is_empty() {
            let basic = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
            authorization = format!("Basic {basic}");
            self.hidden.push(basic);
        }
        if !authorization.is_empty() {
            self.config.push((header, format!("Authorization: {authorization}")));
        }
        if secret.insecure {
            self.config.push(("http.sslVerify".into(), "false".into()));
        } else if let Some(pem) = repositories.certificates(&url.host) {
            let file = self.file(temporary, "ca.pem", pem)?;
            self.config.push(("http.sslCAInfo".into(), file));
        }
        if !secret.tls_client_cert.is_empty() {
            let cert = self.file(temporary, "client.pem", &secret.tls_client_cert)?;
            let key = self.file(temporary, "client.key", secret.tls_client_key.reveal())?;
            self.config.push(("http.sslCert".into(), cert));
            self.config.push(("http.sslKey".into(), key));
        }
        if !secret.proxy.is_empty() {
            self.config.push(("http.proxy".into(), secret.proxy.reveal().to_string()));
        }
        if !secret.no_proxy.is_empty() {
            for name in ["NO_PROXY", "no_proxy"] {
                self.env.push((name.into(), secret.no_proxy.clone().into()));
            }
        }
        // A server that sends nothing for this long is not going to.
        self.config.push(("http.lowSpeedLimit".into(), "1".into()));
        self.config.push(("http.lowSpeedTime".into(), "30".into()));
        // What it is told is `git`'s configuration in other words; what has no such words is left to `git`.
        let has_words = secret.tls_client_cert.is_empty() && secret.proxy.is_empty() && secret.no_proxy.is_empty();
        let trust = match repositories.certificates(&url.host) {
            _ if secret.insecure => Trust::Everybody,
            Some(pem) => Trust::Only(pem.to_string()),
            None => Trust::System,
        };
        self.web = has_words.then(|| Web::new(&url.address, authorization, trust)).flatten();
        Ok(())
    }

    fn ssh(&mut self, secret: &RepositorySecret, repositories: &Repositories, temporary: &Path) -> std::io::Result<()> {
        let mut options = String::from("ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=15 -o LogLevel=ERROR");
        if !secret.ssh_private_key.is_empty() {
            let key = format!("{}\n", secret.ssh_private_key.reveal().trim_end());
            let file = self.file(temporary, "id", &key)?;
            options.push_str(&format!(" -o IdentitiesOnly=yes -o IdentityAgent=none -i {}", quoted(&file)));
        }
        if secret.insecure {
            options.push_str(" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null");
        } else {
            let file = self.file(temporary, "known_hosts", repositories.known_hosts())?;
            options.push_str(&format!(" -o StrictHostKeyChecking=yes -o UserKnownHostsFile={}", quoted(&file)));
        }
        self.env.push(("GIT_SSH_COMMAND".into(), options.into()));
        self.env.push(("GIT_SSH_VARIANT".into(), "ssh".into()));
        Ok(())
    }

    /// Writes a file that only we can read and that goes away with this value.
    fn file(&mut self, temporary: &Path, name: &str, content: &str) -> std::io::Result<String> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let dir = match self.files.take() {
            Some(dir) => dir,
            // Readable by us alone from the beginning.
            None => tempfile::Builder::new().prefix("access-").tempdir_in(temporary)?,
        };
        let path = dir.path().join(name);
        self.files = Some(dir);
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(content.as_bytes())?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// A way to ask the remote without `git`.
    pub(crate) fn web(&self) -> Option<&Web> {
        self.web.as_ref()
    }

    /// Takes out of a text what must not be shown: known secrets, and the user part of any URL.
    pub fn redact(&self, text: &str) -> String {
        let mut text = text.to_string();
        for secret in &self.hidden {
            text = text.replace(secret.as_str(), "***");
            // A key that spans lines is quoted line by line, if at all.
            for line in secret.lines().filter(|line| line.len() >= 16) {
                text = text.replace(line, "***");
            }
        }
        redact_urls(&text)
    }
}

fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''"))
}

/// Replaces `user:password@` after `://`.
pub(crate) fn redact_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "/'\"".contains(c)).unwrap_or(after.len());
        let authority = &after[..end];
        match authority.rsplit_once('@') {
            Some((user, host)) if user.contains(':') || !before.ends_with("ssh://") => {
                out.push_str("***@");
                out.push_str(host);
            }
            _ => out.push_str(authority),
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn environment(url: &str, data: serde_json::Value) -> (Access, Vec<(String, String)>) {
        let mut data = data;
        data["url"] = json!(url);
        let mut repositories = Repositories::new();
        repositories.set_known_hosts(&json!({"data": {"ssh_known_hosts": "h ssh-ed25519 AAAA"}}));
        repositories.set_certificates(&json!({"data": {"h": "PEM"}}));
        repositories
            .add_secret(&json!({"metadata": {"name": "s", "labels": {crate::secret::SECRET_TYPE_LABEL: "repository"}},
                "stringData": data}))
            .unwrap();
        let parsed = RepoUrl::parse(url).unwrap();
        let home = tempfile::tempdir().unwrap();
        let access = Access::new(&parsed, &repositories.find(url, ""), &repositories, &std::env::temp_dir()).unwrap();
        let command = Git::new("git".into(), home.path()).unwrap().command(None, &access);
        let env = command
            .as_std()
            .get_envs()
            .filter_map(|(k, v)| Some((k.to_str()?.to_string(), v?.to_str()?.to_string())))
            .collect();
        assert_eq!(command.as_std().get_args().count(), 0);
        (access, env)
    }

    fn has(env: &[(String, String)], key: &str, value: &str) -> bool {
        let at = env.iter().find(|(k, v)| k.starts_with("GIT_CONFIG_KEY_") && v == key);
        let Some((name, _)) = at else { return false };
        let wanted = name.replace("KEY", "VALUE");
        env.iter().any(|(k, v)| *k == wanted && v.starts_with(value))
    }

    #[test]
    fn http_credentials_travel_by_environment_and_for_their_host_only() {
        let (access, env) = environment("https://h:8443/r.git", json!({"username": "u", "password": "hunter2"}));
        let basic = base64::engine::general_purpose::STANDARD.encode("u:hunter2");
        assert!(has(&env, "http.https://h:8443/.extraHeader", &format!("Authorization: Basic {basic}")));
        assert!(has(&env, "http.sslCAInfo", "/"));
        let shown = access.redact(&format!("fatal: {basic} hunter2 https://x:y@h/r ssh://git@h/r"));
        assert_eq!(shown, "fatal: *** *** https://***@h/r ssh://git@h/r");
        let (_, env) = environment("https://h/r", json!({"bearerToken": "t", "insecure": "true"}));
        assert!(has(&env, "http.https://h/.extraHeader", "Authorization: Bearer t"));
        assert!(has(&env, "http.sslVerify", "false"));
    }

    #[test]
    fn credentials_in_the_url_are_used_and_hidden() {
        let (access, env) = environment("https://bob:hunt%40er2@h/r", json!({}));
        let basic = base64::engine::general_purpose::STANDARD.encode("bob:hunt@er2");
        assert!(has(&env, "http.https://h/.extraHeader", &format!("Authorization: Basic {basic}")));
        assert_eq!(access.redact("hunt%40er2 hunt@er2"), "*** ***");
    }

    #[test]
    fn ssh_knows_its_hosts_and_its_key() {
        let (access, env) = environment("git@h:r", json!({"sshPrivateKey": "-----KEY-----\nabcdefghijklmnopqrstuv\n"}));
        let command = &env.iter().find(|(k, _)| k == "GIT_SSH_COMMAND").unwrap().1;
        assert!(command.contains("StrictHostKeyChecking=yes") && command.contains("IdentitiesOnly=yes"), "{command}");
        let key = access.files.as_ref().unwrap().path().join("id");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!access.redact("x abcdefghijklmnopqrstuv").contains("abcdefg"));
        drop(access);
        assert!(!key.exists());
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let url = RepoUrl::parse("https://h/r").unwrap();
        let secret = RepositorySecret { secret_name: "s".into(), github_app_id: "1".into(), ..Default::default() };
        let error = Access::new(&url, &secret, &Repositories::new(), &std::env::temp_dir()).unwrap_err().to_string();
        assert!(error.contains("githubAppPrivateKey") && error.contains("https://h/r"), "{error}");
    }

    #[tokio::test]
    async fn what_hangs_is_killed_with_its_children() {
        let home = tempfile::tempdir().unwrap();
        let script = home.path().join("hang");
        let marker = home.path().join("child");
        std::fs::write(&script, format!("#!/bin/sh\nsleep 300 & echo $! > {}\nwait\n", marker.display())).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let git = Git::new(script.into(), home.path()).unwrap();
        let error = git.run("r", "ls-remote", None, &Access::default(), Duration::from_secs(3), &[]).await.unwrap_err();
        assert!(matches!(error, RepoError::Timeout { .. }), "{error:?}");
        let child: i32 = std::fs::read_to_string(&marker).unwrap().trim().parse().unwrap();
        let gone = || std::fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z "));
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !gone() {
            assert!(std::time::Instant::now() < deadline, "the child survived");
            tokio::task::yield_now().await;
        }
    }
}
