//! Git repositories over http, with and without a password, and over ssh with a key.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cluster::PROXIES;
use crate::netns::{NODE_IP, NetworkNamespace};
use crate::process::output;
use crate::sandbox::Sandbox;
use crate::state::StateDir;
use crate::{install, session};

pub const HTTP_PORT: u16 = 3000;
/// The user of private repositories over http.
pub const USER: &str = "git";

/// Starts both servers.
pub fn start(state: &StateDir, sandbox: &Sandbox, namespace: &NetworkNamespace) -> Result<()> {
    let server = GitServer::of(state)?;
    fs::create_dir_all(&server.root)?;
    fs::create_dir_all(state.join("ssh"))?;
    let mut secret = [0_u8; 12];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| anyhow::anyhow!("no random numbers"))?;
    state.write("git-password", install::hex(&secret).as_bytes())?;
    for key in ["host", "client"] {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f"]).arg(state.join("ssh").join(key));
        output(&mut command)?;
    }
    fs::copy(state.join("ssh/client.pub"), state.join("ssh/authorized_keys"))?;
    let program = session::harness_program()?;
    let ssh = |file: &str| state.join("ssh").join(file).display().to_string();
    let config = [
        format!("ListenAddress {NODE_IP}"),
        format!("HostKey {}", ssh("host")),
        format!("AuthorizedKeysFile {}", ssh("authorized_keys")),
        format!("ForceCommand {} git-shell {}", program.display(), server.root.display()),
        "AcceptEnv GIT_PROTOCOL".to_owned(),
        // The account `git` has the number of root, see `sandbox`; it exists only inside the cluster.
        "PermitRootLogin prohibit-password".to_owned(),
        "PasswordAuthentication no".to_owned(),
        "KbdInteractiveAuthentication no".to_owned(),
        "StrictModes no".to_owned(),
        "UsePAM no".to_owned(),
        "PidFile none".to_owned(),
        "LogLevel INFO".to_owned(),
    ];
    state.write("ssh/sshd_config", (config.join("\n") + "\n").as_bytes())?;
    let sshd = crate::process::which("sshd").context("sshd")?;
    let mut ssh_server =
        sandbox.start_component("sshd", sshd, &["-D".into(), "-e".into(), "-f".into(), ssh("sshd_config")])?;
    let args = ["git-server".to_owned(), state.path.display().to_string()];
    let mut http_server = sandbox.start_component("git-http", program, &args)?;
    for (component, port) in [(&mut http_server, HTTP_PORT), (&mut ssh_server, 22)] {
        component.wait_ready(Duration::from_secs(15), || {
            let connect = async || Ok(tokio::net::TcpStream::connect((NODE_IP, port)).await.map(drop)?);
            session::in_cluster(namespace, connect).is_ok()
        })?;
    }
    Ok(())
}

/// The http server's process.
pub async fn serve_http(state: &Path) -> Result<()> {
    let password = fs::read_to_string(state.join("git-password")).context("git-password")?;
    let settings = crate::git_http::Settings { root: state.join("git"), user: USER.to_owned(), password };
    crate::git_http::serve(([0, 0, 0, 0], HTTP_PORT).into(), settings).await
}

/// What ssh runs instead of the wanted command: Git's side of a fetch or push, on repositories below `root` only.
pub fn shell(root: &Path) -> Result<()> {
    let wanted = std::env::var("SSH_ORIGINAL_COMMAND").context("this account is for Git only")?;
    let (program, path) = parse_ssh_command(&wanted)?;
    let error = Command::new("git").arg(program).arg(root.join(path)).exec();
    Err(error).context("run git")
}

fn parse_ssh_command(wanted: &str) -> Result<(&'static str, String)> {
    let (program, path) = wanted.split_once(' ').with_context(|| format!("{wanted:?} is not a command of Git's"))?;
    let program = match program {
        "git-upload-pack" => "upload-pack",
        "git-receive-pack" => "receive-pack",
        _ => bail!("{program:?}: this account is for Git only"),
    };
    let path = path.trim_matches('\'').trim_start_matches('/');
    if path.is_empty() || path.split('/').any(|part| part == "..") {
        bail!("{path:?} is not a repository");
    }
    Ok((program, path.to_owned()))
}

/// The Git server of a cluster.
#[derive(Debug, Clone)]
pub struct GitServer {
    root: PathBuf,
    state: StateDir,
}

impl GitServer {
    pub(crate) fn of(state: &StateDir) -> Result<Self> {
        Ok(Self { root: state.join("git"), state: state.clone() })
    }

    /// Makes an empty repository with the branch `main`. One whose name begins with `private/` needs the password
    /// over http.
    pub fn create(&self, name: &str) -> Result<Repository> {
        let bare = self.root.join(format!("{name}.git"));
        if bare.exists() {
            bail!("repository {name:?} exists already");
        }
        git(&self.root, &["init", "--quiet", "--bare", "--initial-branch=main", &bare.to_string_lossy()])?;
        for (key, value) in [("http.receivepack", "true"), ("uploadpack.allowAnySHA1InWant", "true")] {
            git(&bare, &["config", key, value])?;
        }
        let work = self.state.join("git-work").join(name);
        fs::create_dir_all(&work)?;
        git(&work, &["clone", "--quiet", &bare.to_string_lossy(), "."])?;
        for (key, value) in [("user.name", "Tester"), ("user.email", "tester@example.com"), ("commit.gpgsign", "false")]
        {
            git(&work, &["config", key, value])?;
        }
        git(&work, &["checkout", "--quiet", "-B", "main"])?;
        Ok(Repository { name: name.to_owned(), bare, work, ssh_key: self.ssh_key() })
    }

    /// A repository that was made before.
    pub fn open(&self, name: &str) -> Result<Repository> {
        let bare = self.root.join(format!("{name}.git"));
        if !bare.exists() {
            bail!("no repository {name:?}");
        }
        let work = self.state.join("git-work").join(name);
        Ok(Repository { name: name.to_owned(), bare, work, ssh_key: self.ssh_key() })
    }

    /// The password of [`USER`] for private repositories over http.
    pub fn password(&self) -> Result<String> {
        fs::read_to_string(self.state.join("git-password")).context("git-password")
    }

    /// File with the private key that the ssh server accepts.
    pub fn ssh_key(&self) -> PathBuf {
        self.state.join("ssh/client")
    }

    /// The ssh server's line for a `known_hosts` file.
    pub fn known_hosts(&self) -> Result<String> {
        let key = fs::read_to_string(self.state.join("ssh/host.pub")).context("the ssh server's key")?;
        let mut words = key.split_whitespace();
        let (kind, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Ok(format!("{NODE_IP} {kind} {key}\n"))
    }

    /// Makes every request over http fail with 503 while `available` is false.
    pub fn set_available(&self, available: bool) -> Result<()> {
        let marker = self.root.join("unavailable");
        if available {
            fs::remove_file(&marker).ok();
        } else {
            fs::write(&marker, "")?;
        }
        Ok(())
    }
}

/// One repository, with a work tree for making commits.
#[derive(Debug, Clone)]
pub struct Repository {
    pub name: String,
    bare: PathBuf,
    work: PathBuf,
    ssh_key: PathBuf,
}

impl Repository {
    pub fn http_url(&self) -> String {
        format!("http://{NODE_IP}:{HTTP_PORT}/{}.git", self.name)
    }

    pub fn ssh_url(&self) -> String {
        format!("ssh://git@{NODE_IP}/{}.git", self.name)
    }

    pub fn file_url(&self) -> String {
        format!("file://{}", self.bare.display())
    }

    /// Where the files lie that [`Repository::commit`] commits; for changes that it has no words for.
    pub fn work_tree(&self) -> &Path {
        &self.work
    }

    /// Writes files (`None` removes one), commits all that changed and pushes. Returns the commit's full name.
    pub fn commit(&self, message: &str, files: &[(&str, Option<&str>)]) -> Result<String> {
        for (path, content) in files {
            let path = self.work.join(path);
            match content {
                Some(content) => {
                    fs::create_dir_all(path.parent().unwrap_or(&self.work))?;
                    fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
                }
                None => fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?,
            }
        }
        git(&self.work, &["add", "--all"])?;
        git(&self.work, &["commit", "--quiet", "--allow-empty", "-m", message])?;
        git(&self.work, &["push", "--quiet", "origin", "HEAD"])?;
        self.head()
    }

    /// The full name of the last commit.
    pub fn head(&self) -> Result<String> {
        Ok(git(&self.work, &["rev-parse", "HEAD"])?.trim().to_owned())
    }

    /// Removes the repository from the server.
    pub fn remove(&self) -> Result<()> {
        fs::remove_dir_all(&self.bare).with_context(|| format!("remove {}", self.bare.display()))
    }

    /// `git` with an ssh that uses the server's key, for tests of the server itself.
    pub fn ssh_command(&self) -> String {
        let key = self.ssh_key.display();
        format!(
            "ssh -i {key} -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -F none"
        )
    }
}

/// Runs git without the user's settings.
pub fn git(directory: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(args);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null").env("GIT_TERMINAL_PROMPT", "0");
    for variable in PROXIES {
        command.env_remove(variable);
    }
    output(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_is_for_git_only() {
        assert_eq!(parse_ssh_command("git-upload-pack '/a/b.git'").unwrap(), ("upload-pack", "a/b.git".to_owned()));
        assert_eq!(parse_ssh_command("git-receive-pack 'b.git'").unwrap(), ("receive-pack", "b.git".to_owned()));
        for wrong in ["sh", "sh -c ls", "git-upload-pack '../../etc'", "git-upload-pack ''"] {
            assert!(parse_ssh_command(wrong).is_err(), "{wrong}");
        }
    }
}
