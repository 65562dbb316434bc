//! Settings as an operator may write them.

use super::{Config, settings::SETTINGS};

/// No value ends the process, and no secret is told with what is wrong about it.
pub(crate) fn settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut pairs = vec![
        ("TENANT_ID".to_owned(), "11111111-2222-3333-4444-555555555555".to_owned()),
        ("CLIENT_ID".to_owned(), "11111111-2222-3333-4444-555555555555".to_owned()),
    ];
    for line in text.split('\n') {
        let mut bytes = line.bytes();
        let Some(which) = bytes.next() else { continue };
        let setting = &SETTINGS[usize::from(which) % SETTINGS.len()];
        // Files are not opened here.
        if setting.name == "GATEWAY_CONFIG" {
            continue;
        }
        let value = line.get(1..).unwrap_or_default().to_owned();
        pairs.push((setting.name.to_owned(), value));
    }
    let secrets: Vec<String> = pairs
        .iter()
        .filter(|(name, value)| {
            SETTINGS.iter().any(|s| s.secret && s.name == name) && value.len() > 8
        })
        .map(|(_, value)| value.clone())
        .collect();
    // Values are told escaped.
    let holds =
        |value: &str, secret: &str| value.contains(secret) || format!("{value:?}").contains(secret);
    let is_elsewhere =
        |secret: &String| pairs.iter().filter(|(_, value)| holds(value, secret)).count() > 1;
    let secrets: Vec<&String> = secrets.iter().filter(|secret| !is_elsewhere(secret)).collect();
    let told = match Config::read(pairs.clone(), None) {
        Ok(config) => config.warnings.join("\n"),
        Err(problems) => problems.to_string(),
    };
    let table = Config::table(pairs.clone(), None).map(|(table, _)| table).unwrap_or_default();
    for secret in secrets {
        assert!(!told.contains(&**secret), "{told}");
        assert!(!table.contains(&format!("={secret}\n")), "{table}");
    }
}
