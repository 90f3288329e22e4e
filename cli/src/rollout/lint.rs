//! `lint`: what is wrong with manifests, without a cluster.

mod file;

use super::read_file;
use crate::failure::Exit;
use crate::output::print;
use anyhow::{Context, Result};
use serde_json::Value;
use tidegate_crds::decode::Dropped;
use tidegate_crds::{API_VERSION, analysis, application, application_set, experiment, manifests, project, rollout};

/// Checks manifests without a cluster: fields that do not exist or have the wrong type, values that make no sense, and
/// references to objects in the same files. Objects of other APIs are read as what the references point to. The exit code
/// is 1 when something is wrong.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # Check a file
  tidegate lint -f web.yaml

  # Check what a tool renders
  kustomize build overlays/production | tidegate lint -f -")]
pub struct Args {
    /// File with one or more documents; - is standard input; repeatable
    #[arg(short, long, value_name = "FILE", required = true)]
    filename: Vec<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let mut found = Vec::new();
    for path in &args.filename {
        let text = read_file(path)?;
        match documents(&text) {
            Ok(documents) => found.extend(check(&documents).into_iter().map(|problem| format!("{path}: {problem}"))),
            Err(error) => found.push(format!("{path}: {error:#}")),
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    print(&found.iter().map(|problem| format!("{problem}\n")).collect::<String>())?;
    Err(Exit::silently(1))
}

/// The documents of a YAML or JSON text. Empty ones are left out, items of lists are taken out of them.
///
/// # Errors
/// When the text is neither.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let parsed: Vec<Value> = serde_saphyr::from_multiple(text).context("not YAML")?;
    let mut out = Vec::new();
    for mut document in parsed {
        let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        match document.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) if is_list => out.extend(items),
            Some(items) => {
                document["items"] = items;
                out.push(document);
            }
            None if document.is_null() => {}
            None => out.push(document),
        }
    }
    Ok(out)
}

/// Everything that is wrong with the documents, each with the object's kind and name in front.
pub fn check(documents: &[Value]) -> Vec<String> {
    let crds = manifests::all();
    let file = file::File::new(documents);
    let mut problems = Vec::new();
    for document in documents {
        let kind = document["kind"].as_str().unwrap_or_default();
        let name = document["metadata"]["name"].as_str().unwrap_or_default();
        let mut say = |problem: String| problems.push(format!("{kind} \"{name}\": {problem}"));
        if !document.is_object() || kind.is_empty() {
            say("found no kind, expected a Kubernetes object".to_owned());
            continue;
        }
        let api_version = document["apiVersion"].as_str().unwrap_or_default();
        if !api_version.starts_with("argoproj.io/") {
            continue;
        }
        if api_version != API_VERSION {
            say(format!("apiVersion: found {api_version:?}, expected {API_VERSION:?}"));
            continue;
        }
        let Some(crd) = crds.iter().find(|crd| crd["spec"]["names"]["kind"] == kind) else {
            // Other projects have kinds in this group as well (Workflow, EventSource, …).
            continue;
        };
        if name.is_empty() && document["metadata"]["generateName"].as_str().unwrap_or_default().is_empty() {
            say("metadata.name: missing".to_owned());
        }
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut unknown = Vec::new();
        unknown_fields(document, schema, "", &mut unknown);
        for path in unknown {
            say(format!("{path}: unknown field"));
        }
        if kind == rollout::Rollout::KIND {
            match rollout::Rollout::decode(document.clone()) {
                Ok((rollout, dropped)) => file.check(&rollout, &dropped).into_iter().for_each(&mut say),
                Err(error) => say(format!("metadata: {error}")),
            }
            continue;
        }
        tidegate_controller::admission::problems(document).iter().for_each(|finding| say(finding.to_string()));
        for dropped in misfits(kind, document).into_iter().filter(|dropped| !dropped.path.starts_with("spec")) {
            say(format!("{}: {}", dropped.path, dropped.reason));
        }
    }
    problems
}

/// Fields whose type does not fit.
fn misfits(kind: &str, document: &Value) -> Vec<Dropped> {
    fn of<T>(decoded: Result<(T, Vec<Dropped>), serde_json::Error>) -> Vec<Dropped> {
        match decoded {
            Ok((_, dropped)) => dropped,
            Err(error) => vec![Dropped { path: "metadata".to_owned(), reason: error.to_string() }],
        }
    }
    let document = document.clone();
    match kind {
        "Experiment" => of(experiment::Experiment::decode(document)),
        "AnalysisTemplate" => of(analysis::AnalysisTemplate::decode(document)),
        "ClusterAnalysisTemplate" => of(analysis::ClusterAnalysisTemplate::decode(document)),
        "AnalysisRun" => of(analysis::AnalysisRun::decode(document)),
        "Application" => of(application::Application::decode(document)),
        "ApplicationSet" => of(application_set::ApplicationSet::decode(document)),
        "AppProject" => of(project::AppProject::decode(document)),
        _ => Vec::new(),
    }
}

/// Paths of fields that the schema does not have, and that an API server would drop without a word.
fn unknown_fields(value: &Value, schema: &Value, path: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let free = schema["x-kubernetes-preserve-unknown-fields"] == true;
            let values = &schema["additionalProperties"];
            for (key, value) in fields {
                let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if at == "metadata" || at == "status" {
                    continue;
                }
                match schema["properties"].get(key) {
                    Some(inner) => unknown_fields(value, inner, &at, out),
                    None if values.is_object() => unknown_fields(value, values, &at, out),
                    None if free || values == true || schema["properties"].is_null() => {}
                    None => out.push(at),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                unknown_fields(item, &schema["items"], &format!("{path}[{index}]"), out);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        check(&documents(text).unwrap())
    }

    const GOOD: &str = "
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: app, image: nginx}]}
  strategy:
    canary:
      steps: [{setWeight: 20}, {pause: {duration: 10s}}, {plugin: {name: a/b, config: {any: [thing]}}}]
";

    #[test]
    fn accepts_good_manifests_and_other_peoples_kinds() {
        assert_eq!(problems(GOOD), Vec::<String>::new());
        assert_eq!(problems("kind: Service\napiVersion: v1\nmetadata: {name: a}\n---\n---\n"), Vec::<String>::new());
        assert_eq!(
            problems("kind: Workflow\napiVersion: argoproj.io/v1alpha1\nmetadata: {name: a}\n"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn names_unknown_fields_and_wrong_types_in_every_document() {
        let unknown = GOOD.replace("setWeight: 20", "setWeigth: 20");
        let found = problems(&unknown);
        assert_eq!(found[0], "Rollout \"web\": spec.strategy.canary.steps[0].setWeigth: unknown field");
        assert!(found[1].contains("steps[0]: Invalid value"), "without the field the step is empty: {found:?}");
        let wrong = format!(
            "{}---\n{}",
            GOOD,
            GOOD.replace("replicas: 2", "replicas: two").replace("name: web}", "name: bad}")
        );
        let found = problems(&wrong);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("Rollout \"bad\": spec.replicas: "), "{found:?}");
        assert!(problems("kind: Rollout\napiVersion: argoproj.io/v1\nmetadata: {name: a}")[0].contains("apiVersion"));
        assert!(documents("a: [").is_err());
    }

    #[test]
    fn says_what_makes_no_sense() {
        let found = problems(&GOOD.replace("setWeight: 20", "setWeight: 120"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("steps[0].setWeight") && found[0].contains("120"), "{found:?}");
        let found = problems(&GOOD.replace("matchLabels: {app: web}", "matchLabels: {app: other}"));
        assert!(!found.is_empty() && found.iter().all(|problem| problem.starts_with("Rollout \"web\": ")), "{found:?}");
    }

    #[test]
    fn checks_the_other_kinds_as_admission_does() {
        let of = |kind: &str, spec: &str| {
            problems(&format!("kind: {kind}\napiVersion: argoproj.io/v1alpha1\nmetadata: {{name: a}}\nspec: {spec}\n"))
        };
        assert_eq!(
            of("AnalysisTemplate", "{metrics: [{name: m, count: 2, provider: {web: {url: x}}}]}"),
            ["AnalysisTemplate \"a\": spec.metrics[0]: interval must be specified when count > 1"]
        );
        assert_eq!(
            of("Experiment", "{templates: []}"),
            ["Experiment \"a\": spec.templates: Required value: at least one variant"]
        );
        let found = of("AnalysisTemplate", "{metrics: 1}");
        assert_eq!(found.len(), 2, "what does not fit is told once: {found:?}");
    }

    #[test]
    fn follows_references_within_the_file() {
        let rollout = GOOD.replace(
            "canary:\n",
            "canary:\n      canaryService: web-canary\n      stableService: web\n      trafficRouting: {nginx: {stableIngress: web}}\n",
        );
        let service = |name: &str, label: &str| {
            format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{app: {label}}}}}\n"
            )
        };
        assert_eq!(problems(&rollout), Vec::<String>::new(), "what is not in the file may be in the cluster");
        let good = format!("{rollout}{}{}", service("web", "web"), service("web-canary", "web"));
        assert_eq!(problems(&good), Vec::<String>::new());
        let found = problems(&format!("{rollout}{}", service("web-canary", "other")));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("canaryService") && found[0].contains("app=other"), "{found:?}");
        let elsewhere =
            service("web-canary", "other").replace("name: web-canary", "name: web-canary, namespace: elsewhere");
        assert_eq!(problems(&format!("{rollout}{elsewhere}")), Vec::<String>::new());
    }

    #[test]
    fn takes_lists_apart() {
        let item = "{kind: ApplicationSet, apiVersion: argoproj.io/v1alpha1, metadata: {}, spec: {generators: []}}";
        let list = format!("kind: List\napiVersion: v1\nitems:\n- {item}\n- {item}\n");
        assert_eq!(problems(&list), ["ApplicationSet \"\": metadata.name: missing"; 2]);
    }
}
