//! Asks AWS what its load balancers do: Elastic Load Balancing, no more often than it tolerates, and without keeping a
//! Rollout waiting for the answer.

use super::alb::{self, Answer, Balancer, Balancers, Question, Registration, TargetGroup};
use super::snapshot::{Endpoints, Snapshot};
use crate::api::{ApiError, Resource, resources};
use crate::cache::Key;
use crate::context::{Context, behind};
use crate::worker::Queue;
use aws_config::BehaviorVersion;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// The same question is asked again only after this time: an account's rate limit is shared by all its clusters. A
/// little less than the time after which a Rollout looks again.
const PATIENCE: Duration = Duration::from_secs(9);
/// How long AWS may take for one answer, with all attempts.
const ONE_ANSWER: Duration = Duration::from_secs(5);
/// How long it may take for all answers to one question.
const ALL_ANSWERS: Duration = Duration::from_secs(30);
/// For how long a load balancer's host name keeps its ARN.
const HOST_NAMES: Duration = Duration::from_secs(300);
/// So many ARNs fit into one question about tags.
const TAGS_AT_ONCE: usize = 20;

/// The API of Elastic Load Balancing, with what was heard lately.
pub(crate) struct Aws {
    client: OnceCell<Client>,
    /// Tag of a target group that names its Ingress, Service and port.
    tag: String,
    /// `group/version` of TargetGroupBindings.
    binding_api_version: String,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    answers: HashMap<Key, (Instant, Question, Answer)>,
    /// What is being asked, and since when.
    open: HashMap<Key, Question>,
    hosts: HashMap<String, (Instant, Option<(String, String)>)>,
}

impl Aws {
    /// Credentials and region come from the environment, the pod's identity or the node, once they are needed.
    pub(crate) fn new(tag: &str, binding_api_version: &str) -> Self {
        Self {
            client: OnceCell::new(),
            tag: tag.to_owned(),
            binding_api_version: binding_api_version.to_owned(),
            heard: Mutex::default(),
        }
    }

    /// The Rollout is gone.
    pub(crate) fn forget(&self, key: &Key) {
        let mut heard = self.heard();
        heard.answers.remove(key);
        heard.open.remove(key);
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn client(&self) -> &Client {
        let make = || async {
            let limits = TimeoutConfig::builder().operation_timeout(ONE_ANSWER).build();
            Client::new(&aws_config::defaults(BehaviorVersion::latest()).timeout_config(limits).load().await)
        };
        self.client.get_or_init(make).await
    }

    /// Adds to the snapshot what AWS said last, as far as a decision needs it now. Where that is not known, or long ago,
    /// AWS is asked, and the Rollout comes into the queue again with the answer.
    pub(crate) fn look(self: &Arc<Self>, context: &Context, key: &Key, snapshot: &mut Snapshot, queue: &Arc<Queue>) {
        let question = alb::question(snapshot);
        let mut heard = self.heard();
        let known = heard.answers.get(key).filter(|(_, asked, _)| *asked == question);
        let fresh = known.is_some_and(|(at, ..)| at.elapsed() < PATIENCE);
        snapshot.aws = Some(known.map(|(.., answer)| answer.clone()).unwrap_or_default());
        if question.is_empty() || fresh || heard.open.get(key) == Some(&question) {
            return;
        }
        heard.open.insert(key.clone(), question.clone());
        let (this, context, key, queue) = (Arc::clone(self), context.clone(), key.clone(), Arc::clone(queue));
        tokio::spawn(async move {
            let asked = tokio::time::timeout(ALL_ANSWERS, this.ask(&context, &key, &question)).await;
            let answer = asked.unwrap_or_else(|_| this.no_answer(&question));
            {
                let mut heard = this.heard();
                if heard.open.get(&key) == Some(&question) {
                    heard.open.remove(&key);
                    heard.answers.insert(key.clone(), (Instant::now(), question, answer));
                }
            }
            queue.add(key);
        });
    }

    async fn ask(&self, context: &Context, key: &Key, question: &Question) -> Answer {
        let mut answer = Answer { tag: self.tag.clone(), ..Answer::default() };
        for (ingress, hosts) in &question.ingresses {
            answer.ingresses.insert(ingress.clone(), self.balancers(hosts).await);
        }
        for service in &question.services {
            if let Some(found) = self.registration(context, &key.namespace, service).await.transpose() {
                answer.services.insert(service.clone(), found);
            }
        }
        answer.complete = true;
        answer
    }

    fn no_answer(&self, question: &Question) -> Answer {
        let error = || format!("AWS did not answer within {} seconds", ALL_ANSWERS.as_secs());
        Answer {
            tag: self.tag.clone(),
            ingresses: question.ingresses.keys().map(|name| (name.clone(), Err(error()))).collect(),
            services: question.services.iter().map(|name| (name.clone(), Err(error()))).collect(),
            complete: true,
        }
    }

    async fn balancers(&self, hosts: &BTreeSet<String>) -> Result<Balancers, String> {
        let mut found = Balancers::default();
        for host in hosts {
            match self.by_host(host).await? {
                Some((name, arn)) => {
                    let groups = self.target_groups(&arn).await?;
                    found.found.push(Balancer { name, arn, groups });
                }
                None => found.unknown.push(host.clone()),
            }
        }
        Ok(found)
    }

    /// Name and ARN of the load balancer with a DNS name.
    async fn by_host(&self, host: &str) -> Result<Option<(String, String)>, String> {
        let known = self.heard().hosts.get(host).cloned();
        if let Some((at, found)) = known
            && (found.is_some() && at.elapsed() < HOST_NAMES || at.elapsed() < PATIENCE)
        {
            return Ok(found);
        }
        let mut found = None;
        // The name is part of the DNS name; only where it is not, all have to be looked at.
        if let Some(name) = name_in(host) {
            found = self.find(host, Some(name)).await?;
        }
        if found.is_none() {
            found = self.find(host, None).await?;
        }
        self.heard().hosts.insert(host.to_owned(), (Instant::now(), found.clone()));
        Ok(found)
    }

    async fn find(&self, host: &str, name: Option<&str>) -> Result<Option<(String, String)>, String> {
        let call = self.client().await.describe_load_balancers().set_names(name.map(|name| vec![name.to_owned()]));
        let mut pages = call.into_paginator().items().send();
        while let Some(next) = pages.next().await {
            let balancer = match next {
                Ok(balancer) => balancer,
                Err(error) if error.code() == Some("LoadBalancerNotFound") => return Ok(None),
                Err(error) => return Err(failed("DescribeLoadBalancers", &error)),
            };
            if balancer.dns_name().is_some_and(|name| name.eq_ignore_ascii_case(host)) {
                let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
                return Ok(Some((text(balancer.load_balancer_name()), text(balancer.load_balancer_arn()))));
            }
        }
        Ok(None)
    }

    /// Target groups of a load balancer that carry the tag, with the weights of its rules.
    async fn target_groups(&self, balancer: &str) -> Result<Vec<TargetGroup>, String> {
        let client = self.client().await;
        let mut groups = BTreeMap::new();
        let mut pages = client.describe_target_groups().load_balancer_arn(balancer).into_paginator().items().send();
        while let Some(next) = pages.next().await {
            let group = next.map_err(|error| failed("DescribeTargetGroups", &error))?;
            if let (Some(arn), Some(name)) = (group.target_group_arn(), group.target_group_name()) {
                groups.insert(arn.to_owned(), name.to_owned());
            }
        }
        let mut weights: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        let mut listeners = client.describe_listeners().load_balancer_arn(balancer).into_paginator().items().send();
        while let Some(next) = listeners.next().await {
            let listener = next.map_err(|error| failed("DescribeListeners", &error))?;
            let mut rules =
                client.describe_rules().set_listener_arn(listener.listener_arn).into_paginator().items().send();
            while let Some(next) = rules.next().await {
                let rule = next.map_err(|error| failed("DescribeRules", &error))?;
                let forwards = rule.actions().iter().filter_map(|action| action.forward_config());
                for tuple in forwards.flat_map(|forward| forward.target_groups()) {
                    let (Some(arn), Some(weight)) = (tuple.target_group_arn(), tuple.weight()) else { continue };
                    weights.entry(arn.to_owned()).or_default().insert(weight);
                }
            }
        }
        let arns: Vec<String> = groups.keys().cloned().collect();
        let mut found = Vec::new();
        for some in arns.chunks(TAGS_AT_ONCE) {
            let answer = client.describe_tags().set_resource_arns(Some(some.to_vec())).send().await;
            let answer = answer.map_err(|error| failed("DescribeTags", &error))?;
            for tagged in answer.tag_descriptions() {
                let tag = tagged.tags().iter().find(|tag| tag.key() == Some(self.tag.as_str()));
                let (Some(arn), Some(resource)) = (tagged.resource_arn(), tag.and_then(|tag| tag.value())) else {
                    continue;
                };
                found.push(TargetGroup {
                    resource: resource.to_owned(),
                    name: groups.get(arn).cloned().unwrap_or_default(),
                    weights: weights.remove(arn).unwrap_or_default(),
                    arn: arn.to_owned(),
                });
            }
        }
        Ok(found)
    }

    /// How many of a Service's ready endpoints its target groups lack; `None` when no TargetGroupBinding with targets of
    /// type `ip` names it.
    async fn registration(
        &self,
        context: &Context,
        namespace: &str,
        service: &str,
    ) -> Result<Option<Registration>, String> {
        let resource = Resource::named(&self.binding_api_version, "TargetGroupBinding", "targetgroupbindings", true);
        let store = context.stores.of(&resource);
        if !store.listed(Duration::from_secs(5)).await {
            return match context.api.list(&resource, namespace, "").await {
                // Without the definition nothing is bound.
                Err(ApiError::NotFound(_)) => Ok(None),
                Err(error) => Err(format!("cannot list TargetGroupBindings of {}: {error}", self.binding_api_version)),
                Ok(_) => Err("TargetGroupBindings are not known yet".to_owned()),
            };
        }
        let index = behind(namespace, service);
        let slices: Vec<Value> = context.stores.of(&resources::ENDPOINT_SLICE).by_index(&index);
        let wanted = Endpoints::addresses(&slices);
        let mut found = None;
        for binding in store.by_index::<Value>(&index) {
            let text = |pointer: &str| binding.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            if text("/spec/targetType") != "ip" {
                continue;
            }
            let arn = text("/spec/targetGroupARN").to_owned();
            let answer = self.client().await.describe_target_health().target_group_arn(&arn).send().await;
            let answer = answer.map_err(|error| failed("DescribeTargetHealth", &error))?;
            let targets: BTreeSet<(String, u16)> = answer
                .target_health_descriptions()
                .iter()
                .filter(|t| t.target_health().and_then(|h| h.state()).is_none_or(|s| s.as_str() != "draining"))
                .filter_map(|t| t.target())
                .filter_map(|t| Some((t.id()?.to_owned(), u16::try_from(t.port()?).ok()?)))
                .collect();
            let missing = wanted.iter().filter(|pod| !pod.iter().any(|address| targets.contains(address))).count();
            let known: &mut Registration = found.get_or_insert_default();
            known.groups.push(arn);
            known.endpoints = wanted.len();
            known.missing = known.missing.max(missing);
        }
        Ok(found)
    }
}

/// The load balancer's name in its DNS name, as in `internal-web-1234567890.eu-west-1.elb.amazonaws.com`.
fn name_in(host: &str) -> Option<&str> {
    let label = host.split('.').next()?;
    let (name, number) = label.strip_prefix("internal-").unwrap_or(label).rsplit_once('-')?;
    (!name.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(name)
}

/// What went wrong with a call, in one line.
fn failed<E, R>(call: &str, error: &SdkError<E, R>) -> String
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
    R: std::fmt::Debug,
{
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("AWS answered {call} with {code}: {message}"),
        (Some(code), None) => format!("AWS answered {call} with {code}"),
        _ => format!("{call}: {}", DisplayErrorContext(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_balancers_name_is_part_of_its_dns_name() {
        let table = [
            ("web-1234567890.eu-west-1.elb.amazonaws.com", Some("web")),
            ("internal-k8s-shop-web-0a1b2c-99.eu-west-1.elb.amazonaws.com", Some("k8s-shop-web-0a1b2c")),
            ("k8s-shop-web-0a1b2c.elb.eu-west-1.amazonaws.com", None),
            ("web", None),
            ("-5.example.com", None),
        ];
        for (host, name) in table {
            assert_eq!(name_in(host), name, "{host}");
        }
    }
}
