//! Settings as an operator may write them.

use super::{Config, settings::all};

/// Suffix of every secret.
const MARK: &str = "hunter2";

/// No value ends the process, and no problem or warning contains a secret.
pub(crate) fn settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut pairs = vec![
        ("TENANT_ID".to_owned(), "11111111-2222-3333-4444-555555555555".to_owned()),
        ("CLIENT_ID".to_owned(), "11111111-2222-3333-4444-555555555555".to_owned()),
    ];
    let settings: Vec<_> = all().collect();
    for line in text.split('\n') {
        let mut bytes = line.bytes();
        let Some(which) = bytes.next() else { continue };
        let setting = settings[usize::from(which) % settings.len()];
        // This target opens no files.
        if setting.name == "GATEWAY_CONFIG" {
            continue;
        }
        let value = line.get(1..).unwrap_or_default().to_owned();
        pairs.push((setting.name.to_owned(), value));
    }
    let _ = Config::read(pairs.clone(), None);
    // Second pass, with a suffix that cannot occur by chance.
    if text.contains(MARK) {
        return;
    }
    for (name, value) in &mut pairs {
        if settings.iter().any(|setting| setting.secret && setting.name == name) {
            value.push_str(MARK);
        }
    }
    let messages = match Config::read(pairs.clone(), None) {
        Ok(config) => config.warnings.join("\n"),
        Err(problems) => problems.to_string(),
    };
    let table = Config::table(pairs, None).map(|(table, _)| table).unwrap_or_default();
    assert!(!messages.contains(MARK), "{messages}");
    assert!(!table.contains(MARK), "{table}");
}
