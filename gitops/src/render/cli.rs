//! The command-line tools, for installations without the render worker. They need the files on the disk.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tidegate_crds::application::{HelmSource, KustomizeSource};

use super::helm::HelmInput;
use super::kustomize::KustomizeInput;
use super::worker::clean_command;
use super::{Job, KUSTOMIZATIONS, Output, RenderError, join, yaml};
use crate::repo::command::ProcessGroup;
use crate::repo::{Kind, Mode, RepoError};

pub(super) async fn helm(job: &mut Job<'_>, helm: &HelmSource, input: &HelmInput) -> Result<Output, RenderError> {
    if input.chart.is_some() {
        return Err(RenderError::ToolUnavailable(format!(
            "chart {} of a chart repository needs tidegate-render-worker (TIDEGATE_RENDER_WORKER, beside the executable, \
             PATH), which was not found",
            job.path
        )));
    }
    let program = program(job, "helm")?;
    let dir = checkout(job).await?;
    let values = tempfile::tempdir().map_err(|error| job.tool_error("helm", error.to_string()))?;
    let mut args: Vec<String> = ["template", ".", "--name-template", &input.release_name].map(String::from).to_vec();
    let mut add = |flag: &str, value: &str| args.extend([flag.to_string(), value.to_string()]);
    if !input.namespace.is_empty() {
        add("--namespace", &input.namespace);
    }
    if !input.kube_version.is_empty() {
        add("--kube-version", &input.kube_version);
    }
    input.api_versions.iter().for_each(|version| add("--api-versions", version));
    input.set.iter().for_each(|line| add("--set", line));
    input.set_string.iter().for_each(|line| add("--set-string", line));
    let store = |name: String, content: &str| -> Result<String, RenderError> {
        let path = values.path().join(name);
        std::fs::write(&path, content).map_err(|error| job.tool_error("helm", error.to_string()))?;
        Ok(path.to_string_lossy().into_owned())
    };
    for (i, (name, content)) in input.set_file.iter().enumerate() {
        add("--set-file", &format!("{name}={}", store(format!("file-{i}"), content)?));
    }
    for (i, document) in input.values.iter().enumerate() {
        let file =
            if document.url.is_empty() { store(format!("{i}.yaml"), &document.text)? } else { document.url.clone() };
        add("--values", &file);
    }
    let flags = [
        (!helm.skip_crds, "--include-crds"),
        (helm.skip_tests, "--skip-tests"),
        (helm.skip_schema_validation, "--skip-schema-validation"),
    ];
    args.extend(flags.iter().filter(|(on, _)| *on).map(|(_, flag)| flag.to_string()));
    let place = dir.path().join(&job.path);
    let output = match run(job, "helm", &program, &place, &args).await {
        Err(RenderError::Tool { detail, .. }) if detail.contains("missing in charts/") => {
            let build = ["dependency", "build"].map(String::from);
            run(job, "helm", &program, &place, &build).await?;
            run(job, "helm", &program, &place, &args).await?
        }
        other => other?,
    };
    documents(job, "helm", &output)
}

pub(super) async fn kustomize(
    job: &mut Job<'_>,
    kustomize: &KustomizeSource,
    input: &KustomizeInput,
) -> Result<Output, RenderError> {
    let program = program(job, "kustomize")?;
    let dir = checkout(job).await?;
    let place = dir.path().join(&job.path);
    let pairs = |map: &std::collections::BTreeMap<String, String>| -> Vec<String> {
        map.iter().map(|(key, value)| format!("{key}:{value}")).collect()
    };
    let mut edits: Vec<Vec<String>> = Vec::new();
    let mut edit = |command: &[&str], flags: &[(bool, &str)], values: Vec<String>| {
        if values.is_empty() {
            return;
        }
        let mut args: Vec<String> = std::iter::once("edit").chain(command.iter().copied()).map(String::from).collect();
        args.extend(flags.iter().filter(|(on, _)| *on).map(|(_, flag)| flag.to_string()));
        args.push("--".into());
        args.extend(values);
        edits.push(args);
    };
    let one = |field: &Option<String>| -> Vec<String> { field.iter().filter(|f| !f.is_empty()).cloned().collect() };
    edit(&["set", "nameprefix"], &[], one(&kustomize.name_prefix));
    edit(&["set", "namesuffix"], &[], one(&kustomize.name_suffix));
    edit(&["set", "namespace"], &[], one(&kustomize.namespace));
    edit(&["set", "image"], &[], input.images.clone());
    edit(&["set", "replicas"], &[], input.replicas.iter().map(|(name, count)| format!("{name}={count}")).collect());
    let label_flags = [
        (kustomize.force_common_labels, "--force"),
        (kustomize.label_without_selector, "--without-selector"),
        (kustomize.label_include_templates, "--include-templates"),
    ];
    edit(&["add", "label"], &label_flags, pairs(&input.labels));
    edit(&["add", "annotation"], &[(kustomize.force_common_annotations, "--force")], pairs(&input.annotations));
    let components =
        kustomize.components.iter().filter(|c| !kustomize.ignore_missing_components || place.join(c).exists());
    edit(&["add", "component"], &[], components.cloned().collect());
    for args in &edits {
        run(job, "kustomize", &program, &place, args).await?;
    }
    if !input.patches.is_empty() {
        add_patches(job, &place, &input.patches)?;
    }
    let mut args = vec!["build".to_string(), ".".to_string()];
    args.extend(job.request.settings.kustomize_build_options.iter().cloned());
    let output = run(job, "kustomize", &program, &place, &args).await?;
    documents(job, "kustomize", &output)
}

/// Appends patches to the kustomization on the disk, for which the tool has no command that takes all of their fields.
fn add_patches(job: &Job<'_>, place: &Path, patches: &[Value]) -> Result<(), RenderError> {
    let failed = |detail: String| job.tool_error("kustomize", detail);
    let file = KUSTOMIZATIONS
        .iter()
        .map(|name| place.join(name))
        .find(|path| path.exists())
        .ok_or_else(|| failed("there is no kustomization file".into()))?;
    let content = std::fs::read_to_string(&file).map_err(|error| failed(error.to_string()))?;
    let mut document =
        yaml::parse(&content).map_err(|error| failed(error.to_string()))?.into_iter().next().unwrap_or_default();
    if let Value::Object(map) = &mut document {
        let list = map.entry("patches").or_insert_with(|| Value::Array(Vec::new()));
        match list {
            Value::Array(list) => list.extend(patches.iter().cloned()),
            other => *other = Value::Array(patches.to_vec()),
        }
    }
    std::fs::write(&file, document.to_string()).map_err(|error| failed(error.to_string()))
}

fn program(job: &Job<'_>, name: &'static str) -> Result<PathBuf, RenderError> {
    job.request.tools.program(name).ok_or_else(|| {
        RenderError::ToolUnavailable(format!(
            "{name} is needed for {}, and neither tidegate-render-worker (TIDEGATE_RENDER_WORKER, beside the executable, \
             PATH) nor {name} (PATH) was found",
            job.path
        ))
    })
}

fn documents(job: &Job<'_>, tool: &'static str, output: &[u8]) -> Result<Output, RenderError> {
    let manifests = yaml::parse(&String::from_utf8_lossy(output)).map_err(|error| {
        let line = error.line.map(|line| format!(", line {line}")).unwrap_or_default();
        job.tool_error(tool, format!("its output{line} is no YAML: {error}"))
    })?;
    Ok(Output { manifests, ..Output::default() })
}

/// Runs a tool in a directory of the checkout and returns its output.
async fn run(
    job: &Job<'_>,
    tool: &'static str,
    program: &Path,
    dir: &Path,
    args: &[String],
) -> Result<Vec<u8>, RenderError> {
    let mut command = clean_command(program);
    command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child =
        command.spawn().map_err(|error| RenderError::ToolUnavailable(format!("{}: {error}", program.display())))?;
    let group = ProcessGroup::of(&child);
    let timeout = job.request.tools.timeout();
    let output = match tokio::time::timeout(timeout, child.wait_with_output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(RenderError::ToolUnavailable(format!("{}: {error}", program.display()))),
        Err(_) => return Err(RenderError::Timeout { tool, seconds: timeout.as_secs() }),
    };
    group.ended();
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).replace(&*dir.to_string_lossy(), "");
    Err(job.tool_error(tool, stderr.trim().to_string()))
}

/// Lays the whole commit out in a temporary directory. Links that lead out of the repository are refused.
pub(super) async fn checkout(job: &Job<'_>) -> Result<tempfile::TempDir, RenderError> {
    let files = job.request.files;
    files.depends_on_tree("", "").await?;
    let failed = |error: std::io::Error| RenderError::ToolUnavailable(format!("temporary directory: {error}"));
    let dir = tempfile::Builder::new().prefix("tidegate-checkout-").tempdir().map_err(failed)?;
    let snapshot = files.own()?;
    let root = snapshot.lookup("").await?.ok_or_else(|| files.no_such_path("."))?;
    let mut ahead = vec![(String::new(), root)];
    while let Some((prefix, found)) = ahead.pop() {
        let target = dir.path().join(&prefix);
        std::fs::create_dir_all(&target).map_err(failed)?;
        for entry in snapshot.list(&found).await?.iter() {
            let path = join(&prefix, &entry.name);
            let oid = entry.oid.to_string();
            let place = dir.path().join(&path);
            let inner = |kind| crate::repo::Found { path: path.clone(), kind, oid: oid.clone() };
            match entry.mode {
                Mode::Directory => ahead.push((path.clone(), inner(Kind::Directory))),
                Mode::Submodule => {}
                Mode::File | Mode::Executable => {
                    let content = snapshot.read(&inner(Kind::File)).await?;
                    std::fs::write(&place, content).map_err(failed)?;
                    if entry.mode == Mode::Executable {
                        use std::os::unix::fs::PermissionsExt as _;
                        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
                    }
                }
                Mode::Symlink => {
                    // Follows it, and fails when it leads out.
                    match snapshot.lookup(&path).await {
                        Err(error @ RepoError::Path { .. }) => return Err(error.into()),
                        other => other?,
                    };
                    let content = snapshot.read(&inner(Kind::File)).await?;
                    let link = String::from_utf8_lossy(&content).into_owned();
                    std::os::unix::fs::symlink(link, &place).map_err(failed)?;
                }
            }
        }
    }
    Ok(dir)
}
