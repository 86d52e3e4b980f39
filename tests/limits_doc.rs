//! `docs/LIMITS.md` says what the code says: each constant has the value written there, each test exists.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The cells of every row of a limits table.
fn rows(document: &str) -> Vec<Vec<&str>> {
    document
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect())
        .collect()
}

fn sources(folder: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            sources(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_limit_is_what_the_document_says_and_has_its_test() {
    let document = fs::read_to_string(root().join("docs/LIMITS.md")).unwrap();
    let rows = rows(&document);
    assert!(rows.len() > 30, "the tables were not recognised");
    let mut texts = Vec::new();
    sources(&root(), &mut texts);
    let mut wrong = Vec::new();
    for row in &rows {
        let [name, value, file, why, test] = row[..] else { panic!("not five cells: {row:?}") };
        let source = fs::read_to_string(root().join(file)).unwrap_or_default();
        let constant = |line: &str| {
            line.contains(&format!("const {name}: ")) && line.trim_end().ends_with(&format!("= {value};"))
        };
        if !source.lines().any(constant) {
            wrong.push(format!("{file} has no `{name}` = `{value}`"));
        }
        if !texts.iter().any(|text| text.contains(&format!("fn {test}("))) {
            wrong.push(format!("{name}: there is no test {test}"));
        }
        assert!(why.len() > 10, "{name}: why?");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
