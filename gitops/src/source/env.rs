//! The build environment: the variables that a source's text may name.

use std::collections::BTreeMap;

/// Names and values, as `$NAME` or `${NAME}` in a source's fields means them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildEnv(BTreeMap<String, String>);

/// What the build environment is made from.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildEnvInput<'a> {
    pub app_name: &'a str,
    /// The destination's namespace, in spite of the variable's name.
    pub namespace: &'a str,
    pub project: &'a str,
    /// The commit.
    pub revision: &'a str,
    pub path: &'a str,
    /// Without credentials.
    pub repo_url: &'a str,
    pub target_revision: &'a str,
    pub kube_version: &'a str,
    pub api_versions: &'a [String],
}

/// Names that change with the commit: text that names one of them is rendered anew for every commit.
const OF_THE_COMMIT: [&str; 4] = [
    "ARGOCD_APP_REVISION",
    "ARGOCD_APP_REVISION_SHORT",
    "ARGOCD_APP_REVISION_SHORT_8",
    "ARGOCD_APP_SOURCE_TARGET_REVISION",
];

/// What a substitution looked at, so that a cache knows what the result depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    pub commit: bool,
    pub cluster: bool,
}

impl BuildEnv {
    /// The standard variables.
    pub fn new(input: BuildEnvInput<'_>) -> BuildEnv {
        let short = |n: usize| input.revision.get(..n).unwrap_or(input.revision).to_string();
        let entries = [
            ("ARGOCD_APP_NAME", input.app_name.to_string()),
            ("ARGOCD_APP_NAMESPACE", input.namespace.to_string()),
            ("ARGOCD_APP_PROJECT_NAME", input.project.to_string()),
            ("ARGOCD_APP_REVISION", input.revision.to_string()),
            ("ARGOCD_APP_REVISION_SHORT", short(7)),
            ("ARGOCD_APP_REVISION_SHORT_8", short(8)),
            ("ARGOCD_APP_SOURCE_PATH", input.path.to_string()),
            ("ARGOCD_APP_SOURCE_REPO_URL", input.repo_url.to_string()),
            ("ARGOCD_APP_SOURCE_TARGET_REVISION", input.target_revision.to_string()),
            ("KUBE_VERSION", input.kube_version.to_string()),
            ("KUBE_API_VERSIONS", input.api_versions.join(",")),
        ];
        BuildEnv(entries.into_iter().map(|(k, v)| (k.to_string(), v)).collect())
    }

    /// Replaces `$NAME` and `${NAME}`. `$$` is a dollar sign, a name that is not known becomes empty, a dollar sign that
    /// begins no name stays.
    pub fn substitute(&self, text: &str, uses: &mut Uses) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(inner) = rest.strip_prefix('{') {
                match inner.find('}') {
                    Some(end) => {
                        out.push_str(self.lookup(&inner[..end], uses));
                        rest = &inner[end + 1..];
                    }
                    None => out.push('$'),
                }
            } else {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                if end == 0 || rest.starts_with(|c: char| c.is_ascii_digit()) {
                    out.push('$');
                } else {
                    out.push_str(self.lookup(&rest[..end], uses));
                    rest = &rest[end..];
                }
            }
        }
        out.push_str(rest);
        out
    }

    fn lookup(&self, name: &str, uses: &mut Uses) -> &str {
        uses.commit |= OF_THE_COMMIT.contains(&name);
        uses.cluster |= name == "KUBE_VERSION" || name == "KUBE_API_VERSIONS";
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitution() {
        let env = BuildEnv::new(BuildEnvInput {
            app_name: "shop",
            revision: "0123456789abcdef",
            kube_version: "1.36",
            ..Default::default()
        });
        let cases = [
            ("plain", "plain"),
            ("$ARGOCD_APP_NAME", "shop"),
            ("a-${ARGOCD_APP_NAME}-b", "a-shop-b"),
            ("$ARGOCD_APP_NAME.svc", "shop.svc"),
            ("$ARGOCD_APP_REVISION_SHORT/$ARGOCD_APP_REVISION_SHORT_8", "0123456/01234567"),
            ("$$ARGOCD_APP_NAME", "$ARGOCD_APP_NAME"),
            ("$UNKNOWN!", "!"),
            ("10$ and $5 and ${open", "10$ and $5 and ${open"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(env.substitute(text, &mut Uses::default()), expected, "{text}");
        }
    }

    #[test]
    fn what_was_used_is_known() {
        let env = BuildEnv::default();
        let uses = |text: &str| {
            let mut uses = Uses::default();
            env.substitute(text, &mut uses);
            (uses.commit, uses.cluster)
        };
        assert_eq!(uses("$ARGOCD_APP_NAME"), (false, false));
        assert_eq!(uses("$$ARGOCD_APP_REVISION"), (false, false));
        assert_eq!(uses("${ARGOCD_APP_REVISION_SHORT}"), (true, false));
        assert_eq!(uses("$KUBE_VERSION"), (false, true));
    }
}
