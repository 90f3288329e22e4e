//! The objects that a Rollout names.

use super::{Kind, Problem, Problems, labels};
use crate::rollout::Service;
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use tidegate_crds::analysis::{AnalysisTemplateSpec, Argument, Metric};
use tidegate_crds::rollout::{AnalysisTemplateRef, Canary, PodTemplateMetadata, Rollout, RolloutAnalysis};
use tidegate_crds::{IntOrString, OwnerReference, keys};
use tidegate_traffic::{Input, Objects, Router, RouterError, RouterOptions, routers};

/// What was found of the objects that a Rollout names.
#[derive(Clone, Debug)]
pub struct References<'a> {
    /// Services by name.
    pub services: &'a BTreeMap<String, Service>,
    /// Analysis templates by name and whether they are cluster-scoped, with those that they name in turn.
    pub templates: &'a BTreeMap<(String, bool), AnalysisTemplateSpec>,
    /// What the traffic routers asked to see.
    pub routing: &'a Objects,
    /// API versions for the routers.
    pub options: &'a RouterOptions,
    /// Whether this is all there is: what is absent does not exist. When a file is checked without its cluster, it is not.
    pub complete: bool,
}

/// What is wrong with the objects that the Rollout names: first what does not exist, then what does not fit. Services,
/// analysis templates and routes, in this order.
pub fn references(rollout: &Rollout, references: &References<'_>) -> Vec<Problem> {
    let mut problems = Problems::default();
    let services = services(rollout);
    let analyses = analyses(rollout);
    if references.complete {
        for service in &services {
            if !references.services.contains_key(service.name) {
                let expected = format!("service {:?} not found in namespace {}", service.name, rollout.namespace());
                problems.invalid(service.field, service.name, expected);
            }
        }
        for analysis in &analyses {
            missing_templates(rollout, analysis, references, &mut problems);
        }
    }
    for service in &services {
        if let Some(found) = references.services.get(service.name) {
            check_service(rollout, service, found, &mut problems);
        }
    }
    for analysis in &analyses {
        check_analysis(analysis, references, &mut problems);
    }
    check_routes(rollout, references, &mut problems);
    problems.0
}

/// A Service that a Rollout names.
struct ServiceField<'a> {
    field: &'static str,
    name: &'a str,
    /// What the pods behind it get while they are behind it.
    metadata: Option<&'a PodTemplateMetadata>,
}

fn services(rollout: &Rollout) -> Vec<ServiceField<'_>> {
    let strategy = &rollout.spec.strategy;
    let mut found: Vec<ServiceField<'_>> = Vec::new();
    if let Some(blue_green) = &strategy.blue_green {
        found.push(ServiceField {
            field: "spec.strategy.blueGreen.activeService",
            name: &blue_green.active_service,
            metadata: blue_green.active_metadata.as_ref(),
        });
        found.extend(blue_green.preview_service.as_deref().map(|name| ServiceField {
            field: "spec.strategy.blueGreen.previewService",
            name,
            metadata: blue_green.preview_metadata.as_ref(),
        }));
    }
    if let Some(canary) = &strategy.canary {
        found.extend(canary.stable_service.as_deref().map(|name| ServiceField {
            field: "spec.strategy.canary.stableService",
            name,
            metadata: canary.stable_metadata.as_ref(),
        }));
        found.extend(canary.canary_service.as_deref().map(|name| ServiceField {
            field: "spec.strategy.canary.canaryService",
            name,
            metadata: canary.canary_metadata.as_ref(),
        }));
        if let Some(pair) = &canary.ping_pong {
            let field = "spec.strategy.canary.pingPong.pingService";
            found.push(ServiceField { field, name: &pair.ping_service, metadata: None });
            let field = "spec.strategy.canary.pingPong.pongService";
            found.push(ServiceField { field, name: &pair.pong_service, metadata: None });
        }
    }
    found.retain(|service| !service.name.is_empty());
    found
}

fn check_service(rollout: &Rollout, service: &ServiceField<'_>, found: &Service, problems: &mut Problems) {
    let pod_labels = labels::texts(rollout.spec.template.pointer("/metadata/labels"));
    for (key, value) in found.selector.iter().filter(|(key, _)| *key != keys::POD_TEMPLATE_HASH) {
        let ephemeral = service.metadata.and_then(|metadata| metadata.labels.get(key));
        if pod_labels.get(key) != Some(value) && ephemeral != Some(value) {
            let has = pod_labels.get(key).map_or("no such label".to_owned(), |has| format!("{key}={has}"));
            let expected =
                format!("Service {:?} selects pods with label {key}={value}, the pod template has {has}", service.name);
            problems.invalid(service.field, service.name, expected);
        }
    }
    if found.managed_by.as_deref().is_some_and(|manager| manager != rollout.name()) {
        let expected = format!("Service {:?} is managed by another Rollout", service.name);
        problems.invalid(service.field, service.name, expected);
    }
}

/// An analysis that a Rollout runs.
struct AnalysisField<'a> {
    field: String,
    analysis: &'a RolloutAnalysis,
    /// It may run until it is ended; all others have to end by themselves.
    endless: bool,
}

fn analyses(rollout: &Rollout) -> Vec<AnalysisField<'_>> {
    let mut found = Vec::new();
    let strategy = &rollout.spec.strategy;
    if let Some(blue_green) = &strategy.blue_green {
        let pair = [
            ("prePromotionAnalysis", &blue_green.pre_promotion_analysis),
            ("postPromotionAnalysis", &blue_green.post_promotion_analysis),
        ];
        for (name, analysis) in pair {
            let field = format!("spec.strategy.blueGreen.{name}");
            found.extend(analysis.as_ref().map(|analysis| AnalysisField { field, analysis, endless: false }));
        }
    }
    if let Some(canary) = &strategy.canary {
        for (index, step) in canary.steps.iter().flatten().enumerate() {
            let field = format!("spec.strategy.canary.steps[{index}].analysis");
            found.extend(step.analysis.as_ref().map(|analysis| AnalysisField { field, analysis, endless: false }));
        }
        found.extend(canary.analysis.as_ref().map(|background| AnalysisField {
            field: "spec.strategy.canary.analysis".to_owned(),
            analysis: &background.analysis,
            endless: true,
        }));
    }
    found
}

fn kind(cluster_scope: bool) -> &'static str {
    if cluster_scope { "ClusterAnalysisTemplate" } else { "AnalysisTemplate" }
}

/// Name of a template, and whether it is cluster-scoped.
type TemplateKey = (String, bool);

/// The template and all that it names, each once, with the names that lead to nothing.
fn closure(first: &AnalysisTemplateRef, references: &References<'_>) -> (Vec<TemplateKey>, Vec<TemplateKey>) {
    let mut seen: BTreeSet<TemplateKey> = BTreeSet::new();
    let mut missing = Vec::new();
    let mut order = Vec::new();
    let mut todo = vec![(first.template_name.clone(), first.cluster_scope)];
    while let Some(key) = todo.pop() {
        if !seen.insert(key.clone()) {
            continue;
        }
        match references.templates.get(&key) {
            None => missing.push(key),
            Some(spec) => {
                todo.extend(spec.templates.iter().rev().map(|t| (t.template_name.clone(), t.cluster_scope)));
                order.push(key);
            }
        }
    }
    (order, missing)
}

fn missing_templates(
    rollout: &Rollout,
    field: &AnalysisField<'_>,
    references: &References<'_>,
    problems: &mut Problems,
) {
    for (index, template) in field.analysis.templates.iter().enumerate() {
        let path = format!("{}.templates[{index}].templateName", field.field);
        for (name, cluster_scope) in closure(template, references).1 {
            let place = if cluster_scope { String::new() } else { format!(" in namespace {}", rollout.namespace()) };
            let through = match name == template.template_name && cluster_scope == template.cluster_scope {
                true => String::new(),
                false => format!(", which {} {} names", kind(template.cluster_scope), template.template_name),
            };
            let expected = format!("{} {name:?} not found{place}{through}", kind(cluster_scope));
            problems.invalid(path.as_str(), name, expected);
        }
    }
}

/// Whether the templates of one analysis go together: metrics and arguments are unique, every argument has a value,
/// every placeholder an argument, and the run ends by itself where it has to.
fn check_analysis(field: &AnalysisField<'_>, references: &References<'_>, problems: &mut Problems) {
    let path = format!("{}.templates", field.field);
    let mut keys: Vec<TemplateKey> = Vec::new();
    for template in &field.analysis.templates {
        let (order, missing) = closure(template, references);
        if !missing.is_empty() {
            return;
        }
        keys.extend(order.into_iter().filter(|key| !keys.contains(key)).collect::<Vec<_>>());
    }
    let specs = keys.iter().filter_map(|key| Some((key, references.templates.get(key)?)));
    let specs: Vec<(&TemplateKey, &AnalysisTemplateSpec)> = specs.collect();
    let mut metrics: BTreeMap<&str, &str> = BTreeMap::new();
    let mut arguments: BTreeMap<&str, &Argument> = BTreeMap::new();
    for ((template, _), spec) in &specs {
        for metric in &spec.metrics {
            if let Some(other) = metrics.insert(&metric.name, template) {
                let expected = format!("metric {:?} stands in both {other} and {template}", metric.name);
                problems.invalid(path.as_str(), metric.name.as_str(), expected);
            }
        }
        for argument in &spec.args {
            let earlier = arguments.get(argument.name.as_str());
            match earlier {
                Some(earlier) if has_value(earlier) && has_value(argument) && *earlier != argument => {
                    let expected = format!("argument {:?} has different values in several templates", argument.name);
                    problems.invalid(path.as_str(), argument.name.as_str(), expected);
                }
                Some(earlier) if has_value(earlier) => {}
                _ => {
                    arguments.insert(&argument.name, argument);
                }
            }
        }
    }
    let given: BTreeSet<&str> = field.analysis.args.iter().map(|arg| arg.name.as_str()).collect();
    for (name, argument) in &arguments {
        if !has_value(argument) && !given.contains(name) {
            let expected = format!("a value for argument {name:?}, which has no default in its template");
            problems.required(format!("{}.args", field.field), expected);
        }
    }
    for ((template, _), spec) in &specs {
        for metric in &spec.metrics {
            let known = |name: &str| arguments.contains_key(name) || given.contains(name);
            for name in placeholders(metric).into_iter().filter(|name| !known(name)) {
                let expected = format!("metric {:?} of {template} uses it, no template declares it", metric.name);
                problems.invalid(path.as_str(), format!("{{{{args.{name}}}}}"), expected);
            }
            if !field.endless && is_endless(metric) {
                let expected = format!("metric {:?} of {template} needs a count: here a run has to end", metric.name);
                problems.invalid(path.as_str(), template.as_str(), expected);
            }
        }
    }
}

fn has_value(argument: &Argument) -> bool {
    argument.value.is_some() || argument.value_from.is_some()
}

/// Names in `{{args.name}}`.
fn placeholders(metric: &Metric) -> BTreeSet<String> {
    static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\{\{\s*args\.([^{}]+?)\s*\}\}").ok());
    let Some(pattern) = PATTERN.as_ref() else { return BTreeSet::new() };
    let text = serde_json::to_string(metric).unwrap_or_default();
    pattern.captures_iter(&text).map(|found| found[1].to_owned()).collect()
}

/// A metric without a count that has an interval is measured until somebody ends it.
fn is_endless(metric: &Metric) -> bool {
    let uncounted = match &metric.count {
        None => true,
        Some(IntOrString::Int(count)) => *count == 0,
        Some(IntOrString::String(text)) => text.is_empty() || text.parse() == Ok(0),
    };
    uncounted && metric.interval.as_deref().is_some_and(|interval| !interval.is_empty())
}

/// Whether the routers find what they need in the objects that the user has made. Routers that are not asked here tell in
/// events when they find that something does not fit: the peer's users are used to it, and pods go on being scaled.
fn check_routes(rollout: &Rollout, references: &References<'_>, problems: &mut Problems) {
    let Some(canary) = &rollout.spec.strategy.canary else { return };
    let built = routers(rollout.name(), rollout.namespace(), canary, references.options);
    for router in built.unwrap_or_default() {
        let field = match router.name() {
            "Istio" => "istio",
            "Nginx" => "nginx",
            "ALB" => "alb",
            "Ambassador" => "ambassador",
            "AppMesh" => "appMesh",
            _ => continue,
        };
        let field = format!("spec.strategy.canary.trafficRouting.{field}");
        match look(rollout, canary, &*router, references.routing) {
            // A DestinationRule may come later than its VirtualService.
            Err(RouterError::NotFound { target, .. }) if references.complete && target.kind != "DestinationRule" => {
                problems.add(Kind::NotFound, field, target.to_string(), "an existing object");
            }
            Err(RouterError::Unfit { target, field: at, found, expected }) => {
                let expected = format!("{at}: found {found}, expected {expected}");
                problems.invalid(field, target.to_string(), expected);
            }
            _ => {}
        }
    }
}

/// What the router would say if all traffic went to the stable version.
fn look(rollout: &Rollout, canary: &Canary, router: &dyn Router, objects: &Objects) -> Result<(), RouterError> {
    let owner = OwnerReference {
        api_version: tidegate_crds::API_VERSION.to_owned(),
        kind: Rollout::KIND.to_owned(),
        name: rollout.name().to_owned(),
        uid: rollout.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let named = canary.canary_service.is_some() || canary.stable_service.is_some();
    let pair = canary.ping_pong.as_ref().filter(|_| !named || router.name() == "ALB");
    let canary_service = pair.map(|pair| pair.pong_service.as_str()).or(canary.canary_service.as_deref());
    let stable_service = pair.map(|pair| pair.ping_service.as_str()).or(canary.stable_service.as_deref());
    let input = Input {
        owner: &owner,
        canary_service: canary_service.unwrap_or_default(),
        stable_service: stable_service.unwrap_or_default(),
        canary_weight: 0,
        max_weight: 100,
        canary_hash: "",
        stable_hash: "",
        additional: &[],
        header_routes: &[],
        mirror_routes: &[],
        in_progress: false,
        objects,
    };
    router.plan(&input).map(|_| ())
}
