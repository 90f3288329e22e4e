//! Gives a Service back when no Rollout names it any more: it selects by the user's own labels again.

use super::snapshot::{Service, service_names};
use crate::api::{ApiError, resources};
use crate::cache::Key;
use crate::context::{Context, Writer};
use crate::worker::{Failure, Next};
use serde_json::json;
use tidegate_crds::keys;
use tidegate_crds::rollout::Rollout;

pub(crate) async fn release(context: &Context, key: &Key) -> Result<Next, Failure> {
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
