//! How a command ends when it does not succeed.

use std::fmt;

/// Ends the process with a certain exit code; the message goes to standard error when there is one.
///
/// Anything else that goes wrong ends with the general exit code of the grammar in use: 1, or 20 for `app` commands.
#[derive(Debug)]
pub struct Exit {
    /// The exit code.
    pub code: u8,
    /// What to say, without a prefix.
    pub message: Option<String>,
}

impl Exit {
    /// Ends with `code` and says nothing more.
    pub fn silently(code: u8) -> anyhow::Error {
        anyhow::Error::new(Self { code, message: None })
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.as_deref().unwrap_or("failed"))
    }
}

impl std::error::Error for Exit {}

/// The text of an error for a person: what the API server said when it was the one who refused, else the whole chain.
pub fn text(error: &anyhow::Error) -> String {
    let mut said = Vec::new();
    for cause in error.chain() {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref::<kube::Error>()
            && !status.message.is_empty()
        {
            said.push(status.message.clone());
            return said.join(": ");
        }
        said.push(cause.to_string());
    }
    said.join(": ")
}

/// Whether the API server says that the object (or the subresource) does not exist.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether somebody else changed the object in between.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    fn refused() -> kube::Error {
        let status = kube::core::Status::failure("rollouts.argoproj.io \"web\" not found", "NotFound").with_code(404);
        kube::Error::Api(Box::new(status))
    }

    #[test]
    fn says_what_the_api_server_said() {
        assert_eq!(text(&anyhow::Error::new(refused())), "rollouts.argoproj.io \"web\" not found");
        let with_context = Err::<(), _>(refused()).context("reading it").unwrap_err();
        assert_eq!(text(&with_context), "reading it: rollouts.argoproj.io \"web\" not found");
        assert_eq!(text(&anyhow::anyhow!("inner").context("outer")), "outer: inner");
        assert!(is_not_found(&refused()));
        assert!(!is_conflict(&refused()));
    }
}
