//! Parsers of single values. An error names the expected form: "expected …".

use std::time::Duration;

use super::Reader;

/// A duration with a unit: `250ms`, `30s`, `15m`, `8h`, `365d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => {
            return number.parse().map(Duration::from_millis).map_err(|_| DURATION.to_owned());
        }
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(DURATION.to_owned()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| DURATION.to_owned())
}

const DURATION: &str = "expected a duration such as 30s, 15m, 8h or 365d";

/// A boolean, in the spellings of Flask and App Service.
pub(in crate::config) fn flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("expected true, false, on, off, yes, no, 1 or 0".to_owned()),
    }
}

/// A value that `parse` reads, or `None` for `off` in any case.
pub(in crate::config) fn or_off<T>(
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> impl FnOnce(&str) -> Result<Option<T>, String> {
    move |text| {
        if text.eq_ignore_ascii_case("off") { Ok(None) } else { parse(text).map(Some) }
    }
}

/// One of the listed words, in any case.
pub(in crate::config) fn word<'a, T: Copy>(
    words: &'a [(&'a str, T)],
) -> impl FnOnce(&str) -> Result<T, String> + 'a {
    move |text| {
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            format!("expected {}", words.join(", "))
        })
    }
}

/// A required duration; zero is valid.
pub(in crate::config) fn delay(reader: &mut Reader, name: &str) -> Duration {
    reader.require(name, duration).unwrap_or_default()
}

/// A required duration above zero.
pub(in crate::config) fn timeout(reader: &mut Reader, name: &str) -> Duration {
    let positive = |text: &str| match duration(text)? {
        Duration::ZERO => Err("expected a duration above zero".to_owned()),
        timeout => Ok(timeout),
    };
    reader.require(name, positive).unwrap_or_default()
}

/// A number of bytes: `512`, `256KiB`, `64MiB`, `1GiB`.
pub(in crate::config) fn size(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let bytes: Option<usize> = match unit.trim_start() {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    number
        .parse::<usize>()
        .ok()
        .zip(bytes)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .ok_or_else(|| "expected a size such as 256KiB or 64MiB".to_owned())
}

/// A whole number, 1 or more.
pub(in crate::config) fn at_least_one(text: &str) -> Result<usize, String> {
    let expected = || "expected a whole number, 1 or more".to_owned();
    text.parse().ok().filter(|n| *n > 0).ok_or_else(expected)
}
