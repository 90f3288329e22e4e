//! Prometheus, and what speaks its API.

use super::http::{self, Clients};
use super::{Provider, Reading};
use crate::expr::format::plain_float;
use crate::expr::{Program, Scope, Value};
use jiff::Timestamp;
use prometheus_http_query::Client;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_crds::analysis::{Metric, PrometheusMetric, RangeQuery};
use tidegate_crds::duration;

/// Seconds that a query may take when the metric does not say.
const TIMEOUT: i64 = 30;
/// Part of the address of Amazon Managed Prometheus, which wants signed requests.
const AMAZON: &str = "aps-workspaces";

pub(super) struct Prometheus<'a> {
    pub(super) clients: &'a Clients,
    pub(super) query: &'a PrometheusMetric,
}

impl Provider for Prometheus<'_> {
    async fn read(&self, _: &Metric, now: Timestamp) -> Result<Reading, String> {
        let seconds = self.query.timeout.unwrap_or(TIMEOUT);
        let Ok(timeout) = u64::try_from(seconds).map(Duration::from_secs) else {
            return Err(format!("prometheus timeout should not be negative, found {seconds}"));
        };
        match tokio::time::timeout(timeout, self.ask(now)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("prometheus did not answer within {seconds} s")),
        }
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let query = self.query.query.clone().filter(|query| !query.is_empty());
        query.map(|query| ("ResolvedPrometheusQuery".to_owned(), query)).into_iter().collect()
    }
}

impl Prometheus<'_> {
    async fn ask(&self, now: Timestamp) -> Result<Reading, String> {
        let client = self.client()?;
        let headers = self.headers().await?;
        let range = self.query.range_query.as_ref().map(|range| bounds(range, now)).transpose()?;
        let mut response = self.send(&client, &headers, range, true).await?;
        if matches!(response.status(), StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
            // Some servers take queries by GET only.
            response = self.send(&client, &headers, range, false).await?;
        }
        let status = response.status();
        let body = http::body(response).await?;
        match serde_json::from_str::<Answer>(&body) {
            Ok(answer) => answer.reading(),
            Err(_) if !status.is_success() => Err(format!("prometheus: received response code {}", status.as_u16())),
            Err(error) => Err(format!("prometheus: the answer is not that of a query: {error}")),
        }
    }

    fn client(&self) -> Result<Client, String> {
        let given = self.query.address.as_deref().filter(|address| !address.is_empty());
        let address = given.or(self.clients.prometheus_address.as_deref()).ok_or(
            "prometheus address is not configured: set provider.prometheus.address, or \
             ARGO_ROLLOUTS_PROMETHEUS_ADDRESS for the controller",
        )?;
        let url = reqwest::Url::parse(address).ok().filter(|url| url.has_host());
        if url.is_none_or(|url| !matches!(url.scheme(), "http" | "https")) {
            return Err(format!("prometheus address {address:?} is not a URL, such as http://prometheus:9090"));
        }
        if address.contains(AMAZON) {
            return Err(
                "authentication by AWS Signature Version 4 (sigv4), which Amazon Managed Prometheus needs, is \
                        not available"
                    .to_owned(),
            );
        }
        Client::from(self.clients.client(self.query.insecure).clone(), address).map_err(|e| http::chain(&e))
    }

    async fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = http::headers(&self.query.headers)?;
        let Some(authentication) = &self.query.authentication else { return Ok(headers) };
        let given = |text: &Option<String>| text.clone().unwrap_or_default();
        if let Some(basic) = &authentication.basic_auth {
            headers.insert(AUTHORIZATION, http::basic(&given(&basic.username), &given(&basic.password))?);
        } else if let Some(oauth2) = authentication.oauth2.as_ref().filter(|o| o.token_url.is_some()) {
            headers.insert(AUTHORIZATION, self.clients.token(oauth2, self.query.insecure).await?);
        }
        Ok(headers)
    }

    async fn send(
        &self,
        client: &Client,
        headers: &HeaderMap,
        range: Option<(i64, i64, f64)>,
        post: bool,
    ) -> Result<reqwest::Response, String> {
        let query = self.query.query.as_deref().unwrap_or_default();
        // The two kinds of builders share no trait.
        macro_rules! send {
            ($builder:expr) => {{
                let mut builder = $builder;
                for (name, value) in headers {
                    builder = builder.header(name.clone(), value.clone());
                }
                if post { builder.post_raw().await } else { builder.get_raw().await }
            }};
        }
        let response = match range {
            Some((start, end, step)) => send!(client.query_range(query, start, end, step)),
            None => send!(client.query(query)),
        };
        response.map_err(|error| match error {
            prometheus_http_query::Error::Client(error) => match std::error::Error::source(&error) {
                Some(source) => match source.downcast_ref::<reqwest::Error>() {
                    Some(error) => format!("prometheus: {}", without_url(error)),
                    None => format!("prometheus: {}", http::chain(source)),
                },
                None => format!("prometheus: {error}"),
            },
            error => format!("prometheus: {}", http::chain(&error)),
        })
    }
}

/// The causes of an error, whose own message has the URL with the query.
fn without_url(error: &reqwest::Error) -> String {
    let host = error.url().and_then(|url| url.host_str()).unwrap_or("unknown host");
    match std::error::Error::source(error) {
        Some(source) => format!("can not reach {host}: {}", http::chain(source)),
        None => format!("can not reach {host}"),
    }
}

/// Start, end and step of a range query in seconds.
fn bounds(range: &RangeQuery, now: Timestamp) -> Result<(i64, i64, f64), String> {
    let time = |field: &str, text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default();
        if text.is_empty() {
            return Err(format!("rangeQuery.{field} must be set, such as now() - duration(\"5m\")"));
        }
        let fault = |error: crate::expr::Error| format!("rangeQuery.{field} `{text}`: {error}");
        match Program::parse(text).and_then(|p| p.run(&Scope::bare(), now)).map_err(fault)? {
            Value::Time(time) => Ok(time.timestamp().as_second()),
            other => Err(format!("rangeQuery.{field} `{text}`: expected a time, but got {}", other.type_name())),
        }
    };
    let (start, end) = (time("start", &range.start)?, time("end", &range.end)?);
    let step = range.step.as_deref().unwrap_or_default();
    let step = duration::parse(step).map_err(|error| format!("rangeQuery.step: {error}"))?.as_secs_f64();
    if step <= 0.0 {
        return Err("rangeQuery.step must be more than 0".to_owned());
    }
    Ok((start, end, step))
}

/// What the API answers.
#[derive(Deserialize)]
struct Answer {
    status: String,
    data: Option<Data>,
    #[serde(rename = "errorType")]
    error_type: Option<String>,
    error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    result_type: String,
    result: serde_json::Value,
}

impl Answer {
    fn reading(self) -> Result<Reading, String> {
        if self.status != "success" {
            let kind = self.error_type.as_deref().unwrap_or("error");
            return Err(format!("{kind}: {}", self.error.as_deref().unwrap_or("prometheus gave no reason")));
        }
        let data = self.data.ok_or("prometheus: the answer has no data")?;
        let series = data.result.as_array().map(Vec::as_slice).unwrap_or_default();
        let (value, shown) = match data.result_type.as_str() {
            "scalar" => {
                let number = sample(&data.result)?;
                (Value::Float(number), plain_float(number))
            }
            "vector" => list(series.iter().map(|one| sample(&one["value"])).collect::<Result<_, _>>()?),
            "matrix" => {
                let samples = series.iter().flat_map(|one| one["values"].as_array().into_iter().flatten());
                list(samples.map(sample).collect::<Result<_, _>>()?)
            }
            other => return Err(format!("Prometheus metric type not supported: {other}")),
        };
        let warnings = self.warnings.iter().map(|warning| format!("\"{warning}\"")).collect::<Vec<_>>().join(", ");
        let metadata =
            if warnings.is_empty() { BTreeMap::new() } else { BTreeMap::from([("warnings".to_owned(), warnings)]) };
        Ok(Reading { value, shown, metadata })
    }
}

fn list(numbers: Vec<f64>) -> (Value, String) {
    let shown: Vec<String> = numbers.iter().map(|number| plain_float(*number)).collect();
    (Value::floats(numbers), format!("[{}]", shown.join(",")))
}

/// The number in a pair of time and value. Values are text, for JSON has no `NaN` and no `+Inf`.
fn sample(pair: &serde_json::Value) -> Result<f64, String> {
    let text = pair[1].as_str().unwrap_or_default();
    match text {
        "+Inf" | "Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        _ => text.parse().map_err(|_| format!("prometheus: a sample has no number but {}", pair[1])),
    }
}

#[cfg(test)]
mod tests;
