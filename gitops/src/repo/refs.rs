//! What a remote lists, and how a revision is found in it.

use super::version::{Constraint, Version};

/// The refs of a remote in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refs {
    /// Full name and object.
    entries: Vec<(Box<str>, Box<str>)>,
    /// Full name of an annotated tag and the commit that it names.
    peeled: Vec<(Box<str>, Box<str>)>,
}

/// A revision that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// 40 hexadecimal digits; fewer when the user gave fewer and no ref has that name.
    pub commit: String,
    /// The full ref that led there.
    pub reference: Option<String>,
}

impl Refs {
    /// Reads what `git ls-remote` prints.
    pub fn parse(output: &str) -> Refs {
        let mut refs = Refs::default();
        for line in output.lines() {
            let Some((oid, name)) = line.split_once('\t') else { continue };
            if !is_hex(oid) || oid.len() != 40 {
                continue;
            }
            match name.strip_suffix("^{}") {
                Some(tag) => refs.peeled.push((tag.into(), oid.into())),
                None => refs.entries.push((name.into(), oid.into())),
            }
        }
        refs.peeled.sort();
        refs
    }

    /// The commit behind a full ref.
    pub fn commit(&self, name: &str) -> Option<&str> {
        let entry = self.entries.iter().find(|(known, _)| &**known == name)?;
        Some(self.peel(entry))
    }

    fn peel<'a>(&'a self, (name, oid): &'a (Box<str>, Box<str>)) -> &'a str {
        match self.peeled.binary_search_by(|(tag, _)| tag.cmp(name)) {
            Ok(at) => &self.peeled[at].1,
            Err(_) => oid,
        }
    }

    /// Short names of the tags that name `commit`.
    pub fn tags_of(&self, commit: &str) -> Vec<String> {
        self.entries
            .iter()
            .filter_map(|entry| {
                let tag = entry.0.strip_prefix("refs/tags/")?;
                (self.peel(entry) == commit).then(|| tag.to_string())
            })
            .collect()
    }

    /// Branches and tags by their short names, with commits.
    pub fn short_names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().filter_map(|entry| {
            let short = entry.0.strip_prefix("refs/heads/").or_else(|| entry.0.strip_prefix("refs/tags/"))?;
            Some((short, self.peel(entry)))
        })
    }

    /// Finds a revision: a version constraint among the tags with `tag_prefix`; a branch, tag or full ref, of which the
    /// one that is listed first wins; `HEAD`; at least seven digits of a commit.
    pub fn resolve(&self, revision: &str, tag_prefix: &str) -> Option<Resolved> {
        let found = |entry: &(Box<str>, Box<str>)| Resolved {
            commit: self.peel(entry).to_string(),
            reference: Some(entry.0.to_string()),
        };
        // A plain version is a tag's name, not a constraint.
        let constraint = if Version::parse(revision).is_some() { None } else { Constraint::parse(revision) };
        if let Some(constraint) = constraint {
            let tags = self.entries.iter().filter_map(|entry| {
                let version = entry.0.strip_prefix("refs/tags/")?.strip_prefix(tag_prefix)?;
                Some((version, &*entry.0))
            });
            let best = constraint.best(tags).and_then(|name| self.entries.iter().find(|e| &*e.0 == name));
            if let Some(entry) = best {
                return Some(found(entry));
            }
        }
        let revision = if revision.is_empty() { "HEAD" } else { revision };
        let named = self.entries.iter().find(|(name, _)| {
            let short = name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/"));
            &**name == revision || short == Some(revision) || name.strip_prefix("refs/") == Some(revision)
        });
        if let Some(entry) = named {
            return Some(found(entry));
        }
        (revision.len() >= 7 && revision.len() <= 40 && is_hex(revision))
            .then(|| Resolved { commit: revision.to_ascii_lowercase(), reference: None })
    }
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// True for 40 hexadecimal digits, which name a commit without asking.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && is_hex(revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(n: u32) -> String {
        format!("{n:040x}")
    }

    fn refs() -> Refs {
        let lines = [
            (oid(1), "HEAD"),
            (oid(1), "refs/heads/main"),
            (oid(2), "refs/heads/release/1.x"),
            (oid(3), "refs/heads/v1"),
            (oid(4), "refs/pull/7/head"),
            (oid(10), "refs/tags/app-1.5.0"),
            (oid(11), "refs/tags/main"),
            (oid(12), "refs/tags/v1.0.0"),
            (oid(13), "refs/tags/v1.0.0^{}"),
            (oid(14), "refs/tags/v1.2.0"),
            (oid(15), "refs/tags/v2.0.0-rc.1"),
        ];
        Refs::parse(&lines.map(|(oid, name)| format!("{oid}\t{name}\n")).concat())
    }

    #[test]
    fn revisions_are_found_in_order() {
        let refs = refs();
        let commit = |revision: &str, prefix: &str| refs.resolve(revision, prefix).map(|r| r.commit);
        let cases = [
            ("HEAD", "", Some(oid(1))),
            ("", "", Some(oid(1))),
            ("main", "", Some(oid(1))),
            ("refs/tags/main", "", Some(oid(11))),
            ("tags/main", "", Some(oid(11))),
            ("release/1.x", "", Some(oid(2))),
            ("v1", "", Some(oid(3))),
            ("refs/pull/7/head", "", Some(oid(4))),
            ("v1.0.0", "", Some(oid(13))),
            ("^1", "", Some(oid(14))),
            ("1.0.x", "", Some(oid(13))),
            ("*", "", Some(oid(14))),
            ("*", "app-", Some(oid(10))),
            (">=2.0.0-0", "", Some(oid(15))),
            ("^9", "", None),
            ("nothing", "", None),
            ("ABCDEF0", "", Some("abcdef0".into())),
            ("abcde", "", None),
        ];
        for (revision, prefix, expected) in cases {
            assert_eq!(commit(revision, prefix), expected, "{revision} {prefix}");
        }
        assert_eq!(refs.resolve("main", "").unwrap().reference.as_deref(), Some("refs/heads/main"));
        assert_eq!(refs.tags_of(&oid(13)), ["v1.0.0"]);
    }

    #[test]
    fn what_is_no_listing_is_passed_by() {
        assert_eq!(Refs::parse("warning: x\nnot-a-hash\trefs/heads/a\n\n"), Refs::default());
    }
}
