//! The decision about one Experiment: pure, level-triggered, and the same when it is made twice.

use crate::events::Event;
use crate::rollout::{ReplicaSet, TemplateSet, template};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tidegate_analysis::engine::worst;
use tidegate_analysis::template as analysis;
use tidegate_crds::analysis::{AnalysisPhase, AnalysisRun, Argument};
use tidegate_crds::experiment::{
    Experiment, ExperimentAnalysis, ExperimentAnalysisRunStatus, ExperimentStatus, ExperimentTemplate, TemplateStatus,
};
use tidegate_crds::rollout::{AnalysisTemplateRef, Condition};
use tidegate_crds::{Time, duration, keys};

/// Seconds for which the pods stay after the end when nothing else is said.
const DEFAULT_DELAY_SECONDS: i64 = 30;
/// Seconds for a variant to become available when nothing else is said.
const DEFAULT_DEADLINE_SECONDS: i64 = 600;
/// Seconds after which an invalid Experiment is looked at again: a template that it names may have come.
const INVALID_RECHECK_SECONDS: i64 = 20;

/// Everything that a decision about one Experiment looks at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The Experiment.
    pub experiment: Experiment,
    /// Its ReplicaSets.
    pub replica_sets: Vec<ReplicaSet>,
    /// Its AnalysisRuns.
    pub analysis_runs: Vec<AnalysisRun>,
    /// The analysis templates that it names, and those that these name.
    pub templates: TemplateSet,
    /// Names of the Services in its namespace that it owns.
    pub services: BTreeSet<String>,
    /// The controller's instance id.
    pub instance_id: String,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create a ReplicaSet.
    CreateReplicaSet(Value),
    /// Change a ReplicaSet by a merge patch.
    PatchReplicaSet(String, Value),
    /// Create a Service.
    CreateService(Value),
    /// Delete a Service.
    DeleteService(String),
    /// Create an AnalysisRun.
    CreateAnalysisRun(Value),
    /// End an AnalysisRun.
    TerminateAnalysisRun(String),
}

/// What is to be done about one Experiment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The next status, written last.
    pub status: ExperimentStatus,
    /// Writes in order.
    pub actions: Vec<Action>,
    /// What to tell.
    pub events: Vec<Event>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Timestamp>,
}

struct Pass<'a> {
    snapshot: &'a Snapshot,
    now: Timestamp,
    out: Decision,
}

/// What is to be done about the Experiment of `snapshot` at `now`.
pub fn decide(snapshot: &Snapshot, now: Timestamp) -> Decision {
    let experiment = &snapshot.experiment;
    let out = Decision { status: experiment.status.clone(), ..Decision::default() };
    let mut pass = Pass { snapshot, now, out };
    if experiment.metadata.deletion_timestamp.is_some() {
        return pass.out;
    }
    if let Some(problem) = problem(experiment) {
        pass.invalid(&problem);
        return pass.out;
    }
    pass.out.status.conditions.retain(|c| c.type_ != "InvalidSpec");
    if !pass.out.status.phase.completed() {
        pass.variants();
        pass.analyses();
        pass.judge();
    }
    if pass.out.status.phase.completed() {
        pass.wind_down();
    }
    pass.conditions();
    pass.out
}

/// The first thing that is wrong with the spec.
fn problem(experiment: &Experiment) -> Option<String> {
    let spec = &experiment.spec;
    if spec.templates.is_empty() {
        return Some("spec.templates: Required value: an Experiment needs a template at least".to_owned());
    }
    if let Some(text) = &spec.duration
        && let Err(error) = duration::parse(text)
    {
        return Some(format!("spec.duration: Invalid value: {error}"));
    }
    let mut names = BTreeSet::new();
    for (i, template) in spec.templates.iter().enumerate() {
        if template.name.is_empty() || !names.insert(&template.name) {
            return Some(format!(
                "spec.templates[{i}].name: Invalid value: {:?}: must be set and unique",
                template.name
            ));
        }
        let wanted = template.selector.as_ref().and_then(|s| s.match_labels.clone()).unwrap_or_default();
        if wanted.is_empty() {
            return Some(format!("spec.templates[{i}].selector: Required value: selects the pods of the template"));
        }
        let labels = template.template.pointer("/metadata/labels");
        if let Some((key, value)) =
            wanted.iter().find(|(key, value)| labels.and_then(|l| l.get(*key)).and_then(Value::as_str) != Some(value))
        {
            return Some(format!(
                "spec.templates[{i}].selector: Invalid value: {key}={value}: must select the labels of the template"
            ));
        }
    }
    let mut names = BTreeSet::new();
    for (i, analysis) in spec.analyses.iter().enumerate() {
        if analysis.name.is_empty() || !names.insert(&analysis.name) {
            return Some(format!(
                "spec.analyses[{i}].name: Invalid value: {:?}: must be set and unique",
                analysis.name
            ));
        }
    }
    None
}

fn later(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

impl Pass<'_> {
    fn experiment(&self) -> &Experiment {
        &self.snapshot.experiment
    }

    fn time(&self) -> Time {
        Time(crate::api::whole_seconds(self.now))
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.out.wake = Some(self.out.wake.map_or(at, |w| w.min(at)));
    }

    fn owner(&self) -> Value {
        json!([{
            "apiVersion": tidegate_crds::API_VERSION, "kind": Experiment::KIND, "name": self.experiment().name(),
            "uid": self.experiment().metadata.uid, "controller": true, "blockOwnerDeletion": true,
        }])
    }

    fn rs_name(&self, template: &ExperimentTemplate) -> String {
        format!("{}-{}", self.experiment().name(), template.name)
    }

    fn rs(&self, template: &ExperimentTemplate) -> Option<&ReplicaSet> {
        self.snapshot
            .replica_sets
            .iter()
            .find(|rs| rs.annotations.get(keys::EXPERIMENT_TEMPLATE) == Some(&template.name) && !rs.deleting)
    }

    /// Different from the hash that a Rollout gives the same pods, or its Services would select these too.
    fn hash(&self, template: &ExperimentTemplate) -> String {
        let named = json!([self.experiment().metadata.uid, self.experiment().name(), template.name, template.template]);
        template::hash(&named, None)
    }

    fn invalid(&mut self, problem: &str) {
        let message = format!("The Experiment {:?} is invalid: {problem}", self.experiment().name());
        if !self.out.status.conditions.iter().any(|c| c.type_ == "InvalidSpec" && c.message == message) {
            self.out.events.push(Event::warning("InvalidSpec", message.clone()));
            self.out.status.conditions.retain(|c| c.type_ != "InvalidSpec");
        }
        self.condition("InvalidSpec", "True", "InvalidSpec", &message);
        self.wake_at(later(self.now, INVALID_RECHECK_SECONDS));
    }

    fn condition(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let time = self.time();
        let old = self.out.status.conditions.iter().find(|c| c.type_ == type_);
        if old.is_some_and(|o| o.status == status && o.reason == reason) {
            return;
        }
        let since = old.filter(|o| o.status == status).and_then(|o| o.last_transition_time.clone());
        self.out.status.conditions.retain(|c| c.type_ != type_);
        self.out.status.conditions.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(since.unwrap_or_else(|| time.clone())),
            last_update_time: Some(time),
            reason: reason.to_owned(),
            message: message.to_owned(),
        });
    }

    /// Makes the pods and Services of every variant, and notes how each stands.
    fn variants(&mut self) {
        let templates = self.experiment().spec.templates.clone();
        for template in &templates {
            let hash = self.hash(template);
            let size = template.replicas.unwrap_or(1);
            let rs = self.rs(template).cloned();
            match &rs {
                None => self.create_replica_set(template, &hash, size),
                Some(rs) if rs.replicas != size => {
                    // A time limit of an earlier run ends with it.
                    let patch = json!({
                        "metadata": {"annotations": {keys::SCALE_DOWN_DEADLINE: null}}, "spec": {"replicas": size},
                    });
                    self.out.actions.push(Action::PatchReplicaSet(rs.name.clone(), patch));
                }
                Some(_) => {}
            }
            let service = self.keep_service(template, &hash);
            self.note_variant(template, rs.as_ref(), hash, service, size);
        }
        let names: BTreeSet<_> = templates.iter().map(|t| t.name.clone()).collect();
        self.out.status.template_statuses.retain(|s| names.contains(&s.name));
        if self.out.status.phase == AnalysisPhase::Unset {
            self.out.status.phase = AnalysisPhase::Pending;
        }
        let running = |s: &TemplateStatus| s.status.as_deref() == Some("Running");
        let all = self.out.status.template_statuses.len() == templates.len()
            && self.out.status.template_statuses.iter().all(running);
        if all && self.out.status.available_at.is_none() {
            self.out.status.available_at = Some(self.time());
        }
        if all {
            self.out.status.phase = AnalysisPhase::Running;
        }
    }

    fn create_replica_set(&mut self, template: &ExperimentTemplate, hash: &str, size: i32) {
        let name = self.rs_name(template);
        let mut selector = serde_json::to_value(&template.selector).unwrap_or_default();
        template::set(&mut selector, &["matchLabels", keys::POD_TEMPLATE_HASH], hash.into());
        let mut labels = template.template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
        labels[keys::POD_TEMPLATE_HASH] = hash.into();
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": self.experiment().namespace(), "labels": labels,
                "annotations": {keys::EXPERIMENT_NAME: self.experiment().name(), keys::EXPERIMENT_TEMPLATE: template.name},
                "ownerReferences": self.owner(),
            },
            "spec": {"replicas": size, "selector": selector, "template": template::with_hash(&template.template, hash)},
        });
        if let Some(seconds) = template.min_ready_seconds.filter(|s| *s > 0) {
            object["spec"]["minReadySeconds"] = seconds.into();
        }
        self.out.events.push(Event::normal("NewReplicaSetCreated", format!("Created ReplicaSet {name}")));
        self.out
            .events
            .push(Event::normal("ScalingReplicaSet", format!("Scaled up ReplicaSet {name} from 0 to {size}")));
        self.out.actions.push(Action::CreateReplicaSet(object));
    }

    fn keep_service(&mut self, template: &ExperimentTemplate, hash: &str) -> Option<String> {
        let wanted = template.service.as_ref()?;
        let name = wanted.name.clone().unwrap_or_else(|| self.rs_name(template));
        let containers = template.template.pointer("/spec/containers").and_then(Value::as_array);
        let mut ports = Vec::new();
        for port in containers.into_iter().flatten().filter_map(|c| c.get("ports")?.as_array()).flatten() {
            let Some(number) = port.get("containerPort") else { continue };
            let mut entry = json!({
                "port": number, "targetPort": number, "protocol": port.get("protocol").cloned().unwrap_or_else(|| "TCP".into()),
            });
            // Several ports need names.
            let named = port.get("name").cloned().unwrap_or_else(|| format!("port-{number}").into());
            entry["name"] = named;
            ports.push(entry);
        }
        if ports.is_empty() {
            return None;
        }
        if !self.snapshot.services.contains(&name) {
            let mut selector =
                json!(template.selector.as_ref().and_then(|s| s.match_labels.clone()).unwrap_or_default());
            selector[keys::POD_TEMPLATE_HASH] = hash.into();
            self.out.actions.push(Action::CreateService(json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {
                    "name": name, "namespace": self.experiment().namespace(), "ownerReferences": self.owner(),
                    "annotations": {keys::EXPERIMENT_NAME: self.experiment().name(), keys::EXPERIMENT_TEMPLATE: template.name},
                },
                "spec": {"selector": selector, "ports": ports},
            })));
        }
        Some(name)
    }

    fn note_variant(
        &mut self,
        template: &ExperimentTemplate,
        rs: Option<&ReplicaSet>,
        hash: String,
        service: Option<String>,
        size: i32,
    ) {
        let time = self.time();
        let before = self.out.status.template_statuses.iter().find(|s| s.name == template.name).cloned();
        let mut status =
            before.clone().unwrap_or_else(|| TemplateStatus { name: template.name.clone(), ..Default::default() });
        let hash = rs.map_or(hash, |rs| rs.hash().to_owned());
        status.replicas = rs.map_or(0, |rs| rs.current);
        status.updated_replicas = status.replicas;
        status.ready_replicas = rs.map_or(0, |rs| rs.ready);
        status.available_replicas = rs.map_or(0, |rs| rs.available);
        status.pod_template_hash = Some(hash);
        status.service_name = service;
        let old = status.status.clone();
        if status.available_replicas >= size && rs.is_some() {
            status.status = Some("Running".to_owned());
            status.message = None;
        } else if old.as_deref() != Some("Running") {
            status.status = Some("Progressing".to_owned());
            let seconds = self.experiment().spec.progress_deadline_seconds.map_or(DEFAULT_DEADLINE_SECONDS, i64::from);
            let moved = before.as_ref().is_none_or(|b| status.available_replicas > b.available_replicas);
            let since = status.last_transition_time.clone().filter(|_| !moved).unwrap_or_else(|| time.clone());
            let end = later(since.0, seconds);
            status.last_transition_time = Some(since);
            if end <= self.now {
                status.status = Some("Failed".to_owned());
                status.message = Some(format!(
                    "Template '{}' has timed out progressing: {} of {size} pods are available",
                    template.name, status.available_replicas
                ));
            } else {
                self.wake_at(end);
            }
        }
        if status.status != old {
            status.last_transition_time = Some(time);
            let word = status.status.clone().unwrap_or_default();
            let text = format!("Template '{}' transitioned from {} -> {word}", template.name, old.unwrap_or_default());
            let event = format!("Template{word}");
            self.out.events.push(if word == "Failed" {
                Event::warning(&event, text)
            } else {
                Event::normal(&event, text)
            });
        }
        match self.out.status.template_statuses.iter_mut().find(|s| s.name == template.name) {
            Some(place) => *place = status,
            None => self.out.status.template_statuses.push(status),
        }
    }

    /// When the duration is over; `None` before all variants were available, or without a duration.
    fn end(&self) -> Option<Timestamp> {
        let length = duration::parse(self.experiment().spec.duration.as_deref()?).ok()?;
        Some(later(self.out.status.available_at.as_ref()?.0, i64::try_from(length.as_secs()).unwrap_or(i64::MAX)))
    }

    /// Starts the analyses once all variants are available, and notes how each stands.
    fn analyses(&mut self) {
        if self.out.status.available_at.is_none() || self.experiment().spec.terminate {
            return;
        }
        for wanted in self.experiment().spec.analyses.clone() {
            let known = self.out.status.analysis_runs.iter().position(|r| r.name == wanted.name);
            if let Some(index) = known {
                let status = &mut self.out.status.analysis_runs[index];
                let Some(run) = self.snapshot.analysis_runs.iter().find(|r| r.name() == status.analysis_run) else {
                    continue;
                };
                if status.phase != run.status.phase {
                    let phase = run.status.phase;
                    status.phase = phase;
                    status.message.clone_from(&run.status.message);
                    let text = format!("AnalysisRun '{}' transitioned to {}", wanted.name, phase.as_str());
                    let reason = format!("AnalysisRun{}", phase.as_str());
                    let bad = matches!(phase, AnalysisPhase::Failed | AnalysisPhase::Error);
                    self.out.events.push(if bad {
                        Event::warning(&reason, text)
                    } else {
                        Event::normal(&reason, text)
                    });
                }
                continue;
            }
            let (run, phase, message) = match self.start(&wanted) {
                Ok(name) => (name, AnalysisPhase::Pending, None),
                Err(error) => {
                    self.out.events.push(Event::warning("AnalysisRunError", error.clone()));
                    (String::new(), AnalysisPhase::Error, Some(error))
                }
            };
            self.out.status.analysis_runs.push(ExperimentAnalysisRunStatus {
                name: wanted.name,
                analysis_run: run,
                phase,
                message,
            });
        }
    }

    fn start(&mut self, wanted: &ExperimentAnalysis) -> Result<String, String> {
        let base = format!("{}-{}", self.experiment().name(), wanted.name);
        let mut name = base.clone();
        let mut attempt = 0;
        while let Some(run) = self.snapshot.analysis_runs.iter().find(|r| r.name() == name) {
            // One that an earlier pass made and could not note.
            if !run.status.phase.completed() && !run.spec.terminate {
                return Ok(name);
            }
            attempt += 1;
            name = format!("{base}.{attempt}");
        }
        let args: Vec<Argument> = wanted
            .args
            .iter()
            .filter_map(|arg| {
                Some(Argument {
                    name: arg.name.clone(),
                    value: Some(self.fill(arg.value.as_deref()?)),
                    value_from: None,
                })
            })
            .collect();
        let reference =
            AnalysisTemplateRef { template_name: wanted.template_name.clone(), cluster_scope: wanted.cluster_scope };
        let spec = &self.experiment().spec;
        let run_spec = analysis::run_spec(
            &[reference],
            &self.snapshot.templates,
            &args,
            &spec.dry_run,
            &spec.measurement_retention,
        )
        .map_err(|error| format!("analysis {:?}: {error}", wanted.name))?;
        let metadata = spec.analysis_run_metadata.clone().unwrap_or_default();
        let mut labels = json!(metadata.labels);
        if !self.snapshot.instance_id.is_empty() {
            labels[keys::INSTANCE_ID] = self.snapshot.instance_id.as_str().into();
        }
        let object = json!({
            "apiVersion": tidegate_crds::API_VERSION, "kind": AnalysisRun::KIND,
            "metadata": {
                "name": name, "namespace": self.experiment().namespace(), "labels": labels,
                "annotations": metadata.annotations, "ownerReferences": self.owner(),
            },
            "spec": run_spec,
        });
        self.out.actions.push(Action::CreateAnalysisRun(object));
        Ok(name)
    }

    /// Puts what is known of the experiment into an argument.
    fn fill(&self, text: &str) -> String {
        let mut text = text.to_owned();
        let mut put = |key: &str, value: &str| {
            for form in [format!("{{{{{key}}}}}"), format!("{{{{ {key} }}}}")] {
                text = text.replace(&form, value);
            }
        };
        for template in &self.experiment().spec.templates {
            let hash = self.rs(template).map_or_else(|| self.hash(template), |rs| rs.hash().to_owned());
            put(&format!("templates.{}.podTemplateHash", template.name), &hash);
            put(&format!("templates.{}.replicaset.name", template.name), &self.rs_name(template));
        }
        let available = self.out.status.available_at.as_ref().map(|t| t.0.to_string()).unwrap_or_default();
        put("experiment.availableAt", &available);
        put("experiment.finishedAt", &self.end().map(|t| t.to_string()).unwrap_or_default());
        text
    }

    /// Whether the experiment is over, and how it ended.
    fn judge(&mut self) {
        let spec = self.experiment().spec.clone();
        let status = &self.out.status;
        let failed =
            status.template_statuses.iter().find(|s| matches!(s.status.as_deref(), Some("Failed" | "Error"))).cloned();
        let bad = status
            .analysis_runs
            .iter()
            .filter(|r| r.phase.completed() && r.phase != AnalysisPhase::Successful)
            .max_by_key(|r| {
                (
                    worst(r.phase, AnalysisPhase::Inconclusive) != AnalysisPhase::Inconclusive,
                    r.phase == AnalysisPhase::Failed,
                )
            })
            .cloned();
        let required: BTreeSet<&str> =
            spec.analyses.iter().filter(|a| a.required_for_completion).map(|a| a.name.as_str()).collect();
        let successful =
            |name: &&str| status.analysis_runs.iter().any(|r| r.name == **name && r.phase == AnalysisPhase::Successful);
        let all_required = !required.is_empty() && required.iter().all(successful);
        let over = self.end();
        if let Some(template) = failed {
            self.finish(AnalysisPhase::Failed, template.message);
        } else if let Some(run) = bad {
            let phase = run.phase;
            let why = run.message.map(|m| format!(": {m}")).unwrap_or_default();
            self.finish(phase, Some(format!("AnalysisRun '{}' ended {}{why}", run.name, phase.as_str())));
        } else if spec.terminate {
            self.finish(AnalysisPhase::Successful, Some("Experiment terminated".to_owned()));
        } else if all_required {
            self.finish(AnalysisPhase::Successful, Some("Required AnalysisRuns completed".to_owned()));
        } else if let Some(end) = over {
            if end > self.now {
                self.wake_at(end);
            } else if required.is_empty() {
                self.finish(AnalysisPhase::Successful, None);
            }
        }
    }

    fn finish(&mut self, phase: AnalysisPhase, message: Option<String>) {
        self.out.status.phase = phase;
        self.out.status.message = message.clone();
        let time = self.time();
        for status in &mut self.out.status.template_statuses {
            if status.status.as_deref() == Some("Running") || status.status.as_deref() == Some("Progressing") {
                status.status = Some("Successful".to_owned());
                status.last_transition_time = Some(time.clone());
            }
        }
        let text =
            format!("Experiment ended {}{}", phase.as_str(), message.map(|m| format!(": {m}")).unwrap_or_default());
        let reason = format!("Experiment{}", phase.as_str());
        let bad = matches!(phase, AnalysisPhase::Failed | AnalysisPhase::Error);
        self.out.events.push(if bad { Event::warning(&reason, text) } else { Event::normal(&reason, text) });
    }

    /// Ends what still measures, and takes the pods away after their delay.
    fn wind_down(&mut self) {
        for run in &self.snapshot.analysis_runs {
            if !run.status.phase.completed() && !run.spec.terminate {
                self.out
                    .events
                    .push(Event::normal("AnalysisRunTerminating", format!("Terminating AnalysisRun '{}'", run.name())));
                self.out.actions.push(Action::TerminateAnalysisRun(run.name().to_owned()));
            }
        }
        let delay = self.experiment().spec.scale_down_delay_seconds.map_or(DEFAULT_DELAY_SECONDS, i64::from);
        for template in self.experiment().spec.templates.clone() {
            let Some(rs) = self.rs(&template).cloned() else { continue };
            if let Some(status) = self.out.status.template_statuses.iter_mut().find(|s| s.name == template.name) {
                status.replicas = rs.current;
                status.updated_replicas = rs.current;
                status.ready_replicas = rs.ready;
                status.available_replicas = rs.available;
            }
            let service = template.service.as_ref().map(|s| s.name.clone().unwrap_or_else(|| self.rs_name(&template)));
            if let Some(service) = service.filter(|s| rs.available == 0 && self.snapshot.services.contains(s)) {
                self.out.actions.push(Action::DeleteService(service));
            }
            if rs.replicas == 0 {
                continue;
            }
            let deadline = rs.deadline().unwrap_or_else(|| crate::api::whole_seconds(later(self.now, delay)));
            if deadline <= self.now || delay == 0 {
                self.out.events.push(Event::normal(
                    "ScalingReplicaSet",
                    format!("Scaled down ReplicaSet {} from {} to 0", rs.name, rs.replicas),
                ));
                self.out.actions.push(Action::PatchReplicaSet(rs.name.clone(), json!({"spec": {"replicas": 0}})));
                continue;
            }
            self.wake_at(deadline);
            if rs.deadline().is_none() {
                let patch = json!({"metadata": {"annotations": {keys::SCALE_DOWN_DEADLINE: deadline.to_string()}}});
                self.out.actions.push(Action::PatchReplicaSet(rs.name.clone(), patch));
            }
        }
    }

    fn conditions(&mut self) {
        let name = self.experiment().name().to_owned();
        let phase = self.out.status.phase;
        let (status, reason, message) = match phase {
            AnalysisPhase::Successful | AnalysisPhase::Inconclusive => {
                ("False", "ExperimentComplete", format!("Experiment {name:?} has successfully ran and completed."))
            }
            AnalysisPhase::Failed | AnalysisPhase::Error => {
                ("False", "ExperimentFailed", format!("Experiment {name:?} ended {}.", phase.as_str()))
            }
            AnalysisPhase::Running => ("True", "NewReplicaSetAvailable", format!("Experiment {name:?} is running.")),
            _ => ("True", "ReplicaSetUpdated", format!("Experiment {name:?} is progressing.")),
        };
        self.condition("Progressing", status, reason, &message);
    }
}
