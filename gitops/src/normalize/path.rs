//! Concrete paths into a JSON value, and removing what they name.

use serde_json::Value;
use std::fmt;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// A key of an object.
    Key(String),
    /// An index of a list.
    Index(usize),
}

/// A path from the root of a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<Segment>);

impl Path {
    /// This path with one more step.
    pub fn join(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }

    /// What the path names in `value`.
    pub fn get<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(value, |at, segment| match segment {
            Segment::Key(key) => at.get(key.as_str()),
            Segment::Index(index) => at.get(*index),
        })
    }

    /// Removes what the path names. Nothing happens when it names nothing, or the root.
    pub fn remove(&self, value: &mut Value) {
        let Some((last, parents)) = self.0.split_last() else { return };
        let mut at = value;
        for segment in parents {
            let next = match segment {
                Segment::Key(key) => at.get_mut(key.as_str()),
                Segment::Index(index) => at.get_mut(*index),
            };
            match next {
                Some(next) => at = next,
                None => return,
            }
        }
        match (last, at) {
            (Segment::Key(key), Value::Object(map)) => {
                map.remove(key.as_str());
            }
            (Segment::Index(index), Value::Array(list)) if *index < list.len() => {
                list.remove(*index);
            }
            _ => {}
        }
    }
}

/// As a JSON pointer.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.0 {
            match segment {
                Segment::Key(key) => write!(f, "/{}", key.replace('~', "~0").replace('/', "~1"))?,
                Segment::Index(index) => write!(f, "/{index}")?,
            }
        }
        Ok(())
    }
}

/// Removes all of `paths`, the last of a list first, so that none moves before its turn.
pub fn remove_all(mut paths: Vec<Path>, value: &mut Value) {
    paths.sort();
    paths.dedup();
    for path in paths.iter().rev() {
        path.remove(value);
    }
}

/// The concrete path that a JSON pointer (RFC 6901) names in `value`, or `None` when it names nothing there.
pub fn resolve_pointer(pointer: &str, value: &Value) -> Option<Path> {
    let mut path = Path::default();
    let mut at = value;
    for part in pointer.strip_prefix('/')?.split('/') {
        let part = part.replace("~1", "/").replace("~0", "~");
        let (segment, next) = match at {
            Value::Object(map) => {
                let next = map.get(&part)?;
                (Segment::Key(part), next)
            }
            Value::Array(list) => {
                let index: usize = part.parse().ok()?;
                (Segment::Index(index), list.get(index)?)
            }
            _ => return None,
        };
        path.0.push(segment);
        at = next;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pointers_resolve_and_print() {
        let value = json!({"a": {"b/c": [{"~": 1}]}});
        let path = resolve_pointer("/a/b~1c/0/~0", &value).expect("names something");
        assert_eq!(path.to_string(), "/a/b~1c/0/~0");
        assert_eq!(path.get(&value), Some(&json!(1)));
        for missing in ["", "a", "/x", "/a/b~1c/1", "/a/b~1c/x", "/a/b~1c/0/~0/x"] {
            assert_eq!(resolve_pointer(missing, &value), None, "{missing}");
        }
    }

    #[test]
    fn elements_of_one_list_are_all_removed() {
        let mut value = json!([0, 1, 2, 3]);
        let paths = [1, 3, 1, 0].map(|i| Path(vec![Segment::Index(i)])).to_vec();
        remove_all(paths, &mut value);
        assert_eq!(value, json!([2]));
    }
}
