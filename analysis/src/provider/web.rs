//! Any API that answers in JSON.

use super::http::{self, Clients};
use super::jsonpath::JsonPath;
use super::{Provider, Reading};
use crate::expr::Value;
use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_crds::analysis::{Metric, WebMetric};

/// Seconds that a request may take when the metric does not say.
const TIMEOUT: u64 = 10;

pub(super) struct Web<'a> {
    pub(super) clients: &'a Clients,
    pub(super) request: &'a WebMetric,
}

impl Provider for Web<'_> {
    async fn read(&self, _: &Metric, _: Timestamp) -> Result<Reading, String> {
        let path = self.request.json_path.as_deref().filter(|path| !path.is_empty()).unwrap_or("{$}");
        let path = JsonPath::parse(path).map_err(|error| format!("jsonPath {path:?}: {error}"))?;
        let seconds = self.request.timeout_seconds.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
        let seconds = seconds.unwrap_or(TIMEOUT);
        let answer = match tokio::time::timeout(Duration::from_secs(seconds), self.ask()).await {
            Ok(answer) => answer?,
            Err(_) => return Err(format!("no answer within {seconds} s")),
        };
        // What is no JSON is a text.
        let json = serde_json::from_str(&answer).unwrap_or(serde_json::Value::String(answer));
        let found = path.find(&json).map_err(|error| format!("Could not find JSONPath in body: {error}"))?;
        let Some(first) = found.into_iter().flatten().next() else {
            return Err("result of web metric produced no value".to_owned());
        };
        let value = Value::from_json(&first).map_err(|_| "the value in the answer is too large")?;
        Ok(Reading { value, shown: shown(&first), metadata: BTreeMap::new() })
    }
}

/// A value as JSON, its floats as Go's JSON has them (`1`, not `1.0`).
fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Number(number) if number.is_f64() => {
            number.as_f64().and_then(|n| crate::expr::format::json_float(n).ok()).unwrap_or_else(|| number.to_string())
        }
        other => other.to_string(),
    }
}

impl Web<'_> {
    async fn ask(&self) -> Result<String, String> {
        let request = self.request;
        let method = match request.method.as_deref().unwrap_or_default() {
            "" | "GET" => Method::GET,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            other => return Err(format!("method is {other:?}, expected GET, POST or PUT")),
        };
        let body = request.body.as_deref().filter(|body| !body.is_empty());
        let json = (!request.json_body.is_null()).then(|| request.json_body.to_string());
        if body.is_some() && json.is_some() {
            return Err("body and jsonBody are both set, expected one of them".to_owned());
        }
        if method == Method::GET && (body.is_some() || json.is_some()) {
            return Err("Body/JSONBody can only be used with POST or PUT; found method GET".to_owned());
        }
        let url = reqwest::Url::parse(&request.url).map_err(|error| format!("url is not valid: {error}"))?;
        let mut headers = http::headers(&request.headers)?;
        if json.is_some() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let oauth2 = request.authentication.as_ref().and_then(|a| a.oauth2.as_ref());
        if let Some(oauth2) = oauth2.filter(|o| o.token_url.is_some()) {
            headers.insert(AUTHORIZATION, self.clients.token(oauth2, request.insecure).await?);
        }
        let mut sent = self.clients.client(request.insecure).request(method, url).headers(headers);
        if let Some(body) = body.map(str::to_owned).or(json) {
            sent = sent.body(body);
        }
        let response = http::send(sent).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("received non 2xx response code: {}", status.as_u16()));
        }
        http::body(response).await
    }
}

#[cfg(test)]
mod tests;
