//! Statuses that may wait: counts of pods, which change with every pod that comes, and which nobody waits for.

use super::decision::Decision;
use crate::cache::Key;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use tidegate_crds::rollout::RolloutStatus;

/// For how long a status that differs only in its counts may wait for more of its kind.
const COUNTS_WAIT: SignedDuration = SignedDuration::from_millis(500);

/// Which Rollouts have counts that wait to be written, and since when.
#[derive(Debug, Default)]
pub struct Patience {
    since: HashMap<Key, Timestamp>,
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
        let waited = now.duration_since(*self.since.entry(key.clone()).or_insert(now));
        if waited >= COUNTS_WAIT || waited.is_negative() {
            self.forget(key);
            return None;
        }
        decision.status = before.clone();
        Some(COUNTS_WAIT - waited)
    }

    /// Nothing waits any more.
    pub fn forget(&mut self, key: &Key) {
        self.since.remove(key);
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
        assert!(patience.since.is_empty());
        let mut same = Decision { status: before.clone(), ..Decision::default() };
        assert_eq!(patience.hold(&key, &mut same, &before, at(700)), None);
    }
}
