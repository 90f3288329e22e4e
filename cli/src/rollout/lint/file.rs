//! What a file holds that its Rollouts may name.

use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_controller::rollout::Service;
use tidegate_controller::rollout::validate::{self, References};
use tidegate_crds::analysis::AnalysisTemplateSpec;
use tidegate_crds::decode::Dropped;
use tidegate_crds::rollout::Rollout;
use tidegate_traffic::{ObjectRef, Objects, RouterOptions};

/// Namespace of objects that name none: they go wherever the file is applied, all to the same place.
const NOWHERE: &str = "default";

/// The objects of a file, without their cluster: what is absent may exist elsewhere.
#[derive(Debug, Default)]
pub struct File {
    services: BTreeMap<(String, String), Service>,
    templates: BTreeMap<(String, String, bool), AnalysisTemplateSpec>,
    workloads: BTreeMap<(String, String, String), Value>,
    routing: Objects,
    options: RouterOptions,
}

impl File {
    /// Sorts the documents by what they are for.
    pub fn new(documents: &[Value]) -> Self {
        let mut file = Self::default();
        for document in documents {
            let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
            let namespace = Some(text("/metadata/namespace")).filter(|n| !n.is_empty()).unwrap_or(NOWHERE.to_owned());
            match kind.as_str() {
                "Service" if api_version == "v1" => {
                    file.services.insert((namespace.clone(), name.clone()), Service::from_value(document));
                }
                "AnalysisTemplate" | "ClusterAnalysisTemplate" => {
                    let (spec, _) = tidegate_crds::decode::lenient(document["spec"].clone());
                    let cluster_scope = kind == "ClusterAnalysisTemplate";
                    let namespace = if cluster_scope { String::new() } else { namespace.clone() };
                    file.templates.insert((namespace, name.clone(), cluster_scope), spec);
                }
                "Deployment" | "ReplicaSet" | "PodTemplate" => {
                    file.workloads.insert((kind.clone(), namespace.clone(), name.clone()), document.clone());
                }
                _ => {}
            }
            file.note_version(&api_version, &kind);
            let target = ObjectRef::new(&api_version, &kind, &plural(&kind), &namespace, &name);
            file.routing.insert(target, document.clone());
        }
        file
    }

    /// The file's own API versions are the ones to look for.
    fn note_version(&mut self, api_version: &str, kind: &str) {
        let Some((group, version)) = api_version.split_once('/') else { return };
        match (group, kind) {
            ("networking.istio.io", _) => version.clone_into(&mut self.options.istio_api_version),
            ("split.smi-spec.io", _) => version.clone_into(&mut self.options.traffic_split_api_version),
            (_, "TraefikService") => api_version.clone_into(&mut self.options.traefik_api_version),
            ("getambassador.io" | "x.getambassador.io", _) => {
                api_version.clone_into(&mut self.options.ambassador_api_version);
            }
            ("gateway.networking.k8s.io", "HTTPRoute" | "GRPCRoute") => {
                version.clone_into(&mut self.options.gateway_route_version);
            }
            ("gateway.networking.k8s.io", "TCPRoute") => {
                version.clone_into(&mut self.options.gateway_tcp_route_version)
            }
            ("gateway.networking.k8s.io", "TLSRoute") => {
                version.clone_into(&mut self.options.gateway_tls_route_version)
            }
            _ => {}
        }
    }

    /// Everything that is wrong with a Rollout of this file.
    pub fn check(&self, rollout: &Rollout, dropped: &[Dropped]) -> Vec<String> {
        let mut problems = validate::written(rollout, dropped);
        let namespace = Some(rollout.namespace()).filter(|n| !n.is_empty()).unwrap_or(NOWHERE);
        let mut rollout = rollout.clone();
        rollout.metadata.namespace = Some(namespace.to_owned());
        if let Some(reference) = rollout.spec.workload_ref.clone() {
            let Some(workload) = self.workloads.get(&(reference.kind.clone(), namespace.to_owned(), reference.name))
            else {
                return texts(problems);
            };
            let at = if reference.kind == "PodTemplate" { "/template" } else { "/spec/template" };
            rollout.spec.template = workload.pointer(at).cloned().unwrap_or(Value::Null);
        }
        let here = |(found, _): &(&(String, String), &Service)| found.0 == namespace;
        let services = self.services.iter().filter(here).map(|((_, name), service)| (name.clone(), service.clone()));
        let templates = self.templates.iter().filter(|((found, _, cluster), _)| *cluster || found == namespace);
        problems.extend(validate::references(
            &rollout,
            &References {
                services: &services.collect(),
                templates: &templates
                    .map(|((_, name, cluster), spec)| ((name.clone(), *cluster), spec.clone()))
                    .collect(),
                routing: &self.routing,
                options: &self.options,
                complete: false,
            },
        ));
        texts(problems)
    }
}

fn texts(problems: Vec<validate::Problem>) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// The plural of a kind, as the API server forms it.
fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    if kind.ends_with('s') {
        format!("{kind}es")
    } else if let Some(stem) = kind.strip_suffix('y') {
        format!("{stem}ies")
    } else {
        format!("{kind}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_plurals() {
        for (kind, expected) in [
            ("Ingress", "ingresses"),
            ("HTTPRoute", "httproutes"),
            ("VirtualService", "virtualservices"),
            ("Policy", "policies"),
        ] {
            assert_eq!(plural(kind), expected);
        }
    }
}
