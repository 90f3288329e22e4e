//! Which Applications a push concerns.

use std::collections::BTreeSet;

use tidegate_crds::application::Source;

use super::Push;
use crate::repo::url;
use crate::repo::version::{Constraint, Version};
use crate::source::{self, SourceKind, text};

/// Whether an Application has to look at a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concerns {
    /// Another repository or revision.
    No,
    /// Its revision, and none of the paths that it was told to watch. The new commit may be noted without rendering.
    OtherPaths,
    Yes,
}

/// Finds those whom a push concerns.
pub struct Matcher<'a> {
    push: &'a Push,
    /// The pushed repository's URLs, in the form in which they are compared.
    repositories: BTreeSet<String>,
}

/// Whether a push concerns an Application; see [`Matcher::concerns`].
pub fn concerns(push: &Push, sources: &[Source], generate_paths_annotation: &str) -> Concerns {
    Matcher::new(push).concerns(sources, generate_paths_annotation)
}

impl<'a> Matcher<'a> {
    /// For one push and any number of Applications.
    pub fn new(push: &'a Push) -> Matcher<'a> {
        Matcher { push, repositories: push.repo_urls.iter().map(|url| comparable(url)).collect() }
    }

    /// Whether the push concerns an Application. `generate_paths` is the annotation
    /// `argocd.argoproj.io/manifest-generate-paths`, empty when there is none: then only the rendering itself can tell,
    /// and does so at little cost.
    pub fn concerns(&self, sources: &[Source], generate_paths_annotation: &str) -> Concerns {
        let matching: Vec<&Source> = sources.iter().filter(|source| self.matches(source)).collect();
        if matching.is_empty() {
            return Concerns::No;
        }
        let Some(changed) = &self.push.changed_files else { return Concerns::Yes };
        if generate_paths_annotation.trim().is_empty() {
            return Concerns::Yes;
        }
        let touched = matching.iter().any(|source| {
            let watched = generate_paths(text(&source.path), generate_paths_annotation);
            changed.iter().any(|file| watched.iter().any(|path| covers(path, file)))
        });
        if touched { Concerns::Yes } else { Concerns::OtherPaths }
    }

    /// Whether a source is of the pushed repository and revision.
    pub fn matches(&self, source: &Source) -> bool {
        source::kind(source) == SourceKind::Git
            && self.repositories.contains(&comparable(&source.repo_url))
            && revision_matches(self.push, source::revision(source), text(&source.tag_prefix))
    }
}

/// A repository is the same by https and by ssh, whoever logs in and whatever port the server listens on.
fn comparable(repo_url: &str) -> String {
    let normal = url::normalize(repo_url);
    let Some((scheme, rest)) = normal.split_once("://") else { return normal };
    if !matches!(scheme, "http" | "https" | "ssh" | "git") {
        return normal;
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    format!("{host}/{path}")
}

fn revision_matches(push: &Push, revision: &str, tag_prefix: &str) -> bool {
    if revision == push.reference || revision == "refs/heads/HEAD" {
        return true;
    }
    if revision == "HEAD" || revision.is_empty() {
        return push.default_branch;
    }
    let branch = push.reference.strip_prefix("refs/heads/");
    let tag = push.reference.strip_prefix("refs/tags/");
    if branch == Some(revision) || tag == Some(revision) {
        return true;
    }
    // A new tag may be the newest that a constraint allows.
    let version = tag.and_then(|tag| tag.strip_prefix(tag_prefix)).and_then(Version::parse);
    Version::parse(revision).is_none()
        && version.is_some_and(|version| Constraint::parse(revision).is_some_and(|c| c.matches(&version)))
}

/// The paths of the annotation, from the repository's root. Relative ones start at the source's path.
pub fn generate_paths(source_path: &str, annotation: &str) -> Vec<String> {
    annotation
        .split(';')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| match entry.strip_prefix('/') {
            Some(rooted) => clean(rooted),
            None => clean(&format!("{source_path}/{entry}")),
        })
        .collect()
}

/// Resolves `.` and `..`; what would lead out of the repository ends at its root.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Whether a watched path is the file, a directory above it, or a glob that matches it. In a glob, `*` stops at `/`.
fn covers(watched: &str, file: &str) -> bool {
    if watched.is_empty() || file == watched {
        return true;
    }
    if file.strip_prefix(watched).is_some_and(|rest| rest.starts_with('/')) {
        return true;
    }
    watched.contains(['*', '?', '[']) && crate::glob::matches_path(watched, file)
}
