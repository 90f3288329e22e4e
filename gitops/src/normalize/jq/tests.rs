use super::Filter;
use proptest::prelude::*;
use serde_json::{Value, json};

fn sample() -> Value {
    json!({
        "spec": {
            "replicas": 3,
            "template": {"spec": {
                "containers": [
                    {"name": "a", "resources": {"limits": {"cpu": 1}}, "env": [{"name": "X", "value": "1"}, {"name": "Y"}]},
                    {"name": "b", "image": "img:1"},
                ],
                "initContainers": [{"name": "istio-init"}],
            }},
            "labels": {"a.b/c": "x", "plain": "y"},
        },
        "webhooks": [{"clientConfig": {"caBundle": "AAA"}}, {"clientConfig": {}}],
    })
}

fn paths(expression: &str) -> Vec<String> {
    let filter = Filter::compile(expression).unwrap_or_else(|e| panic!("{e}"));
    filter.paths(&sample()).iter().map(ToString::to_string).collect()
}

#[test]
fn names_places() {
    let containers = "/spec/template/spec/containers";
    let cases: &[(&str, &[&str])] = &[
        (".spec.replicas", &["/spec/replicas"]),
        (".spec[\"replicas\"]", &["/spec/replicas"]),
        (".spec.\"replicas\"?", &["/spec/replicas"]),
        (".[\"spec\"].replicas", &["/spec/replicas"]),
        (".spec.labels.\"a.b/c\"", &["/spec/labels/a.b~1c"]),
        (".spec | .replicas, .labels.plain", &["/spec/replicas", "/spec/labels/plain"]),
        (".spec.replicas, .spec.missing", &["/spec/replicas"]),
        (".webhooks[]?.clientConfig.caBundle", &["/webhooks/0/clientConfig/caBundle"]),
        (".webhooks.[0].clientConfig", &["/webhooks/0/clientConfig"]),
        (".webhooks[-1]", &["/webhooks/1"]),
        (".webhooks[1:]", &["/webhooks/1"]),
        (".webhooks[:-1]", &["/webhooks/0"]),
        (".webhooks[5]", &[]),
        (".missing.foo.bar", &[]),
        (".missing[].foo", &[]),
        (".spec.replicas.x", &[]),
        (".spec.template.spec.containers[] | select(.name == \"b\") | .image", &["C/1/image"]),
        (
            ".spec.template.spec.containers[] | select(.name == \"a\").env[] | select(.name == \"X\").value",
            &["C/0/env/0/value"],
        ),
        (".spec.template.spec.containers[] | select(.name != \"a\")", &["C/1"]),
        (".spec.template.spec.containers[] | select(.name | test(\"^[ab]$\")) | .name", &["C/0/name", "C/1/name"]),
        (".spec.template.spec.containers[] | select(.name | IN(\"b\", \"c\"))", &["C/1"]),
        (".spec.template.spec.containers[] | select(has(\"image\"))", &["C/1"]),
        (".spec.template.spec.containers[] | select(has(\"image\") | not)", &["C/0"]),
        (".spec.template.spec.containers[] | select(.image == null)", &["C/0"]),
        (".spec.template.spec.containers[] | select((.env | length) > 1 and .name == \"a\") | .env", &["C/0/env"]),
        (".spec.template.spec.containers[] | select(.env // [] | any(.name == \"Y\"))", &["C/0"]),
        (
            ".spec.template.spec.initContainers[] | select(.name | startswith(\"istio\"))",
            &["/spec/template/spec/initContainers/0"],
        ),
        (".. | select(. == \"AAA\")", &["/webhooks/0/clientConfig/caBundle"]),
        ("first(.webhooks[])", &["/webhooks/0"]),
        ("(.spec, .webhooks[0]) | .replicas?", &["/spec/replicas"]),
        ("empty", &[]),
        (".", &[]),
        (".spec.labels[]", &["/spec/labels/a.b~1c", "/spec/labels/plain"]),
    ];
    for (expression, expected) in cases {
        let expected: Vec<String> = expected
            .iter()
            .map(|p| p.strip_prefix('C').map_or_else(|| (*p).to_owned(), |rest| format!("{containers}{rest}")))
            .collect();
        assert_eq!(paths(expression), expected, "{expression}");
    }
}

#[test]
fn says_what_is_wrong() {
    for (expression, position, found) in [
        ("", 1, "the end"),
        (".spec.", 6, "`.`"),
        (".spec |", 8, "the end"),
        (".spec)", 6, "`)`"),
        (".a[", 4, "the end"),
        (".a[\"x", 4, "an open text"),
        (".a + 1", 4, "`+`"),
        ("map(.a)", 1, "`map`"),
        (".a | to_entries", 6, "`to_entries`"),
        ("{a: .b}", 1, "`{`"),
        ("select .a", 8, "`.a`"),
        (".a[1.5]", 4, "the number 1.5"),
        (".a #x", 4, "'#'"),
        ("spec.replicas", 1, "`spec`"),
    ] {
        let error = match Filter::compile(expression) {
            Err(error) => error,
            Ok(filter) => panic!("{expression}: {filter:?}"),
        };
        assert_eq!((error.position, error.found.as_str()), (position, found), "{expression}: {error}");
        assert!(error.to_string().contains(&format!("{expression:?}")), "{error}");
    }
    assert!(Filter::compile(&"(".repeat(10_000)).is_err());
}

proptest! {
    #[test]
    fn any_text_is_answered(expression in "[.a-c\\[\\]()|,?\"0-2 =<>!/-]{0,24}") {
        if let Ok(filter) = Filter::compile(&expression) {
            let value = sample();
            for path in filter.paths(&value) {
                prop_assert!(path.get(&value).is_some());
            }
        }
    }
}
