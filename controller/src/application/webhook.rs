//! Webhooks of Git servers: which Applications look at their repository at once.

use super::Controller;
use crate::cache::Key;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_crds::application::{Application, ApplicationSpec};
use tidegate_gitops::sync::refresh::Level;
use tidegate_gitops::webhook::{self, Concerns, Event, MAX_PAYLOAD, Matcher, Push, WebhookSecrets};

/// Annotation with the paths that an Application is made from.
const GENERATE_PATHS: &str = "argocd.argoproj.io/manifest-generate-paths";
/// Secret with the shared secrets of webhooks.
const SECRET: &str = "argocd-secret";

impl Controller {
    /// Takes in a push: the Applications that it concerns are compared at once. Answers how many there are.
    pub async fn pushed(&self, push: &Push) -> usize {
        let matcher = Matcher::new(push);
        let mut spellings = push.repo_urls.clone();
        let mut concerned = Vec::new();
        for key in self.applications.keys() {
            let Some((annotations, spec)) = self.glance(&key) else { continue };
            let sources = spec.sources();
            for source in sources.iter() {
                // The repository may be known under another spelling of its URL.
                if !spellings.contains(&source.repo_url) && matcher.matches(source) {
                    spellings.insert(source.repo_url.clone());
                }
            }
            let paths = annotations.get(GENERATE_PATHS).map(String::as_str).unwrap_or_default();
            if matcher.concerns(&sources, paths) != Concerns::No {
                concerned.push(key);
            }
        }
        for url in &spellings {
            self.engine.invalidate(url).await;
        }
        for key in &concerned {
            self.refresh(key, Level::Latest);
        }
        concerned.len()
    }

    /// Of an Application only what says whether a push concerns it: a webhook looks at all of them.
    fn glance(&self, key: &Key) -> Option<(BTreeMap<String, String>, ApplicationSpec)> {
        #[derive(serde::Deserialize)]
        struct Metadata {
            annotations: Option<BTreeMap<String, String>>,
        }
        #[derive(serde::Deserialize)]
        struct Glance {
            metadata: Metadata,
            spec: ApplicationSpec,
        }
        if let Some(glance) = self.applications.get::<Glance>(key) {
            return Some((glance.metadata.annotations.unwrap_or_default(), glance.spec));
        }
        // One with a field that does not fit is read field by field.
        let app = self.applications.get::<Application>(key)?;
        Some((app.metadata.annotations.unwrap_or_default(), app.spec))
    }

    /// The shared secrets of webhooks, read when one comes: they are no part of what is watched.
    async fn webhook_secrets(&self) -> WebhookSecrets {
        let resource = crate::api::resources::SECRET;
        let secret = self.context.api.get(&resource, &self.settings.namespace, SECRET).await.unwrap_or_default();
        let decode = |value: &Value| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str()?).ok()?;
            String::from_utf8(bytes).ok().map(|text| text.trim().to_owned())
        };
        let data = secret.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
        WebhookSecrets::new(data.iter().filter_map(|(key, value)| Some((key.clone(), decode(value)?))))
    }

    /// Serves webhooks on the configured port. A port that is taken is told and costs nothing but the speed of webhooks.
    pub(super) async fn serve_webhooks(self: &Arc<Self>) {
        let port = self.settings.webhook_port;
        if port == 0 {
            return;
        }
        match tokio::net::TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)).await {
            Ok(listener) => {
                let routes = self.webhook_routes();
                tokio::spawn(async move {
                    if let Err(error) = axum::serve(listener, routes).await {
                        tracing::error!(%error, "The server of webhooks ended.");
                    }
                });
            }
            Err(error) => tracing::warn!(port, %error, "Cannot listen for webhooks; repositories are polled."),
        }
    }

    /// Serves `POST /api/webhook`.
    pub fn webhook_routes(self: &Arc<Self>) -> axum::Router {
        axum::Router::new()
            .route("/api/webhook", post(receive))
            .layer(axum::extract::DefaultBodyLimit::max(MAX_PAYLOAD + 1))
            .with_state(Arc::clone(self))
    }

    /// The Applications that this controller knows.
    pub fn known(&self) -> Vec<Key> {
        self.applications.keys()
    }
}

async fn receive(State(controller): State<Arc<Controller>>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let secrets = controller.webhook_secrets().await;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match webhook::receive(header, &body, &secrets, MAX_PAYLOAD) {
        Ok(Event::Push(push)) => {
            let count = controller.pushed(&push).await;
            tracing::info!(reference = push.reference, after = push.after, applications = count, "Webhook: a push.");
            (StatusCode::OK, format!("{count} applications are compared\n"))
        }
        Ok(Event::Ignored(why)) => (StatusCode::OK, format!("nothing to do: {why}\n")),
        Err(error) => {
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
            tracing::warn!(%error, "Webhook refused.");
            (status, format!("{error}\n"))
        }
    }
}
