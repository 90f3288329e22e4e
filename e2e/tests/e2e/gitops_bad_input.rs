//! What is wrong in Git, around Git, or in an Application: said clearly, and nobody else's trouble.

use std::os::unix::fs::symlink;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_e2e::{git_http, run};

use crate::gitops::{Plane, automated, conditions, config_map, message, phase, sync_status};

#[test]
fn every_mistake_is_named_and_stays_alone() -> Result<()> {
    run(async |cluster| {
        let plane = Plane::new(cluster, "bad").await?;
        let url = plane.repository.http_url();
        let missing = url.replace(".git", "-missing.git");
        let nowhere = "http://10.250.0.1:9/nothing.git";
        plane.repository.commit(
            "Start",
            &[
                ("good/a.yaml", Some(&config_map("a", "1"))),
                ("malformed/broken.yaml", Some("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: broken\ndata: [\n")),
                ("nameless/a.yaml", Some("apiVersion: v1\nkind: ConfigMap\ndata: {}\n")),
                ("unknown/a.yaml", Some("apiVersion: example.com/v1\nkind: Whatever\nmetadata: {name: what}\n")),
                ("invalid/a.yaml", Some("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_A_Name}\n")),
            ],
        )?;
        let narrow = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": "narrow"},
            "spec": {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "another"}]},
        });
        plane.apply(narrow).await?;
        let source = |source: Value| json!({"source": source});
        // Application, path, spec, condition, and the words that name object, field and what was found.
        let cases: Vec<(&str, &str, Value, &str, Vec<String>)> = vec![
            (
                "malformed",
                "malformed",
                json!({}),
                "ComparisonError",
                vec![url.clone(), "malformed/broken.yaml".into(), "line".into()],
            ),
            (
                "path",
                "no/such/path",
                json!({}),
                "ComparisonError",
                vec![url.clone(), "no/such/path: app path does not exist".into()],
            ),
            (
                "revision",
                "good",
                source(json!({"targetRevision": "no-such-branch"})),
                "ComparisonError",
                vec![url.clone(), "unable to resolve 'no-such-branch' to a commit SHA".into()],
            ),
            (
                "gone",
                "good",
                source(json!({"repoURL": missing})),
                "ComparisonError",
                vec![missing.clone(), "repository not found".into()],
            ),
            (
                "unreachable",
                "good",
                source(json!({"repoURL": nowhere})),
                "ComparisonError",
                vec![nowhere.into(), "cannot be reached".into()],
            ),
            (
                "project",
                "good",
                json!({"project": "nothing"}),
                "InvalidSpecError",
                vec!["project nothing which does not exist".into()],
            ),
            (
                "cluster",
                "good",
                json!({"destination": {"server": "https://elsewhere.example"}}),
                "InvalidSpecError",
                vec!["there are no clusters with this server: https://elsewhere.example".into()],
            ),
            (
                "denied",
                "good",
                json!({"project": "narrow"}),
                "InvalidSpecError",
                vec![format!("namespace '{}'", plane.name()), "project 'narrow'".into()],
            ),
        ];
        for (name, path, spec, ..) in &cases {
            plane.apply(plane.app(name, path, spec.clone())).await?;
        }
        plane.apply(plane.app("good", "good", json!({"syncPolicy": automated()}))).await?;
        for (name, _, _, condition, words) in &cases {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            plane.says(name, condition, &words).await?;
            let app = plane.application(name).await?;
            assert_eq!(sync_status(&app), "Unknown", "{name}");
            let shown = plane.argocd(&["app", "get", name])?;
            assert!(words.iter().all(|word| shown.contains(word)) && shown.contains(condition), "{name}: {shown}");
            let (code, said, errors) = plane.argocd_ends(&["app", "sync", name, "--timeout", "60"])?;
            assert!(
                code == 20 && errors.contains("Operation has completed with phase: Error"),
                "{name}: {code}: {said}{errors}"
            );
            let app = plane.application(name).await?;
            assert_eq!(phase(&app), "Error", "{name}");
            let told = message(&app).to_owned();
            assert!(words.iter().all(|word| told.contains(word)), "{name}: {told}");
        }

        // What the API server refuses is the result of a sync.
        for (name, words) in [("unknown", "Whatever"), ("invalid", "Not_A_Name"), ("nameless", "name")] {
            plane.apply(plane.app(name, name, json!({}))).await?;
            plane
                .app_is(name, "compared", |app| {
                    ensure!(!sync_status(app).is_empty(), "{}", app["status"]);
                    Ok(())
                })
                .await?;
            let (code, said, errors) = plane.argocd_ends(&["app", "sync", name, "--timeout", "60"])?;
            assert!(
                code == 20 && errors.contains("Operation has completed with phase"),
                "{name}: {code}: {said}{errors}"
            );
            assert!(format!("{said}{errors}").contains(words), "{name}: {said}{errors}");
        }

        let commit = plane.repository.commit("Next", &[("good/a.yaml", Some(&config_map("a", "2")))])?;
        plane.refresh("good").await?;
        plane.synced("good", &commit).await?;
        plane.value_is("a", "value", Some("2")).await?;

        // Mistakes that are corrected in Git are over.
        plane.repository.commit("Mend", &[("malformed/broken.yaml", Some(&config_map("mended", "1")))])?;
        plane.refresh("malformed").await?;
        let (code, said, errors) = plane.argocd_ends(&["app", "sync", "malformed", "--timeout", "60"])?;
        assert_eq!(code, 0, "{said}{errors}");
        plane
            .app_is("malformed", "mended", |app| {
                ensure!(conditions(app).is_empty() && sync_status(app) == "Synced", "{}", app["status"]);
                Ok(())
            })
            .await?;
        Ok(())
    })
}

#[test]
fn an_outage_of_git_costs_nothing_that_runs() -> Result<()> {
    run(async |cluster| {
        let plane = Plane::new(cluster, "outage").await?;
        let first = plane.repository.commit("Start", &[("app/a.yaml", Some(&config_map("a", "1")))])?;
        let neighbour = cluster.git()?.create(&format!("{}-neighbour", plane.name()))?;
        let settled = neighbour.commit("Start", &[("app/n.yaml", Some(&config_map("n", "1")))])?;

        // A Git server of its own, so that its outage is no other test's.
        let root = tempfile::tempdir()?;
        let file_url = plane.repository.file_url();
        let bare = file_url.strip_prefix("file://").context("a file URL")?;
        symlink(bare, root.path().join("shop.git"))?;
        let port = std::net::TcpListener::bind(("0.0.0.0", 0))?.local_addr()?.port();
        let settings = git_http::Settings { root: root.path().to_owned(), user: "git".into(), password: String::new() };
        let server = tokio::spawn(git_http::serve(([0, 0, 0, 0], port).into(), settings));
        let url = format!("http://10.250.0.1:{port}/shop.git");

        let app = plane.app("app", "app", json!({"source": {"repoURL": url}, "syncPolicy": automated()}));
        plane.apply(app).await?;
        let source = json!({"repoURL": neighbour.http_url()});
        plane.apply(plane.app("neighbour", "app", json!({"source": source, "syncPolicy": automated()}))).await?;
        plane.synced("app", &first).await?;
        plane.synced("neighbour", &settled).await?;

        for outage in ["answers with errors", "has lost the repository"] {
            let marker = root.path().join("unavailable");
            let link = root.path().join("shop.git");
            let words = if outage == "answers with errors" {
                std::fs::write(&marker, "")?;
                "503"
            } else {
                std::fs::remove_file(&link)?;
                "repository not found"
            };
            let next = plane.repository.commit(outage, &[("app/a.yaml", Some(&config_map("a", outage)))])?;
            let before = plane.value("a", "value").await?;
            let shown = plane.argocd(&["app", "get", "app", "--refresh", "--timeout", "60"])?;
            assert!(
                shown.contains("ComparisonError") && shown.contains(&url) && shown.contains(words),
                "{outage}: {shown}"
            );
            let app = plane.application("app").await?;
            assert_eq!((sync_status(&app), app["status"]["conditions"].as_array().map(Vec::len)), ("Unknown", Some(1)));
            assert_eq!(app["status"]["health"]["status"], "Healthy", "{outage}: what runs is still well");
            let (code, said, errors) = plane.argocd_ends(&["app", "sync", "app", "--timeout", "60"])?;
            let ended = "Operation has completed with phase: Error";
            assert!(code == 20 && errors.contains(ended), "{outage}: {code}: {said}{errors}");
            assert!(message(&plane.application("app").await?).contains(&url), "{outage}");
            assert_eq!(plane.value("a", "value").await?, before, "{outage}");

            let commit = neighbour.commit(outage, &[("app/n.yaml", Some(&config_map("n", outage)))])?;
            plane.refresh("neighbour").await?;
            plane.synced("neighbour", &commit).await?;

            if marker.exists() {
                std::fs::remove_file(&marker)?;
            } else {
                symlink(bare, &link)?;
            }
            plane.refresh("app").await?;
            plane.synced("app", &next).await?;
            assert!(conditions(&plane.application("app").await?).is_empty(), "{outage}");
        }
        server.abort();
        Ok(())
    })
}
