//! Which kinds a cluster serves.

use crate::api::Resource;
use kube::discovery::{Discovery, Scope, verbs};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How long the answer is good for when nothing is missing from it.
const FRESH: Duration = Duration::from_secs(600);
/// How soon to ask again when something is missing from it.
const AGAIN: Duration = Duration::from_secs(5);

/// The kinds of one cluster.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    by_kind: BTreeMap<(String, String), Vec<Resource>>,
    /// Version of the API server, as `v1.36.2`.
    pub kube_version: String,
    /// `group/version` and `group/version/Kind` of everything.
    pub api_versions: Arc<[String]>,
}

impl Kinds {
    /// Makes a table of resources.
    pub fn new(resources: impl IntoIterator<Item = Resource>, kube_version: &str) -> Self {
        let mut by_kind: BTreeMap<(String, String), Vec<Resource>> = BTreeMap::new();
        let mut names = std::collections::BTreeSet::new();
        for resource in resources {
            names.insert(resource.api_version());
            names.insert(format!("{}/{}", resource.api_version(), resource.kind));
            by_kind.entry((resource.group.to_string(), resource.kind.to_string())).or_default().push(resource);
        }
        Self { by_kind, kube_version: kube_version.to_owned(), api_versions: names.into_iter().collect() }
    }

    /// The resource of a kind in a version; without one in the version that is listed first.
    pub fn find(&self, group: &str, version: &str, kind: &str) -> Option<&Resource> {
        let all = self.by_kind.get(&(group.to_owned(), kind.to_owned()))?;
        if version.is_empty() { all.first() } else { all.iter().find(|r| r.version == version) }
    }

    /// Whether objects of a kind live in namespaces; unknown kinds are taken to.
    pub fn is_namespaced(&self, group: &str, kind: &str) -> bool {
        self.find(group, "", kind).is_none_or(|resource| resource.namespaced)
    }
}

/// Asks a cluster what it serves, and remembers the answer.
pub struct Catalogue {
    client: Option<kube::Client>,
    state: RwLock<(Arc<Kinds>, Option<Instant>)>,
}

impl Catalogue {
    /// Asks through `client`.
    pub fn new(client: kube::Client) -> Self {
        Self { client: Some(client), state: RwLock::default() }
    }

    /// Knows `kinds` and never asks.
    pub fn fixed(kinds: Kinds) -> Self {
        Self { client: None, state: RwLock::new((Arc::new(kinds), Some(Instant::now()))) }
    }

    /// What the cluster serves. `missing` says that what is known lacks something.
    ///
    /// # Errors
    /// When the cluster cannot be asked and nothing is known yet.
    pub async fn kinds(&self, missing: impl Fn(&Kinds) -> bool) -> Result<Arc<Kinds>, String> {
        let (known, asked) = self.state.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(client) = &self.client else { return Ok(known) };
        let age = asked.map(|at| at.elapsed());
        let fresh = match age {
            None => false,
            Some(age) if missing(&known) => age < AGAIN,
            Some(age) => age < FRESH,
        };
        if fresh {
            return Ok(known);
        }
        match ask(client).await {
            Ok(kinds) => {
                let kinds = Arc::new(kinds);
                *self.state.write().unwrap_or_else(PoisonError::into_inner) =
                    (Arc::clone(&kinds), Some(Instant::now()));
                Ok(kinds)
            }
            Err(_) if age.is_some() => Ok(known),
            Err(error) => Err(format!("cannot ask the cluster what it serves: {}", crate::api::error_chain(&error))),
        }
    }

    /// A definition changed: ask again when something is missing.
    pub fn outdate(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(past) = Instant::now().checked_sub(FRESH).filter(|_| self.client.is_some()) {
            state.1 = Some(past);
        }
    }
}

async fn ask(client: &kube::Client) -> Result<Kinds, kube::Error> {
    let version = client.apiserver_version().await?.git_version;
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let mut resources = Vec::new();
    for group in discovery.groups() {
        // The preferred version first.
        let preferred = group.preferred_version_or_latest().to_owned();
        let mut versions: Vec<&str> = group.versions().collect();
        versions.sort_by_key(|v| *v != preferred);
        for version in versions {
            for (resource, capabilities) in group.versioned_resources(version) {
                if capabilities.supports_operation(verbs::LIST) && capabilities.supports_operation(verbs::WATCH) {
                    let namespaced = capabilities.scope == Scope::Namespaced;
                    resources.push(Resource::named(
                        &resource.api_version,
                        &resource.kind,
                        &resource.plural,
                        namespaced,
                    ));
                }
            }
        }
    }
    Ok(Kinds::new(resources, &version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources;

    #[test]
    fn kinds_are_found_by_version() {
        let kinds = Kinds::new([resources::DEPLOYMENT, resources::NAMESPACE], "v1.36.0");
        assert_eq!(kinds.find("apps", "v1", "Deployment"), Some(&resources::DEPLOYMENT));
        assert_eq!(kinds.find("apps", "", "Deployment"), Some(&resources::DEPLOYMENT));
        assert_eq!(kinds.find("apps", "v1beta1", "Deployment"), None);
        assert!(!kinds.is_namespaced("", "Namespace"));
        assert!(kinds.is_namespaced("x", "Unknown"));
        assert!(kinds.api_versions.contains(&"apps/v1/Deployment".to_owned()));
    }
}
