//! The blue-green strategy: both versions stand side by side, and one Service switches.

use super::analyses::{self, Purpose};
use super::canary::{hash_label, select, switch};
use super::endpoints;
use super::experiments;
use super::pass::{Pass, later};
use super::snapshot::ReplicaSet;
use crate::events::Event;
use tidegate_crds::analysis::AnalysisPhase;
use tidegate_crds::keys;
use tidegate_crds::rollout::{AnalysisRunRef, BlueGreen, RolloutAnalysis};

/// Seconds for which the old version, or an aborted preview, stays when nothing else is said.
const DEFAULT_DELAY_SECONDS: i64 = 30;

pub(crate) fn run(pass: &mut Pass<'_>, blue_green: &BlueGreen) {
    pass.status.current_step_index = None;
    // Routes and experiments are a canary's, which this Rollout may have had before.
    pass.status.canary.weights = None;
    experiments::end(pass);
    let active = selector(pass, Some(&blue_green.active_service));
    let fast_rollback = is_fast_rollback(pass);
    let halted = pass.halted();

    if !halted && let Some(preview) = &blue_green.preview_service {
        switch_preview(pass, preview);
    }
    if !halted || pass.resized() || pass.status.abort {
        scale(pass, blue_green, &active, fast_rollback);
    }
    if pass.stable_hash().is_empty() {
        // The first version is the stable one from its beginning; the active Service follows when it has all its pods.
        super::conditions::promoted(pass, "Initial deploy");
    }
    for rs in [pass.new_rs(), pass.stable_rs()].into_iter().flatten() {
        pass.remember_replicas(rs);
    }
    pre_promotion(pass, blue_green, &active, fast_rollback);
    let allowed = !halted && !pass.status.abort && may_promote(pass, blue_green, &active, fast_rollback);
    let active = switch_active(pass, blue_green, &active, allowed);
    if pass.status.abort && !pass.promoted() {
        shrink_aborted(pass, blue_green, &active);
    }
    // Until its endpoints are those of the new version, the Service has not switched for those who use it.
    let switched = active == pass.hash
        && !pass.promoted()
        && endpoints::await_reach(pass, &blue_green.active_service, pass.new_rs());
    if switched {
        post_promotion(pass, blue_green, fast_rollback);
    }
    if pass.status.abort && !pass.promoted() {
        pass.clear_pauses();
    } else if !halted && (switched || pass.promoted()) {
        settle(pass, blue_green, fast_rollback);
    }
    analyses::end_others(pass);
    pass.status.blue_green.active_selector = Some(active).filter(|a| !a.is_empty());
    let preview = selector_after(pass, blue_green.preview_service.as_ref());
    pass.status.blue_green.preview_selector = preview;
}

/// The hash behind a Service.
fn selector(pass: &Pass<'_>, name: Option<&String>) -> String {
    name.and_then(|n| pass.snapshot.services.get(n)).map(|s| s.hash().to_owned()).unwrap_or_default()
}

fn selector_after(pass: &Pass<'_>, preview: Option<&String>) -> Option<String> {
    let service = preview.and_then(|n| pass.snapshot.services.get(n))?;
    let hash = if pass.halted() { service.hash().to_owned() } else { pass.hash.clone() };
    Some(hash).filter(|h| !h.is_empty())
}

/// The preview Service follows the newest version at once: nobody but testers reaches it.
fn switch_preview(pass: &mut Pass<'_>, name: &str) {
    let Some(service) = pass.snapshot.services.get(name) else { return };
    if service.hash() == pass.hash && service.managed_by.as_deref() == Some(pass.rollout().name()) {
        return;
    }
    let (from, to) = (service.hash().to_owned(), pass.hash.clone());
    select(pass, name, &from, &to);
}

/// Going back to a version that still stands from before its switch: nothing has to be proven again.
fn is_fast_rollback(pass: &Pass<'_>) -> bool {
    let waiting = pass.new_rs().is_some_and(|rs| {
        rs.deadline().is_some_and(|d| d > pass.now)
            && rs.serving() >= rs.replicas.max(1)
            && rs.revision() > 0
            && !rs.annotations.contains_key(keys::ABORTED)
    });
    // One that is tried again after an abort was not used either.
    !pass.promoted() && !pass.unproven() && !pass.retried && waiting
}

fn scale(pass: &mut Pass<'_>, blue_green: &BlueGreen, active: &str, fast_rollback: bool) {
    let total = pass.replicas();
    let first = pass.unproven();
    if let Some(rs) = pass.stable_rs().filter(|_| !pass.promoted()) {
        let stays = active != pass.hash || pass.status.abort;
        let deadline_passed = !stays && rs.deadline().is_some_and(|d| d <= pass.now);
        let gone = !stays && rs.replicas == 0;
        if deadline_passed || gone {
            // The delay was asked for in so many words, and the new version is in use.
            pass.scale(rs, 0);
        } else {
            if stays {
                pass.keep(rs);
            } else if let Some(deadline) = rs.deadline() {
                pass.wake_at(deadline);
            }
            pass.scale(rs, total);
        }
    }
    let preview_size = blue_green.preview_replica_count.filter(|_| {
        !first
            && active != pass.hash
            && !fast_rollback
            && !pass.promoted()
            && !pass.status.promote_full
            && !pass.status.blue_green.scale_up_preview_check_point
    });
    if !pass.status.abort || pass.promoted() {
        let size = preview_size.unwrap_or(total);
        match pass.new_rs() {
            Some(rs) => {
                // What tells a fast rollback stays until it is done.
                if !fast_rollback {
                    pass.keep(rs);
                }
                pass.scale(rs, size);
            }
            None if size > 0 => {
                let rs =
                    ReplicaSet { name: pass.new_name.clone(), labels: hash_label(&pass.hash), ..ReplicaSet::default() };
                pass.scale(&rs, size);
            }
            None => {}
        }
    }
    shrink_others(pass, blue_green, active);
}

/// An aborted preview stays for its time, never grows, and never goes while users reach it.
fn shrink_aborted(pass: &mut Pass<'_>, blue_green: &BlueGreen, active: &str) {
    let Some(rs) = pass.new_rs().filter(|rs| rs.replicas > 0 && rs.hash() != active) else { return };
    let delay = blue_green.abort_scale_down_delay_seconds.map_or(DEFAULT_DELAY_SECONDS, i64::from);
    if delay == 0 {
        return;
    }
    match rs.deadline() {
        Some(deadline) if deadline <= pass.now => pass.scale(rs, 0),
        Some(deadline) => pass.wake_at(deadline),
        // Once the status says so: as long as it does not, the next pass takes the limit for one that is over.
        None if pass.aborting.is_some() => pass.wake_at(pass.now),
        None => pass.delay_aborted(rs, delay),
    }
}

fn shrink_others(pass: &mut Pass<'_>, blue_green: &BlueGreen, active: &str) {
    let mut others: Vec<_> = pass.others().into_iter().filter(|rs| rs.replicas > 0).collect();
    // The newest first; what was replaced within the same second goes by its age.
    others.sort_by_key(|rs| std::cmp::Reverse((rs.deadline(), rs.revision())));
    let limit = blue_green.scale_down_delay_revision_limit.map_or(usize::MAX, |l| usize::try_from(l).unwrap_or(0));
    let mut waiting = 0;
    for rs in others {
        if rs.hash() == active {
            continue;
        }
        match rs.deadline() {
            Some(deadline) if deadline > pass.now && waiting < limit => {
                waiting += 1;
                pass.wake_at(deadline);
            }
            _ => pass.scale(rs, 0),
        }
    }
}

/// All pods of the new version are there.
fn saturated(pass: &Pass<'_>, size: i32) -> bool {
    pass.new_rs().is_some_and(|rs| rs.replicas == size && rs.available >= size)
}

fn proven_needed(pass: &Pass<'_>, fast_rollback: bool) -> bool {
    !pass.unproven()
        && !pass.promoted()
        && !fast_rollback
        && !pass.status.promote_full
        && !pass.status.abort
        && !super::revisions::in_rollback_window(pass)
}

fn has_metrics(analysis: Option<&RolloutAnalysis>) -> Option<&RolloutAnalysis> {
    analysis.filter(|a| !a.templates.is_empty())
}

fn pre_promotion(pass: &mut Pass<'_>, blue_green: &BlueGreen, active: &str, fast_rollback: bool) {
    let Some(analysis) = has_metrics(blue_green.pre_promotion_analysis.as_ref()) else { return };
    if !proven_needed(pass, fast_rollback) || active == pass.hash {
        return;
    }
    let size = blue_green.preview_replica_count.unwrap_or_else(|| pass.replicas());
    let current = pass.status.blue_green.pre_promotion_analysis_run_status.take();
    pass.status.blue_green.pre_promotion_analysis_run_status =
        if current.is_some() || pass.new_rs().is_some_and(|rs| rs.serving() >= size && size > 0) {
            analyses::keep(pass, analysis, Purpose::PrePromotion, current.as_ref())
        } else {
            None
        };
}

fn successful(run: Option<&AnalysisRunRef>) -> bool {
    run.is_some_and(|r| r.status == AnalysisPhase::Successful)
}

/// The active Service may switch to the new version. Begins and ends the pause before it.
fn may_promote(pass: &mut Pass<'_>, blue_green: &BlueGreen, active: &str, fast_rollback: bool) -> bool {
    let total = pass.replicas();
    if active == pass.hash {
        return true;
    }
    if !proven_needed(pass, fast_rollback) {
        pass.clear_pauses();
        return saturated(pass, total);
    }
    let preview = blue_green.preview_replica_count.unwrap_or(total);
    let size = if pass.status.blue_green.scale_up_preview_check_point { total } else { preview };
    if !saturated(pass, size) {
        return false;
    }
    let pre = has_metrics(blue_green.pre_promotion_analysis.as_ref());
    if pre.is_some() && !successful(pass.status.blue_green.pre_promotion_analysis_run_status.as_ref()) {
        return false;
    }
    if !pass.status.blue_green.scale_up_preview_check_point {
        if !pause_over(pass, blue_green) {
            return false;
        }
        pass.status.blue_green.scale_up_preview_check_point = true;
        if preview != total {
            // The rest of the pods comes with the next pass.
            pass.wake_at(pass.now);
            return false;
        }
    }
    saturated(pass, total)
}

fn pause_over(pass: &mut Pass<'_>, blue_green: &BlueGreen) -> bool {
    let automatic = blue_green.auto_promotion_enabled.unwrap_or(true);
    let seconds = blue_green.auto_promotion_seconds.filter(|s| automatic && *s > 0);
    if automatic && seconds.is_none() {
        return true;
    }
    if pass.resumed() {
        pass.status.controller_pause = false;
        pass.status.pause_conditions = None;
        pass.tell(Event::normal("RolloutResumed", "Rollout is resumed"));
        return true;
    }
    let Some(start) = pass.pause("BlueGreenPause").map(|p| p.start_time.0) else {
        pass.add_pause("BlueGreenPause");
        if let Some(seconds) = seconds {
            pass.wake_after(seconds.into());
        }
        return false;
    };
    let Some(seconds) = seconds else { return false };
    let end = later(start, seconds.into());
    if end > pass.now {
        pass.wake_at(end);
        return false;
    }
    pass.clear_pauses();
    pass.tell(Event::normal("RolloutResumed", "Rollout is resumed"));
    true
}

/// Switches the active Service; gives the hash that is behind it afterwards.
fn switch_active(pass: &mut Pass<'_>, blue_green: &BlueGreen, active: &str, allowed: bool) -> String {
    let stable = pass.stable_hash().to_owned();
    let target = if pass.status.abort && !stable.is_empty() {
        stable
    } else if allowed {
        pass.hash.clone()
    } else {
        return active.to_owned();
    };
    if switch(pass, &blue_green.active_service, &target) { target } else { active.to_owned() }
}

fn post_promotion(pass: &mut Pass<'_>, blue_green: &BlueGreen, fast_rollback: bool) {
    let Some(analysis) = has_metrics(blue_green.post_promotion_analysis.as_ref()) else { return };
    if !proven_needed(pass, fast_rollback) || pass.halted() {
        return;
    }
    let current = pass.status.blue_green.post_promotion_analysis_run_status.take();
    pass.status.blue_green.post_promotion_analysis_run_status =
        analyses::keep(pass, analysis, Purpose::PostPromotion, current.as_ref());
}

/// Makes the new version the stable one once users reach it and it has been proven.
fn settle(pass: &mut Pass<'_>, blue_green: &BlueGreen, fast_rollback: bool) {
    if pass.promoted() || pass.status.abort {
        if pass.promoted() {
            pass.status.promote_full = false;
            pass.status.blue_green.scale_up_preview_check_point = false;
        }
        return;
    }
    let post = has_metrics(blue_green.post_promotion_analysis.as_ref());
    if post.is_some()
        && proven_needed(pass, fast_rollback)
        && !successful(pass.status.blue_green.post_promotion_analysis_run_status.as_ref())
    {
        return;
    }
    // It may have been resized since the switch, or have lost pods; until it is whole, the old version is the way back.
    if !saturated(pass, pass.replicas()) {
        return;
    }
    let reason = if pass.status.promote_full {
        "Full promotion requested"
    } else if fast_rollback {
        "Fast rollback"
    } else if super::revisions::in_rollback_window(pass) {
        "Rollback within window"
    } else {
        "Completed blue-green update"
    };
    if let Some(old) = pass.stable_rs() {
        let delay = blue_green.scale_down_delay_seconds.map_or(DEFAULT_DELAY_SECONDS, i64::from);
        pass.delay_scale_down(old, delay);
    }
    super::conditions::promoted(pass, reason);
}
