//! Kubernetes quantities: `1000m` and `1` are the same amount.

use serde_json::Value;

/// The amount in units of 10⁻⁹, or `None` when the value is no quantity or does not fit.
pub fn nanos(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => parse(text.trim()),
        Value::Number(number) => parse(&number.to_string()),
        _ => None,
    }
}

/// Whether two values are the same quantity. Values that are no quantities are compared as they are.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (nanos(a), nanos(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn parse(text: &str) -> Option<i128> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = i32::try_from(fraction.len()).ok()?;
    let binary = |power: u32| Some((0, 1024i128.checked_pow(power)?));
    let (exponent, factor) = match suffix {
        "" => (0, 1),
        "n" => (-9, 1),
        "u" => (-6, 1),
        "m" => (-3, 1),
        "k" => (3, 1),
        "M" => (6, 1),
        "G" => (9, 1),
        "T" => (12, 1),
        "P" => (15, 1),
        "E" => (18, 1),
        "Ki" => binary(1)?,
        "Mi" => binary(2)?,
        "Gi" => binary(3)?,
        "Ti" => binary(4)?,
        "Pi" => binary(5)?,
        "Ei" => binary(6)?,
        _ => (suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?, 1),
    };
    let mut amount = digits.checked_mul(factor)?;
    // Amounts below a nano are rounded up, as the API server does.
    let power = exponent.checked_add(9)?.checked_sub(scale)?;
    if power >= 0 {
        amount = amount.checked_mul(10i128.checked_pow(power.unsigned_abs())?)?;
    } else {
        let divisor = 10i128.checked_pow(power.unsigned_abs())?;
        amount = amount / divisor + i128::from(amount % divisor != 0);
    }
    Some(if negative { -amount } else { amount })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn same_amounts() {
        for (a, b) in [
            (json!("1000m"), json!("1")),
            (json!(1), json!("1")),
            (json!(0.5), json!("500m")),
            (json!("1Gi"), json!("1024Mi")),
            (json!("1k"), json!("1e3")),
            (json!("1.5Gi"), json!("1536Mi")),
            (json!("-1"), json!("-1000m")),
            (json!("0"), json!("0Mi")),
        ] {
            assert!(equal(&a, &b), "{a} {b}");
        }
    }

    #[test]
    fn other_amounts_and_other_texts() {
        for (a, b) in [
            (json!("1000m"), json!("1001m")),
            (json!("1G"), json!("1Gi")),
            (json!("50%"), json!("0.5")),
            (json!("abc"), json!("abd")),
            (json!(""), json!("0")),
        ] {
            assert!(!equal(&a, &b), "{a} {b}");
        }
        assert_eq!(nanos(&json!("1.2.3")), None);
        assert_eq!(nanos(&json!("99999999999999999999999999999999999999999")), None);
    }

    proptest! {
        #[test]
        fn thousandths_and_ones_agree(n in 0i64..1_000_000) {
            let ones = format!("{}", n);
            let thousandths = format!("{}m", n * 1000);
            prop_assert!(equal(&json!(ones), &json!(thousandths)));
        }

        #[test]
        fn never_fails(text in "\\PC{0,12}") {
            let _ = nanos(&json!(text));
        }
    }
}
