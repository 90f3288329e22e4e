//! The render worker's processes: started when first needed, one by default, ended when idle, when grown or when stuck.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Semaphore;

use tidegate_crds::application::Source;

use super::track::{Files, cluster_mark};
use super::{Output, RenderError, RenderRequest, RenderSettings};
use crate::repo::command::ProcessGroup;
use crate::repo::objects::lock;
use crate::repo::{Kind, Mode};
use crate::secret::Repositories;
use crate::source::text;

/// An unused worker ends after this.
const IDLE: Duration = Duration::from_secs(60);
/// A worker is replaced after so many requests.
const MAX_REQUESTS: u32 = 2000;
/// A worker whose memory has grown beyond this is replaced, in KiB.
const MAX_RESIDENT: u64 = 512 << 10;
/// How long it is not looked again which tools there are: they come with an installation.
const IDENTITY_HOLDS: Duration = Duration::from_secs(5);
/// No frame is larger.
const MAX_FRAME: usize = 1 << 30;
/// Variables of our environment that the worker and the tools see.
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

/// The render worker and the command-line tools of one installation.
#[derive(Debug)]
pub struct Tools {
    shared: Arc<Shared>,
    worker: Option<PathBuf>,
    search_path: OsString,
    timeout: Duration,
    permits: Semaphore,
    started: AtomicU64,
    identity: Mutex<Option<(Instant, String)>>,
}

#[derive(Debug, Default)]
struct Shared {
    idle: Mutex<Vec<Worker>>,
}

#[derive(Debug)]
struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    requests: u32,
    used: Instant,
}

impl Tools {
    /// Finds the worker. Starts nothing.
    pub fn new(settings: &RenderSettings) -> Tools {
        let search_path = settings.search_path.clone().or_else(|| std::env::var_os("PATH")).unwrap_or_default();
        let named = settings.worker.clone().or_else(|| std::env::var_os("TIDEGATE_RENDER_WORKER").map(PathBuf::from));
        let beside = || {
            let executable = std::env::current_exe().ok()?;
            let candidate = executable.parent()?.join("tidegate-render-worker");
            is_executable(&candidate).then_some(candidate)
        };
        let worker = named.or_else(beside).or_else(|| find_program(&search_path, "tidegate-render-worker"));
        Tools {
            shared: Arc::default(),
            worker,
            search_path,
            timeout: settings.timeout,
            permits: Semaphore::new(settings.workers.max(1)),
            started: AtomicU64::new(0),
            identity: Mutex::default(),
        }
    }

    /// Stands for the tools' versions: differs, at most some seconds later, whenever another worker or tool is used.
    pub fn identity(&self) -> String {
        let mut known = lock(&self.identity);
        if let Some((at, identity)) = &*known
            && at.elapsed() < IDENTITY_HOLDS
        {
            return identity.clone();
        }
        let identity = self.look();
        *known = Some((Instant::now(), identity.clone()));
        identity
    }

    fn look(&self) -> String {
        let mark = |path: &Path| {
            let metadata = std::fs::metadata(path).ok();
            let modified = metadata.as_ref().and_then(|m| m.modified().ok());
            format!("{} {:?} {:?}", path.display(), metadata.map(|m| m.len()), modified)
        };
        match &self.worker {
            Some(worker) => mark(worker),
            None => ["helm", "kustomize"]
                .iter()
                .filter_map(|name| find_program(&self.search_path, name))
                .map(|path| mark(&path))
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    /// True when the worker is there; else the command-line tools have to do.
    pub fn has_worker(&self) -> bool {
        self.worker.is_some()
    }

    /// How many worker processes were started so far.
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        find_program(&self.search_path, name)
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Lets a worker answer one request, handing it the files that it asks for.
    pub(super) async fn ask(
        &self,
        tool: &'static str,
        request: &Value,
        render: &RenderRequest<'_>,
        path: &str,
    ) -> Result<Output, RenderError> {
        self.request(tool, request, render.files, path).await
    }

    async fn request(
        &self,
        tool: &'static str,
        request: &Value,
        files: &Files,
        path: &str,
    ) -> Result<Output, RenderError> {
        let Some(program) = &self.worker else {
            return Err(RenderError::ToolUnavailable(format!(
                "{tool} is needed for {path}, and neither tidegate-render-worker (TIDEGATE_RENDER_WORKER, beside the \
                 executable, PATH) nor {tool} (PATH) was found"
            )));
        };
        let broken = |error: std::io::Error| {
            RenderError::ToolUnavailable(format!("render worker {}: {error}", program.display()))
        };
        let _permit = self.permits.acquire().await.map_err(|e| broken(std::io::Error::other(e)))?;
        let waiting = lock(&self.shared.idle).pop();
        // One that waited may have died since.
        let waiting = waiting.and_then(|mut worker| matches!(worker.child.try_wait(), Ok(None)).then_some(worker));
        let mut worker = match waiting {
            Some(worker) => worker,
            None => self.start(program).map_err(broken)?,
        };
        let asked = tokio::time::timeout(self.timeout, worker.converse(request, files));
        let conversation = match asked.await {
            Ok(conversation) => conversation,
            Err(_) => return Err(RenderError::Timeout { tool, seconds: self.timeout.as_secs() }),
        };
        let ended = match conversation {
            Ok(ended) => ended,
            Err(Broken::Repo(error)) => return Err(error.into()),
            Err(Broken::Io(error)) => {
                let how = match worker.child.try_wait() {
                    Ok(Some(status)) => format!("it ended with {status}"),
                    _ => error.to_string(),
                };
                return Err(broken(std::io::Error::other(format!("{how} while rendering {path}"))));
            }
        };
        worker.requests += 1;
        if worker.requests < MAX_REQUESTS && worker.resident() < MAX_RESIDENT {
            self.put_back(worker);
        }
        match ended {
            Ended::Done(output) => Ok(output),
            Ended::Failed(detail) => Err(RenderError::Tool {
                repo: files.repo().to_string(),
                revision: files.commit().to_string(),
                path: path.to_string(),
                tool,
                detail,
            }),
        }
    }

    /// The version of a chart that a range means.
    ///
    /// # Errors
    /// The chart repository cannot be asked or has no such version.
    pub(crate) async fn resolve_chart(
        &self,
        source: &Source,
        repositories: &Repositories,
        project: &str,
    ) -> Result<String, RenderError> {
        let (repository, name) = super::helm::repository_and_name(source, repositories, project);
        let wanted = text(&source.target_revision);
        let request = json!({"resolve": {
            "chart": {"repository": repository, "name": name, "version": wanted},
            "repositories": super::helm::repositories(repositories, project),
        }});
        let nothing = Files::of_chart(repository, wanted.to_string(), Default::default(), cluster_mark("", &[]));
        let output = self.request("helm", &request, &nothing, &name).await?;
        match output.manifests.first().and_then(Value::as_str) {
            Some(version) => Ok(version.to_string()),
            None => Err(RenderError::ToolUnavailable("the render worker named no version".into())),
        }
    }

    fn start(&self, program: &Path) -> std::io::Result<Worker> {
        self.started.fetch_add(1, Ordering::Relaxed);
        let mut child = clean_command(program)
            .env("GOMEMLIMIT", "400MiB")
            .env("GOGC", "50")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let missing = || std::io::Error::other("no pipe");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = BufReader::with_capacity(64 << 10, child.stdout.take().ok_or_else(missing)?);
        Ok(Worker { child, stdin, stdout, requests: 0, used: Instant::now() })
    }

    fn put_back(&self, mut worker: Worker) {
        worker.used = Instant::now();
        let mut idle = lock(&self.shared.idle);
        let first = idle.is_empty();
        idle.push(worker);
        if first {
            tokio::spawn(reap(Arc::downgrade(&self.shared)));
        }
    }
}

/// A command with our own environment's network settings and nothing else of it.
pub(super) fn clean_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let home = std::env::temp_dir();
    command.env("HOME", &home).env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0").env("GIT_CONFIG_NOSYSTEM", "1");
    command.current_dir(&home).process_group(0).kill_on_drop(true);
    command
}

pub(super) fn find_program(search_path: &OsString, name: &str) -> Option<PathBuf> {
    std::env::split_paths(search_path).map(|dir| dir.join(name)).find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

async fn reap(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(IDLE).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut idle = lock(&shared.idle);
        idle.retain(|worker| worker.used.elapsed() < IDLE);
        if idle.is_empty() {
            return;
        }
    }
}

enum Ended {
    Done(Output),
    Failed(String),
}

enum Broken {
    Io(std::io::Error),
    Repo(crate::repo::RepoError),
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Broken {
        Broken::Io(error)
    }
}

impl Worker {
    async fn converse(&mut self, request: &Value, files: &Files) -> Result<Ended, Broken> {
        self.send(request, &[]).await?;
        loop {
            let (header, data) = self.receive().await?;
            let op = header.get("op").and_then(Value::as_str).unwrap_or_default();
            let path = header.get("path").and_then(Value::as_str).unwrap_or_default();
            match op {
                "done" => {
                    let manifests: Vec<Value> = serde_json::from_slice(&data).map_err(std::io::Error::other)?;
                    let remote = header.get("remote").and_then(Value::as_bool).unwrap_or_default();
                    let warnings = header.get("warnings").and_then(Value::as_array).cloned().unwrap_or_default();
                    let warnings = warnings.iter().filter_map(Value::as_str).map(str::to_string).collect();
                    return Ok(Ended::Done(Output { manifests, remote, warnings }));
                }
                "failed" => {
                    let detail = header.get("error").and_then(Value::as_str).unwrap_or("no reason was given");
                    return Ok(Ended::Failed(detail.trim().to_string()));
                }
                _ => {
                    let (answer, data) = match answer(op, path, files).await {
                        Ok(answer) => answer,
                        // The tool decides what a path that may not be followed means.
                        Err(error @ crate::repo::RepoError::Path { .. }) => {
                            (json!({"error": error.to_string()}), Vec::new())
                        }
                        Err(error) => return Err(Broken::Repo(error)),
                    };
                    self.send(&answer, &data).await?;
                }
            }
        }
    }

    async fn send(&mut self, header: &Value, data: &[u8]) -> std::io::Result<()> {
        let header = header.to_string();
        let length = |n: usize| u32::try_from(n).map(u32::to_be_bytes).map_err(std::io::Error::other);
        let mut frame = Vec::with_capacity(8 + header.len());
        frame.extend_from_slice(&length(header.len())?);
        frame.extend_from_slice(&length(data.len())?);
        frame.extend_from_slice(header.as_bytes());
        self.stdin.write_all(&frame).await?;
        self.stdin.write_all(data).await?;
        self.stdin.flush().await
    }

    async fn receive(&mut self) -> std::io::Result<(Value, Vec<u8>)> {
        let header_length = self.stdout.read_u32().await? as usize;
        let data_length = self.stdout.read_u32().await? as usize;
        if header_length > MAX_FRAME || data_length > MAX_FRAME {
            return Err(std::io::Error::other("a frame is larger than 1 GiB"));
        }
        let mut header = vec![0; header_length];
        self.stdout.read_exact(&mut header).await?;
        let mut data = vec![0; data_length];
        self.stdout.read_exact(&mut data).await?;
        Ok((serde_json::from_slice(&header).map_err(std::io::Error::other)?, data))
    }

    /// Memory in KiB; 0 where it cannot be told.
    fn resident(&self) -> u64 {
        let Some(pid) = self.child.id() else { return 0 };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .unwrap_or_default()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(ProcessGroup::of(&self.child));
    }
}

async fn answer(op: &str, path: &str, files: &Files) -> Result<(Value, Vec<u8>), crate::repo::RepoError> {
    let absent = || (json!({"kind": "absent"}), Vec::new());
    Ok(match op {
        "stat" => match files.lookup(path).await? {
            Some(found) => (json!({"kind": kind_name(found.kind), "path": found.path}), Vec::new()),
            None => absent(),
        },
        "read" => match files.read(path).await? {
            Some(content) => (json!({"kind": "file"}), content),
            None if files.kind(path).await? == Some(Kind::Directory) => (json!({"kind": "directory"}), Vec::new()),
            None => absent(),
        },
        "list" => match files.list(path).await? {
            Some(entries) => {
                let entries: Vec<Value> = entries
                    .iter()
                    .map(|entry| json!({"name": entry.name, "kind": if entry.mode == Mode::Directory { "directory" } else { "file" }}))
                    .collect();
                (json!({"kind": "directory", "entries": entries}), Vec::new())
            }
            None => absent(),
        },
        "tree" => match files.tree(path).await? {
            Some(all) => {
                let entries: Vec<Value> = all
                    .iter()
                    .map(|file| json!({"name": file.name, "kind": "file", "size": file.content.len()}))
                    .collect();
                let data = all.into_iter().flat_map(|file| file.content).collect();
                (json!({"kind": "directory", "entries": entries}), data)
            }
            None => absent(),
        },
        other => (json!({"error": format!("question {other:?} is not understood")}), Vec::new()),
    })
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Directory | Kind::Submodule => "directory",
        Kind::File | Kind::Executable => "file",
    }
}
