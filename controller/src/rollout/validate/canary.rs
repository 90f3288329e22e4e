//! The canary strategy.

use super::{Problems, check_anti_affinity, check_args, check_arguments};
use serde_json::Value;
use tidegate_crds::IntOrString;
use tidegate_crds::rollout::{Canary, CanaryStep, Rollout, StringMatch, TrafficRouting};
use tidegate_traffic::{RouterError, RouterOptions, routers};

const PATH: &str = "spec.strategy.canary";

pub(super) fn check(rollout: &Rollout, canary: &Canary, problems: &mut Problems) {
    // Only literal zeros: a percentage that comes to nothing is rounded up when pods are counted.
    if is_zero(canary.max_surge.as_ref()) && is_zero(canary.max_unavailable.as_ref()) {
        problems.invalid(format!("{PATH}.maxSurge"), 0, "must not be 0 when maxUnavailable is 0");
    }
    check_services(canary, problems);
    match &canary.traffic_routing {
        None => {
            let without = "can only be used with trafficRouting";
            if let Some(seconds) = canary.scale_down_delay_seconds {
                problems.invalid(format!("{PATH}.scaleDownDelaySeconds"), seconds, without);
            }
            if canary.dynamic_stable_scale {
                problems.invalid(format!("{PATH}.dynamicStableScale"), true, without);
            }
        }
        Some(routing) => {
            if canary.dynamic_stable_scale && canary.scale_down_delay_seconds.is_some() {
                let expected = "cannot be used together with scaleDownDelaySeconds";
                problems.invalid(format!("{PATH}.dynamicStableScale"), true, expected);
            }
            let limited = routing.nginx.is_some() || !routing.plugins.is_empty();
            if let Some(max) = routing.max_traffic_weight {
                let field = format!("{PATH}.trafficRouting.maxTrafficWeight");
                if !limited {
                    problems.invalid(field, max, "can only be used with nginx and plugins");
                } else if max < 1 {
                    problems.invalid(field, max, "must be greater than 0");
                }
            }
        }
    }
    for (index, step) in canary.steps.iter().flatten().enumerate() {
        check_step(canary, step, &format!("{PATH}.steps[{index}]"), problems);
    }
    if let Some(background) = &canary.analysis {
        check_args(&background.analysis, &format!("{PATH}.analysis"), problems);
    }
    check_anti_affinity(canary.anti_affinity.as_ref(), &format!("{PATH}.antiAffinity"), problems);
    if let Some(threshold) = &canary.replica_progress_threshold
        && !matches!(threshold.type_.as_str(), "Percent" | "Pods")
    {
        let field = format!("{PATH}.replicaProgressThreshold.type");
        problems.unsupported(field, &threshold.type_, &["Percent", "Pods"]);
    }
    if let Some(routing) = &canary.traffic_routing {
        check_routers(rollout, canary, routing, problems);
    }
}

fn is_zero(value: Option<&IntOrString>) -> bool {
    match value {
        None => false,
        Some(IntOrString::Int(number)) => *number == 0,
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse() == Ok(0),
    }
}

fn is_set(name: Option<&String>) -> Option<&str> {
    name.map(String::as_str).filter(|name| !name.is_empty())
}

fn check_services(canary: &Canary, problems: &mut Problems) {
    let canary_service = is_set(canary.canary_service.as_ref());
    let stable_service = is_set(canary.stable_service.as_ref());
    if let (Some(one), Some(other)) = (canary_service, stable_service)
        && one == other
    {
        problems.invalid(format!("{PATH}.stableService"), other, "must differ from canaryService");
    }
    let routing = canary.traffic_routing.as_ref();
    if let Some(pair) = &canary.ping_pong {
        let field = format!("{PATH}.pingPong");
        let able = routing.is_some_and(|r| r.alb.is_some() || r.istio.is_some() || !r.plugins.is_empty());
        if routing.is_some() && !able {
            problems.invalid(
                field.as_str(),
                pair.ping_service.as_str(),
                "can only be used with alb, istio and plugins",
            );
        }
        for (name, service) in [("pingService", &pair.ping_service), ("pongService", &pair.pong_service)] {
            if service.is_empty() {
                problems.invalid(format!("{field}.{name}"), "", "pingService and pongService must both be set");
            }
        }
        if pair.ping_service == pair.pong_service {
            problems.invalid(
                format!("{field}.pingService"),
                pair.ping_service.as_str(),
                "must differ from pongService",
            );
        }
        if let Some(alb) = routing.and_then(|r| r.alb.as_ref())
            && is_set(alb.root_service.as_ref()).is_none()
        {
            let expected = "must be set when alb is used with pingPong";
            problems.invalid(format!("{PATH}.trafficRouting.alb.rootService"), "", expected);
        }
    }
    if let Some(router) = routing.and_then(|routing| router_with_services(canary, routing)) {
        let expected = format!("must be set, as trafficRouting.{router} moves traffic between two Services");
        for (name, service) in [("stableService", stable_service), ("canaryService", canary_service)] {
            if service.is_none() {
                problems.invalid(format!("{PATH}.{name}"), "", expected.as_str());
            }
        }
    }
}

/// A router that needs both Services.
fn router_with_services(canary: &Canary, routing: &TrafficRouting) -> Option<&'static str> {
    let by_subset = |rule: &tidegate_crds::rollout::IstioTrafficRouting| rule.destination_rule.is_some();
    let ping_pong = canary.ping_pong.is_some();
    [
        ("alb", routing.alb.is_some() && !ping_pong),
        ("istio", routing.istio.as_ref().is_some_and(|istio| !by_subset(istio)) && !ping_pong),
        ("smi", routing.smi.is_some()),
        ("apisix", routing.apisix.is_some()),
        ("ambassador", routing.ambassador.is_some()),
        ("nginx", routing.nginx.is_some()),
        ("appMesh", routing.app_mesh.is_some()),
        ("traefik", routing.traefik.is_some()),
    ]
    .into_iter()
    .find(|(_, needs)| *needs)
    .map(|(name, _)| name)
}

fn check_step(canary: &Canary, step: &CanaryStep, path: &str, problems: &mut Problems) {
    let routing = canary.traffic_routing.as_ref();
    // Other combinations are accepted, as users have them in their manifests; the first kind counts.
    let exclusive = [
        ("setWeight", step.set_weight.is_some()),
        ("pause", step.pause.is_some()),
        ("experiment", step.experiment.is_some()),
        ("analysis", step.analysis.is_some()),
    ];
    let set: Vec<&str> = exclusive.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    let other = step.set_canary_scale.is_some()
        || step.set_header_route.is_some()
        || step.set_mirror_route.is_some()
        || step.plugin.is_some();
    let kinds = "exactly one of setWeight, pause, setCanaryScale, analysis, experiment, setHeaderRoute, \
                 setMirrorRoute and plugin";
    if set.len() > 1 {
        problems.invalid(path, set.join(" and "), kinds);
    } else if set.is_empty() && !other {
        problems.invalid(path, serde_json::json!({}), kinds);
    }
    if let Some(weight) = step.set_weight {
        let max = routing.and_then(|r| r.max_traffic_weight).unwrap_or(100);
        if !(0..=max).contains(&weight) {
            problems.invalid(format!("{path}.setWeight"), weight, format!("must be between 0 and {max}"));
        }
    }
    if let Some(pause) = &step.pause
        && pause.parse().is_err()
    {
        let found = serde_json::to_value(&pause.duration).unwrap_or_default();
        let expected = "must be 0 or more seconds, or a duration such as 30s, 5m or 1h30m";
        problems.invalid(format!("{path}.pause.duration"), found, expected);
    }
    if step.set_canary_scale.is_some() && routing.is_none() {
        problems.required(format!("{PATH}.trafficRouting"), format!("a router, as {path}.setCanaryScale needs one"));
    }
    check_managed_routes(routing, step, path, problems);
    let experiment = step.experiment.as_ref();
    for (index, template) in experiment.iter().flat_map(|e| &e.templates).enumerate() {
        let Some(weight) = template.weight else { continue };
        let field = format!("{path}.experiment.templates[{index}].weight");
        let able =
            |r: &TrafficRouting| r.alb.is_some() || r.smi.is_some() || r.istio.is_some() || !r.plugins.is_empty();
        if !routing.is_some_and(able) {
            problems.invalid(field, weight, "needs trafficRouting with alb, smi, istio or plugins");
        }
    }
    for (index, analysis) in experiment.iter().flat_map(|e| &e.analyses).enumerate() {
        check_arguments(&analysis.args, &format!("{path}.experiment.analyses[{index}].args"), problems);
    }
    if let Some(analysis) = &step.analysis {
        check_args(analysis, &format!("{path}.analysis"), problems);
    }
}

fn check_managed_routes(routing: Option<&TrafficRouting>, step: &CanaryStep, path: &str, problems: &mut Problems) {
    if let Some(route) = &step.set_header_route {
        let field = format!("{path}.setHeaderRoute");
        let able =
            |r: &TrafficRouting| r.istio.is_some() || r.alb.is_some() || r.apisix.is_some() || !r.plugins.is_empty();
        if !routing.is_some_and(able) {
            let expected = "needs trafficRouting with istio, alb, apisix or plugins";
            problems.invalid(field.as_str(), route.name.as_str(), expected);
        } else {
            let exact_only = routing.is_some_and(|r| r.alb.is_some());
            for (index, header) in route.match_.iter().enumerate() {
                let field = format!("{field}.match[{index}].headerValue");
                if exact_only && (text(&header.header_value.exact).is_none() || counted(&header.header_value) > 1) {
                    let found = serde_json::to_value(&header.header_value).unwrap_or_default();
                    problems.invalid(field, found, "must be exact: alb knows no other");
                } else {
                    check_string_match(&header.header_value, field, problems);
                }
            }
        }
        check_listed(routing, &route.name, &field, problems);
    }
    if let Some(route) = &step.set_mirror_route {
        let field = format!("{path}.setMirrorRoute");
        if !routing.is_some_and(|r| r.istio.is_some() || !r.plugins.is_empty()) {
            let expected = "needs trafficRouting with istio or plugins";
            problems.invalid(field.as_str(), route.name.as_str(), expected);
        }
        if let Some(percentage) = route.percentage.filter(|p| !(0..=100).contains(p)) {
            problems.invalid(format!("{field}.percentage"), percentage, "must be between 0 and 100");
        }
        for (index, matched) in route.match_.iter().enumerate() {
            let field = format!("{field}.match[{index}]");
            for (name, value) in [("method", &matched.method), ("path", &matched.path)] {
                value.iter().for_each(|value| check_string_match(value, format!("{field}.{name}"), problems));
            }
            for (name, value) in &matched.headers {
                check_string_match(value, format!("{field}.headers.{name}"), problems);
            }
        }
        check_listed(routing, &route.name, &field, problems);
    }
}

/// A route that no list names could never be removed.
fn check_listed(routing: Option<&TrafficRouting>, name: &str, path: &str, problems: &mut Problems) {
    let Some(routing) = routing else { return };
    let list = format!("{PATH}.trafficRouting.managedRoutes");
    if routing.managed_routes.is_empty() {
        problems.required(list, format!("the route {name:?}, which {path} makes"));
    } else if !routing.managed_routes.iter().any(|managed| managed.name == name) {
        problems.invalid(format!("{path}.name"), name, format!("must be listed in {list}"));
    }
}

fn text(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|text| !text.is_empty())
}

fn counted(value: &StringMatch) -> usize {
    [&value.exact, &value.prefix, &value.regex].into_iter().filter(|value| text(value).is_some()).count()
}

fn check_string_match(value: &StringMatch, path: String, problems: &mut Problems) {
    if counted(value) != 1 {
        let found = serde_json::to_value(value).unwrap_or_default();
        problems.invalid(path, found, "exactly one of exact, prefix and regex");
    }
}

/// The routers' own configuration.
fn check_routers(rollout: &Rollout, canary: &Canary, routing: &TrafficRouting, problems: &mut Problems) {
    let path = |router: &str| format!("{PATH}.trafficRouting.{router}");
    let mut either = |router: &str, one: (&str, bool), many: (&str, bool)| {
        if one.1 == many.1 {
            let found = if one.1 { "both" } else { "neither" };
            problems.invalid(path(router), found, format!("exactly one of {} and {}", one.0, many.0));
        }
    };
    let named = |name: &Option<String>| text(name).is_some();
    if let Some(nginx) = &routing.nginx {
        let many = ("stableIngresses", !nginx.stable_ingresses.is_empty());
        either("nginx", ("stableIngress", named(&nginx.stable_ingress)), many);
    }
    if let Some(alb) = &routing.alb {
        either("alb", ("ingress", named(&alb.ingress)), ("ingresses", !alb.ingresses.is_empty()));
    }
    if let Some(istio) = &routing.istio {
        let many = ("virtualServices", !istio.virtual_services.is_empty());
        either("istio", ("virtualService", istio.virtual_service.is_some()), many);
        check_virtual_services(istio, &path("istio"), problems);
    }
    if let Some(sticky) = routing.alb.as_ref().and_then(|alb| alb.stickiness_config.as_ref())
        && sticky.enabled
        && !(1..=604_800).contains(&sticky.duration_seconds)
    {
        let field = path("alb.stickinessConfig.durationSeconds");
        problems.invalid(field, sticky.duration_seconds, "must be between 1 and 604800");
    }
    if let Some(traefik) = &routing.traefik
        && traefik.weighted_traefik_service_name.is_empty()
    {
        problems.required(path("traefik.weightedTraefikServiceName"), "the name of a TraefikService");
    }
    if let Some(apisix) = &routing.apisix
        && apisix.route.as_ref().is_none_or(|route| route.name.is_empty())
    {
        problems.required(path("apisix.route.name"), "the name of an ApisixRoute");
    }
    let built = routers(rollout.name(), rollout.namespace(), canary, &RouterOptions::default());
    if let Err(RouterError::Config { field, found, expected }) = built {
        problems.invalid(field, found, expected);
    }
}

fn check_virtual_services(istio: &tidegate_crds::rollout::IstioTrafficRouting, path: &str, problems: &mut Problems) {
    for (index, service) in istio.virtual_services.iter().enumerate() {
        let field = format!("{path}.virtualServices[{index}]");
        if service.routes.is_empty() && service.tls_routes.is_empty() && service.tcp_routes.is_empty() {
            problems.required(format!("{field}.routes"), "the names of routes: there are several VirtualServices");
        }
        if istio.virtual_services[..index].iter().any(|earlier| earlier.name == service.name) {
            let expected = "each VirtualService once";
            problems.add(super::Kind::Duplicate, format!("{field}.name"), service.name.as_str(), expected);
        }
    }
    let services = istio.virtual_service.iter().chain(&istio.virtual_services);
    for service in services.filter(|service| service.name.is_empty()) {
        let found: Value = serde_json::to_value(service).unwrap_or_default();
        problems.invalid(path, found, "a VirtualService has a name");
    }
}
