//! The loop around every reconciler, written once: a queue of keys, retries with back-off, and a limit of concurrency.

use crate::cache::{Key, Store};
use crate::metrics::Metrics;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// First delay after an error.
const BACKOFF_BASE: Duration = Duration::from_millis(50);
/// Longest delay after errors.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

#[derive(Default)]
struct State {
    /// Waiting to be worked on, in order, without duplicates.
    ready: VecDeque<Key>,
    queued: HashSet<Key>,
    /// Being worked on.
    active: HashSet<Key>,
    /// Asked for while being worked on.
    again: HashSet<Key>,
    /// Asked for at a time; the earliest of a key counts.
    timers: BinaryHeap<Reverse<(Instant, Key)>>,
    due: HashMap<Key, Instant>,
    /// Errors in a row.
    failures: HashMap<Key, u32>,
    /// How often a key was put into the queue.
    adds: u64,
    /// How often one was put there because its pass failed.
    retries: u64,
    closed: bool,
}

impl State {
    fn push(&mut self, key: Key) -> bool {
        let is_new = self.queued.insert(key.clone());
        if is_new {
            self.adds += 1;
            self.ready.push_back(key);
        }
        is_new
    }
}

/// Keys to work on. Each is worked on by one task at a time; asking twice is asking once.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    wake: Notify,
}

impl Queue {
    /// An empty queue.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks for `key` as soon as possible.
    pub fn add(&self, key: Key) {
        let mut state = self.lock();
        if state.active.contains(&key) {
            state.again.insert(key);
        } else if state.push(key) {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Asks for `key` after `delay`. An earlier time that was asked for stays.
    pub fn add_after(&self, key: Key, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        let mut state = self.lock();
        if state.due.get(&key).is_some_and(|due| *due <= at) {
            return;
        }
        state.due.insert(key.clone(), at);
        state.timers.push(Reverse((at, key)));
        drop(state);
        self.wake.notify_one();
    }

    /// Asks for `key` after a delay that grows with each error in a row; returns the delay.
    fn retry(&self, key: Key) -> Duration {
        let failures = {
            let mut state = self.lock();
            let count = state.failures.entry(key.clone()).or_insert(0);
            *count = count.saturating_add(1);
            let count = *count;
            state.retries += 1;
            count
        };
        let delay = backoff(failures);
        self.add_after(key, delay);
        delay
    }

    fn forget(&self, key: &Key) {
        self.lock().failures.remove(key);
    }

    fn done(&self, key: &Key) {
        let mut state = self.lock();
        state.active.remove(key);
        if state.again.remove(key) {
            state.push(key.clone());
        }
        drop(state);
        self.wake.notify_one();
    }

    /// No more keys are handed out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_waiters();
        self.wake.notify_one();
    }

    /// How many keys wait.
    pub fn depth(&self) -> usize {
        self.lock().ready.len()
    }

    /// How many keys are being worked on.
    pub fn active(&self) -> usize {
        self.lock().active.len()
    }

    fn report(&self, name: &str, metrics: &Metrics) {
        let (depth, adds, retries) = {
            let state = self.lock();
            (state.ready.len(), state.adds, state.retries)
        };
        let labels = [("name", name)];
        metrics.set("workqueue_depth", "Objects that wait for a pass.", &labels, depth as f64);
        metrics.total("workqueue_adds_total", "How often an object was put into the queue.", &labels, adds as f64);
        metrics.total("workqueue_retries_total", "Passes to be tried again.", &labels, retries as f64);
    }

    /// The next key; `None` when the queue is closed.
    async fn next(&self) -> Option<Key> {
        loop {
            let until = {
                let mut state = self.lock();
                if state.closed {
                    return None;
                }
                let now = Instant::now();
                while state.timers.peek().is_some_and(|Reverse((at, _))| *at <= now) {
                    let Some(Reverse((at, key))) = state.timers.pop() else { break };
                    if state.due.get(&key) != Some(&at) {
                        continue;
                    }
                    state.due.remove(&key);
                    if state.active.contains(&key) {
                        state.again.insert(key);
                    } else {
                        state.push(key);
                    }
                }
                if let Some(key) = state.ready.pop_front() {
                    state.queued.remove(&key);
                    state.active.insert(key.clone());
                    return Some(key);
                }
                state.timers.peek().map(|Reverse((at, _))| *at)
            };
            match until {
                Some(at) => {
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => self.wake.notified().await,
            }
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_BASE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(BACKOFF_MAX)
}

/// What a reconciliation says to the loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// When to look again, if nothing happens before.
    pub after: Option<Duration>,
}

impl Next {
    /// Look again only when something happens.
    pub const WAIT: Self = Self { after: None };

    /// Look again after this time.
    pub fn after(delay: Duration) -> Self {
        Self { after: Some(delay) }
    }

    /// Look again within `limit` in any case: everything is looked at now and then, and what is right is not written.
    pub fn within(self, limit: Duration) -> Self {
        Self::after(self.after.map_or(limit, |after| after.min(limit)))
    }
}

/// What is stale for longer than such a delay is a mistake, and is told.
const LASTING: Duration = Duration::from_secs(2);

/// Why a reconciliation did not get through.
#[derive(Debug)]
pub enum Failure {
    /// Somebody else wrote in between or took an object away, or a cache is not up to date. Tried again at once, without
    /// noise unless it lasts.
    Stale(String),
    /// Anything else. Logged and tried again with a growing delay.
    Error(String),
}

impl From<crate::api::ApiError> for Failure {
    fn from(error: crate::api::ApiError) -> Self {
        match error {
            crate::api::ApiError::Conflict(message) | crate::api::ApiError::NotFound(message) => Self::Stale(message),
            other => Self::Error(other.to_string()),
        }
    }
}

/// The families in which passes over one kind are counted by object.
#[derive(Clone, Copy, Debug)]
pub struct Passes {
    /// Seconds that they took.
    pub time: &'static str,
    /// How many failed.
    pub errors: &'static str,
}

impl Passes {
    /// Counts `pass` over the object `key` of `store`.
    ///
    /// # Errors
    /// Those of the pass.
    pub async fn count(
        self,
        metrics: &Metrics,
        store: &Store,
        key: &Key,
        pass: impl Future<Output = Result<Next, Failure>>,
    ) -> Result<Next, Failure> {
        let begun = Instant::now();
        let result = pass.await;
        // A pass that finds no object leaves no series behind.
        if store.contains(key) {
            let labels = [("namespace", &*key.namespace), ("name", &*key.name)];
            let failed = if result.is_err() { 1.0 } else { 0.0 };
            metrics.observe(self.time, "Seconds that a pass took.", &labels, begun.elapsed().as_secs_f64());
            metrics.count(self.errors, "Passes that failed.", &labels, failed);
        }
        result
    }
}

/// Works on `queue` until it is closed, at most `concurrency` keys at a time. What is under way then is finished.
pub async fn run<F, Fut>(name: &'static str, queue: Arc<Queue>, concurrency: usize, metrics: Arc<Metrics>, reconcile: F)
where
    F: Fn(Key) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Next, Failure>> + Send + 'static,
{
    let reconcile = Arc::new(reconcile);
    let reported = Arc::downgrade(&queue);
    metrics.before_render(move |metrics| {
        if let Some(queue) = reported.upgrade() {
            queue.report(name, metrics);
        }
    });
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..concurrency.max(1) {
        let (queue, reconcile) = (Arc::clone(&queue), Arc::clone(&reconcile));
        workers.spawn(async move {
            while let Some(key) = queue.next().await {
                // A task of its own: a panic in one object's reconciliation must not take the worker along.
                let outcome = tokio::spawn(reconcile(key.clone())).await;
                match outcome {
                    Ok(Ok(next)) => {
                        queue.forget(&key);
                        if let Some(after) = next.after {
                            queue.add_after(key.clone(), after);
                        }
                    }
                    Ok(Err(Failure::Stale(why))) => {
                        let delay = queue.retry(key.clone());
                        if delay >= LASTING {
                            tracing::warn!(controller = name, %key, ?delay, error = why, "Cannot reconcile; trying again.");
                        } else {
                            tracing::debug!(controller = name, %key, ?delay, why, "Somebody else wrote in between; trying again.");
                        }
                    }
                    Ok(Err(Failure::Error(why))) => {
                        let delay = queue.retry(key.clone());
                        tracing::warn!(controller = name, %key, ?delay, error = why, "Cannot reconcile; trying again.");
                    }
                    Err(crash) => {
                        let delay = queue.retry(key.clone());
                        tracing::error!(controller = name, %key, ?delay, error = %crash, "Reconciliation crashed; trying again.");
                    }
                }
                queue.done(&key);
            }
            queue.wake.notify_one();
        });
    }
    while workers.join_next().await.is_some() {}
}

/// Asks for every key of `keys`, spread over `over`, so that a restart is no stampede.
pub fn resync(queue: &Queue, keys: BTreeSet<Key>, over: Duration) {
    let count = u32::try_from(keys.len()).unwrap_or(u32::MAX).max(1);
    for (i, key) in keys.into_iter().enumerate() {
        queue.add_after(key, over / count * u32::try_from(i).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_key_is_worked_on_once_at_a_time_and_again_when_asked_meanwhile() {
        let queue = Queue::new();
        let (running, most, total) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let worker = tokio::spawn(run("test", Arc::clone(&queue), 4, Arc::default(), {
            let (running, most, total) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&total));
            move |_| {
                let (running, most, total) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&total));
                async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    total.fetch_add(1, Ordering::SeqCst);
                    Ok(Next::WAIT)
                }
            }
        }));
        let key = Key::new("a", "x");
        queue.add(key.clone());
        queue.add(key.clone());
        tokio::time::sleep(Duration::from_millis(5)).await;
        queue.add(key.clone());
        queue.add(key);
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.close();
        worker.await.unwrap();
        assert_eq!(most.load(Ordering::SeqCst), 1);
        assert_eq!(total.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_retried_ever_more_slowly() {
        let queue = Queue::new();
        let total = Arc::new(AtomicUsize::new(0));
        let worker = tokio::spawn(run("test", Arc::clone(&queue), 1, Arc::default(), {
            let total = Arc::clone(&total);
            move |_| {
                total.fetch_add(1, Ordering::SeqCst);
                async { Err(Failure::Error("no".into())) }
            }
        }));
        queue.add(Key::new("a", "x"));
        tokio::time::sleep(Duration::from_secs(60)).await;
        queue.close();
        worker.await.unwrap();
        let total = total.load(Ordering::SeqCst);
        assert!((8..=13).contains(&total), "{total} attempts in a minute");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_time_that_was_asked_for_counts() {
        let queue = Queue::new();
        let key = Key::new("a", "x");
        queue.add_after(key.clone(), Duration::from_secs(10));
        queue.add_after(key.clone(), Duration::from_secs(2));
        queue.add_after(key.clone(), Duration::from_secs(30));
        let start = Instant::now();
        assert_eq!(queue.next().await, Some(key.clone()));
        assert_eq!(start.elapsed().as_secs(), 2);
    }
}
