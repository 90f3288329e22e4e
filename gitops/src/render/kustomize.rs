//! Kustomizations.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate_crds::IntOrString;
use tidegate_crds::application::KustomizeSource;

use super::{Job, Output, RenderError, cli};
use crate::source::text;

/// The changes to a kustomization, with build variables filled in.
#[derive(Clone, Debug, Default)]
pub(super) struct KustomizeInput {
    pub images: Vec<String>,
    pub replicas: Vec<(String, i64)>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub patches: Vec<Value>,
}

pub(super) async fn render(job: &mut Job<'_>) -> Result<Output, RenderError> {
    let kustomize = job.source.kustomize.clone().unwrap_or_default();
    let input = input(job, &kustomize)?;
    let options = job.request.settings.kustomize_build_options.clone();
    let helm = options.iter().any(|option| option == "--enable-helm" || option == "--enable-helm=true");
    if !job.request.tools.has_worker() {
        return cli::kustomize(job, &kustomize, &input).await;
    }
    // Kustomize runs helm on files, so that they have to lie on the disk.
    let checkout = if helm { Some(cli::checkout(job).await?) } else { None };
    let root = checkout.as_ref().map(|dir| dir.path().to_string_lossy().into_owned()).unwrap_or_default();
    let (kube_version, api_versions) = if helm {
        (job.kube_version(&kustomize.kube_version), job.api_versions(&kustomize.api_versions))
    } else {
        Default::default()
    };
    let replicas: Vec<Value> =
        input.replicas.iter().map(|(name, count)| json!({"name": name, "count": count})).collect();
    let request = json!({"kustomize": {
        "path": job.path,
        "root": root,
        "namePrefix": text(&kustomize.name_prefix),
        "nameSuffix": text(&kustomize.name_suffix),
        "namespace": text(&kustomize.namespace),
        "images": input.images,
        "replicas": replicas,
        "labels": input.labels,
        "forceLabels": kustomize.force_common_labels,
        "withoutSelector": kustomize.label_without_selector,
        "includeTemplates": kustomize.label_include_templates,
        "annotations": input.annotations,
        "forceAnnotations": kustomize.force_common_annotations,
        "patches": input.patches,
        "components": kustomize.components,
        "ignoreMissingComponents": kustomize.ignore_missing_components,
        "buildOptions": options,
        "kubeVersion": kube_version,
        "apiVersions": api_versions,
    }});
    let output = job.request.tools.ask("kustomize", &request, job.request, &job.path).await?;
    job.warnings.extend(output.warnings.iter().cloned());
    Ok(output)
}

fn input(job: &Job<'_>, kustomize: &KustomizeSource) -> Result<KustomizeInput, RenderError> {
    let mut replicas = Vec::new();
    for entry in &kustomize.replicas {
        let count = match &entry.count {
            IntOrString::Int(count) => Some(i64::from(*count)),
            IntOrString::String(text) => text.trim().parse().ok(),
        };
        let count = count
            .ok_or_else(|| job.tool_error("kustomize", format!("replicas of {}: count is no number", entry.name)))?;
        replicas.push((entry.name.clone(), count));
    }
    let filled = |map: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        map.iter().map(|(key, value)| (key.clone(), job.substitute(value))).collect()
    };
    Ok(KustomizeInput {
        images: kustomize.images.iter().map(|image| job.substitute(image)).collect(),
        replicas,
        labels: filled(&kustomize.common_labels),
        annotations: if kustomize.common_annotations_envsubst {
            filled(&kustomize.common_annotations)
        } else {
            kustomize.common_annotations.clone()
        },
        patches: kustomize.patches.iter().filter_map(|patch| serde_json::to_value(patch).ok()).collect(),
    })
}
