//! The CustomResourceDefinitions of this API, made from its types.
//!
//! A manifest must not be stricter than the peers': what they store, this API stores. So nothing is required but what
//! they require, no value is defaulted, enumerations are plain strings, and JSON that is the user's own is kept as it
//! is. Every field may be null: templates often leave an empty `key:` behind, and server-side apply rejects that where a
//! field is not nullable.

use crate::analysis::{AnalysisRun, AnalysisRunSpec, AnalysisRunStatus, AnalysisTemplate, AnalysisTemplateSpec};
use crate::analysis::{ClusterAnalysisTemplate, NoStatus};
use crate::application::{Application, ApplicationSpec, ApplicationStatus, Operation};
use crate::application_set::{ApplicationSet, ApplicationSetSpec, ApplicationSetStatus};
use crate::experiment::{Experiment, ExperimentSpec, ExperimentStatus};
use crate::project::{AppProject, AppProjectSpec, AppProjectStatus};
use crate::rollout::{Rollout, RolloutSpec, RolloutStatus};
use crate::{GROUP, VERSION};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// One kind of this API, before it is put into a manifest.
struct Kind {
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    namespaced: bool,
    /// What the whole object is for.
    description: &'static str,
    /// Schemas of the top-level fields besides `metadata`.
    fields: Vec<(&'static str, Value)>,
    columns: Vec<Value>,
    subresources: Value,
}

/// The CustomResourceDefinitions of all kinds, as JSON.
pub fn all() -> Vec<Value> {
    kinds().into_iter().map(definition).collect()
}

/// The CustomResourceDefinitions as files: names such as `argoproj.io_rollouts.yaml`, and their YAML.
///
/// # Errors
/// When a manifest cannot be written as YAML.
pub fn files() -> Result<Vec<(String, String)>, serde_saphyr::ser::Error> {
    all()
        .iter()
        .map(|manifest| {
            let plural = manifest["spec"]["names"]["plural"].as_str().unwrap_or_default();
            let yaml = serde_saphyr::to_string(manifest)?;
            Ok((
                format!("{GROUP}_{plural}.yaml"),
                format!("# Made from the types in crds/src; see CONTRIBUTING.md.\n{yaml}"),
            ))
        })
        .collect()
}

fn kinds() -> Vec<Kind> {
    let status = json!({"status": {}});
    let scale = json!({
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.HPAReplicas",
            "labelSelectorPath": ".status.selector",
        },
    });
    // Analysis, experiments, Applications and projects keep their status in the object itself, as the peers do: their
    // clients patch it there.
    let none = json!({});
    let phase = || column("Status", "string", ".status.phase", "Phase");
    let age = || column("Age", "date", ".metadata.creationTimestamp", "Time since creation");
    vec![
        Kind {
            kind: Rollout::KIND,
            plural: Rollout::PLURAL,
            short_names: &["ro"],
            namespaced: true,
            description: "A workload whose new versions come step by step (canary) or side by side (blue-green).",
            fields: vec![("spec", rollout_spec()), ("status", schema::<RolloutStatus>())],
            columns: vec![
                column("Desired", "integer", ".spec.replicas", "Number of pods wanted"),
                column("Current", "integer", ".status.replicas", "Number of pods of all versions"),
                column("Up-to-date", "integer", ".status.updatedReplicas", "Number of pods of the newest version"),
                column("Available", "integer", ".status.availableReplicas", "Number of available pods"),
                age(),
            ],
            subresources: scale,
        },
        Kind {
            kind: AnalysisRun::KIND,
            plural: AnalysisRun::PLURAL,
            short_names: &["ar"],
            namespaced: true,
            description: "One run of an analysis and its verdict.",
            fields: vec![("spec", schema::<AnalysisRunSpec>()), ("status", schema::<AnalysisRunStatus>())],
            columns: vec![phase(), age()],
            subresources: none.clone(),
        },
        Kind {
            kind: AnalysisTemplate::KIND,
            plural: AnalysisTemplate::PLURAL,
            short_names: &["at"],
            namespaced: true,
            description: "What to measure, for the Rollouts of one namespace.",
            fields: vec![("spec", schema::<AnalysisTemplateSpec>()), ("status", schema::<NoStatus>())],
            columns: vec![age()],
            subresources: none.clone(),
        },
        Kind {
            kind: ClusterAnalysisTemplate::KIND,
            plural: ClusterAnalysisTemplate::PLURAL,
            short_names: &["cat"],
            namespaced: false,
            description: "What to measure, for Rollouts everywhere.",
            fields: vec![("spec", schema::<AnalysisTemplateSpec>()), ("status", schema::<NoStatus>())],
            columns: vec![age()],
            subresources: none.clone(),
        },
        Kind {
            kind: Experiment::KIND,
            plural: Experiment::PLURAL,
            short_names: &["exp"],
            namespaced: true,
            description: "Variants that run side by side for a while and are measured.",
            fields: vec![("spec", schema::<ExperimentSpec>()), ("status", schema::<ExperimentStatus>())],
            columns: vec![phase(), age()],
            subresources: none.clone(),
        },
        Kind {
            kind: Application::KIND,
            plural: Application::PLURAL,
            short_names: &["app", "apps"],
            namespaced: true,
            description: "Manifests at a source and the cluster that shall look like them.",
            fields: vec![
                ("spec", schema::<ApplicationSpec>()),
                ("status", schema::<ApplicationStatus>()),
                ("operation", schema::<Operation>()),
            ],
            columns: vec![
                column("Sync Status", "string", ".status.sync.status", "Whether the cluster looks like the source"),
                column("Health Status", "string", ".status.health.status", "Whether what runs there works"),
                wide(column("Revision", "string", ".status.sync.revision", "Revision that was compared")),
                wide(column("Project", "string", ".spec.project", "AppProject")),
            ],
            subresources: none.clone(),
        },
        Kind {
            kind: AppProject::KIND,
            plural: AppProject::PLURAL,
            short_names: &["appproj", "appprojs"],
            namespaced: true,
            description: "What the Applications of a team may use.",
            fields: vec![("spec", project_spec()), ("status", schema::<AppProjectStatus>())],
            columns: Vec::new(),
            subresources: none,
        },
        Kind {
            kind: ApplicationSet::KIND,
            plural: ApplicationSet::PLURAL,
            short_names: &["appset", "appsets"],
            namespaced: true,
            description: "A template and generators that make Applications of it.",
            fields: vec![("spec", application_set_spec()), ("status", schema::<ApplicationSetStatus>())],
            columns: Vec::new(),
            subresources: status,
        },
    ]
}

fn definition(kind: Kind) -> Value {
    let mut properties = json!({
        "apiVersion": {"type": "string", "description": "Version of the schema of this object."},
        "kind": {"type": "string", "description": "Kind of this object."},
        "metadata": {"type": "object"},
    });
    for (name, schema) in kind.fields {
        let empty = schema["properties"].as_object().is_none_or(Map::is_empty);
        if !empty {
            properties[name] = schema;
            properties[name]["nullable"] = json!(name != "spec");
        }
    }
    let mut version = json!({
        "name": VERSION,
        "served": true,
        "storage": true,
        "schema": {"openAPIV3Schema": {
            "type": "object",
            "description": kind.description,
            "properties": properties,
            "required": ["spec"],
        }},
        "subresources": kind.subresources,
    });
    if !kind.columns.is_empty() {
        version["additionalPrinterColumns"] = kind.columns.into();
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{GROUP}", kind.plural), "labels": {"app.kubernetes.io/part-of": "tidegate"}},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.kind,
                "listKind": format!("{}List", kind.kind),
                "plural": kind.plural,
                "singular": kind.kind.to_lowercase(),
                "shortNames": kind.short_names,
            },
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            "versions": [version],
        },
    })
}

fn column(name: &str, type_: &str, path: &str, description: &str) -> Value {
    json!({"name": name, "type": type_, "jsonPath": path, "description": description})
}

/// Shows a column only in wide output.
fn wide(mut column: Value) -> Value {
    column["priority"] = json!(10);
    column
}

fn rollout_spec() -> Value {
    let mut spec = schema::<RolloutSpec>();
    // The scale subresource reads it, and takes no null.
    spec["properties"]["replicas"]["nullable"] = json!(false);
    spec["properties"]["selector"]["x-kubernetes-validations"] =
        json!([{"rule": "self == oldSelf", "message": "spec.selector is immutable"}]);
    let strategy = &mut spec["properties"]["strategy"]["properties"];
    strategy["blueGreen"]["required"] = json!(["activeService"]);
    strategy["canary"]["properties"]["trafficRouting"]["properties"]["alb"]["required"] = json!(["servicePort"]);
    spec
}

fn project_spec() -> Value {
    let mut spec = schema::<AppProjectSpec>();
    spec["properties"]["description"]["maxLength"] = json!(255);
    spec
}

fn application_set_spec() -> Value {
    let mut spec = schema::<ApplicationSetSpec>();
    // Not an enumeration, which would forbid null.
    spec["properties"]["syncPolicy"]["properties"]["applicationsSync"]["x-kubernetes-validations"] = json!([{
        "rule": "self in ['create-only', 'create-update', 'create-delete', 'sync']",
        "message": "applicationsSync is one of create-only, create-update, create-delete and sync",
    }]);
    spec
}

/// The structural schema of a type.
fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    structural(&mut schema);
    schema
}

/// Rewrites a JSON schema into what a CustomResourceDefinition may hold.
fn structural(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for key in ["$schema", "title", "default", "nullable", "examples", "components"] {
        map.remove(key);
    }
    // What is optional comes as "this or null".
    for key in ["anyOf", "allOf"] {
        if let Some(Value::Array(parts)) = map.remove(key) {
            for part in parts.into_iter().filter(|part| !is_null(part)) {
                merge(map, part);
            }
        }
    }
    if let Some(Value::Array(types)) = map.get("type") {
        let type_ = types.iter().find(|t| *t != "null").cloned();
        map.extend(type_.map(|t| ("type".to_owned(), t)));
    }
    // Texts of a closed set: values that a later version of the peer adds have to pass.
    if ["enum", "oneOf", "const"].iter().any(|key| map.remove(*key).is_some()) {
        map.insert("type".into(), json!("string"));
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        for property in properties.values_mut() {
            structural(property);
            property["nullable"] = json!(true);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            structural(inner);
        }
    }
    // Nothing is required beyond what the peers require, and nothing else is forbidden: unknown fields are pruned.
    map.remove("required");
    if map.get("additionalProperties") == Some(&json!(false)) {
        map.remove("additionalProperties");
    }
}

/// This part says that a value may be null.
fn is_null(part: &Value) -> bool {
    part["type"] == "null"
        || part["enum"] == json!([null])
        || part["const"] == Value::Null && part.get("const").is_some()
}

/// Puts a part of a schema into the schema around it, whose own words win.
fn merge(map: &mut Map<String, Value>, part: Value) {
    let Value::Object(part) = part else { return };
    for (key, value) in part {
        match (map.get_mut(&key), value) {
            (Some(Value::Object(there)), Value::Object(value)) if key == "properties" => there.extend(value),
            (Some(_), _) => {}
            (None, value) => {
                map.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Visits every schema of a manifest with its path.
    fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Map<String, Value>)) {
        let map = schema.as_object().unwrap_or_else(|| panic!("{path}: a schema is an object, found {schema}"));
        visit(path, map);
        for (name, property) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
            walk(&format!("{path}.{name}"), property, visit);
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = map.get(key) {
                walk(&format!("{path}[]"), inner, visit);
            }
        }
    }

    fn schema_of(manifest: &Value) -> &Value {
        &manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    }

    #[test]
    fn schemas_are_structural_and_default_nothing() {
        let known = [
            "type",
            "description",
            "format",
            "properties",
            "items",
            "additionalProperties",
            "nullable",
            "required",
            "maxLength",
            "x-kubernetes-validations",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-int-or-string",
        ];
        let mut seen = 0;
        for manifest in all() {
            walk("", schema_of(&manifest), &mut |path, schema| {
                seen += 1;
                for key in schema.keys() {
                    assert!(known.contains(&key.as_str()), "{path}: {key} has no place in a structural schema");
                }
                let free = |key: &str| schema.get(key) == Some(&json!(true));
                let typed = schema.get("type").is_some_and(Value::is_string);
                if free("x-kubernetes-int-or-string") {
                    assert!(!typed, "{path}: int-or-string has no type");
                } else {
                    assert!(typed || free("x-kubernetes-preserve-unknown-fields"), "{path}: no type in {schema:?}");
                }
                match schema.get("type").and_then(Value::as_str) {
                    Some("array") => assert!(schema.contains_key("items"), "{path}: a list of what?"),
                    Some("object") if path != ".metadata" => assert!(
                        schema.contains_key("properties")
                            || schema.contains_key("additionalProperties")
                            || free("x-kubernetes-preserve-unknown-fields"),
                        "{path}: every field of this object would be pruned"
                    ),
                    _ => {}
                }
            });
        }
        assert!(seen > 1000, "only {seen} schemas");
    }

    #[test]
    fn every_field_may_be_null() {
        for manifest in all() {
            let plural = manifest["spec"]["names"]["plural"].clone();
            walk("", schema_of(&manifest), &mut |path, schema| {
                let own = [".apiVersion", ".kind", ".metadata", ".spec", ""].contains(&path) || path.ends_with("[]");
                let scaled = plural == "rollouts" && path == ".spec.replicas";
                let nullable = schema.get("nullable") == Some(&json!(true));
                assert!(nullable || own || scaled, "{plural}{path} may not be null");
            });
        }
    }

    #[test]
    fn everything_has_a_description() {
        for manifest in all() {
            let plural = manifest["spec"]["names"]["plural"].clone();
            walk("", schema_of(&manifest), &mut |path, schema| {
                let described = path.ends_with("[]") || path == ".metadata" || schema.contains_key("description");
                assert!(described, "{plural}{path} has no description");
            });
        }
    }

    #[test]
    fn subresources_are_those_of_the_peers() {
        let expected = [
            ("rollouts", json!(["scale", "status"])),
            ("analysisruns", json!([])),
            ("analysistemplates", json!([])),
            ("clusteranalysistemplates", json!([])),
            ("experiments", json!([])),
            ("applications", json!([])),
            ("appprojects", json!([])),
            ("applicationsets", json!(["status"])),
        ];
        let found: Vec<_> = all()
            .iter()
            .map(|manifest| {
                let subresources = manifest["spec"]["versions"][0]["subresources"].as_object().unwrap();
                let names: Vec<_> = subresources.keys().cloned().collect();
                (manifest["spec"]["names"]["plural"].as_str().unwrap().to_owned(), json!(names))
            })
            .collect();
        assert_eq!(found, expected.map(|(plural, names)| (plural.to_owned(), names)));
    }

    #[test]
    fn users_own_json_is_kept() {
        let manifests = all();
        let at = |plural: &str, path: &str| {
            let manifest = manifests.iter().find(|m| m["spec"]["names"]["plural"] == plural).unwrap();
            path.split('.').fold(schema_of(manifest), |schema, part| match part {
                "[]" => &schema["items"],
                name => &schema["properties"][name],
            })["x-kubernetes-preserve-unknown-fields"]
                .clone()
        };
        for (plural, path) in [
            ("rollouts", "spec.template"),
            ("rollouts", "spec.strategy.canary.trafficRouting.plugins"),
            ("rollouts", "spec.strategy.canary.steps.[].plugin.config"),
            ("experiments", "spec.templates.[].template"),
            ("analysistemplates", "spec.metrics.[].provider.plugin"),
            ("analysistemplates", "spec.metrics.[].provider.web.jsonBody"),
            ("analysistemplates", "spec.metrics.[].provider.job.spec"),
            ("applications", "spec.source.helm.valuesObject"),
            ("applicationsets", "spec.template"),
            ("applicationsets", "spec.generators.[].list.elements.[]"),
            ("applicationsets", "spec.generators.[].matrix.generators.[]"),
        ] {
            assert_eq!(at(plural, path), json!(true), "{plural}: {path}");
        }
    }
}
