//! Taking in what came of a step's writes.

use super::OperationPhase;
use super::plan::{Action, Operation, Step};
use super::task;
use tidegate_crds::application::ResourceResult;

/// What came of one write: the message of a success, or the error.
pub type Outcome = Result<String, String>;

/// Where the operation stands after a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Results so far.
    pub results: Vec<ResourceResult>,
    /// Phase.
    pub phase: OperationPhase,
    /// Message.
    pub message: String,
    /// The next pass has something to do already.
    pub again: bool,
    /// A write for cleaning up failed: the same step comes again, after a while.
    pub error: Option<String>,
}

/// Completes `step` with the outcomes of its writes, one per write in order; `None` for a write that was not tried because
/// an earlier one failed.
pub fn record(step: Step, outcomes: &[Option<Outcome>]) -> Recorded {
    let Step { groups, mut results, phase, message, on_failure, .. } = step;
    let operations: Vec<Operation> = groups.into_iter().flatten().collect();
    let wrote = !operations.is_empty();
    let (mut failed, mut error) = (false, None);
    for (index, operation) in operations.into_iter().enumerate() {
        let outcome = outcomes.get(index).cloned().flatten();
        match (operation.result, outcome) {
            (Some(mut result), Some(Ok(text))) => {
                if matches!(operation.action, Action::Apply { .. }) {
                    result.message = (!text.is_empty()).then_some(text);
                }
                task::upsert(&mut results, *result);
            }
            (Some(mut result), Some(Err(text))) => {
                failed = true;
                result.status = Some("SyncFailed".to_owned());
                result.hook_phase = Some(OperationPhase::Failed.as_str().to_owned());
                result.message = Some(text);
                task::upsert(&mut results, *result);
            }
            (None, Some(Err(text))) => {
                failed = true;
                error.get_or_insert(format!("{}: {text}", operation.key));
            }
            (_, None) => failed = true,
            (None, Some(Ok(_))) => {}
        }
    }
    let (phase, message) = match (failed, on_failure) {
        (false, _) => (phase, message),
        (true, Some(message)) => (OperationPhase::Failed, message),
        // The next pass sees the failed results and knows what to do.
        (true, None) => (OperationPhase::Running, "one or more tasks are running".to_owned()),
    };
    let again = phase == OperationPhase::Running && wrote && error.is_none();
    Recorded { results, phase, message, again, error }
}
