//! `ignoreDifferences`: fields that do not count, and how to leave them alone when applying.

use super::jq::Filter;
use super::managed_fields;
use super::path::{self, Path, Segment};
use crate::glob;
use crate::object::Key;
use serde_json::{Map, Value};
use tidegate_crds::application::IgnoreDifferences;

/// Compiled rules.
#[derive(Clone, Debug, Default)]
pub struct IgnoreRules {
    rules: Vec<Rule>,
}

/// One compiled rule.
#[derive(Clone, Debug, Default)]
struct Rule {
    group: String,
    kind: String,
    name: Option<String>,
    namespace: Option<String>,
    pointers: Vec<String>,
    filters: Vec<Filter>,
    managers: Vec<String>,
    /// The fields belong to somebody else by design, so they are kept when applying, whatever the options say.
    owned: bool,
}

impl Rule {
    fn applies_to(&self, key: &Key) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| w.is_empty() || w == found);
        glob::matches(&self.group, &key.group)
            && glob::matches(&self.kind, &key.kind)
            && is(&self.name, &key.name)
            && is(&self.namespace, &key.namespace)
    }

    /// The places that the pointers and expressions name in `object`.
    fn named(&self, object: &Value) -> Vec<Path> {
        let pointed = self.pointers.iter().filter_map(|pointer| path::resolve_pointer(pointer, object));
        pointed.chain(self.filters.iter().flat_map(|filter| filter.paths(object))).collect()
    }
}

impl IgnoreRules {
    /// Compiles the rules of an application. A part that cannot be used is left out and told; the rest stands.
    pub fn compile(rules: &[IgnoreDifferences]) -> (Self, Vec<String>) {
        let mut errors = Vec::new();
        let mut compiled = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let mut filters = Vec::new();
            for (at, expression) in rule.jq_path_expressions.iter().enumerate() {
                match Filter::compile(expression) {
                    Ok(filter) => filters.push(filter),
                    Err(e) => errors.push(format!("spec.ignoreDifferences[{index}].jqPathExpressions[{at}]: {e}")),
                }
            }
            for (at, pointer) in rule.json_pointers.iter().enumerate().filter(|(_, p)| !p.starts_with('/')) {
                errors.push(format!(
                    "spec.ignoreDifferences[{index}].jsonPointers[{at}]: found {pointer:?}, expected a JSON pointer such as /spec/replicas"
                ));
            }
            compiled.push(Rule {
                group: rule.group.clone().unwrap_or_default(),
                kind: rule.kind.clone(),
                name: rule.name.clone(),
                namespace: rule.namespace.clone(),
                pointers: rule.json_pointers.clone(),
                filters,
                managers: rule.managed_fields_managers.clone(),
                owned: false,
            });
        }
        (Self { rules: compiled }, errors)
    }

    /// Adds fields of one object that somebody else owns by design: they never differ and are never applied over.
    ///
    /// # Errors
    /// When one of `expressions` cannot be compiled.
    pub fn add_owned(&mut self, key: &Key, expressions: &[String]) -> Result<(), super::jq::InvalidFilter> {
        let filters = expressions.iter().map(|e| Filter::compile(e)).collect::<Result<_, _>>()?;
        self.rules.push(Rule {
            group: key.group.clone(),
            kind: key.kind.clone(),
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            filters,
            owned: true,
            ..Rule::default()
        });
        Ok(())
    }

    /// Whether a rule for this object asks for field managers, which only an object with `managedFields` can answer.
    pub fn needs_managed_fields(&self, key: &Key) -> bool {
        self.rules.iter().any(|rule| !rule.managers.is_empty() && rule.applies_to(key))
    }

    /// Removes what the rules name from all sides of a comparison. `owners` is the live object with its
    /// `managedFields`.
    pub fn remove(&self, key: &Key, owners: &Value, target: &mut Value, live: &mut Value, last: Option<&mut Value>) {
        let rules: Vec<&Rule> = self.rules.iter().filter(|rule| rule.applies_to(key)).collect();
        if rules.is_empty() {
            return;
        }
        let mut owned: Vec<Path> = Vec::new();
        for rule in &rules {
            for manager in &rule.managers {
                owned.extend(managed_fields::owned_paths(owners, manager));
            }
        }
        let elsewhere = |other: &Value| owned.iter().filter_map(|p| correspond(p, owners, other)).collect::<Vec<_>>();
        let named = |object: &Value| rules.iter().flat_map(|rule| rule.named(object)).collect::<Vec<_>>();
        let mut sides = vec![live, target];
        sides.extend(last);
        for side in sides {
            let mut paths = named(side);
            paths.extend(elsewhere(side));
            path::remove_all(paths, side);
        }
    }

    /// Makes `target` say what `live` says wherever the rules name a field, so that applying it leaves those fields
    /// alone. Without `all` only fields that somebody else owns by design are kept. `status` is no part of this.
    pub fn respect(&self, key: &Key, live: &Value, target: &mut Value, all: bool) {
        let rules: Vec<&Rule> = self.rules.iter().filter(|r| (all || r.owned) && r.applies_to(key)).collect();
        let is_status = |path: &Path| path.0.first() == Some(&Segment::Key("status".into()));
        for rule in rules {
            let gone = rule.named(target).into_iter().filter(|p| !is_status(p));
            let gone: Vec<Path> = gone.filter(|p| correspond(p, target, live).is_none()).collect();
            path::remove_all(gone, target);
            let mut kept = rule.named(live);
            for manager in &rule.managers {
                kept.extend(managed_fields::owned_paths(live, manager));
            }
            for path in kept.iter().filter(|p| !is_status(p)) {
                if let Some(value) = path.get(live) {
                    copy(path, live, target, value);
                }
            }
        }
    }
}

/// Fields by which an element of a list is known in another copy of the list.
const IDENTITIES: &[&str] =
    &["name", "containerPort", "port", "mountPath", "devicePath", "topologyKey", "key", "ip", "uid"];

/// The index in `to` of the element that stands at `index` in `from`.
fn same_element(from: &[Value], index: usize, to: &[Value]) -> Option<usize> {
    let element = from.get(index)?;
    if let Some(identity) = IDENTITIES.iter().find(|identity| element.get(**identity).is_some()) {
        return to.iter().position(|other| other.get(*identity) == element.get(*identity));
    }
    if element.is_object() || element.is_array() {
        return (from.len() == to.len()).then_some(index);
    }
    to.iter().position(|other| other == element)
}

/// The path in `to` of what `path` names in `from`: elements of lists are found by their names, not their places.
fn correspond(path: &Path, from: &Value, to: &Value) -> Option<Path> {
    let (mut from, mut to) = (from, to);
    let mut out = Path::default();
    for segment in &path.0 {
        match segment {
            Segment::Key(key) => {
                (from, to) = (from.get(key.as_str())?, to.get(key.as_str())?);
                out.0.push(segment.clone());
            }
            Segment::Index(index) => {
                let found = same_element(from.as_array()?, *index, to.as_array()?)?;
                (from, to) = (from.get(*index)?, to.get(found)?);
                out.0.push(Segment::Index(found));
            }
        }
    }
    Some(out)
}

/// Writes `value` to where `path` of `from` lies in `to`. Missing maps are made, missing list elements are not.
fn copy(path: &Path, from: &Value, to: &mut Value, value: &Value) {
    let Some((segment, rest)) = path.0.split_first() else {
        *to = value.clone();
        return;
    };
    let rest_path = Path(rest.to_vec());
    match segment {
        Segment::Key(key) => {
            if to.is_null() {
                *to = Value::Object(Map::new());
            }
            let (Some(from), Value::Object(map)) = (from.get(key.as_str()), to) else { return };
            // A list is only entered, never begun: half an element would be worse than none.
            if map.get(key).is_none() && matches!(rest.first(), Some(Segment::Index(_))) {
                return;
            }
            copy(&rest_path, from, map.entry(key.clone()).or_insert(Value::Null), value);
        }
        Segment::Index(index) => {
            let (Some(from), Value::Array(list)) = (from.as_array(), to) else { return };
            let Some(found) = same_element(from, *index, list) else { return };
            if let (Some(from), Some(to)) = (from.get(*index), list.get_mut(found)) {
                copy(&rest_path, from, to, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(value: Value) -> IgnoreRules {
        let rules: Vec<IgnoreDifferences> = serde_json::from_value(value).expect("rules");
        let (rules, errors) = IgnoreRules::compile(&rules);
        assert_eq!(errors, Vec::<String>::new());
        rules
    }

    fn deployment(replicas: i64, image: &str) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "ns"},
            "spec": {"replicas": replicas, "template": {"spec": {"containers": [
                {"name": "sidecar", "image": "proxy"}, {"name": "app", "image": image},
            ]}}},
        })
    }

    #[test]
    fn rules_name_objects_by_glob() {
        for (rule, applies) in [
            (json!({"group": "apps", "kind": "Deployment"}), true),
            (json!({"group": "*", "kind": "*"}), true),
            (json!({"group": "ap*", "kind": "Deploy*"}), true),
            (json!({"kind": "Deployment"}), false),
            (json!({"group": "apps", "kind": "Deployment", "name": "web", "namespace": "ns"}), true),
            (json!({"group": "apps", "kind": "Deployment", "name": "other"}), false),
            (json!({"group": "apps", "kind": "Deployment", "namespace": "other"}), false),
        ] {
            let mut rule = rule;
            rule["jsonPointers"] = json!(["/spec/replicas"]);
            let rules = rules(json!([rule]));
            let (mut target, mut live) = (deployment(1, "a"), deployment(5, "a"));
            let owners = live.clone();
            rules.remove(&Key::of(&owners), &owners, &mut target, &mut live, None);
            assert_eq!(target == live, applies, "{rule}");
        }
    }

    #[test]
    fn what_cannot_be_compiled_is_told_and_the_rest_stands() {
        let given: Vec<IgnoreDifferences> = serde_json::from_value(json!([
            {"group": "apps", "kind": "Deployment", "jqPathExpressions": [".spec.replicas", "map(.x)"], "jsonPointers": ["spec"]},
        ]))
        .expect("rules");
        let (rules, errors) = IgnoreRules::compile(&given);
        assert_eq!(errors.len(), 2);
        assert!(errors[0].starts_with("spec.ignoreDifferences[0].jqPathExpressions[1]: "), "{}", errors[0]);
        assert!(errors[1].starts_with("spec.ignoreDifferences[0].jsonPointers[0]: found \"spec\""), "{}", errors[1]);
        let (mut target, mut live) = (deployment(1, "a"), deployment(5, "a"));
        let owners = live.clone();
        rules.remove(&Key::of(&owners), &owners, &mut target, &mut live, None);
        assert_eq!(target, live);
    }

    #[test]
    fn fields_of_a_manager_are_ignored_wherever_they_lie() {
        let rules = rules(json!([{"group": "apps", "kind": "Deployment", "managedFieldsManagers": ["updater"]}]));
        let mut target = deployment(1, "app:1");
        target["spec"]["template"]["spec"]["containers"] = json!([{"name": "app", "image": "app:1"}]);
        let mut live = deployment(1, "app:2");
        live["metadata"]["managedFields"] = json!([{"manager": "updater", "operation": "Update", "fieldsV1": {
            "f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {"f:image": {}}}}}},
        }}]);
        let owners = live.clone();
        assert!(rules.needs_managed_fields(&Key::of(&live)));
        rules.remove(&Key::of(&owners), &owners, &mut target, &mut live, None);
        assert_eq!(target.pointer("/spec/template/spec/containers"), Some(&json!([{"name": "app"}])));
        assert_eq!(live.pointer("/spec/template/spec/containers/1"), Some(&json!({"name": "app"})));
        assert_eq!(live.pointer("/spec/template/spec/containers/0/image"), Some(&json!("proxy")));
    }

    #[test]
    fn respected_fields_keep_their_live_values() {
        let rules = rules(json!([{
            "group": "apps", "kind": "Deployment",
            "jsonPointers": ["/spec/replicas", "/spec/paused", "/metadata/annotations/x"],
            "jqPathExpressions": [".spec.template.spec.containers[].resources", ".spec.template.spec.containers[] | select(.name == \"sidecar\")"],
        }]));
        let mut live = deployment(5, "app:1");
        live["metadata"]["annotations"] = json!({"x": "live", "y": "not ours"});
        live["spec"]["template"]["spec"]["containers"][1]["resources"] = json!({"limits": {"cpu": "2"}});
        let mut target = deployment(1, "app:2");
        target["spec"]["paused"] = true.into();
        target["spec"]["template"]["spec"]["containers"] = json!([{"name": "app", "image": "app:2"}]);
        let untouched = target.clone();
        rules.respect(&Key::of(&live), &live, &mut target, false);
        assert_eq!(target, untouched);
        rules.respect(&Key::of(&live), &live, &mut target, true);
        assert_eq!(
            target,
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "namespace": "ns", "annotations": {"x": "live"}},
                "spec": {"replicas": 5, "template": {"spec": {"containers": [
                    {"name": "app", "image": "app:2", "resources": {"limits": {"cpu": "2"}}},
                ]}}},
            })
        );
    }
}
