//! The webhook's server: HTTPS on a port of every replica.

use super::certificates::Certificates;
use super::review::{Unreadable, review};
use crate::options::AdmissionOptions;
use anyhow::Context as _;
use axum::Json;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The path of the chart's webhooks.
const PATH: &str = "/admission";
/// The API server takes objects of up to 3 MiB, and a review holds two: as it is to be, and as it was.
const MAX_REVIEW: usize = 8 << 20;
/// How long a client may take to say how it wants to talk. A healthy API server takes milliseconds.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How many connections are being set up at once, at the most.
const HANDSHAKES: usize = 64;
/// How long to wait when the system has no room for another connection.
const EXHAUSTED: Duration = Duration::from_secs(1);

/// Serves reviews until the process ends.
///
/// # Errors
/// When the port is taken, or the certificate cannot be used; the message names the file.
pub async fn serve(options: &AdmissionOptions) -> anyhow::Result<SocketAddr> {
    let certificates = Certificates::read(&options.certificates).await.context("cannot serve admission")?;
    let port = options.port;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .await
        .with_context(|| format!("cannot listen on port {port} for admission: is another controller running here?"))?;
    let address = listener.local_addr().context("cannot listen for admission")?;
    let (sender, connections) = mpsc::channel(HANDSHAKES);
    tokio::spawn(accept(listener, certificates, sender));
    let routes = axum::Router::new().route(PATH, post(answer)).layer(DefaultBodyLimit::max(MAX_REVIEW));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(Tls { connections, address }, routes).await {
            tracing::error!(%error, what = "admission", "The server ended.");
        }
    });
    Ok(address)
}

/// Connections that are ready for requests.
struct Tls {
    connections: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.connections.recv().await {
            Some(connection) => connection,
            // The task that accepts connections lives as long as the process.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Accepts connections. Each handshake is a task of its own: a client that says nothing must not keep others waiting.
async fn accept(
    listener: TcpListener,
    mut certificates: Certificates,
    sender: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "Cannot accept a connection for admission.");
                tokio::time::sleep(EXHAUSTED).await;
                continue;
            }
        };
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let acceptor = TlsAcceptor::from(certificates.current().await);
        let sender = sender.clone();
        tokio::spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    // The receiver lives as long as the process.
                    let _ = sender.send((stream, peer)).await;
                }
                // Most often an API server that does not trust the certificate.
                Ok(Err(error)) => tracing::warn!(%peer, %error, "A TLS handshake for admission failed."),
                Err(_) => tracing::debug!(%peer, "A TLS handshake for admission took too long."),
            }
        });
    }
}

async fn answer(body: Bytes) -> Result<Json<Value>, (StatusCode, String)> {
    let read = serde_json::from_slice::<Value>(&body).map_err(|error| Unreadable::Json(error.to_string()));
    match read.and_then(|body| Ok((review(&body)?, body))) {
        Ok((answer, asked)) => {
            if answer["response"]["allowed"] == false {
                let request = &asked["request"];
                tracing::info!(
                    namespace = request["namespace"].as_str().unwrap_or_default(),
                    dry_run = request["dryRun"] == true,
                    "Refused: {}",
                    answer["response"]["status"]["message"].as_str().unwrap_or_default()
                );
            }
            Ok(Json(answer))
        }
        Err(error) => {
            tracing::warn!(%error, "A request for admission could not be read.");
            Err((StatusCode::BAD_REQUEST, format!("{error}\n")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificates::tests::{ONE, TWO};
    use super::*;
    use serde_json::json;

    struct Webhook {
        directory: tempfile::TempDir,
        address: SocketAddr,
    }

    impl Webhook {
        /// With the certificate `ONE`.
        async fn start() -> Self {
            let directory = tempfile::tempdir().unwrap();
            ONE.put(directory.path());
            let options = AdmissionOptions { port: 0, certificates: directory.path().to_owned() };
            let address = serve(&options).await.unwrap();
            Self { directory, address }
        }

        /// As an API server that trusts only this authority. Every call is a new connection.
        async fn post(&self, authority: &str, path: &str, body: String) -> reqwest::Result<(u16, String)> {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let authority = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
            let client = reqwest::Client::builder()
                .no_proxy()
                .tls_certs_only([authority])
                .resolve("webhook.test", (Ipv4Addr::LOCALHOST, self.address.port()).into())
                .build()
                .unwrap();
            let url = format!("https://webhook.test:{}{path}", self.address.port());
            let answer = client.post(url).body(body).send().await?;
            Ok((answer.status().as_u16(), answer.text().await?))
        }
    }

    fn asked(metrics: Value) -> String {
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "u", "operation": "CREATE", "object": {
                "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate",
                "metadata": {"name": "t"}, "spec": {"metrics": metrics},
            }},
        })
        .to_string()
    }

    #[tokio::test]
    async fn answers_reviews_over_tls() {
        let webhook = Webhook::start().await;
        let good = asked(json!([{"name": "m", "provider": {"web": {"url": "http://x"}}}]));
        let (code, said) = webhook.post(ONE.certificate, "/admission", good).await.unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((code, &said["response"]), (200, &json!({"uid": "u", "allowed": true})));
        let (code, said) = webhook.post(ONE.certificate, "/admission", asked(json!([]))).await.unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((code, &said["response"]["allowed"]), (200, &json!(false)));
        // The API server's timeout adds a query.
        let (code, _) = webhook.post(ONE.certificate, "/admission?timeout=5s", asked(json!([]))).await.unwrap();
        assert_eq!(code, 200);

        let (code, said) = webhook.post(ONE.certificate, "/admission", "{".into()).await.unwrap();
        assert!(code == 400 && said.contains("not JSON"), "{code}: {said}");
        let (code, said) = webhook.post(ONE.certificate, "/admission", "{\"kind\":\"Pod\"}".into()).await.unwrap();
        assert!(code == 400 && said.contains("\"Pod\"") && said.contains("AdmissionReview"), "{code}: {said}");
        assert_eq!(webhook.post(ONE.certificate, "/elsewhere", String::new()).await.unwrap().0, 404);
        let large = "x".repeat(MAX_REVIEW + 1);
        assert_eq!(webhook.post(ONE.certificate, "/admission", large).await.unwrap().0, 413);
    }

    #[tokio::test]
    async fn a_rotated_certificate_is_served_without_a_restart() {
        let webhook = Webhook::start().await;
        let ask = async |authority: &str| webhook.post(authority, "/admission", asked(json!([]))).await;
        assert_eq!(ask(ONE.certificate).await.unwrap().0, 200);
        TWO.put(webhook.directory.path());
        assert_eq!(ask(TWO.certificate).await.unwrap().0, 200);
        assert!(ask(ONE.certificate).await.unwrap_err().is_connect());
    }

    #[tokio::test]
    async fn a_silent_client_keeps_nobody_waiting() {
        let webhook = Webhook::start().await;
        let mut silent = Vec::new();
        for _ in 0..HANDSHAKES / 2 {
            silent.push(TcpStream::connect((Ipv4Addr::LOCALHOST, webhook.address.port())).await.unwrap());
        }
        let started = std::time::Instant::now();
        assert_eq!(webhook.post(ONE.certificate, "/admission", asked(json!([]))).await.unwrap().0, 200);
        assert!(started.elapsed() < HANDSHAKE, "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn what_keeps_it_from_serving_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let options = AdmissionOptions { port: 0, certificates: directory.path().to_owned() };
        let error = format!("{:#}", serve(&options).await.unwrap_err());
        let file = directory.path().join("tls.crt");
        assert!(error.starts_with(&format!("cannot serve admission: {}: cannot be read", file.display())), "{error}");
        ONE.put(directory.path());
        let taken = serve(&options).await.unwrap().port();
        let error = serve(&AdmissionOptions { port: taken, ..options }).await.unwrap_err();
        assert!(format!("{error:#}").contains(&format!("port {taken}")), "{error:#}");
    }
}
