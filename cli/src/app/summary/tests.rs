use super::*;
use serde_json::{Value, json};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

pub fn app(spec: Value, status: Value) -> Application {
    serde_json::from_value(json!({"metadata": {"name": "shop", "namespace": "argocd"}, "spec": spec, "status": status}))
        .unwrap()
}

fn spec() -> Value {
    json!({
        "project": "team",
        "destination": {"server": "https://kubernetes.default.svc", "namespace": "shop"},
        "source": {"repoURL": "https://git.example/shop.git", "path": "overlays/prod", "targetRevision": "main"},
        "syncPolicy": {"automated": {"prune": true}},
    })
}

fn allowed() -> Surroundings {
    Surroundings { sync_window: "Sync Allowed".into(), ..Default::default() }
}

#[test]
fn shows_everything_about_an_application() {
    let status = json!({
        "sync": {"status": "OutOfSync", "revision": COMMIT},
        "health": {"status": "Degraded", "message": "Caused by argoproj.io/Rollout:shop/web"},
        "conditions": [{
            "type": "RejectedRevisionWarning", "message": "revision 0123456 was rejected by Rollout shop/web",
            "lastTransitionTime": "2026-01-02T03:04:05Z"}],
        "resources": [
            {"kind": "Service", "namespace": "shop", "name": "web", "status": "Synced", "health": {"status": "Healthy"}},
            {"group": "argoproj.io", "kind": "Rollout", "namespace": "shop", "name": "web", "status": "OutOfSync"},
            {"kind": "ConfigMap", "namespace": "shop", "name": "a", "status": "Synced"}],
        "operationState": {
            "operation": {"sync": {}}, "phase": "Succeeded", "message": "successfully synced (all tasks run)",
            "startedAt": "2026-01-02T03:00:00Z", "finishedAt": "2026-01-02T03:01:05Z",
            "syncResult": {"revision": COMMIT, "resources": [
                {"group": "batch", "kind": "Job", "namespace": "shop", "name": "migrate", "status": "Synced", "hookType": "PreSync",
                 "hookPhase": "Succeeded", "message": "job\nmigrate completed"},
                {"kind": "Service", "namespace": "shop", "name": "web", "status": "Synced", "message": "service/web configured"},
                {"kind": "Secret", "namespace": "shop", "name": "old", "status": "Pruned", "message": "pruned"}]}},
    });
    let now = "2026-01-03T00:00:00Z".parse().unwrap();
    let text = full(&app(spec(), status), &allowed(), &[], Some(now));
    assert_eq!(
        text,
        "\
Name:               argocd/shop
Project:            team
Server:             https://kubernetes.default.svc
Namespace:          shop
URL:
Source:
- Repo:             https://git.example/shop.git
  Target:           main
  Path:             overlays/prod
SyncWindow:         Sync Allowed
Sync Policy:        Automated (Prune)
Sync Status:        OutOfSync from main (0123456)
Health Status:      Degraded (Caused by argoproj.io/Rollout:shop/web)

Operation:          Sync
Sync Revision:      0123456789abcdef0123456789abcdef01234567
Phase:              Succeeded
Start:              2026-01-02 03:00:00 +0000 UTC
Finished:           2026-01-02 03:01:05 +0000 UTC
Duration:           1m5s
Message:            successfully synced (all tasks run)

CONDITION                MESSAGE                                            LAST TRANSITION
RejectedRevisionWarning  revision 0123456 was rejected by Rollout shop/web  2026-01-02 03:04:05 +0000 UTC

GROUP        KIND       NAMESPACE  NAME     STATUS     HEALTH   HOOK     MESSAGE
batch        Job        shop       migrate  Succeeded  Synced   PreSync  job migrate completed
             Service    shop       web      Synced     Healthy           service/web configured
             Secret     shop       old      Pruned                       pruned
             ConfigMap  shop       a        Synced
argoproj.io  Rollout    shop       web      OutOfSync
"
    );
}

#[test]
fn several_sources_windows_and_policies() {
    let spec = json!({
        "destination": {"name": "in-cluster"},
        "sources": [
            {"repoURL": "https://charts.example", "chart": "web", "targetRevision": "1.2.x", "helm": {"valueFiles": ["$values/a.yaml", "b.yaml"]}},
            {"repoURL": "https://git.example/values.git", "ref": "values"}],
        "syncPolicy": {"automated": {"enabled": false}},
    });
    let around = Surroundings {
        url: "https://cd.example/applications/shop".into(),
        sync_window: "Manual Allowed".into(),
        windows: vec!["deny:0 22 * * *:8h".into(), "allow:* * * * *:1h".into()],
    };
    let text = header(&app(spec, json!({"sync": {"status": "Unknown"}, "health": {"status": "Healthy"}})), &around);
    assert_eq!(
        text,
        "\
Name:               argocd/shop
Project:            default
Server:             in-cluster
Namespace:
URL:                https://cd.example/applications/shop
Sources:
- Repo:             https://charts.example
  Target:           1.2.x
  Helm Values:      $values/a.yaml,b.yaml
- Repo:             https://git.example/values.git
  Target:
  Ref:              values
SyncWindow:         Manual Allowed
Assigned Windows:   deny:0 22 * * *:8h,allow:* * * * *:1h
Sync Policy:        Manual
Sync Status:        Unknown
Health Status:      Healthy
"
    );
}

#[test]
fn a_running_operation_has_no_end_yet() {
    let state =
        json!({"operationState": {"operation": {"sync": {}}, "phase": "Running", "startedAt": "2026-01-02T03:00:00Z"}});
    let text = operation(&app(spec(), state), "2026-01-02T03:00:07Z".parse().unwrap());
    assert_eq!(
        text,
        "\
Operation:          Sync
Sync Revision:
Phase:              Running
Start:              2026-01-02 03:00:00 +0000 UTC
Finished:           <none>
Duration:           7s
"
    );
}

#[test]
fn revisions_are_shown_with_what_they_follow() {
    let source = |target: &str| Source { target_revision: Some(target.into()), ..Default::default() };
    assert_eq!(target_and_commit(&source("main"), COMMIT), "main (0123456)");
    assert_eq!(target_and_commit(&source(""), COMMIT), "HEAD (0123456)");
    assert_eq!(target_and_commit(&source("1.2.x"), "1.2.9"), "1.2.x (1.2.9)");
    assert_eq!(target_and_commit(&source("1.2.9"), "1.2.9"), "1.2.9");
}
