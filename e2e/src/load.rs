//! Load at a constant rate, counted by version, status and second.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::{grpc, http};

/// At most so many requests wait for their answers; more would measure the machine, not the server.
const IN_FLIGHT: usize = 512;

/// What to ask, and how often.
#[derive(Debug, Clone)]
pub struct Load {
    pub url: String,
    /// The Host header, for a gateway.
    pub host: Option<String>,
    /// Requests a second.
    pub rate: f64,
    /// Requests with these headers beside `Host`.
    pub headers: Vec<(String, String)>,
    /// Calls over gRPC instead of requests; needs a `host`.
    pub grpc: bool,
    /// Sent by this client instead of one of its own; say, one with a connection for each request, for what looks at
    /// connections only.
    pub client: Option<reqwest::Client>,
}

/// What came back in one second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Second {
    /// Answers by the version that gave them.
    pub versions: BTreeMap<String, u64>,
    /// Answers that were no success, and requests without an answer.
    pub errors: u64,
}

/// The sum of a load.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LoadReport {
    /// Requests that were answered or failed; without those still under way.
    pub requests: u64,
    /// Answers by status code.
    pub statuses: BTreeMap<u16, u64>,
    /// Answers (of any status) by the version that gave them.
    pub versions: BTreeMap<String, u64>,
    /// Answers (of any status) by the pod that gave them.
    pub pods: BTreeMap<String, u64>,
    /// Failed requests without an answer, by reason.
    pub failures: BTreeMap<String, u64>,
    /// Requests that were not sent, because too many waited for their answers.
    pub skipped: u64,
    /// By second since the load began, the second in which the answer came.
    pub series: Vec<Second>,
    /// How long answers took, in milliseconds, sorted.
    #[serde(skip)]
    latencies: Vec<u32>,
}

impl LoadReport {
    /// Answers that were no success and requests without an answer: what a user saw as an error.
    pub fn errors(&self) -> u64 {
        let answered: u64 = self.statuses.iter().filter(|(code, _)| **code >= 400).map(|(_, count)| count).sum();
        answered + self.failures.values().sum::<u64>()
    }

    /// The share of the answers, from 0 to 1, that `version` gave.
    pub fn share(&self, version: &str) -> f64 {
        let all: u64 = self.versions.values().sum();
        let own = self.versions.get(version).copied().unwrap_or_default();
        if all == 0 { 0.0 } else { own as f64 / all as f64 }
    }

    /// The share of `version` in the last `seconds` whole seconds.
    pub fn recent_share(&self, version: &str, seconds: usize) -> f64 {
        let end = self.series.len().saturating_sub(1);
        let window = &self.series[end.saturating_sub(seconds)..end];
        let all: u64 = window.iter().flat_map(|second| second.versions.values()).sum();
        let own: u64 = window.iter().filter_map(|second| second.versions.get(version)).sum();
        if all == 0 { 0.0 } else { own as f64 / all as f64 }
    }

    /// The time within which this share (0 to 1) of the answers came.
    pub fn latency(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let index = (sorted.len() as f64 * share).ceil() as usize;
        let found = sorted.get(index.saturating_sub(1)).copied().unwrap_or_default();
        Duration::from_micros(u64::from(found))
    }

    fn second(&mut self, start: Instant) -> &mut Second {
        let index = start.elapsed().as_secs() as usize;
        if self.series.len() <= index {
            self.series.resize(index + 1, Second::default());
        }
        &mut self.series[index]
    }

    fn answered(&mut self, start: Instant, took: Duration, status: u16, from: &http::Answer) {
        let http::Answer { version, pod } = from;
        self.requests += 1;
        *self.statuses.entry(status).or_default() += 1;
        *self.versions.entry(version.clone()).or_default() += 1;
        *self.pods.entry(pod.clone()).or_default() += 1;
        self.latencies.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        let second = self.second(start);
        *second.versions.entry(version.clone()).or_default() += 1;
        if status >= 400 {
            second.errors += 1;
        }
    }

    fn failed(&mut self, start: Instant, reason: &str) {
        self.requests += 1;
        *self.failures.entry(reason.to_owned()).or_default() += 1;
        self.second(start).errors += 1;
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "requests  {}", self.requests)?;
        writeln!(f, "errors    {}", self.errors())?;
        if self.skipped > 0 {
            writeln!(f, "not sent  {} (too many waited for their answers)", self.skipped)?;
        }
        for (version, count) in &self.versions {
            writeln!(f, "version   {version}: {count} ({:.1} %)", self.share(version) * 100.0)?;
        }
        for (status, count) in &self.statuses {
            writeln!(f, "status    {status}: {count}")?;
        }
        for (reason, count) in &self.failures {
            writeln!(f, "failure   {reason}: {count}")?;
        }
        let [half, most, worst] = [0.5, 0.99, 1.0].map(|share| self.latency(share).as_secs_f64() * 1000.0);
        write!(f, "latency   {half:.1} ms half, {most:.1} ms 99 %, {worst:.1} ms all")
    }
}

/// A load that goes on in the background. Ends when dropped.
pub struct RunningLoad {
    counts: Arc<Mutex<Counts>>,
    task: JoinHandle<()>,
}

/// What came back, of all requests and of the last ones.
#[derive(Default)]
struct Counts {
    all: LoadReport,
    /// Of the requests from number `from` on.
    recent: LoadReport,
    from: u64,
    /// How many were sent.
    sent: u64,
}

impl Counts {
    fn reports(&mut self, number: u64) -> impl Iterator<Item = &mut LoadReport> {
        let recent = (number >= self.from).then_some(&mut self.recent);
        std::iter::once(&mut self.all).chain(recent)
    }
}

impl Load {
    fn request(&self, client: &reqwest::Client) -> reqwest::RequestBuilder {
        match &self.host {
            Some(host) if self.grpc => {
                let request = client.post(format!("http://{host}{}", grpc::PATH)).header("te", "trailers");
                request.header("content-type", grpc::CONTENT_TYPE).body(grpc::framed(b"{}"))
            }
            Some(host) => client.get(&self.url).header("host", host),
            None => client.get(&self.url),
        }
    }

    pub fn new(url: &str, host: Option<&str>, rate: f64) -> Self {
        Self {
            url: url.to_owned(),
            host: host.map(str::to_owned),
            rate,
            headers: Vec::new(),
            grpc: false,
            client: None,
        }
    }

    /// Starts to send, on the runtime that is running.
    pub fn start(mut self) -> Result<RunningLoad> {
        anyhow::ensure!(
            self.rate > 0.0 && self.rate <= 20_000.0,
            "rate {}: expected more than 0, up to 20000",
            self.rate
        );
        let client = match (self.client.take(), &self.host, self.grpc) {
            (Some(client), ..) => client,
            (None, _, false) => http::client()?,
            (None, Some(host), true) => http::grpc_client(host, address(&self.url)?)?,
            (None, None, true) => anyhow::bail!("a load of gRPC needs a host"),
        };
        let counts = Arc::new(Mutex::new(Counts::default()));
        let task = tokio::spawn(send(self, client, counts.clone()));
        Ok(RunningLoad { counts, task })
    }

    /// Sends for `duration` and waits for the answers.
    pub async fn run(self, duration: Duration) -> Result<LoadReport> {
        let running = self.start()?;
        tokio::time::sleep(duration).await;
        running.stop().await
    }
}

impl RunningLoad {
    /// What came back so far.
    pub fn report(&self) -> LoadReport {
        lock(&self.counts).all.clone()
    }

    /// From now on, [`RunningLoad::recent`] is about requests that are sent from now on.
    pub fn begin(&self) {
        let mut counts = lock(&self.counts);
        counts.from = counts.sent;
        counts.recent = LoadReport::default();
    }

    /// What came back of the requests that were sent since [`RunningLoad::begin`]: on a busy machine, answers of others
    /// may still come for a while.
    pub fn recent(&self) -> LoadReport {
        lock(&self.counts).recent.clone()
    }

    /// Stops sending, gives what is under way a moment, and returns the sum.
    pub async fn stop(self) -> Result<LoadReport> {
        self.task.abort();
        let start = Instant::now();
        // Each request under way holds a clone of the counts.
        while Arc::strong_count(&self.counts) > 1 && start.elapsed() < Duration::from_secs(12) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(self.report())
    }
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(counts: &Mutex<Counts>) -> std::sync::MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn send(load: Load, client: reqwest::Client, counts: Arc<Mutex<Counts>>) {
    let start = Instant::now();
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / load.rate));
    // A busy machine delays ticks; the rate is kept on average.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        ticks.tick().await;
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            lock(&counts).all.skipped += 1;
            continue;
        };
        let mut request = load.request(&client);
        for (name, value) in &load.headers {
            request = request.header(name, value);
        }
        let counts = counts.clone();
        let number = {
            let mut counts = lock(&counts);
            counts.sent += 1;
            counts.sent - 1
        };
        tokio::spawn(async move {
            let sent = Instant::now();
            let result = answer(request).await;
            for report in lock(&counts).reports(number) {
                match &result {
                    Ok((status, from)) => report.answered(start, sent.elapsed(), *status, from),
                    Err(reason) => report.failed(start, reason),
                }
            }
            drop(permit);
        });
    }
}

/// Where a gateway's URL leads.
fn address(url: &str) -> Result<SocketAddr> {
    let parsed = reqwest::Url::parse(url).with_context(|| url.to_owned())?;
    let found = parsed.socket_addrs(|| None).with_context(|| url.to_owned())?;
    found.into_iter().next().with_context(|| format!("{url} has no address"))
}

/// Status and origin of an answer; an answer that names none is of the version `?`.
async fn answer(request: reqwest::RequestBuilder) -> Result<(u16, http::Answer), String> {
    let response = request.send().await.map_err(|error| reason(&error))?;
    let status = response.status().as_u16();
    let of_grpc = response.headers().get("content-type").is_some_and(|kind| kind == grpc::CONTENT_TYPE);
    let body = response.bytes().await.map_err(|error| reason(&error))?;
    let message = if of_grpc { grpc::message(&body).unwrap_or_default() } else { &body };
    let parsed: Option<http::Answer> = serde_json::from_slice(message).ok();
    Ok((status, parsed.unwrap_or_else(|| http::Answer { version: "?".to_owned(), pod: String::new() })))
}

fn reason(error: &reqwest::Error) -> String {
    let kind = match () {
        () if error.is_timeout() => "no answer in time",
        () if error.is_connect() => "no connection",
        () => "connection broken",
    };
    kind.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_errors() {
        let start = Instant::now();
        let mut report = LoadReport::default();
        let from = |version: &str| http::Answer { version: version.to_owned(), pod: format!("pod-of-{version}") };
        for _ in 0..9 {
            report.answered(start, Duration::from_millis(1), 200, &from("1"));
        }
        report.answered(start, Duration::from_millis(50), 500, &from("2"));
        report.failed(start, "no connection");
        assert_eq!((report.requests, report.errors()), (11, 2));
        assert_eq!((report.pods["pod-of-1"], report.pods["pod-of-2"]), (9, 1));
        assert!((report.share("1") - 0.9).abs() < 1e-9);
        assert_eq!(report.series[0].errors, 2);
        assert_eq!(report.latency(1.0), Duration::from_millis(50));
        assert_eq!(report.latency(0.5), Duration::from_millis(1));
        // The second that is not over yet does not count as recent.
        assert_eq!(report.recent_share("1", 3), 0.0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_rate_is_kept_and_answers_are_counted() {
        let app = axum::Router::new().fallback(|| async { r#"{"version":"7","pod":"p"}"# });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        let report = Load::new(&url, None, 100.0).run(Duration::from_secs(1)).await.unwrap();
        server.abort();
        assert!((80..=120).contains(&report.requests), "{report}");
        assert_eq!((report.errors(), report.versions["7"]), (0, report.requests), "{report}");
    }

    #[test]
    fn answers_of_earlier_requests_are_not_recent() {
        let mut counts = Counts { from: 2, ..Counts::default() };
        for number in [0, 2, 1, 3] {
            counts.reports(number).for_each(|report| report.failed(Instant::now(), "no connection"));
        }
        assert_eq!((counts.all.requests, counts.recent.requests), (4, 2));
    }

    #[tokio::test]
    async fn requests_without_an_answer_are_errors() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let report = Load::new(&url, None, 50.0).run(Duration::from_millis(300)).await.unwrap();
        assert!(report.requests > 0);
        assert_eq!(report.failures.get("no connection"), Some(&report.requests), "{report}");
    }
}
