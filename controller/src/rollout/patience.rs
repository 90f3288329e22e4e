//! Statuses that may wait: counts of pods, which change with every pod that comes, and which nobody waits for.

use super::decision::Decision;
use crate::cache::Key;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use tidegate_crds::rollout::RolloutStatus;

/// For how long a status that differs only in its counts may wait for more of its kind.
const COUNTS_WAIT: SignedDuration = SignedDuration::from_millis(500);
/// How much longer for each other one that waits: where hundreds of Rollouts are updated at the same time, the API server
/// has better to do than to take down every pod that came.
const FOR_EACH_OTHER: SignedDuration = SignedDuration::from_millis(50);
/// The longest.
const COUNTS_WAIT_MAX: SignedDuration = SignedDuration::from_secs(5);

/// Which Rollouts have counts that wait to be written, and until when.
#[derive(Debug, Default)]
pub struct Patience {
    waiting: HashMap<Key, Wait>,
}

#[derive(Debug)]
struct Wait {
    since: Timestamp,
    until: Timestamp,
}

impl Patience {
    /// Leaves a status out of `decision` that may wait; gives the time for which it may. `None`: write it now.
    pub fn hold(
        &mut self,
        key: &Key,
        decision: &mut Decision,
        before: &RolloutStatus,
        now: Timestamp,
    ) -> Option<SignedDuration> {
        if !decision.only_counts(before) {
            self.forget(key);
            return None;
        }
        let others = i32::try_from(self.waiting.len()).unwrap_or(i32::MAX);
        let wait = self.waiting.entry(key.clone()).or_insert_with(|| {
            let length = COUNTS_WAIT.saturating_add(FOR_EACH_OTHER.saturating_mul(others)).min(COUNTS_WAIT_MAX);
            Wait { since: now, until: now.saturating_add(length).unwrap_or(now) }
        });
        if now >= wait.until || now < wait.since {
            self.forget(key);
            return None;
        }
        decision.status = before.clone();
        Some(wait.until.duration_since(now))
    }

    /// Nothing waits any more.
    pub fn forget(&mut self, key: &Key) {
        self.waiting.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_wait_and_all_else_takes_them_along() {
        let (mut patience, key) = (Patience::default(), Key::new("shop", "web"));
        let before = RolloutStatus { phase: Some("Progressing".to_owned()), ..RolloutStatus::default() };
        let at = |millis: i64| Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap();
        let ready = |pods: i32, phase: &str| Decision {
            status: RolloutStatus { ready_replicas: Some(pods), phase: Some(phase.to_owned()), ..before.clone() },
            ..Decision::default()
        };
        let mut first = ready(1, "Progressing");
        assert_eq!(patience.hold(&key, &mut first, &before, at(0)), Some(COUNTS_WAIT));
        assert_eq!(first.status, before, "left as it is");
        let mut second = ready(2, "Progressing");
        assert_eq!(patience.hold(&key, &mut second, &before, at(300)), Some(SignedDuration::from_millis(200)));
        let mut third = ready(3, "Progressing");
        assert_eq!(patience.hold(&key, &mut third, &before, at(500)), None, "its time is over");
        assert_eq!(third.status.ready_replicas, Some(3));
        let mut again = ready(4, "Progressing");
        assert_eq!(patience.hold(&key, &mut again, &before, at(600)), Some(COUNTS_WAIT));
        let mut healthy = ready(5, "Healthy");
        assert_eq!(patience.hold(&key, &mut healthy, &before, at(610)), None);
        assert_eq!(healthy.status.ready_replicas, Some(5));
        assert!(patience.waiting.is_empty());
        let mut same = Decision { status: before.clone(), ..Decision::default() };
        assert_eq!(patience.hold(&key, &mut same, &before, at(700)), None);
    }

    #[test]
    fn counts_of_many_wait_longer_but_not_for_ever() {
        let mut patience = Patience::default();
        let (before, now) = (RolloutStatus::default(), Timestamp::from_second(1_800_000_000).unwrap());
        let mut wait = |number: i32| {
            let status = RolloutStatus { ready_replicas: Some(1), ..RolloutStatus::default() };
            let mut decision = Decision { status, ..Decision::default() };
            patience.hold(&Key::new("shop", &number.to_string()), &mut decision, &before, now)
        };
        let waits: Vec<_> = (0..300).map(&mut wait).collect();
        assert_eq!(waits[0], Some(COUNTS_WAIT));
        assert_eq!(waits[20], Some(SignedDuration::from_millis(1500)));
        assert_eq!(waits[299], Some(COUNTS_WAIT_MAX));
        assert_eq!(wait(0), Some(COUNTS_WAIT), "it keeps the time that it was given");
    }
}
