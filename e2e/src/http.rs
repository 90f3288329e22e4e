//! Requests to Services, pods and gateways of a cluster.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde::Deserialize;

/// What the test server answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    pub version: String,
    pub pod: String,
}

/// A client for addresses in a cluster: no proxy, and a bound to how long an answer may take.
pub fn client() -> Result<reqwest::Client> {
    builder().build().context("build an HTTP client")
}

fn builder() -> reqwest::ClientBuilder {
    crate::session::crypto_provider();
    let builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10));
    builder.connect_timeout(Duration::from_secs(2))
}

/// The same, with a connection for each request.
pub fn connecting_client() -> Result<reqwest::Client> {
    builder().pool_max_idle_per_host(0).build().context("build an HTTP client")
}

/// A client for TLS at `address` in a cluster, with a connection for each request: it asks for `host` and trusts
/// `authority`, in PEM, alone.
pub fn tls_client(host: &str, address: SocketAddr, authority: &str) -> Result<reqwest::Client> {
    let authority = reqwest::Certificate::from_pem(authority.as_bytes()).context("read the authority's certificate")?;
    let builder = builder().pool_max_idle_per_host(0).resolve(host, address).tls_certs_only([authority]);
    builder.build().context("build a TLS client")
}

/// A client for gRPC at `address` in a cluster, which takes `host` for its name. Over HTTP/2 the name is part of the URL.
pub fn grpc_client(host: &str, address: SocketAddr) -> Result<reqwest::Client> {
    builder().http2_prior_knowledge().resolve(host, address).build().context("build a gRPC client")
}

/// The URL of a Service's port: its ClusterIP, which works in the cluster's network.
pub async fn service_url(client: &kube::Client, namespace: &str, name: &str) -> Result<String> {
    let service = Api::<Service>::namespaced(client.clone(), namespace).get(name).await?;
    let spec = service.spec.with_context(|| format!("Service {namespace}/{name} has no spec"))?;
    let address = spec.cluster_ip.filter(|address| !address.is_empty() && address != "None");
    let address = address.with_context(|| format!("Service {namespace}/{name} has no ClusterIP"))?;
    let port = spec.ports.unwrap_or_default().first().map(|port| port.port);
    let port = port.with_context(|| format!("Service {namespace}/{name} has no port"))?;
    Ok(format!("http://{address}:{port}"))
}

/// Asks a test server through a gateway (`host` is the route's) or directly (`host` is `None`).
pub async fn ask(client: &reqwest::Client, url: &str, host: Option<&str>) -> Result<Answer> {
    let mut request = client.get(url);
    if let Some(host) = host {
        request = request.header("host", host);
    }
    let response = request.send().await.with_context(|| format!("ask {url}"))?;
    let status = response.status();
    let text = response.text().await?;
    anyhow::ensure!(status.is_success(), "{url} answered {status}: {}", text.trim());
    serde_json::from_str(&text).with_context(|| format!("{url} answered {text:?}"))
}
