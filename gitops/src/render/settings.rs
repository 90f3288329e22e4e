//! What an installation decides about rendering (`argocd-cm` and the process's flags).

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// See the fields. `Default` is what an installation without settings has.
#[derive(Clone, Debug, PartialEq)]
pub struct RenderSettings {
    /// `helm.enable`.
    pub helm_enabled: bool,
    /// `kustomize.enable`.
    pub kustomize_enabled: bool,
    /// `jsonnet.enable`.
    pub jsonnet_enabled: bool,
    /// `kustomize.buildOptions`, in words.
    pub kustomize_build_options: Vec<String>,
    /// `helm.valuesFileSchemes`. Default https and http.
    pub values_file_schemes: Vec<String>,
    /// How many bytes the files of one directory source may have together. Default 10 MB. Peer:
    /// `reposerver.max.combined.directory.manifests.size`.
    pub max_directory_bytes: u64,
    /// How long one rendering by Helm, Kustomize or Jsonnet may take. Default 90 s.
    pub timeout: Duration,
    /// The render worker. Default: `TIDEGATE_RENDER_WORKER`, else `tidegate-render-worker` beside our executable, else
    /// in `PATH`.
    pub worker: Option<PathBuf>,
    /// Where the worker and the command-line tools are looked for. Default: `PATH`.
    pub search_path: Option<OsString>,
    /// How many worker processes at the most. Default 1.
    pub workers: usize,
}

impl Default for RenderSettings {
    fn default() -> RenderSettings {
        RenderSettings {
            helm_enabled: true,
            kustomize_enabled: true,
            jsonnet_enabled: true,
            kustomize_build_options: Vec::new(),
            values_file_schemes: vec!["https".into(), "http".into()],
            max_directory_bytes: 10_000_000,
            timeout: Duration::from_secs(90),
            worker: None,
            search_path: None,
            workers: 1,
        }
    }
}

impl RenderSettings {
    /// Takes over what the ConfigMap `argocd-cm` says.
    pub fn apply_config_map(&mut self, config_map: &Value) {
        let get = |key: &str| config_map.get("data")?.get(key)?.as_str();
        let enabled = |key: &str| get(key).is_none_or(|value| value.trim() != "false");
        self.helm_enabled = enabled("helm.enable");
        self.kustomize_enabled = enabled("kustomize.enable");
        self.jsonnet_enabled = enabled("jsonnet.enable");
        let words = |value: &str| value.split_whitespace().map(str::to_string).collect();
        self.kustomize_build_options = get("kustomize.buildOptions").map(words).unwrap_or_default();
        self.values_file_schemes = match get("helm.valuesFileSchemes") {
            Some(list) => list.split(',').map(|s| s.trim().to_string()).filter(|s| !s.is_empty()).collect(),
            None => RenderSettings::default().values_file_schemes,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_config_map_is_read() {
        let mut settings = RenderSettings::default();
        settings.apply_config_map(&json!({"data": {"helm.enable": "false", "kustomize.buildOptions": " --a  b",
            "helm.valuesFileSchemes": "https"}}));
        assert!(!settings.helm_enabled && settings.kustomize_enabled);
        assert_eq!(settings.kustomize_build_options, ["--a", "b"]);
        assert_eq!(settings.values_file_schemes, ["https"]);
        settings.apply_config_map(&json!({}));
        assert_eq!(settings, RenderSettings::default());
    }
}
