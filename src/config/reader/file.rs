//! Files that hold settings: the TOML file, and one file for each secret.

use std::{fs, io, path::Path};

use super::{Problems, Values};

/// U+FEFF at the beginning of a file (Unicode, section 23.8).
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads a UTF-8 file and removes the byte order mark that PowerShell and Windows editors write.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let bytes = fs::read(path)?;
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(io::Error::other(
            "the file is UTF-16; write it as UTF-8 (in PowerShell: Set-Content -Encoding utf8)",
        ));
    }
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("the file is not UTF-8"))?;
    Ok(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text).to_owned())
}

/// Values of the TOML file by name: strings, numbers, booleans, and lists of those.
pub(in crate::config) fn read_file(path: &Path) -> Result<Values, Problems> {
    let one = |problem: String| Problems(vec![format!("{}: {problem}", path.display())]);
    let text = read_text(path).map_err(|error| one(format!("cannot read: {error}")))?;
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| one(error.message().to_owned()))?;
    let as_text = |value: &toml::Value| match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    };
    table
        .iter()
        .map(|(name, value)| {
            let text = match value {
                toml::Value::Array(entries) => {
                    entries.iter().map(as_text).collect::<Option<Vec<_>>>().map(|e| e.join(","))
                }
                single => as_text(single),
            };
            text.map(|text| (name.clone(), text)).ok_or_else(|| {
                one(format!("{name} must be a string, a number, a boolean or a list of strings"))
            })
        })
        .collect()
}
