//! When an application is compared again, and how thoroughly.

use jiff::Timestamp;
use std::time::Duration;
use tidegate_crds::application::{Application, ComparedTo};

/// Annotation that asks for a comparison: `normal` or `hard`.
pub const REFRESH: &str = "argocd.argoproj.io/refresh";
/// Annotation that keeps the controller away.
pub const SKIP_RECONCILE: &str = "argocd.argoproj.io/skip-reconcile";
/// Annotation with the time until which deletions are approved.
pub const DELETION_APPROVED: &str = "argocd.argoproj.io/deletion-approved";

/// How thoroughly to compare, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing but the live state changed in a way that cannot make a difference.
    Tree,
    /// With the revision that was resolved last.
    Recent,
    /// With the latest revision, as far as it is known.
    Latest,
    /// With the latest revision, asked for anew.
    LatestForced,
}

/// Why an application is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// How thoroughly.
    pub level: Level,
    /// Caches of manifests are not believed.
    pub hard: bool,
    /// Why.
    pub reason: &'static str,
}

/// What the decision depends on, besides the Application.
#[derive(Clone, Copy, Debug)]
pub struct RefreshState<'a> {
    /// The Application.
    pub app: &'a Application,
    /// What something in this process asked for: a changed object, a webhook, an operation that ended.
    pub requested: Option<Level>,
    /// When this process compared the last time; later than `status.reconciledAt` when nothing had to be written.
    pub compared_at: Option<Timestamp>,
    /// How long a comparison is good for; zero for ever.
    pub expiry: Duration,
    /// How long manifests are good for; zero for ever.
    pub hard_expiry: Duration,
    /// When manifests were made without caches the last time.
    pub last_hard: Option<Timestamp>,
}

/// What the specification asks to compare.
pub fn compared_to(app: &Application) -> ComparedTo {
    let sources = app.spec.sources();
    let several = app.spec.source_hydrator.is_none() && !app.spec.sources.is_empty();
    ComparedTo {
        source: if several { None } else { sources.first().cloned() },
        sources: if several { sources.into_owned() } else { Vec::new() },
        destination: app.spec.destination.clone(),
        ignore_differences: app.spec.ignore_differences.clone(),
    }
}

/// Whether and how to compare now. `None`: the stored comparison stands.
pub fn decide_refresh(state: &RefreshState<'_>, now: Timestamp) -> Option<Refresh> {
    let refresh = |level, hard, reason| Some(Refresh { level, hard, reason });
    let annotation = state.app.metadata.annotations.as_ref().and_then(|a| a.get(REFRESH)).map(String::as_str);
    match annotation {
        Some("hard") => return refresh(Level::LatestForced, true, "a hard refresh is asked for"),
        Some(_) => return refresh(Level::LatestForced, false, "a refresh is asked for"),
        None => {}
    }
    let status = &state.app.status;
    let Some(compared) = status.sync.as_ref().and_then(|s| s.compared_to.as_ref()) else {
        return refresh(Level::LatestForced, false, "it was never compared");
    };
    let wanted = compared_to(state.app);
    if (&compared.source, &compared.sources) != (&wanted.source, &wanted.sources) {
        return refresh(Level::LatestForced, false, "its source changed");
    }
    if compared.destination != wanted.destination {
        return refresh(Level::LatestForced, false, "its destination changed");
    }
    if compared.ignore_differences != wanted.ignore_differences {
        return refresh(Level::LatestForced, false, "its ignored differences changed");
    }
    let is_over = |since: Option<Timestamp>, expiry: Duration| {
        !expiry.is_zero() && since.is_none_or(|since| since.checked_add(expiry).is_ok_and(|until| until <= now))
    };
    if state.last_hard.is_some() && is_over(state.last_hard, state.hard_expiry) {
        return refresh(Level::LatestForced, true, "its manifests are old");
    }
    if is_over(status.reconciled_at.as_ref().map(|t| t.0).max(state.compared_at), state.expiry) {
        return refresh(Level::Latest, false, "its comparison is old");
    }
    state.requested.and_then(|level| refresh(level, false, "something changed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn app(extra: Value) -> Application {
        let mut value = json!({
            "metadata": {"name": "a"},
            "spec": {"source": {"repoURL": "r"}, "destination": {"name": "in-cluster"}},
            "status": {"reconciledAt": "2026-01-01T10:00:00Z", "sync": {"status": "Synced",
                "comparedTo": {"source": {"repoURL": "r"}, "destination": {"name": "in-cluster"}}}},
        });
        tidegate_crds::patch::merge_apply(&mut value, &extra);
        Application::decode(value).expect("application").0
    }

    fn decide(extra: Value, requested: Option<Level>, after: u64) -> Option<(Level, bool)> {
        let app = app(extra);
        let start: Timestamp = "2026-01-01T10:00:00Z".parse().expect("time");
        let state = RefreshState {
            app: &app,
            requested,
            compared_at: None,
            expiry: Duration::from_secs(120),
            hard_expiry: Duration::from_secs(1000),
            last_hard: Some(start),
        };
        decide_refresh(&state, start + Duration::from_secs(after)).map(|r| (r.level, r.hard))
    }

    #[test]
    fn levels() {
        use Level::{Latest, LatestForced, Recent};
        for (extra, requested, after, expected) in [
            (json!({}), None, 1, None),
            (json!({}), Some(Recent), 1, Some((Recent, false))),
            (json!({}), None, 120, Some((Latest, false))),
            (json!({}), None, 1000, Some((LatestForced, true))),
            (json!({"metadata": {"annotations": {REFRESH: "normal"}}}), None, 1, Some((LatestForced, false))),
            (json!({"metadata": {"annotations": {REFRESH: "hard"}}}), None, 1, Some((LatestForced, true))),
            (json!({"spec": {"source": {"path": "p"}}}), None, 1, Some((LatestForced, false))),
            (json!({"spec": {"destination": {"namespace": "n"}}}), None, 1, Some((LatestForced, false))),
            (json!({"spec": {"ignoreDifferences": [{"kind": "X"}]}}), None, 1, Some((LatestForced, false))),
            (json!({"status": {"sync": null}}), None, 1, Some((LatestForced, false))),
            (json!({"status": {"reconciledAt": null}}), None, 1, Some((Latest, false))),
        ] {
            assert_eq!(decide(extra.clone(), requested, after), expected, "{extra} {after}");
        }
    }
}
