//! Language of the sources, templates and documents: the words and phrases that CONTRIBUTING.md rules out.

use std::{collections::BTreeSet, fs, path::Path};

use crate::world::flask::in_repository;

/// Texts that may contain a listed word, with the reason.
const ALLOWED: [(&str, &str); 9] = [
    ("settings_seen", "kind of an activity record in the database, the API and OpenTelemetry"),
    ("seen_at", "column of the table `instances`, member of the API"),
    ("last_seen", "member of the API"),
    ("LastSeen", "label of that member in the API reference"),
    ("caller_gone", "`error.type` of a client that disconnected"),
    (r"\xa4seen", "member of a recorded session in msgpack"),
    (r#"\"seen\""#, "the same in JSON"),
    ("kept-alive", "HTTP's own word"),
    ("410 Gone", "status of HTTP"),
];

/// Words in backticks of one rule in CONTRIBUTING.md.
fn listed(rule: &str, next: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(in_repository("CONTRIBUTING.md")).unwrap();
    let (_, after) = text.split_once(rule).expect(rule);
    let (rule, _) = after.split_once(next).expect(next);
    let (_, list) = rule.split_once(':').expect("a list follows the rule");
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Words of a line in lower case; identifiers are split at underscores and capitals.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in line.chars() {
        if !c.is_alphabetic() || c.is_uppercase() && was_lower {
            words.push(String::new());
        }
        if c.is_alphabetic() {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
        was_lower = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Files below a directory that people read.
fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        if path.is_dir() {
            files(&path, found);
        } else if matches!(kind, "rs" | "md" | "html" | "css" | "js" | "lua") {
            found.push(path);
        }
    }
}

/// Lines of all files, without allowed texts.
fn lines() -> Vec<(String, String)> {
    let mut paths = Vec::new();
    for folder in ["src", "templates", "docs"] {
        files(&in_repository(folder), &mut paths);
    }
    assert!(paths.len() > 200, "{}", paths.len());
    let mut lines = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let root = in_repository("");
        let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        for (number, line) in text.lines().enumerate() {
            let line =
                ALLOWED.iter().fold(line.to_owned(), |line, (text, _)| line.replace(text, ""));
            lines.push((format!("{name}:{}", number + 1), line));
        }
    }
    lines
}

#[test]
fn sources_and_documents_have_none_of_the_words_to_avoid() {
    let (avoided, phrases) = (listed("\n9. ", "\n10. "), listed("\n10. ", "\n## "));
    assert!(avoided.len() >= 20 && phrases.len() >= 4, "{avoided:?} {phrases:?}");
    let mut found = Vec::new();
    for (place, line) in lines() {
        let text = words(&line).join(" ");
        let is_listed = words(&line).iter().any(|word| avoided.contains(word))
            || phrases.iter().any(|phrase| format!(" {text} ").contains(&format!(" {phrase} ")));
        if is_listed {
            found.push(format!("{place}: {}", line.trim()));
        }
    }
    assert!(found.is_empty(), "see CONTRIBUTING.md, Language:\n{}", found.join("\n"));
}

#[test]
fn doc_comments_begin_with_a_noun_phrase_or_a_verb() {
    let questions = ["What", "Whether", "How", "Where", "Who", "Whose", "Why"];
    let mut found = Vec::new();
    let mut was_doc = false;
    for (place, line) in lines() {
        let line = line.trim();
        let doc = line.strip_prefix("///").or(line.strip_prefix("//!"));
        if let Some(first) = doc.and_then(|doc| doc.split_whitespace().next())
            && !was_doc
            && questions.contains(&first)
        {
            found.push(format!("{place}: {line}"));
        }
        was_doc = doc.is_some_and(|doc| !doc.trim().is_empty());
    }
    assert!(found.is_empty(), "see CONTRIBUTING.md, Language:\n{}", found.join("\n"));
}

#[test]
fn identifiers_are_split_into_words() {
    assert_eq!(words("fn is_ToldAgain(x: u8)"), ["fn", "is", "told", "again", "x", "u"]);
    let listed = listed("\n9. ", "\n10. ");
    assert!(listed.contains("told") && !listed.contains("src/"), "{listed:?}");
}
