//! Traffic routers: one file each.
//!
//! A router is a pure function from what is wanted and what is there to the writes that make up the difference. It
//! computes the complete wanted state of *its* parts (weights, header routes, mirrors, subsets by hash) every time, so
//! that a call in the wanted state writes nothing, and a route that went missing in between comes back. What belongs to
//! others in the same object is left as it is.
//!
//! The caller observes (all that [`Router::reads`] names), calls [`Router::plan`], and makes the writes. To add a
//! router, add a file beside its siblings and a line to [`routers`].

mod alb;
mod ambassador;
mod apisix;
mod app_mesh;
#[cfg(test)]
mod fixture;
mod gateway_api;
mod istio;
mod nginx;
mod object;
mod plan;
#[cfg(test)]
mod properties;
mod smi;
mod traefik;

pub use istio::{released_rule, rule_is_managed_by};
pub use object::{ObjectRef, Objects, Read, Refused};
pub use plan::{Plan, RouterError, RouterEvent, Write};

use std::collections::BTreeMap;
use std::fmt::Debug;
use tidegate_crds::OwnerReference;
use tidegate_crds::rollout::{Canary, SetHeaderRoute, SetMirrorRoute};

/// The key in `trafficRouting.plugins` under which the Gateway API router is configured.
pub const GATEWAY_API_PLUGIN: &str = "argoproj-labs/gatewayAPI";

/// A destination beside canary and stable: a variant that an Experiment runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// Name of its Service.
    pub service: String,
    /// Pod template hash of its pods.
    pub hash: String,
    /// Its weight.
    pub weight: i32,
    /// The port under which its Service offers what the canary's Service has under another.
    pub ports: BTreeMap<i32, i32>,
}

/// What is wanted, and what is there.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// Makes the Rollout the owner of objects that a router creates. `controller` and `blockOwnerDeletion` are set.
    pub owner: &'a OwnerReference,
    /// The canary's Service: `canaryService`, or the one of the ping-pong pair that has this role now.
    pub canary_service: &'a str,
    /// The stable version's Service, found in the same way.
    pub stable_service: &'a str,
    /// Weight of the canary, from 0 to `max_weight`.
    pub canary_weight: i32,
    /// The weight that is everything: 100, or `maxTrafficWeight`.
    pub max_weight: i32,
    /// Pod template hash of the canary; the stable one when there is no canary.
    pub canary_hash: &'a str,
    /// Pod template hash of the stable version.
    pub stable_hash: &'a str,
    /// What a running Experiment gets. Stable has what is left of `max_weight`.
    pub additional: &'a [Destination],
    /// The header routes in force now, one a name, each with a match. Managed routes that are not among them go.
    pub header_routes: &'a [SetHeaderRoute],
    /// The mirror routes in force now, in the same way.
    pub mirror_routes: &'a [SetMirrorRoute],
    /// An update is under way.
    pub in_progress: bool,
    /// What the names in [`Router::reads`] stand for.
    pub objects: &'a Objects,
}

impl Input<'_> {
    /// What is left for the stable version. Never negative.
    pub fn stable_weight(&self) -> i32 {
        let additional: i32 = self.additional.iter().map(|d| d.weight).sum();
        (self.max_weight - self.canary_weight - additional).max(0)
    }
}

/// What a router can do beside weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// `setHeaderRoute`.
    pub headers: bool,
    /// `setMirrorRoute`.
    pub mirrors: bool,
    /// Weights for experiments.
    pub experiments: bool,
    /// `pingPong`.
    pub ping_pong: bool,
}

/// Moves traffic by editing objects of one kind of data plane.
pub trait Router: Debug + Send + Sync {
    /// The router's name, as metrics and messages have it.
    fn name(&self) -> &'static str;

    /// What the router can do beside weights.
    fn capabilities(&self) -> Capabilities;

    /// What the router has to see. What is found can lead to more: call it again with what was found until it names
    /// nothing new.
    fn reads(&self, found: &Objects) -> Vec<Read>;

    /// The difference between what is wanted and what is there.
    ///
    /// # Errors
    /// When an object that users have to provide is missing or does not fit. Nothing is to be written then.
    fn plan(&self, input: &Input<'_>) -> Result<Plan, RouterError>;
}

/// API versions and the like; the peer's flags set them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterOptions {
    /// Version of Istio's `networking.istio.io`. Default `v1alpha3`.
    pub istio_api_version: String,
    /// `apiVersion` of Ambassador's Mappings. Default `getambassador.io/v2`.
    pub ambassador_api_version: String,
    /// Version of SMI's `split.smi-spec.io`. Default `v1alpha1`.
    pub traffic_split_api_version: String,
    /// `apiVersion` of Traefik's TraefikService. Default `traefik.io/v1alpha1`.
    pub traefik_api_version: String,
    /// Version of `appmesh.k8s.aws`. Default `v1beta2`.
    pub app_mesh_crd_version: String,
    /// `apiVersion` of Ingresses. Default `networking.k8s.io/v1`.
    pub ingress_api_version: String,
    /// Version of HTTPRoute and GRPCRoute. Default `v1`.
    pub gateway_route_version: String,
    /// Version of TCPRoute. Default `v1alpha2`.
    pub gateway_tcp_route_version: String,
    /// Version of TLSRoute. Default `v1`; clusters with Gateway API before 1.5 have `v1alpha2`, which
    /// the controller finds out.
    pub gateway_tls_route_version: String,
}

impl Default for RouterOptions {
    fn default() -> Self {
        Self {
            istio_api_version: "v1alpha3".to_owned(),
            ambassador_api_version: "getambassador.io/v2".to_owned(),
            traffic_split_api_version: "v1alpha1".to_owned(),
            traefik_api_version: "traefik.io/v1alpha1".to_owned(),
            app_mesh_crd_version: "v1beta2".to_owned(),
            ingress_api_version: "networking.k8s.io/v1".to_owned(),
            gateway_route_version: "v1".to_owned(),
            gateway_tcp_route_version: "v1alpha2".to_owned(),
            gateway_tls_route_version: "v1".to_owned(),
        }
    }
}

/// Whose routers are built.
#[derive(Clone, Debug)]
pub(crate) struct Scope<'a> {
    /// Name of the Rollout.
    pub rollout: &'a str,
    /// Namespace of the Rollout.
    pub namespace: &'a str,
    /// The strategy.
    pub canary: &'a Canary,
    /// API versions.
    pub options: &'a RouterOptions,
}

impl Scope<'_> {
    /// Names in `managedRoutes`, first has precedence.
    pub(crate) fn managed_routes(&self) -> Vec<String> {
        let routing = self.canary.traffic_routing.as_ref();
        routing.map(|r| r.managed_routes.iter().map(|m| m.name.clone()).collect()).unwrap_or_default()
    }
}

/// The routers that a canary strategy names, in the order in which they are to be called.
///
/// # Errors
/// When a router's configuration cannot be read, or names a plugin that is not built in.
pub fn routers(
    rollout: &str,
    namespace: &str,
    canary: &Canary,
    options: &RouterOptions,
) -> Result<Vec<Box<dyn Router>>, RouterError> {
    let mut routers: Vec<Box<dyn Router>> = Vec::new();
    let Some(routing) = &canary.traffic_routing else { return Ok(routers) };
    let scope = Scope { rollout, namespace, canary, options };
    if let Some(config) = &routing.istio {
        routers.push(Box::new(istio::Istio::new(&scope, config)));
    }
    if let Some(config) = &routing.nginx {
        routers.push(Box::new(nginx::Nginx::new(&scope, config)));
    }
    if let Some(config) = &routing.alb {
        routers.push(Box::new(alb::Alb::new(&scope, config)));
    }
    if let Some(config) = &routing.smi {
        routers.push(Box::new(smi::Smi::new(&scope, config)));
    }
    if let Some(config) = &routing.ambassador {
        routers.push(Box::new(ambassador::Ambassador::new(&scope, config)));
    }
    if let Some(config) = &routing.app_mesh {
        routers.push(Box::new(app_mesh::AppMesh::new(&scope, config)));
    }
    if let Some(config) = &routing.traefik {
        routers.push(Box::new(traefik::Traefik::new(&scope, config)));
    }
    if let Some(config) = &routing.apisix {
        routers.push(Box::new(apisix::Apisix::new(&scope, config)));
    }
    for (name, config) in &routing.plugins {
        if name != GATEWAY_API_PLUGIN {
            return Err(RouterError::config(
                "spec.strategy.canary.trafficRouting.plugins",
                name,
                format!("{GATEWAY_API_PLUGIN}, the one that is built in"),
            ));
        }
        routers.push(Box::new(gateway_api::GatewayApi::new(&scope, config)?));
    }
    Ok(routers)
}
