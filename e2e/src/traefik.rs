//! Traefik as the data plane: Gateway API, Ingress (its own class and nginx's annotations) and Traefik's own kinds, in the
//! cluster's network.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Api;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::netns::{NODE_IP, NetworkNamespace};
use crate::sandbox::Sandbox;
use crate::session;
use crate::state::StateDir;

/// Where requests come in, on every address of the cluster's network.
pub const PORT: u16 = 80;
/// Where connections come in that a TCPRoute leads on. There is nothing in them to tell one route from another by.
pub const TCP_PORT: u16 = 9000;
/// Where connections over TLS come in that a TLSRoute leads on, by the name that the client asks for.
pub const TLS_PORT: u16 = 9443;
/// The Secret with the key and the certificate of the listener for TLS.
const TLS_SECRET: &str = "gateway";
/// Where Traefik tells of itself (`/ping`, `/api/rawdata`, `/metrics`).
pub const API_PORT: u16 = 8088;
/// Namespace and name of the Gateway to which routes of any namespace may attach.
pub const GATEWAY: (&str, &str) = ("traefik", "web");
/// The class of Ingresses that are read with nginx's annotations.
pub const NGINX_CLASS: &str = "nginx";
/// Traefik's own kinds and their plurals. It waits for all of them, whether somebody uses them or not.
const OWN_KINDS: [(&str, &str); 10] = [
    ("IngressRoute", "ingressroutes"),
    ("IngressRouteTCP", "ingressroutetcps"),
    ("IngressRouteUDP", "ingressrouteudps"),
    ("Middleware", "middlewares"),
    ("MiddlewareTCP", "middlewaretcps"),
    ("ServersTransport", "serverstransports"),
    ("ServersTransportTCP", "serverstransporttcps"),
    ("TLSOption", "tlsoptions"),
    ("TLSStore", "tlsstores"),
    ("TraefikService", "traefikservices"),
];

/// Installs the Gateway API, a GatewayClass `traefik` and a Gateway, Traefik's own kinds, and starts Traefik.
pub fn start(state: &StateDir, sandbox: &Sandbox, program: &Path, crds: &Path) -> Result<()> {
    let namespace = NetworkNamespace::of_cluster(&state.name);
    let cluster = Cluster::find(&state.name)?;
    session::in_cluster(&namespace, async || {
        let client = cluster.client().await?;
        install_kinds(&client, crds).await?;
        install_gateway(&client, &tls_secret(state)?).await
    })?;
    let token = token(state)?;
    let authority = state.join("pki/ca.crt").display().to_string();
    let mut args = vec![
        "--log.level=INFO".to_owned(),
        format!("--entrypoints.web.address=:{PORT}"),
        format!("--entrypoints.tcp.address=:{TCP_PORT}"),
        format!("--entrypoints.tls.address=:{TLS_PORT}"),
        format!("--entrypoints.traefik.address={NODE_IP}:{API_PORT}"),
        "--api.insecure=true".to_owned(),
        "--ping=true".to_owned(),
        "--metrics.prometheus=true".to_owned(),
        // The default of 2 s would be most of the time that a test waits for a new weight.
        "--providers.providersthrottleduration=100ms".to_owned(),
        format!("--providers.kubernetesgateway.statusaddress.ip={NODE_IP}"),
        // TCPRoute.
        "--providers.kubernetesgateway.experimentalchannel=true".to_owned(),
        "--providers.kubernetesingress.ingressclass=traefik".to_owned(),
        format!("--providers.kubernetesingressnginx.ingressclass={NGINX_CLASS}"),
        "--global.checknewversion=false".to_owned(),
        "--global.sendanonymoususage=false".to_owned(),
    ];
    for provider in ["kubernetesgateway", "kubernetesingress", "kubernetesingressnginx", "kubernetescrd"] {
        args.push(format!("--providers.{provider}=true"));
        args.push(format!("--providers.{provider}.endpoint=https://{NODE_IP}:6443"));
        args.push(format!("--providers.{provider}.token={token}"));
        args.push(format!("--providers.{provider}.certauthfilepath={authority}"));
        args.push(format!("--providers.{provider}.throttleduration=100ms"));
    }
    let mut component = sandbox.start_component("traefik", program, &args)?;
    component.wait_ready(Duration::from_secs(30), || {
        session::in_cluster(&namespace, async || {
            let url = format!("http://{NODE_IP}:{API_PORT}/ping");
            Ok(crate::http::client()?.get(url).send().await?.error_for_status().map(drop)?)
        })
        .is_ok()
    })?;
    session::in_cluster(&namespace, async || wait_programmed(&cluster.client().await?).await)
}

/// The administrator's token, as the kubeconfig has it.
fn token(state: &StateDir) -> Result<String> {
    let tokens = std::fs::read_to_string(state.join("tokens.csv"))?;
    Ok(tokens.split(',').next().context("tokens.csv is empty")?.to_owned())
}

async fn install_kinds(client: &kube::Client, gateway_api: &Path) -> Result<()> {
    let mut definitions = gateway_definitions(gateway_api)?;
    let own = |(kind, plural): &(&str, &str)| crate::apply::definition("traefik.io", "v1alpha1", kind, plural);
    definitions.extend(OWN_KINDS.iter().map(own));
    for definition in &definitions {
        crate::apply::define(client, definition).await?;
    }
    Ok(())
}

/// Key and certificate for `*.example.com`.
fn tls_secret(state: &StateDir) -> Result<Value> {
    let file = |name: &str| {
        let path = state.join("pki").join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": TLS_SECRET, "namespace": GATEWAY.0},
        "type": "kubernetes.io/tls", "stringData": {"tls.crt": file("gateway.crt")?, "tls.key": file("gateway.key")?},
    }))
}

/// The Gateway API's definitions, from a directory of YAML files; and TCPRoute's, which is among the experimental ones.
fn gateway_definitions(directory: &Path) -> Result<Vec<Value>> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .with_context(|| format!("the Gateway API's definitions in {}", directory.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    files.sort();
    files.push(directory.with_file_name("experimental").join("gateway.networking.k8s.io_tcproutes.yaml"));
    let mut definitions = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        // Beside the definitions there is a policy that guards upgrades, of no use here.
        let Ok(value) = serde_saphyr::from_str::<Value>(&text) else { continue };
        if value["kind"] == "CustomResourceDefinition" {
            definitions.push(value);
        }
    }
    Ok(definitions)
}

async fn install_gateway(client: &kube::Client, secret: &Value) -> Result<()> {
    let (namespace, gateway) = GATEWAY;
    let tls = json!({"mode": "Terminate", "certificateRefs": [{"name": TLS_SECRET}]});
    let objects = [
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "traefik"},
            "spec": {"controllerName": "traefik.io/gateway-controller"},
        }),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": gateway, "namespace": namespace},
            "spec": {"gatewayClassName": "traefik", "listeners": [
                {"name": "http", "port": PORT, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}},
                {"name": "tcp", "port": TCP_PORT, "protocol": "TCP", "allowedRoutes": {"namespaces": {"from": "All"}}},
                {"name": "tls", "port": TLS_PORT, "protocol": "TLS", "tls": tls,
                 "allowedRoutes": {"namespaces": {"from": "All"}}},
            ]},
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": NGINX_CLASS},
            "spec": {"controller": "k8s.io/ingress-nginx"},
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "traefik"},
            "spec": {"controller": "traefik.io/ingress-controller"},
        }),
    ];
    let [class, in_namespace, others @ ..] = &objects;
    for object in [class, in_namespace, secret].into_iter().chain(others) {
        crate::apply::apply(client, object).await?;
    }
    Ok(())
}

async fn wait_programmed(client: &kube::Client) -> Result<()> {
    let (namespace, name) = GATEWAY;
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway");
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&kind));
    crate::wait_for("Traefik to take the Gateway", Duration::from_secs(30), async || {
        let status = api.get(name).await?.data["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let programmed = conditions.iter().any(|found| found["type"] == "Programmed" && found["status"] == "True");
        anyhow::ensure!(programmed, "status {status}");
        Ok(())
    })
    .await
}
