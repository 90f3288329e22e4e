use super::*;
use serde_json::json;

fn found(kind: &str, spec: Value) -> Vec<String> {
    let object = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": spec});
    problems(&object).iter().map(Finding::to_string).collect()
}

fn web(fields: Value) -> Value {
    let mut metric = json!({"name": "m", "provider": {"web": {"url": "http://x"}}});
    for (key, value) in fields.as_object().unwrap() {
        metric[key] = value.clone();
    }
    metric
}

#[test]
fn objects_that_are_right_have_no_problems() {
    let pods = json!({
        "metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]},
    });
    let selector = json!({"matchLabels": {"app": "a"}});
    for (kind, spec) in [
        ("Rollout", json!({"selector": selector, "template": pods, "strategy": {"blueGreen": {"activeService": "a"}}})),
        ("Experiment", json!({"templates": [{"name": "one", "selector": selector, "template": pods}]})),
        ("AnalysisTemplate", json!({"metrics": [web(json!({"successCondition": "result > {{args.x}}"}))]})),
        ("AnalysisTemplate", json!({"templates": [{"templateName": "elsewhere"}]})),
        ("AnalysisTemplate", json!({"args": [{"name": "x"}], "metrics": [web(json!({"count": "{{args.x}}"}))]})),
        // Another template that is named beside this one may have the metric.
        ("AnalysisTemplate", json!({"metrics": [web(json!({}))], "dryRun": [{"metricName": "other.*"}]})),
        ("ClusterAnalysisTemplate", json!({"metrics": [web(json!({"interval": "1m"}))]})),
        ("AnalysisRun", json!({"metrics": [web(json!({}))], "dryRun": [{"metricName": "^m$"}]})),
        (
            "AnalysisRun",
            json!({
                "args": [
                    {"name": "n", "value": "3"},
                    {"name": "s", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
                ],
                "metrics": [web(json!({
                    "count": "{{args.n}}", "interval": "1m", "successCondition": "result > {{args.s}}",
                }))],
            }),
        ),
        (
            "Application",
            json!({"source": {"repoURL": "https://x/a", "path": "."}, "destination": {"name": "in-cluster"}}),
        ),
        (
            "Application",
            json!({
                "sources": [{"repoURL": "https://x/a", "ref": "values"}, {"repoURL": "https://x/b", "chart": "c"}],
                "destination": {"server": "https://kubernetes.default.svc", "name": ""}, "project": "comes-later",
            }),
        ),
        ("AppProject", json!({"syncWindows": [{"kind": "deny", "schedule": "0 22 * * *", "duration": "1h"}]})),
        ("AppProject", json!({})),
        ("ApplicationSet", json!({"generators": []})),
        ("Workflow", json!({"anything": 1})),
    ] {
        assert_eq!(found(kind, spec.clone()), Vec::<String>::new(), "{kind} {spec}");
    }
}

#[test]
fn every_problem_names_its_field() {
    let arg = |value: &str| json!({"name": "x", "value": value});
    for (kind, spec, expected) in [
        ("Rollout", json!({"strategy": {}}), "spec.selector: Required value: the labels that select the pods"),
        ("Rollout", json!({"strategy": {}}), "spec.strategy: Required value: one of canary and blueGreen"),
        ("Rollout", json!({"replicas": "two"}), "spec.replicas: Invalid value: "),
        ("Experiment", json!({}), "spec.templates: Required value: at least one variant"),
        ("Experiment", json!({"duration": 5, "templates": []}), "spec.duration: invalid type"),
        ("AnalysisTemplate", json!({}), "spec.metrics: no metrics specified"),
        (
            "AnalysisTemplate",
            json!({"metrics": [web(json!({"interval": "soon"}))]}),
            "spec.metrics[0].interval: \"soon\" is not a duration",
        ),
        (
            "ClusterAnalysisTemplate",
            json!({"metrics": [web(json!({"successCondition": "result >"}))]}),
            "spec.metrics[0].successCondition: unexpected token EOF",
        ),
        (
            "AnalysisTemplate",
            json!({"metrics": [web(json!({})), web(json!({}))]}),
            "spec.metrics[1].name: duplicate name 'm', which metrics[0] has too",
        ),
        (
            "AnalysisTemplate",
            json!({"metrics": [web(json!({}))], "dryRun": [{"metricName": "("}]}),
            "spec.dryRun[0]: metricName \"(\" is not a regular expression",
        ),
        (
            "AnalysisTemplate",
            json!({"metrics": [web(json!({}))], "dryRun": [{"metricName": "m"}, {"metricName": "m"}]}),
            "spec.dryRun: two Dry-Run metric rules have the same name 'm'",
        ),
        (
            "AnalysisTemplate",
            json!({
                "metrics": [web(json!({}))],
                "measurementRetention": [{"metricName": "m", "limit": 1}, {"metricName": "m", "limit": 2}],
            }),
            "spec.measurementRetention: two Measurement Retention metric rules have the same name 'm'",
        ),
        (
            "AnalysisTemplate",
            json!({"metrics": [web(json!({}))], "args": [arg("1"), arg("2")]}),
            "spec.args: Argument `x` specified multiple times with different values: '1', '2'",
        ),
        ("AnalysisRun", json!({"metrics": [web(json!({}))], "args": [{"name": "x"}]}), "spec.args: args.x was not"),
        (
            "AnalysisRun",
            json!({"metrics": [web(json!({"successCondition": "result > {{args.y}}"}))], "args": [arg("1")]}),
            "spec.metrics[0]: metric \"m\": failed to resolve {{args.y}}",
        ),
        (
            "AnalysisRun",
            json!({"metrics": [web(json!({"count": "{{args.x}}"}))], "args": [arg("many")]}),
            "spec.metrics[0].count: must be a whole number, found \"many\"",
        ),
        (
            "AnalysisRun",
            json!({"metrics": [web(json!({}))], "dryRun": [{"metricName": "other"}]}),
            "spec.dryRun[0]: Rule didn't match any metric name(s)",
        ),
        ("Application", json!({"destination": {"name": "x"}}), "spec.source: spec.source.repoURL and either"),
        (
            "Application",
            json!({"source": {"repoURL": "https://x/a"}, "destination": {"name": "x"}}),
            "spec.source: source https://x/a: path, chart and ref are all empty",
        ),
        (
            "Application",
            json!({"sources": [{"repoURL": "https://x/a", "path": "."}, {"path": "."}], "destination": {"name": "x"}}),
            "spec.sources[1]: repoURL is empty",
        ),
        (
            "Application",
            json!({"source": {"repoURL": "https://x/a", "path": "."}, "destination": {"name": "x", "server": "y"}}),
            "spec.destination: application destination can't have both name and server defined",
        ),
        (
            "Application",
            json!({"source": {"repoURL": "https://x/a", "path": "."}, "destination": {"namespace": "n"}}),
            "spec.destination: Destination server missing from app spec",
        ),
        (
            "AppProject",
            json!({"syncWindows": [
                {"kind": "allow", "schedule": "0 0 * * *", "duration": "1h"},
                {"kind": "allow", "schedule": "whenever", "duration": "1h"},
            ]}),
            "spec.syncWindows[1].schedule: sync window schedule: found \"whenever\", expected five fields of cron",
        ),
        (
            "AppProject",
            json!({"syncWindows": [{"kind": "maybe"}]}),
            "spec.syncWindows[0].kind: sync window kind: found",
        ),
        ("ApplicationSet", json!({"generators": 5}), "spec.generators: invalid type"),
    ] {
        let found = found(kind, spec.clone());
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{kind} {spec}: {found:#?}");
    }
}

#[test]
fn status_is_not_looked_at() {
    let object = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisRun", "metadata": {"name": "a"},
        "spec": {"metrics": [web(json!({}))]}, "status": {"metricResults": "nonsense"},
    });
    assert_eq!(problems(&object), []);
}
