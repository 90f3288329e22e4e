//! Network namespaces: one a cluster, called `tg-<name>`.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::process::{ProcessId, output};

/// What the names of all our namespaces begin with.
pub const PREFIX: &str = "tg-";

/// The node's address: on a bridge inside the namespace, so that every cluster can have the same.
pub const NODE_IP: &str = "10.250.0.1";

#[derive(Debug, Clone)]
pub struct NetworkNamespace {
    pub name: String,
}

impl NetworkNamespace {
    /// The namespace of the cluster of this name, which need not exist.
    pub fn of_cluster(cluster: &str) -> Self {
        Self { name: format!("{PREFIX}{cluster}") }
    }

    /// Every namespace whose name says that it is ours.
    pub fn all() -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(PREFIX))
            .collect();
        names.sort();
        names.into_iter().map(|name| Self { name }).collect()
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// Makes the namespace, with the node's address on a bridge (a kernel may lack the dummy device) and a default
    /// route over it, without which kube-proxy and kubelet find no address.
    pub fn create(&self) -> Result<()> {
        output(Command::new("ip").args(["netns", "add", &self.name]))?;
        let address = format!("{NODE_IP}/24");
        for args in [
            &["link", "set", "lo", "up"][..],
            &["link", "add", "node0", "type", "bridge"],
            &["addr", "add", &address, "dev", "node0"],
            &["link", "set", "node0", "up"],
            &["route", "add", "default", "dev", "node0"],
        ] {
            output(Command::new("ip").args(["-n", &self.name]).args(args))?;
        }
        let net = format!("--net={}", self.path().display());
        // Not `ip netns exec`: it mounts another /sys and hides the control groups.
        let write = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        output(Command::new("nsenter").args([&net, "sh", "-c", write]))?;
        Ok(())
    }

    pub fn delete(&self) -> Result<()> {
        if self.exists() {
            output(Command::new("ip").args(["netns", "del", &self.name]))?;
        }
        Ok(())
    }

    /// Moves the calling thread into the namespace. Threads and processes that it starts from now on are inside, too.
    pub fn enter(&self) -> Result<()> {
        let path = self.path();
        let file = File::open(&path).with_context(|| format!("open network namespace {}", path.display()))?;
        setns(file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("enter network namespace {} (needs root)", path.display()))
    }

    /// Every process with a thread in the namespace, those of the host's that were moved there included.
    pub fn processes(&self) -> Vec<ProcessId> {
        use std::os::unix::fs::MetadataExt;
        let Ok(wanted) = std::fs::metadata(self.path()) else { return Vec::new() };
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let link = std::fs::metadata(format!("/proc/{pid}/ns/net"));
            link.is_ok_and(|found| found.ino() == wanted.ino() && found.dev() == wanted.dev())
        })
        .filter_map(ProcessId::of)
        .collect()
    }
}
