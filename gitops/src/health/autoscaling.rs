//! HorizontalPodAutoscaler.

use super::{Health, is_true, message};
use crate::object;
use serde_json::Value;

/// Where v1 keeps its conditions.
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

const FAILURES: &[(&str, &str)] = &[
    ("AbleToScale", "FailedGetScale"),
    ("AbleToScale", "FailedUpdateScale"),
    ("ScalingActive", "FailedGetResourceMetric"),
    ("ScalingActive", "FailedGetObjectMetric"),
    ("ScalingActive", "FailedGetPodsMetric"),
    ("ScalingActive", "FailedGetExternalMetric"),
    ("ScalingActive", "FailedComputeMetricsReplicas"),
    ("ScalingActive", "InvalidSelector"),
];

pub(super) fn autoscaler(live: &Value) -> Health {
    if object::version(live) == "v1" {
        let Some(text) = object::annotation(live, CONDITIONS).filter(|t| !t.is_empty()) else { return waiting() };
        return match serde_json::from_str::<Vec<Value>>(text) {
            Ok(conditions) => judge(&conditions),
            Err(e) => Health::unknown(format!("annotation {CONDITIONS}: {e}")),
        };
    }
    judge(object::list(live, "/status/conditions"))
}

fn waiting() -> Health {
    Health::progressing("Waiting to Autoscale")
}

fn judge(conditions: &[Value]) -> Health {
    for condition in conditions {
        let (kind, reason) = (object::text(condition, "/type"), object::text(condition, "/reason"));
        if FAILURES.contains(&(kind, reason)) {
            return Health::degraded(message(condition));
        }
    }
    let settled = |c: &&Value| matches!(object::text(c, "/type"), "AbleToScale" | "ScalingLimited") && is_true(c);
    conditions.iter().find(settled).map_or_else(waiting, |c| Health::healthy(message(c)))
}
