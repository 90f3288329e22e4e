//! Sync options: of the application (`syncPolicy.syncOptions`, `operation.sync.syncOptions`) and of one object
//! (annotation), where the object's win.

use crate::object;
use serde_json::Value;
use tidegate_crds::application::sync_option;

/// Annotation with an object's options.
pub const SYNC_OPTIONS: &str = "argocd.argoproj.io/sync-options";
/// Annotation with an object's or an application's options for comparing.
pub const COMPARE_OPTIONS: &str = "argocd.argoproj.io/compare-options";
/// Annotation that names the manager whose fields server-side apply takes over.
pub const MIGRATION_MANAGER: &str = "argocd.argoproj.io/client-side-apply-migration-manager";
/// The manager whose fields server-side apply takes over by default.
pub const DEFAULT_MIGRATION_MANAGER: &str = "kubectl-client-side-apply";
const HELM_RESOURCE_POLICY: &str = "helm.sh/resource-policy";

/// An option that can also ask for a confirmation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consent {
    /// Do it.
    #[default]
    Yes,
    /// Do not.
    No,
    /// Ask first.
    Confirm,
}

/// What happens to dependents of what is pruned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// The object goes after its dependents. The default.
    #[default]
    Foreground,
    /// Dependents are collected afterwards.
    Background,
    /// Dependents stay.
    Orphan,
}

/// Options of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppOptions {
    /// `Prune`
    pub prune: Consent,
    /// `Delete`
    pub delete: Consent,
    /// `Validate`, default true
    pub validate: bool,
    /// `SkipDryRunOnMissingResource`
    pub skip_missing_kinds: bool,
    /// `ApplyOutOfSyncOnly`
    pub out_of_sync_only: bool,
    /// `PrunePropagationPolicy`
    pub propagation: Propagation,
    /// `PruneLast`
    pub prune_last: bool,
    /// `Replace`
    pub replace: bool,
    /// `ServerSideApply`
    pub server_side: bool,
    /// `ClientSideApplyMigration`, default true
    pub migrate: bool,
    /// `FailOnSharedResource`
    pub fail_on_shared: bool,
    /// `RespectIgnoreDifferences`
    pub respect_ignored: bool,
    /// `CreateNamespace`
    pub create_namespace: bool,
}

impl Default for AppOptions {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl AppOptions {
    /// Reads `Key=value` options; unknown ones are left alone.
    pub fn new(options: &[String]) -> Self {
        let get = |key| sync_option(options.iter().map(String::as_str), key);
        let on = |key| get(key) == Some("true");
        Self {
            prune: consent(get("Prune")),
            delete: consent(get("Delete")),
            validate: get("Validate") != Some("false"),
            skip_missing_kinds: on("SkipDryRunOnMissingResource"),
            out_of_sync_only: on("ApplyOutOfSyncOnly"),
            propagation: match get("PrunePropagationPolicy") {
                Some("background") => Propagation::Background,
                Some("orphan") => Propagation::Orphan,
                _ => Propagation::Foreground,
            },
            prune_last: on("PruneLast"),
            replace: on("Replace"),
            server_side: on("ServerSideApply"),
            migrate: get("ClientSideApplyMigration") != Some("false"),
            fail_on_shared: on("FailOnSharedResource"),
            respect_ignored: on("RespectIgnoreDifferences"),
            create_namespace: on("CreateNamespace"),
        }
    }

    /// The options of one object in this application.
    pub fn of(&self, object: &Value) -> ResourceOptions {
        let own = object::annotation_list(object, SYNC_OPTIONS);
        let get = |key| sync_option(own.iter().copied(), key);
        let on = |key, default| get(key).map_or(default, |value| value == "true");
        let keep = object::annotation(object, HELM_RESOURCE_POLICY) == Some("keep");
        let of = |key, default| match get(key) {
            Some(value) => consent(Some(value)),
            None if keep => Consent::No,
            None => default,
        };
        ResourceOptions {
            prune: of("Prune", self.prune),
            delete: of("Delete", self.delete),
            validate: get("Validate").map_or(self.validate, |v| v != "false"),
            skip_missing_kind: on("SkipDryRunOnMissingResource", self.skip_missing_kinds),
            prune_last: on("PruneLast", self.prune_last),
            replace: on("Replace", self.replace),
            force: on("Force", false),
            server_side: on("ServerSideApply", self.server_side),
        }
    }
}

/// Options of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceOptions {
    /// May be pruned by a sync.
    pub prune: Consent,
    /// May be deleted with the application.
    pub delete: Consent,
    /// The API server checks fields strictly.
    pub validate: bool,
    /// Its kind need not be known yet.
    pub skip_missing_kind: bool,
    /// Pruned after everything else is healthy.
    pub prune_last: bool,
    /// Replaced instead of patched.
    pub replace: bool,
    /// Deleted and made anew when it cannot be changed.
    pub force: bool,
    /// Applied by the API server.
    pub server_side: bool,
}

fn consent(value: Option<&str>) -> Consent {
    match value {
        Some("false") => Consent::No,
        Some("confirm") => Consent::Confirm,
        _ => Consent::Yes,
    }
}

/// Whether an extra object does not count for the sync status.
pub fn ignores_extraneous(live: &Value) -> bool {
    object::annotation_list(live, COMPARE_OPTIONS).contains(&"IgnoreExtraneous")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn app(options: &[&str]) -> AppOptions {
        AppOptions::new(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
    }

    fn object(options: &str) -> Value {
        json!({"metadata": {"annotations": {SYNC_OPTIONS: options}}})
    }

    #[test]
    fn options_of_an_application() {
        let none = app(&[]);
        assert!(none.validate && none.migrate && !none.create_namespace && !none.server_side);
        assert_eq!((none.propagation, none.prune), (Propagation::Foreground, Consent::Yes));
        let all = app(&[
            "Validate=false",
            "ApplyOutOfSyncOnly=true",
            "PrunePropagationPolicy=background",
            "PruneLast=true",
            "Replace=true",
            "ServerSideApply=true",
            "ClientSideApplyMigration=false",
            "FailOnSharedResource=true",
            "RespectIgnoreDifferences=true",
            "CreateNamespace=true",
            "SkipDryRunOnMissingResource=true",
            "Prune=confirm",
        ]);
        assert!(
            !all.validate && !all.migrate && all.create_namespace && all.server_side && all.replace && all.prune_last
        );
        assert!(all.out_of_sync_only && all.fail_on_shared && all.respect_ignored && all.skip_missing_kinds);
        assert_eq!((all.propagation, all.prune), (Propagation::Background, Consent::Confirm));
    }

    #[test]
    fn an_object_has_the_last_word() {
        let all = app(&["ServerSideApply=true", "Prune=false", "Replace=true", "PruneLast=true"]);
        let own = all.of(&object(
            "ServerSideApply=false,Prune=confirm, Replace=false,Force=true,PruneLast=false,Validate=false",
        ));
        assert!(!own.server_side && !own.replace && own.force && !own.prune_last && !own.validate);
        assert_eq!(own.prune, Consent::Confirm);
        let inherited = all.of(&json!({}));
        assert!(inherited.server_side && inherited.replace && inherited.prune_last && !inherited.force);
        assert_eq!(inherited.prune, Consent::No);
    }

    #[test]
    fn helm_can_ask_to_keep_an_object() {
        let kept = json!({"metadata": {"annotations": {HELM_RESOURCE_POLICY: "keep"}}});
        let options = app(&[]).of(&kept);
        assert_eq!((options.prune, options.delete), (Consent::No, Consent::No));
    }

    #[test]
    fn extraneous_objects_may_be_ignored() {
        assert!(ignores_extraneous(&json!({"metadata": {"annotations": {COMPARE_OPTIONS: "IgnoreExtraneous"}}})));
        assert!(!ignores_extraneous(&json!({})));
    }
}
