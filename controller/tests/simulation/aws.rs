//! AWS, as far as the controller asks it: a load balancer that takes the weights of its Ingress in its own time, target
//! groups that follow the endpoints of their Services, and answers that come late, or are errors.

use crate::cluster::{Happening, Id, Kind, Millis, NAMESPACE, World, text};
use crate::meshes::{self, Mesh};
use serde_json::Value;
use tidegate_controller::rollout::Snapshot;
use tidegate_controller::rollout::alb::{self, Answer, Balancer, Balancers, Question, Registration, TargetGroup};

/// The same question is asked again only after this time, as by the real controller.
const PATIENCE: Millis = 9_000;
/// Host name of the load balancer.
pub const HOST: &str = "web-1.elb.example.com";

/// What the process knows of AWS: nothing after a restart.
#[derive(Default)]
pub struct Aws {
    heard: Option<(Millis, Question, Answer)>,
    /// What is being asked, and when the answer comes.
    open: Option<(Millis, Question)>,
}

impl Aws {
    /// Adds to the snapshot what was heard last, and asks.
    pub fn look(&mut self, world: &mut World, snapshot: &mut Snapshot) {
        if !world.aws {
            return;
        }
        let question = alb::question(snapshot);
        let known = self.heard.as_ref().filter(|(_, asked, _)| *asked == question);
        let fresh = known.is_some_and(|(at, ..)| world.now - at < PATIENCE);
        snapshot.aws = Some(known.map(|(.., answer)| answer.clone()).unwrap_or_default());
        let asking = self.open.as_ref().is_some_and(|(_, open)| *open == question);
        if question.is_empty() || fresh || asking {
            return;
        }
        let after = world.random.range(50, 4_000);
        self.open = Some((world.now + after, question));
        world.plan(after, Happening::AwsAnswers);
    }

    /// Takes the answer in, once it is there.
    pub fn hear(&mut self, world: &mut World) -> bool {
        if self.open.as_ref().is_none_or(|(at, _)| *at > world.now) {
            return false;
        }
        let Some((_, question)) = self.open.take() else { return false };
        let answer = answer(world, &question);
        world.say(|| format!("aws        answers {answer:?}"));
        self.heard = Some((world.now, question, answer));
        true
    }
}

fn answer(world: &mut World, question: &Question) -> Answer {
    let mut answer = Answer { tag: "ingress.k8s.aws/resource".to_owned(), complete: true, ..Answer::default() };
    for ingress in question.ingresses.keys() {
        let found = if troubled(world) { Err("Throttling: Rate exceeded".to_owned()) } else { Ok(balancers(world)) };
        answer.ingresses.insert(ingress.clone(), found);
    }
    for service in &question.services {
        let found =
            if troubled(world) { Err("ServiceUnavailable".to_owned()) } else { Ok(registration(world, service)) };
        answer.services.insert(service.clone(), found);
    }
    answer
}

fn troubled(world: &mut World) -> bool {
    !world.calm && world.random.percent(10)
}

fn balancers(world: &World) -> Balancers {
    let group = |(service, weight): &(String, i64)| TargetGroup {
        resource: format!("{NAMESPACE}/{}-{service}:80", meshes::OBJECT),
        name: service.clone(),
        arn: format!("arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/{service}/1"),
        weights: [i32::try_from(*weight).unwrap_or(0)].into(),
    };
    let balancer = Balancer {
        name: "web".to_owned(),
        arn: "arn:aws:elasticloadbalancing:eu-west-1:1:loadbalancer/app/web/1".to_owned(),
        groups: world.invariants.taken.iter().map(group).collect(),
    };
    Balancers { found: vec![balancer], unknown: Vec::new() }
}

fn registration(world: &World, service: &str) -> Registration {
    let ready = ready(world, service);
    let targets = world.targets.get(service);
    let missing = ready.iter().filter(|pod| targets.is_none_or(|targets| !targets.contains(**pod))).count();
    Registration { groups: vec![service.to_owned()], endpoints: ready.len(), missing }
}

/// Names of the ready pods behind a Service, as its EndpointSlice has them.
fn ready<'a>(world: &'a World, service: &str) -> Vec<&'a str> {
    let slice = world.get(Kind::EndpointSlice, service).and_then(|slice| slice["endpoints"].as_array());
    let ready = slice.into_iter().flatten().filter(|e| e.pointer("/conditions/ready") == Some(&Value::Bool(true)));
    ready.map(|endpoint| text(endpoint, "/targetRef/name")).collect()
}

/// The load balancer takes the weights that its Ingress has now.
pub fn balance(world: &mut World) {
    if weighs(world) {
        world.invariants.taken = meshes::weights_now(world, Mesh::Alb);
    }
}

/// A load balancer is asked whether it has the weights.
pub fn weighs(world: &World) -> bool {
    world.aws && world.rollout().pointer("/spec/strategy/canary/trafficRouting/alb").is_some()
}

/// The target groups of a Service take its endpoints.
pub fn register(world: &mut World, service: &str) {
    let pods: Vec<String> = ready(world, service).into_iter().map(str::to_owned).collect();
    let hashes = pods.iter().filter_map(|pod| Some(world.pods.get(pod)?.hash.clone())).collect();
    let now = world.now;
    world.invariants.registered(service, hashes, now);
    world.targets.insert(service.to_owned(), pods.into_iter().collect());
}

/// A Service has other endpoints.
pub fn endpoints_changed(world: &mut World, service: &str) {
    if world.aws {
        let after = world.random.range(50, 8_000);
        world.plan_once(after, Happening::Targets(service.to_owned()));
    }
}

/// An object was written.
pub fn written(world: &mut World, id: &Id, before: Option<&Value>, after: &Value) {
    let annotations = |object: &Value| object["metadata"]["annotations"].clone();
    let same = before.is_some_and(|before| annotations(before) == annotations(after));
    if world.aws && id.0 == Kind::Ingress && id.1 == meshes::OBJECT && !same {
        let slowest = if world.random.percent(10) { 30_000 } else { 5_000 };
        let after = world.random.range(100, slowest);
        world.plan(after, Happening::Balancer);
    }
}

/// Hash that a version's pods carry as targets.
pub fn is_target(world: &World, service: &str, hash: &str) -> bool {
    let targets = world.targets.get(service).into_iter().flatten();
    targets.into_iter().any(|pod| world.pods.get(pod).is_some_and(|pod| pod.hash == hash))
}
