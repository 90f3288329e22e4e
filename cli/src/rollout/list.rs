//! `list`.

use super::{info, live, phase};
use crate::cluster::Connection;
use crate::output::{Format, Table, age, document, human, print, width, without_managed_fields};
use anyhow::{Result, bail};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher;
use std::collections::BTreeMap;
use tidegate_crds::duration;
use tidegate_crds::experiment::Experiment;
use tidegate_crds::rollout::Rollout;

/// Lists Rollouts or Experiments.
#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  # Rollouts of the namespace
  tidegate rollout list

  # Rollouts everywhere, with every change
  tidegate rollout list rollouts -A --watch

  # Experiments
  tidegate rollout list experiments"
)]
pub struct Args {
    #[command(subcommand)]
    kind: Option<Kind>,
    #[command(flatten)]
    rollouts: Selection,
}

#[derive(clap::Subcommand, Debug)]
enum Kind {
    /// List Rollouts
    #[command(visible_aliases = ["ro", "rollout"])]
    Rollouts(Selection),
    /// List Experiments
    #[command(visible_aliases = ["exp", "experiment"])]
    Experiments(Selection),
}

#[derive(clap::Args, Clone, Debug, Default)]
struct Selection {
    /// Only the one of this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Print a row for every change, until interrupted (Rollouts)
    #[arg(short, long)]
    watch: bool,
    /// Print the time in front of each row
    #[arg(long)]
    timestamps: bool,
    /// Format: wide (the table), name, json or yaml
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

impl Selection {
    fn params(&self) -> ListParams {
        match &self.name {
            Some(name) => ListParams::default().fields(&format!("metadata.name={name}")),
            None => ListParams::default(),
        }
    }

    fn api<K>(&self, connection: &Connection) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match self.all_namespaces {
            true => Api::all(connection.client.clone()),
            false => Api::namespaced(connection.client.clone(), &connection.namespace),
        }
    }
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    match args.kind {
        Some(Kind::Experiments(selection)) => experiments(selection, connection).await,
        Some(Kind::Rollouts(selection)) => rollouts(selection, connection).await,
        None => rollouts(args.rollouts, connection).await,
    }
}

async fn documents<K>(selection: &Selection, connection: &Connection, format: Format) -> Result<()>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = match selection.all_namespaces {
        true => Api::all_with(connection.client.clone(), &resource),
        false => Api::namespaced_with(connection.client.clone(), &connection.namespace, &resource),
    };
    let items: Vec<DynamicObject> =
        api.list(&selection.params()).await?.items.into_iter().map(without_managed_fields).collect();
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items});
    print(&document(&list, format)?)
}

fn names<'a>(kind: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    print(&names.map(|name| format!("{kind}.argoproj.io/{name}\n")).collect::<String>())
}

async fn rollouts(selection: Selection, connection: &Connection) -> Result<()> {
    if let Some(format @ (Format::Json | Format::Yaml)) = selection.output {
        return documents::<Rollout>(&selection, connection, format).await;
    }
    let api = selection.api::<Rollout>(connection);
    let found = api.list(&selection.params()).await?.items;
    if selection.output == Some(Format::Name) {
        return names("rollout", found.iter().map(Rollout::name));
    }
    if found.is_empty() && !selection.watch {
        eprintln!("No resources found.");
        return Ok(());
    }
    let columns = Columns::fitting(&found, &selection);
    let now = Timestamp::now();
    let mut shown = BTreeMap::new();
    let mut out = columns.header();
    for rollout in &found {
        let row = columns.row(rollout);
        out.push_str(&columns.stamped(&row, now));
        shown.insert((rollout.namespace().to_owned(), rollout.name().to_owned()), row);
    }
    print(&out)?;
    if !selection.watch {
        return Ok(());
    }
    let mut config = watcher::Config::default();
    if let Some(name) = &selection.name {
        config = config.fields(&format!("metadata.name={name}"));
    }
    let (store, mut changes) = live::follow(api, config);
    while let Some(change) = changes.next().await {
        change?;
        let mut objects = store.state();
        objects.sort_by(|a, b| (a.namespace(), a.name()).cmp(&(b.namespace(), b.name())));
        for rollout in objects {
            let row = columns.row(&rollout);
            let key = (rollout.namespace().to_owned(), rollout.name().to_owned());
            if shown.get(&key) != Some(&row) {
                print(&columns.stamped(&row, Timestamp::now()))?;
                shown.insert(key, row);
            }
        }
    }
    bail!("the watch of Rollouts ended")
}

/// The columns of Rollouts. Their widths are fixed by the first rows, so that rows of later changes line up.
struct Columns {
    namespace: Option<usize>,
    name: usize,
    rest: [usize; 8],
    timestamps: bool,
}

/// Titles and least widths of the columns after the name.
const REST: [(&str, usize); 8] = [
    ("STRATEGY", 9),
    ("STATUS", 12),
    ("STEP", 4),
    ("SET-WEIGHT", 10),
    ("READY", 5),
    ("DESIRED", 7),
    ("UP-TO-DATE", 10),
    ("AVAILABLE", 9),
];

impl Columns {
    fn fitting(found: &[Rollout], selection: &Selection) -> Self {
        let longest = |title: &str, of: fn(&Rollout) -> &str| {
            found.iter().map(|rollout| width(of(rollout))).max().unwrap_or(0).max(title.len())
        };
        let mut rest = REST.map(|(_, width)| width);
        for rollout in found {
            for (least, cell) in rest.iter_mut().zip(cells(rollout)) {
                *least = (*least).max(width(&cell));
            }
        }
        Self {
            rest,
            namespace: selection.all_namespaces.then(|| longest("NAMESPACE", Rollout::namespace)),
            name: longest("NAME", Rollout::name),
            timestamps: selection.timestamps,
        }
    }

    fn line(&self, namespace: &str, name: &str, cells: [String; 8]) -> String {
        let mut out = String::new();
        if let Some(width) = self.namespace {
            out.push_str(&format!("{namespace:<width$}  "));
        }
        out.push_str(&format!("{name:<width$}", width = self.name));
        for (cell, width) in cells.iter().zip(self.rest) {
            out.push_str(&format!("  {cell:<width$}"));
        }
        out + "\n"
    }

    fn header(&self) -> String {
        let line = self.line("NAMESPACE", "NAME", REST.map(|(title, _)| title.to_owned()));
        if self.timestamps { format!("{:<20}  {line}", "TIMESTAMP") } else { line }
    }

    fn row(&self, rollout: &Rollout) -> String {
        self.line(rollout.namespace(), rollout.name(), cells(rollout))
    }

    fn stamped(&self, row: &str, now: Timestamp) -> String {
        if self.timestamps { format!("{}  {row}", now.strftime("%Y-%m-%dT%H:%M:%SZ")) } else { row.to_owned() }
    }
}

/// What the columns after the name say.
fn cells(rollout: &Rollout) -> [String; 8] {
    let status = &rollout.status;
    let number = |value: Option<i32>| value.unwrap_or(0).to_string();
    let canary = rollout.spec.strategy.canary.as_ref();
    [
        info::strategy(rollout).to_owned(),
        phase::of(rollout).0,
        info::step(rollout).unwrap_or_else(|| "-".to_owned()),
        canary.map_or_else(|| "-".to_owned(), |canary| info::set_weight(canary, status).to_string()),
        format!("{}/{}", number(status.ready_replicas), number(status.replicas)),
        rollout.spec.replicas.unwrap_or(1).to_string(),
        number(status.updated_replicas),
        number(status.available_replicas),
    ]
}

async fn experiments(selection: Selection, connection: &Connection) -> Result<()> {
    if let Some(format @ (Format::Json | Format::Yaml)) = selection.output {
        return documents::<Experiment>(&selection, connection, format).await;
    }
    if selection.watch {
        bail!("list experiments has no --watch; `get experiment NAME --watch` follows one");
    }
    let found = selection.api::<Experiment>(connection).list(&selection.params()).await?.items;
    if selection.output == Some(Format::Name) {
        return names("experiment", found.iter().map(Experiment::name));
    }
    if found.is_empty() {
        eprintln!("No resources found.");
        return Ok(());
    }
    print(&experiment_table(&found, selection.all_namespaces, Timestamp::now()))
}

fn experiment_table(found: &[Experiment], namespaces: bool, now: Timestamp) -> String {
    let titles = ["NAMESPACE", "NAME", "STATUS", "DURATION", "REMAINING", "AGE"];
    let skip = usize::from(!namespaces);
    let mut table = Table::with_header(&titles[skip..]);
    for experiment in found {
        let length = experiment.spec.duration.as_deref().filter(|text| !text.is_empty());
        let since = experiment.status.available_at.as_ref().map(|at| now.duration_since(at.0));
        let remaining = match (length.and_then(|text| duration::parse(text).ok()), since) {
            (Some(length), Some(since)) if !experiment.status.phase.completed() => {
                let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
                human(length.saturating_sub(since).as_secs().max(0))
            }
            _ => "-".to_owned(),
        };
        let row = [
            experiment.namespace().to_owned(),
            experiment.name().to_owned(),
            experiment.status.phase.as_str().to_owned(),
            length.unwrap_or("-").to_owned(),
            remaining,
            age(info::created(&experiment.metadata), now),
        ];
        table.push(row[skip..].to_vec());
    }
    table.render_padded()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rollout(name: &str, strategy: Value) -> Rollout {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "test"},
            "spec": {"replicas": 5, "strategy": strategy},
            "status": {"currentStepIndex": 1, "replicas": 4, "readyReplicas": 1, "updatedReplicas": 3, "availableReplicas": 2},
        }))
        .unwrap()
    }

    fn canary() -> Rollout {
        let steps = json!([{"setWeight": 10}, {"pause": {"duration": 60}}, {"setWeight": 20}]);
        rollout("can-guestbook", json!({"canary": {"steps": steps}}))
    }

    #[test]
    fn lists_rollouts_in_the_peers_columns() {
        let objects = [canary(), rollout("bg-guestbook", json!({"blueGreen": {}}))];
        let columns = Columns::fitting(&objects, &Selection::default());
        assert_eq!(
            columns.header() + &columns.row(&objects[0]) + &columns.row(&objects[1]),
            "NAME           STRATEGY   STATUS        STEP  SET-WEIGHT  READY  DESIRED  UP-TO-DATE  AVAILABLE\n\
             can-guestbook  Canary     Progressing   1/3   10          1/4    5        3           2        \n\
             bg-guestbook   BlueGreen  Progressing   -     -           1/4    5        3           2        \n"
        );
        let long = rollout("long", json!({"canary": {"steps": vec![json!({"setWeight": 10}); 10]}}));
        let columns = Columns::fitting(std::slice::from_ref(&long), &Selection::default());
        assert_eq!(
            columns.header() + &columns.row(&long),
            "NAME  STRATEGY   STATUS        STEP  SET-WEIGHT  READY  DESIRED  UP-TO-DATE  AVAILABLE\n\
             long  Canary     Progressing   1/10  10          1/4    5        3           2        \n"
        );
        let selection = Selection { all_namespaces: true, timestamps: true, ..Default::default() };
        let columns = Columns::fitting(&objects[..1], &selection);
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(
            columns.header() + &columns.stamped(&columns.row(&objects[0]), now),
            "TIMESTAMP             NAMESPACE  NAME           STRATEGY   STATUS        STEP  SET-WEIGHT  READY  DESIRED  UP-TO-DATE  AVAILABLE\n\
             2026-01-02T03:04:05Z  test       can-guestbook  Canary     Progressing   1/3   10          1/4    5        3           2        \n"
        );
    }

    #[test]
    fn lists_experiments_with_what_is_left() {
        let now: Timestamp = "2026-01-08T00:00:00Z".parse().unwrap();
        let experiment = |name: &str, namespace: &str, length: &str| -> Experiment {
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"duration": length},
                "status": {"phase": "Running", "availableAt": "2026-01-07T22:59:59Z"},
            }))
            .unwrap()
        };
        let found = [experiment("my-experiment", "test", "3h"), experiment("my-experiment2", "my-other-namespace", "")];
        assert_eq!(
            experiment_table(&found, true, now),
            "NAMESPACE           NAME            STATUS   DURATION  REMAINING  AGE\n\
             test                my-experiment   Running  3h        119m       7d \n\
             my-other-namespace  my-experiment2  Running  -         -          7d \n"
        );
    }
}
