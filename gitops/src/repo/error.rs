//! What can go wrong between here and a repository.

/// A failure to read a repository. Every message names the repository without credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepoError {
    #[error("{0}")]
    InvalidUrl(String),
    #[error("repository {repo}: {detail}")]
    InvalidCredentials { repo: String, detail: String },
    #[error("repository {repo}: authentication failed: {detail}")]
    Authentication { repo: String, detail: String },
    #[error("repository {repo}: repository not found: {detail}")]
    RepositoryNotFound { repo: String, detail: String },
    #[error("repository {repo}: the host's key is not known: {detail}")]
    HostKey { repo: String, detail: String },
    #[error("repository {repo}: the server's certificate is not trusted: {detail}")]
    Certificate { repo: String, detail: String },
    #[error("repository {repo}: host cannot be reached: {detail}")]
    Unreachable { repo: String, detail: String },
    #[error("repository {repo}: {operation} did not end within {seconds} s")]
    Timeout { repo: String, operation: String, seconds: u64 },
    #[error("repository {repo}: unable to resolve '{revision}' to a commit SHA")]
    UnknownRevision { repo: String, revision: String },
    #[error("repository {repo}: commit {commit} is not there: {detail}")]
    CommitNotFound { repo: String, commit: String, detail: String },
    #[error("repository {repo}, revision {revision}: {path}: app path does not exist")]
    PathNotFound { repo: String, revision: String, path: String },
    #[error("repository {repo}, revision {revision}: {path}: {detail}")]
    Path { repo: String, revision: String, path: String, detail: String },
    #[error("repository {repo}: {operation} failed: {detail}")]
    Git { repo: String, operation: String, detail: String },
    #[error("repository {repo}: local cache: {detail}")]
    Cache { repo: String, detail: String },
}

impl RepoError {
    /// True when the same question may get another answer later without anything changing in the Application.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            RepoError::Unreachable { .. }
                | RepoError::Timeout { .. }
                | RepoError::Git { .. }
                | RepoError::Cache { .. }
                | RepoError::Authentication { .. }
                | RepoError::RepositoryNotFound { .. }
        )
    }

    /// Sorts what Git wrote on standard error (in the C locale, already without secrets) into a variant.
    pub(crate) fn classify(repo: &str, operation: &str, stderr: &str) -> RepoError {
        let lower = stderr.to_lowercase();
        let has = |needles: &[&str]| needles.iter().any(|n| lower.contains(n));
        let repo = repo.to_string();
        let detail = summary(stderr);
        if has(&["host key verification failed", "no host key is known", "remote host identification has changed"]) {
            RepoError::HostKey { repo, detail }
        } else if has(&[
            "ssl certificate problem",
            "server certificate verification failed",
            "certificate verify failed",
            "ssl certificate verification",
            "no alternative certificate subject name",
            "does not match target host name",
        ]) {
            RepoError::Certificate { repo, detail }
        } else if has(&[
            "authentication failed",
            "could not read username",
            "could not read password",
            "terminal prompts disabled",
            "permission denied (",
            "permission denied, please try again",
            "returned error: 401",
            "returned error: 403",
            "invalid username or password",
            "access denied",
            "too many authentication failures",
            "invalid format",
            "error in libcrypto",
        ]) {
            RepoError::Authentication { repo, detail }
        } else if has(&[
            "repository not found",
            "does not appear to be a git repository",
            "returned error: 404",
            "' not found",
            "does not exist",
            "not a git repository",
            "project you were looking for could not be found",
            "no such file or directory",
            "not valid: is this a git repository",
        ]) {
            RepoError::RepositoryNotFound { repo, detail }
        } else if has(&[
            "could not resolve",
            "failed to connect",
            "couldn't connect",
            "connection refused",
            "connection timed out",
            "operation timed out",
            "connection reset",
            "no route to host",
            "network is unreachable",
            "connection closed",
            "empty reply from server",
            "early eof",
            "the remote end hung up",
            "returned error: 5",
            "returned error: 429",
            "temporary failure in name resolution",
        ]) {
            RepoError::Unreachable { repo, detail }
        } else {
            RepoError::Git { repo, operation: operation.to_string(), detail }
        }
    }
}

/// The lines that say something, in one line of bounded length.
fn summary(stderr: &str) -> String {
    let lines: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with("hint:") && !l.starts_with("warning:") && !l.starts_with("@@@"))
        .collect();
    let mut text = lines.join("; ");
    if text.len() > 600 {
        let cut = (0..=600).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    if text.is_empty() { "git gave no reason".to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_failures_are_told_apart() {
        type Check = fn(&RepoError) -> bool;
        let cases: [(&str, Check); 12] = [
            ("fatal: could not read Username for 'https://h': terminal prompts disabled", |e| {
                matches!(e, RepoError::Authentication { .. })
            }),
            ("fatal: Authentication failed for 'https://h/r/'", |e| matches!(e, RepoError::Authentication { .. })),
            ("git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.", |e| {
                matches!(e, RepoError::Authentication { .. })
            }),
            ("fatal: unable to access 'x': The requested URL returned error: 403", |e| {
                matches!(e, RepoError::Authentication { .. })
            }),
            ("remote: Repository not found.\nfatal: repository 'https://h/r/' not found", |e| {
                matches!(e, RepoError::RepositoryNotFound { .. })
            }),
            ("fatal: '/srv/x' does not appear to be a git repository", |e| {
                matches!(e, RepoError::RepositoryNotFound { .. })
            }),
            ("Host key verification failed.\nfatal: Could not read from remote repository.", |e| {
                matches!(e, RepoError::HostKey { .. })
            }),
            ("fatal: unable to access 'x': SSL certificate problem: self-signed certificate", |e| {
                matches!(e, RepoError::Certificate { .. })
            }),
            ("fatal: unable to access 'x': Could not resolve host: nowhere.invalid", |e| {
                matches!(e, RepoError::Unreachable { .. })
            }),
            ("fatal: unable to access 'x': Failed to connect to 127.0.0.1 port 1: Connection refused", |e| {
                matches!(e, RepoError::Unreachable { .. })
            }),
            ("fatal: unable to access 'x': The requested URL returned error: 503", |e| {
                matches!(e, RepoError::Unreachable { .. })
            }),
            ("fatal: something else", |e| matches!(e, RepoError::Git { .. })),
        ];
        for (stderr, check) in cases {
            let error = RepoError::classify("https://h/r", "ls-remote", stderr);
            assert!(check(&error), "{stderr}: {error:?}");
            assert!(error.to_string().contains("https://h/r"));
        }
    }

    #[test]
    fn long_output_is_cut_at_a_character() {
        let error = RepoError::classify("r", "fetch", &"ü".repeat(2000)).to_string();
        assert!(error.len() < 800 && error.ends_with('…'));
    }
}
