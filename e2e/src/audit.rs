//! What was asked of the API server, from its audit log: how a test or benchmark counts what a controller costs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cluster::Cluster;

/// One request, as the audit log has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub verb: String,
    #[serde(default)]
    pub user_agent: String,
    #[serde(rename = "requestReceivedTimestamp")]
    pub received: jiff::Timestamp,
    #[serde(default)]
    pub object_ref: Object,
    #[serde(default)]
    pub response_status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Object {
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Status {
    #[serde(default)]
    pub code: u16,
}

impl Cluster {
    /// Requests that ended since `since`, made by programs whose user agent begins with `user_agent`. Only for clusters
    /// of this harness. A watch is counted when it ends.
    pub fn requests(&self, user_agent: &str, since: jiff::Timestamp) -> Result<Vec<Request>> {
        let path = self.state()?.log("audit");
        let text = std::fs::read_to_string(&path).with_context(|| format!("audit log {}", path.display()))?;
        Ok(parse(&text, user_agent, since))
    }
}

fn parse(text: &str, user_agent: &str, since: jiff::Timestamp) -> Vec<Request> {
    // The last line may be half written.
    let requests = text.lines().filter_map(|line| serde_json::from_str::<Request>(line).ok());
    requests.filter(|request| request.received >= since && request.user_agent.starts_with(user_agent)).collect()
}

/// Counts by verb and resource, such as `patch rollouts/status`.
pub fn count(requests: &[Request]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests {
        let Object { resource, subresource, .. } = &request.object_ref;
        let slash = if subresource.is_empty() { "" } else { "/" };
        *counts.entry(format!("{} {resource}{slash}{subresource}", request.verb)).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_program_and_time() {
        let line = |agent: &str, at: &str, sub: &str| {
            format!(
                r#"{{"verb":"patch","userAgent":"{agent}","objectRef":{{"resource":"rollouts","subresource":"{sub}"}},"requestReceivedTimestamp":"{at}","responseStatus":{{"code":200}}}}"#
            )
        };
        let text = [
            line("tidegate/0.1", "2026-01-01T00:00:01.5Z", "status"),
            line("tidegate/0.1", "2026-01-01T00:00:02.5Z", "status"),
            line("tidegate/0.1", "2026-01-01T00:00:03Z", ""),
            line("kubectl", "2026-01-01T00:00:03Z", ""),
            r#"{"verb":"pat"#.to_owned(),
        ]
        .join("\n");
        let found = parse(&text, "tidegate", "2026-01-01T00:00:02Z".parse().unwrap());
        let counts = count(&found);
        assert_eq!(counts["patch rollouts/status"], 1);
        assert_eq!(counts["patch rollouts"], 1);
        assert_eq!(found[0].response_status.code, 200);
    }
}
