//! Planning a sync: what to apply, in which order, what to wait for, and when it has ended.
//!
//! All of it is pure. The state of a sync lives in `status.operationState` alone, so that a controller which dies between
//! any two writes goes on where it was.

pub mod auto;
mod build;
pub mod delete;
pub mod hook;
pub mod images;
pub mod options;
pub mod order;
pub mod plan;
pub mod record;
pub mod refresh;
pub mod rejected;
pub mod retry;
pub mod task;

use std::fmt;

pub use hook::HOOK_FINALIZER;

/// A phase of a sync, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Before anything is applied.
    PreSync,
    /// Applying.
    Sync,
    /// After everything is healthy.
    PostSync,
    /// After a failure, only.
    SyncFail,
}

impl Phase {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreSync => "PreSync",
            Self::Sync => "Sync",
            Self::PostSync => "PostSync",
            Self::SyncFail => "SyncFail",
        }
    }

    /// The phase that a word names.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::PreSync, Self::Sync, Self::PostSync, Self::SyncFail].into_iter().find(|phase| phase.as_str() == text)
    }
}

/// How far an operation is (`operationState.phase`, and `hookPhase` of its results).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationPhase {
    /// Going on.
    Running,
    /// Being ended by a user or a time limit.
    Terminating,
    /// Ended without success.
    Failed,
    /// Could not be carried out.
    Error,
    /// Ended with success.
    Succeeded,
}

impl OperationPhase {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Terminating => "Terminating",
            Self::Failed => "Failed",
            Self::Error => "Error",
            Self::Succeeded => "Succeeded",
        }
    }

    /// The phase that a word names.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Running, Self::Terminating, Self::Failed, Self::Error, Self::Succeeded]
            .into_iter()
            .find(|phase| phase.as_str() == text)
    }

    /// Nothing more will happen.
    pub fn is_completed(self) -> bool {
        matches!(self, Self::Failed | Self::Error | Self::Succeeded)
    }
}

impl fmt::Display for OperationPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
