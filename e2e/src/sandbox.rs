//! The process, mount and control-group side of a cluster.
//!
//! All of a cluster's processes, containers included, are in one PID namespace whose first process is the *anchor*:
//! this program, doing nothing but reap. When the anchor dies the kernel ends every other process of the namespace,
//! and with the last of them go the mount namespace and all mounts that kubelet and containerd made. So cleaning up
//! does not depend on knowing what was started, and works after any crash.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::netns::NetworkNamespace;
use crate::process::{ProcessId, describe, poll_until, tail};
use crate::state::StateDir;

/// What a cluster's processes find on their PATH after the harness' own programs.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A running anchor and the means to start programs beside it.
#[derive(Debug, Clone)]
pub struct Sandbox {
    anchor: ProcessId,
    state: StateDir,
}

impl Sandbox {
    /// Starts the anchor of a cluster whose network namespace exists.
    pub fn start(state: &StateDir, namespace: &NetworkNamespace, program: &Path) -> Result<Self> {
        for directory in ["log", "var-log", "etc"] {
            fs::create_dir_all(state.join(directory))?;
        }
        write_accounts(state)?;
        fs::remove_file(state.join("anchor.json")).ok();
        let log = fs::File::create(state.log("anchor"))?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", namespace.path().display()));
        command.args(["unshare", "--pid", "--fork", "--kill-child", "--mount", "--propagation", "private", "--"]);
        command.arg(program).arg("anchor").arg(&state.path);
        // Its own process group: an interrupt typed at the terminal is for the command in front, not for the cluster.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).env_clear().env("PATH", SYSTEM_PATH);
        let mut child = command.spawn().with_context(|| format!("run `{}`", describe(&command)))?;
        let ready = poll_until(Duration::from_secs(10), || {
            Self::find(state).is_some() || child.try_wait().is_ok_and(|ended| ended.is_some())
        });
        match Self::find(state) {
            Some(sandbox) => Ok(sandbox),
            None if ready => bail!("the cluster's first process did not start: {}", tail(&state.log("anchor"), 5)),
            None => bail!("the cluster's first process was not ready after 10 s"),
        }
    }

    /// The sandbox of a cluster that runs.
    pub fn find(state: &StateDir) -> Option<Self> {
        let text = fs::read_to_string(state.join("anchor.json")).ok()?;
        let anchor: ProcessId = serde_json::from_str(&text).ok()?;
        anchor.alive().then(|| Self { anchor, state: state.clone() })
    }

    /// A command inside: the cluster's processes, mounts and network, and none of the caller's environment (a proxy
    /// meant for the Internet would be asked for the API server).
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.anchor.pid.to_string(), "--pid", "--mount", "--net", "--"]);
        command.arg(program.as_ref());
        command.env_clear();
        command.env("PATH", format!("{}:{SYSTEM_PATH}", self.state.join("bin").display()));
        command.env("HOME", self.state.path.join("home")).env("KUBECONFIG", self.state.kubeconfig());
        command
    }

    /// Starts a component that runs as long as the cluster does, its output in the component's log.
    pub fn start_component(&self, name: &str, program: impl AsRef<Path>, args: &[String]) -> Result<Component> {
        let path = self.state.log(name);
        let log = fs::File::options().create(true).append(true).open(&path)?;
        let mut command = self.command(program);
        command.args(args);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {name}: `{}`", describe(&command)))?;
        Ok(Component { name: name.to_owned(), child, log: path })
    }

    /// Ends every process of the cluster at once.
    pub fn kill(&self) -> Result<()> {
        // A dead first process lingers until the kernel has ended all others.
        if !self.anchor.kill_and_wait(Duration::from_secs(30)) {
            bail!("process {} does not end after SIGKILL", self.anchor.pid);
        }
        Ok(())
    }

    pub fn anchor(&self) -> ProcessId {
        self.anchor
    }
}

/// A started program.
pub struct Component {
    pub name: String,
    child: Child,
    log: PathBuf,
}

impl Component {
    /// Waits until `ready`; fails at once when the program ends first, and quotes its last words.
    pub fn wait_ready(&mut self, timeout: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let start = Instant::now();
        loop {
            if ready() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} while starting:\n{}", self.name, tail(&self.log, 12));
            }
            if start.elapsed() > timeout {
                let waited = timeout.as_secs();
                bail!("{} was not ready after {waited} s; the end of its log:\n{}", self.name, tail(&self.log, 12));
            }
            std::thread::sleep(Duration::from_millis(25));
        }
    }
}

/// Users as sshd inside the cluster sees them: `git`, so that addresses look as they do elsewhere. It has the files'
/// owner's number, as the repositories are written from outside, too.
fn write_accounts(state: &StateDir) -> Result<()> {
    let home = state.join("home");
    fs::create_dir_all(&home)?;
    let passwd = format!(
        "root:x:0:0:root:/root:/bin/sh\ngit:x:0:0:git:{home}:/bin/sh\n\
         sshd:x:101:65534::/run/sshd:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        home = home.display()
    );
    state.write("etc/passwd", passwd.as_bytes())?;
    state.write("etc/shadow", b"root:*:19700::::::\ngit:*:19700::::::\nsshd:*:19700::::::\nnobody:*:19700::::::\n")
}

/// The anchor's whole life: arranges the mounts, says that it is there, and reaps what nobody else waits for.
pub fn anchor(state: &Path) -> Result<()> {
    // The old /proc still shows the process as the host sees it.
    let pid: i32 = fs::read_link("/proc/self")?.to_string_lossy().parse().context("the process' own PID")?;
    let identity = ProcessId::of(pid).context("the process' own start")?;
    let none = None::<&str>;
    // Nothing that is mounted from now on shows outside, but within, kubelet and containers see each other's mounts.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).context("share mounts within the cluster")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).context("mount /proc")?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755")).context("mount /run")?;
    hide_var_lib(state);
    for directory in ["/run/netns", "/run/sshd", "/run/lock", "/run/tidegate"] {
        fs::create_dir_all(directory)?;
    }
    let bind = |from: PathBuf, to: &str| {
        mount(Some(&from), to, none, MsFlags::MS_BIND, none).with_context(|| format!("mount {to}"))
    };
    bind(state.join("var-log"), "/var/log")?;
    bind(state.join("etc/passwd"), "/etc/passwd")?;
    bind(state.join("etc/shadow"), "/etc/shadow")?;

    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    fs::write(state.join("anchor.partial"), serde_json::to_string(&identity)?)?;
    fs::rename(state.join("anchor.partial"), state.join("anchor.json"))?;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => {
                children.wait()?;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for processes"),
        }
    }
}

/// Lays a private upper layer over /var/lib: kubelet makes `/var/lib/kubelet` whatever its root directory is. Where the
/// kernel or the file system cannot do that, an empty directory appears on the host.
fn hide_var_lib(state: &Path) {
    let (upper, work) = (state.join("var-lib"), state.join("var-lib-work"));
    let made = fs::create_dir_all(&upper).and_then(|()| fs::create_dir_all(&work));
    let options = format!("lowerdir=/var/lib,upperdir={},workdir={}", upper.display(), work.display());
    let mounted = mount(Some("overlay"), "/var/lib", Some("overlay"), MsFlags::empty(), Some(options.as_str()));
    if let (Err(error), _) | (_, Err(error)) =
        (made.map_err(|error| error.to_string()), mounted.map_err(|error| error.to_string()))
    {
        crate::process::say(&format!("/var/lib is the host's: {error}"));
    }
}

/// The control groups of one cluster: one directory below each mounted hierarchy, under which kubelet keeps its pods.
/// Kubelet removes pods' groups that it does not know, so two of them must not share a root.
pub struct ControlGroups {
    name: String,
}

impl ControlGroups {
    pub fn of_cluster(cluster: &str) -> Self {
        Self { name: format!("tidegate-{cluster}") }
    }

    /// What kubelet calls the root.
    pub fn root(&self) -> String {
        format!("/{}", self.name)
    }

    fn directories(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut hierarchies: Vec<PathBuf> = mounts
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(' ');
                let (at, kind) = (fields.nth(1)?, fields.next()?);
                (at.starts_with("/sys/fs/cgroup") && (kind == "cgroup" || kind == "cgroup2")).then(|| PathBuf::from(at))
            })
            .collect();
        hierarchies.sort();
        hierarchies.dedup();
        hierarchies.into_iter().map(|at| at.join(&self.name)).collect()
    }

    pub fn create(&self) -> Result<()> {
        for directory in self.directories() {
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("create control group {}", directory.display()));
                }
                _ => {}
            }
            // cgroup v1: a new cpuset is empty and takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let parent = directory.parent().unwrap_or(&directory).join(file);
                if directory.join("cpuset.memory_migrate").exists()
                    && let Ok(value) = fs::read_to_string(parent)
                {
                    fs::write(directory.join(file), value.trim())?;
                }
            }
            // cgroup v2: controllers are handed down level by level.
            if let Ok(controllers) = fs::read_to_string(directory.join("cgroup.controllers")) {
                for controller in controllers.split_whitespace() {
                    for at in [directory.parent().unwrap_or(&directory), &directory] {
                        fs::write(at.join("cgroup.subtree_control"), format!("+{controller}")).ok();
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes the groups; the processes in them must have ended.
    pub fn remove(&self) -> Result<()> {
        let mut kept = Vec::new();
        for directory in self.directories().into_iter().filter(|directory| directory.exists()) {
            // The last processes leave their groups a moment after they end.
            if !poll_until(Duration::from_secs(5), || remove_tree(&directory)) {
                kept.push(directory.display().to_string());
            }
        }
        if !kept.is_empty() {
            bail!("control groups still in use: {}", kept.join(", "));
        }
        Ok(())
    }

    pub fn exist(&self) -> bool {
        self.directories().iter().any(|directory| directory.exists())
    }
}

/// Control groups go by `rmdir`, the innermost first; their files cannot be removed and need not be.
fn remove_tree(directory: &Path) -> bool {
    if let Ok(entries) = fs::read_dir(directory) {
        for entry in entries.filter_map(|entry| entry.ok()) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path());
            }
        }
    }
    fs::remove_dir(directory).is_ok() || !directory.exists()
}
