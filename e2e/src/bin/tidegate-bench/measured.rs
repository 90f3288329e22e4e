//! The controller that is measured, with the programs that it runs.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tidegate_e2e::{Cluster, cluster};

use crate::Common;
use crate::phase::Phase;

/// Longest time for one phase.
const PATIENCE: Duration = Duration::from_secs(1800);
const METRICS_PORT: u16 = 18090;
const HEALTH_PORT: u16 = 18080;
/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(50);
/// The kernel's clock ticks, in which it tells CPU time.
const TICKS: f64 = 100.0;

/// A controller and its children.
pub struct Measured {
    child: Child,
    peak: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    sampler: Option<JoinHandle<()>>,
}

/// How far the counts of a controller were at a moment.
pub struct Mark {
    at: Instant,
    cpu: f64,
    own: f64,
    requests: BTreeMap<String, u64>,
}

impl Measured {
    pub fn start(common: &Common, cluster: &Cluster, args: &[String]) -> Result<Self> {
        // Not through a wrapper: the process is measured by its id.
        let mut command = Command::new(common.tidegate.canonicalize()?);
        command.args(["controller", "--leader-elect=false", "--loglevel", "warn"]);
        command.args(["--healthzPort", &HEALTH_PORT.to_string(), "--metricsPort", &METRICS_PORT.to_string()]);
        command.args(args).stdin(Stdio::null());
        if let Some(kubeconfig) = cluster.kubeconfig() {
            command.env("KUBECONFIG", kubeconfig);
        }
        for variable in cluster::PROXIES {
            command.env_remove(variable);
        }
        let child = command.spawn().context("start the controller")?;
        let (peak, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let sampler = {
            let (peak, ended, pid) = (Arc::clone(&peak), Arc::clone(&ended), child.id());
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    peak.fetch_max(resident(pid), Ordering::Relaxed);
                    std::thread::sleep(SAMPLE);
                }
            })
        };
        Ok(Self { child, peak, ended, sampler: Some(sampler) })
    }

    pub async fn ready(&self) -> Result<()> {
        wait(|| async { Ok(get(HEALTH_PORT, "readyz").await.is_ok_and(|answer| answer.status().is_success())) }).await
    }

    /// Seconds of CPU so far: the controller's, its children's, and those of children that have ended.
    pub fn cpu(&self) -> f64 {
        tree(self.child.id()).iter().map(|process| process.cpu + process.ended).sum()
    }

    /// Of [`Measured::cpu`], what the controller itself took.
    fn own_cpu(&self) -> f64 {
        process(self.child.id()).map_or(0.0, |process| process.cpu)
    }

    /// Resident memory in MiB, the children's included.
    pub fn memory(&self) -> f64 {
        mebibytes(resident(self.child.id()))
    }

    /// Requests to the API server by verb.
    async fn requests(&self) -> Result<BTreeMap<String, u64>> {
        let text = get(METRICS_PORT, "metrics").await?.text().await?;
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for line in text.lines().filter(|l| l.starts_with("controller_clientset_k8s_request_total{")) {
            let verb = line.split("verb=\"").nth(1).and_then(|r| r.split('"').next()).unwrap_or_default();
            let count: f64 = line.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
            *counts.entry(verb.to_owned()).or_default() += count as u64;
        }
        Ok(counts)
    }

    /// Begins a phase.
    pub async fn mark(&self) -> Result<Mark> {
        // Asked for first: answering costs CPU, too.
        let requests = self.requests().await?;
        self.peak.store(resident(self.child.id()), Ordering::Relaxed);
        Ok(Mark { at: Instant::now(), cpu: self.cpu(), own: self.own_cpu(), requests })
    }

    /// Ends a phase.
    pub async fn since(&self, mark: &Mark, name: &str) -> Result<Phase> {
        let mut phase = Phase {
            name: name.to_owned(),
            wall: mark.at.elapsed().as_secs_f64(),
            cpu: self.cpu() - mark.cpu,
            own: self.own_cpu() - mark.own,
            memory: self.memory(),
            peak: mebibytes(self.peak.load(Ordering::Relaxed)),
            ..Phase::default()
        };
        for (verb, count) in self.requests().await? {
            let count = count - mark.requests.get(&verb).copied().unwrap_or(0);
            phase.requests += count;
            if !matches!(verb.as_str(), "get" | "list" | "watch") {
                phase.writes += count;
            }
        }
        Ok(phase)
    }

    /// What runs besides the controller itself, by name: what it costs, and how much memory it takes.
    pub fn children(&self) -> Vec<String> {
        let mut all = tree(self.child.id());
        all.retain(|process| process.pid != self.child.id());
        all.iter().map(|p| format!("{} ({:.2} CPU s, {:.1} MiB)", p.name, p.cpu, mebibytes(p.resident))).collect()
    }

    pub fn stop(&mut self) -> Result<()> {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(sampler) = self.sampler.take() {
            sampler.join().ok();
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.stop().ok();
    }
}

async fn get(port: u16, path: &str) -> Result<reqwest::Response> {
    Ok(tidegate_e2e::http::client()?.get(format!("http://127.0.0.1:{port}/{path}")).send().await?)
}

struct Process {
    pid: u32,
    name: String,
    /// Seconds.
    cpu: f64,
    /// Seconds of children that have ended and were waited for.
    ended: f64,
    /// Bytes.
    resident: u64,
}

/// A process and all its descendants.
fn tree(root: u32) -> Vec<Process> {
    let mut found = Vec::new();
    let mut ahead = vec![root];
    while let Some(pid) = ahead.pop() {
        // What has ended in the meantime is counted by its parent.
        let Some(process) = process(pid) else { continue };
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            ahead.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        found.push(process);
    }
    found
}

fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command, in parentheses, may hold spaces and parentheses itself.
    let (head, rest) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // utime, stime, cutime and cstime; resident pages.
    let seconds = |at: [usize; 2]| at.iter().filter_map(|i| fields.get(*i)?.parse::<f64>().ok()).sum::<f64>() / TICKS;
    let pages: u64 = fields.get(21)?.parse().ok()?;
    Some(Process { pid, name, cpu: seconds([11, 12]), ended: seconds([13, 14]), resident: pages * 4096 })
}

fn resident(root: u32) -> u64 {
    tree(root).iter().map(|process| process.resident).sum()
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Waits for a condition that is asked five times a second.
pub async fn wait<F: Future<Output = Result<bool>>>(condition: impl Fn() -> F) -> Result<()> {
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        if condition().await? {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("not done after {PATIENCE:?}");
        }
        // Looking at thousands of objects must not be what keeps the API server busy.
        tokio::time::sleep((asked.elapsed() * 10).max(Duration::from_millis(200))).await;
    }
}
