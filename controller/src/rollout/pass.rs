//! One pass over a Rollout: what is known, and what has been decided so far.

use super::decision::{Action, Decision, ReplicaSetChange, Stage};
use super::snapshot::{ReplicaSet, Snapshot};
use crate::events::Event;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_crds::rollout::{PauseCondition, Rollout, RolloutStatus};
use tidegate_crds::{Time, keys};

/// The state of a decision while it is made.
pub(crate) struct Pass<'a> {
    pub snapshot: &'a Snapshot,
    pub now: Timestamp,
    /// The next status.
    pub status: RolloutStatus,
    /// Hash of the current pod template.
    pub hash: String,
    /// Revision of the current pod template.
    pub revision: i64,
    /// Name of the ReplicaSet of the current template.
    pub new_name: String,
    /// The template changed, or the steps did, and the status started over in this pass.
    pub reset: bool,
    /// The user asked for a retry after an abort.
    pub retried: bool,
    /// The user saw an open verdict and goes on all the same.
    pub overruled: bool,
    /// A ReplicaSet's size changes in this pass.
    pub scaled: bool,
    /// The Rollout was marked as aborted in this pass, and why.
    pub aborting: Option<String>,
    actions: Vec<(Stage, Action, Vec<Event>)>,
    changes: BTreeMap<String, ReplicaSetChange>,
    /// What tells of the changes.
    scalings: BTreeMap<String, Event>,
    pub events: Vec<Event>,
    pub wake: Option<Timestamp>,
    pub why: Vec<String>,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, now: Timestamp) -> Self {
        Self {
            snapshot,
            now,
            status: snapshot.rollout.status.clone(),
            hash: String::new(),
            revision: 0,
            new_name: String::new(),
            reset: false,
            retried: false,
            overruled: false,
            scaled: false,
            aborting: None,
            actions: Vec::new(),
            changes: BTreeMap::new(),
            scalings: BTreeMap::new(),
            events: Vec::new(),
            wake: None,
            why: Vec::new(),
        }
    }

    pub(crate) fn rollout(&self) -> &'a Rollout {
        &self.snapshot.rollout
    }

    /// `spec.replicas`.
    pub(crate) fn replicas(&self) -> i32 {
        self.rollout().spec.replicas.unwrap_or(1).max(0)
    }

    /// The time now as the API carries it.
    pub(crate) fn time(&self) -> Time {
        Time(crate::api::whole_seconds(self.now))
    }

    /// The ReplicaSet of the current template, as it was observed. `None` when it does not exist yet.
    pub(crate) fn new_rs(&self) -> Option<&'a ReplicaSet> {
        self.rs_by_hash(&self.hash)
    }

    /// The ReplicaSet of the stable version.
    pub(crate) fn stable_rs(&self) -> Option<&'a ReplicaSet> {
        self.rs_by_hash(self.stable_hash())
    }

    /// Hash of the stable version; empty before the first deployment is complete.
    pub(crate) fn stable_hash(&self) -> &str {
        self.status.stable_rs.as_deref().unwrap_or_default()
    }

    pub(crate) fn rs_by_hash(&self, hash: &str) -> Option<&'a ReplicaSet> {
        self.owned().find(|rs| rs.hash() == hash && !hash.is_empty())
    }

    /// The Rollout's own ReplicaSets, without those of Experiments.
    pub(crate) fn owned(&self) -> impl Iterator<Item = &'a ReplicaSet> + use<'a> {
        self.snapshot.replica_sets.iter().filter(|rs| !rs.of_experiment() && !rs.deleting)
    }

    /// ReplicaSets that are neither the current template's nor the stable one, the oldest first.
    pub(crate) fn others(&self) -> Vec<&'a ReplicaSet> {
        let (hash, stable) = (self.hash.clone(), self.stable_hash().to_owned());
        let mut others: Vec<_> = self.owned().filter(|rs| rs.hash() != hash && rs.hash() != stable).collect();
        others.sort_by(|a, b| (a.created, a.revision(), &a.name).cmp(&(b.created, b.revision(), &b.name)));
        others
    }

    /// The current template is the stable one.
    pub(crate) fn promoted(&self) -> bool {
        !self.stable_hash().is_empty() && self.stable_hash() == self.hash
    }

    /// No version of the Rollout ever came up: the first one failed, and an update has nothing to protect.
    pub(crate) fn unproven(&self) -> bool {
        self.stable_hash().is_empty()
            || (!super::conditions::ever_healthy(&self.status)
                // One that was scaled to nothing did come up.
                && self.stable_rs().is_none_or(|rs| rs.replicas > 0 && rs.available == 0))
    }

    pub(crate) fn act(&mut self, stage: Stage, action: Action) {
        self.actions.push((stage, action, Vec::new()));
    }

    /// Makes an action and tells of it.
    pub(crate) fn act_telling(&mut self, stage: Stage, action: Action, event: Event) {
        self.events.push(event.clone());
        self.actions.push((stage, action, vec![event]));
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(crate) fn because(&mut self, why: impl Into<String>) {
        self.why.push(why.into());
    }

    /// Look again at `at`, or before.
    pub(crate) fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }

    pub(crate) fn wake_after(&mut self, seconds: i64) {
        self.wake_at(later(self.now, seconds));
    }

    /// The size that a ReplicaSet has after this pass.
    pub(crate) fn size(&self, rs: &ReplicaSet) -> i32 {
        self.changes.get(&rs.name).and_then(|c| c.replicas).unwrap_or(rs.replicas)
    }

    /// Sets an annotation of a ReplicaSet, or removes it.
    pub(crate) fn annotate_rs(&mut self, rs: &ReplicaSet, key: &str, value: Option<String>) {
        if rs.annotations.get(key) != value.as_ref() {
            self.changes.entry(rs.name.clone()).or_default().annotations.insert(key.to_owned(), value);
        }
    }

    pub(crate) fn set_min_ready(&mut self, rs: &ReplicaSet, seconds: i32) {
        if rs.min_ready_seconds != seconds {
            self.changes.entry(rs.name.clone()).or_default().min_ready_seconds = Some(seconds);
        }
    }

    /// Scales a ReplicaSet, and tells it.
    pub(crate) fn scale(&mut self, rs: &ReplicaSet, to: i32) {
        let to = to.max(0);
        if self.size(rs) == to {
            return;
        }
        if to > rs.replicas && rs.available > rs.replicas {
            // Pods on their way out would count as there. The ReplicaSet's status brings the next pass.
            return;
        }
        let direction = if to > rs.replicas { "up" } else { "down" };
        let (name, revision, from) = (&rs.name, self.revision_of(rs), rs.replicas);
        let message = format!("Scaled {direction} ReplicaSet {name} (revision {revision}) from {from} to {to}");
        let event = Event::normal("ScalingReplicaSet", message);
        self.tell(event.clone());
        self.scalings.insert(rs.name.clone(), event);
        self.changes.entry(rs.name.clone()).or_default().replicas = Some(to);
        self.scaled = true;
        if to == 0 {
            self.keep(rs);
        }
    }

    fn revision_of(&self, rs: &ReplicaSet) -> i64 {
        if rs.hash() == self.hash { self.revision } else { rs.revision() }
    }

    /// Gives a ReplicaSet until `seconds` from now, unless it has a time already.
    pub(crate) fn delay_scale_down(&mut self, rs: &ReplicaSet, seconds: i64) {
        let now = self.now;
        if let Some(deadline) = rs.deadline().filter(|deadline| *deadline > now) {
            // Set by a pass that could not note why: it stays, whatever this pass thought before.
            if let Some(change) = self.changes.get_mut(&rs.name) {
                change.annotations.remove(keys::SCALE_DOWN_DEADLINE);
            }
            self.wake_at(deadline);
            return;
        }
        let deadline = crate::api::whole_seconds(later(self.now, seconds));
        self.annotate_rs(rs, keys::SCALE_DOWN_DEADLINE, Some(deadline.to_string()));
        self.wake_at(deadline);
    }

    /// As [`Pass::delay_scale_down`], for a version whose update was aborted.
    pub(crate) fn delay_aborted(&mut self, rs: &ReplicaSet, seconds: i64) {
        self.annotate_rs(rs, keys::ABORTED, Some("true".to_owned()));
        self.delay_scale_down(rs, seconds);
    }

    /// Takes the time limit of a ReplicaSet that is in use again, or gone.
    pub(crate) fn keep(&mut self, rs: &ReplicaSet) {
        if rs.annotations.contains_key(keys::SCALE_DOWN_DEADLINE) {
            self.annotate_rs(rs, keys::SCALE_DOWN_DEADLINE, None);
        }
    }

    /// Remembers on a ReplicaSet how many pods the Rollout had when it was last looked at.
    pub(crate) fn remember_replicas(&mut self, rs: &ReplicaSet) {
        let replicas = self.replicas();
        self.annotate_rs(rs, keys::DESIRED_REPLICAS, Some(replicas.to_string()));
    }

    /// The pause condition with this reason.
    pub(crate) fn pause(&self, reason: &str) -> Option<&PauseCondition> {
        self.status.pause_conditions.iter().flatten().find(|p| p.reason == reason)
    }

    /// Pauses, unless it pauses for this reason already.
    pub(crate) fn add_pause(&mut self, reason: &str) {
        if self.pause(reason).is_some() {
            return;
        }
        let condition = PauseCondition { reason: reason.to_owned(), start_time: self.time() };
        self.status.pause_conditions.get_or_insert_default().push(condition);
        self.status.controller_pause = true;
        self.tell(Event::normal("RolloutPaused", format!("Rollout is paused ({reason})")));
        self.because(format!("pauses: {reason}"));
    }

    pub(crate) fn clear_pauses(&mut self) {
        self.status.pause_conditions = None;
        self.status.controller_pause = false;
    }

    /// The controller paused, and somebody took all reasons away: go on.
    pub(crate) fn resumed(&self) -> bool {
        self.status.controller_pause && self.status.pause_conditions.as_ref().is_none_or(Vec::is_empty)
    }

    /// Nothing of the strategy may move: the user paused, or a verdict is open.
    pub(crate) fn halted(&self) -> bool {
        self.rollout().spec.paused
            || self.pause("InconclusiveAnalysisRun").is_some()
            || self.pause("InconclusiveExperiment").is_some()
    }

    /// `spec.replicas` changed since the ReplicaSets were last scaled.
    pub(crate) fn resized(&self) -> bool {
        let replicas = self.replicas();
        [self.new_rs(), self.stable_rs()]
            .into_iter()
            .flatten()
            .any(|rs| rs.desired_replicas().is_some_and(|d| d != replicas))
    }

    /// Takes the update back.
    pub(crate) fn abort(&mut self, reason: String) {
        if !self.status.abort {
            self.because(format!("aborts: {reason}"));
            self.status.abort = true;
            self.aborting = Some(reason);
        }
    }

    /// Owner reference of what the Rollout creates.
    pub(crate) fn owner_reference(&self) -> Value {
        serde_json::json!([{
            "apiVersion": tidegate_crds::API_VERSION,
            "kind": Rollout::KIND,
            "name": self.rollout().name(),
            "uid": self.rollout().metadata.uid.clone().unwrap_or_default(),
            "controller": true,
            "blockOwnerDeletion": true,
        }])
    }

    /// A ReplicaSet that this pass creates is created in its final size: one write less.
    fn put_into_creation(&mut self, name: &str, change: &ReplicaSetChange, scaling: &[Event]) -> bool {
        let creation = self.actions.iter_mut().find_map(|(_, action, news)| match action {
            Action::CreateReplicaSet { name: n, object } if n == name => Some((object, news)),
            _ => None,
        });
        let Some((object, news)) = creation else { return false };
        news.extend_from_slice(scaling);
        if let Some(replicas) = change.replicas {
            object["spec"]["replicas"] = replicas.into();
        }
        for (key, value) in &change.annotations {
            if let Some(value) = value {
                object["metadata"]["annotations"][key.as_str()] = value.as_str().into();
            }
        }
        true
    }

    /// Ends the pass: what grows comes before the traffic, what shrinks after it.
    pub(crate) fn finish(mut self) -> Decision {
        let changes = std::mem::take(&mut self.changes);
        for (name, change) in changes.into_iter().filter(|(_, change)| !change.is_empty()) {
            let news: Vec<Event> = self.scalings.remove(&name).into_iter().collect();
            if self.put_into_creation(&name, &change, &news) {
                continue;
            }
            let before = self.snapshot.replica_sets.iter().find(|rs| rs.name == name).map_or(0, |rs| rs.replicas);
            let stage = if change.replicas.is_some_and(|r| r < before) { Stage::Shrink } else { Stage::Grow };
            self.actions.push((stage, Action::PatchReplicaSet { name, change }, news));
        }
        self.actions.sort_by_key(|(stage, ..)| *stage);
        let (actions, news) = self.actions.into_iter().map(|(_, action, news)| (action, news)).unzip();
        Decision {
            status: self.status,
            actions,
            news,
            events: self.events,
            wake: self.wake,
            why: self.why,
            at: self.now,
        }
    }
}

/// `seconds` after `at`; the end of time when that is too late to tell.
pub(crate) fn later(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}
