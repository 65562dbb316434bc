//! The `settings` command: every setting as a table.

use std::fmt::Write as _;

use super::{
    Config, StoreConfig,
    reader::{Reader, shown},
    settings::SETTINGS,
};

/// Name, form, default, meaning and effective value of every setting, for a terminal. `None`: something
/// is wrong with them; then what follows from others is not known.
pub(super) fn plain(reader: &Reader, config: Option<&Config>) -> String {
    let mut text = String::new();
    for setting in SETTINGS {
        let followed = || config.and_then(|config| what_follows(setting.name, config));
        let value = reader.given(setting.name).or_else(followed);
        let value = value.or_else(|| reader.text(setting.name));
        let value = match value {
            Some(value) => shown(setting.name, &value),
            None => String::new(),
        };
        let default = if setting.default.is_empty() { "none" } else { setting.default };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}={value}\n    {}\n    form: {}; default: {default}{}\n",
            setting.name,
            setting.meaning,
            setting.form,
            if setting.live { "; counts at SIGHUP" } else { "" }
        );
    }
    text
}

/// The value of a setting that was not given, where it follows from others or from the machine.
fn what_follows(name: &str, config: &Config) -> Option<String> {
    Some(match (name, &config.sessions.store) {
        ("GATEWAY_WORKERS", _) => config.workers.to_string(),
        ("GATEWAY_MEMORY_LIMIT", _) => {
            config.memory_limit.map_or_else(|| "none".to_owned(), |bytes| bytes.to_string())
        }
        ("GATEWAY_SCOPES", _) => config.resource.scopes.join(","),
        ("GATEWAY_AUDIENCES", _) => config.entra.expected.audiences.join(","),
        ("SESSION_TYPE", StoreConfig::Redis { .. }) => "redis".to_owned(),
        ("SESSION_TYPE", StoreConfig::Files { .. }) => "filesystem".to_owned(),
        ("GATEWAY_STATE_DIR", StoreConfig::Files { state, .. }) => state.display().to_string(),
        _ => return None,
    })
}

/// The same without values, for the README.
pub(super) fn markdown() -> String {
    let mut text =
        String::from("| name | form | default | meaning | SIGHUP |\n|---|---|---|---|---|\n");
    for setting in SETTINGS {
        let default = if setting.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", setting.default)
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {default} | {} | {} |",
            setting.name,
            setting.form,
            setting.meaning,
            if setting.live { "yes" } else { "" }
        );
    }
    text
}
