//! One pass over one Experiment: what is known, and what was decided so far.

use super::decision::{Action, Decision};
use super::snapshot::Snapshot;
use crate::events::Event;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tidegate_crds::Time;
use tidegate_crds::experiment::{Experiment, ExperimentSpec, ExperimentStatus};

/// One pass over one Experiment.
pub(super) struct Pass<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) now: Timestamp,
    pub(super) status: ExperimentStatus,
    actions: Vec<Action>,
    events: Vec<Event>,
    wake: Option<Timestamp>,
    why: Vec<String>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, now: Timestamp) -> Self {
        Self {
            snapshot,
            now,
            status: snapshot.experiment.status.clone(),
            actions: Vec::new(),
            events: Vec::new(),
            wake: None,
            why: Vec::new(),
        }
    }

    pub(super) fn experiment(&self) -> &'a Experiment {
        &self.snapshot.experiment
    }

    pub(super) fn spec(&self) -> &'a ExperimentSpec {
        &self.snapshot.experiment.spec
    }

    /// The stored status says that the experiment has ended. Only then is anything taken down.
    pub(super) fn has_ended(&self) -> bool {
        self.snapshot.experiment.status.phase.completed()
    }

    /// The experiment has ended, as this pass sees it.
    pub(super) fn ends(&self) -> bool {
        self.status.phase.completed()
    }

    /// The time as objects carry it.
    pub(super) fn time(&self) -> Time {
        Time(crate::api::whole_seconds(self.now))
    }

    /// When the experiment's duration is over; none when it has none or has not begun.
    pub(super) fn finishes_at(&self) -> Option<Timestamp> {
        let duration = tidegate_crds::duration::parse(self.spec().duration.as_deref()?).ok()?;
        let begun = self.snapshot.experiment.status.available_at.as_ref()?.0;
        begun.checked_add(SignedDuration::try_from(duration).ok()?).ok()
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(super) fn because(&mut self, why: impl Into<String>) {
        self.why.push(why.into());
    }

    /// Look again at `at` at the latest.
    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |earlier| earlier.min(at)));
    }

    pub(super) fn after(&self, seconds: i64) -> Timestamp {
        self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(self.now)
    }

    pub(super) fn owner_reference(&self) -> Value {
        let experiment = self.experiment();
        json!([{
            "apiVersion": tidegate_crds::API_VERSION, "kind": Experiment::KIND, "name": experiment.name(),
            "uid": experiment.metadata.uid, "controller": true, "blockOwnerDeletion": true,
        }])
    }

    pub(super) fn finish(self) -> Decision {
        Decision { status: self.status, actions: self.actions, events: self.events, wake: self.wake, why: self.why }
    }
}
