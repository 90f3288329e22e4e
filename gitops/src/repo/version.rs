//! Version constraints over tags, in the dialect that Helm and Argo CD users write (`^1.2`, `~1.2`, `1.x`, `>=1.2 <2`,
//! `1.2 - 1.4 || 3.x`).

use std::cmp::Ordering;

/// A version, read loosely: `v` in front and missing parts are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    major: u64,
    minor: u64,
    patch: u64,
    pre: Vec<Identifier>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Text(String),
}

impl Version {
    /// None when `text` is not a version. `1.x` is none; it is a constraint.
    pub fn parse(text: &str) -> Option<Version> {
        let partial = Partial::parse(text)?;
        (!partial.wildcard).then_some(partial.version)
    }

    fn core(&self) -> (u64, u64, u64) {
        (self.major, self.minor, self.patch)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        self.core().cmp(&other.core()).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A version of which parts may be missing or wild.
#[derive(Clone, Debug)]
struct Partial {
    version: Version,
    /// How many of major, minor and patch were given.
    given: usize,
    /// One of them was `x`, `X` or `*`.
    wildcard: bool,
}

impl Partial {
    fn parse(text: &str) -> Option<Partial> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (text, build) = text.split_once('+').map_or((text, None), |(t, b)| (t, Some(b)));
        let (core, pre) = text.split_once('-').map_or((text, None), |(c, p)| (c, Some(p)));
        let identifier = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if build.is_some_and(|b| !b.split('.').all(identifier)) {
            return None;
        }
        let pre = match pre {
            None => Vec::new(),
            Some(pre) => pre
                .split('.')
                .map(|s| {
                    identifier(s).then(|| s.parse().map_or_else(|_| Identifier::Text(s.into()), Identifier::Number))
                })
                .collect::<Option<Vec<_>>>()?,
        };
        let mut numbers = [0u64; 3];
        let mut given = 0;
        let mut wildcard = false;
        for (i, part) in core.split('.').enumerate() {
            if i > 2 {
                return None;
            }
            match part {
                "x" | "X" | "*" => wildcard = true,
                _ if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) => {
                    if !wildcard {
                        numbers[i] = part.parse().ok()?;
                        given = i + 1;
                    }
                }
                _ => return None,
            }
        }
        if given < 3 && !pre.is_empty() && wildcard {
            return None;
        }
        Some(Partial {
            version: Version { major: numbers[0], minor: numbers[1], patch: numbers[2], pre },
            given,
            wildcard,
        })
    }

    /// The first version after all that this one stands for.
    fn next(&self) -> Version {
        let Version { major, minor, patch, .. } = self.version;
        let (major, minor, patch) = match self.given {
            0 => (u64::MAX, 0, 0),
            1 => (major.saturating_add(1), 0, 0),
            2 => (major, minor.saturating_add(1), 0),
            _ => (major, minor, patch.saturating_add(1)),
        };
        Version { major, minor, patch, pre: Vec::new() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Tilde,
    Caret,
}

/// Alternatives of terms that must all hold.
#[derive(Clone, Debug)]
pub struct Constraint(Vec<Vec<(Operator, Partial)>>);

impl Constraint {
    /// None when `text` is not a constraint.
    pub fn parse(text: &str) -> Option<Constraint> {
        let alternatives: Option<Vec<_>> = text.split("||").map(parse_terms).collect();
        alternatives.filter(|all| !all.is_empty()).map(Constraint)
    }

    /// A pre-release matches only where the constraint names one.
    pub fn matches(&self, version: &Version) -> bool {
        self.0.iter().any(|terms| terms.iter().all(|(operator, partial)| term_matches(*operator, partial, version)))
    }

    /// The greatest of `tags` that matches; of equal ones the last.
    pub fn best<'a>(&self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<&'a str> {
        tags.into_iter()
            .filter_map(|(version, value)| Some((Version::parse(version)?, value)))
            .filter(|(version, _)| self.matches(version))
            .max_by(|a, b| a.0.cmp(&b.0))
            .map(|(_, value)| value)
    }
}

fn parse_terms(text: &str) -> Option<Vec<(Operator, Partial)>> {
    if let Some((low, high)) = text.split_once(" - ") {
        return Some(vec![
            (Operator::GreaterEqual, Partial::parse(low.trim())?),
            (Operator::LessEqual, Partial::parse(high.trim())?),
        ]);
    }
    let mut terms = Vec::new();
    let mut pending = None;
    for word in text.split([',', ' ', '\t']).filter(|w| !w.is_empty()) {
        let (operator, rest) = split_operator(word);
        let operator = match (pending.take(), operator) {
            (Some(_), Some(_)) => return None,
            (one, other) => one.or(other),
        };
        if rest.is_empty() {
            pending = Some(operator?);
        } else {
            terms.push((operator.unwrap_or(Operator::Equal), Partial::parse(rest)?));
        }
    }
    (pending.is_none() && !terms.is_empty()).then_some(terms)
}

fn split_operator(word: &str) -> (Option<Operator>, &str) {
    const OPERATORS: [(&str, Operator); 11] = [
        ("!=", Operator::NotEqual),
        (">=", Operator::GreaterEqual),
        ("=>", Operator::GreaterEqual),
        ("<=", Operator::LessEqual),
        ("=<", Operator::LessEqual),
        ("~>", Operator::Tilde),
        (">", Operator::Greater),
        ("<", Operator::Less),
        ("=", Operator::Equal),
        ("~", Operator::Tilde),
        ("^", Operator::Caret),
    ];
    OPERATORS
        .iter()
        .find_map(|(text, operator)| word.strip_prefix(text).map(|rest| (Some(*operator), rest)))
        .unwrap_or((None, word))
}

fn term_matches(operator: Operator, partial: &Partial, version: &Version) -> bool {
    if !version.pre.is_empty() && partial.version.pre.is_empty() {
        return false;
    }
    let low = &partial.version;
    // A pre-release of the next version lies before it, and still is not what the range means.
    let below = |bound: Version| version.core() < bound.core();
    let within = version >= low && below(partial.next());
    match operator {
        Operator::Equal if partial.given == 3 => version == low,
        Operator::Equal => within,
        Operator::NotEqual if partial.given == 3 => version != low,
        Operator::NotEqual => !within,
        Operator::Greater if partial.given == 3 => version > low,
        Operator::Greater => !below(partial.next()),
        Operator::GreaterEqual => version >= low,
        Operator::Less => version < low,
        Operator::LessEqual if partial.given == 3 => version <= low,
        Operator::LessEqual => below(partial.next()),
        Operator::Tilde => {
            let upto = Partial { given: partial.given.min(2), ..partial.clone() };
            version >= low && below(upto.next())
        }
        Operator::Caret => {
            // The leftmost number that is not zero stays.
            let fixed = match (partial.given, low.core()) {
                (0, _) => 0,
                (1, _) => 1,
                (_, (major, ..)) if major > 0 => 1,
                (2, _) => 2,
                (_, (_, minor, _)) if minor > 0 => 2,
                _ => 3,
            };
            version >= low && below(Partial { given: fixed, ..partial.clone() }.next())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn constraints() {
        let cases: [(&str, &[&str], &[&str]); 22] = [
            ("*", &["0.0.1", "9.9.9"], &["1.0.0-rc.1"]),
            ("1.x", &["1.0.0", "1.9.3"], &["2.0.0", "0.9.0", "1.5.0-rc.1"]),
            ("v1.2.*", &["1.2.0", "v1.2.9"], &["1.3.0"]),
            ("^1.2.3", &["1.2.3", "1.9.0"], &["1.2.2", "2.0.0", "2.0.0-rc.1"]),
            ("^0.2.3", &["0.2.3", "0.2.9"], &["0.3.0"]),
            ("^0.0.3", &["0.0.3"], &["0.0.4"]),
            ("^0.0", &["0.0.9"], &["0.1.0"]),
            ("^0", &["0.9.9"], &["1.0.0"]),
            ("~1.2.3", &["1.2.3", "1.2.9"], &["1.3.0"]),
            ("~1.2", &["1.2.0", "1.2.9"], &["1.3.0"]),
            ("~1", &["1.0.0", "1.9.0"], &["2.0.0"]),
            ("~>1.2", &["1.2.9"], &["1.3.0"]),
            (">=1.2 <2", &["1.2.0", "1.99.0"], &["2.0.0", "1.1.9"]),
            (">=1.2, <2.0.0", &["1.2.0"], &["2.0.0"]),
            (">= 1.2", &["1.2.0", "3.0.0"], &["1.1.0"]),
            (">1", &["2.0.0"], &["1.9.0"]),
            (">1.2", &["1.3.0"], &["1.2.9"]),
            ("<=1.2", &["1.2.9", "0.1.0"], &["1.3.0"]),
            ("!=1.2", &["1.3.0"], &["1.2.5"]),
            ("1.2 - 1.4", &["1.2.0", "1.4.9"], &["1.5.0", "1.1.0"]),
            ("^1 || ^3", &["1.5.0", "3.0.1"], &["2.0.0"]),
            (">=1.0.0-0", &["1.0.0-rc.1", "1.1.0-beta"], &["0.9.0"]),
        ];
        for (text, inside, outside) in cases {
            let constraint = Constraint::parse(text).unwrap_or_else(|| panic!("{text}"));
            for version in inside {
                assert!(constraint.matches(&Version::parse(version).unwrap()), "{text} should match {version}");
            }
            for version in outside {
                assert!(!constraint.matches(&Version::parse(version).unwrap()), "{text} should not match {version}");
            }
        }
    }

    #[test]
    fn names_are_no_constraints() {
        for text in
            ["main", "HEAD", "release/1.x", "refs/tags/v1", "", "||", "1.2.3.4", "feature-1", ">", "> >1", "1..2"]
        {
            assert!(Constraint::parse(text).is_none(), "{text}");
        }
        assert!(Version::parse("1.x").is_none());
        assert!(Version::parse("v1").is_some());
    }

    #[test]
    fn order_of_versions() {
        let sorted = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.10.0",
            "2",
        ];
        for pair in sorted.windows(2) {
            assert!(Version::parse(pair[0]).unwrap() < Version::parse(pair[1]).unwrap(), "{pair:?}");
        }
    }

    #[test]
    fn the_greatest_match_is_chosen() {
        let tags = ["v1.2.0", "v1.10.0", "v1.9.0", "v2.0.0", "v1.11.0-rc.1", "nightly"];
        let best = Constraint::parse("^1").unwrap().best(tags.iter().map(|t| (*t, *t)));
        assert_eq!(best, Some("v1.10.0"));
        assert_eq!(Constraint::parse("^7").unwrap().best(tags.iter().map(|t| (*t, *t))), None);
    }

    proptest! {
        #[test]
        fn parsing_never_fails_badly(text in "[0-9vxX*^~<>=!|, .+a-z-]{0,24}") {
            if let Some(constraint) = Constraint::parse(&text) {
                for version in ["0.0.0", "1.2.3", "1.2.3-rc.1"] {
                    constraint.matches(&Version::parse(version).unwrap());
                }
            }
        }

        #[test]
        fn a_caret_contains_its_tilde(major in 0u64..4, minor in 0u64..4, patch in 0u64..4, a in 0u64..5, b in 0u64..5, c in 0u64..5) {
            let version = Version::parse(&format!("{a}.{b}.{c}")).unwrap();
            let tilde = Constraint::parse(&format!("~{major}.{minor}.{patch}")).unwrap();
            let caret = Constraint::parse(&format!("^{major}.{minor}.{patch}")).unwrap();
            let zero = major == 0 && minor == 0;
            prop_assert!(zero || !tilde.matches(&version) || caret.matches(&version));
        }
    }
}
