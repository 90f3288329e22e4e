//! `argocd`, as scripts and people use it.

use anyhow::{Result, ensure};
use serde_json::json;
use tidegate_e2e::run;

use crate::gitops::{ARGO, Plane, automated, config_map, sync_status};

/// Every line, without the spaces at its ends and with single ones in between.
fn squeezed(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn has(text: &str, lines: &[&str]) {
    let found = squeezed(text);
    for line in lines {
        assert!(found.iter().any(|found| found == line), "no line {line:?} in\n{text}");
    }
}

#[test]
fn an_application_is_looked_at_synced_and_rolled_back_by_hand() -> Result<()> {
    run(async |cluster| {
        let plane = Plane::new(cluster, "hand").await?;
        let (name, repository) = (plane.name().to_owned(), &plane.repository);
        let first = repository.commit(
            "First",
            &[("app/a.yaml", Some(&config_map("a", "1"))), ("app/b.yaml", Some(&config_map("b", "1")))],
        )?;
        plane.apply(plane.app("app", "app", json!({}))).await?;
        plane
            .app_is("app", "compared", |app| {
                ensure!(sync_status(app) == "OutOfSync", "{}", app["status"]);
                Ok(())
            })
            .await?;
        let short = |commit: &str| commit.chars().take(7).collect::<String>();

        has(
            &plane.argocd(&["app", "get", "app"])?,
            &[
                &format!("Name: {name}/app"),
                "Project: default",
                "Server: https://kubernetes.default.svc",
                &format!("Namespace: {name}"),
                &format!("- Repo: {}", repository.http_url()),
                "Target: main",
                "Path: app",
                "SyncWindow: Sync Allowed",
                "Sync Policy: Manual",
                &format!("Sync Status: OutOfSync from main ({})", short(&first)),
                "Health Status: Missing",
                "GROUP KIND NAMESPACE NAME STATUS HEALTH HOOK MESSAGE",
                &format!("ConfigMap {name} a OutOfSync Missing"),
            ],
        );
        let (code, said, errors) = plane.argocd_ends(&["app", "diff", "app"])?;
        assert_eq!(code, 1, "{said}{errors}");
        has(&said, &[&format!("===== /ConfigMap {name}/a ======"), "> value: \"1\""]);
        let (code, ..) = plane.argocd_ends(&["app", "diff", "app", "--exit-code=false"])?;
        assert_eq!(code, 0);
        // A dry run changes nothing.
        plane.argocd(&["app", "sync", "app", "--dry-run", "--timeout", "60"])?;
        assert_eq!(plane.value("a", "value").await?, None);

        let said = plane.argocd(&["app", "sync", "app", "--timeout", "60"])?;
        has(
            &said,
            &[
                "Operation: Sync",
                &format!("Sync Revision: {first}"),
                "Phase: Succeeded",
                "Message: successfully synced (all tasks run)",
                &format!("ConfigMap {name} a Synced configmap/a created"),
            ],
        );
        let said = plane.argocd(&["app", "wait", "app", "--timeout", "60"])?;
        has(&said, &[&format!("Sync Status: Synced to main ({})", short(&first)), "Health Status: Healthy"]);
        let (code, said, errors) = plane.argocd_ends(&["app", "diff", "app"])?;
        assert_eq!((code, said.as_str()), (0, ""), "{errors}");

        // The next commit: seen on demand, applied by hand.
        let second =
            repository.commit("Second", &[("app/a.yaml", Some(&config_map("a", "2"))), ("app/b.yaml", None)])?;
        let said = plane.argocd(&["app", "get", "app", "--refresh"])?;
        has(&said, &[&format!("Sync Status: OutOfSync from main ({})", short(&second))]);
        let (code, said, _) = plane.argocd_ends(&["app", "diff", "app"])?;
        assert_eq!(code, 1);
        has(&said, &["< value: \"1\"", "> value: \"2\""]);
        let (code, _, errors) = plane.argocd_ends(&["app", "wait", "app", "--sync", "--timeout", "1"])?;
        assert!(code == 20 && errors.contains("timed out (1s)"), "{code}: {errors}");
        let (code, _, errors) = plane.argocd_ends(&["app", "sync", "app", "--timeout", "60"])?;
        assert!(code == 20 && errors.contains("1 resources require pruning"), "{code}: {errors}");
        plane.value_is("a", "value", Some("2")).await?;
        assert_eq!(plane.value("b", "value").await?.as_deref(), Some("1"));
        plane.argocd(&["app", "sync", "app", "--prune", "--timeout", "60"])?;
        plane.value_is("b", "value", None).await?;

        assert_eq!(plane.argocd(&["app", "history", "app", "-o", "id"])?, "0\n1\n2\n");
        let history = plane.argocd(&["app", "history", "app"])?;
        assert!(history.starts_with(&format!("SOURCE  {}\nID", repository.http_url())), "{history}");
        for (id, commit) in [(0, &first), (1, &second), (2, &second)] {
            let end = format!("main ({})", short(commit));
            let line = squeezed(&history).into_iter().find(|line| line.starts_with(&format!("{id} ")));
            assert!(line.is_some_and(|line| line.ends_with(&end)), "{history}");
        }

        plane.argocd(&["app", "rollback", "app", "0", "--timeout", "60"])?;
        plane.value_is("a", "value", Some("1")).await?;
        plane.value_is("b", "value", Some("1")).await?;
        let rolled = plane
            .app_is("app", "rolled back", |app| {
                ensure!(sync_status(app) == "OutOfSync", "{}", app["status"]);
                Ok(())
            })
            .await?;
        assert_eq!(rolled["status"]["operationState"]["syncResult"]["revision"], first);
        assert_eq!(plane.argocd(&["app", "history", "app", "-o", "id"])?, "0\n1\n2\n3\n");
        let (code, _, errors) = plane.argocd_ends(&["app", "rollback", "app", "9"])?;
        assert!(code == 20 && errors.contains("does not have deployment id '9' in history"), "{code}: {errors}");

        let patch = json!({"spec": {"syncPolicy": automated()}});
        plane.patch(ARGO, "Application", "app", patch).await?;
        plane.synced("app", &second).await?;
        let (code, _, errors) = plane.argocd_ends(&["app", "rollback", "app", "0"])?;
        let refused = "rollback cannot be initiated when auto-sync is enabled";
        assert!(code == 20 && errors.contains(refused), "{code}: {errors}");
        Ok(())
    })
}

#[test]
fn mistakes_of_argocds_users_end_with_20_and_a_reason() -> Result<()> {
    run(async |cluster| {
        let plane = Plane::new(cluster, "wrong").await?;
        plane.repository.commit("First", &[("app/a.yaml", Some(&config_map("a", "1")))])?;
        plane.apply(plane.app("app", "app", json!({}))).await?;
        plane.refresh("app").await?;
        for (args, words) in [
            (vec!["app", "get", "nothing"], "\"nothing\" not found"),
            (vec!["app", "sync", "nothing"], "\"nothing\" not found"),
            (vec!["app", "history", "nothing"], "\"nothing\" not found"),
            (vec!["app", "rollback", "nothing"], "\"nothing\" not found"),
            (vec!["app", "sync", "app", "--revision", "no-such-branch", "--timeout", "60"], "phase: Error"),
            (vec!["app", "sync", "app", "--resource", "apps:Deployment:nothing-*"], "no object is picked"),
        ] {
            let (code, said, errors) = plane.argocd_ends(&args)?;
            assert!(code == 20 && errors.contains(words), "{args:?}: {code}: {said}{errors}");
        }
        let (code, _, errors) = plane.argocd_ends(&["app", "diff", "nothing"])?;
        assert!(code == 2 && errors.contains("\"nothing\" not found"), "{code}: {errors}");
        let said = plane.argocd(&["app", "get", "app", "--show-operation"])?;
        assert!(said.contains("unable to resolve 'no-such-branch' to a commit SHA"), "{said}");
        // Nothing of this did anything.
        assert_eq!(plane.value("a", "value").await?, None);
        Ok(())
    })
}
