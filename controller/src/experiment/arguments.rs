//! Values that an Experiment gives to its analyses: `{{templates.<name>.podTemplateHash}}`,
//! `{{templates.<name>.replicaset.name}}`, `{{experiment.availableAt}}` and `{{experiment.finishedAt}}`.

/// What a placeholder asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    /// Hash of a variant's pods.
    Hash(&'a str),
    /// Name of a variant's ReplicaSet.
    ReplicaSet(&'a str),
    /// When all variants were available.
    AvailableAt,
    /// When the experiment's duration is over.
    FinishedAt,
}

impl<'a> Asked<'a> {
    fn parse(placeholder: &'a str) -> Option<Self> {
        match placeholder {
            "experiment.availableAt" => return Some(Self::AvailableAt),
            "experiment.finishedAt" => return Some(Self::FinishedAt),
            _ => {}
        }
        let rest = placeholder.strip_prefix("templates.")?;
        let hash = rest.strip_suffix(".podTemplateHash").map(Self::Hash);
        hash.or_else(|| rest.strip_suffix(".replicaset.name").map(Self::ReplicaSet))
    }
}

/// Fills in what `lookup` knows.
///
/// # Errors
/// When a placeholder asks for something that there is not.
pub(super) fn fill(text: &str, lookup: impl Fn(Asked<'_>) -> Option<String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((inside, after)) = after.split_once("}}") else { break };
        let placeholder = inside.trim();
        let value = Asked::parse(placeholder).and_then(&lookup);
        let value = value.ok_or_else(|| format!("failed to resolve {{{{{placeholder}}}}}"))?;
        filled.push_str(before);
        filled.push_str(&value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_what_there_is_and_names_what_there_is_not() {
        let lookup = |asked: Asked<'_>| match asked {
            Asked::Hash("a") => Some("h1".to_owned()),
            Asked::ReplicaSet("a.b") => Some("exp-a.b".to_owned()),
            Asked::AvailableAt => Some("2026-01-01T00:00:00Z".to_owned()),
            Asked::FinishedAt => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("plain", Ok("plain")),
            ("{{templates.a.podTemplateHash}}", Ok("h1")),
            ("x={{ templates.a.b.replicaset.name }}!", Ok("x=exp-a.b!")),
            ("{{experiment.availableAt}}/{{experiment.finishedAt}}", Ok("2026-01-01T00:00:00Z/")),
            ("open {{ends", Ok("open {{ends")),
            ("{{templates.z.podTemplateHash}}", Err("failed to resolve {{templates.z.podTemplateHash}}")),
            ("{{templates.a.image}}", Err("failed to resolve {{templates.a.image}}")),
            ("{{args.x}}", Err("failed to resolve {{args.x}}")),
        ] {
            assert_eq!(fill(text, lookup), expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }
}
