//! A pod in one line, with the status that kubectl shows for it.

use super::info::created;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};

/// A pod in one line.
#[derive(Clone, Debug, PartialEq)]
pub struct PodInfo {
    /// Name.
    pub name: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// kubectl's STATUS, such as `Running`, `ImagePullBackOff` or `Init:0/1`.
    pub status: String,
    /// Ready containers.
    pub ready: usize,
    /// Containers.
    pub containers: usize,
    /// Restarts of all containers.
    pub restarts: i32,
}

impl PodInfo {
    /// Looks at a pod.
    pub fn of(pod: &Pod) -> Self {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        Self {
            name: pod.metadata.name.clone().unwrap_or_default(),
            created: created(&pod.metadata),
            status: status(pod),
            ready: statuses.iter().filter(|container| container.ready && is_running(container)).count(),
            containers: pod.spec.as_ref().map_or(0, |spec| spec.containers.len()),
            restarts: statuses.iter().map(|container| container.restart_count).sum(),
        }
    }

    /// `ready:1/1`, with the restarts when there were any.
    pub fn info(&self) -> String {
        let ready = format!("ready:{}/{}", self.ready, self.containers);
        if self.restarts > 0 { format!("{ready},restarts:{}", self.restarts) } else { ready }
    }
}

fn is_running(container: &ContainerStatus) -> bool {
    container.state.as_ref().is_some_and(|state| state.running.is_some())
}

/// kubectl's STATUS column.
fn status(pod: &Pod) -> String {
    let Some(status) = &pod.status else { return "Unknown".to_owned() };
    let mut reason = status.reason.clone().or_else(|| status.phase.clone()).unwrap_or_else(|| "Unknown".to_owned());
    let initializing = initializing(pod, status);
    if let Some(text) = &initializing {
        reason.clone_from(text);
    } else {
        let mut running = false;
        for container in status.container_statuses.iter().flatten().rev() {
            match ended(container.state.as_ref()) {
                Some(text) => reason = text,
                None if container.ready && is_running(container) => running = true,
                None => {}
            }
        }
        // One container finished while another one serves.
        if reason == "Completed" && running {
            let ready = status
                .conditions
                .iter()
                .flatten()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True");
            reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
    if pod.metadata.deletion_timestamp.is_some() {
        reason = if status.reason.as_deref() == Some("NodeLost") { "Unknown" } else { "Terminating" }.to_owned();
    }
    reason
}

/// Why a container waits or ended; none for one that runs.
fn ended(state: Option<&ContainerState>) -> Option<String> {
    let state = state?;
    if let Some(reason) = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone()).filter(|r| !r.is_empty()) {
        return Some(reason);
    }
    let terminated = state.terminated.as_ref()?;
    Some(match (terminated.reason.clone().filter(|reason| !reason.is_empty()), terminated.signal) {
        (Some(reason), _) => reason,
        (None, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        (None, _) => format!("ExitCode:{}", terminated.exit_code),
    })
}

/// How far the init containers are, when they are not done.
fn initializing(pod: &Pod, status: &PodStatus) -> Option<String> {
    let specs = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    for (index, container) in status.init_container_statuses.iter().flatten().enumerate() {
        let sidecar =
            specs.iter().any(|spec| spec.name == container.name && spec.restart_policy.as_deref() == Some("Always"));
        let state = container.state.as_ref();
        if state.and_then(|state| state.terminated.as_ref()).is_some_and(|ended| ended.exit_code == 0)
            || (sidecar && container.started == Some(true))
        {
            continue;
        }
        return Some(match ended(state) {
            Some(reason) if reason != "PodInitializing" => format!("Init:{reason}"),
            _ => format!("Init:{index}/{}", specs.len()),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn info(pod: Value) -> PodInfo {
        PodInfo::of(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn shows_the_status_that_kubectl_shows() {
        let containers = json!([{"name": "a", "image": "i"}]);
        let with = |status: Value| info(json!({"spec": {"containers": containers}, "status": status}));
        let one = |state: Value, ready: bool| {
            json!({"phase": "Running", "containerStatuses": [
                {"name": "a", "image": "i", "imageID": "", "ready": ready, "restartCount": 2, "state": state}]})
        };
        assert_eq!(with(json!({"phase": "Pending"})).status, "Pending");
        let running = with(one(json!({"running": {}}), true));
        assert_eq!((running.status.as_str(), running.info().as_str()), ("Running", "ready:1/1,restarts:2"));
        assert_eq!(with(one(json!({"waiting": {"reason": "CrashLoopBackOff"}}), false)).status, "CrashLoopBackOff");
        assert_eq!(with(one(json!({"terminated": {"exitCode": 3}}), false)).status, "ExitCode:3");
        assert_eq!(with(json!({"phase": "Failed", "reason": "Evicted"})).status, "Evicted");
    }

    #[test]
    fn shows_init_containers_and_deletion() {
        let pod = |state: Value| {
            info(json!({
                "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]},
                "status": {"phase": "Pending", "initContainerStatuses": [
                    {"name": "i", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"terminated": {"exitCode": 0}}},
                    {"name": "j", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]},
            }))
        };
        assert_eq!(pod(json!({"running": {}})).status, "Init:1/2");
        assert_eq!(pod(json!({"waiting": {"reason": "ErrImagePull"}})).status, "Init:ErrImagePull");
        let gone =
            info(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}}));
        assert_eq!(gone.status, "Terminating");
    }
}
