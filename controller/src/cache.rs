//! What the controllers know of the cluster: one store a kind, filled by a watch.
//!
//! An object is kept as compact JSON without `managedFields`, a tenth of what a parsed one takes, and parsed when a
//! decision needs it. Stores are *written through*: the answer to an own write enters the store at once, so that the
//! next decision sees it. An older version never replaces a newer one, whichever way it comes.

use crate::api::Resource;
use crate::lean::Watched;
use futures::StreamExt;
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::sync::watch;

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Key {
    /// Makes a key.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Which object.
    pub key: &'a Key,
    /// What it is now; `None` when it is gone.
    pub object: Option<&'a Value>,
    /// Its uid.
    pub uid: &'a str,
    /// Index keys that it had before and has now, without duplicates.
    pub index: &'a BTreeSet<String>,
    /// It was not there before.
    pub added: bool,
    /// It is part of the first list after the start.
    pub initial: bool,
}

struct Entry {
    version: u64,
    generation: u64,
    uid: Box<str>,
    bytes: Box<[u8]>,
    index: Box<[Box<str>]>,
    epoch: u64,
}

#[derive(Default)]
struct State {
    entries: HashMap<Key, Entry>,
    /// Index key to the objects that have it.
    index: BTreeMap<Box<str>, BTreeSet<Key>>,
    epoch: u64,
    synced: bool,
    /// Uid and version of what went last, the newest at the end.
    gone: VecDeque<(Box<str>, u64)>,
}

/// How many deletions a store remembers: as many as can happen while an answer of the API server is under way.
const REMEMBERED_DELETIONS: usize = 512;

type IndexFn = Box<dyn Fn(&Value) -> Vec<String> + Send + Sync>;
type Handler = Box<dyn Fn(Change<'_>) + Send + Sync>;

/// The objects of one kind.
pub struct Store {
    /// Which kind.
    pub resource: Resource,
    index_fn: IndexFn,
    /// What an object is found by does not change as long as its generation does not.
    by_spec: bool,
    handlers: RwLock<Vec<Handler>>,
    state: RwLock<State>,
    listing: watch::Sender<Listing>,
}

/// How far the first list of a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listing {
    /// Under way.
    Open,
    /// The API server refuses it: there is no such kind, or no right to see it.
    Refused,
    /// Complete.
    Done,
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Store {
    /// An empty store. `index` gives the keys under which an object is found by [`Store::by_index`].
    pub fn new(resource: Resource, index: impl Fn(&Value) -> Vec<String> + Send + Sync + 'static) -> Arc<Self> {
        Self::make(resource, false, index)
    }

    /// As [`Store::new`], where `index` depends on the spec and the uid alone: it is asked again only for another
    /// generation.
    pub fn indexed_by_spec(
        resource: Resource,
        index: impl Fn(&Value) -> Vec<String> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::make(resource, true, index)
    }

    fn make(
        resource: Resource,
        by_spec: bool,
        index: impl Fn(&Value) -> Vec<String> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            resource,
            index_fn: Box::new(index),
            by_spec,
            handlers: RwLock::default(),
            state: RwLock::default(),
            listing: watch::Sender::new(Listing::Open),
        })
    }

    /// Calls `handler` after every change from now on, and once for every object that is there already.
    pub fn on_change(&self, handler: impl Fn(Change<'_>) + Send + Sync + 'static) {
        let present: Vec<(Key, Value, String, BTreeSet<String>)> = {
            let state = read(&self.state);
            let parsed = state.entries.iter().filter_map(|(key, entry)| {
                let value = serde_json::from_slice(&entry.bytes).ok()?;
                let index = entry.index.iter().map(|i| i.to_string()).collect();
                Some((key.clone(), value, entry.uid.to_string(), index))
            });
            parsed.collect()
        };
        for (key, value, uid, index) in &present {
            handler(Change { key, object: Some(value), uid, index, added: true, initial: true });
        }
        write(&self.handlers).push(Box::new(handler));
    }

    /// The object as JSON.
    pub fn value(&self, key: &Key) -> Option<Value> {
        let state = read(&self.state);
        serde_json::from_slice(&state.entries.get(key)?.bytes).ok()
    }

    /// The object as `T`. `None` also when it cannot be read as one.
    pub fn get<T: DeserializeOwned>(&self, key: &Key) -> Option<T> {
        let state = read(&self.state);
        serde_json::from_slice(&state.entries.get(key)?.bytes).ok()
    }

    /// The object is known.
    pub fn contains(&self, key: &Key) -> bool {
        read(&self.state).entries.contains_key(key)
    }

    /// The keys of the objects with this index key, in order.
    pub fn keys_by_index(&self, index: &str) -> Vec<Key> {
        read(&self.state).index.get(index).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// The objects with this index key, in order of their names.
    pub fn by_index<T: DeserializeOwned>(&self, index: &str) -> Vec<T> {
        let state = read(&self.state);
        let keys = state.index.get(index).into_iter().flatten();
        keys.filter_map(|key| serde_json::from_slice(&state.entries.get(key)?.bytes).ok()).collect()
    }

    /// The object's uid.
    pub fn uid(&self, key: &Key) -> Option<String> {
        read(&self.state).entries.get(key).map(|e| e.uid.to_string())
    }

    /// The keys of one namespace.
    pub fn keys_in(&self, namespace: &str) -> Vec<Key> {
        read(&self.state).entries.keys().filter(|k| &*k.namespace == namespace).cloned().collect()
    }

    /// All keys.
    pub fn keys(&self) -> Vec<Key> {
        read(&self.state).entries.keys().cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        read(&self.state).entries.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of JSON that are kept.
    pub fn bytes(&self) -> usize {
        read(&self.state).entries.values().map(|e| e.bytes.len()).sum()
    }

    /// The first list is complete.
    pub fn is_synced(&self) -> bool {
        read(&self.state).synced
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        let mut receiver = self.listing.subscribe();
        // The sender lives as long as the store, so waiting cannot fail.
        let _ = receiver.wait_for(|listing| *listing == Listing::Done).await;
    }

    /// Waits until the first list is complete, and says whether it is: not when it was refused, or is not there within
    /// `patience`.
    pub async fn listed(&self, patience: Duration) -> bool {
        let mut receiver = self.listing.subscribe();
        let over = receiver.wait_for(|listing| *listing != Listing::Open);
        matches!(tokio::time::timeout(patience, over).await, Ok(Ok(listing)) if *listing == Listing::Done)
    }

    /// The first list was refused; it is asked for again.
    fn list_refused(&self) {
        self.listing.send_if_modified(|listing| {
            let open = *listing == Listing::Open;
            if open {
                *listing = Listing::Refused;
            }
            open
        });
    }

    /// Takes in an object from a watch or from the answer to an own write, unless a newer version is known.
    pub fn apply(&self, mut object: Value) {
        let Some(key) = key_of(&object) else { return };
        let version = version_of(&object);
        if self.knows(&key, version) {
            return;
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let generation = object.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(0);
        let uid: Box<str> = object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().into();
        let index = self.same_index(&key, &uid, generation).unwrap_or_else(|| (self.index_fn)(&object));
        let Ok(bytes) = serde_json::to_vec(&object) else { return };
        let (added, initial, touched) = {
            let mut state = write(&self.state);
            let epoch = state.epoch;
            let initial = !state.synced;
            let mut touched: BTreeSet<String> = index.iter().cloned().collect();
            let mut added = true;
            let overtaken = |(gone, at): &(Box<str>, u64)| *gone == uid && version <= *at;
            if !state.entries.contains_key(&key) && state.gone.iter().any(overtaken) {
                // The answer to an own write that was overtaken by the news of the deletion.
                return;
            }
            if let Some(entry) = state.entries.get_mut(&key) {
                if entry.version >= version && version != 0 {
                    entry.epoch = epoch;
                    return;
                }
                added = false;
                let old = std::mem::take(&mut entry.index);
                for name in &old {
                    touched.insert(name.to_string());
                    unindex(&mut state.index, name, &key);
                }
            }
            for name in &index {
                state.index.entry(name.as_str().into()).or_default().insert(key.clone());
            }
            let index = index.into_iter().map(String::into_boxed_str).collect();
            let entry = Entry { version, generation, uid: uid.clone(), bytes: bytes.into(), index, epoch };
            state.entries.insert(key.clone(), entry);
            (added, initial, touched)
        };
        self.tell(Change { key: &key, object: Some(&object), uid: &uid, index: &touched, added, initial });
    }

    /// The index keys of an object whose spec is known.
    fn same_index(&self, key: &Key, uid: &str, generation: u64) -> Option<Vec<String>> {
        let state = read(&self.state);
        let entry = state.entries.get(key).filter(|e| self.by_spec && generation > 0 && e.generation == generation)?;
        (*entry.uid == *uid).then(|| entry.index.iter().map(|i| i.to_string()).collect())
    }

    /// This version is known already, or a newer one: mostly the news of an own write.
    fn knows(&self, key: &Key, version: u64) -> bool {
        let known = |state: &State| state.entries.get(key).is_some_and(|e| e.version >= version && version != 0);
        if !known(&read(&self.state)) {
            return false;
        }
        let mut state = write(&self.state);
        let epoch = state.epoch;
        if let Some(entry) = state.entries.get_mut(key) {
            entry.epoch = epoch;
        }
        true
    }

    /// Takes in that an object is gone. `version` is the version of the deletion, 0 when it is not known.
    pub fn remove(&self, key: &Key, version: u64) {
        let (touched, uid) = {
            let mut state = write(&self.state);
            match state.entries.get(key) {
                Some(entry) if version == 0 || entry.version <= version => {}
                _ => return,
            }
            let Some(entry) = state.entries.remove(key) else { return };
            for name in &entry.index {
                unindex(&mut state.index, name, key);
            }
            if !entry.uid.is_empty() {
                if state.gone.len() == REMEMBERED_DELETIONS {
                    state.gone.pop_front();
                }
                state.gone.push_back((entry.uid.clone(), version.max(entry.version)));
            }
            (entry.index.iter().map(|i| i.to_string()).collect::<BTreeSet<_>>(), entry.uid)
        };
        self.tell(Change { key, object: None, uid: &uid, index: &touched, added: false, initial: false });
    }

    /// A new list begins.
    pub fn list_started(&self) {
        write(&self.state).epoch += 1;
    }

    /// The list is complete: what it did not hold and what was not written since is gone.
    pub fn list_done(&self) {
        let gone: Vec<Key> = {
            let mut state = write(&self.state);
            state.synced = true;
            let epoch = state.epoch;
            state.entries.iter().filter(|(_, e)| e.epoch < epoch).map(|(k, _)| k.clone()).collect()
        };
        for key in gone {
            self.remove(&key, 0);
        }
        self.listing.send_replace(Listing::Done);
    }

    fn tell(&self, change: Change<'_>) {
        for handler in read(&self.handlers).iter() {
            handler(change);
        }
    }
}

fn unindex(index: &mut BTreeMap<Box<str>, BTreeSet<Key>>, name: &str, key: &Key) {
    if let Some(keys) = index.get_mut(name) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(name);
        }
    }
}

/// The namespace and name of an object.
pub fn key_of(object: &Value) -> Option<Key> {
    let metadata = object.get("metadata")?;
    let text = |name: &str| metadata.get(name).and_then(Value::as_str);
    Some(Key::new(text("namespace").unwrap_or_default(), text("name")?))
}

/// `metadata.resourceVersion` as a number. Kubernetes declares these comparable; 0 when it is none.
pub fn version_of(object: &Value) -> u64 {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Where and what to watch.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Empty for all namespaces.
    pub namespace: String,
    /// Label selector; empty for all objects.
    pub labels: String,
}

/// Keeps `store` filled until the task is dropped. Errors are logged and retried with a growing delay.
pub async fn fill(client: kube::Client, store: Arc<Store>, scope: Scope) {
    let resource = &store.resource;
    let api_resource = ApiResource {
        group: resource.group.to_string(),
        version: resource.version.to_string(),
        api_version: resource.api_version(),
        kind: resource.kind.to_string(),
        plural: resource.plural.to_string(),
    };
    let api: kube::Api<Watched> = if scope.namespace.is_empty() || !resource.namespaced {
        kube::Api::all_with(client, &api_resource)
    } else {
        kube::Api::namespaced_with(client, &scope.namespace, &api_resource)
    };
    let mut config = watcher::Config::default();
    if !scope.labels.is_empty() {
        config = config.labels(&scope.labels);
    }
    let mut stream = std::pin::pin!(watcher(api, config).default_backoff());
    let mut failing = false;
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => store.list_started(),
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                store.apply(complete(resource, object));
            }
            Ok(watcher::Event::InitDone) => {
                if std::mem::take(&mut failing) {
                    tracing::info!(kind = %resource.kind, "Watch works again.");
                }
                store.list_done();
            }
            Ok(watcher::Event::Delete(object)) => {
                if let Some(key) = key_of(&object.value) {
                    store.remove(&key, version_of(&object.value));
                }
            }
            Err(error) => {
                let text = crate::api::error_chain(&error);
                let (refused, plain) = refusal(&error, resource);
                if refused {
                    store.list_refused();
                }
                // An expired version is part of a watch's life: the list that follows mends it.
                if text.contains("Expired") || text.contains("too old") {
                    tracing::debug!(kind = %resource.kind, error = text, "Watch starts over.");
                } else if !std::mem::replace(&mut failing, true) {
                    let error = plain.unwrap_or(text);
                    tracing::warn!(kind = %resource.kind, error, "Cannot watch; trying again with a growing delay.");
                }
            }
        }
    }
}

/// Whether the API server refuses the kind for good, and what its answer means where that is plain.
fn refusal(error: &watcher::Error, resource: &Resource) -> (bool, Option<String>) {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let (InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error)) = error else { return (false, None) };
    let kube::Error::Api(status) = error else { return (false, None) };
    let (plural, api_version, code, message) = (&resource.plural, resource.api_version(), status.code, &status.message);
    match code {
        404 => (true, Some(format!("the cluster does not serve {plural} of {api_version}"))),
        403 => (true, Some(format!("no right to list and watch {plural} of {api_version}: {message}"))),
        429 | 500..=599 => (false, Some(format!("the API server answered {code}: {message}"))),
        _ => (false, None),
    }
}

/// The object with its kind, which items of a list come without.
fn complete(resource: &Resource, object: Watched) -> Value {
    let mut value = object.value;
    value["apiVersion"] = resource.api_version().into();
    value["kind"] = resource.kind.as_ref().into();
    value
}

/// Hears of every change of any kind.
type KindHandler = Arc<dyn Fn(&Resource, Change<'_>) + Send + Sync>;

/// The client through which a kind is watched; `None` when it cannot be.
pub type ClientOf = Box<dyn Fn(&Resource) -> Option<kube::Client> + Send + Sync>;

/// Stores for kinds that are watched only once something uses them.
pub struct OnDemand {
    client: Option<ClientOf>,
    namespace: String,
    stores: Mutex<BTreeMap<Resource, Arc<Store>>>,
    on_change: RwLock<Vec<KindHandler>>,
    index: fn(&Value) -> Vec<String>,
}

impl OnDemand {
    /// Watches through `client` in `namespace` (empty for all). Without a client nothing is watched; what
    /// [`Store::apply`] puts in is all there is. `index` gives the keys of an object of any kind, as in [`Store::new`].
    pub fn new(client: Option<ClientOf>, namespace: &str, index: fn(&Value) -> Vec<String>) -> Arc<Self> {
        Arc::new(Self {
            client,
            index,
            namespace: namespace.to_owned(),
            stores: Mutex::default(),
            on_change: RwLock::default(),
        })
    }

    /// Calls `handler` after every change of any kind. To be called before the first store is asked for.
    pub fn on_change(&self, handler: impl Fn(&Resource, Change<'_>) + Send + Sync + 'static) {
        write(&self.on_change).push(Arc::new(handler));
    }

    /// The store of a kind, its watch started. It may not be synced yet; see [`Store::is_synced`].
    pub fn store(&self, resource: &Resource) -> Arc<Store> {
        let mut stores = self.stores.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(store) = stores.get(resource) {
            return Arc::clone(store);
        }
        let store = Store::new(resource.clone(), self.index);
        for handler in read(&self.on_change).iter() {
            let (handler, resource) = (Arc::clone(handler), resource.clone());
            store.on_change(move |change| handler(&resource, change));
        }
        stores.insert(resource.clone(), Arc::clone(&store));
        match self.client.as_ref().map(|client| client(resource)) {
            Some(Some(client)) => {
                let scope = Scope { namespace: self.namespace.clone(), labels: String::new() };
                tokio::spawn(fill(client, Arc::clone(&store), scope));
            }
            Some(None) => store.list_refused(),
            None => store.list_done(),
        }
        store
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources;
    use serde_json::json;

    fn object(name: &str, version: u64, owner: &str) -> Value {
        json!({"metadata": {"namespace": "a", "name": name, "resourceVersion": version.to_string(), "managedFields": [1]}, "owner": owner})
    }

    fn store() -> Arc<Store> {
        Store::new(resources::POD, |o| vec![o["owner"].as_str().unwrap_or_default().to_owned()])
    }

    #[test]
    fn an_older_version_never_replaces_a_newer_one() {
        let store = store();
        store.apply(object("x", 7, "one"));
        store.apply(object("x", 5, "two"));
        let key = Key::new("a", "x");
        assert_eq!(store.value(&key).map(|v| v["owner"].clone()), Some(json!("one")));
        store.remove(&key, 6);
        assert!(store.contains(&key), "a deletion older than what is known belongs to an earlier object");
        store.remove(&key, 8);
        assert!(!store.contains(&key));
    }

    #[test]
    fn an_answer_that_a_deletion_overtook_brings_nothing_back() {
        let store = store();
        let of = |version: u64, uid: &str| {
            let mut object = object("x", version, "one");
            object["metadata"]["uid"] = uid.into();
            object
        };
        let key = Key::new("a", "x");
        store.apply(of(5, "first"));
        store.remove(&key, 8);
        store.apply(of(7, "first"));
        assert!(!store.contains(&key), "the answer to a write before the deletion");
        store.apply(of(9, "second"));
        assert!(store.contains(&key), "another object of the same name");
        store.remove(&key, 10);
        store.apply(of(12, "second"));
        assert!(store.contains(&key), "it left the label selector and came back");
    }

    #[test]
    fn the_index_follows_the_object() {
        let store = store();
        store.apply(object("x", 1, "one"));
        store.apply(object("x", 2, "two"));
        assert!(store.keys_by_index("one").is_empty());
        assert_eq!(store.keys_by_index("two"), [Key::new("a", "x")]);
        assert!(store.value(&Key::new("a", "x")).is_some_and(|v| v["metadata"].get("managedFields").is_none()));
    }

    #[test]
    fn a_list_removes_what_it_does_not_hold_but_keeps_own_writes() {
        let store = store();
        store.list_started();
        store.apply(object("old", 1, "o"));
        store.apply(object("kept", 2, "o"));
        store.list_done();
        store.list_started();
        store.apply(object("kept", 2, "o"));
        store.apply(object("written", 9, "o"));
        store.list_done();
        let mut names: Vec<_> = store.keys().into_iter().map(|k| k.name.to_string()).collect();
        names.sort();
        assert_eq!(names, ["kept", "written"]);
    }
}
