//! The rules of an Application's source that need no repository: what kind it is, whether it can be used, and how an
//! override file changes it.

pub mod env;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_crds::application::Source;
use tidegate_crds::decode::{self, Dropped};

/// How manifests are made from a source, as `status.sourceType` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SourceType {
    Helm,
    Kustomize,
    Directory,
    Plugin,
}

impl fmt::Display for SourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SourceType::Helm => "Helm",
            SourceType::Kustomize => "Kustomize",
            SourceType::Directory => "Directory",
            SourceType::Plugin => "Plugin",
        })
    }
}

/// What `repoURL` and `chart` make of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    Git,
    HelmRepository,
    Oci,
}

/// A source that cannot be used as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSource(pub String);

/// The text of an optional field; an absent one is empty.
pub(crate) fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

/// Where the source lives. `oci://` goes before `chart`.
pub fn kind(source: &Source) -> SourceKind {
    if source.repo_url.starts_with("oci://") {
        SourceKind::Oci
    } else if !text(&source.chart).is_empty() {
        SourceKind::HelmRepository
    } else {
        SourceKind::Git
    }
}

/// `targetRevision`, or `HEAD` for a Git source that names none.
pub fn revision(source: &Source) -> &str {
    match text(&source.target_revision) {
        "" if kind(source) == SourceKind::Git => "HEAD",
        revision => revision,
    }
}

/// True for a source that lends files to others and has no manifests of its own.
pub fn is_reference_only(source: &Source) -> bool {
    !text(&source.ref_).is_empty() && text(&source.path).is_empty() && text(&source.chart).is_empty()
}

/// The type that the user chose by setting one of the blocks, or None when it is to be detected.
///
/// # Errors
/// More than one block is set.
pub fn explicit_type(source: &Source) -> Result<Option<SourceType>, InvalidSource> {
    let set: Vec<(SourceType, &str)> = [
        source.kustomize.as_ref().map(|_| (SourceType::Kustomize, "kustomize")),
        source.helm.as_ref().map(|_| (SourceType::Helm, "helm")),
        source.directory.as_ref().map(|_| (SourceType::Directory, "directory")),
        source.plugin.as_ref().map(|_| (SourceType::Plugin, "plugin")),
    ]
    .into_iter()
    .flatten()
    .collect();
    match set.as_slice() {
        [] => Ok(None),
        [(one, _)] => Ok(Some(*one)),
        many => {
            let names: Vec<&str> = many.iter().map(|(_, name)| *name).collect();
            Err(InvalidSource(format!(
                "multiple application sources defined: {}; expected one of them at most",
                names.join(",")
            )))
        }
    }
}

/// The namespace that templates see: the source's own, else the destination's.
pub fn render_namespace<'a>(source: &'a Source, destination: &'a str) -> &'a str {
    let helm = source.helm.as_ref().map(|h| text(&h.namespace)).unwrap_or_default();
    let kustomize = source.kustomize.as_ref().map(|k| text(&k.namespace)).unwrap_or_default();
    [helm, kustomize].into_iter().find(|own| !own.is_empty()).unwrap_or(destination)
}

/// Checks what can be checked without the repository.
///
/// # Errors
/// The first of: no `repoURL`, neither `path`, `chart` nor `ref`, a `ref` on a chart, more than one tool block.
pub fn validate(source: &Source) -> Result<(), InvalidSource> {
    let url = crate::repo::url::display(&source.repo_url);
    let (path, chart, reference) = (text(&source.path), text(&source.chart), text(&source.ref_));
    if url.is_empty() {
        return Err(InvalidSource("repoURL is empty; expected the URL of a repository".into()));
    }
    if path.is_empty() && chart.is_empty() && reference.is_empty() && kind(source) != SourceKind::Oci {
        return Err(InvalidSource(format!("source {url}: path, chart and ref are all empty; expected one of them")));
    }
    if !reference.is_empty() && !chart.is_empty() {
        return Err(InvalidSource(format!(
            "source {url}: ref {reference:?} is set together with chart {chart:?}; a chart lends no files"
        )));
    }
    explicit_type(source).map(|_| ())
}

/// Lays an override file (`.argocd-source.yaml`) over the source by JSON merge. What decides where the source lives
/// (`repoURL`, `path`, `chart`, `targetRevision`) stays.
pub fn merged_with(source: &Source, overrides: &Value) -> (Source, Vec<Dropped>) {
    let mut merged = serde_json::to_value(source).unwrap_or_default();
    let mut overrides = overrides.clone();
    if let Value::Object(map) = &mut overrides {
        for fixed in ["repoURL", "path", "chart", "targetRevision"] {
            map.remove(fixed);
        }
    }
    merge(&mut merged, &overrides);
    decode::lenient(merged)
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Default::default());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn source(value: Value) -> Source {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn kind_and_revision() {
        let cases = [
            (json!({"repoURL": "https://h/r.git", "path": "."}), SourceKind::Git, "HEAD"),
            (json!({"repoURL": "https://h/r.git", "path": ".", "targetRevision": "v1"}), SourceKind::Git, "v1"),
            (json!({"repoURL": "https://h", "chart": "c", "targetRevision": "1.x"}), SourceKind::HelmRepository, "1.x"),
            (json!({"repoURL": "oci://h/c", "path": "."}), SourceKind::Oci, ""),
        ];
        for (value, expected_kind, expected_revision) in cases {
            let source = source(value);
            assert_eq!((kind(&source), revision(&source)), (expected_kind, expected_revision));
        }
    }

    #[test]
    fn more_than_one_tool_is_an_error() {
        let both = source(json!({"repoURL": "x", "path": ".", "helm": {}, "directory": {"recurse": true}}));
        let error = validate(&both).unwrap_err().to_string();
        assert!(error.starts_with("multiple application sources defined: helm,directory"), "{error}");
        let one = source(json!({"repoURL": "x", "path": ".", "kustomize": {"namePrefix": "a-"}}));
        assert_eq!(explicit_type(&one).unwrap(), Some(SourceType::Kustomize));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(validate(&source(json!({"path": "x"}))).unwrap_err().0.contains("repoURL is empty"));
        let nothing = validate(&source(json!({"repoURL": "https://user:secret@h/r"}))).unwrap_err().0;
        assert!(nothing.contains("path, chart and ref") && !nothing.contains("secret"), "{nothing}");
        assert!(validate(&source(json!({"repoURL": "h", "ref": "v"}))).is_ok());
        assert!(validate(&source(json!({"repoURL": "h", "ref": "v", "chart": "c"}))).is_err());
        assert!(is_reference_only(&source(json!({"repoURL": "h", "ref": "v"}))));
        assert!(!is_reference_only(&source(json!({"repoURL": "h", "ref": "v", "path": "p"}))));
    }

    #[test]
    fn the_namespace_of_the_tool_goes_before_the_destinations() {
        let helm = source(json!({"repoURL": "h", "path": "p", "helm": {"namespace": "own"}}));
        assert_eq!(render_namespace(&helm, "dest"), "own");
        assert_eq!(render_namespace(&source(json!({"repoURL": "h", "path": "p", "helm": {}})), "dest"), "dest");
    }

    #[test]
    fn overrides_merge_but_do_not_move_the_source() {
        let base = source(json!({"repoURL": "u", "path": "p", "targetRevision": "t",
            "kustomize": {"images": ["a:1"], "namePrefix": "x-"}}));
        let (merged, dropped) = merged_with(
            &base,
            &json!({"repoURL": "evil", "path": "evil", "targetRevision": "evil",
            "chart": "evil", "kustomize": {"images": ["a:2"], "namePrefix": null}}),
        );
        assert!(dropped.is_empty());
        assert_eq!((&*merged.repo_url, text(&merged.path), revision(&merged), &merged.chart), ("u", "p", "t", &None));
        let kustomize = merged.kustomize.unwrap();
        assert_eq!((kustomize.images, kustomize.name_prefix), (vec!["a:2".to_string()], None));
    }

    #[test]
    fn a_field_of_the_wrong_type_in_an_override_is_dropped_alone() {
        let base = source(json!({"repoURL": "u", "path": "p"}));
        let (merged, dropped) = merged_with(&base, &json!({"helm": {"skipCrds": "yes", "releaseName": "r"}}));
        assert_eq!(merged.helm.unwrap().release_name.as_deref(), Some("r"));
        assert_eq!(dropped.len(), 1);
    }
}
