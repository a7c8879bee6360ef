//! What `tern config check` prints: every setting, or every problem.

use std::fmt::Write as _;

use super::table::{SETTINGS, Setting};
use super::{Problem, Reading, Settings};

impl Settings {
    /// Every setting as `config check` shows it: its key and its value.
    pub fn shown(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        SETTINGS.iter().map(|setting| {
            let value = if setting.is_secret() { "********".to_owned() } else { (setting.show)(self) };
            (setting.key, value)
        })
    }
}

impl Reading {
    /// Everything that is wrong; empty when the broker would start with these settings.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The settings, where a problem leaves its setting at the default.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Every setting with its value, default, unit, source and reason, one a line.
    pub fn table(&self) -> String {
        let head = ["SETTING", "VALUE", "DEFAULT", "UNIT", "SOURCE", "REASON"].map(str::to_owned);
        let rows: Vec<[String; 6]> = std::iter::once(head).chain(SETTINGS.iter().map(|row| self.row(row))).collect();
        let mut widths = [0; 6];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                // Writing to a String cannot fail.
                let _ = write!(line, "{cell:width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn row(&self, setting: &Setting) -> [String; 6] {
        let show = |settings| match (setting.show)(settings) {
            _ if setting.is_secret() => "********".to_owned(),
            text if text.is_empty() => "\"\"".to_owned(),
            text => text,
        };
        [
            setting.key.to_owned(),
            show(&self.settings),
            show(&self.defaults),
            setting.rule.unit().to_owned(),
            self.origins.get(setting.key).cloned().unwrap_or_else(|| "default".to_owned()),
            setting.reason.to_owned(),
        ]
    }
}
