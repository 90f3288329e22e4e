//! Plain manifests: YAML, JSON and Jsonnet files of a directory.

use serde_json::{Value, json};
use tidegate_crds::application::{DirectorySource, Jsonnet};

use super::{Job, Output, RenderError, join, manifest_error, yaml};
use crate::glob;
use crate::repo::{Found, Kind, Mode};
use crate::source::text;

/// A file with this in it is not read as manifests.
const SKIP: &str = "+argocd:skip-file-rendering";

pub(super) async fn render(job: &mut Job<'_>) -> Result<Output, RenderError> {
    let files = job.request.files;
    let options = job.source.directory.clone().unwrap_or_default();
    let mut output = Output::default();
    let mut total = 0;
    let limit = job.request.settings.max_directory_bytes;
    for (name, found) in select(job, &options).await? {
        let path = join(&job.path, &name);
        let extension = name.rsplit_once('.').map(|(_, extension)| extension).unwrap_or_default();
        if extension == "jsonnet" {
            if job.request.settings.jsonnet_enabled {
                jsonnet(job, &path, options.jsonnet.as_ref(), &mut output).await?;
            }
            continue;
        }
        let content = files.own()?.read(&found).await?;
        total += content.len() as u64;
        if total > limit {
            return Err(RenderError::TooLarge {
                repo: files.repo().to_string(),
                revision: files.commit().to_string(),
                path: job.path.clone(),
                found: total,
                limit,
            });
        }
        let content = String::from_utf8_lossy(&content);
        if content.contains(SKIP) {
            continue;
        }
        if extension == "json" {
            let value: Value = serde_json::from_str(&content).map_err(|error| {
                manifest_error(
                    files,
                    &path,
                    yaml::YamlError {
                        line: Some(error.line() as u64),
                        detail: format!("it is no JSON object: {}", without_position(&error.to_string())),
                    },
                )
            })?;
            output.manifests.push(object(value).map_err(|e| manifest_error(files, &path, e))?);
            continue;
        }
        let documents =
            yaml::parse(&content).and_then(|all| all.into_iter().map(object).collect::<Result<Vec<_>, _>>());
        match documents {
            Ok(documents) => output.manifests.extend(documents),
            // Values, configuration of other tools: no manifests, and not meant to be.
            Err(_) if !looks_like_a_manifest(&content) => {}
            Err(error) => return Err(manifest_error(files, &path, error)),
        }
    }
    Ok(output)
}

fn without_position(message: &str) -> &str {
    message.split(" at line ").next().unwrap_or(message)
}

fn object(value: Value) -> Result<Value, yaml::YamlError> {
    let refuse = |detail: String| Err(yaml::YamlError { line: None, detail });
    match value.get("kind").and_then(Value::as_str) {
        Some(kind) if !kind.is_empty() => Ok(value),
        _ if value.is_object() => refuse("an object without kind; expected apiVersion, kind and metadata".into()),
        _ => refuse("found no object; expected apiVersion, kind and metadata".into()),
    }
}

fn looks_like_a_manifest(content: &str) -> bool {
    ["apiVersion:", "kind:", "metadata:"].iter().all(|key| content.contains(key))
}

/// The files that count, with their names from the source's path, in order.
async fn select(job: &Job<'_>, options: &DirectorySource) -> Result<Vec<(String, Found)>, RenderError> {
    let files = job.request.files;
    let all = if options.recurse {
        files.all_under("", &job.path).await?
    } else {
        let entries = files.contents(&job.path).await?.unwrap_or_default();
        let mut direct = Vec::new();
        for entry in entries.iter().filter(|entry| !matches!(entry.mode, Mode::Directory | Mode::Submodule)) {
            if !counts(&entry.name, options) {
                continue;
            }
            let path = join(&job.path, &entry.name);
            let found = files.own()?.lookup(&path).await?;
            if entry.mode == Mode::Symlink {
                // Its own line does not change when what it leads to does.
                files.depends_on_tree("", &path).await?;
            }
            if let Some(found) = found.filter(|found| matches!(found.kind, Kind::File | Kind::Executable)) {
                direct.push((entry.name.to_string(), found));
            }
        }
        direct.sort_by(|a, b| a.0.cmp(&b.0));
        direct
    };
    Ok(all.into_iter().filter(|(name, _)| counts(name, options)).collect())
}

fn counts(name: &str, options: &DirectorySource) -> bool {
    let (include, exclude) = (text(&options.include), text(&options.exclude));
    let known = [".yaml", ".yml", ".json", ".jsonnet"].iter().any(|extension| name.ends_with(extension));
    if !known && !options.disable_extension_filter {
        return false;
    }
    (exclude.is_empty() || !glob::matches(exclude, name)) && (include.is_empty() || glob::matches(include, name))
}

async fn jsonnet(
    job: &mut Job<'_>,
    path: &str,
    options: Option<&Jsonnet>,
    output: &mut Output,
) -> Result<(), RenderError> {
    let variables = |list: &[tidegate_crds::application::JsonnetVar]| -> Vec<Value> {
        list.iter().map(|v| json!({"name": v.name, "value": job.substitute(&v.value), "code": v.code})).collect()
    };
    let none = Jsonnet::default();
    let options = options.unwrap_or(&none);
    let request = json!({"jsonnet": {
        "path": path,
        "extVars": variables(&options.ext_vars),
        "tlas": variables(&options.tlas),
        "libs": options.libs,
    }});
    let made = job.request.tools.ask("jsonnet", &request, job.request, &job.path).await?;
    output.remote |= made.remote;
    output.manifests.extend(made.manifests.into_iter().filter(|value| !value.is_null()));
    Ok(())
}
