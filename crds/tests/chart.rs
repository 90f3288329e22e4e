//! The chart holds the manifests that the types make.

use std::collections::BTreeMap;

const REGENERATE: &str = "run `cargo run -p tidegate-crds --example crds`";

#[test]
fn the_chart_holds_the_manifests_of_the_types() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/tidegate/crds");
    let found: BTreeMap<String, String> = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("charts/tidegate/crds: {error}; {REGENERATE}"))
        .map(|entry| {
            let entry = entry.unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), text)
        })
        .collect();
    let expected: BTreeMap<String, String> = tidegate_crds::manifests::files().unwrap().into_iter().collect();
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected), "files of charts/tidegate/crds; {REGENERATE}");
    for (name, text) in &expected {
        let line = found[name].lines().zip(text.lines()).position(|(a, b)| a != b).map(|line| line + 1);
        assert!(found[name] == *text, "charts/tidegate/crds/{name} is stale (line {line:?}); {REGENERATE}");
    }
}

#[test]
fn the_files_read_back_as_the_manifests() {
    for ((name, text), manifest) in
        tidegate_crds::manifests::files().unwrap().iter().zip(tidegate_crds::manifests::all())
    {
        let read: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(read, manifest, "{name}");
        // What `kubectl apply` without `--server-side` puts into an annotation has to fit there.
        let compact = serde_json::to_string(&read).unwrap().len();
        assert!(compact < 262_144, "{name}: {compact} bytes do not fit into an annotation");
    }
}
