//! Writes the CustomResourceDefinitions into a directory, by default the chart's.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/tidegate/crds");
    let directory = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(default), PathBuf::from);
    std::fs::create_dir_all(&directory)?;
    for (name, yaml) in tidegate_crds::manifests::files()? {
        let path = directory.join(name);
        std::fs::write(&path, yaml).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
