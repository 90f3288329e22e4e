//! Gives back what no Rollout names any more: it selects by the user's own labels again.

use super::snapshot::{Service, destination_rule_name, service_names};
use crate::api::{ApiError, Resource, resources};
use crate::cache::Key;
use crate::context::{Context, Writer};
use crate::worker::{Failure, Next};
use serde_json::json;
use std::time::Duration;
use tidegate_crds::keys;
use tidegate_crds::rollout::Rollout;
use tidegate_traffic::RouterOptions;

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

/// A DestinationRule of Istio.
pub(crate) async fn destination_rule(context: &Context, options: &RouterOptions, key: &Key) -> Result<Next, Failure> {
    let api_version = format!("networking.istio.io/{}", options.istio_api_version);
    let resource = Resource::named(&api_version, "DestinationRule", "destinationrules", true);
    let store = context.stores.of(&resource);
    if !store.is_synced() {
        // Its first list is under way, if the cluster has this kind at all.
        return Ok(Next::after(UNSYNCED));
    }
    let Some(rule) = store.value(key) else { return Ok(Next::WAIT) };
    let Some(rollout) = tidegate_traffic::rule_is_managed_by(&rule) else { return Ok(Next::WAIT) };
    let owner: Option<Rollout> = context.stores.rollouts.get(&Key::new(&key.namespace, rollout));
    if owner.is_some_and(|o| destination_rule_name(&o) == Some(&*key.name)) {
        return Ok(Next::WAIT);
    }
    let Some(mut body) = tidegate_traffic::released_rule(&rule) else { return Ok(Next::WAIT) };
    tracing::info!(namespace = %key.namespace, destination_rule = %key.name, rollout, "Gives the DestinationRule back: the Rollout does not name it any more.");
    body["metadata"]["resourceVersion"] = rule.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    let writer = Writer { api: context.api.as_ref(), stores: &context.stores };
    match writer.merge(&resource, &key.namespace, &key.name, "", &body).await {
        Ok(_) | Err(ApiError::NotFound(_)) => Ok(Next::WAIT),
        Err(error) => Err(error.into()),
    }
}
