//! Revisions that a rollout rejected.
//!
//! When a Rollout of an application is aborted, the revision that brought the aborted version is remembered in an
//! annotation of the Application: auto-sync and self-heal do not apply it again. A new commit (another tree hash of the
//! application's paths) clears it, and so does a sync that a user asks for explicitly.

use crate::object;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_crds::application::{Operation, OperationState};

/// Annotation of an Application: a JSON list of [`Rejection`]s.
pub const REJECTED: &str = "tidegate.io/rejected-revisions";
/// The condition that tells of it.
pub const CONDITION: &str = "RejectedRevisionWarning";
/// How many are remembered.
const LIMIT: usize = 10;

/// A revision and why it is not applied again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rejection {
    /// The commits, one per source.
    pub revisions: Vec<String>,
    /// Hash of what the sources read in those commits; empty when it is not known.
    pub tree: String,
    /// `namespace/name` of the Rollout.
    pub rollout: String,
    /// Why it was aborted.
    pub message: String,
    /// When this was noticed.
    pub time: Option<Timestamp>,
    /// `status.abortedAt` of the Rollout.
    pub aborted_at: String,
    /// A user asked for the revision in spite of it, so it keeps nothing from being applied. Remembered so that the same
    /// abort does not reject the revision again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
}

/// What sources lead to: the commits, and a hash of what is read of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The commits, one per source.
    pub revisions: Vec<String>,
    /// Hash of what the sources read; empty when it is not known.
    pub tree: String,
}

impl Rejection {
    /// Whether this is about `content`: the same tree, or the same commits when trees are not known.
    pub fn is_about(&self, content: &Content) -> bool {
        if self.tree.is_empty() || content.tree.is_empty() {
            return !content.revisions.is_empty() && self.revisions == content.revisions;
        }
        self.tree == content.tree
    }

    /// What the Application's condition says.
    pub fn condition(&self) -> String {
        let revisions = self.revisions.join(", ");
        let why = if self.message.is_empty() { String::new() } else { format!(": {}", self.message) };
        format!(
            "Revision {revisions} is rejected: Rollout {} was aborted{why}. It is not applied again until a new commit changes the manifests or the revision is synced explicitly.",
            self.rollout
        )
    }
}

/// Reads the annotation. What cannot be read counts as nothing, as somebody must have written it by hand.
pub fn read(annotation: Option<&str>) -> Vec<Rejection> {
    annotation.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The annotation for `rejections`; `None` to remove it.
pub fn write(rejections: &[Rejection]) -> Option<String> {
    if rejections.is_empty() { None } else { serde_json::to_string(rejections).ok() }
}

/// The rejection that keeps `content` from being applied.
pub fn find<'a>(rejections: &'a [Rejection], content: &Content) -> Option<&'a Rejection> {
    rejections.iter().find(|r| !r.accepted && r.is_about(content))
}

/// The rejections after a user asked for `content` in spite of them.
pub fn accept(rejections: &[Rejection], content: &Content) -> Vec<Rejection> {
    let accept = |r: &Rejection| Rejection { accepted: r.accepted || r.is_about(content), ..r.clone() };
    rejections.iter().map(accept).collect()
}

/// An aborted Rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// `namespace/name`
    pub rollout: String,
    /// Why.
    pub message: String,
    /// `status.abortedAt`, which tells one abort from the next.
    pub at: String,
}

/// Whether this live Rollout is aborted, and why. A status that is about an older specification says nothing.
pub fn aborted(live: &Value) -> Option<Aborted> {
    if object::group(live) != "argoproj.io" || object::kind(live) != "Rollout" || object::is_deleting(live) {
        return None;
    }
    let generation = object::integer(live, "/metadata/generation");
    if generation.is_some_and(|g| g.to_string() != object::text(live, "/status/observedGeneration")) {
        return None;
    }
    let is_reason =
        |c: &&Value| object::text(c, "/type") == "Progressing" && object::text(c, "/reason") == "RolloutAborted";
    let condition = object::list(live, "/status/conditions").iter().find(is_reason);
    let flag = live.pointer("/status/abort").and_then(Value::as_bool) == Some(true);
    if !flag && condition.is_none() {
        return None;
    }
    let message = condition.map(|c| object::text(c, "/message")).filter(|m| !m.is_empty());
    Some(Aborted {
        rollout: format!("{}/{}", object::namespace(live), object::name(live)),
        message: message.unwrap_or_else(|| object::text(live, "/status/message")).to_owned(),
        at: object::text(live, "/status/abortedAt").to_owned(),
    })
}

/// What rejections depend on.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// What the sources lead to now; `None` when they could not be read.
    pub desired: Option<&'a Content>,
    /// The commits of the last operation that applied anything.
    pub synced: &'a [String],
    /// The live objects are what `desired` says.
    pub in_sync: bool,
    /// The aborted Rollouts of the application.
    pub aborted: &'a [Aborted],
}

/// The rejections after looking at the cluster.
pub fn update(rejections: &[Rejection], seen: &Observation<'_>, now: Timestamp) -> Vec<Rejection> {
    let Some(desired) = seen.desired else { return rejections.to_vec() };
    // A new commit clears what was said about another one.
    let mut next: Vec<Rejection> = rejections.iter().filter(|r| r.is_about(desired)).cloned().collect();
    let is_applied = seen.in_sync || (!desired.revisions.is_empty() && desired.revisions == seen.synced);
    // A rollout that goes on with the very manifests of the revision was retried by somebody, who thereby accepts it.
    // When the live object is another one (undone, edited), the revision stays rejected.
    if seen.in_sync && seen.aborted.is_empty() {
        next.clear();
    }
    if is_applied {
        for aborted in seen.aborted {
            let known = |r: &Rejection| r.rollout == aborted.rollout && (!r.accepted || r.aborted_at == aborted.at);
            if next.iter().any(known) {
                continue;
            }
            next.retain(|r| r.rollout != aborted.rollout);
            next.push(Rejection {
                revisions: desired.revisions.clone(),
                tree: desired.tree.clone(),
                rollout: aborted.rollout.clone(),
                message: aborted.message.clone(),
                time: Some(now),
                aborted_at: aborted.at.clone(),
                accepted: false,
            });
        }
    }
    if next.len() > LIMIT {
        next.drain(..next.len() - LIMIT);
    }
    next
}

/// Whether a user's operation asks for `rejection`'s revision in spite of everything.
pub fn is_overruled(rejection: &Rejection, operation: &Operation, content: &Content) -> bool {
    let automated = operation.initiated_by.as_ref().is_some_and(|by| by.automated);
    let is_sync = operation.sync.as_ref().is_some_and(|sync| !sync.dry_run);
    !automated && is_sync && rejection.is_about(content)
}

/// The commits that the last operation applied.
pub fn synced_revisions(state: Option<&OperationState>) -> Vec<String> {
    let Some(result) = state.and_then(|s| s.sync_result.as_ref()) else { return Vec::new() };
    if !result.revisions.is_empty() {
        return result.revisions.clone();
    }
    if result.revision.is_empty() { Vec::new() } else { vec![result.revision.clone()] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-01-01T10:00:00Z".parse().expect("time")
    }

    fn content(revision: &str, tree: &str) -> Content {
        Content { revisions: vec![revision.into()], tree: tree.into() }
    }

    fn bad() -> Vec<Aborted> {
        vec![Aborted { rollout: "ns/web".into(), message: "metric failed".into(), at: "1".into() }]
    }

    fn look(
        before: &[Rejection],
        desired: &Content,
        synced: &str,
        in_sync: bool,
        aborted: &[Aborted],
    ) -> Vec<Rejection> {
        let synced = [synced.to_owned()];
        update(before, &Observation { desired: Some(desired), synced: &synced, in_sync, aborted }, now())
    }

    #[test]
    fn an_aborted_rollout_rejects_the_revision_that_was_applied() {
        let b = content("b", "tree-b");
        let rejected = look(&[], &b, "b", true, &bad());
        assert_eq!(rejected.len(), 1);
        assert!(find(&rejected, &b).is_some());
        let text = rejected[0].condition();
        for part in ["Revision b", "Rollout ns/web", "metric failed", "synced explicitly"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(
            look(&rejected, &b, "b", false, &bad()),
            rejected,
            "said once, and not forgotten when the live object differs"
        );
        assert_eq!(
            look(&[], &content("c", "tree-c"), "b", false, &bad()),
            [],
            "not the fault of a commit that was never applied"
        );
    }

    #[test]
    fn a_commit_elsewhere_in_the_repository_clears_nothing() {
        let rejected = look(&[], &content("b", "tree-b"), "b", true, &bad());
        let elsewhere = content("b2", "tree-b");
        let after = look(&rejected, &elsewhere, "b", true, &bad());
        assert_eq!(after, rejected);
        assert!(find(&after, &elsewhere).is_some());
    }

    #[test]
    fn a_new_commit_clears_it() {
        let rejected = look(&[], &content("b", "tree-b"), "b", true, &bad());
        assert_eq!(look(&rejected, &content("c", "tree-c"), "b", false, &bad()), []);
        let unread =
            update(&rejected, &Observation { desired: None, synced: &[], in_sync: false, aborted: &[] }, now());
        assert_eq!(unread, rejected, "Git that cannot be read is no new commit");
    }

    #[test]
    fn a_retried_rollout_clears_it_and_an_undone_one_does_not() {
        let b = content("b", "tree-b");
        let rejected = look(&[], &b, "b", true, &bad());
        assert_eq!(look(&rejected, &b, "b", true, &[]), []);
        assert_eq!(look(&rejected, &b, "b", false, &[]), rejected);
    }

    #[test]
    fn without_tree_hashes_commits_are_compared() {
        let rejected = look(&[], &content("b", ""), "b", true, &bad());
        assert!(find(&rejected, &content("b", "x")).is_some());
        assert!(find(&rejected, &content("c", "x")).is_none());
        assert!(find(&rejected, &Content::default()).is_none());
    }

    #[test]
    fn aborted_rollouts_are_recognised() {
        let rollout = |generation: i64, status: Value| {
            json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
                "metadata": {"name": "web", "namespace": "ns", "generation": generation}, "status": status})
        };
        let condition = json!([{"type": "Progressing", "reason": "RolloutAborted", "message": "why"}]);
        for (live, expected) in [
            (rollout(2, json!({"observedGeneration": "2", "abort": true, "message": "m"})), Some("m")),
            (rollout(2, json!({"observedGeneration": "2", "conditions": condition})), Some("why")),
            (rollout(2, json!({"observedGeneration": "1", "abort": true})), None),
            (rollout(2, json!({"observedGeneration": "2", "abort": false})), None),
            (rollout(2, json!({})), None),
            (json!({"apiVersion": "apps/v1", "kind": "Deployment", "status": {"abort": true}}), None),
        ] {
            assert_eq!(aborted(&live).map(|a| a.message).as_deref(), expected, "{live}");
        }
    }

    #[test]
    fn a_user_may_overrule_and_a_machine_may_not() {
        let b = content("b", "tree-b");
        let rejected = look(&[], &b, "b", true, &bad());
        let operation = |value: Value| serde_json::from_value::<Operation>(value).expect("operation");
        assert!(is_overruled(&rejected[0], &operation(json!({"sync": {}})), &b));
        assert!(!is_overruled(&rejected[0], &operation(json!({"sync": {}, "initiatedBy": {"automated": true}})), &b));
        assert!(!is_overruled(&rejected[0], &operation(json!({"sync": {"dryRun": true}})), &b));
        assert!(!is_overruled(&rejected[0], &operation(json!({"sync": {}})), &content("a", "tree-a")));
    }

    #[test]
    fn what_a_user_accepted_is_rejected_again_only_by_another_abort() {
        let b = content("b", "tree-b");
        let accepted = accept(&look(&[], &b, "b", true, &bad()), &b);
        assert_eq!(find(&accepted, &b), None);
        assert_eq!(look(&accepted, &b, "b", true, &bad()), accepted);
        let again = [Aborted { at: "2".into(), ..bad().remove(0) }];
        let rejected = look(&accepted, &b, "b", true, &again);
        assert_eq!((rejected.len(), find(&rejected, &b).is_some()), (1, true));
    }

    #[test]
    fn the_annotation_round_trips() {
        let rejected = look(&[], &content("b", "tree-b"), "b", true, &bad());
        let text = write(&rejected).expect("annotation");
        assert_eq!(read(Some(&text)), rejected);
        assert_eq!(write(&[]), None);
        assert_eq!(read(Some("not json")), []);
        assert_eq!(read(None), []);
    }
}
