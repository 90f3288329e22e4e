//! Istio with its control plane in another cluster: a Secret holds the kubeconfig of the cluster that has the
//! VirtualServices and DestinationRules.

use crate::api::{Api, ApiError, ApiResult, KubeApi, PatchCall, Propagation, Resource, error_chain, resources};
use base64::Engine as _;
use futures::future::BoxFuture;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Label of the Secret; its value is `true`.
pub const LABEL: &str = "istio.argoproj.io/primary-cluster";
/// API group of what lies in the primary cluster.
pub const ISTIO: &str = "networking.istio.io";

/// How long the first answer to a question may be waited for before it is asked again, in seconds; doubled up to ten.
const RETRY_SECONDS: u64 = 1;

/// The cluster that Istio is configured in.
pub struct Primary {
    /// Its client, or why there is none.
    client: Result<kube::Client, String>,
}

impl Primary {
    /// A client of the cluster; `None` when the Secret makes none.
    pub fn client(&self) -> Option<&kube::Client> {
        self.client.as_ref().ok()
    }
}

/// Looks for the Secret in `namespace` (empty for all). Without one, or without the right to look, Istio's objects are
/// in the controller's own cluster. Of several the first by namespace and name counts. Asks until there is an answer:
/// routes of the wrong cluster must not be written.
pub async fn find(api: &dyn Api, namespace: &str) -> Option<Primary> {
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
    Some(Primary { client: made.map(|(_, client)| client).map_err(refuse) })
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
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|error| format!("data.{name}: {}", error_chain(&error)))?;
    config.default_retry = false;
    let client = kube::Client::try_from(config);
    Ok((name.clone(), client.map_err(|error| format!("data.{name}: {}", error_chain(&error)))?))
}

/// Two clusters as one: Istio's kinds are those of the primary cluster, all others of the controller's own.
pub struct Split {
    own: Arc<dyn Api>,
    primary: Result<KubeApi, String>,
}

impl Split {
    /// `own` for all kinds but Istio's; `connect` makes the API of a client.
    pub fn new(own: Arc<dyn Api>, primary: &Primary, connect: impl FnOnce(&kube::Client) -> KubeApi) -> Self {
        Self { own, primary: primary.client.as_ref().map(connect).map_err(Clone::clone) }
    }

    /// Calls the cluster that has this kind.
    fn call<'a, T: Send + 'a>(
        &'a self,
        resource: &Resource,
        call: impl FnOnce(&'a dyn Api) -> BoxFuture<'a, ApiResult<T>>,
    ) -> BoxFuture<'a, ApiResult<T>> {
        match &self.primary {
            _ if resource.group != ISTIO => call(self.own.as_ref()),
            Ok(primary) => call(primary),
            Err(error) => Box::pin(std::future::ready(Err(ApiError::Other(error.clone())))),
        }
    }
}

impl Api for Split {
    fn get<'a>(&'a self, resource: &'a Resource, namespace: &'a str, name: &'a str) -> BoxFuture<'a, ApiResult<Value>> {
        self.call(resource, |api| api.get(resource, namespace, name))
    }

    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        selector: &'a str,
    ) -> BoxFuture<'a, ApiResult<Vec<Value>>> {
        self.call(resource, |api| api.list(resource, namespace, selector))
    }

    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        object: &'a Value,
        dry_run: bool,
    ) -> BoxFuture<'a, ApiResult<Value>> {
        self.call(resource, |api| api.create(resource, namespace, object, dry_run))
    }

    fn patch<'a>(&'a self, call: PatchCall<'a>) -> BoxFuture<'a, ApiResult<Value>> {
        self.call(call.resource, |api| api.patch(call))
    }

    fn replace<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, ApiResult<Value>> {
        self.call(resource, |api| api.replace(resource, namespace, name, object))
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
        propagation: Propagation,
    ) -> BoxFuture<'a, ApiResult<()>> {
        self.call(resource, |api| api.delete(resource, namespace, name, uid, propagation))
    }

    fn evict<'a>(&'a self, namespace: &'a str, pod: &'a str) -> BoxFuture<'a, ApiResult<()>> {
        self.own.evict(namespace, pod)
    }
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

    #[tokio::test]
    async fn a_secret_that_is_no_kubeconfig_is_named_without_its_content() {
        for (data, words) in [
            (json!(null), "expected one key in data, found none"),
            (json!({"west": "%%%"}), "data.west is not text"),
            (json!({"west": encode("token: [hush")}), "data.west is no kubeconfig"),
            (json!({"west": encode("apiVersion: v1\nkind: Config\ncurrent-context: nowhere")}), "data.west: "),
        ] {
            let error = client(&secret(data.clone())).await.err().unwrap_or_default();
            assert!(error.contains(words) && !error.contains("hush"), "{data}: {error:?}");
        }
    }
}
