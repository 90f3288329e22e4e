use super::*;

fn rollout(name: &str, weight: i64) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": "nginx"}]},
            },
            "strategy": {"canary": {"steps": [{"setWeight": weight}]}},
        },
    })
}

const WEIGHT: &str = "spec.strategy.canary.steps[0].setWeight: Invalid value: 101: must be between 0 and 100";

fn ask(operation: &str, object: Value, old: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5", "operation": operation, "name": object["metadata"]["name"], "namespace": "shop",
            "object": object, "oldObject": old,
        },
    })
}

fn response(asked: &Value) -> Value {
    let answer = review(asked).unwrap();
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
    assert_eq!(answer["response"]["uid"], "705ab4f5");
    answer["response"].clone()
}

fn allowed(asked: &Value) -> bool {
    response(asked)["allowed"].as_bool().unwrap()
}

fn refusal_of(asked: &Value) -> String {
    let response = response(asked);
    assert_eq!(response["allowed"], false, "{response}");
    response["status"]["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_mistake_is_refused_with_field_value_and_expectation() {
    assert_eq!(response(&ask("CREATE", rollout("web", 20), Value::Null)), json!({"uid": "705ab4f5", "allowed": true}));
    let response = response(&ask("CREATE", rollout("web", 101), Value::Null));
    assert_eq!(response["allowed"], false);
    let status = &response["status"];
    assert_eq!((&status["code"], &status["reason"]), (&json!(422), &json!("Invalid")));
    assert_eq!(status["message"], format!("The Rollout \"web\" is invalid: {WEIGHT}"));
    assert_eq!(
        status["details"],
        json!({
            "group": "argoproj.io", "kind": "Rollout", "name": "web",
            "causes": [{
                "field": "spec.strategy.canary.steps[0].setWeight",
                "message": "Invalid value: 101: must be between 0 and 100",
            }],
        })
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let mut object = rollout("web", 101);
    object["spec"]["replicas"] = json!(-1);
    let said = refusal_of(&ask("CREATE", object, Value::Null));
    assert!(said.contains("spec.replicas: Invalid value: -1") && said.contains(WEIGHT), "{said}");
}

#[test]
fn what_is_named_may_come_later() {
    let mut object = rollout("web", 20);
    object["spec"]["strategy"]["canary"] = json!({
        "stableService": "later", "canaryService": "later-canary",
        "trafficRouting": {"nginx": {"stableIngress": "later"}},
        "steps": [{"analysis": {"templates": [{"templateName": "later"}]}}],
    });
    assert!(allowed(&ask("CREATE", object, Value::Null)));
    let mut object = rollout("web", 20);
    let spec = object["spec"].as_object_mut().unwrap();
    spec.remove("template");
    spec.remove("selector");
    spec.insert("workloadRef".into(), json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "later"}));
    assert!(allowed(&ask("CREATE", object, Value::Null)));
}

#[test]
fn only_what_is_new_is_refused_on_an_update() {
    let bad = rollout("web", 101);
    let with = |base: &Value, pointer: &str, value: Value| {
        let mut object = base.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[key] = value;
        object
    };
    let finalizers = with(&bad, "/metadata/finalizers", json!(["a/b"]));
    let status = with(&bad, "/status", json!({"phase": "Degraded"}));
    // Nothing but metadata or status: not even a warning.
    for new in [with(&bad, "/metadata/labels", json!({"a": "b"})), finalizers.clone(), status] {
        assert_eq!(response(&ask("UPDATE", new.clone(), bad.clone())), json!({"uid": "705ab4f5", "allowed": true}));
        assert_eq!(response(&ask("UPDATE", bad.clone(), new)), json!({"uid": "705ab4f5", "allowed": true}));
    }
    // Another part of the spec: the old problem is told, and let through.
    let scaled = response(&ask("UPDATE", with(&bad, "/spec/replicas", json!(3)), bad.clone()));
    assert_eq!(scaled["allowed"], true);
    assert_eq!(scaled["warnings"], json!([format!("still invalid: {WEIGHT}")]));
    // One more problem: only that one is told.
    let worse = refusal_of(&ask("UPDATE", with(&bad, "/spec/replicas", json!(-3)), bad.clone()));
    assert!(worse.contains("spec.replicas: Invalid value: -3") && !worse.contains("setWeight"), "{worse}");
    // The same field, wrong in another way.
    let other = refusal_of(&ask("UPDATE", rollout("web", 102), bad.clone()));
    assert!(other.contains("setWeight: Invalid value: 102"), "{other}");
    assert_eq!(refusal_of(&ask("UPDATE", bad.clone(), rollout("web", 20))).matches(WEIGHT).count(), 1);
    assert!(allowed(&ask("UPDATE", rollout("web", 20), bad.clone())), "mended");
    // A deleted object goes, whatever its spec.
    let deleted = with(&finalizers, "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
    assert!(allowed(&ask("UPDATE", with(&deleted, "/spec/replicas", json!(-3)), deleted)));
    // A creation has nothing to compare with.
    assert!(!allowed(&ask("CREATE", bad.clone(), bad)));
}

#[test]
fn what_is_not_asked_about_is_let_through() {
    let bad = || rollout("web", 101);
    for operation in ["DELETE", "CONNECT"] {
        assert!(allowed(&ask(operation, Value::Null, bad())));
    }
    let mut scale = ask("UPDATE", bad(), rollout("web", 20));
    scale["request"]["subResource"] = "status".into();
    assert!(allowed(&scale));
    let mut other = bad();
    other["apiVersion"] = "example.com/v1".into();
    assert!(allowed(&ask("CREATE", other, Value::Null)));
    let mut unknown = bad();
    unknown["kind"] = "Workflow".into();
    assert!(allowed(&ask("CREATE", unknown, Value::Null)));
}

#[test]
fn a_dry_run_gets_the_same_answer() {
    let mut asked = ask("CREATE", rollout("web", 101), Value::Null);
    let real = response(&asked);
    asked["request"]["dryRun"] = true.into();
    assert_eq!(response(&asked), real);
}

#[test]
fn what_a_controller_made_of_a_template_is_never_refused() {
    for kind in ["AnalysisRun", "Experiment"] {
        let mut object = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": kind, "metadata": {"name": "run"}, "spec": {"metrics": []},
        });
        assert!(!allowed(&ask("CREATE", object.clone(), Value::Null)), "{kind}");
        object["metadata"]["ownerReferences"] = json!([{"kind": "Rollout", "name": "web", "controller": true}]);
        assert!(allowed(&ask("CREATE", object, Value::Null)), "{kind}");
    }
    let mut owned = rollout("web", 101);
    owned["metadata"]["ownerReferences"] = json!([{"kind": "Shop", "name": "web", "controller": true}]);
    assert!(!allowed(&ask("CREATE", owned, Value::Null)), "somebody else's operator writes Rollouts");
}

#[test]
fn what_is_no_review_is_said() {
    let good = ask("CREATE", rollout("web", 20), Value::Null);
    let with = |pointer: &str, value: Value| {
        let mut asked = good.clone();
        *asked.pointer_mut(pointer).unwrap() = value;
        asked
    };
    for (asked, words) in [
        (json!(null), "found apiVersion \"\" and kind \"\""),
        (json!([1]), "expected \"admission.k8s.io/v1\" and \"AdmissionReview\""),
        (with("/apiVersion", json!("admission.k8s.io/v1beta1")), "found apiVersion \"admission.k8s.io/v1beta1\""),
        (with("/request", json!("x")), "request: found a text, expected an object"),
        (with("/request/uid", json!("")), "request.uid: found a text, expected a text that is not empty"),
        (with("/request/uid", json!(7)), "request.uid: found a number"),
        (with("/request/operation", json!(null)), "request.operation: found nothing"),
        (with("/request/object", json!(null)), "request.object: found nothing"),
        (with("/request/object", json!([])), "request.object: found a list"),
    ] {
        let error = review(&asked).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
