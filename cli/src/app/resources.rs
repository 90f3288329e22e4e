//! `app resources`.

use super::connect::Connection;
use super::objects;
use super::{Target, get};
use crate::output::{Table, print};
use anyhow::Result;
use clap::ValueEnum;

/// Shows the objects of an Application.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Only objects in the Application's namespace that nobody's source holds
    #[arg(long)]
    orphaned: bool,
    /// Format: table or tree
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Tree,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let name = connection.name(&args.target.app, args.target.app_namespace.as_deref())?;
    let app = connection.apps(&name.namespace).get(&name.name).await?;
    if args.output == Format::Tree {
        let nodes = objects::tree(connection, &app).await?;
        return print(&get::tree(&nodes, false, jiff::Timestamp::now()));
    }
    let mut table = Table::with_header(&["GROUP", "KIND", "NAMESPACE", "NAME", "ORPHANED"]);
    if args.orphaned {
        let orphaned = app.status.conditions.iter().any(|condition| condition.type_ == "OrphanedResourceWarning");
        if orphaned {
            anyhow::bail!("application '{}' has orphaned objects; their list is not part of its status", app.name());
        }
        return print(&table.render());
    }
    for resource in &app.status.resources {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        table.push(vec![
            text(&resource.group),
            text(&resource.kind),
            text(&resource.namespace),
            text(&resource.name),
            "No".to_owned(),
        ]);
    }
    print(&table.render())
}
