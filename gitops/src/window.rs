//! Sync windows: when applications of a project may sync.

use crate::glob;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use std::time::Duration;
use tidegate_crds::duration;
use tidegate_crds::project::SyncWindow;

/// How many days ahead a schedule is looked for: 29 February of a given weekday comes within 28 years, but a window so
/// rare is as good as none.
const HORIZON_DAYS: i32 = 366 * 5;

/// Why a window cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sync window {field}: found {found:?}, expected {expected}")]
pub struct InvalidWindow {
    /// The field.
    pub field: &'static str,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: &'static str,
}

/// A schedule of five fields: minute, hour, day of month, month, day of week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// When the text is no schedule of five fields.
    pub fn parse(text: &str) -> Result<Self, InvalidWindow> {
        let invalid = || InvalidWindow {
            field: "schedule",
            found: text.to_owned(),
            expected: "five fields of cron: minute, hour, day of month, month, day of week",
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else { return Err(invalid()) };
        let field = |text: &str, least, most, names| parse_field(text, least, most, names).ok_or_else(invalid);
        let mut weekdays = field(weekday, 0, 7, WEEKDAYS)?;
        // Sunday is 0 and 7.
        if weekdays & (1 << 7) != 0 {
            weekdays |= 1;
        }
        Ok(Self {
            minutes: field(minute, 0, 59, &[])?,
            hours: field(hour, 0, 23, &[])?,
            days: field(day, 1, 31, &[])?,
            months: field(month, 1, 12, MONTHS)?,
            weekdays,
            any_day: matches!(day.chars().next(), Some('*' | '?')),
            any_weekday: matches!(weekday.chars().next(), Some('*' | '?')),
        })
    }

    fn is_on(&self, date: Date) -> bool {
        let has = |set: u64, value: i8| u32::try_from(value).is_ok_and(|v| v < 64 && set & (1 << v) != 0);
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        // Two restrictions of the day are alternatives.
        let on_day = if self.any_day || self.any_weekday { day && weekday } else { day || weekday };
        has(self.months, date.month()) && on_day
    }

    /// The times of day, in order.
    fn times(&self) -> impl DoubleEndedIterator<Item = Time> + '_ {
        let in_set = |set: u64, most: i8| (0..most).filter(move |v| set & (1u64 << v.unsigned_abs()) != 0);
        in_set(self.hours, 24).flat_map(move |hour| {
            let times: Vec<Time> =
                in_set(self.minutes, 60).filter_map(|minute| Time::new(hour, minute, 0, 0).ok()).collect();
            times
        })
    }

    fn instants(&self, date: Date, zone: &TimeZone) -> Vec<Timestamp> {
        if !self.is_on(date) {
            return Vec::new();
        }
        let instant = |time: Time| date.to_datetime(time).to_zoned(zone.clone()).ok().map(|z| z.timestamp());
        self.times().filter_map(instant).collect()
    }

    /// The last time at or before `now`, if it is less than `within` ago.
    pub fn last(&self, now: Timestamp, within: Duration, zone: &TimeZone) -> Option<Timestamp> {
        let earliest = now.checked_sub(within).ok()?;
        let mut date = now.to_zoned(zone.clone()).date();
        let first = earliest.to_zoned(zone.clone()).date();
        while date >= first {
            let found = self.instants(date, zone).into_iter().rev().find(|at| *at <= now);
            if let Some(at) = found {
                return (at > earliest).then_some(at);
            }
            date = date.checked_sub(1.day()).ok()?;
        }
        None
    }

    /// The next time after `now`.
    pub fn next(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut date = now.to_zoned(zone.clone()).date();
        for _ in 0..HORIZON_DAYS {
            if let Some(at) = self.instants(date, zone).into_iter().find(|at| *at > now) {
                return Some(at);
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }
}

/// A set of numbers as bits.
fn parse_field(text: &str, least: u32, most: u32, names: &[&str]) -> Option<u64> {
    let number = |text: &str| {
        let named = names.iter().position(|n| text.eq_ignore_ascii_case(n));
        match named {
            Some(index) => u32::try_from(index).ok().map(|index| index + if names.len() == 12 { 1 } else { 0 }),
            None => text.parse::<u32>().ok(),
        }
    };
    let mut set = 0u64;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse::<u32>().ok().filter(|s| *s > 0)?),
            None => (part, 1),
        };
        let (from, to) = match range {
            "*" | "?" => (least, most),
            _ => match range.split_once('-') {
                Some((from, to)) => (number(from)?, number(to)?),
                // A single number with a step runs on to the end.
                None if part.contains('/') => (number(range)?, most),
                None => (number(range)?, number(range)?),
            },
        };
        if from < least || to > most || from > to {
            return None;
        }
        let mut value = from;
        while value <= to {
            set |= 1 << value;
            value += step;
        }
    }
    Some(set)
}

/// The application that a window may be about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Name of the Application.
    pub application: &'a str,
    /// Namespace of its destination.
    pub namespace: &'a str,
    /// URL of its cluster.
    pub server: &'a str,
    /// Name of its cluster.
    pub cluster: &'a str,
}

/// Whether a window is about an application.
pub fn is_about(window: &SyncWindow, subject: &Subject<'_>) -> bool {
    let any =
        |patterns: &[String], texts: &[&str]| patterns.iter().any(|p| texts.iter().any(|text| glob::matches(p, text)));
    let checks = [
        (&window.applications, any(&window.applications, &[subject.application])),
        (&window.namespaces, any(&window.namespaces, &[subject.namespace])),
        (&window.clusters, any(&window.clusters, &[subject.server, subject.cluster])),
    ];
    let given = checks.iter().filter(|(patterns, _)| !patterns.is_empty());
    if window.and_operator {
        given.clone().count() > 0 && given.clone().all(|(_, found)| *found)
    } else {
        given.clone().any(|(_, found)| *found)
    }
}

/// What windows say at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Automatic syncs are blocked.
    pub blocks_auto: bool,
    /// Syncs that somebody asks for are blocked.
    pub blocks_manual: bool,
    /// A sync that began before the block may go on.
    pub lets_finish: bool,
    /// When the answer may change.
    pub changes_at: Option<Timestamp>,
    /// Windows that could not be read and were left out.
    pub invalid: Vec<InvalidWindow>,
}

struct Reading {
    schedule: Schedule,
    duration: Duration,
    zone: TimeZone,
}

fn read(window: &SyncWindow) -> Result<Reading, InvalidWindow> {
    let invalid = |field, found: &str, expected| InvalidWindow { field, found: found.to_owned(), expected };
    let text = window.duration.as_deref().unwrap_or_default();
    let duration = duration::parse(text).map_err(|_| invalid("duration", text, "a duration such as 1h30m"))?;
    let name = window.time_zone.as_deref().filter(|z| !z.is_empty()).unwrap_or("UTC");
    let zone = if name == "UTC" {
        TimeZone::UTC
    } else {
        TimeZone::get(name).map_err(|_| invalid("timeZone", name, "an IANA name such as Europe/Berlin"))?
    };
    Ok(Reading { schedule: Schedule::parse(window.schedule.as_deref().unwrap_or_default())?, duration, zone })
}

/// Whether a window denies syncs; the others allow them.
fn denies(window: &SyncWindow) -> Result<bool, InvalidWindow> {
    match window.kind.as_deref().unwrap_or_default() {
        "deny" => Ok(true),
        "allow" => Ok(false),
        other => Err(InvalidWindow { field: "kind", found: other.to_owned(), expected: "allow or deny" }),
    }
}

/// Checks a window, whatever it is about.
///
/// # Errors
/// When it cannot be read; [`verdict`] leaves it out then.
pub fn check(window: &SyncWindow) -> Result<(), InvalidWindow> {
    denies(window)?;
    read(window).map(drop)
}

/// Asks the windows of a project about an application.
pub fn verdict(windows: &[SyncWindow], subject: &Subject<'_>, now: Timestamp) -> Verdict {
    let mut verdict = Verdict::default();
    let mut denials: Vec<&SyncWindow> = Vec::new();
    let mut closed: Vec<&SyncWindow> = Vec::new();
    let mut is_allowed = false;
    for window in windows.iter().filter(|w| is_about(w, subject)) {
        let (denies, reading) = match denies(window).and_then(|denies| Ok((denies, read(window)?))) {
            Ok(read) => read,
            Err(e) => {
                verdict.invalid.push(e);
                continue;
            }
        };
        let since = reading.schedule.last(now, reading.duration, &reading.zone);
        let change = match since {
            Some(since) => since.checked_add(reading.duration).ok(),
            None => reading.schedule.next(now, &reading.zone),
        };
        verdict.changes_at = verdict.changes_at.into_iter().chain(change).min();
        match (denies, since.is_some()) {
            (true, true) => denials.push(window),
            (false, true) => is_allowed = true,
            (false, false) => closed.push(window),
            (true, false) => {}
        }
    }
    let blocking = if !denials.is_empty() {
        denials
    } else if !is_allowed && !closed.is_empty() {
        closed
    } else {
        return verdict;
    };
    verdict.blocks_auto = true;
    verdict.blocks_manual = !blocking.iter().all(|w| w.manual_sync);
    verdict.lets_finish = blocking.iter().all(|w| w.sync_overrun);
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(text: &str) -> Timestamp {
        text.parse().expect("time")
    }

    fn schedule(text: &str) -> Schedule {
        Schedule::parse(text).expect("schedule")
    }

    #[test]
    fn schedules() {
        let utc = TimeZone::UTC;
        for (text, now, expected) in [
            ("0 * * * *", "2026-01-01T10:30:00Z", "2026-01-01T11:00:00Z"),
            ("*/15 * * * *", "2026-01-01T10:30:00Z", "2026-01-01T10:45:00Z"),
            ("5/20 * * * *", "2026-01-01T10:30:00Z", "2026-01-01T10:45:00Z"),
            ("0 9-17/4 * * *", "2026-01-01T10:30:00Z", "2026-01-01T13:00:00Z"),
            ("0 22 * * *", "2026-01-01T23:00:00Z", "2026-01-02T22:00:00Z"),
            ("0 0 * * 1-5", "2026-01-02T10:00:00Z", "2026-01-05T00:00:00Z"),
            ("0 0 * * mon", "2026-01-02T10:00:00Z", "2026-01-05T00:00:00Z"),
            ("0 0 * * 7", "2026-01-02T10:00:00Z", "2026-01-04T00:00:00Z"),
            ("0 0 13 * 5", "2026-01-03T10:00:00Z", "2026-01-09T00:00:00Z"),
            ("0 0 29 FEB *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0,30 1 1 1,7 ?", "2026-01-01T01:00:00Z", "2026-01-01T01:30:00Z"),
        ] {
            assert_eq!(schedule(text).next(at(now), &utc), Some(at(expected)), "{text}");
        }
        assert_eq!(schedule("0 0 31 2 *").next(at("2026-01-01T00:00:00Z"), &utc), None);
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "a * * * *",
            "5-1 * * * *",
            "*/0 * * * *",
        ] {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn local_time_counts() {
        let zone = TimeZone::get("Europe/Berlin").expect("zone");
        let daily = schedule("0 9 * * *");
        assert_eq!(daily.next(at("2026-01-01T00:00:00Z"), &zone), Some(at("2026-01-01T08:00:00Z")));
        assert_eq!(daily.next(at("2026-07-01T00:00:00Z"), &zone), Some(at("2026-07-01T07:00:00Z")));
    }

    #[test]
    fn the_last_time_within_a_while() {
        let daily = schedule("0 22 * * *");
        let hours = |h: u64| Duration::from_secs(h * 3600);
        let utc = TimeZone::UTC;
        assert_eq!(daily.last(at("2026-01-02T03:00:00Z"), hours(8), &utc), Some(at("2026-01-01T22:00:00Z")));
        assert_eq!(daily.last(at("2026-01-02T06:00:00Z"), hours(8), &utc), None, "over at the very end");
        assert_eq!(daily.last(at("2026-01-01T22:00:00Z"), hours(8), &utc), Some(at("2026-01-01T22:00:00Z")));
    }

    const SUBJECT: Subject<'_> =
        Subject { application: "web", namespace: "prod", server: "https://k", cluster: "in-cluster" };

    #[test]
    fn whom_a_window_is_about() {
        for (window, expected) in [
            (json!({}), false),
            (json!({"applications": ["w*"]}), true),
            (json!({"applications": ["x"], "namespaces": ["prod"]}), true),
            (json!({"applications": ["x"], "namespaces": ["prod"], "andOperator": true}), false),
            (json!({"applications": ["web"], "namespaces": ["prod"], "andOperator": true}), true),
            (json!({"clusters": ["in-cluster"]}), true),
            (json!({"clusters": ["https://*"]}), true),
        ] {
            let parsed: SyncWindow = serde_json::from_value(window.clone()).expect("window");
            assert_eq!(is_about(&parsed, &SUBJECT), expected, "{window}");
        }
    }

    /// Windows from 10:00 to 11:00, asked at 10:30 (open) or 12:00 (closed).
    fn ask(windows: &[Value], time: &str) -> (bool, bool, bool) {
        let windows: Vec<SyncWindow> = windows
            .iter()
            .map(|extra| {
                let mut window = json!({"schedule": "0 10 * * *", "duration": "1h", "applications": ["*"]});
                tidegate_crds::patch::merge_apply(&mut window, extra);
                serde_json::from_value(window).expect("window")
            })
            .collect();
        let verdict = verdict(&windows, &SUBJECT, at(&format!("2026-01-01T{time}:00Z")));
        (verdict.blocks_auto, verdict.blocks_manual, verdict.lets_finish)
    }

    #[test]
    fn rules() {
        let (allow, deny) = (json!({"kind": "allow"}), json!({"kind": "deny"}));
        let with = |kind: &str, key: &str| json!({"kind": kind, key: true});
        for (windows, time, expected) in [
            (vec![], "10:30", (false, false, false)),
            (vec![deny.clone()], "10:30", (true, true, false)),
            (vec![deny.clone()], "12:00", (false, false, false)),
            (vec![with("deny", "manualSync")], "10:30", (true, false, false)),
            (vec![with("deny", "manualSync"), deny.clone()], "10:30", (true, true, false)),
            (vec![allow.clone()], "10:30", (false, false, false)),
            (vec![allow.clone()], "12:00", (true, true, false)),
            (vec![with("allow", "manualSync")], "12:00", (true, false, false)),
            (vec![allow.clone(), with("allow", "manualSync")], "12:00", (true, true, false)),
            (vec![allow, deny.clone()], "10:30", (true, true, false)),
            (vec![with("deny", "syncOverrun")], "10:30", (true, true, true)),
            (vec![with("deny", "syncOverrun"), deny], "10:30", (true, true, false)),
        ] {
            assert_eq!(ask(&windows, time), expected, "{windows:?} {time}");
        }
    }

    #[test]
    fn windows_that_cannot_be_read_are_told_and_left_out() {
        for (window, field) in [
            (json!({"kind": "forbid"}), "kind"),
            (json!({"kind": "deny", "schedule": "often", "duration": "1h"}), "schedule"),
            (json!({"kind": "deny", "schedule": "* * * * *", "duration": "long"}), "duration"),
            (json!({"kind": "deny", "schedule": "* * * * *", "duration": "1h", "timeZone": "Mars/One"}), "timeZone"),
        ] {
            let mut window = window;
            window["applications"] = json!(["*"]);
            let window: SyncWindow = serde_json::from_value(window).expect("window");
            let verdict = verdict(&[window], &SUBJECT, at("2026-01-01T10:30:00Z"));
            assert!(!verdict.blocks_auto);
            let fields: Vec<_> = verdict.invalid.iter().map(|i| i.field).collect();
            assert_eq!(fields, [field]);
        }
    }

    #[test]
    fn the_next_change_is_told() {
        let window: SyncWindow = serde_json::from_value(
            json!({"kind": "deny", "schedule": "0 10 * * *", "duration": "1h", "applications": ["*"]}),
        )
        .expect("window");
        let change = |time: &str| verdict(std::slice::from_ref(&window), &SUBJECT, at(time)).changes_at;
        assert_eq!(change("2026-01-01T10:30:00Z"), Some(at("2026-01-01T11:00:00Z")));
        assert_eq!(change("2026-01-01T11:00:00Z"), Some(at("2026-01-02T10:00:00Z")));
    }
}
