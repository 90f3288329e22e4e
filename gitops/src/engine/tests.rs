use super::*;
use crate::render::testing::{with_worker, without_tools};
use crate::repo::testing::Upstream;

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
        assert_eq!(after.revisions(), [commit.clone()]);
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
    for source in
        [json!([{"chart": "c", "repoURL": "https://charts.example"}]), json!([{"repoURL": "oci://h/x", "path": "."}])]
    {
        let error = engine.manifests(&request(&upstream, "app", source)).await.unwrap_err();
        assert!(matches!(error.error, RenderError::Unsupported(_)), "{error:?}");
    }
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
