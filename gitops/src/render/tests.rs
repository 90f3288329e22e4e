use super::testing::{Bench, names, with_worker, without_tools};
use super::*;
use serde_json::json;
use std::time::Duration;

fn config_map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  k: v\n")
}

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 1\n  \
    selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      \
    containers: [{name: web, image: 'nginx:1.0'}]\n";

#[tokio::test]
async fn a_directory_gives_its_manifests_in_order() {
    let bench = Bench::new(without_tools());
    let up = &bench.upstream;
    up.write("app/b.yml", &config_map("b"));
    up.write("app/a.yaml", &format!("{}---\n# nothing\n---\n{}", config_map("a1"), config_map("a2")));
    up.write("app/c.json", r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"n":"1"}}"#);
    up.write("app/list.yaml", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: l1}}\n- {apiVersion: v1, kind: Secret, metadata: {name: l2}}\n");
    up.write("app/empty-list.yaml", "apiVersion: v1\nkind: ConfigMapList\nmetadata: {}\nitems: null\n");
    up.write("app/values.yaml", "replicas: 3\nimage: x\n");
    up.write("app/broken-but-no-manifest.yaml", "a: [1, 2\n");
    up.write("app/README.md", "kind: nothing");
    up.write("app/skipped.yaml", &format!("# +argocd:skip-file-rendering\n{}", config_map("skipped")));
    up.write("app/sub/d.yaml", &config_map("d"));
    up.write("elsewhere/linked.yaml", &config_map("linked"));
    up.link("app/z-link.yaml", "../elsewhere/linked.yaml");
    let rendered = bench.render(json!({"path": "app"})).await.unwrap();
    assert_eq!(rendered.source_type, SourceType::Directory);
    let flat =
        ["ConfigMap/a1", "ConfigMap/a2", "ConfigMap/b", "ConfigMap/c", "Secret/l1", "Secret/l2", "ConfigMap/linked"];
    assert_eq!(names(&rendered), flat);
    assert_eq!(rendered.manifests[0]["data"], json!({"k": "v"}));

    let rendered = bench.render(json!({"path": "./app/", "directory": {"recurse": true}})).await.unwrap();
    assert!(names(&rendered).contains(&"ConfigMap/d".to_string()));
    let source = json!({"path": "app", "directory": {"recurse": true, "include": "{a,sub/*}.yaml", "exclude": "a*"}});
    assert_eq!(names(&bench.render(source).await.unwrap()), ["ConfigMap/d"]);
    assert_eq!(bench.tools().started(), 0);
}

#[tokio::test]
async fn what_is_wrong_in_a_directory_is_named() {
    let bench = Bench::new(without_tools());
    let up = &bench.upstream;
    up.write("bad/x.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndata:\n  k: [hunter2\n");
    up.write("nokind/x.yaml", "apiVersion: v1\nmetadata:\n  name: x\n# kind:\n");
    up.write("badjson/x.json", "{\"apiVersion\": \"v1\",\n nonsense}");
    up.write("file.yaml", &config_map("f"));
    up.link("out/passwd.yaml", "../../etc/passwd");
    let error = |source: serde_json::Value| {
        let bench = &bench;
        async move { bench.render(source).await.unwrap_err() }
    };
    let bad = error(json!({"path": "bad"})).await;
    assert!(matches!(bad, RenderError::Manifest { line: Some(6..=7), .. }), "{bad:?}");
    let shown = bad.to_string();
    assert!(shown.contains("bad/x.yaml, line") && shown.contains(&up.url()) && !shown.contains("hunter2"), "{shown}");
    assert!(error(json!({"path": "nokind"})).await.to_string().contains("nokind/x.yaml: an object without kind"));
    assert!(error(json!({"path": "badjson"})).await.to_string().contains("badjson/x.json, line 2"));
    let missing = error(json!({"path": "nowhere"})).await;
    assert!(matches!(missing, RenderError::Repo(RepoError::PathNotFound { .. })), "{missing:?}");
    assert!(missing.to_string().ends_with("nowhere: app path does not exist"));
    assert!(error(json!({"path": "file.yaml"})).await.to_string().contains("not a directory"));
    for outside in ["../x", "out"] {
        assert!(error(json!({"path": outside})).await.to_string().contains("leads out of the repository"), "{outside}");
    }
    let plugin = error(json!({"path": "bad", "plugin": {"name": "p"}})).await;
    assert!(matches!(plugin, RenderError::Unsupported(_)));
}

#[tokio::test]
async fn the_size_of_a_directory_is_limited() {
    let bench = Bench::new(RenderSettings { max_directory_bytes: 100, ..without_tools() });
    bench.upstream.write("app/a.yaml", &config_map("a"));
    bench.upstream.write("app/b.yaml", &config_map("b"));
    let error = bench.render(json!({"path": "app"})).await.unwrap_err();
    assert!(matches!(error, RenderError::TooLarge { limit: 100, .. }), "{error:?}");
}

#[tokio::test]
async fn without_tools_the_message_says_what_is_missing() {
    let bench = Bench::new(without_tools());
    bench.upstream.write("k/kustomization.yaml", "resources: []\n");
    bench.upstream.write("h/Chart.yaml", "apiVersion: v2\nname: h\nversion: 1.0.0\n");
    for (path, tool) in [("k", "kustomize"), ("h", "helm")] {
        let error = bench.render(json!({"path": path})).await.unwrap_err();
        assert!(matches!(error, RenderError::ToolUnavailable(_)), "{error:?}");
        let shown = error.to_string();
        assert!(shown.contains(tool) && shown.contains("TIDEGATE_RENDER_WORKER"), "{shown}");
    }
}

#[tokio::test]
async fn override_files_and_build_variables() {
    let bench = Bench::new(with_worker());
    let up = &bench.upstream;
    up.write("app/kustomization.yaml", "resources: [web.yaml]\n");
    up.write("app/web.yaml", DEPLOYMENT);
    up.write("app/.argocd-source.yaml", "kustomize: {images: ['nginx:2.0'], namePrefix: all-}\npath: elsewhere\n");
    up.write(
        "app/.argocd-source-shop.yaml",
        "kustomize: {namePrefix: $ARGOCD_APP_NAME-, commonLabels: {rev: '$ARGOCD_APP_NAME'}}\n",
    );
    up.write("app/.argocd-source-other.yaml", "kustomize: {namePrefix: wrong-}\n");
    let rendered = bench.render(json!({"path": "app"})).await.unwrap();
    let web = &rendered.manifests[0];
    assert_eq!(web.pointer("/spec/template/spec/containers/0/image"), Some(&json!("nginx:2.0")));
    assert_eq!(web.pointer("/metadata/labels/rev"), Some(&json!("shop")));
    // Only what Argo fills in is filled in.
    assert_eq!(web.pointer("/metadata/name"), Some(&json!("$ARGOCD_APP_NAME-web")));
}

#[tokio::test]
async fn a_kustomization_with_every_change() {
    let bench = Bench::new(with_worker());
    let up = &bench.upstream;
    up.write("base/kustomization.yaml", "resources: [web.yaml]\nconfigMapGenerator:\n- {name: cfg, files: [data.txt], options: {disableNameSuffixHash: true}}\n");
    up.write("base/web.yaml", DEPLOYMENT);
    up.write("base/data.txt", "hello");
    up.write(
        "overlay/kustomization.yaml",
        "resources: [../base]\nimages: [{name: nginx, newName: mirror/nginx, newTag: '1.5'}]\n",
    );
    up.write("overlay/patch.yaml", "- {op: add, path: /metadata/annotations, value: {patched: 'yes'}}\n");
    up.write(
        "component/kustomization.yaml",
        "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [extra.yaml]\n",
    );
    up.write("component/extra.yaml", &config_map("extra"));
    up.write("unrelated/x.yaml", &config_map("x"));
    let rendered = bench
        .render(json!({"path": "overlay", "kustomize": {
            "namePrefix": "pre-", "nameSuffix": "-suf", "namespace": "ns",
            "images": ["nginx:2.0", "other=registry.example/other@sha256:abc"],
            "replicas": [{"name": "web", "count": "5"}],
            "commonLabels": {"team": "$ARGOCD_APP_NAME"}, "labelWithoutSelector": true, "labelIncludeTemplates": true,
            "commonAnnotations": {"raw": "$ARGOCD_APP_NAME"},
            "patches": [{"path": "patch.yaml", "target": {"kind": "Deployment"}},
                {"patch": "- {op: remove, path: /spec/revisionHistoryLimit}", "target": {"name": "web"}, "options": {"allowNameChange": false}}],
            "components": ["../component", "../missing"], "ignoreMissingComponents": true,
        }}))
        .await;
    // Removing what is not there is refused by Kustomize, and the message comes through.
    let error = rendered.unwrap_err().to_string();
    assert!(error.contains("overlay: kustomize:") && error.contains("revisionHistoryLimit"), "{error}");

    let rendered = bench
        .render(json!({"path": "overlay", "kustomize": {
            "namePrefix": "pre-", "nameSuffix": "-suf", "namespace": "ns",
            "images": ["nginx:2.0"],
            "replicas": [{"name": "web", "count": "5"}],
            "commonLabels": {"team": "$ARGOCD_APP_NAME"}, "labelWithoutSelector": true, "labelIncludeTemplates": true,
            "commonAnnotations": {"raw": "$ARGOCD_APP_NAME"},
            "patches": [{"path": "patch.yaml", "target": {"kind": "Deployment"}}],
            "components": ["../component", "../missing"], "ignoreMissingComponents": true,
        }}))
        .await
        .unwrap();
    assert_eq!(rendered.source_type, SourceType::Kustomize);
    let mut made = names(&rendered);
    made.sort();
    assert_eq!(made, ["ConfigMap/pre-cfg-suf", "ConfigMap/pre-extra-suf", "Deployment/pre-web-suf"]);
    let web = rendered.manifests.iter().find(|m| m["kind"] == "Deployment").unwrap();
    let expected = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "pre-web-suf", "namespace": "ns", "labels": {"team": "shop"},
            "annotations": {"patched": "yes", "raw": "$ARGOCD_APP_NAME"}},
        "spec": {"replicas": 5, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web", "team": "shop"}, "annotations": {"raw": "$ARGOCD_APP_NAME"}},
            "spec": {"containers": [{"name": "web", "image": "mirror/nginx:2.0"}]}}}});
    assert_eq!(**web, expected);
    let paths: Vec<&str> = rendered.paths_read.iter().map(String::as_str).collect();
    for read in ["base/web.yaml", "base/data.txt", "component/extra.yaml", "overlay/patch.yaml"] {
        assert!(paths.contains(&read), "{read} in {paths:?}");
    }
    assert!(!paths.iter().any(|path| path.starts_with("unrelated") || path.is_empty()), "{paths:?}");
}

#[tokio::test]
async fn kustomize_labels_and_forbidden_paths() {
    let bench = Bench::new(with_worker());
    let up = &bench.upstream;
    up.write("app/kustomization.yaml", "resources: [web.yaml]\ncommonLabels: {team: a}\n");
    up.write("app/web.yaml", DEPLOYMENT);
    let twice = json!({"path": "app", "kustomize": {"commonLabels": {"team": "b"}}});
    let error = bench.render(twice).await.unwrap_err().to_string();
    assert!(error.contains("label team already in kustomization file"), "{error}");
    let forced = json!({"path": "app", "kustomize": {"commonLabels": {"team": "b"}, "forceCommonLabels": true}});
    let rendered = bench.render(forced).await.unwrap();
    assert_eq!(rendered.manifests[0].pointer("/spec/selector/matchLabels/team"), Some(&json!("b")));

    up.write("out/kustomization.yaml", "resources: [../../../../etc]\n");
    up.write("file/kustomization.yaml", "resources: [../app/web.yaml]\n");
    up.write("disk/kustomization.yaml", "configMapGenerator: [{name: x, files: [/etc/passwd]}]\n");
    up.write("link/kustomization.yaml", "resources: [web.yaml]\n");
    up.link("link/web.yaml", "/etc/hostname");
    for path in ["out", "file", "disk", "link"] {
        let error = bench.render(json!({"path": path})).await.unwrap_err();
        assert!(matches!(error, RenderError::Tool { tool: "kustomize", .. }), "{path}: {error:?}");
    }
    let mut relaxed = bench;
    relaxed.settings.kustomize_build_options =
        vec!["--load-restrictor".into(), "LoadRestrictionsNone".into(), "--odd".into()];
    let rendered = relaxed.render(json!({"path": "file"})).await.unwrap();
    assert_eq!(names(&rendered), ["Deployment/web"]);
    assert!(rendered.warnings[0].contains("--odd"));
    assert!(relaxed.render(json!({"path": "disk"})).await.is_err());
}

fn chart(up: &crate::repo::testing::Upstream) {
    up.write("chart/Chart.yaml", "apiVersion: v2\nname: demo\nversion: 1.2.3\ndependencies:\n- {name: common, version: 1.x, repository: 'file://../common'}\n");
    up.write("chart/values.yaml", "a: chart\nb: chart\nc: chart\nd: chart\ne: chart\nlist: []\n");
    up.write("chart/templates/_helpers.tpl", "{{ define \"demo.name\" }}{{ .Release.Name }}-demo{{ end }}");
    up.write(
        "chart/templates/cm.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ include \"demo.name\" . }}\n  namespace: {{ .Release.Namespace }}\ndata:\n  \
         values: {{ list .Values.a .Values.b .Values.c .Values.d .Values.e | join \",\" | quote }}\n  \
         list: {{ .Values.list | join \"+\" | quote }}\n  \
         number: {{ kindOf .Values.number | quote }}\n  text: {{ kindOf .Values.text | quote }}\n  \
         file: {{ .Values.file | quote }}\n  \
         kube: {{ .Capabilities.KubeVersion.Version }}\n  widget: {{ .Capabilities.APIVersions.Has \"example.org/v1/Widget\" | quote }}\n  \
         install: {{ .Release.IsInstall | quote }}\n",
    );
    up.write("chart/templates/NOTES.txt", "thank you");
    up.write(
        "chart/templates/test.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: t\n  annotations: {helm.sh/hook: test}\n",
    );
    up.write(
        "chart/templates/hook.yaml",
        "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: h\n  annotations: {helm.sh/hook: pre-install}\n",
    );
    up.write(
        "chart/crds/crd.yaml",
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.example.org}\n",
    );
    up.write("chart/.helmignore", "ignored/\n");
    up.write("chart/ignored/huge.txt", "x");
    up.write("common/Chart.yaml", "apiVersion: v2\nname: common\nversion: 1.0.0\n");
    up.write("common/templates/s.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: common}\n");
    up.write("values/1.yaml", "b: file1\nc: file1\nd: file1\ne: file1\n");
    up.write("values/2.yaml", "c: file2\nd: file2\ne: file2\n");
    up.write("values/file.txt", "from a file, with comma");
}

#[tokio::test]
async fn a_chart_with_values_in_their_precedence() {
    let bench = Bench::new(with_worker());
    chart(&bench.upstream);
    let rendered = bench
        .render(json!({"path": "chart", "helm": {
            "valueFiles": ["/values/1.yaml", "$self/values/2.yaml", "../values/missing.yaml"], "ignoreMissingValueFiles": true,
            "values": "d: ignored\ne: ignored\n", "valuesObject": {"d": "object", "e": "object"},
            "parameters": [{"name": "e", "value": "parameter,$ARGOCD_APP_NAME"}, {"name": "list", "value": "{x,y}"},
                {"name": "number", "value": "5"}, {"name": "text", "value": "5", "forceString": true}],
            "fileParameters": [{"name": "file", "path": "../values/file.txt"}]}}))
        .await
        .unwrap();
    assert_eq!(rendered.source_type, SourceType::Helm);
    assert_eq!(
        names(&rendered),
        ["CustomResourceDefinition/widgets.example.org", "Secret/common", "ConfigMap/shop-demo", "Pod/t", "Job/h"]
    );
    let expected = json!({"values": "chart,file1,file2,object,parameter,shop", "list": "x+y", "number": "int64",
        "text": "string", "file": "from a file, with comma", "kube": "v1.36", "widget": "true", "install": "true"});
    assert_eq!(rendered.manifests[2]["data"], expected);
    assert_eq!(rendered.manifests[2]["metadata"]["namespace"], "prod");
    let paths: Vec<&str> = rendered.paths_read.iter().map(String::as_str).collect();
    for read in ["chart", "common", "values/1.yaml", "$self/values/2.yaml", "values/missing.yaml", "values/file.txt"] {
        assert!(paths.contains(&read), "{read} in {paths:?}");
    }

    let rendered = bench
        .render(json!({"path": "chart", "helm": {"releaseName": "r", "namespace": "own", "skipCrds": true, "skipTests": true,
            "kubeVersion": "v1.30.1", "apiVersions": ["v1"], "valueFiles": ["/values/*.yaml", "/values/1.yaml"]}}))
        .await
        .unwrap();
    assert_eq!(names(&rendered), ["Secret/common", "ConfigMap/r-demo", "Job/h"]);
    let data = &rendered.manifests[1]["data"];
    // The glob gives 2 only, as 1 is named outright after it.
    assert_eq!(data["values"], "chart,file1,file1,file1,file1");
    assert_eq!((&data["kube"], &data["widget"]), (&json!("v1.30.1"), &json!("false")));
}

#[tokio::test]
async fn what_is_wrong_with_a_chart_is_named() {
    let bench = Bench::new(with_worker());
    chart(&bench.upstream);
    bench.upstream.write("fails/Chart.yaml", "apiVersion: v2\nname: fails\nversion: 1.0.0\n");
    bench.upstream.write("fails/templates/x.yaml", "{{ fail \"no good\" }}");
    bench.upstream.write("out/Chart.yaml", "apiVersion: v2\nname: out\nversion: 1.0.0\n");
    bench.upstream.link("out/templates", "../../../etc");
    let cases = [
        (json!({"path": "fails"}), "no good"),
        (json!({"path": "chart", "helm": {"valueFiles": ["nope.yaml"]}}), "values file nope.yaml does not exist"),
        (json!({"path": "chart", "helm": {"valueFiles": ["$nobody/x.yaml"]}}), "does not exist"),
        (json!({"path": "chart", "helm": {"valueFiles": ["nope/*.yaml"]}}), "no file matches"),
        (json!({"path": "chart", "helm": {"valueFiles": ["../../etc/passwd"]}}), "leads out of the repository"),
        (json!({"path": "chart", "helm": {"valueFiles": ["../../*.yaml"]}}), "leads out of the repository"),
        (json!({"path": "chart", "helm": {"valueFiles": ["ftp://h/x"]}}), "is not permitted"),
        (json!({"path": "chart", "helm": {"values": "a: ["}}), "failed to parse helm.values"),
        (json!({"path": "out"}), "leads out of the repository"),
    ];
    for (source, expected) in cases {
        let error = bench.render(source.clone()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{source}: {error}");
    }
}

#[tokio::test]
async fn jsonnet_with_imports_and_variables() {
    let bench = Bench::new(with_worker());
    let up = &bench.upstream;
    up.write("lib/make.libsonnet", "function(name) {apiVersion: 'v1', kind: 'ConfigMap', metadata: {name: name}}");
    up.write("app/x.jsonnet", "function(t) local make = import 'make.libsonnet'; [make(std.extVar('v')), make(t), make('n' + std.extVar('c'))]");
    let rendered = bench
        .render(json!({"path": "app", "directory": {"jsonnet": {"libs": ["lib"],
            "extVars": [{"name": "v", "value": "$ARGOCD_APP_NAME"}, {"name": "c", "value": "1+1", "code": true}],
            "tlas": [{"name": "t", "value": "top"}]}}}))
        .await
        .unwrap();
    assert_eq!(names(&rendered), ["ConfigMap/shop", "ConfigMap/top", "ConfigMap/n2"]);
    assert!(rendered.paths_read.iter().any(|path| path == "lib/make.libsonnet"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_worker_serves_all_and_is_replaced_when_it_is_stuck() {
    let bench = Bench::new(with_worker());
    chart(&bench.upstream);
    for _ in 0..5 {
        bench.render(json!({"path": "chart"})).await.unwrap();
    }
    assert_eq!(bench.tools().started(), 1);

    let slow = Bench::new(RenderSettings { timeout: Duration::from_secs(5), ..with_worker() });
    slow.upstream.write("slow/Chart.yaml", "apiVersion: v2\nname: slow\nversion: 1.0.0\n");
    slow.upstream.write(
        "slow/templates/x.yaml",
        "{{ range $i := until 1000000 }}{{ range $j := until 1000000 }}{{ $x := sha256sum \"x\" }}{{ end }}{{ end }}",
    );
    slow.upstream.write("ok/Chart.yaml", "apiVersion: v2\nname: ok\nversion: 1.0.0\n");
    slow.upstream.write("ok/templates/x.yaml", &config_map("ok"));
    let error = slow.render(json!({"path": "slow"})).await.unwrap_err();
    assert!(matches!(error, RenderError::Timeout { tool: "helm", .. }), "{error:?}");
    assert_eq!(names(&slow.render(json!({"path": "ok"})).await.unwrap()), ["ConfigMap/ok"]);
    assert_eq!(slow.tools().started(), 2);
}

#[tokio::test]
async fn the_command_line_tools_stand_in_for_the_worker() {
    let bin = tempfile::tempdir().unwrap();
    // Stand-ins that show what they were called with.
    for tool in ["helm", "kustomize"] {
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = edit ]; then echo \"$@\" >> edits; exit 0; fi\n\
             [ -f Chart.yaml ] || [ -f kustomization.yaml ] || exit 1\n\
             printf 'apiVersion: v1\\nkind: ConfigMap\\nmetadata: {{name: {tool}}}\\ndata:\\n  args: \"%s\"\\n  edits: \"%s\"\\n' \"$*\" \"$(tr '\\n' ';' < edits 2>/dev/null)\"\n"
        );
        let path = bin.path().join(tool);
        std::fs::write(&path, script).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let bench = Bench::new(RenderSettings { search_path: Some(bin.path().into()), ..RenderSettings::default() });
    chart(&bench.upstream);
    bench.upstream.write("k/kustomization.yaml", "resources: []\n");
    let helm = bench
        .render(json!({"path": "chart", "helm": {"skipCrds": false, "parameters": [{"name": "a", "value": "b"}]}}))
        .await
        .unwrap();
    let args = helm.manifests[0]["data"]["args"].as_str().unwrap();
    assert!(
        args.starts_with("template . --name-template shop --namespace prod --kube-version 1.36 --api-versions apps/v1"),
        "{args}"
    );
    assert!(args.contains("--set a=b") && args.ends_with("--include-crds"), "{args}");
    let kustomize = bench
        .render(json!({"path": "k", "kustomize": {"namePrefix": "p-", "images": ["a:1"], "replicas": [{"name": "w", "count": 2}],
            "commonLabels": {"x": "y"}, "forceCommonLabels": true}}))
        .await
        .unwrap();
    let data = &kustomize.manifests[0]["data"];
    assert_eq!(data["args"], "build .");
    assert_eq!(
        data["edits"],
        "edit set nameprefix -- p-;edit set image -- a:1;edit set replicas -- w=2;edit add label --force -- x:y;"
    );
}
