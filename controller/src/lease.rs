//! Leader election by a Lease.
//!
//! Every write is fenced by the Lease's resourceVersion, so that two holders are impossible. Whether another holder is
//! silent is judged by our own clock since we last saw the Lease change; clocks of other machines play no part.

use crate::api::{Api, ApiError, resources};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How the Lease is held.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who we are; unique among all candidates.
    pub identity: String,
    /// How long the holder may be silent.
    pub duration: Duration,
    /// How long we try to renew before we give up.
    pub renew_deadline: Duration,
    /// How long we wait between two tries.
    pub retry: Duration,
}

/// A candidate for a Lease.
pub struct Election {
    api: Arc<dyn Api>,
    options: LeaseOptions,
    /// The version of another holder's Lease, and when we first saw it.
    seen: Option<(String, Instant)>,
}

/// What one try came to.
#[derive(Debug, PartialEq, Eq)]
enum Try {
    Held,
    Other(String),
}

impl Election {
    /// A candidate.
    pub fn new(api: Arc<dyn Api>, options: LeaseOptions) -> Self {
        Self { api, options, seen: None }
    }

    /// Waits until the Lease is ours. Returns when the try began that took it: others count from no earlier moment.
    pub async fn acquire(&mut self) -> Instant {
        let mut told = String::new();
        loop {
            let began = Instant::now();
            match self.attempt().await {
                // An answer that was so long under way may tell of a Lease that has run out since.
                Ok(Try::Held) if began.elapsed() < self.options.renew_deadline => {
                    tracing::info!(lease = self.options.name, identity = self.options.identity, "Leads from now on.");
                    return began;
                }
                Ok(Try::Other(holder)) => {
                    if holder != told {
                        tracing::info!(lease = self.options.name, holder, "Stands by: another process leads.");
                        told = holder;
                    }
                }
                Ok(Try::Held) => {
                    tracing::warn!(lease = self.options.name, "Taking the Lease took too long; trying again.");
                }
                Err(error) => tracing::warn!(lease = self.options.name, %error, "Cannot take the Lease; trying again."),
            }
            tokio::time::sleep(self.options.retry).await;
        }
    }

    /// Keeps the Lease that was renewed last by a try that began at `renewed`; returns when it is lost, with the reason.
    pub async fn keep(&mut self, mut renewed: Instant) -> String {
        let deadline = self.options.renew_deadline;
        loop {
            tokio::time::sleep(self.options.retry).await;
            let began = Instant::now();
            let left = deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(Ok(Try::Held)) => renewed = began,
                Ok(Ok(Try::Other(holder))) => return format!("{holder} holds the Lease now"),
                Ok(Err(error)) => tracing::warn!(lease = self.options.name, %error, "Cannot renew the Lease."),
                Err(_) => tracing::warn!(lease = self.options.name, "Renewing the Lease takes too long."),
            }
            if renewed.elapsed() >= deadline {
                return format!("the Lease could not be renewed for {deadline:?}");
            }
        }
    }

    /// Gives the Lease up, so that another process need not wait.
    pub async fn release(&self) {
        let LeaseOptions { namespace, name, identity, .. } = &self.options;
        let Ok(mut lease) = self.api.get(&resources::LEASE, namespace, name).await else { return };
        if lease.pointer("/spec/holderIdentity").and_then(Value::as_str) != Some(identity) {
            return;
        }
        lease["spec"]["holderIdentity"] = "".into();
        lease["spec"]["leaseDurationSeconds"] = 1.into();
        if let Err(error) = self.api.replace(&resources::LEASE, namespace, name, &lease).await {
            tracing::debug!(lease = name, %error, "Cannot give the Lease up; it runs out by itself.");
        }
    }

    async fn attempt(&mut self) -> Result<Try, ApiError> {
        let (namespace, name, identity) =
            (self.options.namespace.clone(), self.options.name.clone(), self.options.identity.clone());
        let now = format!("{:.6}", Timestamp::now());
        let seconds = self.options.duration.as_secs();
        let found = match self.api.get(&resources::LEASE, &namespace, &name).await {
            Err(ApiError::NotFound(_)) => {
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": name, "namespace": namespace},
                    "spec": {"holderIdentity": identity, "leaseDurationSeconds": seconds, "acquireTime": now,
                        "renewTime": now, "leaseTransitions": 0},
                });
                return match self.api.create(&resources::LEASE, &namespace, &lease, false).await {
                    Ok(_) => Ok(Try::Held),
                    Err(ApiError::AlreadyExists(_)) => Ok(Try::Other("another process".to_owned())),
                    Err(error) => Err(error),
                };
            }
            other => other?,
        };
        let text = |pointer: &str| found.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let holder = text("/spec/holderIdentity");
        let mut lease = found.clone();
        if holder != identity {
            let version = text("/metadata/resourceVersion");
            if self.seen.as_ref().is_none_or(|(v, _)| *v != version) {
                self.seen = Some((version, Instant::now()));
            }
            let theirs = found.pointer("/spec/leaseDurationSeconds").and_then(Value::as_u64).unwrap_or(seconds);
            let silent = self.seen.as_ref().is_some_and(|(_, since)| since.elapsed() >= Duration::from_secs(theirs));
            if !holder.is_empty() && !silent {
                return Ok(Try::Other(holder));
            }
            let transitions = found.pointer("/spec/leaseTransitions").and_then(Value::as_i64).unwrap_or(0);
            lease["spec"]["acquireTime"] = now.as_str().into();
            lease["spec"]["leaseTransitions"] = (transitions + 1).into();
        }
        lease["spec"]["holderIdentity"] = identity.as_str().into();
        lease["spec"]["leaseDurationSeconds"] = seconds.into();
        lease["spec"]["renewTime"] = now.as_str().into();
        match self.api.replace(&resources::LEASE, &namespace, &name, &lease).await {
            Ok(_) => Ok(Try::Held),
            // Who holds it already may have met a try of its own that came late: the next one tells.
            Err(ApiError::Conflict(_)) if holder != identity => Ok(Try::Other("another process".to_owned())),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
