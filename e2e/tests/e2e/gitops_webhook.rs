//! Pushes that Git servers tell of, and what a commit costs those whom it does not concern.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::hmac;
use serde_json::{Value, json};
use tidegate_e2e::{audit, http, install, run};

use crate::gitops::{Plane, automated, config_map};

fn signature(secret: &str, body: &[u8]) -> String {
    install::hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body).as_ref())
}

/// What GitHub, and Gitea after it, send.
fn github_push(url: &str, commit: &str) -> Vec<u8> {
    let body = json!({
        "ref": "refs/heads/main", "before": "1111111111111111111111111111111111111111", "after": commit,
        "repository": {"clone_url": url, "html_url": url.trim_end_matches(".git"), "default_branch": "main"},
        "commits": [],
    });
    body.to_string().into_bytes()
}

fn gitlab_push(url: &str, commit: &str) -> Vec<u8> {
    let body = json!({
        "object_kind": "push", "ref": "refs/heads/main", "after": commit,
        "before": "1111111111111111111111111111111111111111",
        "project": {"git_http_url": url, "web_url": url.trim_end_matches(".git"), "default_branch": "main"},
        "commits": [], "total_commits_count": 1,
    });
    body.to_string().into_bytes()
}

#[test]
fn a_genuine_push_is_live_within_two_seconds() -> Result<()> {
    run(async |cluster| {
        let plane = Plane::new(cluster, "webhook").await?;
        let url = plane.repository.http_url();
        let secret = |server: &str| format!("shared-with-{server}");
        let data = json!({
            "webhook.github.secret": secret("github"), "webhook.gitlab.secret": secret("gitlab"),
            "webhook.gitea.secret": secret("gitea"),
        });
        plane.secret("argocd-secret", None, data).await?;
        let commit = plane.repository.commit("0", &[("app/a.yaml", Some(&config_map("a", "0")))])?;
        plane.apply(plane.app("app", "app", json!({"syncPolicy": automated()}))).await?;
        plane.synced("app", &commit).await?;

        let mut fastest = Duration::MAX;
        for (number, server) in ["github", "gitlab", "gitea"].into_iter().enumerate() {
            let value = (number + 1).to_string();
            let before = plane.application("app").await?["status"].clone();
            let commit = plane.repository.commit(server, &[("app/a.yaml", Some(&config_map("a", &value)))])?;
            let body = if server == "gitlab" { gitlab_push(&url, &commit) } else { github_push(&url, &commit) };
            let headers = |secret: &str| match server {
                "github" => vec![
                    ("x-github-event", "push".to_owned()),
                    ("x-hub-signature-256", format!("sha256={}", signature(secret, &body))),
                ],
                "gitlab" => vec![("x-gitlab-event", "Push Hook".to_owned()), ("x-gitlab-token", secret.to_owned())],
                _ => vec![
                    ("x-gitea-event", "push".to_owned()),
                    ("x-github-event", "push".to_owned()),
                    ("x-gitea-signature", signature(secret, &body)),
                ],
            };
            // With a wrong signature, with none, and with a changed body: refused, and nothing happens.
            let wrong = headers("guessed");
            let none: Vec<(&str, String)> = wrong.iter().filter(|(name, _)| name.ends_with("event")).cloned().collect();
            for headers in [&wrong, &none] {
                let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let (status, answer) = plane.webhook(&headers, &body).await?;
                assert_eq!(status, 401, "{server}: {answer}");
                assert!(answer.contains("signature") && !answer.contains(&secret(server)), "{answer}");
            }
            assert_eq!(plane.application("app").await?["status"], before, "{server}");

            let right = headers(&secret(server));
            let right: Vec<(&str, &str)> = right.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let start = Instant::now();
            let (status, answer) = plane.webhook(&right, &body).await?;
            assert_eq!((status, answer.as_str()), (200, "1 applications are compared\n"), "{server}");
            plane.value_is("a", "value", Some(&value)).await?;
            fastest = fastest.min(start.elapsed());
            plane.synced("app", &commit).await?;
        }
        // The machine may be busy with other tests: the best counts.
        assert!(fastest < Duration::from_secs(2), "live after {fastest:?}");

        // Neither another repository's push nor nonsense reaches the application.
        let body = github_push("http://10.250.0.1:3000/another.git", "2222222222222222222222222222222222222222");
        let signed = format!("sha256={}", signature(&secret("github"), &body));
        let (status, answer) =
            plane.webhook(&[("x-github-event", "push"), ("x-hub-signature-256", &signed)], &body).await?;
        assert_eq!((status, answer.as_str()), (200, "0 applications are compared\n"));
        assert_eq!(plane.webhook(&[], b"{}").await?.0, 400);
        let signed = format!("sha256={}", signature(&secret("github"), b"no json"));
        let headers = [("x-github-event", "push"), ("x-hub-signature-256", signed.as_str())];
        assert_eq!(plane.webhook(&headers, b"no json").await?.0, 400);
        for server in ["github", "gitlab", "gitea"] {
            assert!(!plane.controller.log().contains(&secret(server)), "the log shows the secret of {server}");
        }
        Ok(())
    })
}

/// How many reconciliations of Applications have ended.
async fn reconciliations(plane: &Plane) -> Result<f64> {
    let text = http::client()?.get(plane.controller.metrics_url()).send().await?.text().await?;
    let lines = text.lines().filter(|line| line.starts_with("argocd_app_reconcile_count"));
    let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(counts.sum())
}

/// What was told since a time about anything else than `name`.
async fn told_of_others(plane: &Plane, name: &str, since: jiff::Timestamp) -> Result<Vec<String>> {
    let events = plane.list("v1", "Event").await?;
    let is_late = |event: &Value| {
        let time = event["lastTimestamp"].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
        // Events that are older are still being written: there is a limit to how many a second.
        time.is_none_or(|time| time.as_second() > since.as_second())
    };
    let others = events.iter().filter(|event| event["involvedObject"]["name"] != name && is_late(event));
    Ok(others.map(|event| format!("{} {}", event["metadata"]["name"], event["message"])).collect())
}

#[test]
fn a_commit_costs_those_it_does_not_concern_nothing() -> Result<()> {
    const COUNT: usize = 20;
    run(async |cluster| {
        let plane = Plane::new(cluster, "cost").await?;
        let manifests: Vec<(String, String)> =
            (0..COUNT).map(|n| (format!("apps/{n}/a.yaml"), config_map(&format!("config-{n}"), "1"))).collect();
        let files: Vec<(&str, Option<&str>)> =
            manifests.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
        let commit = plane.repository.commit("All", &files)?;
        for number in 0..COUNT {
            let app =
                plane.app(&format!("app-{number}"), &format!("apps/{number}"), json!({"syncPolicy": automated()}));
            plane.apply(app).await?;
        }
        for number in 0..COUNT {
            plane.synced(&format!("app-{number}"), &commit).await?;
        }
        // One whole round without anything new, so that what follows the first sync is over.
        let url = plane.repository.http_url();
        let tell = async |commit: &str| -> Result<()> {
            let before = reconciliations(&plane).await?;
            let (status, answer) = plane.webhook(&[("x-github-event", "push")], &github_push(&url, commit)).await?;
            ensure!((status, answer.as_str()) == (200, "20 applications are compared\n"), "{status} {answer}");
            plane
                .until("all to be compared", async || {
                    let done = reconciliations(&plane).await? - before;
                    ensure!(done >= COUNT as f64, "{done} reconciliations");
                    Ok(())
                })
                .await
        };
        tell(&commit).await?;
        let versions = async || -> Result<Vec<(String, Value)>> {
            let apps = plane.list("argoproj.io/v1alpha1", "Application").await?;
            let of = |app: &Value| (app["metadata"]["name"].to_string(), app["metadata"]["resourceVersion"].clone());
            Ok(apps.iter().map(of).filter(|(name, _)| name != "\"app-7\"").collect())
        };
        let before = versions().await?;

        let since = jiff::Timestamp::now();
        let commit = plane.repository.commit("One", &[("apps/7/a.yaml", Some(&config_map("config-7", "2")))])?;
        tell(&commit).await?;
        plane.synced("app-7", &commit).await?;
        plane.value_is("config-7", "value", Some("2")).await?;
        tell(&commit).await?;

        assert_eq!(versions().await?, before, "Applications that the commit does not concern were written");
        let told = told_of_others(&plane, "app-7", since).await?;
        assert!(told.is_empty(), "{told:?}");
        let requests = cluster.requests("rollouts-controller", since)?;
        let own: Vec<audit::Request> =
            requests.into_iter().filter(|request| request.object_ref.namespace == plane.name()).collect();
        let is_write =
            |request: &&audit::Request| ["create", "update", "patch", "delete"].contains(&request.verb.as_str());
        let writes: Vec<audit::Request> = own.iter().filter(is_write).cloned().collect();
        let others: Vec<&audit::Request> = writes
            .iter()
            .filter(|request| request.object_ref.resource != "events")
            .filter(|request| !["app-7", "config-7"].contains(&request.object_ref.name.as_str()))
            .collect();
        assert!(others.is_empty(), "{others:?}");
        // The one that is concerned costs a handful: the audit log does see writes.
        let counts = audit::count(&writes);
        let patches = counts.get("patch applications").context("no write of the Application")?;
        assert!(*patches <= 6, "{counts:?}");
        // And nobody is asked either: what decisions read is watched.
        let asked: Vec<&audit::Request> = own
            .iter()
            .filter(|request| request.verb == "get")
            .filter(|request| ["configmaps", "applications"].contains(&request.object_ref.resource.as_str()))
            .filter(|request| !["app-7", "config-7"].contains(&request.object_ref.name.as_str()))
            .collect();
        assert!(asked.is_empty(), "{asked:?}");
        Ok(())
    })
}
