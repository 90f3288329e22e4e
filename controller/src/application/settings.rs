//! Settings of the Application controller.

use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tidegate_gitops::normalize::{CompareOptions, IgnoreStatus};
use tidegate_gitops::tracking::{Method, Tracking};

/// Settings of the process.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The control plane's namespace: of projects, repository and cluster Secrets, and of Applications. Default: empty,
    /// the installation's.
    pub namespace: String,
    /// Globs (or `/regex/`) of further namespaces that Applications may live in. Default: none.
    pub application_namespaces: Vec<String>,
    /// How long a comparison is good for. Default 120 s.
    pub resync: Duration,
    /// How much later an Application may be compared, so that not all are at once. Default 60 s.
    pub jitter: Duration,
    /// How long manifests are good for. Default 0: until their source changes.
    pub hard_resync: Duration,
    /// Applications handled at the same time. Default 20.
    pub workers: usize,
    /// How long to wait between waves. Default 2 s.
    pub wave_delay: Duration,
    /// How long a sync may take. Default 0: as long as it takes.
    pub sync_timeout: Duration,
    /// How long a repository may fail before the Application says so. Default 180 s.
    pub repo_error_grace: Duration,
    /// Directory of the copies of repositories; this process's alone. Default `tidegate-repositories` among the
    /// temporary files.
    pub cache_dir: PathBuf,
    /// Port of `/api/webhook`; 0 for none. Default 8085.
    pub webhook_port: u16,
    /// How long to wait for the first list of a kind before the Application says so. Default 20 s.
    pub list_patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: String::new(),
            application_namespaces: Vec::new(),
            resync: Duration::from_secs(120),
            jitter: Duration::from_secs(60),
            hard_resync: Duration::ZERO,
            workers: 20,
            wave_delay: Duration::from_secs(2),
            sync_timeout: Duration::ZERO,
            repo_error_grace: Duration::from_secs(180),
            cache_dir: std::env::temp_dir().join("tidegate-repositories"),
            webhook_port: 8085,
            list_patience: Duration::from_secs(20),
        }
    }
}

/// What the ConfigMap `argocd-cm` says about tracking. What cannot be read is told and left at its default.
pub fn tracking(config: Option<&Value>) -> (Tracking, Option<String>) {
    let get = |key: &str| config?.get("data")?.get(key)?.as_str().map(str::trim).filter(|v| !v.is_empty());
    let mut tracking = Tracking::default();
    let mut problem = None;
    match Method::parse(get("application.resourceTrackingMethod").unwrap_or_default()) {
        Ok(method) => tracking.method = method,
        Err(error) => problem = Some(error),
    }
    if let Some(label) = get("application.instanceLabelKey") {
        tracking.label_key = label.to_owned();
    }
    tracking.installation_id = get("installationID").map(str::to_owned);
    (tracking, problem)
}

/// What the ConfigMap `argocd-cm` says about comparing (`resource.compareoptions`).
pub fn compare_options(config: Option<&Value>) -> CompareOptions {
    let text = config.and_then(|c| c.get("data")?.get("resource.compareoptions")?.as_str()).unwrap_or_default();
    let Ok(options) = serde_saphyr::from_str::<Value>(text) else { return CompareOptions::default() };
    let status = match options.get("ignoreResourceStatusField").and_then(Value::as_str) {
        Some("crd") => IgnoreStatus::Crd,
        Some("none") => IgnoreStatus::None,
        _ => IgnoreStatus::All,
    };
    CompareOptions {
        ignore_status: status,
        ignore_aggregated_roles: options.get("ignoreAggregatedRoles") == Some(&Value::Bool(true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_config_map_is_read() {
        let config = json!({"data": {
            "application.resourceTrackingMethod": "label", "application.instanceLabelKey": "app", "installationID": "x",
            "resource.compareoptions": "ignoreAggregatedRoles: true\nignoreResourceStatusField: crd\n",
        }});
        let (found, problem) = tracking(Some(&config));
        assert_eq!(
            (found.method, found.label_key.as_str(), found.installation_id.as_deref()),
            (Method::Label, "app", Some("x"))
        );
        assert_eq!(problem, None);
        let options = compare_options(Some(&config));
        assert_eq!((options.ignore_status, options.ignore_aggregated_roles), (IgnoreStatus::Crd, true));
        assert_eq!(tracking(None).0, Tracking::default());
        let (_, problem) = tracking(Some(&json!({"data": {"application.resourceTrackingMethod": "odd"}})));
        assert!(problem.is_some_and(|p| p.contains("\"odd\"")));
        assert_eq!(compare_options(None), CompareOptions::default());
    }
}
