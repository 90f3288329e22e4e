//! Where manifests come from: http with a password, ssh with a key, files; directories, Kustomize and Helm.

use anyhow::{Result, ensure};
use serde_json::json;
use tidegate_e2e::{install, run};

use crate::gitops::{Plane, automated, config_map, sync_status};

/// Fails when `secret` shows in anything that people or logs get to see.
async fn shows_nowhere(plane: &Plane, app: &str, secret: &str) -> Result<()> {
    let encoded = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(format!("git:{secret}"))
    };
    let events: Vec<String> = plane.list("v1", "Event").await?.iter().map(ToString::to_string).collect();
    let (_, said, errors) = plane.argocd_ends(&["app", "get", app, "--show-operation"])?;
    let application = plane.application(app).await?.to_string();
    for (place, text) in [
        ("the Application", application.as_str()),
        ("events", &events.join("\n")),
        ("the controller's log", &plane.controller.log()),
        ("argocd app get", &format!("{said}{errors}")),
    ] {
        assert!(!text.is_empty(), "{place}: nothing to look at");
        assert!(!text.contains(secret) && !text.contains(&encoded), "the password shows in {place}");
    }
    Ok(())
}

#[test]
fn a_password_opens_a_repository_and_shows_nowhere() -> Result<()> {
    run(async |cluster| {
        let plane = Plane::with_repository(cluster, "private", "private/").await?;
        let commit = plane.repository.commit("Start", &[("app/a.yaml", Some(&config_map("a", "1")))])?;
        let url = plane.repository.http_url();
        let password = cluster.git()?.password()?;

        // Without credentials, then with wrong ones.
        plane.apply(plane.app("app", "app", json!({"syncPolicy": automated()}))).await?;
        plane.says("app", "ComparisonError", &[&url, "authentication failed"]).await?;
        let wrong = "wrong-7d1f0a93";
        plane
            .secret(
                "repo",
                Some("repository"),
                json!({"type": "git", "url": url, "username": "git", "password": wrong}),
            )
            .await?;
        plane.refresh("app").await?;
        plane.says("app", "ComparisonError", &[&url, "authentication failed"]).await?;
        shows_nowhere(&plane, "app", wrong).await?;
        let (code, said, _) = plane.argocd_ends(&["app", "get", "app"])?;
        assert!(code == 0 && said.contains("ComparisonError") && said.contains("Unknown"), "{code}: {said}");

        plane
            .secret(
                "repo",
                Some("repository"),
                json!({"type": "git", "url": url, "username": "git", "password": password}),
            )
            .await?;
        plane.synced("app", &commit).await?;
        plane.value_is("a", "value", Some("1")).await?;
        shows_nowhere(&plane, "app", &password).await
    })
}

#[test]
fn a_template_of_credentials_serves_all_repositories_below_its_url() -> Result<()> {
    run(async |cluster| {
        let plane = Plane::with_repository(cluster, "template", "private/").await?;
        let commit = plane.repository.commit("Start", &[("app/a.yaml", Some(&config_map("a", "1")))])?;
        let url = plane.repository.http_url();
        let (above, _) = url.rsplit_once('/').unwrap_or_default();
        let password = cluster.git()?.password()?;
        plane
            .secret("creds", Some("repo-creds"), json!({"url": above, "username": "git", "password": password}))
            .await?;
        plane.apply(plane.app("app", "app", json!({"syncPolicy": automated()}))).await?;
        plane.synced("app", &commit).await?;
        shows_nowhere(&plane, "app", &password).await
    })
}

#[test]
fn ssh_takes_a_known_host_and_a_key() -> Result<()> {
    run(async |cluster| {
        let plane = Plane::new(cluster, "ssh").await?;
        let commit = plane.repository.commit("Start", &[("app/a.yaml", Some(&config_map("a", "1")))])?;
        let url = plane.repository.ssh_url();
        let key = std::fs::read_to_string(cluster.git()?.ssh_key())?;
        plane.secret("repo", Some("repository"), json!({"type": "git", "url": url, "sshPrivateKey": key})).await?;
        plane.apply(plane.app("app", "app", json!({"source": {"repoURL": url}, "syncPolicy": automated()}))).await?;
        // Nobody knows the host yet: that is said, and nothing is fetched.
        plane.says("app", "ComparisonError", &[&url, "host's key is not known"]).await?;
        plane
            .apply(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "argocd-ssh-known-hosts-cm", "labels": {"app.kubernetes.io/part-of": "argocd"}},
                "data": {"ssh_known_hosts": cluster.git()?.known_hosts()?},
            }))
            .await?;
        plane.synced("app", &commit).await?;
        plane.value_is("a", "value", Some("1")).await?;
        let line = key.lines().nth(1).unwrap_or_default();
        ensure!(line.len() > 20, "the key has lines");
        shows_nowhere(&plane, "app", line).await
    })
}

#[test]
fn a_repository_may_be_a_directory() -> Result<()> {
    run(async |cluster| {
        let plane = Plane::new(cluster, "file").await?;
        let list = json!({
            "apiVersion": "v1", "kind": "List",
            "items": [
                serde_json::from_str::<serde_json::Value>(&config_map("c", "3"))?,
                serde_json::from_str::<serde_json::Value>(&config_map("d", "4"))?,
            ],
        });
        let commit = plane.repository.commit(
            "Start",
            &[
                ("app/a.yaml", Some(&format!("{}\n---\n{}\n", config_map("a", "1"), config_map("b", "2")))),
                ("app/deep/list.json", Some(&list.to_string())),
                ("app/skipped.yaml", Some(&config_map("skipped", "0"))),
                ("app/readme.md", Some("# no manifest")),
            ],
        )?;
        let source = json!({
            "repoURL": plane.repository.file_url(),
            "directory": {"recurse": true, "exclude": "skipped.yaml"},
        });
        plane.apply(plane.app("app", "app", json!({"source": source, "syncPolicy": automated()}))).await?;
        plane.synced("app", &commit).await?;
        for (name, value) in [("a", Some("1")), ("b", Some("2")), ("c", Some("3")), ("d", Some("4")), ("skipped", None)]
        {
            assert_eq!(plane.value(name, "value").await?.as_deref(), value, "{name}");
        }
        Ok(())
    })
}

const BASE: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: tidegate/testserver:1}]
"#;

#[test]
fn an_overlay_is_built_with_the_applications_settings() -> Result<()> {
    run(async |cluster| {
        install::render_worker()?;
        let plane = Plane::new(cluster, "overlay").await?;
        let overlay = "resources: [../../base]\nnamePrefix: prod-\nconfigMapGenerator:\n  - {name: settings, literals: [mode=production]}\n";
        let commit = plane.repository.commit(
            "Start",
            &[
                ("base/web.yaml", Some(BASE)),
                ("base/kustomization.yaml", Some("resources: [web.yaml]\n")),
                ("overlays/prod/kustomization.yaml", Some(overlay)),
            ],
        )?;
        let kustomize = json!({
            "namePrefix": "eu-", "images": ["tidegate/testserver:2"],
            "commonLabels": {"team": "shop"}, "replicas": [{"name": "web", "count": 0}],
        });
        let app =
            plane.app("app", "overlays/prod", json!({"source": {"kustomize": kustomize}, "syncPolicy": automated()}));
        plane.apply(app).await?;
        let app = plane.synced("app", &commit).await?;
        assert_eq!(app["status"]["sourceType"], "Kustomize");
        let deployments = plane.list("apps/v1", "Deployment").await?;
        assert_eq!(deployments.len(), 1);
        assert_eq!(deployments[0]["spec"]["template"]["spec"]["containers"][0]["image"], "tidegate/testserver:2");
        assert_eq!(deployments[0]["metadata"]["labels"]["team"], "shop");
        // The Application's prefix takes the place of the overlay's.
        assert_eq!(deployments[0]["metadata"]["name"], "eu-web");
        let generated = plane.list("v1", "ConfigMap").await?;
        let generated = generated.iter().filter_map(|object| object["metadata"]["name"].as_str());
        assert_eq!(generated.filter(|name| name.starts_with("eu-settings-")).count(), 1);

        // A commit to the base alone reaches the overlay that reads it.
        let commit = plane.repository.commit(
            "Two ports",
            &[("base/web.yaml", Some(&BASE.replace("replicas: 0", "replicas: 0\n  revisionHistoryLimit: 3")))],
        )?;
        plane.refresh("app").await?;
        plane.synced("app", &commit).await?;
        assert_eq!(plane.list("apps/v1", "Deployment").await?[0]["spec"]["revisionHistoryLimit"], 3);
        Ok(())
    })
}

#[test]
fn a_chart_is_rendered_with_values_and_parameters() -> Result<()> {
    run(async |cluster| {
        install::render_worker()?;
        let plane = Plane::new(cluster, "chart").await?;
        let template = r#"
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-settings
data:
  namespace: {{ .Release.Namespace }}
  size: {{ .Values.size | quote }}
  mode: {{ .Values.mode | quote }}
  number: {{ .Values.number | quote }}
  text: {{ .Values.text | quote }}
"#;
        let commit = plane.repository.commit(
            "Start",
            &[
                ("chart/Chart.yaml", Some("apiVersion: v2\nname: shop\nversion: 1.0.0\n")),
                ("chart/values.yaml", Some("size: small\nmode: default\nnumber: 0\ntext: none\n")),
                ("chart/values-prod.yaml", Some("size: large\nmode: production\n")),
                ("chart/templates/settings.yaml", Some(template)),
            ],
        )?;
        let helm = json!({
            "releaseName": "eu", "valueFiles": ["values-prod.yaml"],
            "parameters": [{"name": "mode", "value": "parameter"}, {"name": "text", "value": "7", "forceString": true}],
            "valuesObject": {"number": 5},
        });
        plane.apply(plane.app("app", "chart", json!({"source": {"helm": helm}, "syncPolicy": automated()}))).await?;
        let app = plane.synced("app", &commit).await?;
        assert_eq!(app["status"]["sourceType"], "Helm");
        let settings = plane.get("v1", "ConfigMap", "eu-settings").await?;
        assert_eq!(
            settings["data"],
            json!({"namespace": plane.name(), "size": "large", "mode": "parameter", "number": "5", "text": "7"})
        );

        // A template that does not render: the chart's file is named, and what runs stays.
        plane
            .repository
            .commit("Break", &[("chart/templates/settings.yaml", Some("{{ .Values.size | nofunction }}"))])?;
        plane.refresh("app").await?;
        plane.says("app", "ComparisonError", &[&plane.repository.http_url(), "settings.yaml", "nofunction"]).await?;
        let app = plane.application("app").await?;
        assert_eq!(sync_status(&app), "Unknown");
        assert_eq!(plane.value("eu-settings", "size").await?.as_deref(), Some("large"));
        Ok(())
    })
}
