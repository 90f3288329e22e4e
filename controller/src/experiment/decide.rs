//! The decision about one Experiment: pure, and the same in the controller and in the tests.
//!
//! It follows what is, never which event came: called twice on the same snapshot it decides the same.

use super::decision::Decision;
use super::pass::Pass;
use super::snapshot::Snapshot;
use super::{analyses, conditions, validate, variants};
use crate::events::Event;
use k8s_openapi::jiff::Timestamp;
use tidegate_crds::analysis::AnalysisPhase;

/// Seconds after which an invalid Experiment is looked at again.
const INVALID_RECHECK_SECONDS: i64 = 20;
/// What the status says when all required analyses were successful.
const REQUIRED_COMPLETED: &str = "Required AnalysisRuns completed";

/// What is to be done about the Experiment of `snapshot` at `now`.
pub fn decide(snapshot: &Snapshot, now: Timestamp) -> Decision {
    let mut pass = Pass::new(snapshot, now);
    if snapshot.experiment.metadata.deletion_timestamp.is_some() {
        return pass.finish();
    }
    if !pass.has_ended() && !pass.spec().terminate {
        if let Some(problem) = validate::first(snapshot) {
            refuse(&mut pass, &problem);
            return pass.finish();
        }
        conditions::valid(&mut pass);
    }
    variants::assess(&mut pass);
    analyses::refresh(&mut pass);
    judge(&mut pass);
    if !pass.has_ended() {
        variants::drop_strangers(&mut pass);
    }
    if !pass.ends() {
        if analyses::start(&mut pass) {
            judge(&mut pass);
        }
        if let Some(at) = pass.finishes_at().filter(|at| *at > now) {
            pass.wake_at(at);
        }
    }
    if pass.ends() {
        variants::close(&mut pass);
    }
    if pass.has_ended() {
        variants::take_down(&mut pass);
        analyses::end(&mut pass);
    }
    conditions::progress(&mut pass);
    tell_phase(&mut pass);
    pass.finish()
}

/// Tells when the phase is another one than before.
fn tell_phase(pass: &mut Pass<'_>) {
    let (from, to) = (pass.snapshot.experiment.status.phase, pass.status.phase);
    if from == to {
        return;
    }
    let (reason, text) = (format!("Experiment{}", to.as_str()), format!("from {} -> {}", from.as_str(), to.as_str()));
    let text = format!("Experiment transitioned {text}");
    let bad = matches!(to, AnalysisPhase::Failed | AnalysisPhase::Error | AnalysisPhase::Inconclusive);
    pass.tell(if bad { Event::warning(&reason, text) } else { Event::normal(&reason, text) });
}

/// An invalid Experiment does nothing until it is mended. What it names may yet come, for as long as its variants would
/// have to get ready.
fn refuse(pass: &mut Pass<'_>, problem: &validate::Trouble) {
    conditions::invalid(pass, &problem.text);
    pass.wake_at(pass.after(INVALID_RECHECK_SECONDS));
    if !problem.may_come {
        return;
    }
    let Some(since) = conditions::invalid_since(pass) else { return };
    let waited = pass.now.duration_since(since).as_secs();
    let patience = variants::progress_deadline(pass.spec());
    if waited > patience {
        pass.status.phase = AnalysisPhase::Error;
        pass.status.message = Some(problem.text.clone());
        conditions::progress(pass);
        pass.because(format!("ends: for {waited}s {}", problem.text));
    }
}

/// Draws the conclusion from variants and analyses.
fn judge(pass: &mut Pass<'_>) {
    if pass.ends() {
        return;
    }
    let (variants, message) = variants::worst(pass);
    if variants == AnalysisPhase::Running && pass.status.available_at.is_none() {
        pass.status.available_at = Some(pass.time());
        pass.because("all variants are available");
    }
    let (phase, message) = match variants {
        AnalysisPhase::Failed | AnalysisPhase::Error => (variants, message),
        _ => match analyses::bad(pass) {
            Some((phase, message)) => (phase, message),
            None => good(pass, variants, message),
        },
    };
    if phase.completed() {
        let why = message.as_deref().unwrap_or("its time is over or somebody ends it");
        pass.because(format!("ends {}: {why}", phase.as_str()));
    }
    pass.status.phase = phase;
    pass.status.message = message;
}

/// Nothing is wrong with any analysis, nor with a variant.
fn good(pass: &Pass<'_>, variants: AnalysisPhase, message: Option<String>) -> (AnalysisPhase, Option<String>) {
    if pass.spec().terminate && variants.completed() {
        return (variants, message);
    }
    match analyses::required(pass) {
        Some(true) => (AnalysisPhase::Successful, Some(REQUIRED_COMPLETED.to_owned())),
        // The variants have done their time, and go on until the last required verdict is there.
        Some(false) if variants.completed() => (AnalysisPhase::Running, None),
        _ => (variants, message),
    }
}
