//! Go's layouts, which spell the time Monday 2 January 2006, 15:04:05 in zone MST (-0700) as an example.

use jiff::Zoned;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};

/// A part of a layout.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part<'a> {
    Text(&'a str),
    LongMonth,
    Month,
    NumberMonth {
        padded: bool,
    },
    LongWeekday,
    Weekday,
    Day {
        width: u8,
        pad: char,
    },
    YearDay {
        pad: char,
    },
    Hour24,
    Hour12 {
        padded: bool,
    },
    Minute {
        padded: bool,
    },
    Second {
        padded: bool,
    },
    Year,
    ShortYear,
    Half {
        upper: bool,
    },
    ZoneName,
    Offset {
        utc: bool,
        colon: bool,
        minutes: bool,
        seconds: bool,
    },
    /// Digits after the sign `.` or `,`; all of them, or those that are no trailing zeros.
    Fraction {
        digits: usize,
        trim: bool,
        sign: char,
    },
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Spellings, each before its prefixes.
const SPELLINGS: [(&str, Part<'static>); 34] = [
    ("January", Part::LongMonth),
    ("Jan", Part::Month),
    ("Monday", Part::LongWeekday),
    ("Mon", Part::Weekday),
    ("MST", Part::ZoneName),
    ("01", Part::NumberMonth { padded: true }),
    ("02", Part::Day { width: 2, pad: '0' }),
    ("03", Part::Hour12 { padded: true }),
    ("04", Part::Minute { padded: true }),
    ("05", Part::Second { padded: true }),
    ("06", Part::ShortYear),
    ("002", Part::YearDay { pad: '0' }),
    ("15", Part::Hour24),
    ("1", Part::NumberMonth { padded: false }),
    ("2006", Part::Year),
    ("2", Part::Day { width: 1, pad: ' ' }),
    ("__2", Part::YearDay { pad: ' ' }),
    // An underscore before the year is text.
    ("_2006", Part::Text("_")),
    ("_2", Part::Day { width: 2, pad: ' ' }),
    ("3", Part::Hour12 { padded: false }),
    ("4", Part::Minute { padded: false }),
    ("5", Part::Second { padded: false }),
    ("PM", Part::Half { upper: true }),
    ("pm", Part::Half { upper: false }),
    ("-070000", Part::Offset { utc: false, colon: false, minutes: true, seconds: true }),
    ("-07:00:00", Part::Offset { utc: false, colon: true, minutes: true, seconds: true }),
    ("-0700", Part::Offset { utc: false, colon: false, minutes: true, seconds: false }),
    ("-07:00", Part::Offset { utc: false, colon: true, minutes: true, seconds: false }),
    ("-07", Part::Offset { utc: false, colon: false, minutes: false, seconds: false }),
    ("Z070000", Part::Offset { utc: true, colon: false, minutes: true, seconds: true }),
    ("Z07:00:00", Part::Offset { utc: true, colon: true, minutes: true, seconds: true }),
    ("Z0700", Part::Offset { utc: true, colon: false, minutes: true, seconds: false }),
    ("Z07:00", Part::Offset { utc: true, colon: true, minutes: true, seconds: false }),
    ("Z07", Part::Offset { utc: true, colon: false, minutes: false, seconds: false }),
];

/// Cuts a layout into its parts.
fn parts(layout: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut text = 0;
    let mut at = 0;
    while at < layout.len() {
        if let Some((part, length)) = part(&layout[at..]) {
            if text < at {
                parts.push(Part::Text(&layout[text..at]));
            }
            parts.push(part);
            at += length;
            text = at;
        } else {
            at += layout[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    if text < layout.len() {
        parts.push(Part::Text(&layout[text..]));
    }
    parts
}

fn part(rest: &str) -> Option<(Part<'static>, usize)> {
    let sign = rest.chars().next()?;
    if sign == '.' || sign == ',' {
        let digit = rest.chars().nth(1).filter(|c| *c == '0' || *c == '9')?;
        let digits = rest[1..].chars().take_while(|c| *c == digit).count();
        let ends = !rest[1 + digits..].starts_with(|c: char| c.is_ascii_digit());
        return ends.then_some((Part::Fraction { digits, trim: digit == '9', sign }, 1 + digits));
    }
    let (spelling, part) = SPELLINGS.iter().find(|(s, _)| rest.starts_with(s))?;
    match part {
        Part::Text(text) => Some((*part, text.len())),
        // Mon and Jan inside of longer words are text.
        Part::Month | Part::Weekday if rest[spelling.len()..].starts_with(|c: char| c.is_ascii_lowercase()) => None,
        _ => Some((*part, spelling.len())),
    }
}

/// Prints a time in a layout.
pub(in crate::expr) fn format(time: &Zoned, layout: &str) -> String {
    let mut out = String::new();
    let hour12 = match time.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    for part in parts(layout) {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::LongMonth => out.push_str(MONTHS[month_index(time)]),
            Part::Month => out.push_str(&MONTHS[month_index(time)][..3]),
            Part::NumberMonth { padded } => out.push_str(&number(time.month().into(), if padded { 2 } else { 1 }, '0')),
            Part::LongWeekday => out.push_str(WEEKDAYS[weekday_index(time)]),
            Part::Weekday => out.push_str(&WEEKDAYS[weekday_index(time)][..3]),
            Part::Day { width, pad } => out.push_str(&number(time.day().into(), width, pad)),
            Part::YearDay { pad } => out.push_str(&number(time.day_of_year().into(), 3, pad)),
            Part::Hour24 => out.push_str(&number(time.hour().into(), 2, '0')),
            Part::Hour12 { padded } => out.push_str(&number(hour12.into(), if padded { 2 } else { 1 }, '0')),
            Part::Minute { padded } => out.push_str(&number(time.minute().into(), if padded { 2 } else { 1 }, '0')),
            Part::Second { padded } => out.push_str(&number(time.second().into(), if padded { 2 } else { 1 }, '0')),
            Part::Year => out.push_str(&number(time.year().into(), 4, '0')),
            Part::ShortYear => out.push_str(&number(i64::from(time.year()).rem_euclid(100), 2, '0')),
            Part::Half { upper } => out.push_str(match (time.hour() >= 12, upper) {
                (true, true) => "PM",
                (true, false) => "pm",
                (false, true) => "AM",
                (false, false) => "am",
            }),
            Part::ZoneName => {
                let info = time.time_zone().to_offset_info(time.timestamp());
                let name = info.abbreviation();
                // A fixed offset has no name but the offset.
                out.push_str(&if time.offset().seconds() == 0 && !name.starts_with(char::is_alphabetic) {
                    "UTC".to_owned()
                } else if name.starts_with(char::is_alphabetic) {
                    name.to_owned()
                } else {
                    offset(time.offset().seconds(), false, true, false)
                });
            }
            Part::Offset { utc, colon, minutes, seconds } => {
                if utc && time.offset().seconds() == 0 {
                    out.push('Z');
                } else {
                    out.push_str(&offset(time.offset().seconds(), colon, minutes, seconds));
                }
            }
            Part::Fraction { digits, trim, sign } => {
                let all = format!("{:09}", time.subsec_nanosecond());
                let shown = &all[..digits.min(9)];
                let shown = if trim { shown.trim_end_matches('0') } else { shown };
                if !shown.is_empty() {
                    out.push(sign);
                    out.push_str(shown);
                }
            }
        }
    }
    out
}

fn month_index(time: &Zoned) -> usize {
    usize::from(time.month().unsigned_abs().saturating_sub(1)).min(11)
}

fn weekday_index(time: &Zoned) -> usize {
    usize::from(time.weekday().to_sunday_zero_offset().unsigned_abs()).min(6)
}

fn number(value: i64, width: u8, pad: char) -> String {
    let digits = value.unsigned_abs().to_string();
    let sign = if value < 0 { "-" } else { "" };
    let fill = pad.to_string().repeat(usize::from(width).saturating_sub(digits.len()));
    format!("{sign}{fill}{digits}")
}

fn offset(seconds: i32, colon: bool, minutes: bool, with_seconds: bool) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    let all = seconds.unsigned_abs();
    let colon = if colon { ":" } else { "" };
    let mut out = format!("{sign}{:02}", all / 3600);
    if minutes {
        out.push_str(&format!("{colon}{:02}", all / 60 % 60));
    }
    if with_seconds {
        out.push_str(&format!("{colon}{:02}", all % 60));
    }
    out
}

/// Reads a time in a layout. What the layout leaves out is the start of year 0; without an offset in the text, the time
/// is in `zone`.
///
/// # Errors
/// When the text is not in the layout, or there is no such time.
pub(super) fn parse(text: &str, layout: &str, zone: &TimeZone) -> Result<Zoned, String> {
    let fault = |rest: &str| format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?}");
    let mut rest = text;
    let (mut year, mut month, mut day, mut year_day) = (0i16, None, None, None);
    let (mut hour, mut minute, mut second, mut nanos) = (0i8, 0i8, 0i8, 0i32);
    let mut afternoon = None;
    let mut found_zone = None;
    let parts = parts(layout);
    for (place, part) in parts.iter().enumerate() {
        let before = rest;
        let bad = || fault(before);
        match *part {
            Part::Text(literal) => rest = text_after(rest, literal).ok_or_else(bad)?,
            Part::LongMonth => month = Some(named(&mut rest, &MONTHS, usize::MAX).ok_or_else(bad)? as i8 + 1),
            Part::Month => month = Some(named(&mut rest, &MONTHS, 3).ok_or_else(bad)? as i8 + 1),
            Part::LongWeekday => {
                named(&mut rest, &WEEKDAYS, usize::MAX).ok_or_else(bad)?;
            }
            Part::Weekday => {
                named(&mut rest, &WEEKDAYS, 3).ok_or_else(bad)?;
            }
            Part::NumberMonth { padded } => {
                month = Some(digits(&mut rest, if padded { 2 } else { 1 }, 2).ok_or_else(bad)? as i8)
            }
            Part::Day { width, pad } => {
                if width == 2 && pad == ' ' {
                    rest = rest.strip_prefix(' ').unwrap_or(rest);
                }
                day = Some(digits(&mut rest, if pad == '0' { 2 } else { 1 }, 2).ok_or_else(bad)? as i8);
            }
            Part::YearDay { .. } => {
                rest = rest.trim_start_matches(' ');
                year_day = Some(digits(&mut rest, 1, 3).ok_or_else(bad)? as i16);
            }
            Part::Hour24 => hour = digits(&mut rest, 1, 2).ok_or_else(bad)? as i8,
            Part::Hour12 { padded } => hour = digits(&mut rest, if padded { 2 } else { 1 }, 2).ok_or_else(bad)? as i8,
            Part::Minute { padded } => minute = digits(&mut rest, if padded { 2 } else { 1 }, 2).ok_or_else(bad)? as i8,
            Part::Second { padded } => {
                second = digits(&mut rest, if padded { 2 } else { 1 }, 2).ok_or_else(bad)? as i8;
                // A fraction may follow seconds though the layout has none.
                let next_is_fraction = matches!(parts.get(place + 1), Some(Part::Fraction { .. }));
                if !next_is_fraction
                    && rest.starts_with(['.', ','])
                    && rest[1..].starts_with(|c: char| c.is_ascii_digit())
                {
                    nanos = fraction(&mut rest).ok_or_else(bad)?;
                }
            }
            Part::Year => year = digits(&mut rest, 4, 4).ok_or_else(bad)? as i16,
            Part::ShortYear => {
                let short = digits(&mut rest, 2, 2).ok_or_else(bad)? as i16;
                year = if short >= 69 { 1900 + short } else { 2000 + short };
            }
            Part::Half { .. } => {
                let half = rest.get(..2).ok_or_else(bad)?.to_ascii_uppercase();
                afternoon = Some(match half.as_str() {
                    "AM" => false,
                    "PM" => true,
                    _ => return Err(bad()),
                });
                rest = &rest[2..];
            }
            Part::ZoneName => {
                let length = rest.chars().take_while(char::is_ascii_uppercase).count();
                if !(3..=5).contains(&length) {
                    return Err(bad());
                }
                // An abbreviation does not say which offset is meant; the peers take it for UTC too.
                found_zone.get_or_insert(TimeZone::UTC);
                rest = &rest[length..];
            }
            Part::Offset { utc, colon, minutes, seconds } => {
                found_zone = Some(read_offset(&mut rest, utc, colon, minutes, seconds).ok_or_else(bad)?);
            }
            Part::Fraction { trim, .. } => {
                if rest.starts_with(['.', ',']) {
                    nanos = fraction(&mut rest).ok_or_else(bad)?;
                } else if !trim {
                    return Err(bad());
                }
            }
        }
    }
    if !rest.is_empty() {
        return Err(format!("parsing time {text:?}: extra text: {rest:?}"));
    }
    hour = match afternoon {
        Some(true) if hour < 12 => hour + 12,
        Some(false) if hour == 12 => 0,
        _ => hour,
    };
    let impossible = |error: jiff::Error| format!("parsing time {text:?}: {error}");
    let mut date = Date::new(year, month.unwrap_or(1), day.unwrap_or(1)).map_err(impossible)?;
    if let Some(year_day) = year_day {
        date = date.with().day_of_year(year_day).build().map_err(impossible)?;
    }
    let clock = Time::new(hour, minute, second, nanos).map_err(impossible)?;
    let zone = found_zone.unwrap_or_else(|| zone.clone());
    DateTime::from_parts(date, clock).to_zoned(zone).map_err(impossible)
}

/// The text after a literal. Spaces stand for any number of spaces.
fn text_after<'a>(mut rest: &'a str, literal: &str) -> Option<&'a str> {
    for c in literal.chars() {
        if c == ' ' {
            if !rest.is_empty() && !rest.starts_with(' ') {
                return None;
            }
            rest = rest.trim_start_matches(' ');
        } else {
            rest = rest.strip_prefix(c)?;
        }
    }
    Some(rest)
}

fn named(rest: &mut &str, names: &[&str], length: usize) -> Option<usize> {
    let found = names.iter().position(|name| {
        let name = &name[..length.min(name.len())];
        rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
    })?;
    *rest = &rest[length.min(names[found].len())..];
    Some(found)
}

fn digits(rest: &mut &str, least: usize, most: usize) -> Option<u32> {
    let count = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if count < least {
        return None;
    }
    let value = rest[..count].parse().ok()?;
    *rest = &rest[count..];
    Some(value)
}

fn fraction(rest: &mut &str) -> Option<i32> {
    let count = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
    if count == 0 {
        return None;
    }
    let text = format!("{:0<9}", &rest[1..=count.min(9)]);
    *rest = &rest[1 + count..];
    text.parse().ok()
}

fn read_offset(rest: &mut &str, utc: bool, colon: bool, minutes: bool, seconds: bool) -> Option<TimeZone> {
    if utc && rest.starts_with('Z') {
        *rest = &rest[1..];
        return Some(TimeZone::UTC);
    }
    let sign = match rest.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    *rest = &rest[1..];
    let mut total = digits(rest, 2, 2)? as i32 * 3600;
    for (wanted, unit) in [(minutes, 60), (seconds, 1)] {
        if wanted {
            if colon {
                *rest = rest.strip_prefix(':')?;
            }
            total += digits(rest, 2, 2)? as i32 * unit;
        }
    }
    match total {
        0 => Some(TimeZone::UTC),
        _ => Some(TimeZone::fixed(Offset::from_seconds(sign * total).ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for (text, layout, printed) in [
            ("2023-08-14", "2006-01-02", "2023-08-14T00:00:00Z"),
            ("14 Aug 23 09:05 UTC", "02 Jan 06 15:04 MST", "2023-08-14T09:05:00Z"),
            ("Mon, 14 Aug 2023 09:05:06 UTC", "Mon, 02 Jan 2006 15:04:05 MST", "2023-08-14T09:05:06Z"),
            ("2023-08-14T09:05:06.25+02:00", "2006-01-02T15:04:05Z07:00", "2023-08-14T09:05:06.25+02:00"),
            ("8/4/23 3:05PM", "1/2/06 3:04PM", "2023-08-04T15:05:00Z"),
            ("12:00 AM", "3:04 PM", "0000-01-01T00:00:00Z"),
            ("2023 226", "2006 002", "2023-08-14T00:00:00Z"),
            ("20230814", "20060102", "2023-08-14T00:00:00Z"),
        ] {
            let time = parse(text, layout, &TimeZone::UTC).unwrap();
            assert_eq!(format(&time, "2006-01-02T15:04:05.999999999Z07:00"), printed, "{text}");
        }
        let time = parse("2023-08-04 05:06:07", "2006-01-02 15:04:05", &TimeZone::UTC).unwrap();
        for (layout, printed) in [
            ("Monday, January _2 2006", "Friday, August  4 2023"),
            ("Mon Jan 2", "Fri Aug 4"),
            ("03:04:05.000 pm -0700 MST", "05:06:07.000 am +0000 UTC"),
            ("002 Z0700 06", "216 Z 23"),
            ("Month", "Month"),
        ] {
            assert_eq!(format(&time, layout), printed, "{layout}");
        }
    }

    #[test]
    fn refuses_other_texts() {
        for (text, layout) in [
            ("2023-13-01", "2006-01-02"),
            ("2023-02-30", "2006-01-02"),
            ("2023-08-14x", "2006-01-02"),
            ("23-08-14", "2006-01-02"),
            ("25:00", "15:04"),
            ("", "2006"),
            ("ü", "PM"),
        ] {
            assert!(parse(text, layout, &TimeZone::UTC).is_err(), "{text} {layout}");
        }
    }
}
