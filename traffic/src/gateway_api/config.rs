//! The plugin's configuration.

use crate::RouterError;
use serde_json::{Map, Value};
use tidegate_crds::LabelSelector;

/// Where the configuration stands in a Rollout.
pub(super) const PATH: &str = "spec.strategy.canary.trafficRouting.plugins.argoproj-labs/gatewayAPI";

/// One kind of route.
#[derive(Debug, PartialEq)]
pub(crate) struct RouteKind {
    /// Beginning of the configuration's field names.
    prefix: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Plural in lower case.
    pub plural: &'static str,
    /// Rules can match headers.
    pub headers: bool,
    /// Rules can match paths, and mirror.
    pub http: bool,
}

/// Every kind of route that has weights.
pub(super) static KINDS: [RouteKind; 4] = [
    RouteKind { prefix: "http", kind: "HTTPRoute", plural: "httproutes", headers: true, http: true },
    RouteKind { prefix: "grpc", kind: "GRPCRoute", plural: "grpcroutes", headers: true, http: false },
    RouteKind { prefix: "tcp", kind: "TCPRoute", plural: "tcproutes", headers: false, http: false },
    RouteKind { prefix: "tls", kind: "TLSRoute", plural: "tlsroutes", headers: false, http: false },
];

/// A route that is named.
#[derive(Debug)]
pub(super) struct NamedRoute {
    pub kind: &'static RouteKind,
    pub name: String,
    /// Header routes go into this route.
    pub use_headers: bool,
    /// Only the rule of that name is ours.
    pub rule_name: Option<String>,
}

/// The plugin's configuration.
#[derive(Debug)]
pub(super) struct Config {
    pub named: Vec<NamedRoute>,
    pub selected: Vec<(&'static RouteKind, LabelSelector)>,
    /// Namespace of the routes. Default: the Rollout's.
    pub namespace: Option<String>,
    /// Key and value of the label that a route has during an update; `None` when it is disabled.
    pub in_progress_label: Option<(String, String)>,
    /// Annotation that lists the Rollouts at work in a route.
    pub active_rollouts_annotation: String,
}

/// One map of the configuration. Field names are matched without regard to case, as the peer's decoder does.
struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn read(path: String, value: &'a Value) -> Result<Self, RouterError> {
        match value {
            Value::Object(map) => Ok(Self { path, map }),
            other => Err(RouterError::config(path, other.to_string(), "a map")),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        let exact = self.map.get(name);
        let any_case = || self.map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        exact.or_else(any_case).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<String>, RouterError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|t| !t.is_empty())),
            Some(other) => Err(self.unfit(name, other, "a text")),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, RouterError> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.unfit(name, other, "true or false")),
        }
    }

    fn list(&self, name: &str) -> Result<&'a [Value], RouterError> {
        match self.get(name) {
            None => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(self.unfit(name, other, "a list")),
        }
    }

    fn unfit(&self, name: &str, found: &Value, expected: &str) -> RouterError {
        RouterError::config(format!("{}.{name}", self.path), found.to_string(), expected)
    }
}

impl Config {
    pub(super) fn read(value: &Value) -> Result<Self, RouterError> {
        let fields = Fields::read(PATH.to_owned(), value)?;
        let mut named: Vec<NamedRoute> = Vec::new();
        let mut selected = Vec::new();
        for kind in &KINDS {
            let field = format!("{}Route", kind.prefix);
            if let Some(name) = fields.text(&field)? {
                let rule_name = fields.text(&format!("{field}RuleName"))?;
                named.push(NamedRoute { kind, name, use_headers: true, rule_name });
            }
            let list = format!("{field}s");
            for (index, entry) in fields.list(&list)?.iter().enumerate() {
                let entry = Fields::read(format!("{PATH}.{list}[{index}]"), entry)?;
                let name = entry
                    .text("name")?
                    .ok_or_else(|| RouterError::config(format!("{}.name", entry.path), "nothing", "a route's name"))?;
                // The same route in both forms is one route; the list form says more.
                named.retain(|n| n.kind != kind || n.name != name);
                let (use_headers, rule_name) = (entry.flag("useHeaderRoutes")?, entry.text("ruleName")?);
                named.push(NamedRoute { kind, name, use_headers, rule_name });
            }
            let selector = format!("{field}Selector");
            if let Some(value) = fields.get(&selector) {
                let parsed = serde_json::from_value(value.clone());
                selected.push((kind, parsed.map_err(|_| fields.unfit(&selector, value, "a label selector"))?));
            }
        }
        if named.is_empty() && selected.is_empty() {
            let expected = "at least one of httpRoute, httpRoutes, httpRouteSelector or the same for grpc, tcp and tls";
            return Err(RouterError::config(PATH, "no route", expected));
        }
        let key = fields.text("inProgressLabelKey")?;
        let value = fields.text("inProgressLabelValue")?;
        let label = (
            key.unwrap_or_else(|| "rollouts.argoproj.io/gatewayapi-canary".to_owned()),
            value.unwrap_or_else(|| "in-progress".to_owned()),
        );
        Ok(Self {
            named,
            selected,
            namespace: fields.text("namespace")?,
            in_progress_label: (!fields.flag("disableInProgressLabel")?).then_some(label),
            active_rollouts_annotation: fields
                .text("activeRolloutsAnnotationKey")?
                .unwrap_or_else(|| "rollouts.argoproj.io/gatewayapi-active-rollouts".to_owned()),
        })
    }
}
