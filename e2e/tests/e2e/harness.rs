//! The harness itself: what later tests rely on.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use serde_json::Value;
use tidegate_e2e::cluster::Cluster;
use tidegate_e2e::image::Image;
use tidegate_e2e::{Load, TestNamespace, audit, git_server, http, run, run_simulated, traefik, wait_for};

/// A Deployment of the test server with a Service of the same name.
fn deployment(name: &str, tag: &str, replicas: u32) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata:
      labels: {{app: {name}}}
      annotations: {{prometheus.io/scrape: "true", prometheus.io/port: "8080"}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: server
        image: tidegate/testserver:{tag}
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPort: 8080}}]
"#
    )
}

async fn wait_available(namespace: &TestNamespace, name: &str, replicas: i32) -> Result<()> {
    let deployments: Api<Deployment> = namespace.api();
    let what = format!("Deployment {name} to have {replicas} available pods");
    namespace
        .wait_for(&what, Duration::from_secs(60), async || {
            let status = deployments.get(name).await?.status.unwrap_or_default();
            let available = status.available_replicas.unwrap_or_default();
            ensure!(available == replicas, "{available} are available");
            Ok(())
        })
        .await
}

#[test]
fn real_pods_answer_over_a_service() -> Result<()> {
    run(async |cluster| {
        let namespace = cluster.namespace("service").await?;
        namespace.apply(&deployment("web", "2", 2)).await?;
        wait_available(&namespace, "web", 2).await?;
        let client = http::client()?;
        let url = http::service_url(&namespace.client, &namespace.name, "web").await?;
        // kube-proxy follows a moment after the endpoints.
        let answer = namespace
            .wait_for("an answer", Duration::from_secs(10), async || http::ask(&client, &url, None).await)
            .await?;
        assert_eq!(answer.version, "2");
        let pods: Vec<Pod> = namespace.api::<Pod>().list(&Default::default()).await?.items;
        let names: Vec<_> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
        assert!(names.contains(&answer.pod.as_str()), "{answer:?} is none of {names:?}");
        Ok(())
    })
}

#[test]
fn a_test_image_misbehaves_as_its_tag_says() -> Result<()> {
    run(async |cluster| {
        let namespace = cluster.namespace("tags").await?;
        namespace.apply(&deployment("bad", "bad", 1)).await?;
        wait_available(&namespace, "bad", 1).await?;
        let url = http::service_url(&namespace.client, &namespace.name, "bad").await?;
        let client = http::client()?;
        namespace.wait_for("an answer", Duration::from_secs(10), async || http::ask(&client, &url, None).await).await?;
        let report = Load::new(&url, None, 40.0).run(Duration::from_secs(1)).await?;
        let errors = report.errors() as f64 / report.requests as f64;
        assert!((errors - 0.5).abs() < 0.1, "{report}");
        // And stops when it is told to.
        let change = client.post(format!("{url}/config")).json(&serde_json::json!({"error_rate": 0.0})).send().await?;
        ensure!(change.status().is_success(), "{}", change.status());
        let report = Load::new(&url, None, 40.0).run(Duration::from_millis(500)).await?;
        assert_eq!(report.errors(), 0, "{report}");
        Ok(())
    })
}

#[test]
fn a_job_ends_with_the_code_it_is_told() -> Result<()> {
    run(async |cluster| {
        let namespace = cluster.namespace("jobs").await?;
        for (name, code) in [("good", 0), ("bad", 3)] {
            let job = format!(
                r#"
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - {{name: job, image: "tidegate/testserver:1", args: [exit, "{code}", --after, "100"]}}
"#
            );
            namespace.apply(&job).await?;
        }
        let jobs: Api<Job> = namespace.api();
        namespace
            .wait_for("one Job to succeed and one to fail", Duration::from_secs(30), async || {
                let good = jobs.get("good").await?.status.unwrap_or_default();
                let bad = jobs.get("bad").await?.status.unwrap_or_default();
                ensure!((good.succeeded, bad.failed) == (Some(1), Some(1)), "{good:?}, {bad:?}");
                Ok(())
            })
            .await
    })
}

#[test]
fn traefik_splits_traffic_by_weight() -> Result<()> {
    run(async |cluster| {
        let namespace = cluster.namespace("split").await?;
        namespace.apply(&deployment("stable", "1", 1)).await?;
        namespace.apply(&deployment("canary", "2", 1)).await?;
        let host = format!("{}.example.com", namespace.name);
        let (gateway_namespace, gateway) = traefik::GATEWAY;
        namespace
            .apply(&format!(
                r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web}}
spec:
  parentRefs: [{{name: {gateway}, namespace: {gateway_namespace}}}]
  hostnames: [{host}]
  rules:
  - backendRefs:
    - {{name: stable, port: 80, weight: 90}}
    - {{name: canary, port: 80, weight: 10}}
"#
            ))
            .await?;
        wait_available(&namespace, "stable", 1).await?;
        wait_available(&namespace, "canary", 1).await?;
        let client = http::client()?;
        let url = cluster.gateway_url();
        // The route is complete once both versions answer.
        for version in ["1", "2"] {
            namespace
                .wait_for(&format!("version {version} to answer"), Duration::from_secs(20), async || {
                    let answer = http::ask(&client, &url, Some(&host)).await?;
                    ensure!(answer.version == version, "{answer:?}");
                    Ok(())
                })
                .await?;
        }
        let report = Load::new(&url, Some(&host), 200.0).run(Duration::from_secs(3)).await?;
        assert_eq!(report.errors(), 0, "{report}");
        // Four standard deviations of a binomial of 600 at 10 % are 4.9 %; Traefik's weighted round robin is far closer.
        assert!((report.share("2") - 0.1).abs() < 0.05, "{report}");
        Ok(())
    })
}

#[test]
fn traefik_reads_nginx_canary_annotations() -> Result<()> {
    run(async |cluster| {
        let namespace = cluster.namespace("nginx").await?;
        namespace.apply(&deployment("stable", "1", 1)).await?;
        namespace.apply(&deployment("canary", "2", 1)).await?;
        wait_available(&namespace, "stable", 1).await?;
        wait_available(&namespace, "canary", 1).await?;
        let host = format!("{}.example.com", namespace.name);
        for (service, annotations) in [
            ("stable", "{}"),
            (
                "canary",
                r#"{nginx.ingress.kubernetes.io/canary: "true", nginx.ingress.kubernetes.io/canary-weight: "30"}"#,
            ),
        ] {
            namespace
                .apply(&format!(
                    r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {service}, annotations: {annotations}}}
spec:
  ingressClassName: nginx
  rules:
  - host: {host}
    http:
      paths:
      - {{path: /, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}
"#
                ))
                .await?;
        }
        let client = http::client()?;
        let url = cluster.gateway_url();
        namespace
            .wait_for("version 2 to answer", Duration::from_secs(20), async || {
                let answer = http::ask(&client, &url, Some(&host)).await?;
                ensure!(answer.version == "2", "{answer:?}");
                Ok(())
            })
            .await?;
        let report = Load::new(&url, Some(&host), 200.0).run(Duration::from_secs(3)).await?;
        assert_eq!(report.errors(), 0, "{report}");
        assert!((report.share("2") - 0.3).abs() < 0.08, "{report}");
        Ok(())
    })
}

#[test]
fn prometheus_counts_requests_by_version() -> Result<()> {
    run(async |cluster| {
        let namespace = cluster.namespace("metrics").await?;
        namespace.apply(&deployment("web", "3", 1)).await?;
        wait_available(&namespace, "web", 1).await?;
        let url = http::service_url(&namespace.client, &namespace.name, "web").await?;
        let client = http::client()?;
        namespace.wait_for("an answer", Duration::from_secs(10), async || http::ask(&client, &url, None).await).await?;
        let load = Load::new(&url, None, 20.0).start()?;
        let query =
            format!(r#"sum(rate(http_requests_total{{namespace="{}",version="3",code="200"}}[3s]))"#, namespace.name);
        let rate = namespace
            .wait_for("Prometheus to see 15 requests a second", Duration::from_secs(30), async || {
                let request =
                    client.get(format!("{}/api/v1/query", cluster.prometheus_url())).query(&[("query", &query)]);
                let answer: Value = request.send().await?.json().await?;
                let value = answer["data"]["result"][0]["value"][1].as_str().with_context(|| answer.to_string())?;
                let rate: f64 = value.parse()?;
                ensure!(rate > 15.0, "the rate is {rate}");
                Ok(rate)
            })
            .await?;
        assert!(rate < 30.0, "20 requests a second were sent, {rate} seen");
        load.stop().await?;
        Ok(())
    })
}

#[test]
fn repositories_are_cloned_over_http_and_ssh() -> Result<()> {
    run(async |cluster| {
        let git = cluster.git()?;
        let public = git.create(&format!("public-{}", std::process::id()))?;
        let private = git.create(&format!("private/secret-{}", std::process::id()))?;
        let scratch = tempfile::tempdir()?;
        let first = public.commit("first", &[("app/a.yaml", Some("a: 1\n"))])?;
        private.commit("first", &[("b.yaml", Some("b: 1\n"))])?;
        let clone = |url: &str, to: &str| git_server::git(scratch.path(), &["clone", "--quiet", url, to]);

        clone(&public.http_url(), "http")?;
        assert_eq!(std::fs::read_to_string(scratch.path().join("http/app/a.yaml"))?, "a: 1\n");
        let head = git_server::git(&scratch.path().join("http"), &["rev-parse", "HEAD"])?;
        assert_eq!(head.trim(), first);

        let ssh = format!("core.sshCommand={}", public.ssh_command());
        git_server::git(scratch.path(), &["-c", &ssh, "clone", "--quiet", &public.ssh_url(), "ssh"])?;
        assert!(scratch.path().join("ssh/app/a.yaml").exists());
        let no_key = "core.sshCommand=ssh -i /dev/null -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
                      -o UserKnownHostsFile=/dev/null -o BatchMode=yes -F none";
        let refused = git_server::git(scratch.path(), &["-c", no_key, "clone", "--quiet", &public.ssh_url(), "no"]);
        assert!(format!("{:#}", refused.unwrap_err()).contains("ermission denied"));

        let refused = format!("{:#}", clone(&private.http_url(), "without").unwrap_err());
        assert!(refused.contains("could not read Username") || refused.contains("Authentication"), "{refused}");
        let with = private.http_url().replace("http://", &format!("http://{}:{}@", git_server::USER, git.password()?));
        clone(&with, "with")?;

        // A commit that changes and removes files arrives by fetching.
        let second = public.commit("second", &[("app/a.yaml", None), ("app/c.yaml", Some("c: 1\n"))])?;
        git_server::git(&scratch.path().join("http"), &["pull", "--quiet"])?;
        assert_ne!(first, second);
        assert!(!scratch.path().join("http/app/a.yaml").exists() && scratch.path().join("http/app/c.yaml").exists());

        public.remove()?;
        let gone = format!("{:#}", clone(&public.http_url(), "gone").unwrap_err());
        assert!(gone.contains("not found"), "{gone}");
        Ok(())
    })
}

#[test]
fn the_controllers_image_has_what_git_needs() -> Result<()> {
    run(async |cluster| {
        let git = cluster.git()?;
        let repository = git.create(&format!("image-{}", std::process::id()))?;
        let head = repository.commit("first", &[("a", Some("a"))])?;
        // Any program does for the entry point: the question is whether Git, ssh and their libraries are complete.
        let program = tidegate_e2e::session::program("tidegate-testserver")?;
        let image = Image::controller(&program, None)?.named("tidegate/image-test:1", &[]);
        tidegate_e2e::image::import(cluster.sandbox()?, &image)?;
        let namespace = cluster.namespace("image").await?;
        let key = std::fs::read_to_string(git.ssh_key())?;
        let secret = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"},
            "stringData": {"key": key, "known_hosts": git.known_hosts()?},
        });
        namespace.apply(&secret.to_string()).await?;
        let ssh = "ssh -i /keys/key -o UserKnownHostsFile=/keys/known_hosts -o IdentitiesOnly=yes -F none";
        let script = format!(
            "git ls-remote {} main && GIT_SSH_COMMAND='{ssh}' git ls-remote {} main",
            repository.http_url(),
            repository.ssh_url()
        );
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "git"},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "git", "image": "tidegate/image-test:1", "command": ["sh", "-c", script],
                    "volumeMounts": [{"name": "key", "mountPath": "/keys"}],
                }],
                "volumes": [{"name": "key", "secret": {"secretName": "key", "defaultMode": 0o400}}],
            },
        });
        namespace.apply(&pod.to_string()).await?;
        let pods: Api<Pod> = namespace.api();
        namespace
            .wait_for("the pod to end", Duration::from_secs(60), async || {
                let phase = pods.get("git").await?.status.and_then(|status| status.phase).unwrap_or_default();
                ensure!(phase == "Succeeded" || phase == "Failed", "it is {phase}");
                Ok(())
            })
            .await?;
        let log = pods.logs("git", &Default::default()).await?;
        assert_eq!(log.matches(&head).count(), 2, "over http and over ssh: {log}");
        Ok(())
    })
}

#[test]
fn the_audit_log_tells_what_a_program_asked() -> Result<()> {
    run(async |cluster| {
        let before = jiff::Timestamp::now();
        let agent = format!("counted-{}", std::process::id());
        let client = cluster.client_named(Some(&agent)).await?;
        for _ in 0..3 {
            Api::<Pod>::namespaced(client.clone(), "default").list(&Default::default()).await?;
        }
        let counts = wait_for("three requests in the log", Duration::from_secs(10), async || {
            let counts = audit::count(&cluster.requests(&agent, before)?);
            ensure!(counts.values().sum::<usize>() == 3, "{counts:?}");
            Ok(counts)
        })
        .await?;
        assert_eq!(counts.get("list pods"), Some(&3), "{counts:?}");
        Ok(())
    })
}

#[test]
fn the_controller_is_started_killed_and_stopped() -> Result<()> {
    run(async |cluster| {
        let namespace = cluster.namespace("controller").await?;
        let mut controller = namespace.start_controller(&[]).await?;
        let client = http::client()?;
        let metrics = client.get(controller.metrics_url()).send().await?.error_for_status()?.text().await?;
        assert!(metrics.contains("# TYPE"), "{metrics}");
        let first = controller.pid();
        controller.kill()?;
        ensure!(client.get(controller.health_url()).send().await.is_err(), "a killed controller answers");
        controller.restart()?;
        assert_ne!(controller.pid(), first);
        controller.wait_ready().await?;
        controller.stop(Duration::from_secs(20))
    })
}

#[test]
fn a_cluster_ends_with_the_process_that_needed_it() -> Result<()> {
    if std::env::var_os("TIDEGATE_E2E_CONTEXT").is_some() {
        return Ok(());
    }
    // This test binary once more, for one quick test on a cluster of its own, and killed once that cluster stands.
    let mut other = Command::new(std::env::current_exe()?)
        .args(["--exact", "harness::simulated_pods_become_ready_fail_and_end"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let name = format!("test-simulated-{}", other.id());
    let state = tidegate_e2e::state::StateDir::new(&name)?;
    let stands = tidegate_e2e::process::poll_until(Duration::from_secs(180), || state.record().is_some());
    other.kill()?;
    other.wait()?;
    ensure!(stands, "the other process started no cluster {name}");
    let gone = tidegate_e2e::process::poll_until(Duration::from_secs(60), || traces(&name).is_empty());
    ensure!(gone, "left behind: {:?}", traces(&name));
    Ok(())
}

#[test]
fn simulated_pods_become_ready_fail_and_end() -> Result<()> {
    run_simulated(async |cluster| {
        let nodes: Vec<Node> = Api::all(cluster.client().await?).list(&Default::default()).await?.items;
        assert_eq!(nodes.len(), 10);
        let namespace = cluster.namespace("simulated").await?;
        namespace.apply(&deployment("web", "1", 300)).await?;
        wait_available(&namespace, "web", 300).await?;
        let annotated = deployment("stuck", "1", 2).replace(
            "prometheus.io/scrape: \"true\"",
            "prometheus.io/scrape: \"true\", sim.tidegate.dev/never-ready: \"true\"",
        );
        namespace.apply(&annotated).await?;
        let pods: Api<Pod> = namespace.api();
        let selected = kube::api::ListParams::default().labels("app=stuck");
        namespace
            .wait_for("two pods to run without being ready", Duration::from_secs(20), async || {
                let found = pods.list(&selected).await?.items;
                let running = |pod: &&Pod| pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"));
                let count = found.iter().filter(running).count();
                ensure!(count == 2, "{count} run");
                Ok(())
            })
            .await?;
        let available = namespace.api::<Deployment>().get("stuck").await?.status.unwrap_or_default().available_replicas;
        assert_eq!(available.unwrap_or_default(), 0);
        for (name, code) in [("good", "0"), ("bad", "1")] {
            let job = format!(
                r#"
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  backoffLimit: 0
  template:
    metadata: {{annotations: {{sim.tidegate.dev/exit-code: "{code}"}}}}
    spec: {{restartPolicy: Never, containers: [{{name: job, image: none}}]}}
"#
            );
            namespace.apply(&job).await?;
        }
        let jobs: Api<Job> = namespace.api();
        namespace
            .wait_for("one Job to succeed and one to fail", Duration::from_secs(30), async || {
                let good = jobs.get("good").await?.status.unwrap_or_default();
                let bad = jobs.get("bad").await?.status.unwrap_or_default();
                ensure!((good.succeeded, bad.failed) == (Some(1), Some(1)), "{good:?}, {bad:?}");
                Ok(())
            })
            .await
    })
}

/// Processes and mounts that mention a word, network namespaces and control groups of that name.
fn traces(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(name) && pid != std::process::id() {
            found.push(format!("process {pid}: {command}"));
        }
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    found.extend(mounts.lines().filter(|line| line.contains(name)).map(|line| format!("mount {line}")));
    let places = std::iter::once("/run/netns".into()).chain(glob_cgroups());
    for place in places.filter_map(|place: std::path::PathBuf| std::fs::read_dir(place).ok()) {
        let names = place.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(name));
        found.extend(names.map(|entry| entry.path().display().to_string()));
    }
    found
}

fn glob_cgroups() -> Vec<std::path::PathBuf> {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    hierarchies.chain(["/sys/fs/cgroup".into()]).collect()
}

fn harness(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-e2e"));
    command.args(args);
    command
}

#[test]
fn nothing_is_left_behind_even_after_a_kill() -> Result<()> {
    // Skipped where clusters cannot be started: a user's cluster is nothing that this harness may take down.
    if std::env::var_os("TIDEGATE_E2E_CONTEXT").is_some() {
        return Ok(());
    }
    let name = format!("leftover-{}", std::process::id());
    // Killed in the middle: some components run, the cluster was never finished.
    let mut starting = harness(&["up", "--name", &name]).stderr(std::process::Stdio::null()).spawn()?;
    let state = tidegate_e2e::state::StateDir::new(&name)?;
    let begun = tidegate_e2e::process::poll_until(Duration::from_secs(120), || state.log("kube-apiserver").exists());
    starting.kill()?;
    starting.wait()?;
    ensure!(begun, "the cluster did not begin to start");
    ensure!(!traces(&name).is_empty(), "the test sees no traces of a running cluster");

    // The next start with that name is not disturbed by it, and brings real pods up.
    let output = harness(&["up", "--name", &name]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cluster = Cluster::find(&name)?;
    let mut create = cluster.kubectl();
    create.args(["create", "deployment", "web", "--image=tidegate/testserver:1", "--replicas=2"]);
    ensure!(create.status()?.success());
    let mut wait = cluster.kubectl();
    wait.args(["rollout", "status", "deployment/web", "--timeout=60s"]);
    ensure!(wait.status()?.success());

    let output = harness(&["down", "--name", &name]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(traces(&name), Vec::<String>::new());
    assert!(!state.path.exists());
    // Once more is no error.
    ensure!(harness(&["down", "--name", &name]).output()?.status.success());
    Ok(())
}
