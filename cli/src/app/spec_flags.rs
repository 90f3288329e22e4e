//! The flags of `create` and `set` that make an Application's spec, as changes to its JSON.
//!
//! JSON and not the typed spec: fields that this program does not know stay as they are.

use crate::rollout::create::key_value;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Map, Value, json};

/// The flags of `create` and `set` that make an Application's spec.
#[derive(Args, Debug, Default)]
#[group(skip)]
pub struct SpecFlags {
    /// Repository
    #[arg(long, value_name = "URL")]
    pub repo: Option<String>,
    /// Directory in the repository
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Branch, tag or commit; of a chart, a version or range
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Only tags that begin so count for a version range
    #[arg(long, value_name = "PREFIX")]
    tag_prefix: Option<String>,
    /// Name by which other sources refer to this one's files
    #[arg(long = "ref", value_name = "NAME")]
    ref_: Option<String>,
    /// Chart in the repository
    #[arg(long, value_name = "CHART")]
    helm_chart: Option<String>,
    /// Address of the cluster to go to
    #[arg(long, value_name = "URL", conflicts_with = "dest_name")]
    dest_server: Option<String>,
    /// Name of the cluster to go to
    #[arg(long, value_name = "NAME")]
    dest_name: Option<String>,
    /// Namespace to go to
    #[arg(long, value_name = "NAMESPACE")]
    dest_namespace: Option<String>,
    /// AppProject
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    #[command(flatten)]
    helm: HelmFlags,
    #[command(flatten)]
    kustomize: KustomizeFlags,
    /// Look into directories below, too
    #[arg(long)]
    directory_recurse: bool,
    /// Only files that match this pattern
    #[arg(long, value_name = "PATTERN")]
    directory_include: Option<String>,
    /// No files that match this pattern
    #[arg(long, value_name = "PATTERN")]
    directory_exclude: Option<String>,
    /// Config management plugin
    #[arg(long, value_name = "NAME")]
    config_management_plugin: Option<String>,
    /// Environment of the plugin; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    plugin_env: Vec<(String, String)>,
    #[command(flatten)]
    sync: SyncFlags,
    /// How many deployments to remember
    #[arg(long, value_name = "N")]
    revision_history_limit: Option<i64>,
    /// Accepted: the controller validates
    #[arg(long, hide = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "true", default_missing_value = "true", value_parser = crate::grammar::go_bool)]
    validate: bool,
}

#[derive(Args, Debug, Default)]
#[group(skip)]
struct HelmFlags {
    /// Name of the Helm release
    #[arg(long, value_name = "NAME")]
    release_name: Option<String>,
    /// Values file of the chart; repeatable
    #[arg(long, value_name = "FILE")]
    values: Vec<String>,
    /// Values, from a file here
    #[arg(long, value_name = "FILE")]
    values_literal_file: Option<String>,
    /// Leave out values files that do not exist
    #[arg(long)]
    ignore_missing_value_files: bool,
    /// Value of the chart; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    helm_set: Vec<(String, String)>,
    /// Value of the chart, as text; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    helm_set_string: Vec<(String, String)>,
    /// Value of the chart, from a file in the repository; repeatable
    #[arg(long, value_name = "NAME=PATH", value_parser = key_value)]
    helm_set_file: Vec<(String, String)>,
    /// Parameter of the chart; repeatable
    #[arg(short, long = "parameter", value_name = "NAME=VALUE", value_parser = key_value)]
    parameter: Vec<(String, String)>,
    /// Leave out the chart's CustomResourceDefinitions
    #[arg(long)]
    helm_skip_crds: bool,
    /// Leave out the chart's tests
    #[arg(long)]
    helm_skip_tests: bool,
    /// Give credentials to all domains
    #[arg(long)]
    helm_pass_credentials: bool,
    /// Accepted: there is one version of Helm
    #[arg(long, hide = true)]
    helm_version: Option<String>,
}

#[derive(Args, Debug, Default)]
#[group(skip)]
struct KustomizeFlags {
    /// Prefix of names
    #[arg(long, value_name = "PREFIX")]
    nameprefix: Option<String>,
    /// Suffix of names
    #[arg(long, value_name = "SUFFIX")]
    namesuffix: Option<String>,
    /// Image, as [OLD=]NAME[:TAG][@DIGEST]; repeatable
    #[arg(long, value_name = "IMAGE")]
    kustomize_image: Vec<String>,
    /// Number of replicas; repeatable
    #[arg(long, value_name = "NAME=N", value_parser = key_value)]
    kustomize_replica: Vec<(String, String)>,
    /// Label of everything; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    kustomize_common_label: Vec<(String, String)>,
    /// Annotation of everything; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    kustomize_common_annotation: Vec<(String, String)>,
    /// Overwrite labels
    #[arg(long)]
    kustomize_force_common_label: bool,
    /// Overwrite annotations
    #[arg(long)]
    kustomize_force_common_annotation: bool,
    /// Namespace of everything
    #[arg(long, value_name = "NAMESPACE")]
    kustomize_namespace: Option<String>,
    /// Version of Kustomize
    #[arg(long, value_name = "VERSION")]
    kustomize_version: Option<String>,
}

#[derive(Args, Debug, Default)]
#[group(skip)]
struct SyncFlags {
    /// none (or manual), or automated (or auto, automatic)
    #[arg(long, value_name = "POLICY", value_parser = ["none", "manual", "automated", "auto", "automatic"],
        hide_possible_values = true)]
    sync_policy: Option<String>,
    /// Automated sync deletes what the source no longer holds
    #[arg(long)]
    auto_prune: bool,
    /// Automated sync takes changes in the cluster back
    #[arg(long)]
    self_heal: bool,
    /// Automated sync may delete everything
    #[arg(long)]
    allow_empty: bool,
    /// Option such as CreateNamespace=true; `!` in front removes it; repeatable
    #[arg(long, value_name = "OPTION")]
    sync_option: Vec<String>,
    /// How often to try again
    #[arg(long, value_name = "N")]
    sync_retry_limit: Option<i64>,
    /// Wait before the first new try
    #[arg(long, value_name = "DURATION")]
    sync_retry_backoff_duration: Option<String>,
    /// Longest wait before a new try
    #[arg(long, value_name = "DURATION")]
    sync_retry_backoff_max_duration: Option<String>,
    /// How much longer each wait is than the one before
    #[arg(long, value_name = "N")]
    sync_retry_backoff_factor: Option<i64>,
    /// Look for the newest revision before a new try
    #[arg(long)]
    sync_retry_refresh: bool,
}

impl SpecFlags {
    /// Changes the Application's spec. `position` is the source (from 1) when there are several.
    ///
    /// # Errors
    /// When a flag does not fit the Application, or a file cannot be read.
    pub fn apply(&self, app: &mut Value, position: Option<usize>) -> Result<()> {
        let spec = object(app, "spec");
        if self.touches_source() {
            self.apply_source(source(spec, position)?)?;
        }
        let destination = object(spec, "destination");
        if let Some(server) = &self.dest_server {
            destination["server"] = json!(server);
            remove(destination, "name");
        }
        if let Some(name) = &self.dest_name {
            destination["name"] = json!(name);
            remove(destination, "server");
        }
        put(destination, "namespace", &self.dest_namespace);
        put(spec, "project", &self.project);
        if let Some(limit) = self.revision_history_limit {
            spec["revisionHistoryLimit"] = json!(limit);
        }
        self.sync.apply(spec)
    }

    fn touches_source(&self) -> bool {
        let texts = [
            &self.repo,
            &self.path,
            &self.revision,
            &self.tag_prefix,
            &self.ref_,
            &self.helm_chart,
            &self.directory_include,
            &self.directory_exclude,
            &self.config_management_plugin,
        ];
        texts.iter().any(|text| text.is_some())
            || self.directory_recurse
            || !self.plugin_env.is_empty()
            || self.helm.is_set()
            || self.kustomize.is_set()
    }

    fn apply_source(&self, source: &mut Value) -> Result<()> {
        put(source, "repoURL", &self.repo);
        put(source, "path", &self.path);
        put(source, "targetRevision", &self.revision);
        put(source, "tagPrefix", &self.tag_prefix);
        put(source, "ref", &self.ref_);
        put(source, "chart", &self.helm_chart);
        if self.directory_recurse {
            object(source, "directory")["recurse"] = json!(true);
        }
        for (key, value) in [("include", &self.directory_include), ("exclude", &self.directory_exclude)] {
            if value.is_some() {
                put(object(source, "directory"), key, value);
            }
        }
        if self.config_management_plugin.is_some() {
            put(object(source, "plugin"), "name", &self.config_management_plugin);
        }
        for (name, value) in &self.plugin_env {
            with_list(object(source, "plugin"), "env", |env| named(env, name)["value"] = json!(value));
        }
        self.helm.apply(source)?;
        self.kustomize.apply(source)
    }
}

impl HelmFlags {
    fn is_set(&self) -> bool {
        self.release_name.is_some()
            || !self.values.is_empty()
            || self.values_literal_file.is_some()
            || self.ignore_missing_value_files
            || [&self.helm_set, &self.helm_set_string, &self.helm_set_file, &self.parameter]
                .iter()
                .any(|list| !list.is_empty())
            || self.helm_skip_crds
            || self.helm_skip_tests
            || self.helm_pass_credentials
    }

    fn apply(&self, source: &mut Value) -> Result<()> {
        if !self.is_set() {
            return Ok(());
        }
        let helm = object(source, "helm");
        put(helm, "releaseName", &self.release_name);
        if !self.values.is_empty() {
            helm["valueFiles"] = json!(self.values);
        }
        if let Some(path) = &self.values_literal_file {
            helm["values"] = json!(crate::rollout::read_file(path)?);
        }
        for (set, key) in [
            (self.ignore_missing_value_files, "ignoreMissingValueFiles"),
            (self.helm_skip_crds, "skipCrds"),
            (self.helm_skip_tests, "skipTests"),
            (self.helm_pass_credentials, "passCredentials"),
        ] {
            if set {
                helm[key] = json!(true);
            }
        }
        for (name, value) in self.helm_set.iter().chain(&self.parameter) {
            with_list(helm, "parameters", |list| *named(list, name) = json!({"name": name, "value": value}));
        }
        for (name, value) in &self.helm_set_string {
            let parameter = json!({"name": name, "value": value, "forceString": true});
            with_list(helm, "parameters", |list| *named(list, name) = parameter);
        }
        for (name, path) in &self.helm_set_file {
            with_list(helm, "fileParameters", |list| named(list, name)["path"] = json!(path));
        }
        Ok(())
    }
}

impl KustomizeFlags {
    fn is_set(&self) -> bool {
        [&self.nameprefix, &self.namesuffix, &self.kustomize_namespace, &self.kustomize_version]
            .iter()
            .any(|text| text.is_some())
            || !self.kustomize_image.is_empty()
            || [&self.kustomize_replica, &self.kustomize_common_label, &self.kustomize_common_annotation]
                .iter()
                .any(|list| !list.is_empty())
            || self.kustomize_force_common_label
            || self.kustomize_force_common_annotation
    }

    fn apply(&self, source: &mut Value) -> Result<()> {
        if !self.is_set() {
            return Ok(());
        }
        let kustomize = object(source, "kustomize");
        put(kustomize, "namePrefix", &self.nameprefix);
        put(kustomize, "nameSuffix", &self.namesuffix);
        put(kustomize, "namespace", &self.kustomize_namespace);
        put(kustomize, "version", &self.kustomize_version);
        for image in &self.kustomize_image {
            with_list(kustomize, "images", |images| {
                images.retain(|known| known.as_str().is_none_or(|known| image_name(known) != image_name(image)));
                images.push(json!(image));
            });
        }
        for (name, count) in &self.kustomize_replica {
            let Ok(count) = count.parse::<u32>() else {
                bail!("--kustomize-replica {name}: found {count:?}, expected a number")
            };
            with_list(kustomize, "replicas", |list| named(list, name)["count"] = json!(count));
        }
        for (name, value) in &self.kustomize_common_label {
            object(kustomize, "commonLabels")[name] = json!(value);
        }
        for (name, value) in &self.kustomize_common_annotation {
            object(kustomize, "commonAnnotations")[name] = json!(value);
        }
        if self.kustomize_force_common_label {
            kustomize["forceCommonLabels"] = json!(true);
        }
        if self.kustomize_force_common_annotation {
            kustomize["forceCommonAnnotations"] = json!(true);
        }
        Ok(())
    }
}

/// The image that an entry of `kustomize.images` is about.
pub fn image_name(image: &str) -> &str {
    if let Some((old, _)) = image.split_once('=') {
        return old;
    }
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    match name.rsplit_once(':') {
        // A colon before the last slash is a registry's port.
        Some((before, after)) if !after.contains('/') => before,
        _ => name,
    }
}

impl SyncFlags {
    fn apply(&self, spec: &mut Value) -> Result<()> {
        match self.sync_policy.as_deref() {
            Some("none" | "manual") => {
                if let Some(policy) = spec.get_mut("syncPolicy") {
                    remove(policy, "automated");
                }
            }
            Some(_) => {
                object(object(spec, "syncPolicy"), "automated");
            }
            None => {}
        }
        for (set, flag, key) in [
            (self.auto_prune, "--auto-prune", "prune"),
            (self.self_heal, "--self-heal", "selfHeal"),
            (self.allow_empty, "--allow-empty", "allowEmpty"),
        ] {
            if set {
                if !spec["syncPolicy"]["automated"].is_object() {
                    bail!("cannot set {flag}: application not configured with automatic sync");
                }
                spec["syncPolicy"]["automated"][key] = json!(true);
            }
        }
        for option in &self.sync_option {
            with_list(object(spec, "syncPolicy"), "syncOptions", |options| match option.strip_prefix('!') {
                Some(gone) => options.retain(|known| known != gone),
                None => {
                    let key = option.split('=').next();
                    options.retain(|known| known.as_str().and_then(|known| known.split('=').next()) != key);
                    options.push(json!(option));
                }
            });
        }
        if let Some(limit) = self.sync_retry_limit {
            object(object(spec, "syncPolicy"), "retry")["limit"] = json!(limit);
        }
        for (flag, key, text) in [
            ("--sync-retry-backoff-duration", "duration", &self.sync_retry_backoff_duration),
            ("--sync-retry-backoff-max-duration", "maxDuration", &self.sync_retry_backoff_max_duration),
        ] {
            if let Some(text) = text {
                if let Err(error) = tidegate_crds::duration::parse_or_seconds(text) {
                    bail!("{flag}: {error}");
                }
                object(object(object(spec, "syncPolicy"), "retry"), "backoff")[key] = json!(text);
            }
        }
        if let Some(factor) = self.sync_retry_backoff_factor {
            object(object(object(spec, "syncPolicy"), "retry"), "backoff")["factor"] = json!(factor);
        }
        if self.sync_retry_refresh {
            object(object(spec, "syncPolicy"), "retry")["refresh"] = json!(true);
        }
        Ok(())
    }
}

/// The source that flags are about.
///
/// # Errors
/// When there are several and none, or none of that number, is named.
pub fn source(spec: &mut Value, position: Option<usize>) -> Result<&mut Value> {
    let count = spec["sources"].as_array().map_or(0, Vec::len);
    if count == 0 {
        if position.is_some_and(|position| position != 1) {
            bail!("--source-position {}: the application has one source", position.unwrap_or_default());
        }
        return Ok(object(spec, "source"));
    }
    match position {
        None => {
            bail!("the application has {count} sources: say which with --source-position, from 1, or --source-name")
        }
        Some(position) if (1..=count).contains(&position) => Ok(&mut spec["sources"][position - 1]),
        Some(position) => bail!("--source-position {position}: the application has {count} sources"),
    }
}

/// The object under `key`, made when there is none.
pub fn object<'a>(parent: &'a mut Value, key: &str) -> &'a mut Value {
    if !parent.is_object() {
        *parent = Value::Object(Map::new());
    }
    let child = &mut parent[key];
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    child
}

/// The list under `key`, made when there is none, as it was and with `change` made to it.
fn with_list<T>(parent: &mut Value, key: &str, change: impl FnOnce(&mut Vec<Value>) -> T) -> T {
    let mut list = match parent[key].take() {
        Value::Array(list) => list,
        _ => Vec::new(),
    };
    let out = change(&mut list);
    parent[key] = Value::Array(list);
    out
}

/// The entry of that name in a list, made when there is none.
fn named<'a>(list: &'a mut Vec<Value>, name: &str) -> &'a mut Value {
    let index = list.iter().position(|entry| entry["name"] == name).unwrap_or_else(|| {
        list.push(json!({ "name": name }));
        list.len() - 1
    });
    &mut list[index]
}

fn put(parent: &mut Value, key: &str, value: &Option<String>) {
    if let Some(value) = value {
        parent[key] = json!(value);
    }
}

/// Takes a key out of an object.
pub fn remove(parent: &mut Value, key: &str) {
    if let Value::Object(map) = parent {
        map.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        flags: SpecFlags,
    }

    fn spec(start: Value, position: Option<usize>, line: &str) -> Result<Value> {
        let words = std::iter::once("create").chain(line.split_whitespace());
        let mut app = json!({ "spec": start });
        Program::try_parse_from(words)?.flags.apply(&mut app, position)?;
        Ok(app["spec"].take())
    }

    #[test]
    fn makes_a_spec() {
        let line = "--repo https://g/r --path p --revision main --dest-server https://k --dest-namespace ns --project team \
            --sync-policy automated --auto-prune --self-heal --sync-option CreateNamespace=true --sync-retry-limit 3 \
            --sync-retry-backoff-duration 5s --revision-history-limit 4 --directory-recurse";
        assert_eq!(
            spec(json!({}), None, line).unwrap(),
            json!({
                "source": {"repoURL": "https://g/r", "path": "p", "targetRevision": "main", "directory": {"recurse": true}},
                "destination": {"server": "https://k", "namespace": "ns"},
                "project": "team",
                "revisionHistoryLimit": 4,
                "syncPolicy": {
                    "automated": {"prune": true, "selfHeal": true},
                    "syncOptions": ["CreateNamespace=true"],
                    "retry": {"limit": 3, "backoff": {"duration": "5s"}},
                },
            })
        );
    }

    #[test]
    fn changes_helm_and_kustomize_settings_by_name() {
        let start = json!({"source": {"helm": {"parameters": [{"name": "a", "value": "1", "forceString": true}, {"name": "b", "value": "2"}]}}});
        let helm =
            spec(start, None, "-p a=x --helm-set-string c=3 --values v.yaml --release-name r --helm-set-file f=path")
                .unwrap();
        assert_eq!(
            helm["source"]["helm"],
            json!({
                "parameters": [{"name": "a", "value": "x"}, {"name": "b", "value": "2"}, {"name": "c", "value": "3", "forceString": true}],
                "valueFiles": ["v.yaml"], "releaseName": "r", "fileParameters": [{"name": "f", "path": "path"}],
            })
        );
        let start = json!({"source": {"kustomize": {"images": ["shop/web:1", "host:5000/db"]}}});
        let kustomize = spec(start, None, "--kustomize-image shop/web:2 --kustomize-image host:5000/db@sha256:1 --nameprefix p- --kustomize-replica web=3").unwrap();
        assert_eq!(
            kustomize["source"]["kustomize"],
            json!({
                "images": ["shop/web:2", "host:5000/db@sha256:1"], "namePrefix": "p-", "replicas": [{"name": "web", "count": 3}],
            })
        );
    }

    #[test]
    fn picks_one_of_several_sources() {
        let many = || json!({"sources": [{"repoURL": "a"}, {"repoURL": "b"}]});
        assert_eq!(spec(many(), Some(2), "--revision v2").unwrap()["sources"][1]["targetRevision"], "v2");
        assert!(spec(many(), None, "--revision v2").is_err());
        assert!(spec(many(), Some(3), "--revision v2").is_err());
        assert!(spec(json!({}), Some(2), "--revision v2").is_err());
        assert!(spec(many(), None, "--project team").is_ok());
    }

    #[test]
    fn replaces_and_removes_options() {
        let start = json!({"syncPolicy": {"automated": {"prune": true}, "syncOptions": ["A=true", "B=true"]}, "destination": {"server": "s"}});
        let changed =
            spec(start, None, "--sync-option !A=true --sync-option B=false --sync-policy none --dest-name n").unwrap();
        assert_eq!(changed, json!({"syncPolicy": {"syncOptions": ["B=false"]}, "destination": {"name": "n"}}));
        assert!(spec(json!({}), None, "--auto-prune").unwrap_err().to_string().contains("--auto-prune"));
    }
}
