//! Manifests that use every field of every kind survive the types unchanged.
//!
//! The files under `fixtures` are complete objects, status included, to be applied to an API server as they are.

#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_crds::decode::Dropped;
use tidegate_crds::{analysis, application, application_set, experiment, manifests, project, rollout};

fn fixtures() -> Vec<(String, Value)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let mut fixtures: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path.file_name().unwrap().to_str().unwrap().to_owned(), value)
        })
        .collect();
    fixtures.sort_by(|a, b| a.0.cmp(&b.0));
    fixtures
}

/// Decodes an object by its kind and writes it again.
fn through_the_types(object: Value) -> (Value, Vec<Dropped>) {
    macro_rules! through {
        ($($type:ty),*) => {
            match object["kind"].as_str().unwrap() {
                $(<$type>::KIND => {
                    let (object, dropped) = <$type>::decode(object).unwrap();
                    (serde_json::to_value(object).unwrap(), dropped)
                })*
                kind => panic!("no such kind: {kind}"),
            }
        };
    }
    through!(
        rollout::Rollout,
        analysis::AnalysisTemplate,
        analysis::ClusterAnalysisTemplate,
        analysis::AnalysisRun,
        experiment::Experiment,
        application::Application,
        project::AppProject,
        application_set::ApplicationSet
    )
}

#[test]
fn types_keep_every_field() {
    for (name, object) in fixtures() {
        let (written, dropped) = through_the_types(object.clone());
        assert_eq!(dropped, [], "{name}");
        let [expected, found] = [&object, &written].map(|o| serde_json::to_string_pretty(o).unwrap());
        assert!(object == written, "{name}:\n{}", first_difference(&expected, &found));
    }
}

fn first_difference(expected: &str, found: &str) -> String {
    let line = expected.lines().zip(found.lines()).position(|(a, b)| a != b).unwrap_or_default();
    let around = |text: &str| text.lines().skip(line.saturating_sub(4)).take(8).collect::<Vec<_>>().join("\n");
    format!("expected\n{}\nfound\n{}", around(expected), around(found))
}

/// The paths that a schema has, as far as it has any.
fn paths(prefix: &str, schema: &Value, out: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}.{name}");
        paths(&path, property, out);
        out.insert(path);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            paths(&format!("{prefix}[]"), &schema[key], out);
        }
    }
}

/// The paths of a schema that an object uses.
fn used(prefix: &str, schema: &Value, value: &Value, out: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(inner) = value.get(name) {
            let path = format!("{prefix}.{name}");
            used(&path, property, inner, out);
            out.insert(path);
        }
    }
    let inner = format!("{prefix}[]");
    for item in value.as_array().into_iter().flatten() {
        used(&inner, &schema["items"], item, out);
    }
    if schema["additionalProperties"].is_object() {
        for item in value.as_object().into_iter().flat_map(|map| map.values()) {
            used(&inner, &schema["additionalProperties"], item, out);
        }
    }
}

/// The indented blocks of a Markdown text, without their indentation.
fn blocks(markdown: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in markdown.lines() {
        match line.strip_prefix("    ") {
            Some(code) => blocks.last_mut().unwrap().extend([code, "\n"]),
            None if line.is_empty() => blocks.last_mut().unwrap().push('\n'),
            None => blocks.push(String::new()),
        }
    }
    blocks.iter().map(|block| block.trim_start_matches('\n').to_owned()).filter(|block| !block.is_empty()).collect()
}

#[test]
fn the_manual_shows_manifests_that_fit() {
    let mut seen = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for block in blocks(&text).iter().filter(|block| block.starts_with("apiVersion: argoproj.io/")) {
            let object: Value =
                serde_saphyr::from_str(block).unwrap_or_else(|error| panic!("{}: {error}\n{block}", path.display()));
            let (written, dropped) = through_the_types(object.clone());
            assert_eq!((dropped, written), (vec![], object), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 3, "found only {seen} manifests in the manual");
}

#[test]
fn fixtures_use_every_field() {
    let mut by_kind: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (_, object) in fixtures() {
        by_kind.entry(object["kind"].as_str().unwrap().to_owned()).or_default().push(object);
    }
    let mut missing = Vec::new();
    for manifest in manifests::all() {
        let kind = manifest["spec"]["names"]["kind"].as_str().unwrap();
        let schema = &manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let (mut all, mut found) = (BTreeSet::new(), BTreeSet::new());
        paths("", schema, &mut all);
        for object in by_kind.get(kind).into_iter().flatten() {
            used("", schema, object, &mut found);
        }
        missing.extend(all.difference(&found).map(|path| format!("{kind}{path}")));
    }
    assert!(missing.is_empty(), "no fixture uses:\n{}", missing.join("\n"));
}
