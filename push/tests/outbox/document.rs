//! `docs/OUTBOX.md` and the sources cannot drift apart: each byte table stands in both, word for word.

use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENT: &str = include_str!("../../../docs/OUTBOX.md");

/// Blocks of lines that begin with a bar.
fn tables<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Vec<String>> {
    let mut tables = vec![vec![]];
    for line in lines {
        if line.starts_with('|') {
            // A link of the source is a word of the document.
            tables.last_mut().unwrap().push(line.replace("[`", "`").replace("`]", "`"));
        } else if !tables.last().unwrap().is_empty() {
            tables.push(vec![]);
        }
    }
    tables.retain(|table| !table.is_empty());
    tables
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            sources(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

#[test]
fn every_table_of_bytes_stands_in_the_document_and_in_its_source() {
    let document = tables(DOCUMENT.lines());
    let mut files = vec![];
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/outbox"), &mut files);
    let mut expected = vec![];
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let lines = text.lines().take_while(|line| line.starts_with("//!"));
        let lines = lines.map(|line| line.trim_start_matches("//!").trim_start());
        expected.extend(
            tables(lines)
                .into_iter()
                .filter(|table| table[0].starts_with("| offset") || table[0].starts_with("| kind")),
        );
    }
    assert!(expected.len() >= 17, "the walk finds the tables: {}", expected.len());
    for table in &expected {
        assert!(document.contains(table), "not in docs/OUTBOX.md, or not so:\n{}", table.join("\n"));
    }
    for table in &document {
        assert!(expected.contains(table), "of no source:\n{}", table.join("\n"));
    }
}
