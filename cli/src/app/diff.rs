//! `app diff`.

use super::connect::Connection;
use super::objects::{self, Kinds};
use super::targets::{self, Installation};
use super::{Target, delete, get};
use crate::failure::{self, Exit};
use crate::grammar::go_bool;
use crate::output::{Format, document, print};
use anyhow::{Context, Result};
use clap::ArgAction;
use kube::api::ResourceExt;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::Command;
use tidegate_crds::application::Application;
use tidegate_gitops::diff::{Settings, compare, three_way};
use tidegate_gitops::normalize::ignore::IgnoreRules;
use tidegate_gitops::normalize::{self, CompareOptions};
use tidegate_gitops::object::{self, Key};
use tidegate_gitops::sync::hook;

/// Shows how the cluster differs from what the source says: from live to target. Hooks and Secrets are left out.
///
/// The exit code is 0 without differences, 1 with some, and 2 when they cannot be told.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # What a sync would change now
  tidegate app diff shop

  # What a sync to a branch would change, shown with another tool
  KUBECTL_EXTERNAL_DIFF='diff -u' tidegate app diff shop --revision next")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Revision instead of the one that the source follows
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Revisions, one a source; repeatable
    #[arg(long, value_name = "REVISION", conflicts_with = "revision")]
    revisions: Vec<String>,
    /// Compare with the source again first
    #[arg(long)]
    refresh: bool,
    /// Compare again first, with manifests rendered anew
    #[arg(long)]
    hard_refresh: bool,
    /// Tell by the exit code whether there are differences
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", value_parser = go_bool, value_name = "BOOL")]
    exit_code: bool,
    /// Exit code when there are differences
    #[arg(long, value_name = "N", default_value_t = 1)]
    diff_exit_code: u8,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let found = match differences(&args, connection).await {
        Ok(found) => found,
        Err(error) => return Err(Exit { code: 2, message: Some(failure::text(&error)) }.into()),
    };
    show(&found)?;
    if !found.is_empty() && args.exit_code {
        return Err(Exit::silently(args.diff_exit_code));
    }
    Ok(())
}

async fn differences(args: &Args, connection: &Connection) -> Result<Vec<Difference>> {
    let name = connection.name(&args.target.app, args.target.app_namespace.as_deref())?;
    let app = if args.refresh || args.hard_refresh {
        get::refresh(connection, &name, args.hard_refresh, 0).await?
    } else {
        connection.apps(&name.namespace).get(&name.name).await?
    };
    let revisions = args.revision.iter().chain(&args.revisions).cloned().collect();
    find(connection, &app, revisions, args.hard_refresh).await
}

/// Shows the differences before a sync and asks. True: go on.
///
/// # Errors
/// When the differences cannot be told.
pub async fn preview(connection: &Connection, app: &Application, yes: bool) -> Result<bool> {
    let found = find(connection, app, Vec::new(), false).await?;
    if found.is_empty() {
        print("====== No Differences found ======\n")?;
        return Ok(true);
    }
    print("====== Previewing differences between live and desired state of application ======\n")?;
    show(&found)?;
    if yes {
        return Ok(true);
    }
    delete::ask("Please review changes to application shown above. Do you want to continue the sync process? (y/n): ")
}

/// One object that differs, as the texts of both sides. A side that is not there is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Difference {
    key: Key,
    live: String,
    target: String,
}

impl Difference {
    fn title(&self) -> String {
        let Key { group, kind, namespace, name } = &self.key;
        format!("===== {group}/{kind} {namespace}/{name} ======")
    }
}

async fn find(
    connection: &Connection,
    app: &Application,
    revisions: Vec<String>,
    hard: bool,
) -> Result<Vec<Difference>> {
    objects::require_this_cluster(app)?;
    let installation = Installation::read(connection).await?;
    let targets = targets::targets(connection, app, revisions, &installation, hard).await?;
    let mut live: BTreeMap<Key, Value> = BTreeMap::new();
    for (_, object) in objects::live(connection, app, &[]).await? {
        if let Some(object) = object {
            let value = serde_json::to_value(&object)?;
            live.insert(Key::of(&value), value);
        }
    }
    let mut kinds = Kinds::new(connection.client.clone());
    for target in targets.iter().filter(|target| !hook::is_hook_or_skipped(target)) {
        let key = Key::of(target);
        if live.contains_key(&key) {
            continue;
        }
        // The status may be older than the source.
        if let Some(api) = kinds.api(&key.group, object::version(target), &key.kind, &key.namespace).await?
            && let Some(found) = api.get_opt(&key.name).await.with_context(|| key.to_string())?
            && found.namespace().unwrap_or_default() == key.namespace
        {
            live.insert(key, serde_json::to_value(&found)?);
        }
    }
    let (ignore, problems) = IgnoreRules::compile(&app.spec.ignore_differences);
    for problem in problems {
        tracing::warn!("application '{}': {problem}", app.name());
    }
    let settings = Settings { tracking: &installation.tracking, ignore: &ignore, options: &installation.compare };
    between(&targets, &live, &settings)
}

/// What differs between targets and live objects.
fn between(targets: &[Value], live: &BTreeMap<Key, Value>, settings: &Settings<'_>) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    let mut said = BTreeSet::new();
    for target in targets.iter().filter(|target| !hook::is_hook_or_skipped(target)) {
        let key = Key::of(target);
        said.insert(key.clone());
        if is_secret(&key) {
            continue;
        }
        let Some(live) = live.get(&key) else {
            found.push(Difference { key, live: String::new(), target: text(target, settings.options)? });
            continue;
        };
        let comparison = compare(target, live, settings);
        if comparison.in_sync() {
            continue;
        }
        let last = normalize::last_applied(live);
        let merged = three_way::apply_three_way(last.as_ref(), &comparison.live, &comparison.target);
        found.push(Difference {
            key,
            live: text(&comparison.live, settings.options)?,
            target: text(&merged, settings.options)?,
        });
    }
    for (key, live) in live.iter().filter(|(key, _)| !said.contains(*key) && !is_secret(key)) {
        if hook::is_hook(live) {
            continue;
        }
        found.push(Difference { key: key.clone(), live: text(live, settings.options)?, target: String::new() });
    }
    found.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}

fn is_secret(key: &Key) -> bool {
    key.group.is_empty() && key.kind == "Secret"
}

/// An object as it is compared, as YAML.
fn text(value: &Value, options: &CompareOptions) -> Result<String> {
    let mut value = value.clone();
    normalize::normalize(&mut value, options);
    document(&value, Format::Yaml)
}

fn show(found: &[Difference]) -> Result<()> {
    let directory = tempfile::tempdir().context("making a directory for the two sides")?;
    let mut out = String::new();
    for difference in found {
        let write = |side: &str, text: &str| -> Result<std::path::PathBuf> {
            let path = directory.path().join(side);
            std::fs::File::create(&path)?.write_all(text.as_bytes())?;
            Ok(path)
        };
        let live = write("live.yaml", &difference.live)?;
        let target = write("target.yaml", &difference.target)?;
        out.push_str(&format!("\n{}\n", difference.title()));
        out.push_str(&compare_files(&live, &target, difference)?);
    }
    print(&out)
}

/// What the tool of `KUBECTL_EXTERNAL_DIFF`, else `diff`, says. Where there is no `diff`, a unified one is made here.
fn compare_files(live: &std::path::Path, target: &std::path::Path, difference: &Difference) -> Result<String> {
    let external = std::env::var("KUBECTL_EXTERNAL_DIFF").ok().filter(|command| !command.trim().is_empty());
    let words: Vec<&str> = external.as_deref().unwrap_or("diff").split_whitespace().collect();
    let (program, rest) = words.split_first().context("KUBECTL_EXTERNAL_DIFF is empty")?;
    match Command::new(program).args(rest).arg(live).arg(target).output() {
        // 1 is a difference; more is trouble.
        Ok(output) if output.status.code().is_some_and(|code| code <= 1) => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => anyhow::bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) if external.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(unified(difference)),
        Err(error) => Err(error).with_context(|| format!("running {program}")),
    }
}

fn unified(difference: &Difference) -> String {
    let diff = similar::TextDiff::from_lines(&difference.live, &difference.target);
    diff.unified_diff().context_radius(3).header("live", "target").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidegate_gitops::tracking::Tracking;

    fn object(kind: &str, name: &str, data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "data": data})
    }

    fn found(targets: &[Value], live: &[Value]) -> Vec<Difference> {
        let tracking = Tracking::default();
        let ignore = IgnoreRules::default();
        let options = CompareOptions::default();
        let settings = Settings { tracking: &tracking, ignore: &ignore, options: &options };
        let live = live.iter().map(|object| (Key::of(object), object.clone())).collect();
        between(targets, &live, &settings).unwrap()
    }

    #[test]
    fn shows_what_differs_is_new_or_is_gone() {
        let mut hook = object("ConfigMap", "hook", json!({"a": "1"}));
        hook["metadata"]["annotations"] = json!({"argocd.argoproj.io/hook": "PreSync"});
        let targets = [
            object("ConfigMap", "same", json!({"a": "1"})),
            object("ConfigMap", "changed", json!({"a": "2"})),
            object("ConfigMap", "new", json!({"a": "1"})),
            object("Secret", "secret", json!({"a": "Mg=="})),
            hook,
        ];
        let live = [
            object("ConfigMap", "same", json!({"a": "1"})),
            object("ConfigMap", "changed", json!({"a": "1", "by-another": "x"})),
            object("ConfigMap", "gone", json!({"a": "1"})),
            object("Secret", "secret", json!({"a": "MQ=="})),
        ];
        let found = found(&targets, &live);
        let titles: Vec<String> = found.iter().map(Difference::title).collect();
        assert_eq!(
            titles,
            [
                "===== /ConfigMap shop/changed ======",
                "===== /ConfigMap shop/gone ======",
                "===== /ConfigMap shop/new ======"
            ]
        );
        assert!(found[0].live.contains("a: \"1\"") && found[0].target.contains("a: \"2\""), "{:?}", found[0]);
        assert!(found[0].target.contains("by-another: x"), "what others added stays: {}", found[0].target);
        assert!(found[1].target.is_empty() && found[2].live.is_empty());
    }

    #[test]
    fn compares_without_a_tool_too() {
        let difference = Difference { key: Key::default(), live: "a: 1\nb: 2\n".into(), target: "a: 1\nb: 3\n".into() };
        assert_eq!(unified(&difference), "--- live\n+++ target\n@@ -1,2 +1,2 @@\n a: 1\n-b: 2\n+b: 3\n");
    }
}
