//! The `settings` command: every setting as a table.

use std::fmt::Write as _;

use super::{
    reader::{Reader, shown},
    settings::SETTINGS,
};

/// Name, form, default, meaning and effective value of every setting, for a terminal.
pub(super) fn plain(reader: &Reader) -> String {
    let mut text = String::new();
    for setting in SETTINGS {
        let value = match reader.text(setting.name) {
            Some(value) => shown(setting.name, &value),
            None => String::new(),
        };
        let default = if setting.default.is_empty() { "none" } else { setting.default };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}={value}\n    {}\n    form: {}; default: {default}\n",
            setting.name, setting.meaning, setting.form
        );
    }
    text
}

/// The same without values, for the README.
pub(super) fn markdown() -> String {
    let mut text = String::from("| name | form | default | meaning |\n|---|---|---|---|\n");
    for setting in SETTINGS {
        let default = if setting.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", setting.default)
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {default} | {} |",
            setting.name, setting.form, setting.meaning
        );
    }
    text
}
