//! `app history`.

use super::connect::Connection;
use super::{Target, summary};
use crate::output::{Table, print};
use anyhow::Result;
use clap::ValueEnum;
use tidegate_crds::application::{Application, RevisionHistory, Source};

/// Shows past deployments, the oldest first.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Format: wide, or id (numbers only)
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "wide")]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Wide,
    Id,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let name = connection.name(&args.target.app, args.target.app_namespace.as_deref())?;
    let app = connection.apps(&name.namespace).get(&name.name).await?;
    print(&match args.output {
        Format::Wide => table(&app),
        Format::Id => app.status.history.iter().map(|entry| format!("{}\n", entry.id)).collect(),
    })
}

/// The deployments by the repository of their sources.
fn table(app: &Application) -> String {
    let mut by_source: Vec<(String, Table)> = Vec::new();
    for entry in &app.status.history {
        for (source, revision) in sources(entry) {
            let index = match by_source.iter().position(|(url, _)| *url == source.repo_url) {
                Some(index) => index,
                None => {
                    by_source.push((source.repo_url.clone(), Table::with_header(&["ID", "DATE", "REVISION"])));
                    by_source.len() - 1
                }
            };
            by_source[index].1.push(vec![
                entry.id.to_string(),
                summary::time(entry.deployed_at.as_ref()),
                summary::target_and_commit(&source, &revision),
            ]);
        }
    }
    let blocks: Vec<String> =
        by_source.into_iter().map(|(url, table)| format!("SOURCE  {url}\n{}", table.render())).collect();
    blocks.join("\n")
}

fn sources(entry: &RevisionHistory) -> Vec<(Source, String)> {
    if entry.sources.is_empty() {
        return vec![(entry.source.clone().unwrap_or_default(), entry.revision.clone().unwrap_or_default())];
    }
    let revisions = entry.revisions.iter().cloned().chain(std::iter::repeat(String::new()));
    entry.sources.iter().cloned().zip(revisions).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_deployments_by_source() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let git = json!({"repoURL": "https://git.example/a.git", "targetRevision": "main"});
        let chart = json!({"repoURL": "https://charts.example", "targetRevision": "1.x"});
        let app: Application = serde_json::from_value(json!({"metadata": {"name": "a"}, "status": {"history": [
            {"id": 0, "revision": commit, "source": git, "deployedAt": "2026-01-01T00:00:00Z"},
            {"id": 10, "revisions": [commit, "1.2.3"], "sources": [git, chart], "deployedAt": "2026-01-02T00:00:00Z"}]}}))
        .unwrap();
        assert_eq!(
            table(&app),
            "\
SOURCE  https://git.example/a.git
ID  DATE                           REVISION
0   2026-01-01 00:00:00 +0000 UTC  main (0123456)
10  2026-01-02 00:00:00 +0000 UTC  main (0123456)

SOURCE  https://charts.example
ID  DATE                           REVISION
10  2026-01-02 00:00:00 +0000 UTC  1.x (1.2.3)
"
        );
    }
}
