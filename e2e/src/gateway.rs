//! A Gateway for what Traefik leaves out: it copies requests (`RequestMirror`), and asks the Services of one HTTPRoute.
//!
//! As much of the Gateway API as that needs: rules by path and method, in the API's order of precedence; weights; copies of
//! a share of the requests, whose answers nobody waits for. A rule that it does not understand wholly answers 500, as the
//! API wants it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use kube::Api;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher::watch_object;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{TestNamespace, http};

/// A running gateway. Ends when dropped.
pub struct Gateway {
    address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

struct Inner {
    kubernetes: kube::Client,
    namespace: String,
    /// The route as it is now.
    route: Mutex<Value>,
    /// URLs of Services, which do not change.
    services: Mutex<BTreeMap<String, String>>,
    client: reqwest::Client,
    requests: AtomicU64,
}

impl Gateway {
    /// Starts to serve an HTTPRoute of this namespace, on the runtime that is running.
    pub async fn start(namespace: &TestNamespace, route: &str) -> Result<Self> {
        let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
        let resource = ApiResource::from_gvk(&kind);
        let routes: Api<DynamicObject> = Api::namespaced_with(namespace.client.clone(), &namespace.name, &resource);
        let now = serde_json::to_value(routes.get(route).await?)?;
        // A Service may lead to other pods with the next connection.
        let client = http::connecting_client()?;
        let inner = Arc::new(Inner {
            kubernetes: namespace.client.clone(),
            namespace: namespace.name.clone(),
            route: Mutex::new(now),
            services: Mutex::default(),
            client,
            requests: AtomicU64::new(0),
        });
        let (shared, name) = (inner.clone(), route.to_owned());
        let watching = tokio::spawn(async move {
            let mut changes = std::pin::pin!(watch_object(routes, &name));
            while let Some(change) = changes.next().await {
                // An error is followed by another attempt of the watch.
                if let Ok(Some(route)) = change
                    && let Ok(route) = serde_json::to_value(route)
                {
                    *lock(&shared.route) = route;
                }
            }
        });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let app = axum::Router::new().fallback(handle).with_state(inner);
        let serving = tokio::spawn(async move {
            axum::serve(listener, app).await.ok();
        });
        Ok(Self { address, tasks: [watching, serving] })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn handle(State(inner): State<Arc<Inner>>, request: axum::extract::Request) -> Response {
    let (method, path) = (request.method().as_str(), request.uri().path());
    let number = inner.requests.fetch_add(1, Ordering::Relaxed);
    let ways = ways(&lock(&inner.route), method, path, number);
    let Some(ways) = ways else { return StatusCode::NOT_FOUND.into_response() };
    let Some(backend) = ways.backend else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    for copy in ways.copies {
        let (inner, path) = (inner.clone(), path.to_owned());
        tokio::spawn(async move { inner.ask(&copy, &path).await.ok() });
    }
    match inner.ask(&backend, path).await {
        Ok((status, body)) => (status, [(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

impl Inner {
    async fn ask(&self, service: &str, path: &str) -> Result<(StatusCode, axum::body::Bytes)> {
        let known = lock(&self.services).get(service).cloned();
        let url = match known {
            Some(url) => url,
            None => {
                let url = http::service_url(&self.kubernetes, &self.namespace, service).await?;
                lock(&self.services).insert(service.to_owned(), url.clone());
                url
            }
        };
        let response = self.client.get(format!("{url}{path}")).send().await.context(url)?;
        Ok((response.status(), response.bytes().await?))
    }
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
struct Ways {
    /// The Service that answers; `None` when there is none, or the rule is not understood.
    backend: Option<String>,
    /// Services that get a copy.
    copies: Vec<String>,
}

/// Where the route leads the request of this number; `None` when no rule matches.
fn ways(route: &Value, method: &str, path: &str, number: u64) -> Option<Ways> {
    let rules = route["spec"]["rules"].as_array()?;
    // The best match, and of equal ones the first.
    let mut found: Option<((usize, bool), &Value)> = None;
    for rule in rules {
        for matched in rule["matches"].as_array()? {
            let Some(rank) = rank(matched, method, path) else { continue };
            if found.is_none_or(|(best, _)| rank > best) {
                found = Some((rank, rule));
            }
        }
    }
    let (_, rule) = found?;
    let mut copies = Vec::new();
    for filter in rule["filters"].as_array().into_iter().flatten() {
        let mirror = &filter["requestMirror"];
        let Some(service) = mirror["backendRef"]["name"].as_str() else {
            return Some(Ways { backend: None, copies: Vec::new() });
        };
        if spread(number, 100) < mirror["percent"].as_u64().unwrap_or(100) {
            copies.push(service.to_owned());
        }
    }
    let backends = rule["backendRefs"].as_array().map(Vec::as_slice).unwrap_or_default();
    Some(Ways { backend: weighted(backends, number), copies })
}

/// How well a match fits: the length of the path, and whether the method is named. `None` when it does not.
fn rank(matched: &Value, method: &str, path: &str) -> Option<(usize, bool)> {
    let known = ["path", "method"];
    let understood = matched.as_object()?.keys().all(|key| known.contains(&key.as_str()));
    let prefix = match &matched["path"] {
        Value::Null => "/",
        wanted if wanted["type"] == "PathPrefix" => wanted["value"].as_str()?,
        _ => return None,
    };
    let by_method = matched["method"].as_str();
    let fits = path.starts_with(prefix) && by_method.is_none_or(|wanted| wanted == method);
    (understood && fits).then_some((prefix.len(), by_method.is_some()))
}

fn weighted(backends: &[Value], number: u64) -> Option<String> {
    let weight = |backend: &Value| backend["weight"].as_u64().unwrap_or(1);
    let total: u64 = backends.iter().map(weight).sum();
    let mut place = spread(number, total);
    for backend in backends {
        match place.checked_sub(weight(backend)) {
            Some(rest) => place = rest,
            None => return backend["name"].as_str().map(str::to_owned),
        }
    }
    None
}

/// Numbers from 0 to below `total`, each as often as the others and none of them in a row.
fn spread(number: u64, total: u64) -> u64 {
    if total == 0 { 0 } else { number.wrapping_mul(61) % total }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn route(rules: Value) -> Value {
        json!({"spec": {"rules": rules}})
    }

    #[test]
    fn the_longest_path_counts_then_the_method_then_the_order() {
        let path = |value: &str| json!({"path": {"type": "PathPrefix", "value": value}});
        let rule = |name: &str, matched: Value| json!({"matches": [matched], "backendRefs": [{"name": name}]});
        let mut get = path("/");
        get["method"] = "GET".into();
        let mut by_header = path("/long/longer");
        by_header["headers"] = json!([{"name": "x", "value": "y"}]);
        let route = route(json!([
            rule("all", path("/")),
            rule("again", path("/")),
            rule("header", by_header),
            rule("get", get),
            rule("long", path("/long")),
        ]));
        for (method, path, expected) in
            [("POST", "/", "all"), ("GET", "/", "get"), ("GET", "/long/longer", "long"), ("POST", "/other", "all")]
        {
            let found = ways(&route, method, path, 0).and_then(|ways| ways.backend);
            assert_eq!(found.as_deref(), Some(expected), "{method} {path}");
        }
        let none =
            json!({"spec": {"rules": [rule("long", json!({"path": {"type": "PathPrefix", "value": "/long"}}))]}});
        assert_eq!(ways(&none, "GET", "/", 0), None);
    }

    #[test]
    fn weights_and_percents_are_kept() {
        let rule = json!({
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "backendRefs": [{"name": "stable", "weight": 70}, {"name": "none", "weight": 0}, {"name": "canary", "weight": 30}],
            "filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "canary"}, "percent": 25}}],
        });
        let mut strange = rule.clone();
        strange["filters"] = json!([{"type": "RequestRedirect"}]);
        let (route, strange) = (route(json!([rule])), route(json!([strange])));
        let all: Vec<Ways> = (0..100).filter_map(|number| ways(&route, "GET", "/", number)).collect();
        let to = |name: &str| all.iter().filter(|ways| ways.backend.as_deref() == Some(name)).count();
        assert_eq!((to("stable"), to("none"), to("canary")), (70, 0, 30));
        assert_eq!(all.iter().filter(|ways| ways.copies == ["canary"]).count(), 25);
        assert_eq!(ways(&strange, "GET", "/", 0), Some(Ways { backend: None, copies: Vec::new() }));
    }
}
