//! Cluster Secrets.

use serde::Deserialize;
use serde_json::Value;

use super::{InvalidSecret, SECRET_TYPE_LABEL, Sensitive, decoded};

/// What a Secret of type `cluster` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSecret {
    pub secret_name: String,
    pub name: String,
    /// URL of the API server.
    pub server: String,
    /// Empty: the whole cluster. Else the namespaces that may be touched.
    pub namespaces: Vec<String>,
    /// Whether cluster-scoped kinds may be touched when `namespaces` is set.
    pub cluster_resources: bool,
    pub project: String,
    pub shard: Option<u32>,
    pub config: ClusterConfig,
}

/// How to reach a cluster's API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterConfig {
    pub username: String,
    pub password: Sensitive,
    pub bearer_token: Sensitive,
    pub tls: TlsClientConfig,
    pub disable_compression: bool,
    pub proxy_url: Sensitive,
    /// `awsAuthConfig`, as written.
    pub aws_auth: Option<Value>,
    /// `execProviderConfig`, as written. Its environment may hold secrets: do not show.
    pub exec_provider: Option<ExecProvider>,
}

/// The program that gives a token.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ExecProvider(pub Value);

impl std::fmt::Debug for ExecProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let command = self.0.get("command").and_then(Value::as_str).unwrap_or_default();
        write!(f, "ExecProvider({command})")
    }
}

/// TLS towards an API server. Certificates and keys are PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsClientConfig {
    pub insecure: bool,
    pub server_name: String,
    pub ca: String,
    pub cert: String,
    pub key: Sensitive,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawConfig {
    username: String,
    password: String,
    bearer_token: String,
    tls_client_config: RawTls,
    disable_compression: bool,
    proxy_url: String,
    aws_auth_config: Option<Value>,
    exec_provider_config: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawTls {
    insecure: bool,
    server_name: String,
    ca_data: String,
    cert_data: String,
    key_data: String,
}

impl ClusterSecret {
    /// Reads a Secret, as JSON from the API server. None when its label says that it is something else.
    ///
    /// # Errors
    /// The Secret is labelled, and `server` is missing or `config` is not the JSON that is expected. Values are not
    /// shown.
    pub fn from_secret(secret: &Value) -> Result<Option<ClusterSecret>, InvalidSecret> {
        let kind = secret.pointer("/metadata/labels").and_then(|l| l.get(SECRET_TYPE_LABEL)).and_then(Value::as_str);
        if kind != Some("cluster") {
            return Ok(None);
        }
        let (secret_name, data) = decoded(secret)?;
        let invalid = |detail: String| InvalidSecret { name: secret_name.clone(), detail };
        let get = |key: &str| data.get(key).map(|text| text.trim().to_string()).unwrap_or_default();
        let server = get("server").trim_end_matches('/').to_string();
        if server.is_empty() {
            return Err(invalid("data.server is missing; expected the URL of an API server".into()));
        }
        let raw: RawConfig = match data.get("config").filter(|text| !text.trim().is_empty()) {
            // The error of the parser could quote a value.
            Some(text) => serde_json::from_str(text).map_err(|e| {
                invalid(format!("data.config is not as expected at line {} column {}", e.line(), e.column()))
            })?,
            None => RawConfig::default(),
        };
        let pem = |field: &str, encoded: &str| -> Result<String, InvalidSecret> {
            use base64::Engine as _;
            if encoded.is_empty() {
                return Ok(String::new());
            }
            base64::engine::general_purpose::STANDARD
                .decode(encoded.trim())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or_else(|| invalid(format!("data.config: tlsClientConfig.{field} is not base64 of PEM")))
        };
        let tls = raw.tls_client_config;
        let config = ClusterConfig {
            tls: TlsClientConfig {
                insecure: tls.insecure,
                server_name: tls.server_name,
                ca: pem("caData", &tls.ca_data)?,
                cert: pem("certData", &tls.cert_data)?,
                key: Sensitive::new(pem("keyData", &tls.key_data)?),
            },
            username: raw.username,
            password: Sensitive::new(raw.password),
            bearer_token: Sensitive::new(raw.bearer_token),
            disable_compression: raw.disable_compression,
            proxy_url: Sensitive::new(raw.proxy_url),
            aws_auth: raw.aws_auth_config,
            exec_provider: raw.exec_provider_config.map(ExecProvider),
        };
        Ok(Some(ClusterSecret {
            name: Some(get("name")).filter(|name| !name.is_empty()).unwrap_or_else(|| server.clone()),
            server,
            namespaces: get("namespaces")
                .split(',')
                .map(str::trim)
                .filter(|namespace| !namespace.is_empty())
                .map(str::to_string)
                .collect(),
            cluster_resources: get("clusterResources") == "true",
            project: get("project"),
            shard: get("shard").parse().ok(),
            config,
            secret_name,
        }))
    }
}
