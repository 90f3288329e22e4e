//! Header and tree of `get`, as text.

use super::info::{AnalysisRunInfo, ExperimentInfo, ImageInfo, ReplicaSetInfo, RolloutInfo};
use crate::output::{Color, Paint, Table, age, human};
use jiff::Timestamp;
use std::fmt::Write;

/// Icon and colour of a status that is not a pod's.
pub fn icon(status: &str) -> (&'static str, Color) {
    match status {
        "Healthy" | "Successful" => ("✔", Color::Green),
        "Degraded" | "Failed" => ("✖", Color::Red),
        "Paused" => ("॥", Color::Blue),
        "Progressing" | "Running" | "Pending" => ("◌", Color::Blue),
        "ScaledDown" => ("•", Color::Gray),
        "InvalidSpec" | "Error" => ("⚠", Color::Yellow),
        _ => ("?", Color::Yellow),
    }
}

/// Icon and colour of a pod's status.
fn pod_icon(status: &str) -> (&'static str, Color) {
    match status.strip_prefix("Init:").unwrap_or(status) {
        "Running" | "Completed" | "Succeeded" => ("✔", Color::Green),
        "Pending" | "Terminating" | "ContainerCreating" | "PodInitializing" | "NotReady" => ("◌", Color::Blue),
        "Failed"
        | "Error"
        | "CrashLoopBackOff"
        | "InvalidImageName"
        | "OOMKilled"
        | "Evicted"
        | "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError" => ("✖", Color::Red),
        "Unknown" => ("?", Color::Yellow),
        other if other.contains('/') => ("◌", Color::Blue),
        other if other.starts_with("ExitCode:") || other.starts_with("Signal:") => ("✖", Color::Red),
        _ => ("⚠", Color::Yellow),
    }
}

/// A Rollout with header and tree.
pub fn rollout(info: &RolloutInfo, now: Timestamp, paint: Paint) -> String {
    let mut out = String::new();
    line(&mut out, "Name:", &info.name);
    line(&mut out, "Namespace:", &info.namespace);
    line(&mut out, "Status:", &status(&info.status, icon(&info.status), paint));
    if !info.message.is_empty() {
        line(&mut out, "Message:", &info.message);
    }
    line(&mut out, "Strategy:", info.strategy);
    if let (Some(set), Some(actual)) = (info.set_weight, info.actual_weight) {
        line(&mut out, "  Step:", info.step.as_deref().unwrap_or_default());
        line(&mut out, "  SetWeight:", &set.to_string());
        line(&mut out, "  ActualWeight:", &actual.to_string());
    }
    images(&mut out, &info.images, paint);
    line(&mut out, "Replicas:", "");
    for (title, number) in [
        ("  Desired:", info.desired),
        ("  Current:", info.current),
        ("  Updated:", info.updated),
        ("  Ready:", info.ready),
        ("  Available:", info.available),
    ] {
        line(&mut out, title, &number.to_string());
    }
    out.push('\n');
    let mut tree = Tree::new(now, paint);
    tree.row(
        "",
        &format!("⟳ {}", info.name),
        "Rollout",
        &status(&info.status, icon(&info.status), paint),
        info.created,
        "",
    );
    let revisions = info.revisions.len();
    for (i, revision) in info.revisions.iter().enumerate() {
        let (branch, below) = limbs("", i + 1 == revisions);
        tree.heading(&branch, &format!("# revision:{}", revision.number));
        let mut left = revision.replica_sets.len() + revision.experiments.len() + revision.analysis_runs.len();
        let mut last = || {
            left -= 1;
            left == 0
        };
        for rs in &revision.replica_sets {
            let (branch, under) = limbs(&below, last());
            tree.replica_set(&branch, &under, rs);
        }
        for exp in &revision.experiments {
            let (branch, under) = limbs(&below, last());
            tree.experiment(&branch, &under, exp);
        }
        for run in &revision.analysis_runs {
            let (branch, under) = limbs(&below, last());
            tree.analysis_run(&branch, &under, run);
        }
    }
    out + &tree.table.render()
}

/// An Experiment with header and tree.
pub fn experiment(info: &ExperimentInfo, now: Timestamp, paint: Paint) -> String {
    let mut out = String::new();
    line(&mut out, "Name:", &info.name);
    line(&mut out, "Namespace:", &info.namespace);
    line(&mut out, "Status:", &status(info.status.as_str(), icon(info.status.as_str()), paint));
    if !info.message.is_empty() {
        line(&mut out, "Message:", &info.message);
    }
    images(&mut out, &info.images, paint);
    out.push('\n');
    let mut tree = Tree::new(now, paint);
    tree.experiment("", "", info);
    out + &tree.table.render()
}

fn line(out: &mut String, title: &str, value: &str) {
    let text = format!("{title:<17}{value}");
    out.push_str(text.trim_end());
    out.push('\n');
}

fn images(out: &mut String, images: &[ImageInfo], paint: Paint) {
    for (index, image) in images.iter().enumerate() {
        let title = if index == 0 { "Images:" } else { "" };
        let mut text = image.image.clone();
        if !image.tags.is_empty() {
            let tags: Vec<String> = image.tags.iter().map(|tag| self::tag(tag, paint)).collect();
            let _ = write!(text, " ({})", tags.join(", "));
        }
        line(out, title, &text);
    }
}

fn tag(tag: &str, paint: Paint) -> String {
    let color = match tag {
        "stable" | "active" => Color::Green,
        "canary" | "preview" => Color::Yellow,
        _ => Color::Blue,
    };
    paint.apply(color, tag)
}

fn status(text: &str, (icon, color): (&str, Color), paint: Paint) -> String {
    format!("{} {text}", paint.apply(color, icon)).trim_end().to_owned()
}

/// What stands before a child's name, and before the names below it.
fn limbs(prefix: &str, last: bool) -> (String, String) {
    match last {
        true => (format!("{prefix}└──"), format!("{prefix}   ")),
        false => (format!("{prefix}├──"), format!("{prefix}│  ")),
    }
}

struct Tree {
    table: Table,
    now: Timestamp,
    paint: Paint,
}

impl Tree {
    fn new(now: Timestamp, paint: Paint) -> Self {
        Self { table: Table::with_header(&["NAME", "KIND", "STATUS", "AGE", "INFO"]), now, paint }
    }

    fn heading(&mut self, branch: &str, text: &str) {
        self.table.push(vec![format!("{branch}{text}"), String::new(), String::new(), String::new(), String::new()]);
    }

    fn row(&mut self, branch: &str, name: &str, kind: &str, status: &str, created: Option<Timestamp>, info: &str) {
        self.table.push(vec![
            format!("{branch}{name}"),
            kind.to_owned(),
            status.to_owned(),
            age(created, self.now),
            info.to_owned(),
        ]);
    }

    fn replica_set(&mut self, branch: &str, below: &str, rs: &ReplicaSetInfo) {
        let mut info: Vec<String> = rs.tags.iter().map(|text| tag(text, self.paint)).collect();
        if let Some(at) = rs.scale_down_at {
            // Whole seconds that are left.
            let left = at.duration_since(self.now);
            let passed = left.is_negative();
            info.push(if passed { "delay:passed".to_owned() } else { format!("delay:{}", human(left.as_secs())) });
        }
        let shown = status(rs.status, icon(rs.status), self.paint);
        self.row(branch, &format!("⧉ {}", rs.name), "ReplicaSet", &shown, rs.created, &info.join(","));
        for (index, pod) in rs.pods.iter().enumerate() {
            let (branch, _) = limbs(below, index + 1 == rs.pods.len());
            let shown = status(&pod.status, pod_icon(&pod.status), self.paint);
            self.row(&branch, &format!("□ {}", pod.name), "Pod", &shown, pod.created, &pod.info());
        }
    }

    fn experiment(&mut self, branch: &str, below: &str, exp: &ExperimentInfo) {
        let shown = status(exp.status.as_str(), icon(exp.status.as_str()), self.paint);
        self.row(branch, &format!("Σ {}", exp.name), "Experiment", &shown, exp.created, "");
        let children = exp.replica_sets.len() + exp.analysis_runs.len();
        for (index, rs) in exp.replica_sets.iter().enumerate() {
            let (branch, under) = limbs(below, index + 1 == children);
            self.replica_set(&branch, &under, rs);
        }
        for (index, run) in exp.analysis_runs.iter().enumerate() {
            let (branch, under) = limbs(below, exp.replica_sets.len() + index + 1 == children);
            self.analysis_run(&branch, &under, run);
        }
    }

    fn analysis_run(&mut self, branch: &str, below: &str, run: &AnalysisRunInfo) {
        let counts = [
            ("Successful", run.successful),
            ("Failed", run.failed),
            ("Inconclusive", run.inconclusive),
            ("Error", run.error),
        ];
        let info: Vec<String> = counts
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(outcome, count)| {
                let (icon, color) = icon(outcome);
                format!("{} {count}", self.paint.apply(color, icon))
            })
            .collect();
        let shown = status(run.status.as_str(), icon(run.status.as_str()), self.paint);
        self.row(branch, &format!("α {}", run.name), "AnalysisRun", &shown, run.created, &info.join(","));
        for (index, job) in run.jobs.iter().enumerate() {
            let (branch, _) = limbs(below, index + 1 == run.jobs.len());
            let shown = status(job.status.as_str(), icon(job.status.as_str()), self.paint);
            self.row(&branch, &format!("⊞ {}", job.name), "Job", &shown, job.created, "");
        }
    }
}

#[cfg(test)]
mod tests;
