//! Charts.

use std::collections::HashSet;

use serde_json::{Value, json};
use tidegate_crds::application::{HelmSource, Source};

use super::{Job, Output, RenderError, cli, join};
use crate::glob;
use crate::repo::url;
use crate::secret::Repositories;
use crate::source::{self, SourceKind, render_namespace, text};

/// A values file, as content or as the URL of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Values {
    pub name: String,
    pub text: String,
    pub url: String,
    /// The file lies in the chart, which only the worker has.
    pub in_chart: bool,
}

impl Values {
    fn text(name: String, content: &[u8]) -> Values {
        let text = String::from_utf8_lossy(content).into_owned();
        Values { name, text, url: String::new(), in_chart: false }
    }
}

/// Everything that Helm needs to know besides the chart.
#[derive(Clone, Debug, Default)]
pub(super) struct HelmInput {
    pub release_name: String,
    pub namespace: String,
    pub kube_version: String,
    pub api_versions: Vec<String>,
    /// In order: a later one wins.
    pub values: Vec<Values>,
    /// `name=value`.
    pub set: Vec<String>,
    pub set_string: Vec<String>,
    /// A chart of a chart repository, in place of one in Git.
    pub chart: Option<Value>,
    /// Name and content.
    pub set_file: Vec<(String, String)>,
}

pub(super) async fn render(job: &mut Job<'_>) -> Result<Output, RenderError> {
    let helm = job.source.helm.clone().unwrap_or_default();
    let input = input(job, &helm).await?;
    if !job.request.tools.has_worker() {
        return cli::helm(job, &helm, &input).await;
    }
    let request = json!({"helm": {
        "path": job.path,
        "chart": input.chart,
        "ignoreMissingValueFiles": helm.ignore_missing_value_files,
        "releaseName": input.release_name,
        "namespace": input.namespace,
        "kubeVersion": input.kube_version,
        "apiVersions": input.api_versions,
        "values": input.values.iter().map(|v| json!({"name": v.name, "text": v.text, "url": v.url, "inChart": v.in_chart})).collect::<Vec<_>>(),
        "set": input.set,
        "setString": input.set_string,
        "setFile": input.set_file.iter().map(|(name, text)| json!({"name": name, "text": text})).collect::<Vec<_>>(),
        "skipCrds": helm.skip_crds,
        "skipTests": helm.skip_tests,
        "skipSchemaValidation": helm.skip_schema_validation,
        "passCredentials": helm.pass_credentials,
        "repositories": repositories(job.request.repositories, job.request.project),
    }});
    let output = job.request.tools.ask("helm", &request, job.request, &job.path).await?;
    job.warnings.extend(output.warnings.iter().cloned());
    Ok(output)
}

/// The chart that a source of a chart repository names, at the version that was chosen.
fn chart(job: &Job<'_>) -> Option<Value> {
    (source::kind(&job.source) != SourceKind::Git).then(|| {
        let (repository, name) = repository_and_name(&job.source, job.request.repositories, job.request.project);
        json!({"repository": repository, "name": name, "version": job.request.files.commit()})
    })
}

/// Where a chart is. A registry is marked by `oci://`, or by its Secret.
pub(crate) fn repository_and_name(source: &Source, repositories: &Repositories, project: &str) -> (String, String) {
    let url = url::display(&source.repo_url);
    let oci = !url.contains("://") && repositories.find(&source.repo_url, project).enable_oci;
    let repository = if oci { format!("oci://{url}") } else { url };
    (repository, text(&source.chart).to_string())
}

/// Chart repositories and registries that a project may use, with their credentials, for the worker.
pub(crate) fn repositories(all: &Repositories, project: &str) -> Vec<Value> {
    all.entries()
        .iter()
        .chain(all.templates())
        .filter(|entry| entry.kind != "git" || entry.enable_oci)
        .filter(|entry| entry.project.is_empty() || entry.project == project)
        .map(|entry| {
            let found = all.find(&entry.url, project);
            let host = entry.url.split("://").last().unwrap_or_default().split('/').next().unwrap_or_default();
            let oci = entry.enable_oci && !entry.url.contains("://");
            json!({
                "url": if oci { format!("oci://{}", entry.url) } else { url::display(&entry.url) },
                "username": found.username,
                "password": found.password.reveal(),
                "insecure": found.insecure,
                "plainHttp": found.insecure_oci_force_http,
                "ca": all.certificates(host).unwrap_or_default(),
                "cert": found.tls_client_cert,
                "key": found.tls_client_key.reveal(),
            })
        })
        .collect()
}

async fn input(job: &Job<'_>, helm: &HelmSource) -> Result<HelmInput, RenderError> {
    let release_name = match text(&helm.release_name) {
        "" => job.request.app_name,
        name => name,
    };
    let mut input = HelmInput {
        release_name: release_name.to_string(),
        namespace: render_namespace(&job.source, job.request.destination_namespace).to_string(),
        kube_version: job.kube_version(&helm.kube_version),
        api_versions: job.api_versions(&helm.api_versions),
        values: value_files(job, helm).await?,
        chart: chart(job),
        ..HelmInput::default()
    };
    let object = !helm.values_object.is_null() && helm.values_object.as_object().is_none_or(|map| !map.is_empty());
    let inline = if object { helm.values_object.to_string() } else { text(&helm.values).to_string() };
    if !inline.trim().is_empty() {
        let name = if object { "helm.valuesObject" } else { "helm.values" };
        input.values.push(Values::text(name.into(), inline.as_bytes()));
    }
    for parameter in &helm.parameters {
        let line = format!("{}={}", parameter.name, escaped(&job.substitute(&parameter.value)));
        if parameter.force_string { input.set_string.push(line) } else { input.set.push(line) }
    }
    for parameter in &helm.file_parameters {
        let name = job.substitute(&parameter.path);
        let (reference, path) = place(job, &name)?;
        let content = job.request.files.read_from(&reference, &path).await?.ok_or_else(|| {
            job.tool_error("helm", format!("helm.fileParameters {}: file {name} does not exist", parameter.name))
        })?;
        input.set_file.push((parameter.name.clone(), String::from_utf8_lossy(&content).into_owned()));
    }
    Ok(input)
}

/// Commas separate values for Helm; in a value they are text, unless the value is a list.
pub(super) fn escaped(value: &str) -> String {
    if value.starts_with('{') && value.ends_with('}') {
        return value.to_string();
    }
    let mut out = String::with_capacity(value.len());
    let mut previous = None;
    for c in value.chars() {
        if c == ',' && previous != Some('\\') {
            out.push('\\');
        }
        out.push(c);
        previous = Some(c);
    }
    out
}

/// The source and the path from its root that a file's name means.
fn place(job: &Job<'_>, name: &str) -> Result<(String, String), RenderError> {
    if let Some(rest) = name.strip_prefix('$') {
        let (reference, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !job.request.files.is_lent(reference) {
            return Err(job.tool_error("helm", format!("{name}: no source has the ref {reference:?}")));
        }
        return Ok((reference.to_string(), path.to_string()));
    }
    match name.strip_prefix('/') {
        Some(rooted) => Ok((String::new(), rooted.to_string())),
        None => Ok((String::new(), join(&job.path, name))),
    }
}

/// The values files in their order, with globs expanded in place. A file that is named outright keeps its own place, and
/// of several globs the first that matches a file has it.
async fn value_files(job: &Job<'_>, helm: &HelmSource) -> Result<Vec<Values>, RenderError> {
    let files = job.request.files;
    let mut names = Vec::new();
    for name in &helm.value_files {
        // A build variable is no reference to a source, and the other way round.
        let reference = name.strip_prefix('$').and_then(|rest| rest.split('/').next());
        let name = match reference {
            Some(reference) if files.is_lent(reference) => {
                format!("${reference}{}", job.substitute(&name[1 + reference.len()..]))
            }
            _ => job.substitute(name),
        };
        names.push(name);
    }
    let is_glob = |name: &str| name.contains(['*', '?', '[', '{']) && !name.contains("://");
    let mut taken: HashSet<(String, String)> = HashSet::new();
    for name in names.iter().filter(|name| !is_glob(name) && !name.contains("://")) {
        if let Ok(place) = place(job, name) {
            taken.insert(place);
        }
    }
    let mut out = Vec::new();
    for name in &names {
        if let Some((scheme, _)) = name.split_once("://") {
            if !job.request.settings.values_file_schemes.iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
                return Err(job.tool_error("helm", format!("values file {name}: scheme {scheme:?} is not permitted")));
            }
            out.push(Values { name: name.clone(), text: String::new(), url: name.clone(), in_chart: false });
            continue;
        }
        let (reference, path) = place(job, name)?;
        if reference.is_empty() && source::kind(&job.source) != SourceKind::Git {
            let name = name.trim_start_matches('/').to_string();
            out.push(Values { name, text: String::new(), url: String::new(), in_chart: true });
            continue;
        }
        if is_glob(name) {
            let mut any = false;
            for (reference, path) in expand(job, &reference, &path).await? {
                any = true;
                if !taken.insert((reference.clone(), path.clone())) {
                    continue;
                }
                if let Some(content) = files.read_from(&reference, &path).await? {
                    out.push(Values::text(path, &content));
                }
            }
            if !any && !helm.ignore_missing_value_files {
                return Err(job.tool_error("helm", format!("values file {name}: no file matches")));
            }
            continue;
        }
        match files.read_from(&reference, &path).await? {
            Some(content) => out.push(Values::text(name.clone(), &content)),
            None if helm.ignore_missing_value_files => {}
            None => return Err(job.tool_error("helm", format!("values file {name} does not exist"))),
        }
    }
    Ok(out)
}

/// The files that a glob matches, in lexical order.
async fn expand(job: &Job<'_>, reference: &str, pattern: &str) -> Result<Vec<(String, String)>, RenderError> {
    // `..` and `.` in front of the first wildcard are part of the way there.
    let mut fixed: Vec<&str> = Vec::new();
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let wild = parts.iter().position(|part| part.contains(['*', '?', '[', '{'])).unwrap_or(parts.len());
    for part in &parts[..wild] {
        if *part == ".." && fixed.pop().is_none() {
            return Err(job.request.files.at(pattern, "path leads out of the repository, which is refused").into());
        } else if *part != ".." {
            fixed.push(part);
        }
    }
    let dir = fixed.join("/");
    let rest = parts[wild..].join("/");
    let mut found: Vec<(String, String)> = job
        .request
        .files
        .all_under(reference, &dir)
        .await?
        .into_iter()
        .filter(|(name, _)| glob::matches_path(&rest, name))
        .map(|(name, _)| (reference.to_string(), join(&dir, &name)))
        .collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn commas_are_text_unless_the_value_is_a_list() {
        let cases =
            [("a,b", r"a\,b"), (r"a\,b", r"a\,b"), ("{a,b}", "{a,b}"), ("", ""), (",", r"\,"), ("a,,b", r"a\,\,b")];
        for (value, expected) in cases {
            assert_eq!(escaped(value), expected, "{value}");
        }
    }
}
