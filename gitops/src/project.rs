//! What an AppProject permits.

use crate::glob;
use tidegate_crds::application::ApplicationSpec;
use tidegate_crds::project::{AppProjectSpec, GroupKind};

/// A destination with everything that is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destination<'a> {
    /// URL of the API server.
    pub server: &'a str,
    /// Name of the cluster.
    pub name: &'a str,
    /// Namespace.
    pub namespace: &'a str,
}

/// The project `default`, which permits everything.
pub fn permissive() -> AppProjectSpec {
    let any = || "*".to_owned();
    AppProjectSpec {
        source_repos: vec![any()],
        destinations: vec![tidegate_crds::project::ProjectDestination {
            server: Some(any()),
            name: None,
            namespace: Some(any()),
        }],
        cluster_resource_whitelist: vec![tidegate_crds::project::ClusterResource {
            group: any(),
            kind: any(),
            name: None,
        }],
        ..AppProjectSpec::default()
    }
}

/// One spelling of a repository's URL: lower case, no `.git`, and `ssh://` for the short form of ssh.
fn normal_url(url: &str) -> String {
    let url = url.trim().to_lowercase();
    let url = url.strip_suffix('/').unwrap_or(&url);
    let url = url.strip_suffix(".git").unwrap_or(url);
    match url.split_once(':') {
        Some((host, path)) if !path.starts_with("//") && host.contains('@') => {
            format!("ssh://{host}/{}", path.trim_start_matches('/'))
        }
        _ => url.to_owned(),
    }
}

/// Whether manifests may come from this repository.
pub fn permits_source(project: &AppProjectSpec, url: &str) -> bool {
    let url = normal_url(url);
    glob::permits(project.source_repos.iter().map(String::as_str), |pattern| {
        glob::matches_path(&normal_url(pattern), &url)
    })
}

/// Whether manifests may go to this destination.
pub fn permits_destination(project: &AppProjectSpec, destination: &Destination<'_>) -> bool {
    // A pattern that denies matches what it does not name.
    let matches = |pattern: &str, text: &str| match pattern.strip_prefix('!') {
        Some(denied) => !glob::matches(denied, text),
        None => glob::matches(pattern, text),
    };
    let denies = |pattern: &str| pattern.starts_with('!');
    let mut permitted = false;
    for item in &project.destinations {
        let (server, name, namespace) = (
            item.server.as_deref().unwrap_or_default(),
            item.name.as_deref().unwrap_or_default(),
            item.namespace.as_deref().unwrap_or_default(),
        );
        let of_server = !server.is_empty() && matches(server, destination.server);
        let of_name = !name.is_empty() && matches(name, destination.name);
        let of_namespace = matches(namespace, destination.namespace);
        let of_cluster = of_server || of_name;
        let denied_cluster = (!of_server && denies(server)) || (!of_name && denies(name));
        if of_cluster && of_namespace {
            permitted = true;
        } else if (of_namespace && denied_cluster) || (of_cluster && denies(namespace)) {
            return false;
        }
    }
    permitted
}

/// Whether objects of this kind may be managed. `name` only counts for cluster-scoped ones.
pub fn permits_kind(project: &AppProjectSpec, group: &str, kind: &str, name: &str, namespaced: bool) -> bool {
    if namespaced {
        let is_in =
            |list: &[GroupKind]| list.iter().any(|e| glob::matches(&e.group, group) && glob::matches(&e.kind, kind));
        return project.namespace_resource_whitelist.as_deref().is_none_or(is_in)
            && !is_in(&project.namespace_resource_blacklist);
    }
    let is_in = |list: &[tidegate_crds::project::ClusterResource]| {
        list.iter().any(|e| {
            glob::matches(&e.group, group)
                && glob::matches(&e.kind, kind)
                && e.name.as_deref().is_none_or(|n| n.is_empty() || glob::matches(n, name))
        })
    };
    is_in(&project.cluster_resource_whitelist) && !is_in(&project.cluster_resource_blacklist)
}

/// Whether Applications of this project may live in `namespace`. They always may in the control plane's.
pub fn permits_namespace(project: &AppProjectSpec, control_plane: &str, namespace: &str) -> bool {
    namespace == control_plane || project.source_namespaces.iter().any(|p| glob::matches_or_regex(p, namespace))
}

/// Adds the restrictions and windows of a global project.
pub fn inherit(project: &mut AppProjectSpec, global: &AppProjectSpec) {
    project.cluster_resource_whitelist.extend(global.cluster_resource_whitelist.iter().cloned());
    project.cluster_resource_blacklist.extend(global.cluster_resource_blacklist.iter().cloned());
    if let Some(list) = &global.namespace_resource_whitelist {
        project.namespace_resource_whitelist.get_or_insert_default().extend(list.iter().cloned());
    }
    project.namespace_resource_blacklist.extend(global.namespace_resource_blacklist.iter().cloned());
    project.sync_windows.extend(global.sync_windows.iter().cloned());
    project.source_repos.extend(global.source_repos.iter().cloned());
    project.destinations.extend(global.destinations.iter().cloned());
}

/// What the project has against an application as it is specified; each text becomes an InvalidSpecError.
pub fn violations(
    project_name: &str,
    project: &AppProjectSpec,
    spec: &ApplicationSpec,
    destination: &Destination<'_>,
) -> Vec<String> {
    let mut found: Vec<String> = spec
        .sources()
        .iter()
        .filter(|source| !permits_source(project, &source.repo_url))
        .map(|source| format!("application repo {} is not permitted in project '{project_name}'", source.repo_url))
        .collect();
    if !permits_destination(project, destination) {
        let Destination { server, name, namespace } = destination;
        found.push(format!(
            "application destination server '{}' and namespace '{namespace}' do not match any of the allowed destinations in project '{project_name}'",
            if server.is_empty() { name } else { server }
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn project(value: Value) -> AppProjectSpec {
        serde_json::from_value(value).expect("project")
    }

    #[test]
    fn sources() {
        for (repos, url, expected) in [
            (json!([]), "https://x/a", false),
            (json!(["*"]), "https://x/a", true),
            (json!(["https://x/a"]), "https://X/a.git", true),
            (json!(["https://x/*"]), "https://x/a/b", false),
            (json!(["https://x/**"]), "https://x/a/b", true),
            (json!(["*", "!https://x/secret"]), "https://x/secret", false),
            (json!(["ssh://git@x/org/a"]), "git@x:org/a.git", true),
        ] {
            assert_eq!(permits_source(&project(json!({"sourceRepos": repos})), url), expected, "{repos} {url}");
        }
    }

    #[test]
    fn destinations() {
        let here = Destination { server: "https://kubernetes.default.svc", name: "in-cluster", namespace: "team-a" };
        for (destinations, expected) in [
            (json!([]), false),
            (json!([{"server": "*", "namespace": "*"}]), true),
            (json!([{"server": here.server, "namespace": "team-*"}]), true),
            (json!([{"server": here.server, "namespace": "other"}]), false),
            (json!([{"name": "in-cluster", "namespace": "team-a"}]), true),
            (json!([{"name": "other", "namespace": "team-a"}]), false),
            (json!([{"server": "*", "namespace": "*"}, {"server": "*", "namespace": "!team-a"}]), false),
            (json!([{"server": "*", "namespace": "!kube-system"}]), true),
            (
                json!([{"server": "*", "namespace": "*"}, {"server": "!https://kubernetes.*", "namespace": "team-*"}]),
                false,
            ),
            (json!([{"namespace": "*"}]), false),
        ] {
            let project = project(json!({"destinations": destinations}));
            assert_eq!(permits_destination(&project, &here), expected, "{destinations}");
        }
    }

    #[test]
    fn kinds() {
        let none = project(json!({}));
        assert!(permits_kind(&none, "apps", "Deployment", "x", true), "no list allows all namespaced kinds");
        assert!(!permits_kind(&none, "", "Namespace", "x", false), "an empty list allows no cluster-scoped kind");
        let some = project(json!({
            "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
            "clusterResourceBlacklist": [{"group": "", "kind": "Namespace", "name": "kube-*"}],
            "namespaceResourceBlacklist": [{"group": "", "kind": "ResourceQuota"}],
        }));
        assert!(permits_kind(&some, "", "Namespace", "team", false));
        assert!(!permits_kind(&some, "", "Namespace", "kube-system", false));
        assert!(!permits_kind(&some, "", "ResourceQuota", "x", true));
        let listed = project(json!({"namespaceResourceWhitelist": [{"group": "apps", "kind": "*"}]}));
        assert!(permits_kind(&listed, "apps", "Deployment", "x", true));
        assert!(!permits_kind(&listed, "", "Secret", "x", true));
        let empty = project(json!({"namespaceResourceWhitelist": []}));
        assert!(!permits_kind(&empty, "apps", "Deployment", "x", true));
    }

    #[test]
    fn namespaces_of_applications() {
        let project = project(json!({"sourceNamespaces": ["team-*", "/^x[0-9]$/"]}));
        for (namespace, expected) in
            [("argocd", true), ("team-a", true), ("x1", true), ("x12", false), ("other", false)]
        {
            assert_eq!(permits_namespace(&project, "argocd", namespace), expected, "{namespace}");
        }
    }

    #[test]
    fn the_default_project_permits_everything_and_violations_are_named() {
        let spec: ApplicationSpec =
            serde_json::from_value(json!({"source": {"repoURL": "https://x/a"}})).expect("spec");
        let here = Destination { server: "https://s", name: "c", namespace: "n" };
        assert_eq!(violations("default", &permissive(), &spec, &here), Vec::<String>::new());
        let found = violations("p", &project(json!({})), &spec, &here);
        assert_eq!(
            found,
            [
                "application repo https://x/a is not permitted in project 'p'",
                "application destination server 'https://s' and namespace 'n' do not match any of the allowed destinations in project 'p'",
            ]
        );
    }

    #[test]
    fn restrictions_of_global_projects_are_inherited() {
        let mut own = permissive();
        let global = project(json!({
            "namespaceResourceBlacklist": [{"group": "", "kind": "Secret"}],
            "syncWindows": [{"kind": "deny"}],
        }));
        inherit(&mut own, &global);
        assert!(!permits_kind(&own, "", "Secret", "x", true));
        assert!(permits_kind(&own, "apps", "Deployment", "x", true));
        assert_eq!(own.sync_windows.len(), 1);
    }
}
