use crate::provider::{Clients, Measured};
use serde_json::{Value, json};
use tidegate_crds::analysis::{AnalysisPhase, Metric};
use wiremock::matchers::{basic_auth, body_string_contains, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

fn answer(kind: &str, result: Value) -> ResponseTemplate {
    ResponseTemplate::new(200)
        .set_body_json(json!({"status": "success", "data": {"resultType": kind, "result": result}}))
}

fn vector(values: &[&str]) -> ResponseTemplate {
    answer("vector", values.iter().map(|v| json!({"metric": {}, "value": [1.5, v]})).collect())
}

fn metric(server: &MockServer, condition: &str, more: Value) -> Metric {
    let mut prometheus = json!({"address": server.uri(), "query": "up"});
    for (key, value) in more.as_object().into_iter().flatten() {
        prometheus[key] = value.clone();
    }
    let json = json!({"name": "m", "successCondition": condition, "provider": {"prometheus": prometheus}});
    serde_json::from_value(json).unwrap()
}

async fn measure(metric: &Metric) -> Measured {
    Clients::new(None).unwrap().measure(metric, &["s3cret".to_owned()]).await
}

#[tokio::test]
async fn values_are_shown_as_the_peers_show_them() {
    for (response, condition, phase, shown) in [
        (vector(&["0.5"]), "result[0] < 1", AnalysisPhase::Successful, "[0.5]"),
        (vector(&["0.5", "2"]), "all(result, # < 1)", AnalysisPhase::Failed, "[0.5,2]"),
        (vector(&["1e6", "0.000001"]), "result[0] == 1000000", AnalysisPhase::Successful, "[1000000,0.000001]"),
        (vector(&[]), "len(result) == 0", AnalysisPhase::Successful, "[]"),
        (vector(&["NaN", "+Inf"]), "isNaN(result[0]) && isInf(result[1])", AnalysisPhase::Successful, "[NaN,+Inf]"),
        (answer("scalar", json!([1, "0.25"])), "result == 0.25", AnalysisPhase::Successful, "0.25"),
        (
            answer(
                "matrix",
                json!([{"metric": {}, "values": [[1, "1"], [2, "2"]]}, {"metric": {}, "values": [[1, "3"]]}]),
            ),
            "sum(result) == 6",
            AnalysisPhase::Successful,
            "[1,2,3]",
        ),
    ] {
        let server = MockServer::start().await;
        Mock::given(method("POST")).and(path("/api/v1/query")).respond_with(response).expect(1).mount(&server).await;
        let measured = measure(&metric(&server, condition, json!({}))).await;
        let found = &measured.measurement;
        assert_eq!((found.phase, found.value.as_deref(), &found.message), (phase, Some(shown), &None), "{condition}");
        assert_eq!(measured.metadata["ResolvedPrometheusQuery"], "up");
        assert!(found.started_at.is_some() && found.finished_at.is_some());
    }
}

#[tokio::test]
async fn an_empty_result_is_explained() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(vector(&[])).mount(&server).await;
    let found = measure(&metric(&server, "result[0] > 0.9", json!({}))).await.measurement;
    assert_eq!((found.phase, found.value.as_deref()), (AnalysisPhase::Error, Some("[]")));
    assert!(found.message.unwrap().contains("empty list; ask len(result) > 0"));
}

#[tokio::test]
async fn warnings_are_kept() {
    let server = MockServer::start().await;
    let body =
        json!({"status": "success", "warnings": ["a", "b"], "data": {"resultType": "scalar", "result": [1, "1"]}});
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200).set_body_json(body)).mount(&server).await;
    let found = measure(&metric(&server, "result == 1", json!({}))).await.measurement;
    assert_eq!(found.metadata["warnings"], "\"a\", \"b\"");
}

#[tokio::test]
async fn errors_say_what_happened_and_no_secret() {
    let server = MockServer::start().await;
    let error = json!({"status": "error", "errorType": "bad_data", "error": "parse error near s3cret"});
    Mock::given(path("/api/v1/query"))
        .and(header("x-token", "s3cret"))
        .respond_with(ResponseTemplate::new(400).set_body_json(error))
        .mount(&server)
        .await;
    Mock::given(path("/broken/api/v1/query")).respond_with(ResponseTemplate::new(502)).mount(&server).await;
    Mock::given(path("/html/api/v1/query"))
        .respond_with(ResponseTemplate::new(200).set_body_string("<html>"))
        .mount(&server)
        .await;
    let token = json!([{"key": "x-token", "value": "s3cret"}]);
    for (more, message) in [
        (json!({"headers": token}), "bad_data: parse error near *****"),
        (json!({"address": format!("{}/broken", server.uri())}), "prometheus: received response code 502"),
        (json!({"address": "prometheus:9090"}), "prometheus address \"prometheus:9090\" is not a URL"),
        (json!({"address": null}), "prometheus address is not configured"),
        (json!({"timeout": -1}), "prometheus timeout should not be negative, found -1"),
        (
            json!({"address": "https://aps-workspaces.eu-west-1.amazonaws.com/x"}),
            "authentication by AWS Signature Version 4",
        ),
        (json!({"address": format!("{}/html", server.uri())}), "prometheus: the answer is not that of a query"),
        (json!({"address": "http://127.0.0.1:1/"}), "prometheus: can not reach 127.0.0.1"),
        (
            json!({"headers": [{"key": "x", "value": "s3cret\n"}]}),
            "the value of header \"x\" has characters that headers do not have",
        ),
    ] {
        let found = measure(&metric(&server, "result == 1", more.clone())).await.measurement;
        assert_eq!(found.phase, AnalysisPhase::Error, "{more}");
        let text = found.message.unwrap();
        assert!(text.starts_with(message), "{more}: {text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[tokio::test]
async fn a_slow_server_is_not_waited_for() {
    let server = MockServer::start().await;
    let slow = vector(&["1"]).set_delay(std::time::Duration::from_secs(30));
    Mock::given(method("POST")).respond_with(slow).mount(&server).await;
    let found = measure(&metric(&server, "true", json!({"timeout": 0}))).await.measurement;
    assert_eq!(found.message.as_deref(), Some("prometheus did not answer within 0 s"));
}

#[tokio::test]
async fn ranges_are_expressions_of_time() {
    let server = MockServer::start().await;
    Mock::given(path("/api/v1/query_range"))
        .and(body_string_contains("step=60"))
        .and(body_string_contains("start=1767225600&end=1767229200"))
        .respond_with(answer("matrix", json!([{"metric": {}, "values": [[1, "1"], [2, "3"]]}])))
        .mount(&server)
        .await;
    let range = |start: &str, end: &str, step: &str| json!({"rangeQuery": {"start": start, "end": end, "step": step}});
    let good = range("date(\"2026-01-01\")", "date(\"2026-01-01\") + duration(\"1h\")", "1m");
    let found = measure(&metric(&server, "mean(result) == 2", good)).await.measurement;
    assert_eq!((found.phase, found.value.as_deref()), (AnalysisPhase::Successful, Some("[1,3]")));
    for (start, end, step, message) in [
        ("", "now()", "1m", "rangeQuery.start must be set"),
        ("5", "now()", "1m", "rangeQuery.start `5`: expected a time, but got int"),
        ("now() -", "now()", "1m", "rangeQuery.start `now() -`: unexpected token EOF"),
        ("now()", "now()", "1 minute", "rangeQuery.step: \"1 minute\" is not a duration"),
        ("now()", "now()", "0", "rangeQuery.step must be more than 0"),
        ("now()", "result", "1m", "rangeQuery.end `result`: unknown name result"),
    ] {
        let found = measure(&metric(&server, "true", range(start, end, step))).await.measurement;
        let text = found.message.unwrap();
        assert!(text.starts_with(message), "{text}");
    }
}

#[tokio::test]
async fn it_authenticates() {
    let server = MockServer::start().await;
    Mock::given(path("/api/v1/query")).and(basic_auth("u", "s3cret")).respond_with(vector(&["1"])).mount(&server).await;
    let basic = json!({"authentication": {"basicAuth": {"username": "u", "password": "s3cret"}}});
    assert_eq!(measure(&metric(&server, "true", basic)).await.measurement.phase, AnalysisPhase::Successful);

    let server = MockServer::start().await;
    Mock::given(path("/token"))
        .and(body_string_contains("client_secret=s3cret"))
        .and(body_string_contains("scope=a+b"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"access_token": "t0k"})))
        .mount(&server)
        .await;
    // Credentials in the header are refused, so that they are tried in the form.
    Mock::given(path("/token"))
        .and(basic_auth("id", "s3cret"))
        .respond_with(ResponseTemplate::new(401))
        .expect(1)
        .mount(&server)
        .await;
    Mock::given(path("/api/v1/query"))
        .and(header("authorization", "Bearer t0k"))
        .respond_with(vector(&["1"]))
        .mount(&server)
        .await;
    let oauth2 = |url: String| json!({"authentication": {"oauth2": {"tokenUrl": url, "clientId": "id", "clientSecret": "s3cret", "scopes": ["a", "b"]}}});
    let good = measure(&metric(&server, "true", oauth2(format!("{}/token", server.uri())))).await.measurement;
    assert_eq!((good.phase, good.message), (AnalysisPhase::Successful, None));
    let bad = measure(&metric(&server, "true", oauth2(format!("{}/nothing", server.uri())))).await.measurement;
    let expected = "oauth2 token: received response code 404 from the token endpoint";
    assert_eq!(bad.message.as_deref(), Some(expected));
}

#[tokio::test]
async fn the_address_of_the_environment_is_the_default() {
    let server = MockServer::start().await;
    // Some servers take queries by GET only.
    Mock::given(method("GET")).and(path("/api/v1/query")).respond_with(vector(&["1"])).mount(&server).await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(405)).mount(&server).await;
    let mut asked = metric(&server, "result[0] == 1", json!({}));
    asked.provider.prometheus.as_mut().unwrap().address = None;
    let clients = Clients::new(Some(server.uri())).unwrap();
    assert_eq!(clients.measure(&asked, &[]).await.measurement.phase, AnalysisPhase::Successful);
}
