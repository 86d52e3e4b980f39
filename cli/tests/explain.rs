//! `tillwire explain` over every vector of the specification, as a user runs it.

mod support;

use support::{code, json_lines, run, run_with_input, scratch, stderr};

const PROTOCOL: &str = include_str!("../../docs/PROTOCOL.md");

/// The message vectors: form, name, and hexadecimal digits as they stand in the document.
fn vectors() -> Vec<(&'static str, &'static str, &'static str)> {
    let blocks = PROTOCOL.split("```vector ").skip(1);
    let vectors: Vec<_> = blocks
        .map(|block| {
            let (name, rest) = block.split_once('\n').expect("a name");
            let form = if name == "ORDER options" { "order-options" } else { "auto" };
            (form, name, rest.split_once("```").expect("the block ends").0)
        })
        .collect();
    assert!(!vectors.is_empty());
    vectors
}

#[test]
fn every_vector_is_explained_to_its_last_byte() {
    for (form, name, hex) in vectors() {
        let output = run_with_input(&["explain", "-", "--json", "--as", form], hex.as_bytes());
        assert_eq!(code(&output), 0, "{name}: {}", stderr(&output));
        let size: u64 = json_lines(&output).iter().filter_map(|line| line["size"].as_u64()).sum();
        let digits = hex.chars().filter(char::is_ascii_hexdigit).count() as u64;
        assert_eq!(size * 2, digits, "{name}");
        assert!(json_lines(&output).iter().all(|line| line["event"] != "error"), "{name}");
    }
}

#[test]
fn a_cut_vector_ends_in_an_error_and_exit_code_1() {
    for (form, name, hex) in vectors() {
        let digits: String = hex.split_whitespace().collect();
        let output = run(&["explain", "--json", "--as", form, &digits[..digits.len() - 2]]);
        assert_eq!(code(&output), 1, "{name}");
        let lines = json_lines(&output);
        let error = lines.last().expect("a line");
        assert_eq!(error["event"], "error", "{name}");
        assert!(error["error"].is_string() && error["offset"].is_u64(), "{name}: {error}");
    }
}

#[test]
fn files_digits_and_stdin_are_the_same() {
    let (_, _, hex) = vectors()[0];
    let digits: String = hex.split_whitespace().collect();
    let bytes: Vec<u8> = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex"))
        .collect();
    let dir = scratch("explain");
    let file = dir.path("frame.bin");
    std::fs::write(&file, &bytes).expect("written");
    let outputs = [
        run(&["explain", &digits]),
        run(&["explain", &file]),
        run_with_input(&["explain", "-"], &bytes),
        run_with_input(&["explain", "-"], digits.as_bytes()),
    ];
    for output in &outputs {
        assert_eq!(code(output), 0, "{}", stderr(output));
        assert_eq!(output.stdout, outputs[0].stdout);
    }
    assert!(!outputs[0].stdout.is_empty());
}

#[test]
fn what_is_no_bytes_is_not_started() {
    for words in [&["explain"][..], &["explain", "xyz"], &["explain", "abc"], &["explain", "/no/such/file"]] {
        let output = run(words);
        assert_eq!(code(&output), 2, "{words:?}");
        assert!(
            stderr(&output).starts_with("error: ") && stderr(&output).contains("\n  help: "),
            "{words:?}"
        );
        assert!(output.stdout.is_empty());
    }
}
