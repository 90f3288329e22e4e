//! Durations in Go's syntax (`1h30m`, `10s`, `1.5h`, `100ms`), as the peers' manifests spell them.

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a duration: expected a number with a unit, such as 30s, 5m or 1h30m")]
pub struct InvalidDuration {
    /// What was found.
    pub found: String,
}

/// Parses a duration that is not negative.
///
/// # Errors
/// When the text is not in Go's syntax, is negative, or overflows.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration { found: text.to_owned() };
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        seconds += number
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(invalid()),
            };
        rest = tail;
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

/// Parses a duration, or a bare number of seconds, as retry back-offs and pauses allow.
///
/// # Errors
/// As [`parse`].
pub fn parse_or_seconds(text: &str) -> Result<Duration, InvalidDuration> {
    match text.parse::<u32>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
        Err(_) => parse(text),
    }
}

/// Prints a duration as Go does: `1h30m0s`, `45s`, `1.5s`, `250ms`.
pub fn format(duration: Duration) -> String {
    let total = duration.as_nanos();
    if total == 0 {
        return "0s".to_owned();
    }
    let fraction = |value: f64, unit: &str| {
        let text = format!("{value:.9}");
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    if total < 1_000 {
        return format!("{total}ns");
    }
    if total < 1_000_000 {
        return fraction(total as f64 / 1e3, "µs");
    }
    if total < 1_000_000_000 {
        return fraction(total as f64 / 1e6, "ms");
    }
    let (hours, minutes) = (duration.as_secs() / 3600, duration.as_secs() / 60 % 60);
    let seconds = (duration.as_secs() % 60) as f64 + f64::from(duration.subsec_nanos()) / 1e9;
    let seconds = fraction(seconds, "s");
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, m) => format!("{m}m{seconds}"),
        (h, m) => format!("{h}h{m}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_go_parses() {
        for (text, millis) in [
            ("0", 0),
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("100ms", 100),
            ("+2m", 120_000),
            ("1m0.5s", 60_500),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1x", "1d", "ten", "1h-5m"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse_or_seconds("180"), Ok(Duration::from_secs(180)));
    }

    #[test]
    fn prints_what_go_prints() {
        for (millis, text) in
            [(0, "0s"), (250, "250ms"), (1_500, "1.5s"), (45_000, "45s"), (120_000, "2m0s"), (5_400_000, "1h30m0s")]
        {
            assert_eq!(format(Duration::from_millis(millis)), text);
        }
    }
}
