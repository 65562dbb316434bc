//! Parsers of single values. Each error is the rest of a sentence about the value.

use std::time::Duration;

use super::Reader;

/// `30s`, `15m`, `8h`, `365d`, `250ms`.
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

const DURATION: &str = "is not a duration like 30s, 15m, 8h or 365d";

/// `true`/`false` in the spellings Flask's and App Service's users write.
pub(in crate::config) fn flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

/// `off` in any case, which is `None`, or what `parse` reads.
pub(in crate::config) fn or_off<T>(
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> impl FnOnce(&str) -> Result<Option<T>, String> {
    move |text| {
        if text.eq_ignore_ascii_case("off") { Ok(None) } else { parse(text).map(Some) }
    }
}

/// One of a few words, in any case.
pub(in crate::config) fn word<'a, T: Copy>(
    words: &'a [(&'a str, T)],
) -> impl FnOnce(&str) -> Result<T, String> + 'a {
    move |text| {
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            format!("is none of {}", words.join(", "))
        })
    }
}

/// A duration that must be there; it may be nothing.
pub(in crate::config) fn span(reader: &mut Reader, name: &str) -> Duration {
    reader.require(name, duration).unwrap_or_default()
}

/// How long to wait for something, which cannot be no time at all.
pub(in crate::config) fn time_out(reader: &mut Reader, name: &str) -> Duration {
    let positive = |text: &str| match duration(text)? {
        Duration::ZERO => Err("leaves no time at all".to_owned()),
        wait => Ok(wait),
    };
    reader.require(name, positive).unwrap_or_default()
}

/// `512`, `256KiB`, `64MiB`, `1GiB`, in bytes.
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
        .ok_or_else(|| "is not a size like 256KiB or 64MiB".to_owned())
}

/// A number of things.
pub(in crate::config) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "is not a number of 1 or more".to_owned())
}
