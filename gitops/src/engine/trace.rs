//! What renderings looked at, and what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Freshness;
use crate::cache::Lru;
use crate::render::{Dependency, RenderError, Rendered};

/// How many results of one set of parameters are remembered: the newest, and what a rollback goes back to.
const PER_PARAMETERS: usize = 4;
/// The first pause after a failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause after failures that keep coming.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// One rendering. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Trace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    seen: BTreeMap<Dependency, String>,
    outcome: Outcome,
    at: Instant,
}

/// What came of a rendering.
#[derive(Debug)]
pub(super) enum Outcome {
    Rendered { rendered: Rendered, key: String, weight: usize, expires: Option<Instant> },
    Failed { error: RenderError, pause: Duration },
}

impl Outcome {
    pub fn rendered(rendered: Rendered, key: String, weight: usize, expires: Option<Instant>) -> Outcome {
        Outcome::Rendered { rendered, key, weight, expires }
    }

    /// `before` is the pause after the same failure the last time.
    pub fn failed(error: RenderError, before: Option<Duration>) -> Outcome {
        let pause = before.map_or(FIRST_PAUSE, |before| (before * 2).min(LONGEST_PAUSE));
        Outcome::Failed { error, pause }
    }
}

impl Trace {
    pub fn new(seen: BTreeMap<Dependency, String>, outcome: Outcome) -> Trace {
        Trace(Arc::new(Inner { seen, outcome, at: Instant::now() }))
    }

    /// What was looked at, and how it was.
    pub fn seen(&self) -> &BTreeMap<Dependency, String> {
        &self.0.seen
    }

    /// The remembered result, if it is good for a request like this.
    pub fn answer(&self, freshness: Freshness) -> Option<Result<(Rendered, String), RenderError>> {
        let inner = &self.0;
        if let Freshness::Hard(since) = freshness
            && inner.at < since
        {
            return None;
        }
        match &inner.outcome {
            Outcome::Rendered { expires: Some(expires), .. } if *expires <= Instant::now() => None,
            Outcome::Rendered { rendered, key, .. } => Some(Ok((rendered.clone(), key.clone()))),
            Outcome::Failed { error, pause } => {
                let asked_for = freshness.since().is_some_and(|since| inner.at < since);
                (!asked_for && inner.at.elapsed() < *pause).then(|| Err(error.clone()))
            }
        }
    }

    /// The pause after this failure.
    pub fn pause(&self) -> Option<Duration> {
        match &self.0.outcome {
            Outcome::Failed { pause, .. } => Some(*pause),
            Outcome::Rendered { .. } => None,
        }
    }

    fn weight(&self) -> usize {
        let seen: usize = self.0.seen.iter().map(|(d, value)| d.path.len() + value.len() + 112).sum();
        let outcome = match &self.0.outcome {
            Outcome::Rendered { weight, .. } => *weight,
            Outcome::Failed { error, .. } => error.to_string().len(),
        };
        seen + outcome + 128
    }
}

/// Traces by parameters, newest first, bounded in bytes.
#[derive(Debug)]
pub(super) struct Traces(Lru<String, Vec<Trace>>);

impl Traces {
    pub fn new(limit: usize) -> Traces {
        Traces(Lru::new(limit))
    }

    pub fn candidates(&mut self, parameters: &str) -> Vec<Trace> {
        self.0.get(parameters).map(|traces| traces.clone()).unwrap_or_default()
    }

    /// Moves a trace that was good to the front.
    pub fn touch(&mut self, parameters: &str, trace: &Trace) {
        if let Some(traces) = self.0.get(parameters)
            && let Some(at) = traces.iter().position(|known| Arc::ptr_eq(&known.0, &trace.0))
        {
            traces[..=at].rotate_right(1);
        }
    }

    /// Puts a trace in front of the others and in place of those that looked at the same and found the same.
    pub fn remember(&mut self, parameters: String, trace: Trace) {
        let mut traces = self.0.remove(&parameters).unwrap_or_default();
        traces.retain(|known| known.seen() != trace.seen());
        traces.insert(0, trace);
        traces.truncate(PER_PARAMETERS);
        let weight = traces.iter().map(Trace::weight).sum();
        self.0.insert(parameters, traces, weight);
    }

    /// Bytes that all of them take.
    pub fn weight(&self) -> usize {
        self.0.weight()
    }
}
