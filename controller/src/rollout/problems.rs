//! The first thing that is wrong with a Rollout.

use super::snapshot::Snapshot;

/// The first problem, in the words of the InvalidSpec condition.
pub(crate) fn first(_snapshot: &Snapshot) -> Option<String> {
    None
}
