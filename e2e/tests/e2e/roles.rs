//! What the chart lets the controller do.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::scene::Scene;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The rules of the chart's Role, as the template has them between its conditions.
pub fn chart_rules() -> Result<Vec<Value>> {
    let path = tidegate_e2e::state::repository().join("charts/tidegate/templates/_rules.tpl");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("{{")).collect();
    let rules: Vec<Value> = serde_saphyr::from_str(&lines.join("\n")).context("the chart's rules")?;
    ensure!(rules.len() > 10, "only {} rules in {}", rules.len(), path.display());
    Ok(rules)
}

/// A ServiceAccount with these rights in the scene's namespace, and that to tell events; gives the flag by which a
/// controller works under its name.
pub async fn account(scene: &Scene, mut rules: Vec<Value>) -> Result<String> {
    rules.push(json!({"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch", "update"]}));
    let (name, version) = (json!({"name": "tidegate", "labels": {}}), format!("{GROUP}/v1"));
    let binding = json!({
        "apiVersion": version, "kind": "RoleBinding", "metadata": name,
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "tidegate"},
        "subjects": [{"kind": "ServiceAccount", "name": "tidegate", "namespace": scene.name()}],
    });
    scene.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name})).await?;
    scene.apply(json!({"apiVersion": version, "kind": "Role", "metadata": name, "rules": rules})).await?;
    scene.apply(binding).await?;
    Ok(format!("--as=system:serviceaccount:{}:tidegate", scene.name()))
}
