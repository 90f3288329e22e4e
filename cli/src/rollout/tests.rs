//! What the commands write to an API server.

use super::{apply, patch};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tidegate_crds::experiment::Experiment;
use tidegate_crds::rollout::Rollout;
use wiremock::matchers::{body_json, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

async fn client(server: &MockServer) -> Client {
    // The programs choose one; a test process may have two in its dependencies.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::try_from(Config::new(server.uri().parse().unwrap())).unwrap()
}

fn merge_patch(at: &str, body: Value) -> wiremock::MockBuilder {
    Mock::given(method("PATCH"))
        .and(path(at))
        .and(header("content-type", "application/merge-patch+json"))
        .and(body_json(body))
}

fn refusal(code: u16, reason: &str) -> ResponseTemplate {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason, "reason": reason, "code": code,
    });
    ResponseTemplate::new(code).set_body_json(status)
}

const ROLLOUT: &str = "/apis/argoproj.io/v1alpha1/namespaces/shop/rollouts/web";
const EXPERIMENT: &str = "/apis/argoproj.io/v1alpha1/namespaces/shop/experiments/web";

#[tokio::test]
async fn the_status_is_patched_on_its_subresource() {
    let server = MockServer::start().await;
    merge_patch(&format!("{ROLLOUT}/status"), json!({"status": {"abort": true}}))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"metadata": {"name": "web"}})))
        .expect(1)
        .mount(&server)
        .await;
    let api: Api<Rollout> = Api::namespaced(client(&server).await, "shop");
    apply(&api, "web", &patch::abort()).await.unwrap();
}

#[tokio::test]
async fn without_a_subresource_the_object_is_patched() {
    let server = MockServer::start().await;
    let body = json!({"status": null});
    merge_patch(&format!("{EXPERIMENT}/status"), body.clone())
        .respond_with(refusal(404, "NotFound"))
        .expect(1)
        .mount(&server)
        .await;
    merge_patch(EXPERIMENT, body)
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"metadata": {"name": "web"}})))
        .expect(1)
        .mount(&server)
        .await;
    let api: Api<Experiment> = Api::namespaced(client(&server).await, "shop");
    apply(&api, "web", &patch::retry_experiment()).await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_told_and_nothing_else_is_tried() {
    let server = MockServer::start().await;
    merge_patch(&format!("{ROLLOUT}/status"), json!({"status": {"abort": true}}))
        .respond_with(refusal(403, "rollouts.argoproj.io \"web\" is forbidden"))
        .expect(1)
        .mount(&server)
        .await;
    let api: Api<Rollout> = Api::namespaced(client(&server).await, "shop");
    let error = apply(&api, "web", &patch::abort()).await.unwrap_err();
    assert_eq!(crate::failure::text(&error), "rollouts.argoproj.io \"web\" is forbidden");
}

#[tokio::test]
async fn an_object_that_does_not_exist_is_an_error_in_the_api_servers_words() {
    let server = MockServer::start().await;
    Mock::given(method("PATCH"))
        .respond_with(refusal(404, "rollouts.argoproj.io \"web\" not found"))
        .expect(2)
        .mount(&server)
        .await;
    let api: Api<Rollout> = Api::namespaced(client(&server).await, "shop");
    let error = apply(&api, "web", &patch::abort()).await.unwrap_err();
    assert_eq!(crate::failure::text(&error), "rollouts.argoproj.io \"web\" not found");
}

#[tokio::test]
async fn the_spec_is_patched_before_the_status() {
    let server = MockServer::start().await;
    let done = || ResponseTemplate::new(200).set_body_json(json!({"metadata": {"name": "web"}}));
    merge_patch(ROLLOUT, json!({"spec": {"paused": false}})).respond_with(done()).expect(1).mount(&server).await;
    merge_patch(&format!("{ROLLOUT}/status"), json!({"status": {"promoteFull": true}}))
        .respond_with(done())
        .expect(1)
        .mount(&server)
        .await;
    let rollout: Rollout = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"paused": true, "strategy": {"canary": {}}},
        "status": {"currentPodHash": "new", "stableRS": "old"},
    }))
    .unwrap();
    let api: Api<Rollout> = Api::namespaced(client(&server).await, "shop");
    apply(&api, "web", &patch::promote(&rollout, patch::Promotion::Full).unwrap()).await.unwrap();
    let order: Vec<String> =
        server.received_requests().await.unwrap().iter().map(|request| request.url.path().to_owned()).collect();
    assert_eq!(order, [ROLLOUT.to_owned(), format!("{ROLLOUT}/status")]);
}

#[tokio::test]
async fn an_unreachable_api_server_is_named_as_such() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = Config::new(format!("http://{address}").parse().unwrap());
    let api: Api<ConfigMap> = Api::namespaced(Client::try_from(config).unwrap(), "shop");
    let error = anyhow::Error::new(api.get("a").await.unwrap_err());
    assert!(crate::failure::text(&error).to_lowercase().contains("connect"), "{error:#}");
}
