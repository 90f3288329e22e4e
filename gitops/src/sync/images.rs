//! The container images that objects name.

use crate::object;
use serde_json::Value;
use std::collections::BTreeSet;

/// The images of the containers of an object's pods, in order, without duplicates.
pub fn images(object: &Value) -> Vec<String> {
    let specs = ["/spec", "/spec/template/spec", "/spec/jobTemplate/spec/template/spec", "/template/spec"];
    let lists = ["initContainers", "containers"];
    let mut found = BTreeSet::new();
    for spec in specs.iter().filter_map(|pointer| object.pointer(pointer)) {
        for container in lists.iter().flat_map(|list| object::list(spec, &format!("/{list}"))) {
            let image = object::text(container, "/image");
            if !image.is_empty() {
                found.insert(image.to_owned());
            }
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn images_of_all_workloads() {
        let spec =
            json!({"containers": [{"image": "b"}, {"image": "a"}, {"name": "x"}], "initContainers": [{"image": "b"}]});
        for object in [
            json!({"spec": spec}),
            json!({"spec": {"template": {"spec": spec}}}),
            json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}}),
        ] {
            assert_eq!(images(&object), ["a", "b"]);
        }
        assert!(images(&json!({"spec": {"containers": "odd"}})).is_empty());
    }
}
