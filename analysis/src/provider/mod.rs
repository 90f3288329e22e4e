//! Metric providers: where values come from.
//!
//! A provider is a file here. Those that answer within a request implement [`Provider`] and are asked through
//! [`Clients::measure`]; the Job provider, whose measurements go on for long, is a pair of pure functions in [`job`].

mod http;
pub mod job;
pub mod jsonpath;
mod prometheus;
mod web;

pub use http::Clients;

use crate::arguments::redact;
use crate::condition;
use crate::expr::Value;
use jiff::Timestamp;
use std::collections::BTreeMap;
use tidegate_crds::Time;
use tidegate_crds::analysis::{AnalysisPhase, Measurement, Metric, MetricProvider};

/// How short a secret may be for its text to be taken out of measured values. Shorter ones are parts of numbers.
const REDACTED_IN_VALUES: usize = 4;

/// A measurement, and what the provider tells about the metric as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// The measurement.
    pub measurement: Measurement,
    /// For the metric's `metadata`, such as the query.
    pub metadata: BTreeMap<String, String>,
}

/// What came out of asking a provider.
struct Reading {
    /// The value for the conditions.
    value: Value,
    /// The value as the status shows it.
    shown: String,
    /// For the measurement's `metadata`.
    metadata: BTreeMap<String, String>,
}

/// A provider that answers within a request. The metric is complete: its arguments are filled in, secrets too.
trait Provider {
    /// Asks for the value. The error is a message for the user and says no header and no body.
    fn read(&self, metric: &Metric, now: Timestamp) -> impl Future<Output = Result<Reading, String>> + Send;

    /// What there is to tell about the metric.
    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

impl Clients {
    /// Takes a measurement of a metric whose arguments are filled in. Texts from `secrets` do not get into the outcome.
    ///
    /// Jobs are not measured here, see [`job`].
    pub async fn measure(&self, metric: &Metric, secrets: &[String]) -> Measured {
        let mut measured = match &metric.provider {
            MetricProvider { prometheus: Some(query), .. } => {
                self.ask(metric, &prometheus::Prometheus { clients: self, query }).await
            }
            MetricProvider { web: Some(request), .. } => self.ask(metric, &web::Web { clients: self, request }).await,
            other => Measured { measurement: failed(Timestamp::now(), unavailable(other)), ..Measured::default() },
        };
        let measurement = &mut measured.measurement;
        measurement.message = measurement.message.take().map(|message| redact(&message, secrets));
        let long: Vec<String> = secrets.iter().filter(|s| s.len() >= REDACTED_IN_VALUES).cloned().collect();
        measurement.value = measurement.value.take().map(|value| redact(&value, &long));
        for text in measurement.metadata.values_mut().chain(measured.metadata.values_mut()) {
            *text = redact(text, secrets);
        }
        measured
    }

    async fn ask(&self, metric: &Metric, provider: &impl Provider) -> Measured {
        let started = Timestamp::now();
        let measurement = match provider.read(metric, started).await {
            Ok(reading) => judged(metric, started, reading),
            Err(message) => failed(started, message),
        };
        Measured { measurement, metadata: provider.metadata() }
    }
}

fn judged(metric: &Metric, started: Timestamp, reading: Reading) -> Measurement {
    let finished = Timestamp::now();
    let (success, failure) = (metric.success_condition.as_deref(), metric.failure_condition.as_deref());
    let (phase, message) = match condition::assess(&reading.value, success, failure, finished) {
        Ok(phase) => (phase, None),
        Err(error) => (AnalysisPhase::Error, Some(error.to_string())),
    };
    Measurement {
        phase,
        message,
        started_at: Some(Time(started)),
        finished_at: Some(Time(finished)),
        value: Some(reading.shown),
        metadata: reading.metadata,
        resume_at: None,
    }
}

/// A measurement that could not be taken.
pub fn failed(started: Timestamp, message: String) -> Measurement {
    Measurement {
        phase: AnalysisPhase::Error,
        message: Some(message),
        started_at: Some(Time(started)),
        finished_at: Some(Time(Timestamp::now().max(started))),
        ..Measurement::default()
    }
}

fn unavailable(provider: &MetricProvider) -> String {
    match provider.set().first() {
        None => "no provider specified".to_owned(),
        Some(name) => {
            format!("metric provider {name} is not available; available are Prometheus, Web and Job")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn other_providers_are_named() {
        let clients = Clients::new(None).unwrap();
        for (provider, name) in [(json!({"datadog": {}}), "Datadog"), (json!({"plugin": {"x/y": {}}}), "RPCPlugin")] {
            let metric = serde_json::from_value(json!({"name": "m", "provider": provider})).unwrap();
            let measured = clients.measure(&metric, &[]).await.measurement;
            assert_eq!(measured.phase, AnalysisPhase::Error);
            let message = format!("metric provider {name} is not available; available are Prometheus, Web and Job");
            assert_eq!(measured.message, Some(message));
        }
    }
}
