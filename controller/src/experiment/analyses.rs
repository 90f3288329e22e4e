//! The AnalysisRuns of an Experiment: started once all variants are available, ended with the experiment.

use super::arguments::{Asked, fill};
use super::decision::Action;
use super::pass::Pass;
use super::snapshot::Snapshot;
use crate::analysis_run::NewRun;
use crate::events::Event;
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_analysis::template;
use tidegate_crds::analysis::{AnalysisPhase, AnalysisRun, AnalysisRunSpec, Argument};
use tidegate_crds::experiment::{ExperimentAnalysis, ExperimentAnalysisRunStatus};
use tidegate_crds::rollout::AnalysisTemplateRef;

/// Takes over how the runs stand.
pub(super) fn refresh(pass: &mut Pass<'_>) {
    let mut entries = std::mem::take(&mut pass.status.analysis_runs);
    entries.retain(|entry| pass.spec().analyses.iter().any(|a| a.name == entry.name));
    for entry in entries.iter_mut().filter(|e| !e.phase.completed() && !e.analysis_run.is_empty()) {
        let before = entry.clone();
        match pass.snapshot.analysis_runs.iter().find(|run| run.name() == entry.analysis_run) {
            Some(run) => {
                entry.message = run.status.message.clone();
                if run.status.phase != AnalysisPhase::Unset {
                    entry.phase = run.status.phase;
                }
            }
            None if pass.has_ended() => {}
            None => {
                entry.phase = AnalysisPhase::Error;
                entry.message = Some(format!("AnalysisRun {} is gone: it was deleted", entry.analysis_run));
            }
        }
        transition(pass, before.phase, entry);
    }
    pass.status.analysis_runs = entries;
}

fn transition(pass: &mut Pass<'_>, before: AnalysisPhase, entry: &ExperimentAnalysisRunStatus) {
    if before == entry.phase || entry.phase == AnalysisPhase::Unset {
        return;
    }
    let (from, to) = (before.as_str(), entry.phase.as_str());
    let mut text = format!("AnalysisRun '{}' transitioned from {from} -> {to}", entry.name);
    if let Some(message) = entry.message.as_deref().filter(|m| !m.is_empty()) {
        text = format!("{text}: {message}");
    }
    pass.because(text.clone());
    let reason = format!("AnalysisRun{to}");
    let good = !entry.phase.completed() || entry.phase == AnalysisPhase::Successful;
    pass.tell(if good { Event::normal(&reason, text) } else { Event::warning(&reason, text) });
}

/// The worst verdict that is not good, and why.
pub(super) fn bad(pass: &Pass<'_>) -> Option<(AnalysisPhase, Option<String>)> {
    let rank = |phase: AnalysisPhase| match phase {
        AnalysisPhase::Failed => 3,
        AnalysisPhase::Error => 2,
        AnalysisPhase::Inconclusive => 1,
        _ => 0,
    };
    let mut worst: Option<&ExperimentAnalysisRunStatus> = None;
    for entry in pass.status.analysis_runs.iter().filter(|entry| rank(entry.phase) > 0) {
        if worst.is_none_or(|worst| rank(entry.phase) > rank(worst.phase)) {
            worst = Some(entry);
        }
    }
    worst.map(|entry| (entry.phase, entry.message.clone()))
}

/// Whether all analyses that are required were successful; none when none is.
pub(super) fn required(pass: &Pass<'_>) -> Option<bool> {
    let mut required = pass.spec().analyses.iter().filter(|a| a.required_for_completion).peekable();
    required.peek()?;
    let entries = &pass.status.analysis_runs;
    let successful = |name: &str| entries.iter().any(|e| e.name == name && e.phase == AnalysisPhase::Successful);
    Some(required.all(|a| successful(&a.name)))
}

/// Starts the runs that are missing. Only when the time at which the variants were available is stored: it is what tells
/// a run of this attempt from one of an earlier attempt. Gives whether one could not be started.
pub(super) fn start(pass: &mut Pass<'_>) -> bool {
    if pass.experiment().status.available_at.is_none() || pass.spec().terminate {
        end_strangers(pass);
        return false;
    }
    let mut failed = false;
    for analysis in &pass.spec().analyses {
        if pass.status.analysis_runs.iter().any(|entry| entry.name == analysis.name) {
            continue;
        }
        let entry = make(pass, analysis);
        failed |= entry.phase == AnalysisPhase::Error;
        transition(pass, AnalysisPhase::Unset, &entry);
        pass.status.analysis_runs.push(entry);
    }
    end_strangers(pass);
    failed
}

/// Makes a run, or takes the one that an earlier pass made and could not note.
fn make(pass: &mut Pass<'_>, analysis: &ExperimentAnalysis) -> ExperimentAnalysisRunStatus {
    let base = format!("{}-{}", pass.experiment().name(), analysis.name);
    let mut name = base.clone();
    let mut attempt = 0;
    loop {
        let claimed = pass.status.analysis_runs.iter().any(|entry| entry.analysis_run == name);
        let existing = pass.snapshot.analysis_runs.iter().find(|run| run.name() == name);
        if let Some(run) = existing.filter(|run| !claimed && is_of_this_attempt(pass, run)) {
            let phase = match run.status.phase {
                AnalysisPhase::Unset => AnalysisPhase::Pending,
                phase => phase,
            };
            let message = run.status.message.clone();
            return ExperimentAnalysisRunStatus { name: analysis.name.clone(), analysis_run: name, phase, message };
        }
        if existing.is_none() && !claimed && !pass.snapshot.taken.contains(&name) {
            break;
        }
        attempt += 1;
        name = format!("{base}.{attempt}");
    }
    match object(pass, analysis, &name) {
        Ok(object) => {
            pass.because(format!("starts AnalysisRun {name}"));
            pass.act(Action::CreateAnalysisRun { name: name.clone(), object });
            ExperimentAnalysisRunStatus {
                name: analysis.name.clone(),
                analysis_run: name,
                phase: AnalysisPhase::Pending,
                message: None,
            }
        }
        Err(error) => ExperimentAnalysisRunStatus {
            name: analysis.name.clone(),
            analysis_run: String::new(),
            phase: AnalysisPhase::Error,
            message: Some(format!("Failed to create AnalysisRun for analysis '{}': {error}", analysis.name)),
        },
    }
}

/// The run was made since the variants became available, and nobody has ended it.
fn is_of_this_attempt(pass: &Pass<'_>, run: &AnalysisRun) -> bool {
    if run.spec.terminate || run.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let made = run.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let available = pass.experiment().status.available_at.as_ref().map(|time| time.0);
    !run.status.phase.completed() || made >= available
}

/// Ends runs of which the status does not know: they are of an attempt before a retry.
fn end_strangers(pass: &mut Pass<'_>) {
    for run in &pass.snapshot.analysis_runs {
        let known = pass.status.analysis_runs.iter().any(|entry| entry.analysis_run == run.name());
        if !known {
            terminate(pass, run, run.name());
        }
    }
}

/// After the end, ends what still runs.
pub(super) fn end(pass: &mut Pass<'_>) {
    for run in &pass.snapshot.analysis_runs {
        let entry = pass.status.analysis_runs.iter().find(|entry| entry.analysis_run == run.name());
        let name = entry.map_or_else(|| run.name().to_owned(), |entry| entry.name.clone());
        terminate(pass, run, &name);
    }
}

fn terminate(pass: &mut Pass<'_>, run: &AnalysisRun, analysis: &str) {
    if run.status.phase.completed() || run.spec.terminate || run.metadata.deletion_timestamp.is_some() {
        return;
    }
    let text = format!("Terminating {analysis} ({})", run.name());
    pass.because(text.clone());
    pass.tell(Event::normal("AnalysisRunTerminating", text));
    pass.act(Action::TerminateAnalysisRun { name: run.name().to_owned() });
}

/// What a run of this analysis measures.
///
/// # Errors
/// As [`template::run_spec`], in words.
pub(super) fn run_spec(
    snapshot: &Snapshot,
    analysis: &ExperimentAnalysis,
    args: &[Argument],
) -> Result<AnalysisRunSpec, String> {
    let reference =
        AnalysisTemplateRef { template_name: analysis.template_name.clone(), cluster_scope: analysis.cluster_scope };
    let spec = &snapshot.experiment.spec;
    template::run_spec(&[reference], &snapshot.templates, args, &spec.dry_run, &spec.measurement_retention)
        .map_err(|error| error.to_string())
}

/// The values that the Experiment gives. One that it would take from elsewhere is left to the template's own.
pub(super) fn values(
    analysis: &ExperimentAnalysis,
    lookup: impl Fn(Asked<'_>) -> Option<String>,
) -> Result<Vec<Argument>, String> {
    let given = analysis.args.iter().filter_map(|arg| Some((arg, arg.value.as_deref()?)));
    given
        .map(|(arg, value)| {
            let value = fill(value, &lookup).map_err(|error| format!("args.{}: {error}", arg.name))?;
            Ok(Argument { name: arg.name.clone(), value: Some(value), value_from: None })
        })
        .collect()
}

fn object(pass: &Pass<'_>, analysis: &ExperimentAnalysis, name: &str) -> Result<Value, String> {
    let experiment = pass.experiment();
    let available_at = experiment.status.available_at.as_ref().map(|time| time.0.to_string());
    let args = values(analysis, |asked| match asked {
        Asked::Hash(template) => pass.snapshot.replica_set(template).map(|rs| rs.hash().to_owned()),
        Asked::ReplicaSet(template) => pass.snapshot.replica_set(template).map(|rs| rs.name.clone()),
        Asked::AvailableAt => available_at.clone(),
        // Empty when the experiment has no duration, as it is with the peer.
        Asked::FinishedAt => Some(pass.finishes_at().map(|at| at.to_string()).unwrap_or_default()),
    })?;
    let spec = run_spec(pass.snapshot, analysis, &args)?;
    let run = NewRun {
        name,
        namespace: experiment.namespace(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        metadata: experiment.spec.analysis_run_metadata.as_ref(),
        instance_id: &pass.snapshot.instance_id,
        owner: pass.owner_reference(),
        spec,
    };
    Ok(run.object())
}
