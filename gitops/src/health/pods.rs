//! Pod.

use super::{Health, condition, is_true};
use crate::object;
use serde_json::Value;

const IGNORE_RESTART_POLICY: &str = "argocd.argoproj.io/ignore-restart-policy";

pub(super) fn pod(live: &Value) -> Health {
    let policy = object::text(live, "/spec/restartPolicy");
    let ignores_policy = object::annotation(live, IGNORE_RESTART_POLICY).is_some_and(|v| v != "false");
    let lives_on = policy == "Always" || (ignores_policy && !crate::sync::hook::is_hook(live));
    if lives_on {
        let waiting: Vec<String> = statuses(live)
            .filter_map(|status| status.pointer("/state/waiting"))
            .filter(|waiting| is_failure(object::text(waiting, "/reason")))
            .map(|waiting| object::text(waiting, "/message").to_owned())
            .collect();
        if !waiting.is_empty() {
            return Health::degraded(waiting.join(", "));
        }
    }
    let message = object::text(live, "/status/message");
    match object::text(live, "/status/phase") {
        "Pending" => Health::progressing(message),
        "Succeeded" => Health::healthy(message),
        "Failed" => Health::degraded(failure(live)),
        "Running" if policy == "Always" => {
            if condition(live, "Ready").is_some_and(is_true) {
                return Health::healthy(message);
            }
            // Not ready, and it ended before: it is crashing, not starting.
            if statuses(live).any(|status| status.pointer("/lastState/terminated").is_some()) {
                return Health::degraded(message);
            }
            Health::progressing(message)
        }
        "Running" => Health::progressing(message),
        _ => Health::unknown(message),
    }
}

fn statuses(live: &Value) -> impl Iterator<Item = &Value> {
    object::list(live, "/status/initContainerStatuses").iter().chain(object::list(live, "/status/containerStatuses"))
}

fn is_failure(reason: &str) -> bool {
    reason.starts_with("Err") || reason.ends_with("Error") || reason.ends_with("BackOff")
}

fn failure(live: &Value) -> String {
    let message = object::text(live, "/status/message");
    if !message.is_empty() {
        return message.to_owned();
    }
    for status in statuses(live) {
        let Some(ended) = status.pointer("/state/terminated") else { continue };
        let message = object::text(ended, "/message");
        if !message.is_empty() {
            return message.to_owned();
        }
        if object::text(ended, "/reason") == "OOMKilled" {
            return "OOMKilled".to_owned();
        }
        let code = object::integer(ended, "/exitCode").unwrap_or(0);
        if code != 0 {
            return format!("container {:?} failed with exit code {code}", object::text(status, "/name"));
        }
    }
    String::new()
}
