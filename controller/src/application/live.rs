//! The live objects of applications: only kinds that an application uses are watched, and only objects that an application
//! manages or names are held, as compact JSON.

use crate::api::Resource;
use crate::cache::{Key, key_of, version_of};
use futures::StreamExt;
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_gitops::tracking::{TRACKING_ID, Tracking};
use tidegate_gitops::{health, normalize};
use tokio::sync::watch;

/// An object that is held.
struct Held {
    version: u64,
    bytes: Box<[u8]>,
    /// Instance name of the application that it belongs to.
    owner: Option<Arc<str>>,
    /// Hash of everything but what changes by itself, and of the health.
    fingerprint: u64,
    epoch: u64,
}

#[derive(Default)]
struct State {
    held: HashMap<Key, Held>,
    owned: HashMap<Arc<str>, BTreeSet<Key>>,
    /// Hashes of the keys of objects that exist and are not held.
    others: HashMap<u64, u64>,
    /// Applications that name an object, by the object.
    wanted: HashMap<Key, BTreeSet<Key>>,
    epoch: u64,
    /// What the last attempt to list or watch failed with.
    error: Option<String>,
}

/// The objects of one kind.
pub struct KindStore {
    resource: Resource,
    state: Mutex<State>,
    synced: watch::Sender<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What is known of an object.
pub enum Known {
    /// It is held.
    Object(Box<Value>),
    /// It does not exist.
    Absent,
    /// It may exist, but is not held: it has to be read.
    Unread,
}

/// Called with the applications that a change concerns: by instance name and by key.
pub type OnChange = dyn Fn(Option<&str>, &BTreeSet<Key>) + Send + Sync;

/// The live objects of one cluster.
pub struct LiveState {
    client: Option<kube::Client>,
    namespace: String,
    tracking: Tracking,
    kinds: Mutex<BTreeMap<Resource, Arc<KindStore>>>,
    /// What each application wants, to notice what it no longer wants.
    wants: Mutex<HashMap<Key, BTreeSet<(Resource, Key)>>>,
    on_change: Arc<OnChange>,
}

impl LiveState {
    /// Watches through `client` in `namespace` (empty for all). Without a client, what is put in is all there is.
    pub fn new(
        client: Option<kube::Client>,
        namespace: &str,
        tracking: Tracking,
        on_change: impl Fn(Option<&str>, &BTreeSet<Key>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            namespace: namespace.to_owned(),
            tracking,
            kinds: Mutex::default(),
            wants: Mutex::default(),
            on_change: Arc::new(on_change),
        })
    }

    /// The store of a kind, its watch begun.
    fn kind(self: &Arc<Self>, resource: &Resource) -> Arc<KindStore> {
        let mut kinds = lock(&self.kinds);
        if let Some(kind) = kinds.get(resource) {
            return Arc::clone(kind);
        }
        let kind = Arc::new(KindStore {
            resource: resource.clone(),
            state: Mutex::default(),
            synced: watch::Sender::new(self.client.is_none()),
        });
        kinds.insert(resource.clone(), Arc::clone(&kind));
        if let Some(client) = &self.client {
            tokio::spawn(fill(client.clone(), Arc::clone(self), Arc::clone(&kind)));
        }
        kind
    }

    /// Says which objects `app` names, and begins to watch their kinds and `more`.
    pub fn want(self: &Arc<Self>, app: &Key, objects: BTreeSet<(Resource, Key)>, more: &BTreeSet<Resource>) {
        let before = lock(&self.wants).insert(app.clone(), objects.clone()).unwrap_or_default();
        for (resource, key) in before.difference(&objects) {
            self.unwant(app, resource, key);
        }
        for (resource, key) in objects.difference(&before) {
            let kind = self.kind(resource);
            lock(&kind.state).wanted.entry(key.clone()).or_default().insert(app.clone());
        }
        for resource in more {
            self.kind(resource);
        }
    }

    fn unwant(self: &Arc<Self>, app: &Key, resource: &Resource, key: &Key) {
        let kind = self.kind(resource);
        let mut state = lock(&kind.state);
        if let Some(apps) = state.wanted.get_mut(key) {
            apps.remove(app);
            if apps.is_empty() {
                state.wanted.remove(key);
                let stays = state.held.get(key).is_none_or(|held| held.owner.is_some());
                if !stays {
                    state.held.remove(key);
                    let epoch = state.epoch;
                    state.others.insert(hash_of(key), epoch);
                }
            }
        }
    }

    /// `app` is gone.
    pub fn forget(self: &Arc<Self>, app: &Key) {
        for (resource, key) in lock(&self.wants).remove(app).unwrap_or_default() {
            self.unwant(app, &resource, &key);
        }
    }

    /// Waits until the kinds are listed, and says which could not be within `patience`, and why.
    pub async fn synced(
        self: &Arc<Self>,
        resources: &BTreeSet<Resource>,
        patience: Duration,
    ) -> Vec<(Resource, String)> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut missing = Vec::new();
        for resource in resources {
            let kind = self.kind(resource);
            let mut receiver = kind.synced.subscribe();
            let waited = tokio::time::timeout_at(deadline, receiver.wait_for(|synced| *synced)).await;
            if !matches!(waited, Ok(Ok(_))) {
                let why = lock(&kind.state).error.clone().unwrap_or_else(|| "the first list takes long".to_owned());
                missing.push((resource.clone(), why));
            }
        }
        missing
    }

    /// What is known of an object.
    pub fn get(self: &Arc<Self>, resource: &Resource, key: &Key) -> Known {
        let kind = self.kind(resource);
        let state = lock(&kind.state);
        match state.held.get(key) {
            Some(held) => serde_json::from_slice(&held.bytes).map_or(Known::Unread, |v| Known::Object(Box::new(v))),
            None if state.others.contains_key(&hash_of(key)) => Known::Unread,
            None => Known::Absent,
        }
    }

    /// The objects of a kind that belong to the application `instance`.
    pub fn owned(self: &Arc<Self>, resource: &Resource, instance: &str) -> Vec<Value> {
        let kind = self.kind(resource);
        let state = lock(&kind.state);
        let keys = state.owned.get(instance).into_iter().flatten();
        keys.filter_map(|key| serde_json::from_slice(&state.held.get(key)?.bytes).ok()).collect()
    }

    /// Takes in an object that was read or written.
    pub fn put(self: &Arc<Self>, resource: &Resource, object: Value) {
        let kind = self.kind(resource);
        self.apply(&kind, object, false);
    }

    /// Takes in that an object is gone.
    pub fn gone(self: &Arc<Self>, resource: &Resource, key: &Key) {
        let kind = self.kind(resource);
        self.remove(&kind, key, 0);
    }

    /// Bytes of JSON that are held, and how many objects.
    pub fn size(&self) -> (usize, usize) {
        let kinds = lock(&self.kinds);
        kinds.values().fold((0, 0), |(bytes, count), kind| {
            let state = lock(&kind.state);
            (bytes + state.held.values().map(|h| h.bytes.len()).sum::<usize>(), count + state.held.len())
        })
    }

    fn apply(&self, kind: &KindStore, mut object: Value, tell: bool) {
        let Some(key) = key_of(&object) else { return };
        let version = version_of(&object);
        keep_own_fields(&mut object);
        let owner: Option<Arc<str>> = self.tracking.owner(&object).map(Into::into);
        let concerned = {
            let mut state = lock(&kind.state);
            let epoch = state.epoch;
            if let Some(held) = state.held.get_mut(&key)
                && held.version >= version
                && version != 0
            {
                held.epoch = epoch;
                return;
            }
            let apps = state.wanted.get(&key).cloned().unwrap_or_default();
            let before = state.held.get(&key).map(|held| (held.owner.clone(), held.fingerprint));
            if let Some((Some(former), _)) = &before
                && owner.as_ref() != Some(former)
            {
                disown(&mut state, former, &key);
            }
            if owner.is_none() && apps.is_empty() {
                state.held.remove(&key);
                state.others.insert(hash_of(&key), epoch);
                before.and_then(|(former, _)| former).map(|former| (Some(former), apps))
            } else {
                let fingerprint = fingerprint(&object);
                let Ok(bytes) = serde_json::to_vec(&object) else { return };
                state.others.remove(&hash_of(&key));
                if let Some(owner) = &owner {
                    state.owned.entry(Arc::clone(owner)).or_default().insert(key.clone());
                }
                state.held.insert(
                    key.clone(),
                    Held { version, bytes: bytes.into(), owner: owner.clone(), fingerprint, epoch },
                );
                // What nobody needs to know: another version of the same content in the same health.
                let same = before.as_ref().is_some_and(|(former, print)| *former == owner && *print == fingerprint);
                (!same).then_some((owner, apps))
            }
        };
        if let Some((owner, apps)) = concerned.filter(|_| tell) {
            (self.on_change)(owner.as_deref(), &apps);
        }
    }

    fn remove(&self, kind: &KindStore, key: &Key, version: u64) {
        let (owner, apps) = {
            let mut state = lock(&kind.state);
            state.others.remove(&hash_of(key));
            match state.held.get(key) {
                Some(held) if version == 0 || held.version <= version => {}
                _ => return,
            }
            let Some(held) = state.held.remove(key) else { return };
            if let Some(owner) = &held.owner {
                disown(&mut state, owner, key);
            }
            (held.owner, state.wanted.get(key).cloned().unwrap_or_default())
        };
        (self.on_change)(owner.as_deref(), &apps);
    }
}

fn disown(state: &mut State, owner: &Arc<str>, key: &Key) {
    if let Some(keys) = state.owned.get_mut(owner) {
        keys.remove(key);
        if keys.is_empty() {
            state.owned.remove(owner);
        }
    }
}

/// Of `managedFields` only what we applied ourselves is worth its memory: it says what was applied last.
fn keep_own_fields(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if let Some(Value::Array(entries)) = metadata.get_mut("managedFields") {
        entries.retain(|entry| {
            let text = |key: &str| entry.get(key).and_then(Value::as_str);
            text("manager") == Some(normalize::FIELD_MANAGER) && text("operation") == Some("Apply")
        });
        if entries.is_empty() {
            metadata.remove("managedFields");
        }
    }
}

/// A hash of what an application can care about: everything but versions and `status`, and the health that the status
/// amounts to.
fn fingerprint(object: &Value) -> u64 {
    let mut bare = object.clone();
    normalize::normalize(&mut bare, &normalize::CompareOptions::default());
    let health = health::of(object).map(|h| (h.status, h.message));
    hash_of(&(bare.to_string(), object.pointer("/metadata/deletionTimestamp").is_some(), health))
}

/// Whether an object can belong to an application, as far as its metadata tells.
fn may_be_managed(object: &DynamicObject, tracking: &Tracking) -> bool {
    let has = |map: &Option<BTreeMap<String, String>>, key: &str| map.as_ref().is_some_and(|m| m.contains_key(key));
    has(&object.metadata.annotations, TRACKING_ID) || has(&object.metadata.labels, &tracking.label_key)
}

async fn fill(client: kube::Client, live: Arc<LiveState>, kind: Arc<KindStore>) {
    let resource = &kind.resource;
    let api_resource = ApiResource {
        group: resource.group.to_string(),
        version: resource.version.to_string(),
        api_version: resource.api_version(),
        kind: resource.kind.to_string(),
        plural: resource.plural.to_string(),
    };
    let api: kube::Api<DynamicObject> = if live.namespace.is_empty() || !resource.namespaced {
        kube::Api::all_with(client, &api_resource)
    } else {
        kube::Api::namespaced_with(client, &live.namespace, &api_resource)
    };
    let mut stream = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut seen: HashSet<u64> = HashSet::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => {
                seen.clear();
                lock(&kind.state).epoch += 1;
            }
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => take(&live, &kind, object),
            Ok(watcher::Event::InitDone) => list_done(&live, &kind),
            Ok(watcher::Event::Delete(object)) => {
                let version = object.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
                let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
                let name = object.metadata.name.as_deref().unwrap_or_default();
                live.remove(&kind, &Key::new(namespace, name), version);
            }
            Err(error) => {
                let text = crate::api::error_chain(&error);
                tracing::debug!(kind = %resource.kind, error = text, "Cannot watch; trying again with a growing delay.");
                lock(&kind.state).error = Some(text);
            }
        }
    }
}

fn take(live: &LiveState, kind: &KindStore, object: DynamicObject) {
    let key = Key::new(
        object.metadata.namespace.as_deref().unwrap_or_default(),
        object.metadata.name.as_deref().unwrap_or_default(),
    );
    let managed = may_be_managed(&object, &live.tracking);
    {
        let mut state = lock(&kind.state);
        if !managed && !state.wanted.contains_key(&key) && !state.held.contains_key(&key) {
            let epoch = state.epoch;
            state.others.insert(hash_of(&key), epoch);
            return;
        }
    }
    let Ok(mut value) = serde_json::to_value(&object) else { return };
    // Items of a list come without their kind.
    value["apiVersion"] = kind.resource.api_version().into();
    value["kind"] = kind.resource.kind.as_ref().into();
    live.apply(kind, value, true);
}

fn list_done(live: &LiveState, kind: &KindStore) {
    let gone: Vec<Key> = {
        let mut state = lock(&kind.state);
        let epoch = state.epoch;
        state.error = None;
        state.others.retain(|_, seen| *seen >= epoch);
        state.held.iter().filter(|(_, held)| held.epoch < epoch).map(|(key, _)| key.clone()).collect()
    };
    for key in gone {
        live.remove(kind, &key, 0);
    }
    kind.synced.send_replace(true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::CONFIG_MAP;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn map(name: &str, version: u64, app: &str, data: &str) -> Value {
        let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": data},
            "metadata": {"name": name, "namespace": "ns", "resourceVersion": version.to_string(),
                "managedFields": [{"manager": "kubectl", "operation": "Update"}, {"manager": "argocd-controller", "operation": "Apply"}]}});
        if !app.is_empty() {
            Tracking::default().mark(&mut object, app, "ns");
        }
        object
    }

    fn live() -> (Arc<LiveState>, Arc<AtomicUsize>) {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let live = LiveState::new(None, "", Tracking::default(), move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        (live, told)
    }

    fn event(live: &Arc<LiveState>, object: Value) {
        let kind = live.kind(&CONFIG_MAP);
        take(live, &kind, serde_json::from_value(object).expect("object"));
    }

    fn known(live: &Arc<LiveState>, name: &str) -> &'static str {
        match live.get(&CONFIG_MAP, &Key::new("ns", name)) {
            Known::Object(_) => "object",
            Known::Absent => "absent",
            Known::Unread => "unread",
        }
    }

    #[test]
    fn only_objects_of_applications_are_held() {
        let (live, _) = live();
        event(&live, map("ours", 1, "web", "x"));
        event(&live, map("theirs", 1, "", "x"));
        assert_eq!(
            (known(&live, "ours"), known(&live, "theirs"), known(&live, "none")),
            ("object", "unread", "absent")
        );
        assert_eq!(live.owned(&CONFIG_MAP, "web").len(), 1);
        assert_eq!(live.size().1, 1);
        let Known::Object(object) = live.get(&CONFIG_MAP, &Key::new("ns", "ours")) else { panic!("held") };
        assert_eq!(object.pointer("/metadata/managedFields").and_then(Value::as_array).map(Vec::len), Some(1));
    }

    #[test]
    fn objects_that_an_application_names_are_held() {
        let (live, told) = live();
        let app = Key::new("argocd", "web");
        live.want(&app, BTreeSet::from([(CONFIG_MAP, Key::new("ns", "named"))]), &BTreeSet::new());
        event(&live, map("named", 1, "", "x"));
        assert_eq!((known(&live, "named"), told.load(Ordering::SeqCst)), ("object", 1));
        live.forget(&app);
        assert_eq!(known(&live, "named"), "unread");
    }

    #[test]
    fn changes_that_nobody_cares_about_are_not_told() {
        let (live, told) = live();
        event(&live, map("a", 1, "web", "x"));
        event(&live, map("a", 2, "web", "x"));
        assert_eq!(told.load(Ordering::SeqCst), 1);
        event(&live, map("a", 3, "web", "y"));
        assert_eq!(told.load(Ordering::SeqCst), 2);
        event(&live, map("a", 2, "web", "old"));
        assert_eq!(told.load(Ordering::SeqCst), 2, "an older version replaces nothing");
        event(&live, map("a", 4, "", "y"));
        assert_eq!(
            (known(&live, "a"), told.load(Ordering::SeqCst)),
            ("unread", 3),
            "it was taken from the application"
        );
        assert!(live.owned(&CONFIG_MAP, "web").is_empty());
    }

    #[test]
    fn a_list_removes_what_it_does_not_hold() {
        let (live, told) = live();
        let kind = live.kind(&CONFIG_MAP);
        for name in ["a", "b"] {
            event(&live, map(name, 1, "web", "x"));
        }
        event(&live, map("c", 1, "", "x"));
        lock(&kind.state).epoch += 1;
        event(&live, map("a", 1, "web", "x"));
        list_done(&live, &kind);
        assert_eq!((known(&live, "a"), known(&live, "b"), known(&live, "c")), ("object", "absent", "absent"));
        assert_eq!(told.load(Ordering::SeqCst), 3);
    }
}
