//! Which routes of a VirtualService a Rollout means.

use crate::object::{list, text};
use crate::{ObjectRef, RouterError};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use tidegate_crds::rollout::IstioVirtualService;

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

/// Indices of TLS or TCP routes: those with exactly the port and SNI hosts asked for, or with those of the two that are
/// asked for; when the Rollout names no routes, the only one.
pub(super) fn stream(
    target: &ObjectRef,
    service: &IstioVirtualService,
    protocol: Protocol,
    routes: &[Value],
) -> Result<Vec<usize>, RouterError> {
    let wanted: Vec<Selected> = match protocol {
        Protocol::Tls => service.tls_routes.iter().map(|r| Selected::new(r.port, &r.sni_hosts)).collect(),
        Protocol::Tcp => service.tcp_routes.iter().map(|r| Selected::new(r.port, &[])).collect(),
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
    for wanted in wanted {
        let of = |fits: &dyn Fn(&Selected) -> bool| -> Vec<usize> {
            (0..routes.len()).filter(|index| fits(&Selected::by(&routes[*index], protocol))).collect()
        };
        let mut found = of(&|route| *route == wanted);
        if found.is_empty() {
            // What the Rollout leaves out may be anything.
            found = of(&|route| wanted.allows(route));
        }
        if found.is_empty() {
            let found = format!("no route with {wanted}");
            return Err(RouterError::unfit(target, format!("spec.{field}"), found, "the one that the Rollout names"));
        }
        indices.extend(found.into_iter().filter(|index| !indices.contains(index)).collect::<Vec<_>>());
    }
    Ok(indices)
}

/// What a TLS or TCP route is selected by, over all its matches.
#[derive(Debug, PartialEq, Eq)]
struct Selected {
    /// Empty when it does not matter.
    ports: BTreeSet<i64>,
    /// Empty when it does not matter.
    hosts: BTreeSet<String>,
}

impl Selected {
    fn new(port: Option<i64>, hosts: &[String]) -> Self {
        Self { ports: port.into_iter().filter(|port| *port != 0).collect(), hosts: hosts.iter().cloned().collect() }
    }

    /// As the VirtualService has it.
    fn by(route: &Value, protocol: Protocol) -> Self {
        let matches = list(route, "/match");
        let sni = matches.iter().flat_map(|m| list(m, "/sniHosts")).filter_map(Value::as_str);
        Self {
            ports: matches.iter().filter_map(|m| m.get("port")?.as_i64()).filter(|port| *port != 0).collect(),
            hosts: sni.filter(|_| protocol == Protocol::Tls).map(str::to_owned).collect(),
        }
    }

    /// The route has the port and the SNI hosts that are asked for, as far as they are.
    fn allows(&self, route: &Self) -> bool {
        let asked = !self.ports.is_empty() || !self.hosts.is_empty();
        let (ports, hosts) = (self.ports == route.ports, self.hosts == route.hosts);
        asked && (self.ports.is_empty() || ports) && (self.hosts.is_empty() || hosts)
    }
}

impl fmt::Display for Selected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<&str> = self.hosts.iter().map(String::as_str).collect();
        match (self.ports.first(), hosts.is_empty()) {
            (Some(port), true) => write!(f, "port {port}"),
            (Some(port), false) => write!(f, "port {port} and the SNI hosts {}", hosts.join(", ")),
            (None, false) => write!(f, "the SNI hosts {}", hosts.join(", ")),
            (None, true) => write!(f, "neither port nor SNI hosts"),
        }
    }
}
