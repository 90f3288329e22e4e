//! Times, durations and zones: the functions that make them, their methods, and Go's layouts.

mod layout;

use super::operators::{int, moved};
use super::value::Value;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::sync::Arc;

pub(super) use layout::format;

const SECOND: i64 = 1_000_000_000;

/// What `date` tries without a layout.
const LAYOUTS: [&str; 7] = [
    "2006-01-02",
    "15:04:05",
    "2006-01-02 15:04:05",
    "2006-01-02T15:04:05Z07:00",
    "02 Jan 06 15:04 MST",
    "Monday, 02-Jan-06 15:04:05 MST",
    "Mon, 02 Jan 2006 15:04:05 MST",
];

/// `now`, `duration`, `date` and `timezone`.
pub(super) fn call(now: Timestamp, name: &str, arguments: &[Value]) -> Result<Value, String> {
    let text = |at: usize| match arguments.get(at) {
        Some(Value::Str(text)) => Ok(&**text),
        other => {
            let found = other.unwrap_or(&Value::Nil).type_name();
            Err(format!("cannot use {found} as argument (type string) to call {name}"))
        }
    };
    match name {
        "now" => match arguments.first() {
            None => Ok(time(now.to_zoned(TimeZone::UTC))),
            Some(Value::Zone(zone)) => Ok(time(now.to_zoned(zone.clone()))),
            Some(other) => {
                Err(format!("cannot use {} as argument (type *time.Location) to call now", other.type_name()))
            }
        },
        "duration" => parse_duration(text(0)?).map(Value::Duration),
        "timezone" => zone(text(0)?).map(Value::Zone),
        _ => {
            let (given, first) = match arguments.first() {
                Some(Value::Zone(zone)) => (Some(zone.clone()), 1),
                _ => (None, 0),
            };
            let date = text(first)?;
            let given = if arguments.len() > first + 2 { Some(zone(text(first + 2)?)?) } else { given };
            let given = given.unwrap_or(TimeZone::UTC);
            if arguments.len() > first + 1 {
                return layout::parse(date, text(first + 1)?, &given).map(time);
            }
            match LAYOUTS.iter().find_map(|layout| layout::parse(date, layout, &given).ok()) {
                Some(parsed) => Ok(time(parsed)),
                None => Err(format!("invalid date {date}")),
            }
        }
    }
}

fn time(time: Zoned) -> Value {
    Value::Time(Arc::new(time))
}

fn zone(name: &str) -> Result<TimeZone, String> {
    match name {
        "" | "UTC" | "Local" => Ok(TimeZone::UTC),
        _ => TimeZone::get(name).map_err(|_| format!("unknown time zone {name}")),
    }
}

/// Reads a duration in Go's syntax, with a sign.
pub(super) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if negative && rest.starts_with('+') {
        return Err(invalid());
    }
    let duration = tidegate_crds::duration::parse(rest).map_err(|_| invalid())?;
    let nanos = i64::try_from(duration.as_nanos()).map_err(|_| invalid())?;
    Ok(if negative { -nanos } else { nanos })
}

/// Prints a duration as Go does, with a sign.
pub(super) fn duration(nanos: i64) -> String {
    let text = tidegate_crds::duration::format(std::time::Duration::from_nanos(nanos.unsigned_abs()));
    if nanos < 0 { format!("-{text}") } else { text }
}

/// `base.name(arguments)`. Only times and durations have methods.
pub(super) fn method(base: &Value, name: &str, arguments: &[Value]) -> Result<Value, String> {
    match base {
        Value::Time(time) => time_method(time, name, arguments),
        Value::Duration(nanos) => duration_method(*nanos, name, arguments),
        Value::Zone(zone) if name == "String" => Ok(Value::text(zone.iana_name().unwrap_or("UTC"))),
        _ => Err(format!("type {} has no method {name}", base.type_name())),
    }
}

fn time_method(t: &Zoned, name: &str, arguments: &[Value]) -> Result<Value, String> {
    let wrong = |wanted: &str| {
        let found = arguments.first().unwrap_or(&Value::Nil).type_name();
        format!("cannot use {found} as argument (type {wanted}) to call {name}")
    };
    let other = || match arguments.first() {
        Some(Value::Time(other)) => Ok(other),
        _ => Err(wrong("time.Time")),
    };
    let span = || match arguments.first() {
        Some(Value::Duration(nanos)) => Ok(*nanos),
        _ => Err(wrong("time.Duration")),
    };
    Ok(match name {
        "Year" => Value::Int(t.year().into()),
        "Month" => Value::Int(t.month().into()),
        "Day" => Value::Int(t.day().into()),
        "Hour" => Value::Int(t.hour().into()),
        "Minute" => Value::Int(t.minute().into()),
        "Second" => Value::Int(t.second().into()),
        "Nanosecond" => Value::Int(t.subsec_nanosecond().into()),
        "Weekday" => Value::Int(t.weekday().to_sunday_zero_offset().into()),
        "YearDay" => Value::Int(t.day_of_year().into()),
        "Unix" => Value::Int(t.timestamp().as_second()),
        "UnixMilli" => Value::Int(t.timestamp().as_millisecond()),
        "UnixMicro" => Value::Int(t.timestamp().as_microsecond()),
        "UnixNano" => Value::Int(t.timestamp().as_nanosecond() as i64),
        "UTC" => time(t.with_time_zone(TimeZone::UTC)),
        "Local" => time(t.with_time_zone(TimeZone::UTC)),
        "In" => match arguments.first() {
            Some(Value::Zone(zone)) => time(t.with_time_zone(zone.clone())),
            _ => return Err(wrong("*time.Location")),
        },
        "Location" => Value::Zone(t.time_zone().clone()),
        "Add" => moved(t, span()?)?,
        "Sub" => super::operators::arithmetic(
            super::ast::Binary::Subtract,
            &Value::Time(Arc::new(t.clone())),
            &Value::Time(other()?.clone()),
        )?,
        "AddDate" => {
            let part = |at: usize| int(arguments.get(at).unwrap_or(&Value::Nil));
            let span = jiff::Span::new()
                .try_years(part(0)?)
                .and_then(|s| s.try_months(part(1).unwrap_or_default()))
                .and_then(|s| s.try_days(part(2).unwrap_or_default()))
                .map_err(|error| format!("AddDate: {error}"))?;
            time(t.checked_add(span).map_err(|error| format!("AddDate: {error}"))?)
        }
        "After" => Value::Bool(t.timestamp() > other()?.timestamp()),
        "Before" => Value::Bool(t.timestamp() < other()?.timestamp()),
        "Equal" => Value::Bool(t.timestamp() == other()?.timestamp()),
        "Compare" => Value::Int(t.timestamp().cmp(&other()?.timestamp()) as i64),
        "IsZero" => Value::Bool(t.datetime() == DateTime::constant(1, 1, 1, 0, 0, 0, 0) && t.offset().seconds() == 0),
        "Truncate" | "Round" => {
            let step = span()?;
            let nanos = t.timestamp().as_nanosecond();
            let over = if step > 0 { nanos.rem_euclid(step.into()) } else { 0 };
            let up = name == "Round" && over * 2 >= i128::from(step) && step > 0;
            let rounded = nanos - over + if up { i128::from(step) } else { 0 };
            let stamp = Timestamp::from_nanosecond(rounded).map_err(|error| format!("{name}: {error}"))?;
            time(stamp.to_zoned(t.time_zone().clone()))
        }
        "Format" => match arguments.first() {
            Some(Value::Str(layout)) => Value::text(format(t, layout)),
            _ => return Err(wrong("string")),
        },
        "String" => Value::text(super::format::text(&Value::Time(Arc::new(t.clone())))),
        _ => return Err(format!("type time.Time has no method {name}")),
    })
}

fn duration_method(nanos: i64, name: &str, arguments: &[Value]) -> Result<Value, String> {
    let step = || match arguments.first() {
        Some(Value::Duration(step)) => Ok(*step),
        other => {
            let found = other.unwrap_or(&Value::Nil).type_name();
            Err(format!("cannot use {found} as argument (type time.Duration) to call {name}"))
        }
    };
    Ok(match name {
        "Hours" => Value::Float(nanos as f64 / (3600 * SECOND) as f64),
        "Minutes" => Value::Float(nanos as f64 / (60 * SECOND) as f64),
        "Seconds" => Value::Float(nanos as f64 / SECOND as f64),
        "Milliseconds" => Value::Int(nanos / 1_000_000),
        "Microseconds" => Value::Int(nanos / 1_000),
        "Nanoseconds" => Value::Int(nanos),
        "Abs" => Value::Duration(nanos.saturating_abs()),
        "String" => Value::text(duration(nanos)),
        "Truncate" => {
            let step = step()?;
            Value::Duration(if step > 0 { nanos - nanos % step } else { nanos })
        }
        "Round" => {
            let step = step()?;
            if step <= 0 {
                return Ok(Value::Duration(nanos));
            }
            let over = nanos % step;
            let away = if over.unsigned_abs() * 2 >= step.unsigned_abs() { step * nanos.signum() } else { 0 };
            Value::Duration((nanos - over).saturating_add(away))
        }
        _ => return Err(format!("type time.Duration has no method {name}")),
    })
}
