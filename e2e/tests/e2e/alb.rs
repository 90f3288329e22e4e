//! `--aws-verify-target-group`: what load balancers and target groups of AWS really do is waited for. moto is AWS here,
//! and the test is AWS's load balancer controller.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tidegate_e2e::moto::{self, LoadBalancer, Moto};
use tidegate_e2e::{Cluster, Controller, apply, install, run};

use crate::scene::{self, HASH, Scene};

const INGRESS_API: &str = "networking.k8s.io/v1";
const BINDING_API: &str = "elbv2.k8s.aws/v1beta1";
/// Where a router writes the weights.
const ACTION: &str = "alb.ingress.kubernetes.io/actions.web-root";
/// The tag by which target groups are told apart.
const TAG: &str = "ingress.k8s.aws/resource";
const VERIFY: &str = "--aws-verify-target-group";

/// A namespace whose controller takes the moto on this port for AWS.
async fn scene_of(cluster: &'static Cluster, prefix: &str, port: u16) -> Result<(Scene, Controller)> {
    let scene = Scene::alone(cluster, prefix).await?;
    // As AWS's load balancer controller brings it.
    let bindings = apply::definition("elbv2.k8s.aws", "v1beta1", "TargetGroupBinding", "targetgroupbindings");
    apply::define(&scene.namespace.client, &bindings).await?;
    let controller = scene.namespace.start_controller_in(&moto::environment(port), &[VERIFY]).await?;
    Ok((scene, controller))
}

/// Ingress and Services of a canary behind a load balancer of AWS.
async fn prepare(scene: &Scene) -> Result<()> {
    for name in ["web-root", "web-stable", "web-canary"] {
        scene.apply(scene::service(name, "web")).await?;
    }
    let backend = json!({"service": {"name": "web-root", "port": {"name": "use-annotation"}}});
    scene
        .apply(json!({
            "apiVersion": INGRESS_API, "kind": "Ingress", "metadata": {"name": "web", "labels": {}},
            "spec": {"ingressClassName": "alb", "rules": [{"host": scene.host(), "http": {"paths": [
                {"path": "/*", "pathType": "ImplementationSpecific", "backend": backend},
            ]}}]},
        }))
        .await
}

fn routed(steps: Value) -> Value {
    scene::rollout(
        "web",
        "1",
        1,
        json!({"canary": {
            "stableService": "web-stable", "canaryService": "web-canary",
            "scaleDownDelaySeconds": 1,
            "trafficRouting": {"alb": {"ingress": "web", "rootService": "web-root", "servicePort": 80}},
            "steps": steps,
        }}),
    )
}

/// Says in the Ingress's status which load balancer it has.
async fn has_host(scene: &Scene, host: &str) -> Result<()> {
    let status = json!({"status": {"loadBalancer": {"ingress": [{"hostname": host}]}}});
    let ingresses = scene.objects(INGRESS_API, "Ingress")?;
    ingresses.patch_status("web", &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// The weights that the annotation gives the canary and the stable Service.
async fn annotated(scene: &Scene) -> Result<(i64, i64)> {
    let ingress = scene.get(INGRESS_API, "Ingress", "web").await?;
    let text = ingress["metadata"]["annotations"][ACTION].as_str().context("no action")?;
    let action: Value = serde_json::from_str(text).with_context(|| text.to_owned())?;
    let groups = action["ForwardConfig"]["TargetGroups"].as_array().with_context(|| text.to_owned())?;
    let weight = |service: &str| {
        let group = groups.iter().find(|group| group["ServiceName"] == service && group["ServicePort"] == "80");
        group.and_then(|group| group["Weight"].as_i64()).with_context(|| format!("no weight of {service} in {text}"))
    };
    ensure!(action["Type"] == "forward" && groups.len() == 2, "{text}");
    Ok((weight("web-canary")?, weight("web-stable")?))
}

async fn annotation_is(scene: &Scene, expected: (i64, i64)) -> Result<()> {
    scene
        .until(&format!("weights {expected:?} in the annotation"), async || {
            let found = annotated(scene).await?;
            ensure!(found == expected, "{found:?}");
            Ok(())
        })
        .await
}

/// A load balancer for the Ingress, and its target groups' ARNs.
struct Shop {
    balancer: LoadBalancer,
    canary: String,
    stable: String,
}

impl Shop {
    async fn new(scene: &Scene, moto: &Moto, weights: (i64, i64)) -> Result<Self> {
        let tag = |service: &str| format!("{}/web-{service}:80", scene.name());
        let canary = moto.target_group("shop-canary", (TAG, &tag("web-canary"))).await?;
        let stable = moto.target_group("shop-stable", (TAG, &tag("web-stable"))).await?;
        // Of another Ingress on the same load balancer, with weights of its own.
        let other = moto.target_group("shop-other", (TAG, &format!("{}/other-web-canary:80", scene.name()))).await?;
        let weights = [(canary.as_str(), weights.0), (stable.as_str(), weights.1), (other.as_str(), 7)];
        let balancer = moto.load_balancer("shop", &weights).await?;
        Ok(Self { balancer, canary, stable })
    }

    /// Copies the annotation's weights to the load balancer.
    async fn copy(&self, scene: &Scene, moto: &Moto) -> Result<()> {
        let (canary, stable) = annotated(scene).await?;
        moto.set_weights(&self.balancer, &[(&self.canary, canary), (&self.stable, stable)]).await
    }

    /// What the Rollout's status is to say of it.
    fn described(&self) -> Result<Value> {
        let (_, name) = self.balancer.arn.split_once(":loadbalancer/").context("a load balancer's ARN")?;
        ensure!(name.starts_with("app/shop/"), "{name}");
        let group = |name: &str, arn: &str| {
            let full = arn.rsplit(':').next().unwrap_or_default();
            assert!(full.starts_with(&format!("targetgroup/{name}/")), "{arn}");
            json!({"name": name, "arn": arn, "fullName": full})
        };
        Ok(json!({
            "ingress": "web",
            "loadBalancer": {"name": "shop", "arn": self.balancer.arn, "fullName": name},
            "canaryTargetGroup": group("shop-canary", &self.canary),
            "stableTargetGroup": group("shop-stable", &self.stable),
        }))
    }
}

/// Waits until the controller has based two decisions on an answer that it logs like this: the status that goes with the
/// first is written by then.
async fn stands_on(scene: &Scene, controller: &Controller, answer: &str) -> Result<Value> {
    for decisions in 1..=2 {
        let now = json!({"metadata": {"annotations": {"looks": decisions.to_string(), "answer": answer}}});
        scene.patch_rollout("web", now).await?;
        scene
            .until(&format!("{decisions} decisions on {answer:?}"), async || {
                let log = controller.log();
                let found = log.matches(answer).count();
                ensure!(found >= decisions, "{found}");
                Ok(())
            })
            .await?;
    }
    scene.rollout("web").await
}

fn status(rollout: &Value) -> Value {
    rollout["status"].clone()
}

/// The load balancer is known to have the recorded weights, these.
async fn verified(scene: &Scene, canary: i64) -> Result<Value> {
    scene
        .rollout_is("web", &format!("weight {canary} verified"), |rollout| {
            let weights = &rollout["status"]["canary"]["weights"];
            ensure!(weights["verified"] == true && weights["canary"]["weight"] == canary, "{weights}");
            Ok(())
        })
        .await
}

#[test]
fn a_step_is_done_when_the_load_balancer_has_its_weight() -> Result<()> {
    let packages = install::moto()?;
    run(async |cluster| {
        let (moto, port) = Moto::start(&packages).await?;
        let (scene, mut controller) = scene_of(cluster, "alb", port).await?;
        prepare(&scene).await?;
        let shop = Shop::new(&scene, &moto, (0, 100)).await?;
        has_host(&scene, &shop.balancer.dns_name).await?;
        scene.deploy(routed(json!([{"setWeight": 20}, {"pause": {}}]))).await?;
        assert_eq!(verified(&scene, 0).await?["status"]["alb"], shop.described()?);
        let sets = scene.sizes("web", &[(1, 1)]).await?;

        scene.set_tag("web", "2")?;
        annotation_is(&scene, (20, 80)).await?;
        let old = "target group shop-canary of load balancer shop has weight {0}, not 20";
        let waiting = status(&stands_on(&scene, &controller, old).await?);
        assert_eq!(waiting["currentStepIndex"], 0, "{waiting}");
        assert_eq!(waiting["canary"]["weights"]["verified"], false, "{waiting}");
        assert_eq!(waiting["phase"], "Progressing", "{waiting}");
        shop.copy(&scene, &moto).await?;
        let paused = status(&scene.paused_at("web", 1).await?);
        assert_eq!(paused["canary"]["weights"]["verified"], true, "{paused}");
        assert_eq!(paused["canary"]["weights"]["canary"]["weight"], 20, "{paused}");
        assert_eq!(paused["alb"], shop.described()?);

        // All traffic first, then the promotion, then the weight goes back to the stable Service.
        scene.plugin(&["promote", "web"])?;
        annotation_is(&scene, (100, 0)).await?;
        let old = "target group shop-canary of load balancer shop has weight {20}, not 100";
        let waiting = status(&stands_on(&scene, &controller, old).await?);
        assert_eq!(waiting["stableRS"], sets[0].hash.as_str(), "promoted before it has all traffic: {waiting}");
        shop.copy(&scene, &moto).await?;
        annotation_is(&scene, (0, 100)).await?;
        let old = "target group shop-canary of load balancer shop has weight {100}, not 0";
        let waiting = stands_on(&scene, &controller, old).await?;
        assert_eq!(waiting["status"]["canary"]["weights"]["verified"], false, "{waiting}");
        let sets = scene.revisions("web").await?;
        assert_eq!((sets[0].wanted, sets[1].wanted), (1, 1), "old pods went before the traffic");
        shop.copy(&scene, &moto).await?;
        verified(&scene, 0).await?;
        scene.phase("web", "Healthy").await?;
        scene.sizes("web", &[(1, 0), (2, 1)]).await?;
        controller.stop(Duration::from_secs(30))
    })
}

#[test]
fn what_aws_cannot_say_is_told_and_waited_for() -> Result<()> {
    let packages = install::moto()?;
    run(async |cluster| {
        // Connections are made, and nobody answers.
        let silence = TcpListener::bind(("127.0.0.1", 0))?;
        let port = silence.local_addr()?.port();
        let (scene, mut controller) = scene_of(cluster, "noaws", port).await?;
        prepare(&scene).await?;
        has_host(&scene, "nobody-1.eu-west-1.elb.amazonaws.com").await?;
        scene.deploy(routed(json!([{"setWeight": 50}, {"pause": {}}]))).await?;
        scene.set_tag("web", "2")?;
        let told = scene.told("Rollout", "web", "WeightVerifyError", "Ingress web: DescribeLoadBalancers").await?;
        assert_eq!(told.type_, "Warning", "{told:?}");
        annotation_is(&scene, (50, 50)).await?;
        let waiting = stands_on(&scene, &controller, "cannot see the weights of Ingress web: ").await?;
        assert_eq!(waiting["status"]["currentStepIndex"], 0, "{waiting}");
        assert_eq!(waiting["status"]["canary"]["weights"]["verified"], false, "{waiting}");

        drop(silence);
        let moto = Moto::start_on(&packages, port).await?;
        let unknown = "Ingress web: no load balancer has the host name nobody-1.eu-west-1.elb.amazonaws.com";
        let told = scene.told("Rollout", "web", "LoadBalancerNotFound", unknown).await?;
        assert_eq!(told.type_, "Warning", "{told:?}");
        let waiting = scene.rollout("web").await?;
        assert_eq!(waiting["status"]["currentStepIndex"], 0, "{waiting}");

        let shop = Shop::new(&scene, &moto, annotated(&scene).await?).await?;
        has_host(&scene, &shop.balancer.dns_name).await?;
        let paused = scene.paused_at("web", 1).await?;
        assert_eq!(paused["status"]["canary"]["weights"]["verified"], true, "{paused}");
        assert_eq!(paused["status"]["alb"], shop.described()?);
        controller.stop(Duration::from_secs(30))
    })
}

/// The addresses of a version's pods.
async fn addresses(scene: &Scene, hash: &str) -> Result<Vec<String>> {
    let pods = scene.list("v1", "Pod").await?;
    let pods = pods.iter().filter(|pod| pod["metadata"]["labels"][HASH] == hash);
    let addresses = pods.map(|pod| pod["status"]["podIP"].as_str().map(str::to_owned).context("a pod's address"));
    addresses.collect()
}

#[test]
fn a_switch_is_done_when_the_target_group_has_the_pods() -> Result<()> {
    let packages = install::moto()?;
    run(async |cluster| {
        let (moto, port) = Moto::start(&packages).await?;
        let (scene, mut controller) = scene_of(cluster, "targets", port).await?;
        let group = moto.target_group("active", (TAG, &format!("{}/web-active:80", scene.name()))).await?;
        scene.apply(scene::service("active", "web")).await?;
        scene
            .apply(json!({
                "apiVersion": BINDING_API, "kind": "TargetGroupBinding", "metadata": {"name": "active", "labels": {}},
                "spec": {
                    "targetGroupARN": group, "targetType": "ip", "serviceRef": {"name": "active", "port": 80},
                },
            }))
            .await?;
        let strategy = json!({"blueGreen": {"activeService": "active", "scaleDownDelaySeconds": 60}});
        scene.deploy(scene::rollout("web", "1", 2, strategy)).await?;
        let first = scene.sizes("web", &[(1, 2)]).await?[0].hash.clone();
        for address in addresses(&scene, &first).await? {
            moto.register(&group, &address, 8080).await?;
        }

        scene.set_tag("web", "2")?;
        let unverified =
            |missing: u32| format!("Service active: {missing} of 2 endpoints are not targets of {group} yet");
        let told = scene.told("Rollout", "web", "TargetGroupUnverified", &unverified(2)).await?;
        assert_eq!(told.type_, "Warning", "{told:?}");
        let second = scene.sizes("web", &[(1, 2), (2, 2)]).await?[1].hash.clone();
        let pods = addresses(&scene, &second).await?;
        let [one, two] = &pods[..] else { anyhow::bail!("two pods, not {pods:?}") };
        moto.register(&group, one, 8080).await?;
        let waiting = status(&stands_on(&scene, &controller, &unverified(1)).await?);
        // Users reach the new version, but it is not the stable one.
        assert_eq!(scene.service_selector("active").await?, second);
        assert_eq!(waiting["stableRS"], first.as_str(), "{waiting}");
        assert_eq!(waiting["phase"], "Progressing", "{waiting}");
        moto.register(&group, two, 8080).await?;
        let all = format!("Service active: all 2 endpoints are targets of {group}");
        scene.told("Rollout", "web", "TargetGroupVerified", &all).await?;
        let done = scene.phase("web", "Healthy").await?;
        assert_eq!(done["status"]["stableRS"], second.as_str());
        controller.stop(Duration::from_secs(30))
    })
}
