//! What the providers that speak HTTP share: connections, headers, tokens, and errors that tell no secrets.

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder};
use std::time::Duration;
use tidegate_crds::analysis::{Oauth2, WebHeader};

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// How many bytes of an answer are read.
const MAX_ANSWER: usize = 4 << 20;

/// Connections to what is measured. Clones share them.
#[derive(Clone, Debug)]
pub struct Clients {
    verifying: Client,
    trusting: Client,
    /// Where Prometheus is when a metric does not say.
    pub(super) prometheus_address: Option<String>,
}

impl Clients {
    /// Sets up connections. `prometheus_address` is for metrics that have no address; the peers take it from
    /// `ARGO_ROLLOUTS_PROMETHEUS_ADDRESS`.
    ///
    /// # Errors
    /// When TLS can not be set up.
    pub fn new(prometheus_address: Option<String>) -> Result<Self, reqwest::Error> {
        let builder = || Client::builder().connect_timeout(CONNECT).user_agent("tidegate");
        Ok(Self {
            verifying: builder().build()?,
            trusting: builder().tls_danger_accept_invalid_certs(true).build()?,
            prometheus_address: prometheus_address.filter(|address| !address.is_empty()),
        })
    }

    /// The client that verifies servers' certificates, or the one that does not.
    pub(super) fn client(&self, insecure: bool) -> &Client {
        if insecure { &self.trusting } else { &self.verifying }
    }

    /// Gets an OAuth 2 token by client credentials, as an `Authorization` header.
    pub(super) async fn token(&self, oauth2: &Oauth2, insecure: bool) -> Result<HeaderValue, String> {
        let needed = |field: &Option<String>, name: &str| match field.as_deref() {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(format!("authentication.oauth2.{name} must be set")),
        };
        let url = needed(&oauth2.token_url, "tokenUrl")?;
        let id = needed(&oauth2.client_id, "clientId")?;
        let secret = needed(&oauth2.client_secret, "clientSecret")?;
        let scope = oauth2.scopes.join(" ");
        let mut form = vec![("grant_type", "client_credentials")];
        if !scope.is_empty() {
            form.push(("scope", &scope));
        }
        let request = self.client(insecure).post(&url).form(&form).basic_auth(&id, Some(&secret));
        let mut response = send(request).await.map_err(|error| format!("oauth2 token: {error}"))?;
        if response.status().is_client_error() {
            // Some servers take the credentials in the form only.
            form.extend([("client_id", id.as_str()), ("client_secret", secret.as_str())]);
            let request = self.client(insecure).post(&url).form(&form);
            response = send(request).await.map_err(|error| format!("oauth2 token: {error}"))?;
        }
        let status = response.status();
        if !status.is_success() {
            return Err(format!("oauth2 token: received response code {} from the token endpoint", status.as_u16()));
        }
        let body = body(response).await.map_err(|error| format!("oauth2 token: {error}"))?;
        let json: serde_json::Value =
            serde_json::from_str(&body).map_err(|_| "oauth2 token: the token endpoint did not answer in JSON")?;
        let token = json["access_token"].as_str().ok_or("oauth2 token: the answer has no access_token")?;
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| "oauth2 token: the access_token does not fit into a header")?;
        header.set_sensitive(true);
        Ok(header)
    }
}

/// The headers of a metric. An error names the header, never its value.
pub(super) fn headers(list: &[WebHeader]) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for header in list {
        let name = HeaderName::from_bytes(header.key.as_bytes())
            .map_err(|_| format!("header {:?} has no valid name", header.key))?;
        let mut value = HeaderValue::from_str(&header.value)
            .map_err(|_| format!("the value of header {:?} has characters that headers do not have", header.key))?;
        value.set_sensitive(true);
        map.insert(name, value);
    }
    Ok(map)
}

/// Name and password as an `Authorization` header.
pub(super) fn basic(name: &str, password: &str) -> Result<HeaderValue, String> {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
    let mut value =
        HeaderValue::from_str(&format!("Basic {text}")).map_err(|_| format!("no {AUTHORIZATION} header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Sends a request.
pub(super) async fn send(request: RequestBuilder) -> Result<reqwest::Response, String> {
    request.send().await.map_err(told)
}

/// The answer as text, as long as it is not too long.
pub(super) async fn body(mut response: reqwest::Response) -> Result<String, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(told)? {
        if bytes.len() + chunk.len() > MAX_ANSWER {
            return Err(format!("the answer is longer than {} MiB", MAX_ANSWER >> 20));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// An error with its causes and without the URL, whose query can hold secrets.
pub(super) fn told(error: reqwest::Error) -> String {
    let host = error.url().and_then(|url| url.host_str().map(str::to_owned));
    let error = error.without_url();
    let mut text = chain(&error);
    if let Some(host) = host {
        text.push_str(&format!(" (host {host})"));
    }
    text
}

/// An error's message and those of its causes.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
