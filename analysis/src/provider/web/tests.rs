use crate::provider::Clients;
use serde_json::{Value, json};
use tidegate_crds::analysis::{AnalysisPhase, Measurement, Metric};
use wiremock::matchers::{body_json, body_string, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

fn metric(server: &MockServer, condition: &str, more: Value) -> Metric {
    let mut web = json!({"url": format!("{}/check", server.uri())});
    for (key, value) in more.as_object().into_iter().flatten() {
        web[key] = value.clone();
    }
    let json = json!({"name": "m", "successCondition": condition, "provider": {"web": web}});
    serde_json::from_value(json).unwrap()
}

async fn measure(metric: &Metric) -> Measurement {
    Clients::new(None).unwrap().measure(metric, &["s3cret".to_owned()]).await.measurement
}

#[tokio::test]
async fn values_have_their_type() {
    let body =
        json!({"ok": true, "n": 3, "f": 0.5, "big": 1e21, "text": "fine", "list": [{"v": 1}, {"v": 2}], "none": null});
    for (path_text, condition, phase, shown) in [
        ("{$.ok}", "result", AnalysisPhase::Successful, "true"),
        ("{$.n}", "result == 3", AnalysisPhase::Successful, "3"),
        ("{$.f}", "result > 1", AnalysisPhase::Failed, "0.5"),
        ("{$.big}", "result > 1", AnalysisPhase::Successful, "1e+21"),
        ("{$.text}", "result == \"fine\"", AnalysisPhase::Successful, "\"fine\""),
        ("{$.list}", "all(result, .v > 0)", AnalysisPhase::Successful, r#"[{"v":1},{"v":2}]"#),
        ("{$.list[*].v}", "result == 1", AnalysisPhase::Successful, "1"),
        ("{$.none}", "default(result, 1) == 1", AnalysisPhase::Successful, "null"),
        ("", "result.ok && result.n == 3", AnalysisPhase::Successful, ""),
    ] {
        let server = MockServer::start().await;
        let response = ResponseTemplate::new(200).set_body_json(&body);
        Mock::given(method("GET")).and(path("/check")).respond_with(response).mount(&server).await;
        let found = measure(&metric(&server, condition, json!({"jsonPath": path_text}))).await;
        assert_eq!((found.phase, &found.message), (phase, &None), "{path_text}");
        let value = found.value.unwrap();
        assert!(value == shown || shown.is_empty(), "{path_text}: {value}");
    }
}

#[tokio::test]
async fn what_is_no_json_is_a_text() {
    let server = MockServer::start().await;
    Mock::given(path("/check")).respond_with(ResponseTemplate::new(200).set_body_string("pong")).mount(&server).await;
    let found = measure(&metric(&server, "result == \"pong\"", json!({}))).await;
    assert_eq!((found.phase, found.value.as_deref()), (AnalysisPhase::Successful, Some("\"pong\"")));
}

#[tokio::test]
async fn requests_are_as_the_metric_says() {
    let server = MockServer::start().await;
    let fine = || ResponseTemplate::new(201).set_body_json(json!(1));
    Mock::given(method("POST"))
        .and(body_json(json!({"a": [1]})))
        .and(header("content-type", "application/json"))
        .and(header("x-token", "s3cret"))
        .respond_with(fine())
        .expect(1)
        .mount(&server)
        .await;
    Mock::given(method("PUT")).and(body_string("text")).respond_with(fine()).expect(1).mount(&server).await;
    let post = json!({"method": "POST", "jsonBody": {"a": [1]}, "headers": [{"key": "x-token", "value": "s3cret"}]});
    assert_eq!(measure(&metric(&server, "result == 1", post)).await.phase, AnalysisPhase::Successful);
    let put = json!({"method": "PUT", "body": "text"});
    assert_eq!(measure(&metric(&server, "result == 1", put)).await.phase, AnalysisPhase::Successful);
}

#[tokio::test]
async fn errors_say_what_happened_and_no_secret() {
    let server = MockServer::start().await;
    Mock::given(path("/check"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"a": "s3cret"})))
        .mount(&server)
        .await;
    Mock::given(path("/bad")).respond_with(ResponseTemplate::new(500).set_body_string("s3cret")).mount(&server).await;
    for (more, message) in [
        (json!({"url": format!("{}/bad?token=s3cret", server.uri())}), "received non 2xx response code: 500"),
        (json!({"jsonPath": "{$.b}"}), "Could not find JSONPath in body: b is not found"),
        (json!({"jsonPath": "{$.a"}), "jsonPath \"{$.a\": unclosed action"),
        (json!({"method": "DELETE"}), "method is \"DELETE\", expected GET, POST or PUT"),
        (json!({"body": "a", "jsonBody": {}}), "body and jsonBody are both set, expected one of them"),
        (json!({"url": "nowhere"}), "url is not valid: relative URL without a base"),
        (json!({"url": "http://127.0.0.1:1/?token=s3cret"}), "error sending request"),
    ] {
        let found = measure(&metric(&server, "true", more.clone())).await;
        assert_eq!(found.phase, AnalysisPhase::Error, "{more}");
        let text = found.message.unwrap();
        assert!(text.starts_with(message) && !text.contains("s3cret"), "{more}: {text}");
    }
    let found = measure(&metric(&server, "result.a > 1", json!({}))).await;
    assert_eq!(found.value.as_deref(), Some(r#"{"a":"*****"}"#));
}

#[tokio::test]
async fn long_answers_are_not_read_to_the_end() {
    let server = MockServer::start().await;
    let long = ResponseTemplate::new(200).set_body_string("x".repeat(5 << 20));
    Mock::given(path("/check")).respond_with(long).mount(&server).await;
    let found = measure(&metric(&server, "true", json!({}))).await;
    assert_eq!(found.message.as_deref(), Some("the answer is longer than 4 MiB"));
}
