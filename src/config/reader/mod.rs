//! Text to values, every problem noted on the way.

mod file;
mod value;

use std::{collections::BTreeMap, fmt, path::Path};

use self::file::read_text;
pub(crate) use self::value::duration;
pub(super) use self::{
    file::read_file,
    value::{at_least_one, flag, or_off, size, span, time_out, word},
};

use super::{
    removed::Removed,
    settings::{self, PLATFORM_NAMES, Setting, is_injected_by_kubernetes},
};

/// What is wrong with the settings: all of it.
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
    /// One alone.
    pub(crate) fn one(problem: &str) -> Self {
        Self(vec![problem.to_owned()])
    }
}

/// Values by name, from the environment or a file.
pub(super) type Values = BTreeMap<String, String>;

/// What was given, by name: secrets among it.
#[derive(Clone, Default)]
pub(super) struct Given(Values);

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given(..)")
    }
}

impl Given {
    /// The settings in which `self` and `other` differ.
    pub(super) fn differences(&self, other: &Self) -> Vec<&'static Setting> {
        let differs = |setting: &&Setting| self.0.get(setting.name) != other.0.get(setting.name);
        settings::all().filter(differs).collect()
    }

    /// Takes a setting's value over from `other`.
    pub(super) fn take_over(&mut self, setting: &Setting, other: &Self) {
        match other.0.get(setting.name) {
            Some(value) => self.0.insert(setting.name.to_owned(), value.clone()),
            None => self.0.remove(setting.name),
        };
    }
}

/// Hands out settings by name and collects what is wrong with them.
pub(crate) struct Reader {
    values: Values,
    /// Whether a file holds any setting.
    has_file: bool,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Reader {
    /// `environment` wins over `file`.
    pub(super) fn new(environment: Values, file: Values) -> Self {
        let has_file = !file.is_empty();
        let mut reader =
            Self { values: file, has_file, problems: Vec::new(), warnings: Vec::new() };
        reader.refuse_foreign_names_in_file();
        reader.values.extend(environment);
        reader.refuse_removed_settings();
        reader.refuse_what_is_not_text();
        reader.resolve_files();
        reader.refuse_unknown_names();
        reader
    }

    /// Hands out what was given before.
    pub(super) fn again(given: Given) -> Self {
        Self { values: given.0, has_file: false, problems: Vec::new(), warnings: Vec::new() }
    }

    /// Whether a file holds any setting.
    pub(super) fn has_file(&self) -> bool {
        self.has_file
    }

    /// What was given.
    pub(super) fn to_given(&self) -> Given {
        let counts = |name: &str| is_known(name) || PLATFORM_NAMES.contains(&name);
        let given = self.values.iter().filter(|(name, _)| counts(name));
        Given(given.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    fn refuse_foreign_names_in_file(&mut self) {
        let foreign =
            |name: &&String| !is_known(name) && !is_removed(name) && !name.starts_with("GATEWAY_");
        for name in self.values.keys().filter(foreign) {
            self.problems.push(format!("{name}: the configuration file holds an unknown name"));
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

    fn refuse_what_is_not_text(&mut self) {
        let known = self.values.iter().filter(|(name, _)| is_known(name));
        let marred = known.filter(|(_, value)| value.contains(char::REPLACEMENT_CHARACTER));
        self.problems.extend(marred.map(|(name, _)| format!("{name}: is not UTF-8")));
    }

    /// `NAME_FILE=/path` stands for `NAME` with the file's content, for secrets.
    fn resolve_files(&mut self) {
        for secret in settings::all().filter(|setting| setting.secret) {
            let file_name = format!("{}_FILE", secret.name);
            let Some(path) = self.values.get(&file_name).filter(|path| !path.is_empty()) else {
                continue;
            };
            if self.values.get(secret.name).is_some_and(|value| !value.is_empty()) {
                self.problems.push(format!("{file_name}: {} is set as well; set one", secret.name));
                continue;
            }
            match read_text(Path::new(path)) {
                Ok(text) => {
                    let text = text.trim_end_matches(['\r', '\n']).to_owned();
                    // One that is being written must not turn a guard off.
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
                Some(near) => format!("{name}: there is no such setting; did you mean {near}?"),
                None => format!("{name}: there is no such setting"),
            })
            .collect();
        let words = [("error", false), ("warn", true)];
        if self.read("GATEWAY_UNKNOWN_SETTINGS", word(&words)).unwrap_or_default() {
            self.warnings.extend(unknown);
        } else {
            self.problems.extend(unknown);
        }
    }

    /// The text of a setting, its default when it is unset or empty; `None` when there is neither.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let given = self.given(name);
        given.or_else(|| {
            let default = setting(name).default;
            (!default.is_empty()).then(|| default.to_owned())
        })
    }

    /// The text as it was set, an empty one counting as unset. White space around it is removed, except
    /// where it may be part of the value.
    pub(crate) fn given(&self, name: &str) -> Option<String> {
        debug_assert!(is_known(name) || PLATFORM_NAMES.contains(&name), "{name}");
        let is_exact = matches!(name, "REDIS_PASSWORD" | "SECRET_KEY" | "SESSION_KEY_PREFIX");
        let given = self.values.get(name).map(|text| if is_exact { text } else { text.trim() });
        given.filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// Whether a setting is this word, in any case; entries of a list that are empty are passed over.
    pub(crate) fn is_word(&self, name: &str, word: &str) -> bool {
        let text = self.text(name).unwrap_or_default();
        text.trim_matches([',', ' ', '\t']).eq_ignore_ascii_case(word)
    }

    /// Whether a setting was set, to something empty.
    pub(crate) fn is_set_empty(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| value.trim().is_empty())
    }

    /// Reads a setting with `parse`; a failure is noted, and `None` returned.
    pub(crate) fn read<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(name)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.problem(name, &format!("{} {problem}", shown(name, &format!("{text:?}"))));
                None
            }
        }
    }

    /// As [`Self::read`], and a missing value is a problem too.
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

    /// Reads a comma-separated list; entries are trimmed, empty ones passed over.
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
                    format!("({}) {problem}", shown(name, &format!("{entry:?}")))
                }
            };
            entries.map(|entry| parse(entry).map_err(|problem| of_entry(entry, problem))).collect()
        })
        .unwrap_or_default()
    }

    /// Notes a problem.
    pub(crate) fn problem(&mut self, name: &str, problem: &str) {
        self.problems.push(format!("{name}: {problem}"));
    }

    /// Notes something to tell the operator that does not stand in the way.
    pub(crate) fn warn(&mut self, name: &str, warning: &str) {
        self.warnings.push(format!("{name}: {warning}"));
    }

    /// Whether there is anything wrong so far.
    pub(super) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// The warnings, or the problems if there are any.
    pub(super) fn finish(self) -> Result<Vec<String>, Problems> {
        if self.problems.is_empty() { Ok(self.warnings) } else { Err(Problems(self.problems)) }
    }
}

fn setting(name: &str) -> &'static Setting {
    static PLATFORM: Setting =
        Setting { name: "", form: "", default: "", meaning: "", secret: false, live: false };
    settings::all().find(|setting| setting.name == name).unwrap_or(&PLATFORM)
}

/// A value as operators may see it: neither a secret nor a URL's user and password.
pub(super) fn shown(name: &str, text: &str) -> String {
    let bears_credentials = text.contains("://") && text.contains('@');
    if setting(name).secret || bears_credentials { "********".to_owned() } else { text.to_owned() }
}

fn is_known(name: &str) -> bool {
    settings::all().any(|setting| {
        setting.name == name || setting.secret && name.strip_suffix("_FILE") == Some(setting.name)
    })
}

fn is_removed(name: &str) -> bool {
    Removed::of(name).is_some()
}

/// The known name that shares the longest beginning and end with a mistyped one.
fn nearest(name: &str) -> Option<&'static str> {
    let likeness = |known: &str| {
        let front = known.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
        let back = known.bytes().rev().zip(name.bytes().rev()).take_while(|(a, b)| a == b).count();
        front + back
    };
    settings::all()
        .map(|setting| setting.name)
        .filter(|known| likeness(known) + 2 >= known.len().max(name.len()))
        .max_by_key(|known| likeness(known))
}
