//! Kubernetes Events: what happened to an object, in the order in which it happened.

use crate::api::{Api, PatchCall, PatchKind, resources};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How many events wait for the API server, at each writer, before further ones are dropped.
const BUFFER: usize = 16_384;
/// How many events are written at the same time. Those of one object are written one after the other.
const WRITERS: u64 = 2;
/// How many different events each writer remembers, to count a repeated one up instead of writing it anew.
const REMEMBERED: usize = 2048;
/// As long as no more than so many events wait at a writer, somebody may wait for theirs, and for no longer than this.
const SHORT: usize = 8;
const PATIENCE: Duration = Duration::from_millis(250);

/// An event to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Something is wrong.
    pub warning: bool,
    /// Reason in one word; other people's tools match on it.
    pub reason: String,
    /// Reason in a sentence.
    pub message: String,
}

impl Event {
    /// Something went as it should.
    pub fn normal(reason: &str, message: impl Into<String>) -> Self {
        Self { warning: false, reason: reason.to_owned(), message: message.into() }
    }

    /// Something is wrong.
    pub fn warning(reason: &str, message: impl Into<String>) -> Self {
        Self { warning: true, reason: reason.to_owned(), message: message.into() }
    }
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct About {
    /// `group/version`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

/// Hears of every event.
type Observer = Arc<dyn Fn(&About, &Event) + Send + Sync>;

/// What waits at a writer.
enum Told {
    Event(Box<(About, Event, Timestamp)>),
    /// Somebody wants to know when what is before it is written.
    Mark(oneshot::Sender<()>),
}

/// Takes events and writes them in the background, those of one object in order.
#[derive(Clone)]
pub struct Recorder {
    writers: Vec<mpsc::Sender<Told>>,
    observer: Observer,
}

impl Recorder {
    /// Writes through `api` as `component`. `observer` hears of every event, for the metrics.
    pub fn start(
        api: Arc<dyn Api>,
        component: &'static str,
        observer: impl Fn(&About, &Event) + Send + Sync + 'static,
    ) -> Self {
        let writers = (0..WRITERS).map(|_| {
            let (sender, receiver) = mpsc::channel(BUFFER);
            tokio::spawn(write_all(Arc::clone(&api), component, receiver));
            sender
        });
        Self { writers: writers.collect(), observer: Arc::new(observer) }
    }

    fn writer(&self, about: &About) -> Option<&mpsc::Sender<Told>> {
        let mut hasher = DefaultHasher::new();
        about.hash(&mut hasher);
        self.writers.get((hasher.finish() % WRITERS) as usize)
    }

    /// Waits until what was told about the object is written: who sees a status should find the events that led to it.
    /// Where many events wait, their order is not worth the time.
    pub async fn told(&self, about: &About) {
        let Some(writer) = self.writer(about).filter(|w| w.max_capacity() - w.capacity() <= SHORT) else { return };
        let (mark, written) = oneshot::channel();
        if writer.try_send(Told::Mark(mark)).is_ok() {
            // Too slow, or the process ends: the status matters more.
            let _ = tokio::time::timeout(PATIENCE, written).await;
        }
    }

    /// Tells events about an object. Never waits: when the API server is slower than the events, the last are dropped.
    pub fn tell(&self, about: &About, events: impl IntoIterator<Item = Event>) {
        let writer = self.writer(about);
        for event in events {
            (self.observer)(about, &event);
            let told = Told::Event(Box::new((about.clone(), event, Timestamp::now())));
            if writer.is_none_or(|writer| writer.try_send(told).is_err()) {
                tracing::debug!(object = about.name, "Event dropped: too many wait to be written.");
            }
        }
    }
}

struct Written {
    name: String,
    count: u64,
}

async fn write_all(api: Arc<dyn Api>, component: &'static str, mut receiver: mpsc::Receiver<Told>) {
    let mut known: HashMap<(String, String, String), Written> = HashMap::new();
    let mut last = 0i128;
    while let Some(told) = receiver.recv().await {
        let (about, event, at) = match told {
            Told::Event(event) => *event,
            Told::Mark(mark) => {
                // Whoever asked may have stopped waiting.
                let _ = mark.send(());
                continue;
            }
        };
        let namespace = if about.namespace.is_empty() { "default" } else { about.namespace.as_str() };
        let id = (about.uid.clone(), event.reason.clone(), event.message.clone());
        let time = json!(crate::api::whole_seconds(at).to_string());
        if let Some(written) = known.get_mut(&id) {
            written.count += 1;
            let body = json!({"count": written.count, "lastTimestamp": time});
            let call = PatchCall {
                resource: &resources::EVENT,
                namespace,
                name: &written.name,
                subresource: "",
                kind: PatchKind::Merge,
                body: &body,
                dry_run: false,
            };
            if api.patch(call).await.is_ok() {
                continue;
            }
            known.remove(&id);
        }
        // Names sort in the order of the events, so that a list by name is a list by time.
        last = at.as_nanosecond().max(last + 1);
        let name = format!("{}.{last:x}", about.name);
        match api
            .create(&resources::EVENT, namespace, &object(&about, &event, component, &name, namespace, &time), false)
            .await
        {
            Ok(_) => {
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(id, Written { name, count: 1 });
            }
            Err(error) => tracing::debug!(object = about.name, %error, "Cannot write an event."),
        }
    }
}

fn object(about: &About, event: &Event, component: &str, name: &str, namespace: &str, time: &Value) -> Value {
    let mut involved = json!({
        "apiVersion": about.api_version, "kind": about.kind, "name": about.name, "uid": about.uid,
    });
    if !about.namespace.is_empty() {
        involved["namespace"] = about.namespace.as_str().into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": involved,
        "type": if event.warning { "Warning" } else { "Normal" },
        "reason": event.reason,
        "message": event.message,
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": "",
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use wiremock::matchers::method;
    use wiremock::{Mock, MockServer, Request, ResponseTemplate};

    #[tokio::test]
    async fn whoever_waits_finds_the_events_that_were_told() {
        let server = MockServer::start().await;
        let answer = |request: &Request| {
            let event: Value = request.body_json().unwrap();
            ResponseTemplate::new(201).set_body_json(event).set_delay(Duration::from_millis(5))
        };
        Mock::given(method("POST")).respond_with(answer).mount(&server).await;
        let config = kube::Config::new(server.uri().parse().unwrap());
        let api = Arc::new(crate::api::KubeApi::new(kube::Client::try_from(config).unwrap(), |_, _, _| {}));
        let recorder = Recorder::start(api, "test", |_, _| {});
        let about = About {
            api_version: "argoproj.io/v1alpha1".into(),
            kind: "Rollout".into(),
            namespace: "shop".into(),
            name: "web".into(),
            uid: "1".into(),
        };
        recorder.tell(&about, ["A", "B", "C"].map(|reason| Event::normal(reason, "x")));
        recorder.told(&about).await;
        let written = server.received_requests().await.unwrap();
        let reasons: Vec<String> = written
            .iter()
            .map(|r| r.body_json::<Value>().unwrap()["reason"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(reasons, ["A", "B", "C"]);

        let many = (0..100).map(|i| Event::normal("Many", i.to_string()));
        recorder.tell(&about, many);
        let begun = Instant::now();
        recorder.told(&about).await;
        assert!(begun.elapsed() < PATIENCE, "nobody waits behind a long queue");
    }
}
