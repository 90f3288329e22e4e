//! The server that test rollouts roll out: its version, error rate, latency and readiness are set by environment, and
//! error rate and latency also while it runs. It answers gRPC as well, on the same port (`tidegate_e2e::grpc`).
//! `tidegate-testserver exit CODE [--after MS]` is a job instead.
//!
//! Environment: `VERSION`, `ERROR_RATE` (0 to 1), `LATENCY_MS`, `PORT` (8080), `READY_AFTER_MS`, `FAIL_READY`
//! (`true`), `CRASH` (an exit code).

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Json, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use clap::{Parser, Subcommand};
use http_body_util::{BodyExt, Full};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_e2e::grpc;

#[derive(Parser)]
struct Arguments {
    /// The version that the server says it is.
    #[arg(long, env = "VERSION", default_value = "unknown")]
    version: String,
    /// The share of answers that are 500s, from 0 to 1.
    #[arg(long, env = "ERROR_RATE", default_value_t = 0.0)]
    error_rate: f64,
    /// How long an answer takes, in milliseconds.
    #[arg(long, env = "LATENCY_MS", default_value_t = 0)]
    latency_ms: u64,
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,
    /// How long after its start the server is ready, in milliseconds.
    #[arg(long, env = "READY_AFTER_MS", default_value_t = 0)]
    ready_after_ms: u64,
    /// Never become ready.
    #[arg(long, env = "FAIL_READY", default_value_t = false)]
    fail_ready: bool,
    /// End at once with this code.
    #[arg(long, env = "CRASH")]
    crash: Option<u8>,
    #[command(subcommand)]
    job: Option<Job>,
}

#[derive(Subcommand)]
enum Job {
    /// End with this code, as a job does.
    Exit {
        #[arg(env = "EXIT_CODE")]
        code: u8,
        /// How long to run before, in milliseconds.
        #[arg(long, env = "EXIT_AFTER_MS", default_value_t = 0)]
        after: u64,
    },
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    version: String,
    code: u16,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VersionLabels {
    version: String,
}

struct Server {
    version: String,
    pod: String,
    started: Instant,
    ready_after: Duration,
    fail_ready: bool,
    /// The bits of an `f64`.
    error_rate: AtomicU64,
    latency_ms: AtomicU64,
    served: AtomicU64,
    requests: Family<RequestLabels, Counter>,
    latency: Family<VersionLabels, Histogram>,
    registry: Registry,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    error_rate: Option<f64>,
    latency_ms: Option<u64>,
}

impl Server {
    fn new(arguments: &Arguments) -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let latency = Family::<VersionLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.001, 2.0, 14))
        });
        let mut registry = Registry::default();
        registry.register("http_requests", "Answered requests by version and status code", requests.clone());
        registry.register("http_request_duration_seconds", "Time to answer, by version", latency.clone());
        // Present from the first scrape on, so that a rate has a beginning.
        let version = arguments.version.clone();
        for code in [200, 500] {
            let _ = requests.get_or_create(&RequestLabels { version: version.clone(), code });
        }
        Self {
            version,
            pod: std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_default(),
            started: Instant::now(),
            ready_after: Duration::from_millis(arguments.ready_after_ms),
            fail_ready: arguments.fail_ready,
            error_rate: AtomicU64::new(arguments.error_rate.to_bits()),
            latency_ms: AtomicU64::new(arguments.latency_ms),
            served: AtomicU64::new(0),
            requests,
            latency,
            registry,
        }
    }

    /// Whether the next answer is an error. Errors are spread evenly instead of drawn by chance: of any N requests in
    /// a row, the wanted share fails, give or take one.
    fn next_fails(&self) -> bool {
        let rate = f64::from_bits(self.error_rate.load(Ordering::Relaxed)).clamp(0.0, 1.0);
        let count = self.served.fetch_add(1, Ordering::Relaxed) as f64;
        ((count + 1.0) * rate).floor() > (count * rate).floor()
    }
}

/// Takes its time, counts and says who it is; or fails, when it is its turn to.
async fn serve_one(server: &Server) -> (StatusCode, Value) {
    let start = Instant::now();
    let latency = server.latency_ms.load(Ordering::Relaxed);
    if latency > 0 {
        tokio::time::sleep(Duration::from_millis(latency)).await;
    }
    let status = if server.next_fails() { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    let version = server.version.clone();
    server.requests.get_or_create(&RequestLabels { version: version.clone(), code: status.as_u16() }).inc();
    server.latency.get_or_create(&VersionLabels { version }).observe(start.elapsed().as_secs_f64());
    (status, json!({"version": server.version, "pod": server.pod}))
}

async fn answer(State(server): State<Arc<Server>>) -> impl IntoResponse {
    let (status, said) = serve_one(&server).await;
    (status, Json(said))
}

/// The same over gRPC, where the status comes after the message.
async fn call(State(server): State<Arc<Server>>) -> impl IntoResponse {
    let (status, said) = serve_one(&server).await;
    // 0 is success, 13 an internal error.
    let code = if status.is_success() { "0" } else { "13" };
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static(code))]);
    let frame = Full::new(Bytes::from(grpc::framed(said.to_string().as_bytes())));
    (status, [(CONTENT_TYPE, grpc::CONTENT_TYPE)], Body::new(frame.with_trailers(async { Some(Ok(trailers)) })))
}

async fn ready(State(server): State<Arc<Server>>) -> impl IntoResponse {
    if server.fail_ready || server.started.elapsed() < server.ready_after {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    } else {
        (StatusCode::OK, "ok")
    }
}

async fn metrics(State(server): State<Arc<Server>>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &server.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(CONTENT_TYPE, kind)], text)
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}

async fn configure(State(server): State<Arc<Server>>, Json(change): Json<Change>) -> impl IntoResponse {
    if let Some(rate) = change.error_rate {
        if !(0.0..=1.0).contains(&rate) {
            return (StatusCode::BAD_REQUEST, Json(json!({"error": format!("error_rate {rate}: expected 0 to 1")})));
        }
        server.error_rate.store(rate.to_bits(), Ordering::Relaxed);
    }
    if let Some(latency) = change.latency_ms {
        server.latency_ms.store(latency, Ordering::Relaxed);
    }
    let rate = f64::from_bits(server.error_rate.load(Ordering::Relaxed));
    let latency = server.latency_ms.load(Ordering::Relaxed);
    (StatusCode::OK, Json(json!({"error_rate": rate, "latency_ms": latency})))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Job::Exit { code, after }) = arguments.job {
        tokio::time::sleep(Duration::from_millis(after)).await;
        return ExitCode::from(code);
    }
    if let Some(code) = arguments.crash {
        eprintln!("version {} crashes, as it was told to", arguments.version);
        return ExitCode::from(code);
    }
    match serve(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("port {}: {error}", arguments.port);
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: &Arguments) -> std::io::Result<()> {
    // As process 1 of a container it would ignore SIGTERM without a handler.
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let app = axum::Router::new()
        .route("/", get(answer))
        .route(grpc::PATH, post(call))
        .route("/healthz", get(ready))
        .route("/metrics", get(metrics))
        .route("/config", post(configure))
        .with_state(Arc::new(Server::new(arguments)));
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", arguments.port)).await?;
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_spread_evenly() {
        for (rate, expected) in [(0.0, 0), (0.1, 10), (0.5, 50), (1.0, 100)] {
            let arguments = Arguments::parse_from(["testserver", "--error-rate", &rate.to_string()]);
            let server = Server::new(&arguments);
            let failed = (0..100).filter(|_| server.next_fails()).count();
            assert!(failed.abs_diff(expected) <= 1, "{rate}: {failed}");
        }
    }
}
