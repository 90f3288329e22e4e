use super::*;
use crate::render::testing::{with_worker, without_tools};
use crate::repo::testing::Upstream;
use serde_json::json;

fn engine(upstream: &Upstream, render: RenderSettings) -> Engine {
    Engine::new(&upstream.cache(), EngineSettings { render, ..EngineSettings::default() }).unwrap()
}

fn request(upstream: &Upstream, app: &str, sources: Value) -> ManifestRequest {
    let mut sources = sources;
    for source in sources.as_array_mut().unwrap() {
        if source.get("repoURL").is_none() {
            source["repoURL"] = upstream.url().into();
        }
    }
    ManifestRequest {
        app_name: app.into(),
        project: "default".into(),
        destination_namespace: "prod".into(),
        sources: serde_json::from_value(sources).unwrap(),
        kube_version: "1.36".into(),
        ..ManifestRequest::default()
    }
}

fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{v: '{value}'}}\n")
}

fn news() -> Freshness {
    Freshness::Since(Instant::now())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_costs_what_it_changed() {
    let upstream = Upstream::new();
    for i in 0..200 {
        for part in ["a", "b", "c"] {
            upstream.write(&format!("apps/{i}/{part}.yaml"), &config_map(part, "1"));
        }
    }
    upstream.commit("all");
    let engine = Arc::new(engine(&upstream, without_tools()));
    let ask = |freshness: Freshness| {
        let (engine, upstream) = (&engine, &upstream);
        async move {
            let tasks: Vec<_> = (0..200)
                .map(|i| {
                    let mut request = request(upstream, &format!("app-{i}"), json!([{"path": format!("apps/{i}")}]));
                    request.freshness = freshness;
                    let engine = engine.clone();
                    tokio::spawn(async move { engine.manifests(&request).await.unwrap() })
                })
                .collect();
            let mut all = Vec::new();
            for task in tasks {
                all.push(task.await.unwrap());
            }
            all
        }
    };
    let first = ask(Freshness::Cached).await;
    assert!(first.iter().all(|m| m.manifests.len() == 3 && !m.from_cache));
    let counts = engine.counters();
    assert_eq!((counts.ls_remote, counts.fetch, counts.renders, counts.hits), (1, 1, 200, 0));

    upstream.write("apps/77/b.yaml", &config_map("b", "2"));
    let commit = upstream.commit("one of them");
    let second = ask(news()).await;
    let counts = engine.counters();
    assert_eq!((counts.ls_remote, counts.fetch, counts.renders, counts.hits), (2, 2, 201, 199));
    assert_eq!(counts.worker_starts, 0);
    for (i, (before, after)) in first.iter().zip(&second).enumerate() {
        assert_eq!(after.revisions(), std::slice::from_ref(&commit));
        assert_eq!(before.key == after.key, i != 77, "{i}");
        assert_eq!(after.from_cache, i != 77);
    }
    assert_eq!(second[77].manifests[1]["data"]["v"], "2");

    // Back to what was: the manifests are still known.
    upstream.write("apps/77/b.yaml", &config_map("b", "1"));
    upstream.commit("back");
    let third = ask(news()).await;
    assert_eq!(engine.counters().renders, 201);
    assert_eq!(third[77].key, first[77].key);
}

#[tokio::test]
async fn what_counts_is_what_was_read() {
    let upstream = Upstream::new();
    upstream.write("base/kustomization.yaml", "resources: [cm.yaml]\n");
    upstream.write("base/cm.yaml", &config_map("base", "1"));
    upstream.write("overlay/kustomization.yaml", "resources: [../base]\nnamePrefix: o-\n");
    upstream.write("chart/Chart.yaml", "apiVersion: v2\nname: c\nversion: 1.0.0\n");
    upstream.write("chart/templates/cm.yaml", &config_map("chart", "{{ .Values.x }}"));
    upstream.write("values/x.yaml", "x: one\n");
    upstream.write("plain/cm.yaml", &config_map("plain", "1"));
    upstream.commit("start");
    let engine = engine(&upstream, with_worker());
    let overlay = json!([{"path": "overlay"}]);
    let chart = json!([{"path": "chart", "helm": {"valueFiles": ["$vals/values/x.yaml", "extra.yaml"], "ignoreMissingValueFiles": true}},
        {"ref": "vals"}]);
    let plain = json!([{"path": "plain"}]);
    // Which of the three were rendered anew.
    let rendered = |label: &'static str| {
        let (engine, upstream, overlay, chart, plain) = (&engine, &upstream, &overlay, &chart, &plain);
        async move {
            let mut fresh = Vec::new();
            for sources in [overlay, chart, plain] {
                let mut request = request(upstream, "app", sources.clone());
                request.freshness = news();
                fresh.push(!engine.manifests(&request).await.unwrap_or_else(|e| panic!("{label}: {e}")).from_cache);
            }
            (fresh[0], fresh[1], fresh[2])
        }
    };
    assert_eq!(rendered("first").await, (true, true, true));
    type Step = (&'static str, fn(&Upstream), (bool, bool, bool));
    let steps: [Step; 8] = [
        ("nothing of theirs", |u| u.write("other/x", "1"), (false, false, false)),
        ("the base of the overlay", |u| u.write("base/cm.yaml", &config_map("base", "2")), (true, false, false)),
        ("the values elsewhere", |u| u.write("values/x.yaml", "x: two\n"), (false, true, false)),
        ("a values file that was missing", |u| u.write("chart/extra.yaml", "x: three\n"), (false, true, false)),
        ("a new file beside the base's", |u| u.write("base/new.yaml", "x"), (false, false, false)),
        ("an override file", |u| u.write("plain/.argocd-source.yaml", "directory: {}\n"), (false, false, true)),
        ("a plain directory's neighbour below", |u| u.write("plain/sub/x.yaml", "x"), (false, false, false)),
        (
            "a directory that becomes a kustomization",
            |u| u.write("overlay/Kustomization.txt", ""),
            (false, false, false),
        ),
    ];
    for (label, change, expected) in steps {
        change(&upstream);
        upstream.commit(label);
        assert_eq!(rendered(label).await, expected, "{label}");
    }
    // What goes in besides files counts, too.
    let mut other = request(&upstream, "app", overlay.clone());
    other.kube_version = "1.99".into();
    assert!(engine.manifests(&other).await.unwrap().from_cache, "an overlay does not ask for the version");
    let mut other = request(&upstream, "app", chart.clone());
    other.kube_version = "1.99".into();
    assert!(!engine.manifests(&other).await.unwrap().from_cache, "a chart may");
    let mut other = request(&upstream, "app", json!([{"path": "overlay", "kustomize": {"namePrefix": "x-"}}]));
    other.freshness = Freshness::Cached;
    assert!(!engine.manifests(&other).await.unwrap().from_cache);
    let mut hard = request(&upstream, "app", plain.clone());
    hard.freshness = Freshness::Hard(Instant::now());
    assert!(!engine.manifests(&hard).await.unwrap().from_cache);
    assert!(engine.manifests(&hard).await.unwrap().from_cache, "one hard refresh renders once");
}

#[tokio::test]
async fn manifests_that_name_the_commit_follow_it() {
    let upstream = Upstream::new();
    upstream.write("app/kustomization.yaml", "resources: [cm.yaml]\n");
    upstream.write("app/cm.yaml", &config_map("cm", "1"));
    upstream.commit("one");
    let engine = engine(&upstream, with_worker());
    let mut asked = request(
        &upstream,
        "app",
        json!([{"path": "app", "kustomize": {"commonAnnotations": {"rev": "$ARGOCD_APP_REVISION"},
        "commonAnnotationsEnvsubst": true}}]),
    );
    engine.manifests(&asked).await.unwrap();
    upstream.write("other", "x");
    let commit = upstream.commit("two");
    asked.freshness = news();
    let manifests = engine.manifests(&asked).await.unwrap();
    assert!(!manifests.from_cache);
    assert_eq!(manifests.manifests[0]["metadata"]["annotations"]["rev"], commit);
}

#[tokio::test]
async fn a_failure_is_not_repeated_until_something_changes() {
    let upstream = Upstream::new();
    upstream.write("app/cm.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: [\n");
    upstream.commit("broken");
    let engine = engine(&upstream, without_tools());
    let mut asked = request(&upstream, "app", json!([{"path": "app"}]));
    for _ in 0..5 {
        let error = engine.manifests(&asked).await.unwrap_err();
        assert!(matches!(error.error, RenderError::Manifest { .. }) && !error.is_transient(), "{error:?}");
    }
    assert_eq!(engine.counters().renders, 1);
    upstream.write("other", "1");
    upstream.commit("elsewhere");
    engine.invalidate(&upstream.url()).await;
    assert!(engine.manifests(&asked).await.is_err());
    assert_eq!(engine.counters().renders, 1, "a commit elsewhere does not matter");
    asked.freshness = news();
    assert!(engine.manifests(&asked).await.is_err());
    assert_eq!(engine.counters().renders, 2, "somebody asked for it");
    upstream.write("app/cm.yaml", &config_map("cm", "1"));
    upstream.commit("repaired");
    engine.invalidate(&upstream.url()).await;
    asked.freshness = Freshness::Cached;
    assert_eq!(engine.manifests(&asked).await.unwrap().manifests.len(), 1);
}

#[tokio::test]
async fn several_sources_and_pinned_revisions() {
    let upstream = Upstream::new();
    upstream.write("one/a.yaml", &config_map("shared", "one"));
    upstream.write("one/b.yaml", &config_map("only-one", "one"));
    upstream
        .write("two/a.yaml", &config_map("shared", "two").replace("{name: shared}", "{name: shared, namespace: prod}"));
    let first = upstream.commit("first");
    let engine = engine(&upstream, without_tools());
    let both = request(&upstream, "app", json!([{"path": "one"}, {"path": "two"}]));
    let manifests = engine.manifests(&both).await.unwrap();
    assert_eq!(manifests.repeated, ["/ConfigMap/prod/shared"]);
    let values: Vec<&Value> = manifests.manifests.iter().map(|m| &m["data"]["v"]).collect();
    assert_eq!(values, ["one", "two"]);
    assert_eq!(manifests.revisions(), [first.clone(), first.clone()]);

    upstream.write("two/a.yaml", &config_map("shared", "three"));
    let second = upstream.commit("second");
    let mut pinned = both.clone();
    pinned.revisions = vec![String::new(), first.clone()];
    pinned.freshness = news();
    let manifests = engine.manifests(&pinned).await.unwrap();
    assert_eq!(manifests.revisions(), [second, first]);
    assert!(manifests.from_cache);

    let none = ManifestRequest::default();
    assert!(engine.manifests(&none).await.unwrap_err().is_invalid_spec());
    let twice =
        request(&upstream, "app", json!([{"path": "one"}, {"ref": "x", "targetRevision": pinned.revisions[1]}]));
    let error = engine.manifests(&twice).await.unwrap_err();
    assert!(error.to_string().starts_with("source 2 of 2: ref \"x\" is"), "{error}");
    let chart = json!([{"chart": "c", "repoURL": "https://charts.example", "targetRevision": "1.2.3"}]);
    let error = engine.manifests(&request(&upstream, "app", chart)).await.unwrap_err();
    assert!(matches!(error.error, RenderError::ToolUnavailable(_)), "{error:?}");
    let by_name = request(&upstream, "app", json!([{"path": "one", "targetRevision": "refs/heads/main"}]));
    let renders = engine.counters().renders;
    engine.manifests(&by_name).await.unwrap();
    assert_eq!(engine.counters().renders, renders, "another name of the same commit");
}

#[tokio::test]
async fn memory_is_bounded() {
    let upstream = Upstream::new();
    for i in 0..40 {
        upstream.write(&format!("{i}/cm.yaml"), &config_map("cm", &"x".repeat(2000)));
    }
    upstream.commit("all");
    let settings = EngineSettings { render: without_tools(), cache_bytes: 50_000, ..EngineSettings::default() };
    let engine = Engine::new(&upstream.cache(), settings).unwrap();
    for i in 0..40 {
        engine.manifests(&request(&upstream, "app", json!([{"path": i.to_string()}]))).await.unwrap();
    }
    let bytes = engine.counters().cache_bytes;
    assert!(bytes <= 50_000 && bytes > 10_000, "{bytes}");
}

/// Serves the files of a directory over HTTP, to those who log in as `u:hunter2`. Returns the address and a count of
/// requests.
async fn serve_files(root: std::path::PathBuf) -> (String, Arc<AtomicU64>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                let mut buffer = [0; 4096];
                let n = stream.read(&mut buffer).await.unwrap();
                request.extend_from_slice(&buffer[..n]);
            }
            counted.fetch_add(1, Ordering::Relaxed);
            let text = String::from_utf8_lossy(&request).into_owned();
            let path = text.split_whitespace().nth(1).unwrap().trim_start_matches('/');
            let allowed = text.contains("Basic dTpodW50ZXIy");
            let (status, body) = match std::fs::read(root.join(path)) {
                _ if !allowed => ("401 Unauthorized", Vec::new()),
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&body).await.unwrap();
        }
    });
    (format!("http://{address}"), count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn charts_of_a_chart_repository() {
    let upstream = Upstream::new();
    upstream.write("values/prod.yaml", "x: lent\n");
    upstream.commit("values");
    let served = upstream.dir.path().join("served");
    let chart = upstream.dir.path().join("chart/demo");
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    std::fs::create_dir_all(&served).unwrap();
    std::fs::write(chart.join("values.yaml"), "x: default\n").unwrap();
    std::fs::write(chart.join("values-chart.yaml"), "x: in the chart\n").unwrap();
    std::fs::write(chart.join("templates/cm.yaml"), config_map("cm", "{{ .Chart.Version }} {{ .Values.x }}")).unwrap();
    let mut index = String::from("apiVersion: v1\nentries:\n  demo:\n");
    for version in ["1.0.0", "1.4.0", "2.0.0"] {
        std::fs::write(chart.join("Chart.yaml"), format!("apiVersion: v2\nname: demo\nversion: {version}\n")).unwrap();
        let file = format!("demo-{version}.tgz");
        let status = std::process::Command::new("tar")
            .args(["czf", served.join(&file).to_str().unwrap(), "demo"])
            .current_dir(upstream.dir.path().join("chart"))
            .status()
            .unwrap();
        assert!(status.success());
        index.push_str(&format!("  - {{apiVersion: v2, name: demo, version: {version}, urls: ['{file}']}}\n"));
    }
    std::fs::write(served.join("index.yaml"), index).unwrap();
    let (url, count) = serve_files(served).await;
    let engine = engine(&upstream, with_worker());
    let source = |extra: Value| {
        let mut source = json!({"repoURL": url, "chart": "demo", "targetRevision": "^1"});
        for (key, value) in extra.as_object().unwrap() {
            source[key] = value.clone();
        }
        json!([source, {"ref": "lent"}])
    };
    let denied = engine.manifests(&request(&upstream, "app", source(json!({})))).await.unwrap_err();
    assert!(denied.to_string().contains("401"), "{denied}");
    let mut repositories = Repositories::new();
    let secret = json!({"metadata": {"name": "s", "labels": {crate::secret::SECRET_TYPE_LABEL: "repository"}},
        "stringData": {"url": url, "type": "helm", "username": "u", "password": "hunter2"}});
    repositories.add_secret(&secret).unwrap();
    engine.set_repositories(repositories);
    engine.invalidate(&url).await;

    let value = |manifests: &Manifests| manifests.manifests[0]["data"]["v"].as_str().unwrap().to_string();
    let first = engine.manifests(&request(&upstream, "app", source(json!({})))).await.unwrap();
    assert_eq!((value(&first), &*first.sources[0].commit), ("1.4.0 default".into(), "1.4.0"));
    let asked = count.load(Ordering::Relaxed);
    assert!(engine.manifests(&request(&upstream, "app", source(json!({})))).await.unwrap().from_cache);
    assert_eq!(count.load(Ordering::Relaxed), asked, "nobody is asked again");
    let cases = [
        (json!({"targetRevision": "2.0.0", "helm": {"valueFiles": ["values-chart.yaml"]}}), "2.0.0 in the chart"),
        (json!({"targetRevision": "1.0.0", "helm": {"valueFiles": ["$lent/values/prod.yaml"]}}), "1.0.0 lent"),
        (
            json!({"targetRevision": "*", "helm": {"valueFiles": ["no.yaml"], "ignoreMissingValueFiles": true}}),
            "2.0.0 default",
        ),
    ];
    for (extra, expected) in cases {
        assert_eq!(value(&engine.manifests(&request(&upstream, "app", source(extra))).await.unwrap()), expected);
    }
    for (extra, expected) in [
        (json!({"targetRevision": "9.9.9"}), "9.9.9"),
        (json!({"targetRevision": "^9"}), "^9"),
        (json!({"chart": "nope"}), "nope"),
        (json!({"helm": {"valueFiles": ["no.yaml"]}}), "no.yaml does not exist in the chart"),
    ] {
        let error = engine.manifests(&request(&upstream, "app", source(extra))).await.unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(&url) && !error.contains("hunter2"), "{error}");
    }
}
