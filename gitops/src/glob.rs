//! Globs as projects, windows and ignore rules use them, and lists of globs in which `!` denies.

use globset::GlobBuilder;

/// Whether `text` matches `pattern`: `*`, `?`, `[a-z]`, `{a,b}`. A pattern that is no glob matches itself.
pub fn matches(pattern: &str, text: &str) -> bool {
    // An empty pattern is the core API group or an absent name: it matches just that.
    pattern == text || glob(pattern, text, false)
}

/// As [`matches`], but `*` stops at `/` and `**` does not.
pub fn matches_path(pattern: &str, text: &str) -> bool {
    pattern == text || pattern == "*" || glob(pattern, text, true)
}

fn glob(pattern: &str, text: &str, separator: bool) -> bool {
    if !pattern.contains(['*', '?', '[', '{', '\\']) {
        return false;
    }
    if pattern == "*" || pattern == "**" {
        return true;
    }
    let glob = GlobBuilder::new(pattern).literal_separator(separator).backslash_escape(true).build();
    glob.is_ok_and(|glob| glob.compile_matcher().is_match(text))
}

/// Whether `text` matches a glob, or the regular expression in `/…/`.
pub fn matches_or_regex(pattern: &str, text: &str) -> bool {
    match pattern.strip_prefix('/').and_then(|p| p.strip_suffix('/')) {
        Some(expression) if !expression.is_empty() => {
            regex::Regex::new(expression).is_ok_and(|expression| expression.is_match(text))
        }
        _ => matches(pattern, text),
    }
}

/// Whether a list permits `text`: some pattern matches, and no pattern with `!` before it does.
pub fn permits<'a>(patterns: impl IntoIterator<Item = &'a str>, matches: impl Fn(&str) -> bool) -> bool {
    let mut allowed = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(denied) if matches(denied) => return false,
            Some(_) => {}
            None => allowed |= matches(pattern),
        }
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "apps", true),
            ("", "", true),
            ("", "apps", false),
            ("*.k8s.io", "networking.k8s.io", true),
            ("team-?", "team-a", true),
            ("team-?", "team-ab", false),
            ("{a,b}-*", "b-x", true),
            ("[ab]", "c", false),
            ("[", "[", true),
            ("[", "x", false),
            ("https://*", "https://a/b", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn globs_of_paths_stop_at_slashes() {
        for (pattern, text, expected) in [
            ("*", "https://a/b", true),
            ("https://github.com/org/*", "https://github.com/org/repo", true),
            ("https://github.com/*", "https://github.com/org/repo", false),
            ("https://github.com/**", "https://github.com/org/repo", true),
            ("https://github.com/org/repo", "https://github.com/org/repo", true),
        ] {
            assert_eq!(matches_path(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn expressions_stand_between_slashes() {
        assert!(matches_or_regex("/^team-[0-9]+$/", "team-12"));
        assert!(!matches_or_regex("/^team-[0-9]+$/", "team-x"));
        assert!(!matches_or_regex("/(/", "("));
        assert!(matches_or_regex("team-*", "team-x"));
    }

    #[test]
    fn a_denial_wins() {
        let permitted = |list: &[&str], text: &str| permits(list.iter().copied(), |p| matches(p, text));
        assert!(permitted(&["*", "!kube-*"], "web"));
        assert!(!permitted(&["*", "!kube-*"], "kube-system"));
        assert!(!permitted(&["!kube-*", "kube-system"], "kube-system"));
        assert!(!permitted(&["!kube-*"], "web"), "denials alone permit nothing");
        assert!(!permitted(&[], "web"));
    }
}
