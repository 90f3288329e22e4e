//! What a run of measurements does next, and what its verdict is.
//!
//! [`decide`] looks at a run and the time, and says what the status becomes, which measurements to start, resume or end,
//! and when to look again. [`record`] puts a measurement that came in into the status. Neither does anything itself, so
//! calling them twice, late or after a restart changes nothing but the time.

use crate::arguments::{self, Values};
use crate::metric::{self, Limits, Problem};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate_crds::Time;
use tidegate_crds::analysis::{
    AnalysisPhase, AnalysisRun, AnalysisRunStatus, Measurement, Metric, MetricResult, RunSummary, TtlStrategy,
};

/// When a measurement that had an error is tried again.
const ERROR_RETRY: Duration = Duration::from_secs(10);

/// What to do about one metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Take a measurement.
    Start {
        /// The metric's name.
        metric: String,
    },
    /// See how a measurement stands that goes on elsewhere, such as a Job.
    Resume {
        /// The metric's name.
        metric: String,
        /// The measurement.
        measurement: Measurement,
    },
    /// End a measurement that goes on elsewhere; delete its Job. Do so before the status is written, which holds the
    /// measurement as inconclusive already. To find nothing to end is fine.
    Terminate {
        /// The metric's name.
        metric: String,
        /// The measurement as it was.
        measurement: Measurement,
    },
    /// Delete the Job of a measurement that is not kept any longer.
    Collect {
        /// The metric's name.
        metric: String,
        /// The measurement.
        measurement: Measurement,
    },
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// It is bad news.
    pub warning: bool,
    /// `Metric<Phase>` or `AnalysisRun<Phase>`.
    pub reason: String,
    /// What happened.
    pub message: String,
}

/// What a run does next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The status; write it when it differs.
    pub status: AnalysisRunStatus,
    /// What to do, in this order.
    pub tasks: Vec<Task>,
    /// What to tell.
    pub events: Vec<Event>,
    /// When to look again, should nothing happen until then.
    pub look_again: Option<Duration>,
    /// The run's time after its end is over: delete it.
    pub delete: bool,
}

/// Decides what a run does next.
///
/// `measuring` names the metrics for which this process takes a measurement right now; none is started for those.
pub fn decide(run: &AnalysisRun, measuring: &BTreeSet<String>, now: Timestamp) -> Decision {
    let mut decision = Decision { status: run.status.clone(), ..Decision::default() };
    if run.metadata.deletion_timestamp.is_some() {
        return decision;
    }
    if decision.status.phase.completed() {
        finished(run, &mut decision, now);
        return decision;
    }
    decision.status.started_at.get_or_insert(Time(now));
    match Plan::of(run) {
        Ok(plan) => plan.go_on(run, measuring, now, &mut decision),
        Err(message) => {
            decision.status.phase = AnalysisPhase::Error;
            decision.status.message = Some(message);
        }
    }
    if decision.status.phase.completed() {
        decision.status.completed_at = Some(Time(now));
        decision
            .events
            .push(event("AnalysisRun", decision.status.phase, |phase| format!("Analysis Completed. Result: {phase}")));
        decision.look_again = lifetime(run.spec.ttl_strategy.as_ref(), decision.status.phase);
    }
    decision
}

/// Puts a measurement into a status: a new one, or what became of the one that was in flight.
///
/// Nothing changes once the run or the metric has its verdict. `metadata` is what the provider tells about the metric.
pub fn record(
    status: &mut AnalysisRunStatus,
    metric: &str,
    mut measurement: Measurement,
    metadata: BTreeMap<String, String>,
    now: Timestamp,
) {
    if status.phase.completed() {
        return;
    }
    let result = match status.metric_results.iter_mut().position(|r| r.name == metric) {
        Some(place) => &mut status.metric_results[place],
        None => {
            let result = MetricResult { name: metric.to_owned(), phase: AnalysisPhase::Running, ..Default::default() };
            status.metric_results.push(result);
            let last = status.metric_results.len() - 1;
            &mut status.metric_results[last]
        }
    };
    if result.phase.completed() {
        return;
    }
    result.metadata.extend(metadata);
    measurement.started_at.get_or_insert(Time(now));
    if measurement.phase.completed() {
        measurement.finished_at.get_or_insert(Time(now));
        measurement.resume_at = None;
        count(result, measurement.phase);
    }
    match result.measurements.last_mut().filter(|last| last.finished_at.is_none()) {
        Some(in_flight) => *in_flight = measurement,
        None => result.measurements.push(measurement),
    }
}

fn count(result: &mut MetricResult, phase: AnalysisPhase) {
    result.consecutive_success = if phase == AnalysisPhase::Successful { result.consecutive_success + 1 } else { 0 };
    result.consecutive_error = if phase == AnalysisPhase::Error { result.consecutive_error + 1 } else { 0 };
    let counter = match phase {
        AnalysisPhase::Successful => &mut result.successful,
        AnalysisPhase::Failed => &mut result.failed,
        AnalysisPhase::Inconclusive => &mut result.inconclusive,
        _ => {
            // An error is no measurement.
            result.error += 1;
            return;
        }
    };
    *counter += 1;
    result.count += 1;
}

/// After its end, a run waits for its deletion.
fn finished(run: &AnalysisRun, decision: &mut Decision, now: Timestamp) {
    let Some(lifetime) = lifetime(run.spec.ttl_strategy.as_ref(), run.status.phase) else { return };
    let Some(Time(end)) = run.status.completed_at.as_ref() else { return };
    match remaining(*end, lifetime, now) {
        Some(rest) => decision.look_again = Some(rest),
        None => decision.delete = true,
    }
}

/// How long a run stays after its end. The more specific field wins.
fn lifetime(strategy: Option<&TtlStrategy>, phase: AnalysisPhase) -> Option<Duration> {
    let strategy = strategy?;
    let specific = match phase {
        AnalysisPhase::Failed => strategy.seconds_after_failure,
        AnalysisPhase::Successful => strategy.seconds_after_success,
        _ => None,
    };
    let seconds = specific.or(strategy.seconds_after_completion)?;
    Some(Duration::from_secs(seconds.max(0).unsigned_abs().into()))
}

/// The time until `span` after `start` is over; none when it is.
fn remaining(start: Timestamp, span: Duration, now: Timestamp) -> Option<Duration> {
    let passed = now.duration_since(start);
    let rest = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX).saturating_sub(passed);
    Duration::try_from(rest).ok().filter(|rest| !rest.is_zero())
}

fn event(prefix: &str, phase: AnalysisPhase, message: impl Fn(&str) -> String) -> Event {
    Event {
        warning: matches!(phase, AnalysisPhase::Failed | AnalysisPhase::Error),
        reason: format!("{prefix}{}", phase.as_str()),
        message: message(phase.as_str()),
    }
}

/// What a run measures, its arguments filled in except for secrets.
struct Plan {
    metrics: Vec<Metric>,
    dry: BTreeSet<String>,
    retention: BTreeMap<String, usize>,
}

impl Plan {
    fn of(run: &AnalysisRun) -> Result<Self, String> {
        let unresolved = |error: arguments::ArgumentError| format!("Unable to resolve metric arguments: {error}");
        let values: Values = arguments::values_without_secrets(&run.spec.args).map_err(unresolved)?;
        let metrics: Vec<Metric> = run
            .spec
            .metrics
            .iter()
            .map(|metric| arguments::substitute(metric, &values))
            .collect::<Result<_, _>>()
            .map_err(unresolved)?;
        let invalid = |problem: Problem| format!("Analysis spec invalid: {problem}");
        if let Some(problem) = metric::validate_measuring(&metrics).into_iter().next() {
            return Err(invalid(problem));
        }
        let dry = metric::dry_run_names(&run.spec.dry_run, &metrics).map_err(invalid)?;
        let retention = metric::retention(&run.spec.measurement_retention, &metrics).map_err(invalid)?;
        Ok(Self { metrics, dry: dry.into_iter().collect(), retention })
    }

    fn is_dry(&self, name: &str) -> bool {
        self.dry.contains(name)
    }

    fn go_on(&self, run: &AnalysisRun, measuring: &BTreeSet<String>, now: Timestamp, decision: &mut Decision) {
        let order: BTreeMap<&str, usize> = self.metrics.iter().enumerate().map(|(i, m)| (m.name.as_str(), i)).collect();
        let status = &mut decision.status;
        status.metric_results.sort_by_key(|r| order.get(r.name.as_str()).copied().unwrap_or(usize::MAX));
        for result in &mut status.metric_results {
            result.dry_run = self.is_dry(&result.name);
        }
        // A metric that turns bad ends the others, which is seen in a second round.
        let mut terminating = self.terminating(run, &decision.status);
        loop {
            self.assess(terminating, now, decision);
            let turned = self.terminating(run, &decision.status);
            if turned == terminating {
                break;
            }
            terminating = turned;
        }
        self.conclude(run, terminating, &mut decision.status);
        self.trim(decision);
        if !decision.status.phase.completed() {
            self.schedule(measuring, now, decision);
        }
    }

    /// The run is being ended: by request, or because a metric that counts is bad.
    fn terminating(&self, run: &AnalysisRun, status: &AnalysisRunStatus) -> bool {
        let bad = |r: &MetricResult| r.phase.completed() && r.phase != AnalysisPhase::Successful;
        run.spec.terminate || status.metric_results.iter().any(|r| !r.dry_run && bad(r))
    }

    /// Brings the phases of all metrics up to date, ending what is in flight when the run ends.
    fn assess(&self, terminating: bool, now: Timestamp, decision: &mut Decision) {
        for metric in &self.metrics {
            let Some(result) = decision.status.metric_results.iter_mut().find(|r| r.name == metric.name) else {
                continue;
            };
            if result.phase.completed() {
                continue;
            }
            if terminating && let Some(last) = result.measurements.last_mut().filter(|last| !last.phase.completed()) {
                let task = Task::Terminate { metric: metric.name.clone(), measurement: last.clone() };
                decision.tasks.push(task);
                last.phase = AnalysisPhase::Inconclusive;
                last.finished_at = Some(Time(now));
                last.resume_at = None;
                last.message.get_or_insert_with(|| "Metric Terminated".to_owned());
                count(result, AnalysisPhase::Inconclusive);
            }
            let (phase, reason) = assess_metric(metric, result, terminating);
            if phase == result.phase {
                continue;
            }
            result.phase = phase;
            result.message = result.measurements.last().and_then(|last| last.message.clone());
            if phase.completed() {
                if let (true, Some(reason)) = (result.dry_run, reason) {
                    result.message = Some(format!("Metric assessed {} due to {reason}", phase.as_str()));
                }
                decision.events.push(event("Metric", phase, |phase| {
                    format!("Metric '{}' Completed. Result: {phase}", metric.name)
                }));
            }
        }
    }

    /// Sets the run's phase, message and summaries.
    fn conclude(&self, run: &AnalysisRun, terminating: bool, status: &mut AnalysisRunStatus) {
        let (mut counting, mut dry) = (RunSummary::default(), RunSummary::default());
        let mut worst: Option<AnalysisPhase> = None;
        let mut message = if run.spec.terminate { Some("Run Terminated".to_owned()) } else { None };
        let mut all_completed = true;
        for metric in &self.metrics {
            let is_dry = self.is_dry(&metric.name);
            let summary = if is_dry { &mut dry } else { &mut counting };
            summary.count += 1;
            let Some(result) = status.metric_results.iter().find(|r| r.name == metric.name) else {
                all_completed = false;
                continue;
            };
            match result.phase {
                AnalysisPhase::Successful => summary.successful += 1,
                AnalysisPhase::Failed => summary.failed += 1,
                AnalysisPhase::Inconclusive => summary.inconclusive += 1,
                AnalysisPhase::Error => summary.error += 1,
                _ => {
                    all_completed = false;
                    continue;
                }
            }
            if is_dry {
                worst.get_or_insert(AnalysisPhase::Successful);
            } else if worst.is_none_or(|worst| badness(result.phase) > badness(worst)) {
                worst = Some(result.phase);
                if let Some(reason) = why(metric, result) {
                    let mut text =
                        format!("Metric \"{}\" assessed {} due to {reason}", metric.name, result.phase.as_str());
                    if let Some(error) = result.message.as_deref().filter(|m| !m.is_empty()) {
                        text.push_str(&format!(": \"Error Message: {error}\""));
                    }
                    message = Some(text);
                }
            }
        }
        status.run_summary = Some(counting);
        status.dry_run_summary = Some(dry);
        let (phase, message) = match worst {
            None if terminating => (AnalysisPhase::Successful, message),
            Some(worst) if terminating || all_completed => (worst, message),
            _ => (AnalysisPhase::Running, None),
        };
        status.phase = phase;
        status.message = message;
    }

    /// Keeps the last measurements only.
    fn trim(&self, decision: &mut Decision) {
        for result in &mut decision.status.metric_results {
            let keep = self.retention.get(&result.name).copied().unwrap_or(metric::RETENTION);
            let surplus = result.measurements.len().saturating_sub(keep);
            for measurement in result.measurements.drain(..surplus) {
                if !measurement.metadata.is_empty() {
                    decision.tasks.push(Task::Collect { metric: result.name.clone(), measurement });
                }
            }
        }
    }

    /// Starts what is due, and says when the next is.
    fn schedule(&self, measuring: &BTreeSet<String>, now: Timestamp, decision: &mut Decision) {
        let started = decision.status.started_at.as_ref().map_or(now, |t| t.0);
        for metric in &self.metrics {
            let result = decision.status.metric_results.iter().find(|r| r.name == metric.name);
            if result.is_some_and(|r| r.phase.completed()) || measuring.contains(&metric.name) {
                continue;
            }
            let name = || metric.name.clone();
            let (task, wait) = match result.and_then(|r| r.measurements.last()) {
                None => {
                    let delay = metric::initial_delay(metric).unwrap_or_default();
                    (Task::Start { metric: name() }, remaining(started, delay, now))
                }
                Some(last) => match &last.finished_at {
                    None => {
                        let wait = last.resume_at.as_ref().and_then(|at| remaining(at.0, Duration::ZERO, now));
                        (Task::Resume { metric: name(), measurement: last.clone() }, wait)
                    }
                    Some(finished) => {
                        let interval = match last.phase {
                            AnalysisPhase::Error => ERROR_RETRY,
                            _ => metric::interval(metric).unwrap_or(ERROR_RETRY),
                        };
                        (Task::Start { metric: name() }, remaining(finished.0, interval, now))
                    }
                },
            };
            match wait {
                None => decision.tasks.push(task),
                Some(wait) => decision.look_again = Some(decision.look_again.map_or(wait, |other| other.min(wait))),
            }
        }
    }
}

/// The phase of a metric, and the reason when it is bad.
fn assess_metric(metric: &Metric, result: &MetricResult, terminating: bool) -> (AnalysisPhase, Option<String>) {
    let Some(last) = result.measurements.last() else {
        let phase = if terminating { AnalysisPhase::Successful } else { AnalysisPhase::Pending };
        return (phase, None);
    };
    if !last.phase.completed() {
        return (AnalysisPhase::Running, None);
    }
    if let Some((phase, reason)) = exceeded(metric, result) {
        return (phase, Some(reason));
    }
    let limits = Limits::of(metric);
    if limits.consecutive_success.is_some_and(|limit| result.consecutive_success >= limit) {
        return (AnalysisPhase::Successful, None);
    }
    if limits.count.is_some_and(|count| result.count >= count) {
        return match (limits.consecutive_success, limits.failure) {
            (None, _) => (AnalysisPhase::Successful, None),
            (Some(_), Some(_)) => (AnalysisPhase::Inconclusive, missed(metric, result)),
            (Some(_), None) => (AnalysisPhase::Failed, missed(metric, result)),
        };
    }
    (if terminating { AnalysisPhase::Successful } else { AnalysisPhase::Running }, None)
}

/// The limit that a metric is over. When it is over several, the last one in this order tells.
fn exceeded(metric: &Metric, result: &MetricResult) -> Option<(AnalysisPhase, String)> {
    let limits = Limits::of(metric);
    let mut found = None;
    if let Some(limit) = limits.failure.filter(|limit| result.failed > *limit) {
        found = Some((AnalysisPhase::Failed, format!("failed ({}) > failureLimit ({limit})", result.failed)));
    }
    if let Some(limit) = limits.inconclusive.filter(|limit| result.inconclusive > *limit) {
        let reason = format!("inconclusive ({}) > inconclusiveLimit ({limit})", result.inconclusive);
        found = Some((AnalysisPhase::Inconclusive, reason));
    }
    if result.consecutive_error > limits.consecutive_error {
        let (found_errors, limit) = (result.consecutive_error, limits.consecutive_error);
        let reason = format!("consecutiveErrors ({found_errors}) > consecutiveErrorLimit ({limit})");
        found = Some((AnalysisPhase::Error, reason));
    }
    found
}

/// The count was reached without enough successes in a row.
fn missed(metric: &Metric, result: &MetricResult) -> Option<String> {
    let limit = Limits::of(metric).consecutive_success?;
    Some(format!("consecutiveSuccess ({}) < consecutiveSuccessLimit ({limit})", result.consecutive_success))
}

/// Why a completed metric is bad.
fn why(metric: &Metric, result: &MetricResult) -> Option<String> {
    match result.phase {
        AnalysisPhase::Successful => None,
        _ => exceeded(metric, result).map(|(_, reason)| reason).or_else(|| missed(metric, result)),
    }
}

/// How bad a phase is, next to others.
fn badness(phase: AnalysisPhase) -> u8 {
    match phase {
        AnalysisPhase::Unset | AnalysisPhase::Successful => 0,
        AnalysisPhase::Running => 1,
        AnalysisPhase::Pending => 2,
        AnalysisPhase::Inconclusive => 3,
        AnalysisPhase::Error => 4,
        AnalysisPhase::Failed => 5,
    }
}

/// The worse of two phases: Successful < Running < Pending < Inconclusive < Error < Failed.
pub fn worst(a: AnalysisPhase, b: AnalysisPhase) -> AnalysisPhase {
    if badness(b) > badness(a) { b } else { a }
}

#[cfg(test)]
mod tests;
