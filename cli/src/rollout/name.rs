//! The positional arguments that most commands share.

use clap::Args;

/// Names of Rollouts.
#[derive(Args, Clone, Debug)]
pub struct Rollouts {
    /// Names of Rollouts
    #[arg(value_name = "ROLLOUT", required = true)]
    pub names: Vec<String>,
}
