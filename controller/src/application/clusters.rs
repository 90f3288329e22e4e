//! The clusters that Applications go to: the one that the controller runs in, and those that Secrets describe.

use super::kinds::Catalogue;
use super::live::LiveState;
use super::snapshot::Destination;
use crate::api::{Api, KubeApi};
use crate::cache::Key;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_crds::application;
use tidegate_gitops::secret::ClusterSecret;

/// URL by which the controller's own cluster is named.
pub const IN_CLUSTER: &str = "https://kubernetes.default.svc";
/// Name by which the controller's own cluster is named.
pub const IN_CLUSTER_NAME: &str = "in-cluster";

/// A cluster.
pub struct Cluster {
    /// URL of its API server, as destinations name it.
    pub server: String,
    /// Its name.
    pub name: String,
    /// The project that it belongs to; empty for none.
    pub project: String,
    /// Its API.
    pub api: Arc<dyn Api>,
    /// Its live objects.
    pub live: Arc<LiveState>,
    /// What it serves.
    pub catalogue: Catalogue,
}

/// Makes the live state of a cluster from a client and a namespace (empty for all).
pub type MakeLive = dyn Fn(kube::Client, &str) -> Arc<LiveState> + Send + Sync;

/// All clusters.
pub struct Clusters {
    own: Arc<Cluster>,
    others: Mutex<BTreeMap<String, (ClusterSecret, Arc<Cluster>)>>,
    make_live: Box<MakeLive>,
}

impl Clusters {
    /// The controller's own cluster, and a way to watch others.
    pub fn new(
        own: Arc<Cluster>,
        make_live: impl Fn(kube::Client, &str) -> Arc<LiveState> + Send + Sync + 'static,
    ) -> Self {
        Self { own, others: Mutex::default(), make_live: Box::new(make_live) }
    }

    /// The cluster that a destination names, among the cluster `secrets`.
    ///
    /// # Errors
    /// When the destination names none or several, or the cluster cannot be used.
    pub async fn resolve(
        &self,
        destination: &application::Destination,
        secrets: &[Value],
    ) -> Result<(Arc<Cluster>, Destination), String> {
        let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        let (server, name) = (given(&destination.server), given(&destination.name));
        let namespace = given(&destination.namespace).unwrap_or_default();
        let mut known: Vec<ClusterSecret> = Vec::new();
        for secret in secrets {
            match ClusterSecret::from_secret(secret) {
                Ok(Some(cluster)) => known.push(cluster),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "A cluster Secret cannot be used."),
            }
        }
        let found: Vec<&ClusterSecret> = match (&server, &name) {
            (Some(_), Some(_)) => {
                return Err("application destination can't have both name and server defined".to_owned());
            }
            (None, None) => return Err("Destination server missing from app spec".to_owned()),
            (Some(server), None) => {
                let server = server.trim_end_matches('/');
                known.iter().filter(|c| c.server == server).collect()
            }
            (None, Some(name)) => known.iter().filter(|c| c.name == *name).collect(),
        };
        let place = |cluster: &Arc<Cluster>| Destination {
            server: cluster.server.clone(),
            name: cluster.name.clone(),
            namespace: namespace.clone(),
        };
        let shown = server.as_deref().or(name.as_deref()).unwrap_or_default();
        match found.as_slice() {
            [] if shown.trim_end_matches('/') == IN_CLUSTER || shown == IN_CLUSTER_NAME => {
                Ok((Arc::clone(&self.own), place(&self.own)))
            }
            [] => Err(format!(
                "there are no clusters with this {}: {shown}",
                if server.is_some() { "server" } else { "name" }
            )),
            [one] if one.server == IN_CLUSTER => {
                let mut place = place(&self.own);
                place.name.clone_from(&one.name);
                Ok((Arc::clone(&self.own), place))
            }
            [one] => {
                let cluster = self.connect(one).await?;
                let place = place(&cluster);
                Ok((cluster, place))
            }
            several => Err(format!("there are {} clusters with the same name: {shown}", several.len())),
        }
    }

    fn all(&self) -> Vec<Arc<Cluster>> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(&self.own).chain(others.values().map(|(_, cluster)| cluster)).map(Arc::clone).collect()
    }

    /// An Application is gone.
    pub fn forget(&self, app: &Key) {
        for cluster in self.all() {
            cluster.live.forget(app);
        }
    }

    /// A definition changed in the controller's own cluster.
    pub fn outdate(&self) {
        self.own.catalogue.outdate();
    }

    async fn connect(&self, secret: &ClusterSecret) -> Result<Arc<Cluster>, String> {
        let lock = || self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, cluster)) = lock().get(&secret.server)
            && known == secret
        {
            return Ok(Arc::clone(cluster));
        }
        let fail = |why: String| format!("cluster {} (Secret {}): {why}", secret.server, secret.secret_name);
        if secret.config.aws_auth.is_some() {
            return Err(fail("awsAuthConfig is not supported; use execProviderConfig".into()));
        }
        let namespace = match secret.namespaces.as_slice() {
            [] => "",
            [one] => one,
            _ => {
                return Err(fail(
                    "several namespaces are not supported; list one, or none for the whole cluster".into(),
                ));
            }
        };
        let kubeconfig = serde_json::from_value(kubeconfig(secret))
            .map_err(|_| fail("its configuration does not make a connection".into()))?;
        let options = kube::config::KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|e| fail(crate::api::error_chain(&e)))?;
        config.default_retry = false;
        let client = kube::Client::try_from(config).map_err(|e| fail(crate::api::error_chain(&e)))?;
        let cluster = Arc::new(Cluster {
            server: secret.server.clone(),
            name: secret.name.clone(),
            project: secret.project.clone(),
            api: Arc::new(KubeApi::new(client.clone(), |_, _, _| {})),
            live: (self.make_live)(client.clone(), namespace),
            catalogue: Catalogue::new(client),
        });
        lock().insert(secret.server.clone(), (secret.clone(), Arc::clone(&cluster)));
        Ok(cluster)
    }
}

/// The Secret as a kubeconfig.
fn kubeconfig(secret: &ClusterSecret) -> Value {
    use base64::Engine as _;
    let encoded = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let config = &secret.config;
    let mut cluster = json!({"server": secret.server, "insecure-skip-tls-verify": config.tls.insecure});
    let mut user = json!({});
    let set = |map: &mut Value, key: &str, value: &str| {
        if !value.is_empty() {
            map[key] = value.into();
        }
    };
    if !config.tls.insecure && !config.tls.ca.is_empty() {
        set(&mut cluster, "certificate-authority-data", &encoded(&config.tls.ca));
    }
    set(&mut cluster, "tls-server-name", &config.tls.server_name);
    set(&mut cluster, "proxy-url", config.proxy_url.reveal());
    set(&mut user, "token", config.bearer_token.reveal());
    set(&mut user, "username", &config.username);
    set(&mut user, "password", config.password.reveal());
    if !config.tls.cert.is_empty() {
        set(&mut user, "client-certificate-data", &encoded(&config.tls.cert));
        set(&mut user, "client-key-data", &encoded(config.tls.key.reveal()));
    }
    if let Some(exec) = &config.exec_provider {
        let mut provider = exec.0.clone();
        // The Secret holds the environment as a map, a kubeconfig as a list.
        if let Some(Value::Object(env)) = provider.get("env").cloned() {
            provider["env"] = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        }
        user["exec"] = provider;
    }
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "c", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    })
}
