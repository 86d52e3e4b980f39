//! `docs/PROTOCOL.md` and the code cannot drift apart: its vectors decode, and its tables are those of the sources.

use std::fs;
use std::path::Path;

use wire_format::datagram::Datagram;
use wire_format::frame::order::options;
use wire_format::frame::{Frame, Raw};

const PROTOCOL: &str = include_str!("../../docs/PROTOCOL.md");

/// Sections whose tables stand in files that are not named like the section's last word.
const FILES: &[(&str, &[&str])] = &[
    ("3.2 The header", &["datagram/header.rs"]),
    ("3.3 TLVs", &["datagram/tlv.rs", "datagram/service.rs", "datagram/addr.rs"]),
    ("4.2 The frame header", &["frame/header.rs"]),
    ("4.4.4 ORDER", &["frame/order.rs", "frame/options.rs"]),
];

/// Heads of the tables that give bytes.
const HEADS: &[&str] = &["| offset | size | field | rule |", "| type | name | value | rule |"];

/// The rows of a table, its head left out.
type Table = Vec<String>;

/// The tables of bytes among `lines`.
fn tables<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Table> {
    let mut tables = Vec::new();
    let mut open = false;
    for line in lines {
        if HEADS.contains(&line) {
            tables.push(Table::new());
            open = true;
        } else if open && line.starts_with('|') {
            let table = tables.last_mut().expect("was pushed when it opened");
            if !line.starts_with("| ---") {
                table.push(line.to_owned());
            }
        } else {
            open = false;
        }
    }
    tables
}

/// The tables of bytes in the documentation at the top of `file`.
fn tables_of_file(file: &str) -> Vec<Table> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    tables(source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim))
}

/// Each section that has tables of bytes: its heading without the marks, and the tables up to the next heading of two to
/// four marks.
fn sections() -> Vec<(String, Vec<Table>)> {
    let mut sections: Vec<(String, Vec<&str>)> = Vec::new();
    for line in PROTOCOL.lines() {
        if let Some(("##" | "###" | "####", heading)) = line.split_once(' ') {
            sections.push((heading.to_owned(), Vec::new()));
        } else if let Some((_, lines)) = sections.last_mut() {
            lines.push(line);
        }
    }
    let with_tables = sections.into_iter().map(|(heading, lines)| (heading, tables(lines.into_iter())));
    with_tables.filter(|(_, tables)| !tables.is_empty()).collect()
}

/// The files a section describes.
fn files_of(heading: &str) -> Vec<String> {
    if let Some((_, files)) = FILES.iter().find(|(section, _)| *section == heading) {
        return files.iter().map(|&file| file.to_owned()).collect();
    }
    let folder = if heading.starts_with("3.") { "datagram" } else { "frame" };
    let name = heading.rsplit(' ').next().expect("a heading has words").to_lowercase();
    vec![format!("{folder}/{name}.rs")]
}

/// Whether the row of the document says what the row of the source says. A link of the source, such as ``[`Kind`]``, may
/// be any words in the document.
fn is_same_row(document: &str, source: &str) -> bool {
    let mut rest = document;
    let mut after_link = false;
    for (at, piece) in source.split("[`").enumerate() {
        let piece = if at == 0 { piece } else { piece.split_once("`]").map_or(piece, |(_, after)| after) };
        let Some(found) = rest.find(piece).filter(|&found| found == 0 || after_link) else { return false };
        rest = &rest[found + piece.len()..];
        after_link = true;
    }
    rest.is_empty()
}

#[test]
fn every_table_of_bytes_is_the_one_of_its_source() {
    for (heading, document) in sections() {
        let source: Vec<Table> = files_of(&heading).iter().flat_map(|file| tables_of_file(file)).collect();
        assert_eq!(document.len(), source.len(), "tables in section {heading}");
        for (document, source) in document.iter().zip(&source) {
            for (document, source) in document.iter().zip(source) {
                assert!(
                    is_same_row(document, source),
                    "section {heading}:\n{document}\nbut the source says\n{source}"
                );
            }
            assert_eq!(document.len(), source.len(), "rows in section {heading}: {document:?}");
        }
    }
}

#[test]
fn every_source_with_a_table_has_its_section() {
    let described: Vec<String> = sections().iter().flat_map(|(heading, _)| files_of(heading)).collect();
    for folder in ["datagram", "frame"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
        for entry in fs::read_dir(path).expect("the sources are there") {
            let name = entry.expect("readable").file_name().into_string().expect("UTF-8");
            let file = format!("{folder}/{name}");
            if name.ends_with(".rs") && !tables_of_file(&file).is_empty() {
                assert!(described.contains(&file), "{file} has a table and no section in docs/PROTOCOL.md");
            }
        }
    }
}

/// The vectors of the document, by name.
fn vectors() -> Vec<(&'static str, Vec<u8>)> {
    let mut vectors: Vec<(&str, Vec<u8>)> = Vec::new();
    for block in PROTOCOL.split("\n```vector ").skip(1) {
        let (name, rest) = block.split_once('\n').expect("a name");
        let (hex, _) = rest.split_once("```").expect("the block ends");
        let bytes = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal"));
        assert!(vectors.iter().all(|(other, _)| *other != name), "two vectors are called {name}");
        vectors.push((name, bytes.collect()));
    }
    vectors
}

fn check_datagram(name: &str, bytes: &[u8]) {
    let datagram = Datagram::parse(bytes).unwrap_or_else(|error| panic!("vector {name}: {error}"));
    assert!(name.starts_with("datagram "), "vector {name} is a datagram");
    assert!(name.contains(datagram.kind().name()), "vector {name} is a {}", datagram.kind());
    let mut buffer = [0; 1_200];
    let len = datagram.emit(&mut buffer).expect("emits");
    assert_eq!(Datagram::parse(&buffer[..len]), Ok(datagram), "vector {name}");
    let later_version = name.ends_with("of a later version");
    assert_eq!(&buffer[..len] == bytes, !later_version, "vector {name} in this version's form");
}

fn check_frame(name: &str, bytes: &[u8]) {
    let raw = Raw::parse(bytes).unwrap_or_else(|error| panic!("vector {name}: {error}"));
    let frame = Frame::parse(&raw).unwrap_or_else(|error| panic!("vector {name}: {error}"));
    assert!(!matches!(frame, Frame::Ignored(_)), "vector {name} is of an unknown kind");
    assert!(name.starts_with(&raw.header.kind.to_string()), "vector {name} is a {}", raw.header.kind);
}

#[test]
fn every_vector_decodes() {
    let vectors = vectors();
    assert!(vectors.len() >= 8 + 20, "only {} vectors were found", vectors.len());
    for (name, bytes) in vectors {
        if bytes.starts_with(b"TWLD") {
            check_datagram(name, &bytes);
        } else if name == "ORDER options" {
            assert!(options(&bytes).all(|option| option.is_ok()) && options(&bytes).count() == 2, "{name}");
        } else {
            check_frame(name, &bytes);
        }
    }
}

#[test]
fn links_of_the_sources_stand_for_any_words() {
    for (document, source, same) in [
        ("| 4 | 1 | kind | see Kinds |", "| 4 | 1 | kind | [`Kind`] |", true),
        ("| see Flags; zero |", "| [`Flags`]; zero |", true),
        ("| see Flags; one |", "| [`Flags`]; zero |", false),
        ("| see Flags; zero | more |", "| [`Flags`]; zero |", false),
        ("| 5 |", "| 4 |", false),
    ] {
        assert_eq!(is_same_row(document, source), same, "{document}");
    }
}
