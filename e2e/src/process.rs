//! Processes by identity: a PID alone may have been given to somebody else by the time it is used.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process: its PID and the clock tick at which it started, which together never come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    pub started: u64,
}

impl ProcessId {
    /// The running process with this PID.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, started: start_tick(pid)? })
    }

    pub fn current() -> Option<Self> {
        Self::of(i32::try_from(std::process::id()).ok()?)
    }

    /// Whether the process still runs (a zombie does not).
    pub fn alive(&self) -> bool {
        start_tick(self.pid) == Some(self.started)
    }

    /// Sends a signal, if it is still the same process.
    pub fn signal(&self, signal: Signal) {
        if self.alive() {
            // It may end between the two; then there is nothing left to signal.
            kill(Pid::from_raw(self.pid), signal).ok();
        }
    }

    /// Ends the process at once and waits until it is gone. True when it is.
    pub fn kill_and_wait(&self, timeout: Duration) -> bool {
        self.signal(Signal::SIGKILL);
        poll_until(timeout, || !self.alive())
    }
}

/// When the process started, in clock ticks since boot; `None` when it has ended.
fn start_tick(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command, in parentheses, may hold spaces and parentheses itself.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    if matches!(fields.next(), Some("Z" | "X")) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Asks until the answer is yes; false when it was no for the whole of `timeout`.
pub fn poll_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() >= timeout {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command to its end and returns what it printed. An error names the command and quotes its last words.
pub fn output(command: &mut Command) -> Result<String> {
    let done = raw_output(command)?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(if done.stderr.is_empty() { &done.stdout } else { &done.stderr });
        bail!("`{}` ended with {}: {}", describe(command), done.status, last_lines(&said, 8));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Runs a command to its end, whatever that is.
pub fn raw_output(command: &mut Command) -> Result<Output> {
    command.stdin(std::process::Stdio::null()).output().with_context(|| format!("run `{}`", describe(command)))
}

/// Program and arguments, as a person would type them.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// The last `count` lines of a file, or why it cannot be read.
pub fn tail(path: &Path, count: usize) -> String {
    match std::fs::read(path) {
        Ok(content) => last_lines(&String::from_utf8_lossy(&content), count),
        Err(error) => format!("({}: {error})", path.display()),
    }
}

pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The file that `program` would be, on the PATH or in the places for administrators' programs.
pub fn which(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/go/bin", "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(Into::into);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Shows how long something has been taking, every 15 s, until dropped.
pub struct Ticker {
    done: Option<std::sync::mpsc::Sender<()>>,
}

impl Ticker {
    pub fn start(what: &str) -> Self {
        let (done, dropped) = std::sync::mpsc::channel();
        let what = what.to_owned();
        std::thread::spawn(move || {
            let start = Instant::now();
            while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = dropped.recv_timeout(Duration::from_secs(15)) {
                say(&format!("  … {what}: {} s", start.elapsed().as_secs()));
            }
        });
        Self { done: Some(done) }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.done.take();
    }
}

/// Tells the person in front of the terminal what is going on.
pub fn say(line: &str) {
    use std::io::Write;
    let stderr = std::io::stderr();
    // A closed terminal is no reason to stop.
    writeln!(stderr.lock(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_pid_and_start() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id() as i32).unwrap();
        assert!(id.alive());
        let other = ProcessId { started: id.started + 1, ..id };
        assert!(!other.alive());
        other.signal(Signal::SIGKILL);
        assert!(id.alive(), "a process that started at another time was signalled");
        assert!(id.kill_and_wait(Duration::from_secs(5)));
        child.wait().unwrap();
        assert_eq!(ProcessId::of(id.pid), None);
    }

    #[test]
    fn an_error_quotes_the_command_and_its_words() {
        let error = output(Command::new("sh").args(["-c", "echo first; echo sorry >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.contains("sorry"), "{text}");
    }
}
