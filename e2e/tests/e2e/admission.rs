//! The admission webhook, with the certificate and the configuration that the chart makes: mistakes are refused by
//! `kubectl apply`, and nothing else is.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use serde_json::{Value, json};
use tidegate_e2e::netns::NODE_IP;
use tidegate_e2e::process::output;
use tidegate_e2e::{Controller, install, run};

use crate::scene::{self, Scene};

const WEIGHT: &str = "spec.strategy.canary.steps[0].setWeight: Invalid value: 101: must be between 0 and 100";

/// The chart's webhook for the namespace of a scene.
struct Webhook {
    port: u16,
    /// What the pods mount.
    certificates: tempfile::TempDir,
    helm: PathBuf,
}

impl Webhook {
    fn new(helm: PathBuf) -> Result<Self> {
        let port = TcpListener::bind(("0.0.0.0", 0))?.local_addr()?.port();
        Ok(Self { port, certificates: tempfile::tempdir()?, helm })
    }

    /// Flags of a controller that serves it.
    fn flags(&self) -> [String; 2] {
        let directory = self.certificates.path().display();
        [format!("--admission-port={}", self.port), format!("--admission-certificates={directory}")]
    }

    /// What the chart makes for admission. A new certificate every time: there is no release whose one could be kept.
    fn chart(&self, scene: &Scene) -> Result<Vec<Value>> {
        let chart = tidegate_e2e::state::repository().join("charts/tidegate");
        let mut command = scene.cluster.command(&self.helm.to_string_lossy());
        command.args(["template", "tidegate"]).arg(chart).args(["--namespace", scene.name()]);
        command.args(["--set", "namespaced=true,admission.enabled=true,admission.failurePolicy=Fail"]);
        serde_saphyr::from_multiple(&output(&mut command)?).context("what the chart makes")
    }

    /// Puts a new certificate where the controller reads it. Returns the configuration that trusts it.
    async fn issue(&self, scene: &Scene) -> Result<Value> {
        let objects = self.chart(scene)?;
        let of_kind = |kind: &str| {
            let found = objects.iter().find(|object| object["kind"] == kind);
            found.cloned().with_context(|| format!("the chart makes no {kind}"))
        };
        let secret = of_kind("Secret")?;
        let deployment = of_kind("Deployment")?;
        let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array().context("volumes")?;
        let mounted = volumes.iter().any(|volume| volume["secret"]["secretName"] == secret["metadata"]["name"]);
        ensure!(mounted, "the pods do not mount the Secret: {volumes:?}");
        for file in ["tls.crt", "tls.key"] {
            let text = secret["data"][file].as_str().with_context(|| format!("the Secret has no {file}"))?;
            let bytes = base64::engine::general_purpose::STANDARD.decode(text)?;
            std::fs::write(self.certificates.path().join(file), bytes)?;
        }
        let mut configuration = of_kind("ValidatingWebhookConfiguration")?;
        // It goes with the namespace.
        let namespace = scene.namespace.client.clone();
        let owner: k8s_openapi::api::core::v1::Namespace = kube::Api::all(namespace).get(scene.name()).await?;
        configuration["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "v1", "kind": "Namespace", "name": scene.name(), "uid": owner.metadata.uid,
        }]);
        Ok(configuration)
    }

    /// Lets the API server ask a controller that runs beside it, under the address that the chart's Service has.
    async fn install(&self, scene: &Scene) -> Result<()> {
        let configuration = self.issue(scene).await?;
        let service = &configuration["webhooks"][0]["clientConfig"]["service"];
        let (name, port) = (service["name"].as_str().context("a Service")?, &service["port"]);
        scene
            .apply(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                "spec": {"ports": [{"name": "https", "port": port}]},
            }))
            .await?;
        scene
            .apply(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": true}}],
                "ports": [{"name": "https", "protocol": "TCP", "port": self.port}],
            }))
            .await?;
        tidegate_e2e::apply::apply(&scene.namespace.client, &configuration).await?;
        self.in_force(scene).await
    }

    /// Waits until the API server asks, and is answered.
    async fn in_force(&self, scene: &Scene) -> Result<()> {
        for bad in [bad_rollout("asked"), bad_template("asked")] {
            scene
                .until("admission to be in force", async || {
                    let (code, said) = kubectl_apply(scene, &bad, &["--dry-run=server"])?;
                    ensure!(code == 1 && said.contains("is invalid"), "{code}: {said}");
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }
}

fn bad_rollout(name: &str) -> Value {
    scene::canary(name, "1", 1, json!([{"setWeight": 101}]))
}

fn bad_template(name: &str) -> Value {
    let metric = json!({"name": "m", "interval": "soon", "provider": {"web": {"url": "http://x"}}});
    scene::analysis_template(name, json!({"metrics": [metric]}))
}

/// `kubectl apply` of a file: exit code, and what it says.
fn kubectl_apply(scene: &Scene, object: &Value, args: &[&str]) -> Result<(i32, String)> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("object.yaml");
    std::fs::write(&file, object.to_string())?;
    kubectl(scene, &[&["apply", "-f", &file.to_string_lossy()], args].concat())
}

fn kubectl(scene: &Scene, args: &[&str]) -> Result<(i32, String)> {
    let mut command = scene.cluster.kubectl();
    command.args(["--namespace", scene.name()]).args(args).stdin(Stdio::null());
    let (code, said, errors) = scene::ends(&mut command)?;
    Ok((code, format!("{said}{errors}")))
}

/// A leader, and a second controller that stands by and serves the webhook.
async fn standing_by(scene: &Scene, webhook: &Webhook) -> Result<(Controller, Controller)> {
    let leader = scene.namespace.start_controller(&["--leader-elect=true"]).await?;
    scene
        .until("the first to lead", async || {
            let lease = scene.get("coordination.k8s.io/v1", "Lease", "argo-rollouts-controller-lock").await?;
            ensure!(lease["spec"]["holderIdentity"].as_str().is_some_and(|holder| !holder.is_empty()), "{lease}");
            Ok(())
        })
        .await?;
    let flags = webhook.flags();
    let second = scene.namespace.start_controller(&["--leader-elect=true", &flags[0], &flags[1]]).await?;
    scene
        .until("the second to stand by", async || {
            ensure!(second.log().contains("Stands by"), "{}", second.log_tail(5));
            Ok(())
        })
        .await?;
    Ok((leader, second))
}

#[test]
fn a_mistake_is_refused_when_it_is_applied() -> Result<()> {
    let helm = install::helm()?;
    run(async |cluster| {
        let scene = Scene::alone(cluster, "admission").await?;
        let webhook = Webhook::new(helm)?;
        // Applied before anybody looked.
        scene.apply(bad_rollout("old")).await?;
        let mut experiment = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Experiment",
            "metadata": {"name": "old"}, "spec": {"templates": []},
        });
        scene.apply(experiment.clone()).await?;
        webhook.issue(&scene).await?;
        let (_leader, second) = standing_by(&scene, &webhook).await?;
        webhook.install(&scene).await?;

        // What is refused, in which words. Nothing of it is stored.
        let (code, said) = kubectl_apply(&scene, &bad_rollout("web"), &[])?;
        assert!(
            code == 1 && said.contains("The Rollout \"web\" is invalid") && said.contains(WEIGHT),
            "{code}: {said}"
        );
        let (code, said) = kubectl_apply(&scene, &bad_template("bad"), &[])?;
        let words = "spec.metrics[0].interval: \"soon\" is not a duration: expected a number with a unit";
        assert!(code == 1 && said.contains(words), "{code}: {said}");
        experiment["metadata"]["name"] = "bad".into();
        let (code, said) = kubectl_apply(&scene, &experiment, &[])?;
        assert!(code == 1 && said.contains("spec.templates: Required value"), "{code}: {said}");
        let app = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "bad"},
            "spec": {"project": "default", "source": {"repoURL": "https://example.com/x"}, "destination": {"name": "in-cluster"}},
        });
        let (code, said) = kubectl_apply(&scene, &app, &[])?;
        assert!(code == 1 && said.contains("path, chart and ref are all empty"), "{code}: {said}");
        let error = scene.apply(bad_rollout("web")).await.err().context("a client is refused, too")?;
        let said = format!("{error:#}");
        assert!(said.contains("admission webhook \"rollouts.tidegate.argoproj.io\" denied the request"), "{said}");
        assert!(said.contains(WEIGHT), "{said}");
        for object in ["rollout/web", "analysistemplate/bad", "experiment/bad", "application/bad"] {
            let (code, said) = kubectl(&scene, &["get", object])?;
            assert!(code == 1 && said.contains("not found"), "{object}: {code}: {said}");
        }
        assert!(second.log().contains("Refused: The Rollout"), "{}", second.log_tail(20));

        // What is right is taken, also when it names what is not there yet.
        let (code, said) = kubectl_apply(&scene, &scene::canary("web", "1", 1, json!([{"setWeight": 50}])), &[])?;
        assert!(code == 0 && !said.contains("Warning"), "{code}: {said}");
        scene.phase("web", "Healthy").await?;
        let later = json!({"blueGreen": {"activeService": "later"}});
        let (code, said) = kubectl_apply(&scene, &scene::rollout("later", "1", 1, later), &[])?;
        assert_eq!(code, 0, "{said}");
        let metric = scene::constant(cluster, "one", 1.0, json!({"successCondition": "result[0] == 1"}));
        let (code, said) = kubectl_apply(&scene, &scene::analysis_template("one", json!({"metrics": [metric]})), &[])?;
        assert_eq!(code, 0, "{said}");

        // A good one does not turn bad.
        let (code, said) =
            kubectl(&scene, &["patch", "rollout", "web", "--type=merge", "-p", r#"{"spec":{"replicas":-1}}"#])?;
        assert!(code == 1 && said.contains("spec.replicas: Invalid value: -1"), "{code}: {said}");
        an_old_one_stays_editable(&scene)?;
        a_certificate_is_replaced(&scene, &webhook, &second).await
    })
}

/// An object that was invalid before can be labelled, scaled and deleted; it only gets no worse.
fn an_old_one_stays_editable(scene: &Scene) -> Result<()> {
    for object in ["rollout/old", "experiment/old"] {
        for args in [&["label", object, "a=b"][..], &["annotate", object, "a=b"]] {
            let (code, said) = kubectl(scene, args)?;
            assert!(code == 0 && !said.contains("Warning"), "{args:?}: {code}: {said}");
        }
    }
    let patch = |patch: &str| kubectl(scene, &["patch", "rollout", "old", "--type=merge", "-p", patch]);
    let (code, said) = patch(r#"{"spec":{"replicas":2}}"#)?;
    assert!(code == 0 && said.contains("Warning: still invalid: ") && said.contains(WEIGHT), "{code}: {said}");
    let (code, said) = kubectl(scene, &["scale", "rollout", "old", "--replicas=1"])?;
    assert_eq!(code, 0, "{said}");
    let (code, said) = patch(r#"{"spec":{"minReadySeconds":-5}}"#)?;
    assert!(code == 1 && said.contains("spec.minReadySeconds") && !said.contains("setWeight"), "{code}: {said}");
    let (code, said) = patch(r#"{"metadata":{"finalizers":["example.com/held"]}}"#)?;
    assert_eq!(code, 0, "{said}");
    let (code, said) = kubectl(scene, &["delete", "rollout", "old", "--wait=false"])?;
    assert_eq!(code, 0, "{said}");
    let (code, said) = patch(r#"{"metadata":{"finalizers":null}}"#)?;
    assert_eq!(code, 0, "{said}");
    scene.kubectl(&["wait", "--for=delete", "rollout/old", "--timeout=30s"])?;
    Ok(())
}

/// Another certificate of another authority, as when the Secret is renewed: the controller is not restarted.
async fn a_certificate_is_replaced(scene: &Scene, webhook: &Webhook, controller: &Controller) -> Result<()> {
    let first = std::fs::read(webhook.certificates.path().join("tls.crt"))?;
    let pid = controller.pid();
    let configuration = webhook.issue(scene).await?;
    ensure!(first != std::fs::read(webhook.certificates.path().join("tls.crt"))?, "the certificate is the same");
    tidegate_e2e::apply::apply(&scene.namespace.client, &configuration).await?;
    // With the old certificate, the new configuration would let nothing through: its failurePolicy is Fail.
    webhook.in_force(scene).await?;
    scene
        .until("good objects to pass", async || {
            let good = scene::canary("next", "1", 0, json!([{"setWeight": 50}]));
            let (code, said) = kubectl_apply(scene, &good, &[])?;
            ensure!(code == 0, "{said}");
            Ok(())
        })
        .await?;
    ensure!(controller.log().contains("Serves admission with a new certificate"), "{}", controller.log_tail(20));
    ensure!(controller.pid() == pid, "the controller was restarted");
    Ok(())
}

#[test]
fn what_keeps_admission_from_being_served_is_named() -> Result<()> {
    run(async |cluster| {
        let directory = tempfile::tempdir()?;
        let starts = |path: &Path| -> Result<(i32, String)> {
            let mut command = cluster.tidegate()?;
            command.args(["controller", "--metricsPort=0", "--healthzPort=0", "--admission-port=1"]);
            command.arg("--admission-certificates").arg(path);
            let (code, _, said) = scene::ends(&mut command)?;
            Ok((code, said))
        };
        let file = directory.path().join("tls.crt");
        let (code, said) = starts(directory.path())?;
        assert!(code == 1 && said.contains(&format!("{}: cannot be read", file.display())), "{code}: {said}");
        std::fs::write(&file, "no certificate")?;
        std::fs::write(directory.path().join("tls.key"), "no key")?;
        let (code, said) = starts(directory.path())?;
        assert!(code == 1 && said.contains(&format!("{}: has no certificate", file.display())), "{code}: {said}");
        let (code, _, said) = scene::ends(cluster.tidegate()?.args(["controller", "--admission-port=9443"]))?;
        assert!(code == 1 && said.contains("--admission-certificates"), "{code}: {said}");
        Ok(())
    })
}

#[test]
fn the_chart_keeps_its_certificate_and_takes_others() -> Result<()> {
    let helm = install::helm()?;
    run(async |cluster| {
        let scene = Scene::alone(cluster, "chart").await?;
        let chart = tidegate_e2e::state::repository().join("charts/tidegate");
        let run = |args: &[&str]| {
            let mut command = scene.cluster.command(&helm.to_string_lossy());
            command.args(&args[..1]).arg("tidegate").arg(&chart).args(["--namespace", scene.name(), "--skip-crds"]);
            command.args(["--set", "namespaced=true,replicas=0,admission.enabled=true"]).args(&args[1..]);
            scene::ends(&mut command)
        };
        let configuration = format!("{}-tidegate", scene.name());
        let bundle = || scene.kubectl(&["get", "validatingwebhookconfiguration", &configuration, "-o", "json"]);
        let secret = async || scene.get("v1", "Secret", "tidegate-admission").await;
        let (code, _, said) = run(&["install"])?;
        assert_eq!(code, 0, "{said}");
        let first = secret().await?["data"].clone();
        let webhooks: Value = serde_json::from_str(&bundle()?)?;
        for webhook in webhooks["webhooks"].as_array().context("webhooks")? {
            assert_eq!(webhook["clientConfig"]["caBundle"], first["ca.crt"], "{webhook}");
            assert_eq!((&webhook["failurePolicy"], &webhook["sideEffects"]), (&json!("Ignore"), &json!("None")));
            assert_eq!((&webhook["matchPolicy"], &webhook["timeoutSeconds"]), (&json!("Equivalent"), &json!(5)));
            for rule in webhook["rules"].as_array().context("rules")? {
                assert_eq!(rule["operations"], json!(["CREATE", "UPDATE"]));
                let resources = rule["resources"].as_array().context("resources")?;
                assert!(resources.iter().all(|name| !name.as_str().unwrap_or("/").contains('/')), "{rule}");
            }
        }
        let (code, _, said) = run(&["upgrade", "--set", "controller.logLevel=debug"])?;
        assert_eq!(code, 0, "{said}");
        assert_eq!(secret().await?["data"], first, "an upgrade makes no new certificate");
        assert_eq!(serde_json::from_str::<Value>(&bundle()?)?["webhooks"], webhooks["webhooks"]);

        let (code, _, said) = run(&["upgrade", "--set", "admission.tlsSecret=own,admission.caBundle=Cg=="])?;
        assert_eq!(code, 0, "{said}");
        assert!(secret().await.is_err(), "the chart's own Secret is not needed any more");
        let deployment = scene.get("apps/v1", "Deployment", "tidegate").await?;
        assert!(deployment.to_string().contains(r#""secretName":"own""#), "{deployment}");
        let (code, _, said) = run(&["upgrade", "--set", "admission.certManagerCertificate=a/b"])?;
        assert!(code != 0 && said.contains("admission.tlsSecret"), "{code}: {said}");
        let mut uninstall = scene.cluster.command(&helm.to_string_lossy());
        output(uninstall.args(["uninstall", "tidegate", "--namespace", scene.name()])).map(drop)
    })
}
