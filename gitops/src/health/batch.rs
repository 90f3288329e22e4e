//! Job and CronJob.

use super::{Health, condition, is_true, message};
use crate::object;
use serde_json::Value;

pub(super) fn job(live: &Value) -> Health {
    if let Some(failed) = condition(live, "Failed").filter(|c| is_true(c)) {
        return Health::degraded(message(failed));
    }
    if let Some(suspended) = condition(live, "Suspended").filter(|c| is_true(c)) {
        return Health::suspended(message(suspended));
    }
    if let Some(complete) = condition(live, "Complete").filter(|c| is_true(c)) {
        return Health::healthy(message(complete));
    }
    Health::progressing("")
}

pub(super) fn cron_job(live: &Value) -> Health {
    if live.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true) {
        return Health::suspended("CronJob is Suspended");
    }
    let time = |field: &str| object::text(live, &format!("/status/{field}")).parse::<jiff::Timestamp>().ok();
    match (time("lastScheduleTime"), time("lastSuccessfulTime")) {
        (None, _) => Health::healthy("CronJob has not been scheduled yet"),
        (Some(_), _) if !object::list(live, "/status/active").is_empty() => {
            Health::progressing("CronJob has active jobs")
        }
        (Some(scheduled), Some(succeeded)) if succeeded >= scheduled => {
            Health::healthy("CronJob has completed its last execution successfully")
        }
        _ => Health::degraded("CronJob has not completed its last execution successfully"),
    }
}
