//! From a source at a commit to manifests.

mod cli;
mod directory;
mod helm;
mod kustomize;
mod settings;
mod track;
mod worker;
pub mod yaml;

use std::sync::Arc;

use serde_json::Value;
use tidegate_crds::application::Source;

pub use settings::RenderSettings;
pub(crate) use track::cluster_mark;
pub use track::{Dependency, Files, What};
pub use worker::Tools;

use crate::repo::{Kind, RepoError};
use crate::secret::Repositories;
use crate::source::env::{BuildEnv, BuildEnvInput, Uses};
use crate::source::{self, InvalidSource, SourceKind, SourceType, text};

/// What is to be rendered, and with what.
#[derive(Debug)]
pub struct RenderRequest<'a> {
    pub source: &'a Source,
    /// The source's files, and those that other sources lend.
    pub files: &'a Files,
    pub app_name: &'a str,
    /// Empty in the control plane's namespace.
    pub app_namespace: &'a str,
    pub project: &'a str,
    pub destination_namespace: &'a str,
    /// The destination cluster's, for what the source does not say itself.
    pub kube_version: &'a str,
    pub api_versions: &'a [String],
    pub settings: &'a RenderSettings,
    pub tools: &'a Tools,
    /// For charts and chart dependencies that come over the network.
    pub repositories: &'a Repositories,
}

/// What rendering gave.
#[derive(Clone, Debug)]
pub struct Rendered {
    pub manifests: Arc<[Arc<Value>]>,
    pub source_type: SourceType,
    /// Every path that the manifests depend on.
    pub paths_read: Arc<[String]>,
    pub warnings: Arc<[String]>,
    /// Something came over the network: the paths do not say all.
    pub remote: bool,
}

/// Why a source cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Source(#[from] InvalidSource),
    /// A file that is meant to be a manifest and is none.
    #[error("repository {repo}, revision {revision}: {path}{}: {detail}", line.map(|l| format!(", line {l}")).unwrap_or_default())]
    Manifest { repo: String, revision: String, path: String, line: Option<u64>, detail: String },
    #[error(
        "repository {repo}, revision {revision}: {path}: manifests take {found} bytes; at most {limit} are allowed"
    )]
    TooLarge { repo: String, revision: String, path: String, found: u64, limit: u64 },
    /// Helm, Kustomize or Jsonnet refuse.
    #[error("repository {repo}, revision {revision}: {path}: {tool}: {detail}")]
    Tool { repo: String, revision: String, path: String, tool: &'static str, detail: String },
    #[error("{tool} did not end within {seconds} s and was stopped")]
    Timeout { tool: &'static str, seconds: u64 },
    /// Neither the render worker nor the tool itself was found, or it cannot be run.
    #[error("{0}")]
    ToolUnavailable(String),
    #[error("{0}")]
    Unsupported(String),
}

impl RenderError {
    /// True when the same source at the same commit may render later.
    pub fn is_transient(&self) -> bool {
        match self {
            RenderError::Repo(error) => error.is_transient(),
            RenderError::Timeout { .. } | RenderError::ToolUnavailable(_) => true,
            _ => false,
        }
    }
}

/// What the tools' parts of this module share.
pub(crate) struct Job<'a> {
    pub request: &'a RenderRequest<'a>,
    /// With override files laid over it.
    pub source: Source,
    pub path: String,
    pub env: BuildEnv,
    pub warnings: Vec<String>,
}

impl Job<'_> {
    /// Fills in build variables and notes what the result depends on by that.
    pub fn substitute(&self, text: &str) -> String {
        let mut uses = Uses::default();
        let filled = self.env.substitute(text, &mut uses);
        if uses.commit {
            self.request.files.depends_on_commit();
        }
        if uses.cluster {
            self.request.files.depends_on_cluster();
        }
        filled
    }

    pub fn tool_error(&self, tool: &'static str, detail: impl Into<String>) -> RenderError {
        RenderError::Tool {
            repo: self.request.files.repo().to_string(),
            revision: self.request.files.commit().to_string(),
            path: self.path.clone(),
            tool,
            detail: detail.into(),
        }
    }

    /// The source's own version, else the cluster's.
    pub fn kube_version(&self, own: &Option<String>) -> String {
        let own = text(own);
        if own.is_empty() {
            self.request.files.depends_on_cluster();
            return self.request.kube_version.to_string();
        }
        own.to_string()
    }

    /// The source's own list, else the cluster's.
    pub fn api_versions(&self, own: &[String]) -> Vec<String> {
        if own.is_empty() {
            self.request.files.depends_on_cluster();
            return self.request.api_versions.to_vec();
        }
        own.to_vec()
    }
}

/// Renders a source.
///
/// # Errors
/// The source is not valid, its path is not there, its files are no manifests, or the tool refuses. Messages name the
/// repository without credentials, the revision and the path.
pub async fn render(request: &RenderRequest<'_>) -> Result<Rendered, RenderError> {
    source::validate(request.source)?;
    if source::kind(request.source) != SourceKind::Git {
        return render_chart(request).await;
    }
    let files = request.files;
    let path = text(&request.source.path).to_string();
    let found = files.lookup(&path).await?.ok_or_else(|| files.no_such_path(&path))?;
    if found.kind != Kind::Directory {
        return Err(files.at(&path, "app path is not a directory").into());
    }
    let (source, warnings) = with_overrides(request, &path).await?;
    let env = build_env(request, &source, &path);
    let source_type = match source::explicit_type(&source)? {
        Some(explicit) => explicit,
        None => detect(request, &path).await?,
    };
    let mut job = Job { request, source, path, env, warnings };
    let output = match source_type {
        SourceType::Directory => directory::render(&mut job).await?,
        SourceType::Helm => helm::render(&mut job).await?,
        SourceType::Kustomize => kustomize::render(&mut job).await?,
        SourceType::Plugin => {
            return Err(RenderError::Unsupported(format!(
                "{}: config management plugins are not supported; render the manifests into Git, or use Helm or Kustomize",
                job.path
            )));
        }
    };
    finish(job, source_type, output)
}

/// Renders a chart of a chart repository, at the version that the files say.
async fn render_chart(request: &RenderRequest<'_>) -> Result<Rendered, RenderError> {
    match source::explicit_type(request.source)? {
        None | Some(SourceType::Helm) => {}
        Some(other) => {
            return Err(InvalidSource(format!(
                "source {}: {} is set for a chart; expected helm",
                request.files.repo(),
                tool_name(other)
            ))
            .into());
        }
    }
    let name = match text(&request.source.chart) {
        "" => request.source.repo_url.rsplit('/').next().unwrap_or_default(),
        chart => chart,
    };
    let env = build_env(request, request.source, name);
    let mut job = Job { request, source: request.source.clone(), path: name.to_string(), env, warnings: Vec::new() };
    let output = helm::render(&mut job).await?;
    finish(job, SourceType::Helm, output)
}

fn build_env(request: &RenderRequest<'_>, source: &Source, path: &str) -> BuildEnv {
    BuildEnv::new(BuildEnvInput {
        app_name: request.app_name,
        namespace: request.destination_namespace,
        project: request.project,
        revision: request.files.commit(),
        path,
        repo_url: request.files.repo(),
        target_revision: text(&source.target_revision),
        kube_version: request.kube_version,
        api_versions: request.api_versions,
    })
}

fn finish(job: Job<'_>, source_type: SourceType, output: Output) -> Result<Rendered, RenderError> {
    let mut manifests = Vec::with_capacity(output.manifests.len());
    for manifest in output.manifests {
        flatten(manifest, &mut manifests).map_err(|detail| job.tool_error(tool_name(source_type), detail))?;
    }
    Ok(Rendered {
        manifests: manifests.into_iter().map(Arc::new).collect(),
        source_type,
        paths_read: job.request.files.paths(),
        warnings: job.warnings.into(),
        remote: output.remote,
    })
}

/// What a tool made.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub manifests: Vec<Value>,
    pub remote: bool,
    pub warnings: Vec<String>,
}

fn tool_name(source_type: SourceType) -> &'static str {
    match source_type {
        SourceType::Helm => "helm",
        SourceType::Kustomize => "kustomize",
        SourceType::Directory => "directory",
        SourceType::Plugin => "plugin",
    }
}

/// Replaces a list by what is in it. An object without a kind is refused.
fn flatten(manifest: Value, into: &mut Vec<Value>) -> Result<(), String> {
    let kind = manifest.get("kind").and_then(Value::as_str).unwrap_or_default();
    if kind.is_empty() {
        let text = manifest.to_string();
        let start: String = text.chars().take(80).collect();
        return Err(format!("an object without kind: {start}; expected apiVersion, kind and metadata"));
    }
    // A kind may end in List without being one.
    let is_list = kind.ends_with("List") && manifest.get("items").is_some_and(|i| i.is_array() || i.is_null());
    if !is_list {
        into.push(manifest);
        return Ok(());
    }
    if let Value::Object(mut list) = manifest
        && let Some(Value::Array(items)) = list.remove("items")
    {
        for item in items {
            flatten(item, into)?;
        }
    }
    Ok(())
}

/// Lays `.argocd-source.yaml` and `.argocd-source-<app>.yaml` of the source's directory over the source.
async fn with_overrides(request: &RenderRequest<'_>, path: &str) -> Result<(Source, Vec<String>), RenderError> {
    let app = match request.app_namespace {
        "" => request.app_name.to_string(),
        namespace => format!("{namespace}_{}", request.app_name),
    };
    let mut source = request.source.clone();
    let mut warnings = Vec::new();
    for name in [".argocd-source.yaml".to_string(), format!(".argocd-source-{app}.yaml")] {
        let file = join(path, &name);
        let Some(content) = request.files.read(&file).await? else { continue };
        let documents =
            yaml::parse(&String::from_utf8_lossy(&content)).map_err(|e| manifest_error(request.files, &file, e))?;
        for overrides in documents.into_iter().take(1) {
            let (merged, dropped) = source::merged_with(&source, &overrides);
            source = merged;
            warnings.extend(dropped.into_iter().map(|d| format!("{file}: {}: {}", d.path, d.reason)));
        }
    }
    Ok((source, warnings))
}

pub(crate) fn manifest_error(files: &Files, path: &str, error: yaml::YamlError) -> RenderError {
    RenderError::Manifest {
        repo: files.repo().to_string(),
        revision: files.commit().to_string(),
        path: path.to_string(),
        line: error.line,
        detail: error.detail,
    }
}

/// The names under which Kustomize knows its file.
pub(crate) const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// A kustomization goes before a chart, and a chart before plain files.
async fn detect(request: &RenderRequest<'_>, path: &str) -> Result<SourceType, RenderError> {
    let files = request.files;
    if request.settings.kustomize_enabled {
        for name in KUSTOMIZATIONS {
            if files.kind(&join(path, name)).await?.is_some() {
                return Ok(SourceType::Kustomize);
            }
        }
    }
    if request.settings.helm_enabled && files.kind(&join(path, "Chart.yaml")).await?.is_some() {
        return Ok(SourceType::Helm);
    }
    Ok(SourceType::Directory)
}

/// Two parts of a path, the first of which may be empty or `.`.
pub(crate) fn join(dir: &str, name: &str) -> String {
    let dir = dir.trim_matches('/');
    if dir.is_empty() || dir == "." { name.to_string() } else { format!("{dir}/{name}") }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
