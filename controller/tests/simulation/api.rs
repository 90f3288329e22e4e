//! The simulated API server behind the controller's trait, with everything that can go wrong with a call.

use crate::cluster::{Actor, Kind, NAMESPACE, World, label, text};
use crate::platform;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tidegate_controller::api::{Api, ApiError, ApiResult, PatchCall, PatchKind, Propagation, Resource};

/// The cluster, seen by the controller.
#[derive(Clone)]
pub struct SimulatedApi(pub Arc<Mutex<World>>);

/// What becomes of a call.
enum Fate {
    Works,
    FailsBefore(ApiError),
    FailsAfter(ApiError),
    KilledBefore,
    KilledAfter,
}

/// How long a call may take; as the real one.
const PATIENCE: i64 = 30_000;

fn fate(world: &mut World, write: bool) -> Fate {
    let rates = world.faults;
    let throttled = || ApiError::TooManyRequests { message: "too many requests".into(), retry_after: None };
    let broken = || ApiError::Other("the API server answered 500 InternalError: etcd is away".into());
    let timeout = || ApiError::Timeout(Duration::from_millis(PATIENCE as u64));
    if write && let Some(left) = world.kill_after_writes.as_mut() {
        *left = left.saturating_sub(1);
        if *left == 0 {
            world.kill_after_writes = None;
            return Fate::KilledAfter;
        }
    }
    let mut roll = world.random.range(0, 999) as u64;
    let mut hit = |rate: u64| {
        let hit = roll < rate;
        roll = roll.wrapping_sub(rate);
        hit
    };
    if hit(rates.throttled) {
        return Fate::FailsBefore(throttled());
    }
    if hit(rates.broken_before) {
        return Fate::FailsBefore(broken());
    }
    if hit(rates.timeout_before) {
        return Fate::FailsBefore(timeout());
    }
    if hit(rates.kill_before) {
        return Fate::KilledBefore;
    }
    if write && hit(rates.conflict) {
        return Fate::FailsBefore(ApiError::Conflict("the object has been modified".into()));
    }
    if write && hit(rates.broken_after) {
        return Fate::FailsAfter(broken());
    }
    if write && hit(rates.timeout_after) {
        return Fate::FailsAfter(timeout());
    }
    if write && hit(rates.kill_after) {
        return Fate::KilledAfter;
    }
    Fate::Works
}

impl SimulatedApi {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Makes a call; `None` when the process is killed meanwhile.
    fn call<T>(
        &self,
        what: impl Fn() -> String,
        write: bool,
        work: impl FnOnce(&mut World) -> ApiResult<T>,
    ) -> Option<ApiResult<T>> {
        let mut world = self.world();
        let latency = if world.random.percent(3) { world.random.range(100, 3_000) } else { world.random.range(1, 20) };
        let now = world.now;
        world.advance(now + latency);
        let fate = fate(&mut world, write);
        let fail = |world: &mut World, error: ApiError| {
            world.say(|| format!("fault      {}: {error}", what()));
            if matches!(error, ApiError::Timeout(_)) {
                let now = world.now;
                world.advance(now + PATIENCE);
            }
            Some(Err(error))
        };
        match fate {
            Fate::Works => Some(work(&mut world)),
            Fate::FailsBefore(error) => fail(&mut world, error),
            Fate::FailsAfter(error) => match work(&mut world) {
                Ok(_) => fail(&mut world, error),
                Err(own) => Some(Err(own)),
            },
            Fate::KilledBefore => {
                world.say(|| format!("fault      killed before {}", what()));
                None
            }
            Fate::KilledAfter => {
                let _ = work(&mut world);
                world.say(|| format!("fault      killed after {}", what()));
                None
            }
        }
    }

    /// A killed process never hears the answer.
    fn answer<'a, T: Send + 'a>(result: Option<ApiResult<T>>) -> BoxFuture<'a, ApiResult<T>> {
        match result {
            Some(result) => Box::pin(std::future::ready(result)),
            None => Box::pin(std::future::pending()),
        }
    }
}

fn unknown(resource: &Resource) -> ApiError {
    ApiError::Other(format!("the simulated API server does not know {}", resource.kind))
}

impl Api for SimulatedApi {
    fn get<'a>(&'a self, resource: &'a Resource, _: &'a str, name: &'a str) -> BoxFuture<'a, ApiResult<Value>> {
        Self::answer(self.call(
            || format!("get {} {name}", resource.kind),
            false,
            |world| {
                let kind = Kind::of(resource).ok_or_else(|| unknown(resource))?;
                world.get(kind, name).cloned().ok_or_else(|| ApiError::NotFound(format!("{name} not found")))
            },
        ))
    }

    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        _: &'a str,
        selector: &'a str,
    ) -> BoxFuture<'a, ApiResult<Vec<Value>>> {
        Self::answer(self.call(
            || format!("list {}", resource.kind),
            false,
            |world| {
                let wanted: Vec<(&str, &str)> = selector.split(',').filter_map(|part| part.split_once('=')).collect();
                if resource.kind == "Pod" {
                    let fits = |p: &platform::Pod| wanted.iter().all(|(k, v)| p.labels.get(*k).is_some_and(|l| l == v));
                    let pods = world.pods.iter().filter(|(_, p)| fits(p));
                    return Ok(pods.map(|(name, pod)| platform::pod_object(world, name, pod)).collect());
                }
                let kind = Kind::of(resource).ok_or_else(|| unknown(resource))?;
                let fits = |o: &Value| wanted.iter().all(|(k, v)| label(o, k) == *v);
                Ok(world.of_kind(kind).filter(|(_, o)| fits(o)).map(|(_, o)| o.clone()).collect())
            },
        ))
    }

    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        _: &'a str,
        object: &'a Value,
        _: bool,
    ) -> BoxFuture<'a, ApiResult<Value>> {
        let name = text(object, "/metadata/name");
        Self::answer(self.call(
            || format!("create {} {name}", resource.kind),
            true,
            |world| {
                let kind = Kind::of(resource).ok_or_else(|| unknown(resource))?;
                world.create(Actor::Controller, kind, object).map(Arc::unwrap_or_clone)
            },
        ))
    }

    fn patch<'a>(&'a self, call: PatchCall<'a>) -> BoxFuture<'a, ApiResult<Value>> {
        let name = call.name;
        Self::answer(self.call(
            || format!("patch {} {name} {}", call.resource.kind, call.subresource),
            true,
            |world| {
                if call.kind != PatchKind::Merge || call.dry_run {
                    return Err(ApiError::Invalid("the simulated API server takes merge patches only".into()));
                }
                if call.resource.kind == "Pod" {
                    return label_pod(world, name, call.body);
                }
                let kind = Kind::of(call.resource).ok_or_else(|| unknown(call.resource))?;
                world.patch(Actor::Controller, kind, name, call.subresource, call.body).map(Arc::unwrap_or_clone)
            },
        ))
    }

    fn replace<'a>(
        &'a self,
        resource: &'a Resource,
        _: &'a str,
        name: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, ApiResult<Value>> {
        Self::answer(self.call(
            || format!("replace {} {name}", resource.kind),
            true,
            |world| {
                if resource.kind == "Deployment" {
                    // What a replacement leaves out is gone, and it holds only on the version that was read.
                    let before = world.get(Kind::Deployment, name).cloned().unwrap_or_default();
                    let mut change = tidegate_crds::patch::merge_diff(&before, object).unwrap_or_else(|| json!({}));
                    change["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"].clone();
                    let written = world.patch(Actor::Controller, Kind::Deployment, name, "", &change);
                    return written.map(Arc::unwrap_or_clone);
                }
                if resource.kind != "Pod" {
                    let error = format!("nothing replaces {} {name}: a patch leaves other fields alone", resource.kind);
                    return Err(ApiError::Invalid(error));
                }
                let mut change = json!({"metadata": object["metadata"].clone()});
                let Some(pod) = world.pods.get(name) else { return label_pod(world, name, &change) };
                for (part, map) in [("labels", &pod.labels), ("annotations", &pod.annotations)] {
                    for key in map.keys().filter(|key| object["metadata"][part].get(*key).is_none()) {
                        change["metadata"][part][key] = Value::Null;
                    }
                }
                label_pod(world, name, &change)
            },
        ))
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        _: &'a str,
        name: &'a str,
        uid: &'a str,
        _: Propagation,
    ) -> BoxFuture<'a, ApiResult<()>> {
        Self::answer(self.call(
            || format!("delete {} {name}", resource.kind),
            true,
            |world| {
                let kind = Kind::of(resource).ok_or_else(|| unknown(resource))?;
                world.delete(Actor::Controller, kind, name, uid)
            },
        ))
    }

    fn evict<'a>(&'a self, _: &'a str, pod: &'a str) -> BoxFuture<'a, ApiResult<()>> {
        Self::answer(self.call(
            || format!("evict {pod}"),
            true,
            |world| {
                if world.faults.throttled > 0 && world.random.percent(20) {
                    let message = "Cannot evict pod as it would violate the pod's disruption budget.".to_owned();
                    return Err(ApiError::TooManyRequests { message, retry_after: None });
                }
                world.say(|| format!("controller evicts pod {pod}"));
                world.writes += 1;
                crate::invariants::evicted(world, pod);
                platform::delete_pod(world, pod);
                Ok(())
            },
        ))
    }
}

fn label_pod(world: &mut World, name: &str, body: &Value) -> ApiResult<Value> {
    let Some(mut pod) = world.pods.get(name).cloned() else {
        return Err(ApiError::NotFound(format!("pod {name} not found in {NAMESPACE}")));
    };
    for (part, map) in [("labels", &mut pod.labels), ("annotations", &mut pod.annotations)] {
        for (key, value) in body["metadata"][part].as_object().into_iter().flatten() {
            match value.as_str() {
                Some(value) => map.insert(key.clone(), value.to_owned()),
                None => map.remove(key),
            };
        }
    }
    world.writes += 1;
    let object = platform::pod_object(world, name, &pod);
    world.pods.insert(name.to_owned(), pod);
    Ok(object)
}
