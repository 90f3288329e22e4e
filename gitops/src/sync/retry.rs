//! Whether and when a failed operation is tried again.

use super::OperationPhase;
use jiff::Timestamp;
use std::time::Duration;
use tidegate_crds::application::{OperationState, Retry};
use tidegate_crds::duration;

/// Attempts of an automatic sync whose application does not say how many.
pub const AUTOMATED_LIMIT: i64 = 5;
const BASE: Duration = Duration::from_secs(5);
const FACTOR: i64 = 2;
const LONGEST: Duration = Duration::from_secs(180);

/// The delay before retry number `count` + 1.
///
/// # Errors
/// When a duration of the back-off cannot be read.
pub fn delay(retry: &Retry, count: i64) -> Result<Duration, duration::InvalidDuration> {
    let backoff = retry.backoff.as_ref();
    let parse = |text: Option<&String>, default| match text.filter(|t| !t.is_empty()) {
        Some(text) => duration::parse_or_seconds(text),
        None => Ok(default),
    };
    let base = parse(backoff.and_then(|b| b.duration.as_ref()), BASE)?;
    let longest = parse(backoff.and_then(|b| b.max_duration.as_ref()), LONGEST)?;
    let factor = backoff.and_then(|b| b.factor).unwrap_or(FACTOR).max(1);
    let mut delay = base;
    for _ in 0..count.clamp(0, 1000) {
        let next = delay.checked_mul(u32::try_from(factor).unwrap_or(u32::MAX));
        delay = next.filter(|next| *next < longest).unwrap_or(longest);
        if delay >= longest {
            break;
        }
    }
    Ok(delay.min(longest))
}

/// What becomes of an attempt that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterAttempt {
    /// The operation has ended, with this phase and message.
    Ended(OperationPhase, String),
    /// It stays Running with this message and one more retry.
    Retry {
        /// The message that announces the retry.
        message: String,
    },
}

/// Decides after an attempt ended in `phase` with `message`. `superseded_by` is a revision that automatic sync would
/// take instead by now: then a failed automatic operation is not tried again, so that the newer revision has its turn.
pub fn after_attempt(
    state: &OperationState,
    phase: OperationPhase,
    message: &str,
    terminating: bool,
    superseded_by: Option<&str>,
    now: Timestamp,
) -> AfterAttempt {
    let count = state.retry_count.unwrap_or(0);
    let retried = |message: String| {
        if count > 0 { format!("{message} (retried {count} times).") } else { message }
    };
    if !matches!(phase, OperationPhase::Failed | OperationPhase::Error) || terminating {
        return AfterAttempt::Ended(phase, message.to_owned());
    }
    let retry = state.operation.retry.clone().unwrap_or_default();
    let limit = retry.limit.unwrap_or(0);
    if limit >= 0 && count >= limit {
        return AfterAttempt::Ended(phase, retried(message.to_owned()));
    }
    if state.operation.initiated_by.as_ref().is_some_and(|by| by.automated)
        && let Some(newer) = superseded_by
    {
        return AfterAttempt::Ended(phase, retried(format!("{message}. Not retried: superseded by {newer}.")));
    }
    match delay(&retry, count) {
        Ok(delay) => {
            let at = now.checked_add(delay).unwrap_or(now);
            let at = at.strftime("%-I:%M%p");
            AfterAttempt::Retry { message: format!("{message}. Retrying attempt #{} at {at}.", count + 1) }
        }
        Err(e) => AfterAttempt::Ended(OperationPhase::Error, format!("{message} (failed to retry: {e})")),
    }
}

/// When the retry that is under way begins; `None` when no retry is under way.
pub fn next_attempt(state: &OperationState) -> Option<Timestamp> {
    let count = state.retry_count.filter(|count| *count > 0)?;
    let finished = state.finished_at.as_ref()?;
    if state.phase != OperationPhase::Running.as_str() {
        return None;
    }
    let retry = state.operation.retry.clone().unwrap_or_default();
    let delay = delay(&retry, count - 1).unwrap_or(LONGEST);
    finished.0.checked_add(delay).ok()
}

/// The message of an attempt after the first.
pub fn attempt_message(retry: Option<&Retry>, count: i64) -> String {
    let latest = if retry.is_some_and(|r| r.refresh) { " with latest revisions" } else { "" };
    format!("Retrying operation{latest}. Attempt #{count}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn retry(value: Value) -> Retry {
        serde_json::from_value(value).expect("retry")
    }

    fn state(value: Value) -> OperationState {
        serde_json::from_value(value).expect("state")
    }

    fn now() -> Timestamp {
        "2026-01-01T10:00:00Z".parse().expect("time")
    }

    #[test]
    fn delays_grow_up_to_a_limit() {
        let seconds = |value: Value| {
            (0..8).map(|n| delay(&retry(value.clone()), n).expect("delay").as_secs()).collect::<Vec<_>>()
        };
        assert_eq!(seconds(json!({})), [5, 10, 20, 40, 80, 160, 180, 180]);
        assert_eq!(
            seconds(json!({"backoff": {"duration": "2", "factor": 3, "maxDuration": "1m"}})),
            [2, 6, 18, 54, 60, 60, 60, 60]
        );
        assert_eq!(seconds(json!({"backoff": {"duration": "10s", "maxDuration": "5s"}})), [5; 8]);
        assert!(delay(&retry(json!({"backoff": {"duration": "soon"}})), 0).is_err());
    }

    #[test]
    fn failed_attempts_are_tried_again() {
        use OperationPhase::{Error, Failed, Succeeded};
        let op = |limit: i64, count: i64, automated: bool| {
            state(
                json!({"operation": {"retry": {"limit": limit}, "initiatedBy": {"automated": automated}}, "retryCount": count}),
            )
        };
        let again = |message: &str| AfterAttempt::Retry { message: message.into() };
        let ended = |phase, message: &str| AfterAttempt::Ended(phase, message.into());
        for (state, phase, terminating, newer, expected) in [
            (op(2, 0, false), Succeeded, false, None, ended(Succeeded, "m")),
            (op(0, 0, false), Failed, false, None, ended(Failed, "m")),
            (op(2, 0, false), Failed, false, None, again("m. Retrying attempt #1 at 10:00AM.")),
            (op(2, 1, false), Error, false, None, again("m. Retrying attempt #2 at 10:00AM.")),
            (op(2, 2, false), Failed, false, None, ended(Failed, "m (retried 2 times).")),
            (op(-1, 99, false), Failed, false, None, again("m. Retrying attempt #100 at 10:03AM.")),
            (op(2, 0, false), Failed, true, None, ended(Failed, "m")),
            (
                op(5, 1, true),
                Failed,
                false,
                Some("def"),
                ended(Failed, "m. Not retried: superseded by def. (retried 1 times)."),
            ),
            (op(5, 0, false), Failed, false, Some("def"), again("m. Retrying attempt #1 at 10:00AM.")),
        ] {
            assert_eq!(after_attempt(&state, phase, "m", terminating, newer, now()), expected, "{state:?}");
        }
    }

    #[test]
    fn the_next_attempt_counts_from_the_end_of_the_last() {
        let waiting = state(
            json!({"phase": "Running", "retryCount": 2, "finishedAt": "2026-01-01T10:00:00Z", "operation": {"retry": {"limit": 5}}}),
        );
        assert_eq!(next_attempt(&waiting), "2026-01-01T10:00:10Z".parse().ok());
        for other in [
            json!({"phase": "Running", "retryCount": 0, "finishedAt": "2026-01-01T10:00:00Z"}),
            json!({"phase": "Running", "retryCount": 2}),
            json!({"phase": "Failed", "retryCount": 2, "finishedAt": "2026-01-01T10:00:00Z"}),
        ] {
            assert_eq!(next_attempt(&state(other.clone())), None, "{other}");
        }
        assert_eq!(attempt_message(None, 1), "Retrying operation. Attempt #1");
        assert_eq!(
            attempt_message(Some(&retry(json!({"refresh": true}))), 3),
            "Retrying operation with latest revisions. Attempt #3"
        );
    }
}
