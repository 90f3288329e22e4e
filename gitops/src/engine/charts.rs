//! Versions of charts in chart repositories.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidegate_crds::application::Source;

use crate::render::{RenderError, Tools};
use crate::repo::objects::lock;
use crate::repo::url;
use crate::repo::version::Version;
use crate::secret::Repositories;
use crate::source::text;

/// How long the version that a range means is good. Indexes of chart repositories are large. Peer:
/// `--revision-cache-expiration`.
const TTL: Duration = Duration::from_secs(180);
/// How long a failure is not repeated.
const PAUSE: Duration = Duration::from_secs(30);

type Answer = (Result<String, RenderError>, Instant);

/// What ranges mean, asked once for everybody.
#[derive(Debug, Default)]
pub(super) struct Charts(Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<Answer>>>>>);

impl Charts {
    /// The version that a source names. A full version is taken without asking.
    pub async fn resolve(
        &self,
        tools: &Tools,
        source: &Source,
        repositories: &Repositories,
        project: &str,
        since: Option<Instant>,
    ) -> Result<String, RenderError> {
        let wanted = text(&source.target_revision);
        if is_full_version(wanted) || wanted.starts_with("sha256:") {
            return Ok(wanted.to_string());
        }
        let key = [&url::normalize(&source.repo_url), text(&source.chart), wanted, project].join("\n");
        let place = lock(&self.0).entry(key).or_default().clone();
        let mut known = place.lock().await;
        if let Some((answer, at)) = &*known {
            let good = if answer.is_ok() { TTL } else { PAUSE };
            if since.map_or(at.elapsed() < good, |since| *at >= since) {
                return answer.clone();
            }
        }
        let at = Instant::now();
        let answer = tools.resolve_chart(source, repositories, project).await;
        *known = Some((answer.clone(), at));
        answer
    }

    /// Forgets everything.
    pub fn invalidate(&self) {
        lock(&self.0).clear();
    }
}

fn is_full_version(text: &str) -> bool {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    core.matches('.').count() == 2 && Version::parse(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::is_full_version;

    #[test]
    fn what_needs_no_question() {
        for (text, expected) in
            [("1.2.3", true), ("v1.2.3-rc.1+b", true), ("1.2", false), ("1.x.3", false), ("^1.2.3", false), ("", false)]
        {
            assert_eq!(is_full_version(text), expected, "{text}");
        }
    }
}
