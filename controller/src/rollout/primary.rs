//! Istio with its control plane in another cluster: a Secret holds the kubeconfig of the cluster that has the
//! VirtualServices and DestinationRules.

use crate::api::{Api, ApiError, Elsewhere, error_chain, resources};
use base64::Engine as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use std::time::Duration;

/// Label of the Secret; its value is `true`.
pub const LABEL: &str = "istio.argoproj.io/primary-cluster";
/// API group of what lies in the primary cluster.
pub const ISTIO: &str = "networking.istio.io";

/// Where Istio is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Istio {
    /// In the controller's own cluster.
    Here,
    /// In another one, where the Rollouts of other clusters may have their routes as well.
    Elsewhere,
}

/// Seconds after which a question without an answer is asked again; doubled each time, up to ten.
const RETRY_SECONDS: u64 = 1;

/// Looks for the Secret in `namespace` (empty for all). Without one, or without the right to look, Istio's objects are
/// in the controller's own cluster. Of several the first by namespace and name counts. Asks until there is an answer:
/// routes of the wrong cluster must not be written.
pub async fn find(api: &dyn Api, namespace: &str) -> Option<Elsewhere> {
    let mut delay = RETRY_SECONDS;
    let mut secrets = loop {
        match api.list(&resources::SECRET, namespace, &format!("{LABEL}=true")).await {
            Ok(secrets) => break secrets,
            Err(ApiError::Forbidden(error)) => {
                tracing::debug!(
                    error,
                    "May not look for a Secret labelled {LABEL}: Istio is taken to be in this cluster."
                );
                return None;
            }
            Err(error) => {
                tracing::warn!(%error, "Cannot look for a Secret labelled {LABEL}; asks again in {delay} s.");
                tokio::time::sleep(Duration::from_secs(delay)).await;
                delay = (delay * 2).min(10);
            }
        }
    };
    secrets.sort_by_key(crate::cache::key_of);
    let first = secrets.first()?;
    let secret = crate::cache::key_of(first).map(|key| key.to_string()).unwrap_or_default();
    if secrets.len() > 1 {
        tracing::warn!(secret, "{} Secrets are labelled {LABEL}; the first is used.", secrets.len());
    }
    let made = client(first).await;
    match &made {
        Ok((cluster, _)) => tracing::info!(secret, cluster, "Istio is configured in another cluster."),
        Err(error) => {
            tracing::error!(secret, error, "No kubeconfig of Istio's primary cluster: cannot route by Istio.")
        }
    }
    let refuse =
        |error| format!("Secret {secret}, labelled {LABEL}, holds no kubeconfig of Istio's primary cluster: {error}");
    Some(Elsewhere { group: ISTIO, client: made.map(|(_, client)| client).map_err(refuse) })
}

/// The name of the cluster, which is the key that `istioctl create-remote-secret` puts its kubeconfig under, and a client.
async fn client(secret: &Value) -> Result<(String, kube::Client), String> {
    let data = secret.get("data").and_then(Value::as_object);
    let Some((name, encoded)) = data.and_then(|data| data.iter().next()) else {
        return Err("expected one key in data, found none".to_owned());
    };
    // What could not be read is not repeated: it may hold a token.
    let decoded = encoded.as_str().and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let Some(text) = text else { return Err(format!("data.{name} is not text")) };
    let Ok(kubeconfig) = Kubeconfig::from_yaml(&text) else { return Err(format!("data.{name} is no kubeconfig")) };
    if let Some(what) = reaches_out(&kubeconfig) {
        return Err(format!("data.{name} has {what}; expected certificates and tokens themselves"));
    }
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|error| format!("data.{name}: {}", error_chain(&error)))?;
    config.default_retry = false;
    let client = kube::Client::try_from(config);
    Ok((name.clone(), client.map_err(|error| format!("data.{name}: {}", error_chain(&error)))?))
}

/// What a kubeconfig names that lies outside of it. Who may write a Secret somewhere must not thereby run programs in the
/// controller's container, nor send its files to a server of his own.
fn reaches_out(kubeconfig: &Kubeconfig) -> Option<&'static str> {
    let files = kubeconfig.clusters.iter().filter_map(|c| c.cluster.as_ref()?.certificate_authority.as_ref());
    if files.count() > 0 {
        return Some("certificate-authority, a file");
    }
    kubeconfig.auth_infos.iter().filter_map(|user| user.auth_info.as_ref()).find_map(|user| {
        let named = [
            (user.exec.is_some(), "exec, a program"),
            (user.auth_provider.is_some(), "auth-provider, a program"),
            (user.token_file.is_some(), "tokenFile, a file"),
            (user.client_certificate.is_some(), "client-certificate, a file"),
            (user.client_key.is_some(), "client-key, a file"),
        ];
        named.iter().find(|(given, _)| *given).map(|(_, what)| *what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(data: Value) -> Value {
        json!({"metadata": {"namespace": "istio-system", "name": "remote"}, "data": data})
    }

    fn encode(text: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    fn user(line: &str) -> Value {
        json!({"west": encode(&format!("apiVersion: v1\nkind: Config\nusers:\n- name: a\n  user:\n    {line}\n"))})
    }

    #[tokio::test]
    async fn a_secret_that_is_no_kubeconfig_is_named_without_its_content() {
        for (data, words) in [
            (json!(null), "expected one key in data, found none"),
            (json!({"west": "%%%"}), "data.west is not text"),
            (json!({"west": encode("token: [hush")}), "data.west is no kubeconfig"),
            (json!({"west": encode("apiVersion: v1\nkind: Config\ncurrent-context: nowhere")}), "data.west: "),
            (user("exec: {apiVersion: client.authentication.k8s.io/v1, command: hush}"), "data.west has exec"),
            (user("tokenFile: /var/run/hush"), "data.west has tokenFile"),
            (user("client-key: /var/run/hush"), "data.west has client-key"),
        ] {
            let error = client(&secret(data.clone())).await.err().unwrap_or_default();
            assert!(error.contains(words) && !error.contains("hush"), "{data}: {error:?}");
        }
    }
}
