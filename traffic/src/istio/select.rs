//! Which routes of a VirtualService a Rollout means.

use crate::object::{list, text};
use crate::{ObjectRef, RouterError};
use serde_json::Value;
use std::collections::BTreeSet;
use tidegate_crds::rollout::{IstioTlsRoute, IstioVirtualService};

const ROUTES: &str = "spec.strategy.canary.trafficRouting.istio.virtualService.routes";

/// Indices of the HTTP routes: those that are named; without names the only route, or the only one without a name.
/// None when only TLS or TCP routes are asked for and the HTTP routes are not plain.
pub(super) fn http(
    target: &ObjectRef,
    service: &IstioVirtualService,
    routes: &[Value],
) -> Result<Vec<usize>, RouterError> {
    if service.routes.is_empty() {
        return match routes {
            [_] => Ok(vec![0]),
            _ if !service.tls_routes.is_empty() || !service.tcp_routes.is_empty() => Ok(Vec::new()),
            _ => Err(RouterError::unfit(
                target,
                "spec.http",
                format!("{} routes", routes.len()),
                format!("exactly one, as {ROUTES} names none"),
            )),
        };
    }
    let mut indices = Vec::new();
    for name in &service.routes {
        let index = routes.iter().position(|route| text(route, "/name") == Some(name.as_str()));
        let index = index.ok_or_else(|| {
            RouterError::unfit(
                target,
                "spec.http[].name",
                format!("no route {name}"),
                format!("it, as {ROUTES} names it"),
            )
        })?;
        if !indices.contains(&index) {
            indices.push(index);
        }
    }
    Ok(indices)
}

/// The protocols whose routes have no names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Protocol {
    Tls,
    Tcp,
}

impl Protocol {
    /// The list in `spec`.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }
}

/// Indices of TLS or TCP routes: those with the port and SNI hosts asked for; when none are asked for, the only one.
pub(super) fn stream(
    target: &ObjectRef,
    service: &IstioVirtualService,
    protocol: Protocol,
    routes: &[Value],
) -> Result<Vec<usize>, RouterError> {
    let wanted: Vec<(i64, BTreeSet<String>)> = match protocol {
        Protocol::Tls => {
            let hosts = |route: &IstioTlsRoute| -> BTreeSet<String> { route.sni_hosts.iter().cloned().collect() };
            service.tls_routes.iter().map(|r| (r.port.unwrap_or(0), hosts(r))).collect()
        }
        Protocol::Tcp => service.tcp_routes.iter().map(|r| (r.port.unwrap_or(0), BTreeSet::new())).collect(),
    };
    let field = protocol.field();
    if wanted.is_empty() {
        let others = !service.routes.is_empty() || !service.tls_routes.is_empty() || !service.tcp_routes.is_empty();
        return match routes {
            [_] if !others => Ok(vec![0]),
            // Another protocol's routes are asked for; these are somebody else's.
            _ if others => Ok(Vec::new()),
            _ => Err(RouterError::unfit(
                target,
                format!("spec.{field}"),
                format!("{} routes", routes.len()),
                format!("exactly one, as the Rollout names none in {field}Routes"),
            )),
        };
    }
    let mut indices = Vec::new();
    for (port, hosts) in wanted {
        let found: Vec<usize> =
            (0..routes.len()).filter(|index| fits(&routes[*index], protocol, port, &hosts)).collect();
        if found.is_empty() {
            let hosts: Vec<String> = hosts.into_iter().collect();
            let found = format!("no route with port {port} and SNI hosts {}", hosts.join(", "));
            return Err(RouterError::unfit(target, format!("spec.{field}"), found, "the one that the Rollout names"));
        }
        indices.extend(found.into_iter().filter(|index| !indices.contains(index)).collect::<Vec<_>>());
    }
    Ok(indices)
}

/// Whether all matches of the route have this one port, and together exactly these SNI hosts.
fn fits(route: &Value, protocol: Protocol, port: i64, hosts: &BTreeSet<String>) -> bool {
    let matches = list(route, "/match");
    let ports: BTreeSet<i64> = matches.iter().map(|m| m.get("port").and_then(Value::as_i64).unwrap_or(0)).collect();
    let sni = matches.iter().flat_map(|m| list(m, "/sniHosts")).filter_map(Value::as_str);
    let sni: BTreeSet<String> = sni.map(str::to_owned).collect();
    ports.len() <= 1 && ports.first().copied().unwrap_or(0) == port && (protocol == Protocol::Tcp || sni == *hosts)
}
