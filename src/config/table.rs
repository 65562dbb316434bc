//! Output of the `settings` command: every setting, in groups, as text or Markdown.

use std::fmt::Write as _;

use super::{
    Config, StoreConfig,
    reader::{Reader, shown},
    settings::{GROUPS, Setting, TUNING},
};

/// Every setting with its effective value, for a terminal. `config` is `None` when a setting has a
/// problem: values that follow from other settings are then unknown.
pub(super) fn plain(reader: &Reader, config: Option<&Config>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for group in &GROUPS {
        let _ = writeln!(text, "# {}\n", group.title);
        for setting in group.settings {
            let value = effective(setting, reader, config);
            let default = if setting.default.is_empty() { "none" } else { setting.default };
            let _ = writeln!(
                text,
                "{}={value}\n    {}\n    type: {}; default: {default}{}\n",
                setting.name,
                setting.meaning,
                setting.value_type,
                if setting.live { "; reloadable" } else { "" }
            );
        }
    }
    let _ = writeln!(text, "# {ALSO_READ} {}", tuning_names(str::to_owned));
    text
}

/// The value in force, secrets masked; empty when there is none.
fn effective(setting: &Setting, reader: &Reader, config: Option<&Config>) -> String {
    let derived = || config.and_then(|config| derived(setting.name, config));
    let value = reader.given(setting.name).or_else(derived).or_else(|| reader.text(setting.name));
    value.map_or_else(String::new, |value| shown(setting.name, &value))
}

/// The value of an unset setting that follows from other settings or from the machine.
fn derived(name: &str, config: &Config) -> Option<String> {
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

/// Beginning of the sentence about [`TUNING`].
const ALSO_READ: &str =
    "Also read, with the meaning and default of the OpenTelemetry specification:";

fn tuning_names(spell: impl Fn(&str) -> String) -> String {
    let names: Vec<_> = TUNING.iter().map(|setting| spell(setting.name)).collect();
    names.join(", ")
}

/// The same without values, in Markdown: one table for each group.
pub(super) fn markdown() -> String {
    let mut text = String::new();
    for group in &GROUPS {
        let _ = writeln!(text, "\n### {}\n", group.title);
        text.push_str("| name | type | default | meaning | reloadable |\n|---|---|---|---|---|\n");
        for setting in group.settings {
            let default = match setting.default {
                "" => String::new(),
                default => format!("`{default}`"),
            };
            let _ = writeln!(
                text,
                "| `{}` | {} | {default} | {} | {} |",
                setting.name,
                setting.value_type,
                setting.meaning,
                if setting.live { "yes" } else { "" }
            );
        }
    }
    let _ = writeln!(text, "\n{ALSO_READ} {}.\n", tuning_names(|name| format!("`{name}`")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_list_every_setting_below_the_heading_of_its_group() {
        const ORDER: [&str; 8] = [
            "Required and general",
            "Exposure",
            "Edge and proxies",
            "Policy",
            "Sessions and Redis",
            "Database",
            "Limits and timeouts",
            "Telemetry",
        ];
        let (plain, _) = Config::table(Vec::new(), None).unwrap();
        let page = markdown();
        let headings = |text: &str, mark: &str| -> Vec<String> {
            text.lines().filter_map(|line| line.strip_prefix(mark)).map(str::to_owned).collect()
        };
        let mut plain_headings = headings(&plain, "# ");
        assert!(plain_headings.pop().is_some_and(|last| last.starts_with(ALSO_READ)));
        assert_eq!(plain_headings, ORDER);
        assert_eq!(headings(&page, "### "), ORDER);
        for (group, title) in GROUPS.iter().zip(ORDER) {
            let below = |text: &str, mark: &str| {
                let part = text.split(mark).find(|part| part.lines().next() == Some(title));
                part.unwrap_or_else(|| panic!("{title}")).to_owned()
            };
            let (plain, page) = (below(&plain, "# "), below(&page, "### "));
            assert!(group.settings.len() > 2, "{title}");
            for Setting { name, value_type, meaning, .. } in group.settings {
                assert!(!value_type.is_empty() && !meaning.is_empty(), "{name}");
                assert!(plain.contains(&format!("\n{name}=")), "{name} is not below {title}");
                assert!(page.contains(&format!("\n| `{name}` |")), "{name} is not below {title}");
            }
        }
    }

    #[test]
    fn standard_tuning_names_are_named_outside_the_table() {
        let (plain, _) = Config::table(Vec::new(), None).unwrap();
        let page = markdown();
        assert!(TUNING.len() > 10);
        for Setting { name, .. } in TUNING {
            assert!(name.starts_with("OTEL_"), "{name}");
            assert!(!plain.contains(&format!("\n{name}=")) && plain.contains(name), "{name}");
            assert!(!page.contains(&format!("| `{name}` |")), "{name}");
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }
}
