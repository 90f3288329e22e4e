//! Which version of the Gateway API's younger routes the cluster serves: TLSRoute and TCPRoute had others in earlier
//! releases, and clusters keep what they have installed.

use super::snapshot::Snapshot;
use crate::api::{Api, Resource};
use std::collections::BTreeSet;
use tidegate_traffic::{Read, RouterOptions};

const GROUP: &str = "gateway.networking.k8s.io";
const TLS_ROUTE: (&str, &str) = ("TLSRoute", "tlsroutes");
const TCP_ROUTE: (&str, &str) = ("TCPRoute", "tcproutes");
/// Newest first.
const VERSIONS: [&str; 3] = ["v1", "v1alpha3", "v1alpha2"];

/// Other versions than those of `snapshot`, when it lacks a route and the cluster serves its kind in another version
/// only.
pub(crate) async fn served(api: &dyn Api, snapshot: &Snapshot) -> Option<RouterOptions> {
    let missing = missing(snapshot);
    if missing.is_empty() {
        return None;
    }
    let mut options = snapshot.router_options.clone();
    for ((kind, plural), version) in
        [(TLS_ROUTE, &mut options.gateway_tls_route_version), (TCP_ROUTE, &mut options.gateway_tcp_route_version)]
    {
        if !missing.contains(kind) {
            continue;
        }
        let known = version.clone();
        for candidate in std::iter::once(known.as_str()).chain(VERSIONS) {
            let resource = Resource::named(&format!("{GROUP}/{candidate}"), kind, plural, true);
            if api.list(&resource, snapshot.rollout.namespace(), "").await.is_ok() {
                candidate.clone_into(version);
                break;
            }
        }
    }
    (options != snapshot.router_options).then_some(options)
}

/// Kinds of this group of which the routers asked for an object that was not there.
fn missing(snapshot: &Snapshot) -> BTreeSet<String> {
    let rollout = &snapshot.rollout;
    let canary = rollout.spec.strategy.canary.as_ref();
    let by_plugin =
        |c: &&tidegate_crds::rollout::Canary| c.traffic_routing.as_ref().is_some_and(|t| !t.plugins.is_empty());
    let Some(canary) = canary.filter(by_plugin) else { return BTreeSet::new() };
    let routers = tidegate_traffic::routers(rollout.name(), rollout.namespace(), canary, &snapshot.router_options);
    let reads = routers.into_iter().flatten().flat_map(|router| router.reads(&snapshot.routing));
    let missing = |read: Read| match read {
        Read::Object(target) => {
            (target.api_version.starts_with(GROUP) && snapshot.routing.get(&target).is_none()).then_some(target.kind)
        }
        Read::Select { api_version, kind, .. } => {
            let found = snapshot.routing.0.keys().any(|target| target.kind == kind);
            (api_version.starts_with(GROUP) && !found).then_some(kind)
        }
    };
    reads.filter_map(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::KubeApi;
    use serde_json::{Value, json};
    use wiremock::matchers::path;
    use wiremock::{Mock, MockServer, ResponseTemplate};

    fn snapshot(config: Value) -> Snapshot {
        let strategy = json!({"canary": {
            "canaryService": "canary", "stableService": "stable",
            "trafficRouting": {"plugins": {"argoproj-labs/gatewayAPI": config}},
        }});
        let rollout = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"strategy": strategy}});
        let rollout = tidegate_crds::rollout::Rollout::decode(rollout).unwrap().0;
        Snapshot { rollout, ..Snapshot::default() }
    }

    #[tokio::test]
    async fn an_older_cluster_is_asked_for_what_it_serves() {
        let server = MockServer::start().await;
        let list = json!({"apiVersion": "gateway.networking.k8s.io/v1alpha2", "kind": "TLSRouteList", "metadata": {}, "items": []});
        Mock::given(path("/apis/gateway.networking.k8s.io/v1alpha2/namespaces/shop/tlsroutes"))
            .respond_with(ResponseTemplate::new(200).set_body_json(list))
            .mount(&server)
            .await;
        let client = kube::Client::try_from(kube::Config::new(server.uri().parse().unwrap())).unwrap();
        let api = KubeApi::new(client, |_, _, _| {});
        for config in [
            json!({"tlsRoute": "web", "namespace": "shop"}),
            json!({"tlsRouteSelector": {"matchLabels": {"app": "web"}}, "namespace": "shop"}),
        ] {
            let mut snapshot = snapshot(config);
            let options = served(&api, &snapshot).await.unwrap();
            assert_eq!(options.gateway_tls_route_version, "v1alpha2");
            assert_eq!(options.gateway_tcp_route_version, RouterOptions::default().gateway_tcp_route_version);
            // The route is not there in the version that is served: nothing better is known.
            snapshot.router_options = options;
            assert_eq!(served(&api, &snapshot).await, None);
        }
        let asked = server.received_requests().await.unwrap().len();
        for config in [json!({"httpRoute": "web", "namespace": "shop"}), json!({})] {
            assert_eq!(served(&api, &snapshot(config)).await, None);
        }
        assert_eq!(server.received_requests().await.unwrap().len(), asked, "other kinds have one version");
    }
}
