//! AnalysisRuns of a Rollout: which are wanted, what their verdict means, and how many are kept.

use super::canary::Position;
use super::decision::{Action, Stage};
use super::pass::Pass;
use super::replicas;
use crate::analysis_run::NewRun;
use crate::events::Event;
use serde_json::Value;
use tidegate_analysis::template;
use tidegate_crds::analysis::{AnalysisPhase, AnalysisRun};
use tidegate_crds::keys;
use tidegate_crds::rollout::{AnalysisRunRef, Canary, RolloutAnalysis};

/// What an AnalysisRun is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The current step.
    Step(usize),
    /// Beside the steps.
    Background,
    /// Before the switch.
    PrePromotion,
    /// After the switch.
    PostPromotion,
}

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            Self::Step(_) => "Step",
            Self::Background => "Background",
            Self::PrePromotion => "PrePromotion",
            Self::PostPromotion => "PostPromotion",
        }
    }

    fn suffix(self) -> String {
        match self {
            Self::Step(index) => format!("-{index}"),
            Self::Background => String::new(),
            Self::PrePromotion => "-pre".to_owned(),
            Self::PostPromotion => "-post".to_owned(),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Step(_) => "Step-based analysis phase error/failed",
            Self::Background => "Background analysis phase error/failed",
            Self::PrePromotion => "Blue/green pre-promotion analysis phase error/failed",
            Self::PostPromotion => "Blue/green post-promotion analysis phase error/failed",
        }
    }
}

/// The runs of a canary.
pub(crate) fn canary(pass: &mut Pass<'_>, canary: &Canary, at: Position) {
    let idle = pass.promoted() || pass.unproven() || pass.status.abort || pass.status.promote_full;
    let steps = replicas::steps(canary);
    let background = canary.analysis.as_ref().filter(|a| {
        let start = usize::try_from(a.starting_step.unwrap_or(0)).unwrap_or(0);
        !idle && at.index >= start && !a.analysis.templates.is_empty()
    });
    let current = pass.status.canary.current_background_analysis_run_status.take();
    pass.status.canary.current_background_analysis_run_status =
        background.and_then(|a| keep(pass, &a.analysis, Purpose::Background, current.as_ref()));
    let step = steps.get(at.index).and_then(|s| s.analysis.as_ref()).filter(|_| !idle);
    let current = pass.status.canary.current_step_analysis_run_status.take();
    pass.status.canary.current_step_analysis_run_status =
        step.and_then(|a| keep(pass, a, Purpose::Step(at.index), current.as_ref()));
    // Aborted runs stay visible until the next update.
    if pass.status.abort {
        let before = &pass.rollout().status.canary;
        if !pass.reset {
            pass.status.canary.current_step_analysis_run_status = before.current_step_analysis_run_status.clone();
            pass.status.canary.current_background_analysis_run_status =
                before.current_background_analysis_run_status.clone();
            refresh_all(pass);
        }
    }
    end_others(pass);
}

fn refresh_all(pass: &mut Pass<'_>) {
    let runs = &pass.snapshot.analysis_runs;
    let refresh = |reference: &mut Option<AnalysisRunRef>| {
        if let Some(reference) = reference
            && let Some(run) = runs.iter().find(|r| r.name() == reference.name)
        {
            reference.status = run.status.phase;
            reference.message = run.status.message.clone();
        }
    };
    refresh(&mut pass.status.canary.current_step_analysis_run_status);
    refresh(&mut pass.status.canary.current_background_analysis_run_status);
    refresh(&mut pass.status.blue_green.pre_promotion_analysis_run_status);
    refresh(&mut pass.status.blue_green.post_promotion_analysis_run_status);
}

/// The current step's run was successful.
pub(crate) fn step_succeeded(pass: &Pass<'_>) -> bool {
    pass.status.canary.current_step_analysis_run_status.as_ref().is_some_and(|r| r.status == AnalysisPhase::Successful)
}

/// Keeps a run going, makes it when it is missing, and draws the conclusion from its verdict.
pub(crate) fn keep(
    pass: &mut Pass<'_>,
    analysis: &RolloutAnalysis,
    purpose: Purpose,
    current: Option<&AnalysisRunRef>,
) -> Option<AnalysisRunRef> {
    let before = current.and_then(|c| pass.snapshot.analysis_runs.iter().find(|r| r.name() == c.name));
    let resumed = pass.resumed();
    let replace = match before {
        None => true,
        // The user looked at an open verdict and wants to go on.
        Some(run) => run.status.phase == AnalysisPhase::Inconclusive && resumed,
    };
    let Some(run) = before.filter(|_| !replace) else {
        if pass.halted() || pass.new_rs().is_none() {
            return current.cloned();
        }
        // The same promotion ends a pause, if one was open beside the verdict.
        pass.overruled |= before.is_some();
        return make(pass, analysis, purpose, before);
    };
    let phase = run.status.phase;
    if current.is_some_and(|c| c.status != phase) {
        let event = format!("AnalysisRun{}", phase.as_str());
        let of = match purpose {
            Purpose::Step(_) => "Step",
            other => other.label(),
        };
        let text = format!(
            "{of} Analysis Run '{}' Status New: '{}' Previous: '{}'",
            run.name(),
            phase.as_str(),
            current.map_or("", |c| c.status.as_str())
        );
        pass.tell(if matches!(phase, AnalysisPhase::Failed | AnalysisPhase::Error) {
            Event::warning(&event, text)
        } else {
            Event::normal(&event, text)
        });
    }
    match phase {
        AnalysisPhase::Failed | AnalysisPhase::Error => {
            let message = run.status.message.clone().unwrap_or_default();
            pass.abort(format!("{}: {message}", purpose.words()));
        }
        AnalysisPhase::Inconclusive => pass.add_pause("InconclusiveAnalysisRun"),
        _ => {}
    }
    Some(AnalysisRunRef { name: run.name().to_owned(), status: phase, message: run.status.message.clone() })
}

/// Makes a run, or takes the one that an earlier pass made and could not note.
fn make(
    pass: &mut Pass<'_>,
    analysis: &RolloutAnalysis,
    purpose: Purpose,
    replaced: Option<&AnalysisRun>,
) -> Option<AnalysisRunRef> {
    let rollout = pass.rollout();
    let base = format!("{}-{}-{}{}", rollout.name(), pass.hash, pass.revision, purpose.suffix());
    let mut name = base.clone();
    let mut attempt = 0;
    while let Some(existing) = pass.snapshot.analysis_runs.iter().find(|r| r.name() == name) {
        let finished = existing.status.phase.completed() || existing.spec.terminate;
        if !finished && !pass.retried && replaced.is_none_or(|r| r.name() != name) {
            return Some(AnalysisRunRef {
                name,
                status: existing.status.phase,
                message: existing.status.message.clone(),
            });
        }
        attempt += 1;
        name = format!("{base}.{attempt}");
    }
    let object = match object(pass, analysis, purpose, &name) {
        Ok(object) => object,
        Err(error) => {
            let field = match purpose {
                Purpose::Step(index) => format!("spec.strategy.canary.steps[{index}].analysis"),
                Purpose::Background => "spec.strategy.canary.analysis".to_owned(),
                Purpose::PrePromotion => "spec.strategy.blueGreen.prePromotionAnalysis".to_owned(),
                Purpose::PostPromotion => "spec.strategy.blueGreen.postPromotionAnalysis".to_owned(),
            };
            let text = format!("cannot make AnalysisRun {name} from {field}: {error}");
            pass.tell(Event::warning("ReconciliationError", text.clone()));
            pass.because(text);
            pass.wake_after(20);
            return None;
        }
    };
    pass.because(format!("starts AnalysisRun {name}"));
    pass.act(Stage::Judge, Action::CreateAnalysisRun { object });
    Some(AnalysisRunRef { name, status: AnalysisPhase::Unset, message: None })
}

fn object(
    pass: &Pass<'_>,
    analysis: &RolloutAnalysis,
    purpose: Purpose,
    name: &str,
) -> Result<Value, template::TemplateError> {
    let rollout = pass.rollout();
    let whole = serde_json::to_value(rollout).unwrap_or_default();
    let args = template::resolve_args(&analysis.args, &whole, pass.stable_hash(), &pass.hash)?;
    let spec = template::run_spec(
        &analysis.templates,
        &pass.snapshot.templates,
        &args,
        &analysis.dry_run,
        &analysis.measurement_retention,
    )?;
    let mut labels = rollout.spec.selector.as_ref().and_then(|s| s.match_labels.clone()).unwrap_or_default();
    labels.insert(keys::POD_TEMPLATE_HASH.to_owned(), pass.hash.clone());
    labels.insert(keys::ROLLOUT_TYPE.to_owned(), purpose.label().to_owned());
    if let Purpose::Step(index) = purpose {
        labels.insert(keys::STEP_INDEX.to_owned(), index.to_string());
    }
    let run = NewRun {
        name,
        namespace: rollout.namespace(),
        labels,
        annotations: [(keys::REVISION.to_owned(), pass.revision.to_string())].into(),
        metadata: analysis.analysis_run_metadata.as_ref(),
        instance_id: &pass.snapshot.instance_id,
        owner: pass.owner_reference(),
        spec,
    };
    Ok(run.object())
}

/// Ends the runs that are not wanted any more, and deletes those beyond the history limits.
pub(crate) fn end_others(pass: &mut Pass<'_>) {
    let status = &pass.status;
    let mut wanted: Vec<String> = Vec::new();
    let mut referenced: Vec<String> = Vec::new();
    for reference in [
        &status.canary.current_step_analysis_run_status,
        &status.canary.current_background_analysis_run_status,
        &status.blue_green.pre_promotion_analysis_run_status,
        &status.blue_green.post_promotion_analysis_run_status,
    ]
    .into_iter()
    .flatten()
    {
        referenced.push(reference.name.clone());
        if !status.abort && !status.promote_full {
            wanted.push(reference.name.clone());
        }
    }
    let experiments: Vec<&str> = pass.snapshot.experiments.iter().map(|e| e.name()).collect();
    let mut finished: Vec<&AnalysisRun> = Vec::new();
    for run in &pass.snapshot.analysis_runs {
        let owned =
            run.metadata.owner_references.iter().flatten().any(|o| {
                Some(&o.uid) == pass.rollout().metadata.uid.as_ref() || experiments.contains(&o.name.as_str())
            });
        if !owned || run.metadata.deletion_timestamp.is_some() {
            continue;
        }
        if run.status.phase.completed() {
            if !referenced.iter().any(|n| n == run.name()) {
                finished.push(run);
            }
        } else if !run.spec.terminate && !wanted.iter().any(|n| n == run.name()) {
            pass.why.push(format!("ends AnalysisRun {}: it is not needed any more", run.name()));
            pass.act(Stage::Judge, Action::TerminateAnalysisRun { name: run.name().to_owned() });
        }
    }
    let history = pass.rollout().spec.analysis.clone().unwrap_or_default();
    let known = |run: &AnalysisRun| {
        let hash = run.metadata.labels.as_ref().and_then(|l| l.get(keys::POD_TEMPLATE_HASH));
        hash.is_some_and(|h| pass.snapshot.replica_sets.iter().any(|rs| rs.hash() == h) || *h == pass.hash)
    };
    let mut gone: Vec<&AnalysisRun> = finished.iter().copied().filter(|r| !known(r)).collect();
    for (successful, limit) in
        [(true, history.successful_run_history_limit), (false, history.unsuccessful_run_history_limit)]
    {
        let limit = usize::try_from(limit.unwrap_or(5)).unwrap_or(0);
        let mut kept: Vec<_> = finished
            .iter()
            .copied()
            .filter(|r| known(r) && (r.status.phase == AnalysisPhase::Successful) == successful)
            .collect();
        kept.sort_by_key(|r| (r.metadata.creation_timestamp.as_ref().map(|t| t.0), r.name().to_owned()));
        let beyond = kept.len().saturating_sub(limit);
        gone.extend(kept.into_iter().take(beyond));
    }
    for run in gone {
        let uid = run.metadata.uid.clone().unwrap_or_default();
        pass.act(Stage::Clean, Action::DeleteAnalysisRun { name: run.name().to_owned(), uid });
    }
}
