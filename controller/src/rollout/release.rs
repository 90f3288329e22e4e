//! Gives back what no Rollout names any more: a Service selects by the user's own labels again, a Deployment has its pods
//! again.

use super::snapshot::{DESTINATION_RULE, Service, destination_rule_name, service_names};
use crate::api::{ApiError, Resource, resources};
use crate::cache::Key;
use crate::context::{Context, Writer, orphans};
use crate::worker::{Failure, Next};
use serde_json::{Value, json};
use std::time::Duration;
use tidegate_crds::keys;
use tidegate_crds::rollout::Rollout;
use tidegate_traffic::RouterOptions;

/// How long the first list of a kind is waited for.
const LISTED: Duration = Duration::from_secs(5);
/// When to look again for a kind that was never listed so far.
const UNSYNCED: Duration = Duration::from_secs(30);

/// A Service.
pub(crate) async fn service(context: &Context, key: &Key) -> Result<Next, Failure> {
    let Some(value) = context.stores.services.value(key) else { return Ok(Next::WAIT) };
    let Some(rollout) = Service::from_value(&value).managed_by else { return Ok(Next::WAIT) };
    let owner: Option<Rollout> = context.stores.rollouts.get(&Key::new(&key.namespace, &rollout));
    if owner.is_some_and(|o| service_names(&o).contains(&*key.name)) {
        return Ok(Next::WAIT);
    }
    tracing::info!(namespace = %key.namespace, service = %key.name, rollout, "Gives the Service back: the Rollout does not name it any more.");
    let body = json!({
        "metadata": {
            "resourceVersion": value.pointer("/metadata/resourceVersion"),
            "annotations": {keys::MANAGED_BY: null},
        },
        "spec": {"selector": {keys::POD_TEMPLATE_HASH: null}},
    });
    let writer = Writer { api: context.api.as_ref(), stores: &context.stores };
    match writer.merge(&resources::SERVICE, &key.namespace, &key.name, "", &body).await {
        Ok(_) | Err(ApiError::NotFound(_)) => Ok(Next::WAIT),
        Err(error) => Err(error.into()),
    }
}

fn destination_rules(options: &RouterOptions) -> Resource {
    let api_version = format!("{}/{}", super::primary::ISTIO, options.istio_api_version);
    Resource::named(&api_version, DESTINATION_RULE, "destinationrules", true)
}

/// The Rollout that manages a DestinationRule, when it is gone or does not name it any more.
fn former_manager<'a>(context: &Context, key: &Key, rule: &'a Value) -> Option<&'a str> {
    let rollout = tidegate_traffic::rule_is_managed_by(rule)?;
    let owner: Option<Rollout> = context.stores.rollouts.get(&Key::new(&key.namespace, rollout));
    let names = owner.is_some_and(|owner| destination_rule_name(&owner) == Some(&*key.name));
    (!names).then_some(rollout)
}

/// DestinationRules that a Rollout has left while nobody looked. A cluster without Istio has none.
pub(crate) async fn rules_left_behind(context: &Context, options: &RouterOptions) -> Vec<Key> {
    match context.api.list(&destination_rules(options), watched(context), "").await {
        Ok(found) => {
            let key = |rule| crate::cache::key_of(rule).filter(|key| former_manager(context, key, rule).is_some());
            found.iter().filter_map(key).collect()
        }
        Err(error) => {
            tracing::debug!(%error, "Cannot look for DestinationRules whose Rollout has gone.");
            Vec::new()
        }
    }
}

/// A DestinationRule of Istio.
pub(crate) async fn destination_rule(context: &Context, options: &RouterOptions, key: &Key) -> Result<Next, Failure> {
    let resource = destination_rules(options);
    let store = context.stores.of(&resource);
    if !store.listed(LISTED).await {
        // Its first list is under way, if the cluster has this kind at all.
        return Ok(Next::after(UNSYNCED));
    }
    let Some(rule) = store.value(key) else { return Ok(Next::WAIT) };
    let Some(rollout) = former_manager(context, key, &rule) else { return Ok(Next::WAIT) };
    let Some(mut body) = tidegate_traffic::released_rule(&rule) else { return Ok(Next::WAIT) };
    tracing::info!(namespace = %key.namespace, destination_rule = %key.name, rollout, "Gives the DestinationRule back: the Rollout does not name it any more.");
    body["metadata"]["resourceVersion"] = rule.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    let writer = Writer { api: context.api.as_ref(), stores: &context.stores };
    match writer.merge(&resource, &key.namespace, &key.name, "", &body).await {
        Ok(_) | Err(ApiError::NotFound(_)) => Ok(Next::WAIT),
        Err(error) => Err(error.into()),
    }
}

/// Notes on a Deployment how many pods it had before the Rollout scales it down.
pub(crate) fn mark(deployment: &mut Value, rollout: &str) {
    let known = annotation(deployment, keys::SCALED_DOWN_BY) == Some(rollout);
    let pods = deployment.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let before = annotation(deployment, keys::SCALED_DOWN_FROM).and_then(|n| n.parse().ok()).filter(|_| known);
    let metadata = &mut deployment["metadata"];
    metadata["labels"][keys::SCALED_DOWN] = "true".into();
    metadata["annotations"][keys::SCALED_DOWN_BY] = rollout.into();
    metadata["annotations"][keys::SCALED_DOWN_FROM] = pods.max(before.unwrap_or(0)).to_string().into();
}

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations").and_then(|a| a.get(key)).and_then(Value::as_str)
}

/// The namespace that this process looks at; empty for all.
fn watched(context: &Context) -> &str {
    if context.options.namespaced { &context.options.namespace } else { "" }
}

/// Deployments that some Rollout has scaled down, which may have gone while nobody looked.
pub(crate) async fn workloads_left_behind(context: &Context) -> Vec<Key> {
    match context.api.list(&resources::DEPLOYMENT, watched(context), &format!("{}=true", keys::SCALED_DOWN)).await {
        Ok(found) => found.iter().filter_map(crate::cache::key_of).collect(),
        Err(error) => {
            tracing::warn!(%error, "Cannot look for Deployments whose Rollout has gone.");
            Vec::new()
        }
    }
}

/// A Deployment that a Rollout with `workloadRef` had scaled down gets its pods back when that Rollout is deleted:
/// otherwise nothing would serve (argo-rollouts #3855).
pub(crate) async fn workload(context: &Context, key: &Key) -> Result<Next, Failure> {
    let mut deployment = match context.api.get(&resources::DEPLOYMENT, &key.namespace, &key.name).await {
        Ok(deployment) => deployment,
        Err(ApiError::NotFound(_)) => return Ok(Next::WAIT),
        Err(error) => return Err(error.into()),
    };
    let Some(rollout) = annotation(&deployment, keys::SCALED_DOWN_BY).map(str::to_owned) else { return Ok(Next::WAIT) };
    let goes = deployment.pointer("/metadata/deletionTimestamp").is_some();
    if goes || context.stores.rollouts.contains(&Key::new(&key.namespace, &rollout)) || kept(context, key, &deployment)
    {
        return Ok(Next::WAIT);
    }
    let before = annotation(&deployment, keys::SCALED_DOWN_FROM).and_then(|n| n.parse::<i64>().ok()).unwrap_or(1);
    let pods = deployment.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1).max(before);
    deployment["spec"]["replicas"] = pods.into();
    for (part, keys) in
        [("labels", &[keys::SCALED_DOWN][..]), ("annotations", &[keys::SCALED_DOWN_BY, keys::SCALED_DOWN_FROM])]
    {
        if let Some(map) = deployment["metadata"][part].as_object_mut() {
            keys.iter().for_each(|key| {
                map.remove(*key);
            });
        }
    }
    context.api.replace(&resources::DEPLOYMENT, &key.namespace, &key.name, &deployment).await?;
    tracing::info!(namespace = %key.namespace, deployment = %key.name, rollout, pods, "Scales the Deployment up again: the Rollout that had taken its place is gone.");
    Ok(Next::WAIT)
}

/// The Rollout went without its pods (`kubectl delete --cascade=orphan`): they still serve.
fn kept(context: &Context, key: &Key, deployment: &Value) -> bool {
    let wanted = super::snapshot::text_map(deployment.pointer("/spec/selector/matchLabels"));
    let left: Vec<Value> = context.stores.replica_sets.by_index(&orphans(&key.namespace));
    left.iter().any(|rs| {
        let labels = super::snapshot::text_map(rs.pointer("/spec/template/metadata/labels"));
        rs.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1) > 0
            && wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_remembers_the_most_pods_that_it_had() {
        let mut deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 5}});
        mark(&mut deployment, "web");
        deployment["spec"]["replicas"] = 3.into();
        mark(&mut deployment, "web");
        let expected = json!({
            "name": "web", "labels": {keys::SCALED_DOWN: "true"},
            "annotations": {keys::SCALED_DOWN_BY: "web", keys::SCALED_DOWN_FROM: "5"},
        });
        assert_eq!(deployment["metadata"], expected, "while it goes down step by step");
        mark(&mut deployment, "other");
        assert_eq!(annotation(&deployment, keys::SCALED_DOWN_FROM), Some("3"), "what another Rollout found");
    }
}
