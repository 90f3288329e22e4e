//! `create`.

use super::{lint, read_file};
use crate::cluster::Connection;
use crate::output::print;
use anyhow::{Context, Result, bail};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_crds::analysis::{AnalysisTemplate, AnalysisTemplateSpec, ClusterAnalysisTemplate};
use tidegate_crds::{API_VERSION, GROUP, keys};

/// Creates objects of this API from files, or an AnalysisRun from a template.
#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  # Create what a file holds, and follow the Rollout
  tidegate rollout create -f web.yaml --watch

  # Run an analysis now
  tidegate rollout create analysisrun --from success-rate -a service=web"
)]
pub struct Args {
    #[command(subcommand)]
    kind: Option<Kind>,
    /// File with Rollouts, Experiments, AnalysisTemplates, ClusterAnalysisTemplates or AnalysisRuns; - is standard input
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<String>,
    /// Follow the last Rollout or Experiment afterwards
    #[arg(short, long)]
    watch: bool,
    /// No colours
    #[arg(long)]
    no_color: bool,
}

#[derive(clap::Subcommand, Debug)]
enum Kind {
    /// Create an AnalysisRun from a template
    #[command(name = "analysisrun", visible_aliases = ["ar", "analysisruns"])]
    AnalysisRun(RunArgs),
}

#[derive(clap::Args, Debug, Default)]
#[group(skip)]
struct RunArgs {
    /// Name of the AnalysisTemplate
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "from_file", required_unless_present = "from_file")]
    from: Option<String>,
    /// File with the AnalysisTemplate
    #[arg(long, value_name = "FILE")]
    from_file: Option<String>,
    /// The template is a ClusterAnalysisTemplate
    #[arg(long)]
    global: bool,
    /// Value of an argument of the template; repeatable
    #[arg(short, long = "argument", value_name = "NAME=VALUE", value_parser = key_value)]
    argument: Vec<(String, String)>,
    /// Name of the run
    #[arg(long, value_name = "NAME", conflicts_with = "generate_name")]
    name: Option<String>,
    /// Start of the name of the run; default: the template's name and a dash
    #[arg(long, value_name = "PREFIX")]
    generate_name: Option<String>,
    /// Instance id of the controller that shall run it
    #[arg(long, value_name = "ID")]
    instance_id: Option<String>,
}

/// Reads `NAME=VALUE`; the value may hold further equals signs.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("found {text:?}, expected NAME=VALUE")),
    }
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    if let Some(Kind::AnalysisRun(run)) = args.kind {
        return create_run(run, connection).await;
    }
    if args.filename.is_empty() {
        bail!("expected --filename FILE, or analysisrun --from TEMPLATE");
    }
    let mut last = None;
    for path in &args.filename {
        let text = read_file(path)?;
        for document in lint::documents(&text).with_context(|| path.clone())? {
            let kind = document["kind"].as_str().unwrap_or_default().to_owned();
            if document["apiVersion"] != API_VERSION || !is_creatable(&kind) {
                bail!("{path}: creates of {kind}/{} unsupported", document["apiVersion"].as_str().unwrap_or_default());
            }
            let name = create(connection, document).await?;
            print(&format!("{}.{GROUP}/{name} created\n", kind.to_lowercase()))?;
            if matches!(kind.as_str(), "Rollout" | "Experiment") {
                last = Some((kind, name));
            }
        }
    }
    match last {
        Some((kind, name)) if args.watch => super::get::watch(&kind, name, args.no_color, connection).await,
        _ => Ok(()),
    }
}

fn is_creatable(kind: &str) -> bool {
    matches!(kind, "Rollout" | "Experiment" | "AnalysisTemplate" | "ClusterAnalysisTemplate" | "AnalysisRun")
}

/// Creates an object of this API, in its own namespace or the connection's, and gives its name.
async fn create(connection: &Connection, object: Value) -> Result<String> {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, tidegate_crds::VERSION, &kind));
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or(&connection.namespace).to_owned();
    let api: Api<DynamicObject> = match kind.as_str() {
        "ClusterAnalysisTemplate" => Api::all_with(connection.client.clone(), &resource),
        _ => Api::namespaced_with(connection.client.clone(), &namespace, &resource),
    };
    let made = api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(made.metadata.name.unwrap_or_default())
}

async fn create_run(args: RunArgs, connection: &Connection) -> Result<()> {
    let (name, specs) = match (&args.from, &args.from_file) {
        (Some(name), _) => (name.clone(), load(connection, name, args.global).await?),
        (None, Some(path)) => {
            let document = lint::documents(&read_file(path)?).with_context(|| path.clone())?.into_iter().next();
            let document = document.with_context(|| format!("{path} is empty"))?;
            let (template, _) = AnalysisTemplate::decode(document).with_context(|| path.clone())?;
            let mut specs = vec![template.spec.clone()];
            for nested in &template.spec.templates {
                specs.extend(load(connection, &nested.template_name, nested.cluster_scope).await?);
            }
            (template.name().to_owned(), specs)
        }
        (None, None) => bail!("expected --from TEMPLATE or --from-file FILE"),
    };
    let object = analysis_run(&name, &specs, &args, &connection.namespace)?;
    let made = create(connection, object).await?;
    print(&format!("analysisrun.{GROUP}/{made} created\n"))
}

/// The template and those that it refers to, each once.
async fn load(connection: &Connection, name: &str, global: bool) -> Result<Vec<AnalysisTemplateSpec>> {
    let mut wanted = vec![(name.to_owned(), global)];
    let mut seen = BTreeSet::new();
    let mut specs = Vec::new();
    while let Some((name, global)) = wanted.pop() {
        if !seen.insert((name.clone(), global)) {
            continue;
        }
        let spec = if global {
            Api::<ClusterAnalysisTemplate>::all(connection.client.clone()).get(&name).await?.spec
        } else {
            super::api::<AnalysisTemplate>(connection).get(&name).await?.spec
        };
        wanted.extend(spec.templates.iter().rev().map(|t| (t.template_name.clone(), t.cluster_scope)));
        specs.push(spec);
    }
    Ok(specs)
}

/// The AnalysisRun that a template and its arguments make.
fn analysis_run(template: &str, specs: &[AnalysisTemplateSpec], args: &RunArgs, namespace: &str) -> Result<Value> {
    let mut metrics = Vec::new();
    let mut names = BTreeSet::new();
    let mut arguments: BTreeMap<String, Value> = BTreeMap::new();
    let (mut dry_run, mut retention) = (Vec::new(), Vec::new());
    for spec in specs {
        for metric in &spec.metrics {
            if !names.insert(metric.name.clone()) {
                bail!("template {template:?}: two metrics are named {:?}", metric.name);
            }
            metrics.push(serde_json::to_value(metric)?);
        }
        for argument in &spec.args {
            let value = serde_json::to_value(argument)?;
            match arguments.get(&argument.name) {
                Some(known) if known != &value && argument.value.is_some() && !known["value"].is_null() => {
                    bail!("template {template:?}: two templates give argument {:?} different defaults", argument.name)
                }
                Some(known) if !known["value"].is_null() || argument.value.is_none() => {}
                _ => {
                    arguments.insert(argument.name.clone(), value);
                }
            }
        }
        dry_run.extend(spec.dry_run.iter().cloned());
        retention.extend(spec.measurement_retention.iter().cloned());
    }
    for (name, value) in &args.argument {
        if !arguments.contains_key(name) {
            let known: Vec<&str> = arguments.keys().map(String::as_str).collect();
            bail!("template {template:?} has no argument {name:?}, only {known:?}");
        }
        arguments.insert(name.clone(), json!({"name": name, "value": value}));
    }
    for (name, argument) in &arguments {
        if argument["value"].is_null() && argument["valueFrom"].is_null() {
            bail!("args.{name} was not resolved: the template gives no default, so give one with -a {name}=VALUE");
        }
    }
    let mut metadata = Map::new();
    match &args.name {
        Some(name) => metadata.insert("name".into(), json!(name)),
        None => {
            let prefix = args.generate_name.clone().unwrap_or_else(|| format!("{template}-"));
            metadata.insert("generateName".into(), json!(prefix))
        }
    };
    metadata.insert("namespace".into(), json!(namespace));
    if let Some(id) = &args.instance_id {
        metadata.insert("labels".into(), json!({keys::INSTANCE_ID: id}));
    }
    let mut spec = json!({"metrics": metrics, "args": arguments.into_values().collect::<Vec<_>>()});
    if !dry_run.is_empty() {
        spec["dryRun"] = serde_json::to_value(dry_run)?;
    }
    if !retention.is_empty() {
        spec["measurementRetention"] = serde_json::to_value(retention)?;
    }
    Ok(json!({"apiVersion": API_VERSION, "kind": "AnalysisRun", "metadata": metadata, "spec": spec}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(value: Value) -> AnalysisTemplateSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn makes_a_run_of_templates_and_arguments() {
        let specs = [
            spec(
                json!({"metrics": [{"name": "a", "provider": {"web": {"url": "u"}}}], "args": [{"name": "x"}, {"name": "y", "value": "1"}]}),
            ),
            spec(json!({"metrics": [{"name": "b", "provider": {"web": {"url": "u"}}}], "args": [{"name": "x"}]})),
        ];
        let args =
            RunArgs { argument: vec![("x".into(), "v=1".into())], instance_id: Some("i".into()), ..Default::default() };
        let run = analysis_run("t", &specs, &args, "ns").unwrap();
        assert_eq!(
            run,
            json!({
                "apiVersion": "argoproj.io/v1alpha1",
                "kind": "AnalysisRun",
                "metadata": {
                    "generateName": "t-",
                    "namespace": "ns",
                    "labels": {"argo-rollouts.argoproj.io/controller-instance-id": "i"},
                },
                "spec": {
                    "metrics": [
                        {"name": "a", "provider": {"web": {"url": "u"}}},
                        {"name": "b", "provider": {"web": {"url": "u"}}},
                    ],
                    "args": [{"name": "x", "value": "v=1"}, {"name": "y", "value": "1"}],
                },
            })
        );
    }

    #[test]
    fn names_what_is_missing_or_wrong() {
        let specs = [spec(json!({"args": [{"name": "x"}]}))];
        let error = |argument: Vec<(String, String)>| {
            analysis_run("t", &specs, &RunArgs { argument, ..Default::default() }, "ns").unwrap_err().to_string()
        };
        assert!(error(vec![]).contains("args.x was not resolved"));
        assert!(error(vec![("z".into(), "1".into())]).contains("no argument \"z\""));
        let twice = [spec(json!({"metrics": [{"name": "a"}]})), spec(json!({"metrics": [{"name": "a"}]}))];
        assert!(analysis_run("t", &twice, &RunArgs::default(), "ns").is_err());
        assert_eq!(key_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(key_value("a").is_err());
    }
}
