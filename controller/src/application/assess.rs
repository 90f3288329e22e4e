//! Comparing an Application: what differs, how healthy it is, what is wrong. Pure.

use super::snapshot::{Desired, Snapshot};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_crds::application::{ApplicationSummary, HealthStatus, ResourceStatus};
use tidegate_gitops::diff::{self, Settings};
use tidegate_gitops::health::{self, Health, Part, Status};
use tidegate_gitops::normalize::ignore::IgnoreRules;
use tidegate_gitops::normalize::owned;
use tidegate_gitops::object::{self, Key};
use tidegate_gitops::sync::auto::Compared;
use tidegate_gitops::sync::options::{AppOptions, Consent, ignores_extraneous};
use tidegate_gitops::sync::plan::Live;
use tidegate_gitops::sync::rejected::{self, Aborted};
use tidegate_gitops::sync::{hook, images, task};
use tidegate_gitops::{project, tracking};

/// The outcome of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Assessment {
    /// One entry for each object.
    pub resources: Vec<ResourceStatus>,
    /// The same, for decisions.
    pub compared: Vec<Compared>,
    /// Objects that are as they should be.
    pub in_sync: BTreeSet<Key>,
    /// Objects that are no longer in Git.
    pub extra: Vec<Key>,
    /// Targets that belong to another application, and to which.
    pub shared: BTreeMap<Key, String>,
    /// Objects that the project does not permit, and why.
    pub denied: BTreeMap<Key, String>,
    /// Whether anything differs.
    pub out_of_sync: bool,
    /// How healthy the Application is.
    pub health: Option<Health>,
    /// Type and message of what is wrong.
    pub conditions: Vec<(&'static str, String)>,
    /// Aborted Rollouts.
    pub aborted: Vec<Aborted>,
    /// What is shown at a glance.
    pub summary: ApplicationSummary,
}

/// The rules for fields that do not count: what users wrote, and what Rollouts and autoscalers own.
pub fn ignore_rules(snapshot: &Snapshot, targets: &[Value]) -> (IgnoreRules, Vec<String>) {
    let (mut rules, mut problems) = IgnoreRules::compile(&snapshot.app.spec.ignore_differences);
    for owned in owned::owned(targets) {
        if let Err(error) = rules.add_owned(&owned.key, &owned.expressions) {
            problems.push(error.to_string());
        }
    }
    (rules, problems)
}

/// What the project has against objects.
pub fn denied(snapshot: &Snapshot, targets: &[Value]) -> BTreeMap<Key, String> {
    let (Ok(project), Ok(destination)) = (&snapshot.project, &snapshot.destination) else { return BTreeMap::new() };
    let name = snapshot.app.spec.project();
    let mut denied = BTreeMap::new();
    for target in targets {
        let key = Key::of(target);
        let namespaced = snapshot.namespaced.contains(&key);
        let Key { group, kind, namespace, name: object } = &key;
        let place = project::Destination { server: &destination.server, name: &destination.name, namespace };
        if !project::permits_kind(project, group, kind, object, namespaced) {
            denied.insert(key.clone(), format!("resource {group}:{kind} is not permitted in project {name}"));
        } else if namespaced && !project::permits_destination(project, &place) {
            denied.insert(key.clone(), format!("namespace {namespace} is not permitted in project '{name}'"));
        }
    }
    denied
}

/// The live objects that belong to the application and are not among the targets.
pub fn extra(snapshot: &Snapshot, targets: &[Value]) -> Vec<Key> {
    let wanted: BTreeSet<Key> = targets.iter().map(Key::of).collect();
    // One object may be read under several API groups; its uid tells.
    let uid = |live: &Live| object::text(&live.object, "/metadata/uid").to_owned();
    let mut seen: BTreeSet<String> =
        snapshot.live.iter().filter(|(k, _)| wanted.contains(*k)).map(|(_, l)| uid(l)).collect();
    seen.remove("");
    let mut extra = Vec::new();
    for (key, live) in snapshot.live.iter().filter(|(key, _)| !wanted.contains(*key)) {
        let is_part = !hook::is_hook_or_skipped(&live.object)
            && !object::is_crd(&live.object)
            && is_top_level(&live.object)
            && snapshot.tracking.owner(&live.object).as_deref() == Some(snapshot.instance.as_str());
        let uid = uid(live);
        if is_part && (uid.is_empty() || seen.insert(uid)) {
            extra.push(key.clone());
        }
    }
    extra
}

/// Whether nobody owns the object. What another object owns comes and goes with its owner, whatever marks it inherited.
pub fn is_top_level(live: &Value) -> bool {
    object::list(live, "/metadata/ownerReferences").is_empty()
}

/// Compares the targets of `desired` with the live objects.
pub fn assess(snapshot: &Snapshot, desired: &Desired, options: &AppOptions) -> Assessment {
    let mut out = Assessment { denied: denied(snapshot, &desired.targets), ..Assessment::default() };
    let (ignore, problems) = ignore_rules(snapshot, &desired.targets);
    out.conditions.extend(problems.into_iter().map(|p| ("IgnoreDifferencesWarning", p)));
    out.conditions.extend(desired.repeated.iter().map(|r| ("RepeatedResourceWarning", r.clone())));
    let settings = Settings { tracking: &snapshot.tracking, ignore: &ignore, options: &snapshot.compare };
    let mut parts = Vec::new();
    for target in desired.targets.iter().filter(|t| !hook::is_hook_or_skipped(t)) {
        let key = Key::of(target);
        let live = snapshot.live.get(&key);
        let status = if out.denied.contains_key(&key) {
            "Unknown"
        } else if live.is_some_and(|live| diff::compare(target, &live.object, &settings).in_sync()) {
            out.in_sync.insert(key.clone());
            "Synced"
        } else {
            "OutOfSync"
        };
        if let Some(owner) = live.and_then(|live| snapshot.tracking.owner(&live.object))
            && owner != snapshot.instance
        {
            out.shared.insert(key.clone(), owner);
        }
        out.add(&key, target, live, status, false, options);
        parts.push((key, Some(target)));
    }
    out.extra = extra(snapshot, &desired.targets);
    for key in out.extra.clone() {
        let Some(live) = snapshot.live.get(&key) else { continue };
        // An extra object that does not count is in sync, and may still be pruned.
        let status = if ignores_extraneous(&live.object) { "Synced" } else { "OutOfSync" };
        out.add(&key, &live.object, Some(live), status, true, options);
        parts.push((key, None));
    }
    for (key, owner) in &out.shared {
        let text = format!("{}/{} is part of applications {} and {owner}", key.kind, key.name, snapshot.instance);
        out.conditions.push(("SharedResourceWarning", text));
    }
    let wish = namespace_differs(snapshot, desired, options);
    out.out_of_sync = wish || out.resources.iter().any(|r| r.status.as_deref() == Some("OutOfSync"));
    let app = Key::new("argoproj.io", "Application", snapshot.app.namespace(), snapshot.app.name());
    let parts: Vec<Part<'_>> = parts
        .iter()
        .map(|(key, target)| {
            let live = snapshot.live.get(key);
            Part { key, live: live.map(|l| &l.object), target: *target, health: live.and_then(|l| l.health.clone()) }
        })
        .collect();
    out.health = Some(health::aggregate(&app, parts));
    let own = snapshot.live.iter().filter(|(key, _)| out.in_sync.contains(*key) || !out.shared.contains_key(*key));
    out.aborted = own.filter_map(|(_, live)| rejected::aborted(&live.object)).collect();
    out.summary = summary(snapshot, &out);
    out
}

/// Whether the namespace that `CreateNamespace` manages differs in its labels or annotations.
fn namespace_differs(snapshot: &Snapshot, desired: &Desired, options: &AppOptions) -> bool {
    let policy = snapshot.app.spec.sync_policy.as_ref();
    let (Some(metadata), Ok(destination)) =
        (policy.and_then(|p| p.managed_namespace_metadata.as_ref()), &snapshot.destination)
    else {
        return false;
    };
    if !options.create_namespace || desired.targets.is_empty() {
        return false;
    }
    let key = Key::new("", "Namespace", "", &destination.namespace);
    let Some(live) = snapshot.live.get(&key) else { return false };
    let labels = metadata.labels.iter().any(|(k, v)| object::label(&live.object, k) != Some(v.as_str()));
    let annotations = metadata.annotations.iter().any(|(k, v)| object::annotation(&live.object, k) != Some(v.as_str()));
    labels || annotations
}

impl Assessment {
    fn add(&mut self, key: &Key, object: &Value, live: Option<&Live>, status: &str, extra: bool, options: &AppOptions) {
        let own = options.of(object);
        let health = match live {
            None => Some(HealthStatus { status: Some(Status::Missing.as_str().into()), ..HealthStatus::default() }),
            Some(live) => live.health.as_ref().map(health_status),
        };
        let wave = task::wave(object);
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        self.resources.push(ResourceStatus {
            group: text(&key.group),
            version: text(object::version(object)),
            kind: text(&key.kind),
            namespace: text(&key.namespace),
            name: text(&key.name),
            status: Some(status.to_owned()),
            health,
            requires_pruning: extra,
            requires_deletion_confirmation: own.delete == Consent::Confirm || own.prune == Consent::Confirm,
            sync_wave: (wave != 0).then_some(wave),
            ..ResourceStatus::default()
        });
        self.compared.push(Compared {
            key: key.clone(),
            out_of_sync: status == "OutOfSync",
            requires_pruning: extra,
            is_hook: false,
        });
    }
}

/// Health as it stands in a status.
pub fn health_status(health: &Health) -> HealthStatus {
    HealthStatus {
        status: Some(health.status.as_str().to_owned()),
        message: (!health.message.is_empty()).then(|| health.message.clone()),
        last_transition_time: None,
    }
}

fn summary(snapshot: &Snapshot, assessment: &Assessment) -> ApplicationSummary {
    let mut all = BTreeSet::new();
    let mut urls = BTreeSet::new();
    let mut of_apps = false;
    let keys = assessment.compared.iter().map(|c| &c.key);
    for (key, live) in keys.filter_map(|key| snapshot.live.get_key_value(key)) {
        all.extend(images::images(&live.object));
        of_apps |= key.group == "argoproj.io" && key.kind == "Application" && key.name != snapshot.app.name();
        if key.kind == "Ingress" {
            urls.extend(ingress_urls(&live.object));
        }
    }
    ApplicationSummary {
        images: all.into_iter().collect(),
        external_urls: urls.into_iter().collect(),
        is_app_of_apps: of_apps,
    }
}

/// The addresses that an Ingress is reached at.
fn ingress_urls(ingress: &Value) -> Vec<String> {
    let secured: BTreeSet<&str> = object::list(ingress, "/spec/tls")
        .iter()
        .flat_map(|tls| object::list(tls, "/hosts"))
        .filter_map(Value::as_str)
        .collect();
    let hosts = object::list(ingress, "/spec/rules").iter().map(|rule| object::text(rule, "/host"));
    hosts
        .filter(|host| !host.is_empty())
        .map(|host| format!("{}://{host}/", if secured.contains(host) { "https" } else { "http" }))
        .collect()
}

/// The name by which an Application is found in tracking marks.
pub fn instance(control_plane: &str, namespace: &str, name: &str) -> String {
    tracking::instance_name(control_plane, namespace, name)
}
