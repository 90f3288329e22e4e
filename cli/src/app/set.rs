//! `app set` and `app unset`.

use super::Target;
use super::connect::{AppName, Connection};
use super::spec_flags::{self, SpecFlags, image_name, remove};
use crate::failure;
use anyhow::{Result, bail};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use serde_json::{Value, json};
use tidegate_crds::application::Application;

/// Changes an Application.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidegate app set shop --revision v2
  tidegate app set shop --source-position 2 -p image.tag=v2
  tidegate app set shop --sync-policy automated --self-heal")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Source to change, from 1, when there are several
    #[arg(long, value_name = "N")]
    source_position: Option<usize>,
    /// Name of the source to change, when there are several
    #[arg(long, value_name = "NAME", conflicts_with = "source_position")]
    source_name: Option<String>,
    #[command(flatten)]
    spec: SpecFlags,
}

/// Takes settings of an Application away.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidegate app unset shop -p image.tag --values values-test.yaml
  tidegate app unset shop --kustomize-image shop/web")]
pub struct UnsetArgs {
    #[command(flatten)]
    target: Target,
    /// Source to change, from 1, when there are several
    #[arg(long, value_name = "N")]
    source_position: Option<usize>,
    /// Name of the source to change, when there are several
    #[arg(long, value_name = "NAME", conflicts_with = "source_position")]
    source_name: Option<String>,
    /// Parameter of the chart; repeatable
    #[arg(short, long, value_name = "NAME")]
    parameter: Vec<String>,
    /// Values file of the chart; repeatable
    #[arg(long, value_name = "FILE")]
    values: Vec<String>,
    /// Literal values of the chart
    #[arg(long)]
    values_literal: bool,
    /// Leave out values files that do not exist
    #[arg(long)]
    ignore_missing_value_files: bool,
    /// Give credentials to all domains
    #[arg(long)]
    pass_credentials: bool,
    /// Prefix of names
    #[arg(long)]
    nameprefix: bool,
    /// Suffix of names
    #[arg(long)]
    namesuffix: bool,
    /// Version of Kustomize
    #[arg(long)]
    kustomize_version: bool,
    /// Namespace of everything
    #[arg(long)]
    kustomize_namespace: bool,
    /// Image; repeatable
    #[arg(long, value_name = "IMAGE")]
    kustomize_image: Vec<String>,
    /// Number of replicas; repeatable
    #[arg(long, value_name = "NAME")]
    kustomize_replica: Vec<String>,
    /// Environment of the plugin; repeatable
    #[arg(long, value_name = "NAME")]
    plugin_env: Vec<String>,
    /// Name by which other sources refer to this one's files
    #[arg(long = "ref")]
    ref_: bool,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let name = connection.name(&args.target.app, args.target.app_namespace.as_deref())?;
    change(connection, &name, |app| {
        let position = position(app, args.source_position, args.source_name.as_deref())?;
        args.spec.apply(app, position)
    })
    .await
}

pub async fn unset(args: UnsetArgs, connection: &Connection) -> Result<()> {
    let name = connection.name(&args.target.app, args.target.app_namespace.as_deref())?;
    change(connection, &name, |app| {
        let position = position(app, args.source_position, args.source_name.as_deref())?;
        take_away(&args, spec_flags::source(&mut app["spec"], position)?);
        Ok(())
    })
    .await
}

/// The position of the source that is named.
fn position(app: &Value, position: Option<usize>, name: Option<&str>) -> Result<Option<usize>> {
    let Some(name) = name else { return Ok(position) };
    let sources = app["spec"]["sources"].as_array();
    match sources.and_then(|sources| sources.iter().position(|source| source["name"] == name)) {
        Some(index) => Ok(Some(index + 1)),
        None => bail!("the application has no source named {name:?}"),
    }
}

/// Reads, changes and writes, and again when somebody else wrote in between.
async fn change(connection: &Connection, name: &AppName, change: impl Fn(&mut Value) -> Result<()>) -> Result<()> {
    let resource = ApiResource::erase::<Application>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(connection.client.clone(), &name.namespace, &resource);
    let mut left = 5;
    loop {
        let before = serde_json::to_value(api.get(&name.name).await?)?;
        let mut after = before.clone();
        change(&mut after)?;
        if after == before {
            bail!("Please set at least one option to update");
        }
        left -= 1;
        match api.replace(&name.name, &PostParams::default(), &serde_json::from_value(after)?).await {
            Err(error) if failure::is_conflict(&error) && left > 0 => {}
            other => return Ok(other.map(|_| ())?),
        }
    }
}

fn take_away(args: &UnsetArgs, source: &mut Value) {
    let without = |parent: &mut Value, key: &str, gone: &dyn Fn(&Value) -> bool| {
        if let Some(Value::Array(list)) = parent.get_mut(key) {
            list.retain(|entry| !gone(entry));
            if list.is_empty() {
                remove(parent, key);
            }
        }
    };
    let is_named = |names: &[String], entry: &Value| names.iter().any(|name| entry["name"] == name.as_str());
    if let Some(helm) = source.get_mut("helm") {
        without(helm, "parameters", &|entry| is_named(&args.parameter, entry));
        without(helm, "valueFiles", &|entry| args.values.iter().any(|file| entry == file.as_str()));
        for (set, key) in [
            (args.values_literal, "values"),
            (args.values_literal, "valuesObject"),
            (args.ignore_missing_value_files, "ignoreMissingValueFiles"),
            (args.pass_credentials, "passCredentials"),
        ] {
            if set {
                remove(helm, key);
            }
        }
    }
    if let Some(kustomize) = source.get_mut("kustomize") {
        without(kustomize, "images", &|entry| {
            let name = image_name(entry.as_str().unwrap_or_default());
            args.kustomize_image.iter().any(|image| image_name(image) == name)
        });
        without(kustomize, "replicas", &|entry| is_named(&args.kustomize_replica, entry));
        for (set, key) in [
            (args.nameprefix, "namePrefix"),
            (args.namesuffix, "nameSuffix"),
            (args.kustomize_version, "version"),
            (args.kustomize_namespace, "namespace"),
        ] {
            if set {
                remove(kustomize, key);
            }
        }
    }
    if let Some(plugin) = source.get_mut("plugin") {
        without(plugin, "env", &|entry| is_named(&args.plugin_env, entry));
    }
    if args.ref_ {
        remove(source, "ref");
    }
    for part in ["helm", "kustomize"] {
        if source[part] == json!({}) {
            remove(source, part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: UnsetArgs,
    }

    #[test]
    fn takes_settings_away() {
        let of = |line: &str, source: Value| {
            let mut source = source;
            take_away(
                &Program::try_parse_from(std::iter::once("unset").chain(line.split_whitespace())).unwrap().args,
                &mut source,
            );
            source
        };
        let helm = json!({"helm": {"parameters": [{"name": "a"}, {"name": "b"}], "valueFiles": ["v"], "values": "x"}, "ref": "r"});
        assert_eq!(
            of("shop -p a --values v", helm.clone()),
            json!({"helm": {"parameters": [{"name": "b"}], "values": "x"}, "ref": "r"})
        );
        assert_eq!(of("shop -p a -p b --values v --values-literal --ref", helm), json!({}));
        let kustomize = json!({"kustomize": {"images": ["shop/web:1", "other"], "namePrefix": "p"}});
        assert_eq!(
            of("shop --kustomize-image shop/web --nameprefix", kustomize),
            json!({"kustomize": {"images": ["other"]}})
        );
    }

    #[test]
    fn finds_sources_by_name() {
        let app = json!({"spec": {"sources": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(position(&app, None, Some("b")).unwrap(), Some(2));
        assert_eq!(position(&app, Some(1), None).unwrap(), Some(1));
        assert!(position(&app, None, Some("c")).is_err());
    }
}
