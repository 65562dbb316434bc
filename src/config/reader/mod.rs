//! Reader of settings: looks up text by name, parses it, and collects problems and warnings.

mod file;
mod value;

use std::{collections::BTreeMap, fmt, path::Path};

use self::file::read_text;
pub(crate) use self::value::duration;
pub(super) use self::{
    file::read_file,
    value::{at_least_one, delay, flag, or_off, size, timeout, word},
};
use super::{
    removed::Removed,
    settings::{self, PLATFORM_NAMES, Setting, is_injected_by_kubernetes},
};

/// All problems of a configuration, each naming its setting.
#[derive(Debug, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "problem" } else { "problems" };
        write!(f, "{} {noun} with the settings:", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

impl Problems {
    /// A single problem.
    pub(crate) fn one(problem: &str) -> Self {
        Self(vec![problem.to_owned()])
    }
}

/// Text by name, from the environment or a file.
pub(super) type Values = BTreeMap<String, String>;

/// Text of every setting as the operator set it, secrets included.
#[derive(Clone, Default)]
pub(super) struct Given(Values);

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given(..)")
    }
}

impl Given {
    /// Settings with different text in `self` and `other`.
    pub(super) fn differences(&self, other: &Self) -> Vec<&'static Setting> {
        let differs = |setting: &&Setting| self.0.get(setting.name) != other.0.get(setting.name);
        settings::all().filter(differs).collect()
    }

    /// Copies the text of a setting from `other`.
    pub(super) fn take_over(&mut self, setting: &Setting, other: &Self) {
        match other.0.get(setting.name) {
            Some(value) => self.0.insert(setting.name.to_owned(), value.clone()),
            None => self.0.remove(setting.name),
        };
    }
}

/// Settings by name, with the problems and warnings found so far.
pub(crate) struct Reader {
    values: Values,
    /// True if a file holds any setting.
    has_file: bool,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Reader {
    /// Merges both sources; `environment` wins over `file`.
    pub(super) fn new(environment: Values, file: Values) -> Self {
        let has_file = !file.is_empty();
        let mut reader =
            Self { values: file, has_file, problems: Vec::new(), warnings: Vec::new() };
        reader.refuse_unknown_names_in_file();
        reader.values.extend(environment);
        reader.refuse_removed_settings();
        reader.refuse_values_that_are_not_utf8();
        reader.resolve_files();
        reader.refuse_unknown_names();
        reader
    }

    /// Reads text that was checked before, without the checks of names.
    pub(super) fn from_given(given: Given) -> Self {
        Self { values: given.0, has_file: false, problems: Vec::new(), warnings: Vec::new() }
    }

    /// True if a file holds any setting.
    pub(super) fn has_file(&self) -> bool {
        self.has_file
    }

    /// Text of every setting as set.
    pub(super) fn to_given(&self) -> Given {
        let is_read = |name: &str| is_known(name) || PLATFORM_NAMES.contains(&name);
        let given = self.values.iter().filter(|(name, _)| is_read(name));
        Given(given.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    fn refuse_unknown_names_in_file(&mut self) {
        let is_unknown =
            |name: &&String| !is_known(name) && !is_removed(name) && !name.starts_with("GATEWAY_");
        for name in self.values.keys().filter(is_unknown) {
            self.problems.push(format!("{name}: unknown setting in the configuration file"));
        }
    }

    /// Reports each setting of [`super::removed::REMOVED`] whose value is not accepted.
    fn refuse_removed_settings(&mut self) {
        for (name, value) in &self.values {
            if let Some(removed) = Removed::of(name).filter(|removed| !removed.accepts(value)) {
                self.problems.push(format!("{name}: {}", removed.advice));
            }
        }
    }

    fn refuse_values_that_are_not_utf8(&mut self) {
        let known = self.values.iter().filter(|(name, _)| is_known(name));
        let malformed = known.filter(|(_, value)| value.contains(char::REPLACEMENT_CHARACTER));
        self.problems.extend(malformed.map(|(name, _)| format!("{name}: the value is not UTF-8")));
    }

    /// Replaces `NAME_FILE=/path` of a secret by `NAME` with the file's content.
    fn resolve_files(&mut self) {
        for secret in settings::all().filter(|setting| setting.secret) {
            let file_name = format!("{}_FILE", secret.name);
            let Some(path) = self.values.get(&file_name).filter(|path| !path.is_empty()) else {
                continue;
            };
            if self.values.get(secret.name).is_some_and(|value| !value.is_empty()) {
                self.problems.push(format!(
                    "{file_name}: {} is also set; set only one of them",
                    secret.name
                ));
                continue;
            }
            match read_text(Path::new(path)) {
                Ok(text) => {
                    let text = text.trim_end_matches(['\r', '\n']).to_owned();
                    // An editor may have truncated it: an empty value must not disable a guard.
                    if text.is_empty() {
                        self.problems.push(format!("{file_name}: {path} is empty"));
                    }
                    self.values.insert(secret.name.to_owned(), text);
                }
                Err(error) => {
                    self.problems.push(format!("{file_name}: cannot read {path}: {error}"));
                }
            }
        }
    }

    fn refuse_unknown_names(&mut self) {
        let unknown: Vec<String> = self
            .values
            .keys()
            .filter(|name| name.starts_with("GATEWAY_"))
            .filter(|name| !is_known(name) && !is_removed(name) && !is_injected_by_kubernetes(name))
            .map(|name| match nearest(name) {
                Some(near) => format!("{name}: unknown setting; did you mean {near}?"),
                None => format!("{name}: unknown setting"),
            })
            .collect();
        let words = [("error", false), ("warn", true)];
        if self.read("GATEWAY_UNKNOWN_SETTINGS", word(&words)).unwrap_or_default() {
            self.warnings.extend(unknown);
        } else {
            self.problems.extend(unknown);
        }
    }

    /// Text of a setting, or its default; `None` if it has neither.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let given = self.given(name);
        given.or_else(|| {
            let default = setting(name).default;
            (!default.is_empty()).then(|| default.to_owned())
        })
    }

    /// Text as set; an empty one counts as unset. Surrounding white space is removed, except where it may
    /// be part of the value.
    pub(crate) fn given(&self, name: &str) -> Option<String> {
        debug_assert!(is_known(name) || PLATFORM_NAMES.contains(&name), "{name}");
        let is_exact = matches!(name, "REDIS_PASSWORD" | "SESSION_KEY_PREFIX");
        let given = self.values.get(name).map(|text| if is_exact { text } else { text.trim() });
        given.filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// True if a setting is this word, in any case. Empty list entries beside it are ignored.
    pub(crate) fn is_word(&self, name: &str, word: &str) -> bool {
        let text = self.text(name).unwrap_or_default();
        text.trim_matches([',', ' ', '\t']).eq_ignore_ascii_case(word)
    }

    /// True if a setting is set to an empty text.
    pub(crate) fn is_set_empty(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| value.trim().is_empty())
    }

    /// Reads a setting with `parse`. An error is collected, and the result is `None`.
    pub(crate) fn read<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(name)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(problem) => {
                let text = shown(name, &format!("{text:?}"));
                self.problem(name, &format!("invalid value {text} ({problem})"));
                None
            }
        }
    }

    /// As [`Self::read`]; a missing value is a problem.
    pub(crate) fn require<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self.text(name).is_none() {
            self.problem(name, "is required");
        }
        self.read(name, parse)
    }

    /// Reads a comma-separated list. Entries are trimmed; empty ones are ignored.
    pub(crate) fn list<T>(
        &mut self,
        name: &str,
        mut parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.read(name, |text| {
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            let is_alone = entries.clone().count() == 1;
            let of_entry = |entry: &str, problem: String| {
                if is_alone {
                    problem
                } else {
                    format!("{}: {problem}", shown(name, &format!("{entry:?}")))
                }
            };
            entries.map(|entry| parse(entry).map_err(|problem| of_entry(entry, problem))).collect()
        })
        .unwrap_or_default()
    }

    /// Collects a problem.
    pub(crate) fn problem(&mut self, name: &str, problem: &str) {
        self.problems.push(format!("{name}: {problem}"));
    }

    /// Collects a warning, which does not prevent a start.
    pub(crate) fn warn(&mut self, name: &str, warning: &str) {
        self.warnings.push(format!("{name}: {warning}"));
    }

    /// True if any problem was found so far.
    pub(super) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// The warnings, or the problems if there is any.
    pub(super) fn finish(self) -> Result<Vec<String>, Problems> {
        if self.problems.is_empty() { Ok(self.warnings) } else { Err(Problems(self.problems)) }
    }
}

fn setting(name: &str) -> &'static Setting {
    static PLATFORM: Setting =
        Setting { name: "", value_type: "", default: "", meaning: "", secret: false, live: false };
    settings::all().find(|setting| setting.name == name).unwrap_or(&PLATFORM)
}

/// A value for display: secrets and URLs with a user or password are masked.
pub(super) fn shown(name: &str, text: &str) -> String {
    let has_credentials = text.contains("://") && text.contains('@');
    if setting(name).secret || has_credentials { "********".to_owned() } else { text.to_owned() }
}

fn is_known(name: &str) -> bool {
    settings::all().any(|setting| {
        setting.name == name || setting.secret && name.strip_suffix("_FILE") == Some(setting.name)
    })
}

fn is_removed(name: &str) -> bool {
    Removed::of(name).is_some()
}

/// The setting whose name shares the longest prefix and suffix with a mistyped one.
fn nearest(name: &str) -> Option<&'static str> {
    let similarity = |known: &str| {
        let front = known.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
        let back = known.bytes().rev().zip(name.bytes().rev()).take_while(|(a, b)| a == b).count();
        front + back
    };
    settings::all()
        .map(|setting| setting.name)
        .filter(|known| similarity(known) + 2 >= known.len().max(name.len()))
        .max_by_key(|known| similarity(known))
}
