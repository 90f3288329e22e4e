//! The providers' payloads.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Event, Push};

/// Payloads list this many commits at the most; with as many there may be more.
const LISTED_COMMITS: usize = 20;
/// GitHub lists this many files at the most in one commit.
const LISTED_FILES: usize = 3000;

/// GitHub, and Gitea and Gogs, which speak like it.
pub(super) fn github(event: &str, payload: &Value) -> Result<Event, String> {
    match event {
        "push" => {}
        "create" | "delete" => return reference(event, payload),
        other => return Ok(Event::Ignored(other.to_string())),
    }
    let repository = payload.get("repository").ok_or("repository is missing; expected the repository's URLs")?;
    push(payload, urls(repository), default_branch(repository))
}

/// GitHub sends a push as well; Gogs sends only this for tags.
fn reference(event: &str, payload: &Value) -> Result<Event, String> {
    let repository = payload.get("repository").ok_or("repository is missing; expected the repository's URLs")?;
    let (name, kind) = (text(payload, "ref"), text(payload, "ref_type"));
    if event == "delete" || kind != "tag" || name.is_empty() {
        return Ok(Event::Ignored(format!("{event} {kind}")));
    }
    Ok(Event::Push(Push {
        repo_urls: urls(repository),
        reference: full_reference(name, "refs/tags/"),
        after: text(payload, "sha").to_string(),
        ..Push::default()
    }))
}

pub(super) fn gitlab(event: &str, payload: &Value) -> Result<Event, String> {
    let kind = match text(payload, "object_kind") {
        "" => event,
        kind => kind,
    };
    if !matches!(kind, "push" | "tag_push" | "Push Hook" | "Tag Push Hook") {
        return Ok(Event::Ignored(kind.to_string()));
    }
    let project = payload.get("project").ok_or("project is missing; expected the project's URLs")?;
    push(payload, urls(project), default_branch(project))
}

fn push(payload: &Value, repo_urls: BTreeSet<String>, default: &str) -> Result<Event, String> {
    let reference = text(payload, "ref");
    if reference.is_empty() {
        return Err("ref is missing; expected refs/heads/… or refs/tags/…".into());
    }
    if repo_urls.is_empty() {
        return Err("the repository has no URL".into());
    }
    let commit = |key: &str| {
        let commit = text(payload, key);
        if commit.bytes().all(|b| b == b'0') { String::new() } else { commit.to_string() }
    };
    let (before, after) = (commit("before"), commit("after"));
    Ok(Event::Push(Push {
        repo_urls,
        reference: reference.to_string(),
        default_branch: !default.is_empty() && reference.strip_prefix("refs/heads/") == Some(default),
        changed_files: changed_files(payload, &before),
        before,
        after,
    }))
}

/// None unless the list is certainly complete.
fn changed_files(payload: &Value, before: &str) -> Option<BTreeSet<String>> {
    let commits = payload.get("commits")?.as_array()?;
    let flag = |key: &str| payload.get(key).and_then(Value::as_bool).unwrap_or_default();
    let total = ["total_commits_count", "total_commits"].iter().find_map(|key| payload.get(key)?.as_u64());
    let complete = match total {
        Some(total) => total == commits.len() as u64,
        None => commits.len() < LISTED_COMMITS,
    };
    // A forced push may take commits away, which no list of added commits shows; a new ref has no list to compare with.
    if flag("forced") || flag("created") || flag("deleted") || before.is_empty() || commits.is_empty() || !complete {
        return None;
    }
    let mut files = BTreeSet::new();
    for commit in commits {
        let mut listed = 0;
        for key in ["added", "modified", "removed"] {
            // Without lists (a provider's trimmed payload) nothing is known.
            let list = commit.get(key)?.as_array();
            for file in list.into_iter().flatten().filter_map(Value::as_str) {
                listed += 1;
                files.insert(file.to_string());
            }
        }
        if listed >= LISTED_FILES {
            return None;
        }
    }
    Some(files)
}

fn urls(repository: &Value) -> BTreeSet<String> {
    ["clone_url", "ssh_url", "html_url", "git_http_url", "git_ssh_url", "web_url", "http_url", "git_url", "url"]
        .iter()
        .map(|key| text(repository, key))
        .filter(|url| !url.is_empty())
        // GitHub's `url` is the API's in some events.
        .filter(|url| !url.contains("/api/") && !url.starts_with("https://api."))
        .map(str::to_string)
        .collect()
}

fn default_branch(repository: &Value) -> &str {
    match text(repository, "default_branch") {
        "" => text(repository, "master_branch"),
        branch => branch,
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn full_reference(name: &str, prefix: &str) -> String {
    if name.starts_with("refs/") { name.to_string() } else { format!("{prefix}{name}") }
}

/// One field of a form's body.
pub(super) fn form_field(body: &[u8], name: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok()?;
    let encoded = text.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))?.1;
    let bytes = encoded.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => {
                out.push(u8::from_str_radix(encoded.get(at + 1..at + 3)?, 16).ok()?);
                at += 2;
            }
            other => out.push(other),
        }
        at += 1;
    }
    Some(out)
}
