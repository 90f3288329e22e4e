//! Repository, credential-template and cluster Secrets in Argo CD's format, and the trust that its ConfigMaps hold.

mod cluster;

pub use cluster::{ClusterConfig, ClusterSecret, TlsClientConfig};

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::repo::url;

/// The label that says what a Secret is for.
pub const SECRET_TYPE_LABEL: &str = "argocd.argoproj.io/secret-type";

/// A text that never shows itself.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Sensitive(String);

impl Sensitive {
    pub fn new(text: impl Into<String>) -> Sensitive {
        Sensitive(text.into())
    }

    /// The text itself, for handing on to the other side only.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "***" })
    }
}

/// What a Secret of type `repository` or `repo-creds` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepositorySecret {
    /// The Secret's own name, for messages.
    pub secret_name: String,
    /// `git`, `helm` or `oci`.
    pub kind: String,
    pub name: String,
    /// A repository, or the prefix of one for a template.
    pub url: String,
    /// The AppProject that alone may use it. Empty: all.
    pub project: String,
    pub username: String,
    pub password: Sensitive,
    pub bearer_token: Sensitive,
    pub ssh_private_key: Sensitive,
    /// Neither the server's certificate nor its host key is checked.
    pub insecure: bool,
    pub enable_lfs: bool,
    pub enable_oci: bool,
    pub insecure_oci_force_http: bool,
    pub tls_client_cert: String,
    pub tls_client_key: Sensitive,
    pub github_app_id: String,
    pub github_app_installation_id: String,
    pub github_app_private_key: Sensitive,
    pub github_app_enterprise_base_url: String,
    pub gcp_service_account_key: Sensitive,
    pub azure_client_id: String,
    pub azure_client_secret: Sensitive,
    pub azure_tenant_id: String,
    pub azure_active_directory_endpoint: String,
    pub use_azure_workload_identity: bool,
    pub force_http_basic_auth: bool,
    pub proxy: Sensitive,
    pub no_proxy: String,
    /// How many commits of history to fetch. 0: what Tidegate finds best.
    pub depth: u32,
}

impl RepositorySecret {
    /// True when it says who we are. Trust and proxies are no credentials.
    pub fn has_credentials(&self) -> bool {
        !self.username.is_empty()
            || !self.tls_client_cert.is_empty()
            || !self.github_app_id.is_empty()
            || !self.azure_client_id.is_empty()
            || self.use_azure_workload_identity
            || [
                &self.password,
                &self.bearer_token,
                &self.ssh_private_key,
                &self.github_app_private_key,
                &self.gcp_service_account_key,
            ]
            .iter()
            .any(|secret| !secret.is_empty())
    }

    /// The name of a way to authenticate that this repository asks for and that Tidegate does not know.
    pub fn unsupported(&self) -> Option<&'static str> {
        if !self.github_app_private_key.is_empty() || !self.github_app_id.is_empty() {
            Some("githubAppPrivateKey")
        } else if !self.gcp_service_account_key.is_empty() {
            Some("gcpServiceAccountKey")
        } else if self.use_azure_workload_identity {
            Some("useAzureWorkloadIdentity")
        } else if !self.azure_client_secret.is_empty() {
            Some("azureServicePrincipalClientSecret")
        } else {
            None
        }
    }

    /// Every text that must not show up in an output.
    pub fn secrets(&self) -> Vec<&str> {
        [
            &self.password,
            &self.bearer_token,
            &self.ssh_private_key,
            &self.tls_client_key,
            &self.github_app_private_key,
            &self.gcp_service_account_key,
            &self.azure_client_secret,
            &self.proxy,
        ]
        .into_iter()
        .map(Sensitive::reveal)
        .filter(|text| !text.is_empty())
        .collect()
    }

    fn from_data(secret_name: &str, data: &BTreeMap<String, String>) -> RepositorySecret {
        let get = |key: &str| data.get(key).cloned().unwrap_or_default();
        let secret = |key: &str| Sensitive::new(get(key));
        let flag = |key: &str| truthy(data.get(key).map(String::as_str).unwrap_or_default());
        // Templates spell the Azure keys with a capital D.
        let azure = |lower: &str, upper: &str| data.get(lower).or_else(|| data.get(upper)).cloned().unwrap_or_default();
        RepositorySecret {
            secret_name: secret_name.to_string(),
            kind: data.get("type").filter(|t| !t.is_empty()).cloned().unwrap_or_else(|| "git".into()),
            name: get("name"),
            url: get("url").trim().to_string(),
            project: get("project"),
            username: get("username"),
            password: secret("password"),
            bearer_token: secret("bearerToken"),
            ssh_private_key: secret("sshPrivateKey"),
            insecure: flag("insecure") || flag("insecureIgnoreHostKey"),
            enable_lfs: flag("enableLfs"),
            enable_oci: flag("enableOCI"),
            insecure_oci_force_http: flag("insecureOCIForceHttp"),
            tls_client_cert: get("tlsClientCertData"),
            tls_client_key: secret("tlsClientCertKey"),
            github_app_id: get("githubAppID"),
            github_app_installation_id: get("githubAppInstallationID"),
            github_app_private_key: secret("githubAppPrivateKey"),
            github_app_enterprise_base_url: get("githubAppEnterpriseBaseUrl"),
            gcp_service_account_key: secret("gcpServiceAccountKey"),
            azure_client_id: azure("azureServicePrincipalClientId", "azureServicePrincipalClientID"),
            azure_client_secret: secret("azureServicePrincipalClientSecret"),
            azure_tenant_id: azure("azureServicePrincipalTenantId", "azureServicePrincipalTenantID"),
            azure_active_directory_endpoint: get("azureActiveDirectoryEndpoint"),
            use_azure_workload_identity: flag("useAzureWorkloadIdentity"),
            force_http_basic_auth: flag("forceHttpBasicAuth"),
            proxy: secret("proxy"),
            no_proxy: get("noProxy"),
            depth: get("depth").trim().parse().unwrap_or_default(),
        }
    }

    /// Takes who we are from a template; what the entry says about trust, proxies and depth stays.
    fn with_template(&self, template: &RepositorySecret) -> RepositorySecret {
        let pick = |own: &Sensitive, other: &Sensitive| if own.is_empty() { other.clone() } else { own.clone() };
        RepositorySecret {
            secret_name: template.secret_name.clone(),
            kind: self.kind.clone(),
            name: self.name.clone(),
            url: self.url.clone(),
            project: self.project.clone(),
            insecure: self.insecure || template.insecure,
            enable_lfs: self.enable_lfs,
            depth: self.depth,
            proxy: pick(&self.proxy, &template.proxy),
            no_proxy: if self.no_proxy.is_empty() { template.no_proxy.clone() } else { self.no_proxy.clone() },
            ..template.clone()
        }
    }
}

fn truthy(text: &str) -> bool {
    matches!(text.trim(), "true" | "1" | "t" | "T" | "TRUE" | "True")
}

/// A Secret that is not what its label says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Secret {name}: {detail}")]
pub struct InvalidSecret {
    pub name: String,
    pub detail: String,
}

/// All that is known about repositories: entries, templates, trusted certificates and host keys. A plain value that is
/// replaced as a whole when a Secret or ConfigMap changes.
#[derive(Clone, Debug, Default)]
pub struct Repositories {
    entries: Vec<Arc<RepositorySecret>>,
    templates: Vec<Arc<RepositorySecret>>,
    /// Host to PEM.
    certificates: BTreeMap<String, String>,
    known_hosts: String,
}

impl Repositories {
    pub fn new() -> Repositories {
        Repositories::default()
    }

    /// Adds a Secret, as JSON from the API server, if its label says that it is about repositories. True when it was.
    ///
    /// # Errors
    /// The Secret is labelled, and holds no `url` or a value that is not base64.
    pub fn add_secret(&mut self, secret: &Value) -> Result<bool, InvalidSecret> {
        let kind = secret.pointer("/metadata/labels").and_then(|l| l.get(SECRET_TYPE_LABEL)).and_then(Value::as_str);
        let list = match kind {
            Some("repository") => &mut self.entries,
            Some("repo-creds") => &mut self.templates,
            _ => return Ok(false),
        };
        let (name, data) = decoded(secret)?;
        let parsed = RepositorySecret::from_data(&name, &data);
        if parsed.url.is_empty() {
            return Err(InvalidSecret { name, detail: "data.url is missing; expected the URL of a repository".into() });
        }
        list.push(Arc::new(parsed));
        Ok(true)
    }

    /// Takes `argocd-tls-certs-cm` (host to PEM).
    pub fn set_certificates(&mut self, config_map: &Value) {
        self.certificates =
            strings(config_map.get("data")).into_iter().map(|(host, pem)| (host.to_ascii_lowercase(), pem)).collect();
    }

    /// Takes `argocd-ssh-known-hosts-cm`.
    pub fn set_known_hosts(&mut self, config_map: &Value) {
        self.known_hosts =
            config_map.pointer("/data/ssh_known_hosts").and_then(Value::as_str).unwrap_or_default().to_string();
    }

    /// The lines of an ssh `known_hosts` file.
    pub fn known_hosts(&self) -> &str {
        &self.known_hosts
    }

    /// The certificates to trust for a host, tried with its port and without.
    pub fn certificates(&self, host: &str) -> Option<&str> {
        let bare = host.split(':').next().unwrap_or(host);
        self.certificates.get(host).or_else(|| self.certificates.get(bare)).map(String::as_str)
    }

    /// What to use for `repo_url` in `project`: the entry of the project, else the unscoped one; its credentials from
    /// the template with the longest matching prefix if it has none itself. Without any, an empty entry.
    pub fn find(&self, repo_url: &str, project: &str) -> Arc<RepositorySecret> {
        let wanted = url::normalize(repo_url);
        let same = |entry: &&Arc<RepositorySecret>| url::normalize(&entry.url) == wanted;
        let entry = self
            .entries
            .iter()
            .filter(same)
            .find(|entry| !entry.project.is_empty() && entry.project == project)
            .or_else(|| self.entries.iter().filter(same).find(|entry| entry.project.is_empty()));
        if let Some(entry) = entry
            && entry.has_credentials()
        {
            return entry.clone();
        }
        let template = self
            .templates
            .iter()
            .filter(|template| template_matches(&template.url, &wanted))
            .max_by_key(|template| url::normalize(&template.url).len());
        match (entry, template) {
            (Some(entry), Some(template)) => Arc::new(entry.with_template(template)),
            (Some(entry), None) => entry.clone(),
            (None, Some(template)) => {
                Arc::new(RepositorySecret { url: repo_url.to_string(), ..RepositorySecret::clone(template) })
            }
            (None, None) => Arc::new(RepositorySecret {
                kind: "git".into(),
                url: repo_url.to_string(),
                ..RepositorySecret::default()
            }),
        }
    }

    /// The credential templates.
    pub fn templates(&self) -> &[Arc<RepositorySecret>] {
        &self.templates
    }

    /// The entries, for listings. Credentials stay hidden in them.
    pub fn entries(&self) -> &[Arc<RepositorySecret>] {
        &self.entries
    }
}

/// A prefix matches as text, but never ends inside a host name: `https://git.example` must not send its password to
/// `https://git.example.evil.org`.
fn template_matches(template: &str, wanted: &str) -> bool {
    let prefix = url::normalize(template);
    let Some(rest) = wanted.strip_prefix(&prefix) else { return false };
    let host_is_complete = prefix.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    host_is_complete || rest.is_empty() || rest.starts_with('/') || template.trim().ends_with('/')
}

/// Name and decoded data of a Secret. `stringData` is read as well, so that files work.
pub(crate) fn decoded(secret: &Value) -> Result<(String, BTreeMap<String, String>), InvalidSecret> {
    let name = secret.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_string();
    let mut data = BTreeMap::new();
    for (key, encoded) in strings(secret.get("data")) {
        let bytes = STANDARD
            .decode(encoded.trim())
            .map_err(|_| InvalidSecret { name: name.clone(), detail: format!("data.{key} is not base64") })?;
        let text = String::from_utf8(bytes)
            .map_err(|_| InvalidSecret { name: name.clone(), detail: format!("data.{key} is not UTF-8") })?;
        data.insert(key, text);
    }
    data.extend(strings(secret.get("stringData")));
    Ok((name, data))
}

fn strings(value: Option<&Value>) -> BTreeMap<String, String> {
    let Some(Value::Object(map)) = value else { return BTreeMap::new() };
    map.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_string()))).collect()
}

#[cfg(test)]
mod tests;
