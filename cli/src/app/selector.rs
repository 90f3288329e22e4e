//! `--resource GROUP:KIND:[NAMESPACE/]NAME`: which objects of an Application.

use tidegate_crds::application::SyncOperationResource;

/// One `--resource`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    exclude: bool,
    group: String,
    kind: String,
    namespace: Option<String>,
    name: String,
}

impl Selector {
    /// Reads `GROUP:KIND:NAME`, with `!` in front to exclude, and `*` for any text.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (exclude, rest) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        // Names of some kinds hold colons.
        let mut parts = rest.splitn(3, ':');
        let (Some(group), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(format!("found {text:?}, expected GROUP:KIND:NAME or GROUP:KIND:NAMESPACE/NAME"));
        };
        let (namespace, name) = match name.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, name),
        };
        Ok(Self { exclude, group: group.to_owned(), kind: kind.to_owned(), namespace, name: name.to_owned() })
    }

    fn matches(&self, group: &str, kind: &str, namespace: &str, name: &str) -> bool {
        let fits = |pattern: &str, text: &str| wildcard(pattern, text);
        fits(&self.group, group)
            && fits(&self.kind, kind)
            && fits(&self.name, name)
            && self.namespace.as_deref().is_none_or(|pattern| fits(pattern, namespace))
    }
}

/// Whether a list of selectors picks an object: nothing picks everything, and exclusions alone pick all the others.
pub fn picks(selectors: &[Selector], group: &str, kind: &str, namespace: &str, name: &str) -> bool {
    let (exclude, include): (Vec<&Selector>, Vec<&Selector>) = selectors.iter().partition(|selector| selector.exclude);
    !exclude.iter().any(|selector| selector.matches(group, kind, namespace, name))
        && (include.is_empty() || include.iter().any(|selector| selector.matches(group, kind, namespace, name)))
}

/// Whether selectors can go into an operation as they are: exact names only.
pub fn exact(selectors: &[Selector]) -> Option<Vec<SyncOperationResource>> {
    let is_exact = |text: &str| !text.contains('*');
    selectors
        .iter()
        .map(|s| {
            let fits = !s.exclude && [&s.group, &s.kind, &s.name].into_iter().all(|text| is_exact(text));
            fits.then(|| SyncOperationResource {
                group: Some(s.group.clone()).filter(|group| !group.is_empty()),
                kind: s.kind.clone(),
                name: s.name.clone(),
                namespace: s.namespace.clone(),
            })
        })
        .collect()
}

/// Whether `text` is `pattern`, in which `*` is any text.
pub fn wildcard(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_by_group_kind_and_name() {
        let picks = |selectors: &[&str], name: &str| {
            let selectors: Vec<_> = selectors.iter().map(|text| Selector::parse(text).unwrap()).collect();
            picks(&selectors, "apps", "Deployment", "shop", name)
        };
        assert!(picks(&[], "web"));
        assert!(picks(&["apps:Deployment:web"], "web"));
        assert!(!picks(&["apps:Deployment:web"], "other"));
        assert!(picks(&["apps:Deployment:shop/web"], "web"));
        assert!(!picks(&["apps:Deployment:team/web"], "web"));
        assert!(picks(&["*:*:w*"], "web"));
        assert!(!picks(&["!*:*:web"], "web"));
        assert!(picks(&["!*:*:web"], "other"));
        assert!(!picks(&["apps:*:*", "!apps:Deployment:web"], "web"));
        assert!(Selector::parse("apps:web").is_err());
    }

    #[test]
    fn wildcards_are_any_text() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ab", false),
            ("a*b*c", "aXbYc", true),
            ("a", "ab", false),
            ("*a*", "bab", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(wildcard(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn exact_names_go_into_the_operation() {
        let of = |texts: &[&str]| exact(&texts.iter().map(|text| Selector::parse(text).unwrap()).collect::<Vec<_>>());
        assert_eq!(of(&["apps:Deployment:a/b"]).unwrap()[0].namespace.as_deref(), Some("a"));
        assert!(of(&["apps:*:b"]).is_none());
        assert!(of(&["!apps:Deployment:b"]).is_none());
    }
}
