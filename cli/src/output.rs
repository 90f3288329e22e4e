//! What goes to the terminal: tables, colours, ages, JSON and YAML.

use anyhow::Result;
use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;
use std::io::IsTerminal;

/// Rows whose columns are aligned with two spaces between them. The last column of a row is not padded.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a first row of titles.
    pub fn with_header(titles: &[&str]) -> Self {
        Self { rows: vec![titles.iter().map(|title| (*title).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// The text, each row with a line end and without spaces before it.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for line in self.lines() {
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// The text with every column padded, the last one too, as tables that pad each cell print them.
    pub fn render_padded(&self) -> String {
        let widths = self.widths();
        let mut out = String::new();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                out.push_str(cell);
                let pad = widths[column] - width(cell);
                let gap = if column + 1 < row.len() { 2 } else { 0 };
                out.extend(std::iter::repeat_n(' ', pad + gap));
            }
            out.push('\n');
        }
        out
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        (0..columns)
            .map(|c| self.rows.iter().filter_map(|r| r.get(c)).map(|cell| width(cell)).max().unwrap_or(0))
            .collect()
    }

    fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let widths = self.widths();
        self.rows.iter().map(move |row| {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                line.push_str(cell);
                if column + 1 < row.len() {
                    line.extend(std::iter::repeat_n(' ', widths[column] - width(cell) + 2));
                }
            }
            line
        })
    }
}

/// Columns that a text takes on a terminal. Colour codes take none.
pub fn width(text: &str) -> usize {
    let mut columns = 0;
    let mut code = false;
    for c in text.chars() {
        match (code, c) {
            (false, '\u{1b}') => code = true,
            (true, 'm') => code = false,
            (true, _) => {}
            (false, _) => columns += 1,
        }
    }
    columns
}

/// A colour of a text on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Good.
    Green,
    /// Bad.
    Red,
    /// Look at it.
    Yellow,
    /// Going on.
    Blue,
    /// Neither here nor there.
    Gray,
}

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    /// Colours when standard output is a terminal, the user did not refuse them and `NO_COLOR` is not set.
    pub fn for_stdout(no_color: bool) -> Self {
        let refused = no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(!refused && std::io::stdout().is_terminal())
    }

    /// `text` in `color`.
    pub fn apply(self, color: Color, text: &str) -> String {
        if !self.0 || text.is_empty() {
            return text.to_owned();
        }
        let code = match color {
            Color::Green => 32,
            Color::Red => 31,
            Color::Yellow => 33,
            Color::Blue => 34,
            Color::Gray => 90,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The table or tree, with all columns.
    Wide,
    /// Names only, one a line.
    Name,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Prints a value as JSON with indents, or as YAML.
///
/// # Errors
/// When the value cannot be written in that format.
pub fn document<T: Serialize>(value: &T, format: Format) -> Result<String> {
    Ok(match format {
        Format::Yaml => {
            let mut text = serde_saphyr::to_string(&serde_json::to_value(value)?)?;
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text
        }
        _ => serde_json::to_string_pretty(value)? + "\n",
    })
}

/// Takes the fields out that nobody wants to read: who manages what.
pub fn without_managed_fields(mut object: kube::api::DynamicObject) -> kube::api::DynamicObject {
    object.metadata.managed_fields = None;
    object
}

/// Standard output, in one write, so that a reader that goes away ends the command without a panic.
///
/// # Errors
/// When standard output cannot be written, except when its reader went away.
pub fn print(text: &str) -> Result<()> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// The length of a time as kubectl shows ages: two units while small, one when large.
pub fn human(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let s = seconds.max(0);
    let two = |big: i64, big_unit: char, small: i64, small_unit: char| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    let (minutes, hours, days) = (s / 60, s / 3600, s / 86_400);
    match s {
        0..120 => format!("{s}s"),
        120..600 => two(minutes, 'm', s % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

/// The age of something made at `at`; `<unknown>` when nobody knows when.
pub fn age(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| "<unknown>".to_owned(), |at| human(now.as_second() - at.as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_columns_and_ignores_colour_codes() {
        let mut table = Table::with_header(&["NAME", "STATUS", "AGE"]);
        table.push(vec!["a-long-name".into(), Paint(true).apply(Color::Green, "Ok"), "1s".into()]);
        table.push(vec!["b".into(), "Progressing".into()]);
        assert_eq!(
            table.render(),
            "NAME         STATUS       AGE\na-long-name  \u{1b}[32mOk\u{1b}[0m           1s\nb            Progressing\n"
        );
        let mut padded = Table::with_header(&["A", "B"]);
        padded.push(vec!["xyz".into(), "1".into()]);
        padded.push(vec!["x".into(), "123".into()]);
        assert_eq!(padded.render_padded(), "A    B  \nxyz  1  \nx    123\n");
    }

    #[test]
    fn shows_ages_as_kubectl_does() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (217, "3m37s"),
            (600, "10m"),
            (7_199, "119m"),
            (10_800, "3h"),
            (14_399, "3h59m"),
            (90_000, "25h"),
            (172_800, "2d"),
            (604_800, "7d"),
            (608_400, "7d1h"),
            (864_000, "10d"),
            (31_536_000 * 3 + 86_400, "3y1d"),
            (31_536_000 * 9, "9y"),
        ] {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn prints_yaml_and_json() {
        let value = serde_json::json!({"kind": "Rollout", "spec": {"replicas": 1, "list": ["a"]}});
        assert_eq!(document(&value, Format::Yaml).unwrap(), "kind: Rollout\nspec:\n  list:\n  - a\n  replicas: 1\n");
        assert!(document(&value, Format::Json).unwrap().starts_with("{\n  \"kind\": \"Rollout\""));
    }
}
