//! Webhooks of Git servers: whether they are genuine, what they say, and whom it concerns. Pure: nothing is asked and
//! nothing is written here.

mod matching;
mod payload;

pub use matching::{Concerns, Matcher, concerns, generate_paths};

use std::collections::BTreeSet;

use aws_lc_rs::hmac;
use serde_json::Value;

use crate::secret::Sensitive;

/// Who sent a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    GitHub,
    GitLab,
    Gitea,
    Gogs,
}

impl Provider {
    /// The key of `argocd-secret` that holds the shared secret. Gitea has a key of its own and may use that of Gogs.
    pub fn secret_keys(self) -> &'static [&'static str] {
        match self {
            Provider::GitHub => &["webhook.github.secret"],
            Provider::GitLab => &["webhook.gitlab.secret"],
            Provider::Gitea => &["webhook.gitea.secret", "webhook.gogs.secret"],
            Provider::Gogs => &["webhook.gogs.secret"],
        }
    }
}

/// A push, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Push {
    /// The repository under every URL that the server names: https, ssh, `git@host:path`.
    pub repo_urls: BTreeSet<String>,
    /// `refs/heads/main` or `refs/tags/v1`.
    pub reference: String,
    /// The commit before; empty when the ref is new.
    pub before: String,
    /// The commit after; empty when the ref was deleted.
    pub after: String,
    /// True when the pushed branch is the repository's default branch, which `HEAD` names.
    pub default_branch: bool,
    /// Paths that changed. None when the payload does not say, or not all of it: anything may have changed.
    pub changed_files: Option<BTreeSet<String>>,
}

/// What a genuine webhook means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Push(Push),
    /// A ping, or an event that changes no manifests: answer 200 and do nothing.
    Ignored(String),
}

/// Why a webhook is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// Answer 400.
    #[error("webhook: none of the headers X-GitHub-Event, X-Gitlab-Event, X-Gitea-Event and X-Gogs-Event is there")]
    UnknownProvider,
    /// Answer 401.
    #[error("webhook of {0:?}: signature is missing or does not match the configured secret")]
    Signature(Provider),
    /// Answer 400.
    #[error("webhook of {provider:?}: {detail}")]
    Payload { provider: Provider, detail: String },
    /// Answer 413.
    #[error("webhook: payload has {found} bytes; at most {limit} are taken")]
    TooLarge { found: usize, limit: usize },
}

impl WebhookError {
    /// The HTTP status to answer with.
    pub fn status(&self) -> u16 {
        match self {
            WebhookError::UnknownProvider | WebhookError::Payload { .. } => 400,
            WebhookError::Signature(_) => 401,
            WebhookError::TooLarge { .. } => 413,
        }
    }
}

/// `webhook.maxPayloadSizeMB`'s default, in bytes.
pub const MAX_PAYLOAD: usize = 50 << 20;

/// The shared secrets, by their keys in `argocd-secret`. A provider without one is trusted as it is, as the peer does.
#[derive(Clone, Debug, Default)]
pub struct WebhookSecrets(Vec<(String, Sensitive)>);

impl WebhookSecrets {
    /// Takes what `argocd-secret` holds under `webhook.*`.
    pub fn new(entries: impl IntoIterator<Item = (String, String)>) -> WebhookSecrets {
        let entries = entries.into_iter().filter(|(key, value)| key.starts_with("webhook.") && !value.is_empty());
        WebhookSecrets(entries.map(|(key, value)| (key, Sensitive::new(value))).collect())
    }

    fn of(&self, provider: Provider) -> Option<&Sensitive> {
        provider
            .secret_keys()
            .iter()
            .find_map(|wanted| self.0.iter().find(|(key, _)| key == wanted))
            .map(|(_, secret)| secret)
    }
}

/// Reads a webhook: finds out who sent it, checks that it is genuine, and parses it. `header` finds a header by its name
/// in lower case.
///
/// # Errors
/// See [`WebhookError`]. Nothing of the payload is looked at before its signature is right.
pub fn receive<'a>(
    header: impl Fn(&str) -> Option<&'a str>,
    body: &[u8],
    secrets: &WebhookSecrets,
    max_payload: usize,
) -> Result<Event, WebhookError> {
    if body.len() > max_payload {
        return Err(WebhookError::TooLarge { found: body.len(), limit: max_payload });
    }
    // Gitea sends the headers of the others as well, its own first of all.
    let candidates = [
        (Provider::Gitea, "x-gitea-event"),
        (Provider::Gogs, "x-gogs-event"),
        (Provider::GitHub, "x-github-event"),
        (Provider::GitLab, "x-gitlab-event"),
    ];
    let (provider, event) = candidates
        .iter()
        .find_map(|(provider, name)| Some((*provider, header(name)?)))
        .ok_or(WebhookError::UnknownProvider)?;
    if let Some(secret) = secrets.of(provider)
        && !is_genuine(provider, &header, body, secret)
    {
        return Err(WebhookError::Signature(provider));
    }
    let refuse = |detail: String| WebhookError::Payload { provider, detail };
    let payload: Value = match header("content-type").unwrap_or_default() {
        form if form.starts_with("application/x-www-form-urlencoded") => {
            let json =
                payload::form_field(body, "payload").ok_or_else(|| refuse("form field payload is missing".into()))?;
            serde_json::from_slice(&json)
        }
        _ => serde_json::from_slice(body),
    }
    .map_err(|error| refuse(format!("payload is no JSON: {error}")))?;
    match provider {
        Provider::GitLab => payload::gitlab(event, &payload),
        Provider::GitHub | Provider::Gitea | Provider::Gogs => payload::github(event, &payload),
    }
    .map_err(refuse)
}

fn is_genuine<'a>(
    provider: Provider,
    header: &impl Fn(&str) -> Option<&'a str>,
    body: &[u8],
    secret: &Sensitive,
) -> bool {
    let signature = match provider {
        Provider::GitHub => header("x-hub-signature-256").and_then(|value| value.strip_prefix("sha256=")),
        Provider::Gitea => header("x-gitea-signature"),
        Provider::Gogs => header("x-gogs-signature"),
        Provider::GitLab => {
            let Some(token) = header("x-gitlab-token") else { return false };
            return aws_lc_rs::constant_time::verify_slices_are_equal(token.as_bytes(), secret.reveal().as_bytes())
                .is_ok();
        }
    };
    let Some(signature) = signature.and_then(unhex) else { return false };
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    // Compares in constant time.
    hmac::verify(&key, body, &signature).is_ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests;
