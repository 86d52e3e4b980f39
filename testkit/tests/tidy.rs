//! The house rules a machine can check (`CONTRIBUTING.md`, "The rules of the house").

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function, from its `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

struct File {
    /// From the root of the repository, with `/`.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file of the repository whose name ends so, without what cargo and git put there.
fn files(ending: &str) -> Vec<File> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !matches!(name, "target" | ".git" | "corpus" | "regressions" | "artifacts") {
                directories.push(path);
            } else if name.ends_with(ending)
                && let Ok(text) = fs::read_to_string(&path)
            {
                let path = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
                found.push(File { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The lines that are program and there without any feature: no comments, nothing below `#[cfg(test)]` or one of
/// the two features that have a system.
fn program(file: &File) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    // While an item is left out: how far it is indented.
    let mut left_out = None;
    for (at, line) in file.text.lines().enumerate() {
        let (indent, text) = (line.len() - line.trim_start().len(), line.trim());
        if let Some(start) = left_out {
            let ends = text.ends_with(['}', ';']) && indent == start && !text.starts_with("#[");
            left_out = (!ends).then_some(start);
        } else if ["#[cfg(test)]", "#[cfg(feature = \"tokio\")]", "#[cfg(feature = \"outbox\")]"]
            .contains(&text)
        {
            left_out = Some(indent);
        } else if !text.starts_with("//") {
            lines.push((at + 1, line));
        }
    }
    lines
}

/// Files that hold only tests: those in directories of tests, and those whose `mod` stands below `#[cfg(test)]`.
fn test_modules(files: &[File]) -> Vec<String> {
    let mut modules = Vec::new();
    for file in files {
        let stem = file.path.trim_end_matches(".rs");
        let directory = match stem.rsplit_once('/') {
            Some((directory, "mod" | "lib" | "main")) => directory,
            _ => stem,
        };
        let lines: Vec<_> = file.text.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]") {
            if let Some(name) = pair[1].strip_prefix("mod ").or(pair[1].strip_prefix("pub(crate) mod "))
                && let Some(name) = name.strip_suffix(';')
            {
                modules.push(format!("{directory}/{name}"));
            }
        }
    }
    modules
}

fn in_test_directory(file: &File) -> bool {
    file.path.split('/').any(|part| matches!(part, "tests" | "benches" | "examples"))
}

/// Below the drivers.
fn is_below(file: &File, test_modules: &[String]) -> bool {
    let core =
        ["wire-format/src/", "discovery/src/", "push/src/"].iter().any(|floor| file.path.starts_with(floor));
    let stem = file.path.trim_end_matches(".rs");
    let test = test_modules.iter().any(|module| stem == module || stem.starts_with(&format!("{module}/")));
    core && !test && !file.path.contains("/driver")
}

/// The outbox and the journal in files read what a crash left of them; the cores have no system, no clock, no thread.
fn below_drivers() -> Vec<File> {
    let mut files = files(".rs");
    let modules = test_modules(&files);
    files.retain(|file| is_below(file, &modules));
    assert!(files.len() > 40, "the walk finds the floors");
    files
}

fn cores() -> Vec<File> {
    let mut files = below_drivers();
    let on_disk = ["push/src/outbox/", "push/src/file_journal/"];
    files.retain(|file| !on_disk.iter().any(|folder| file.path.starts_with(folder)));
    files
}

fn report(rule: &str, breaches: &[String]) {
    let shown = &breaches[..breaches.len().min(20)];
    assert!(breaches.is_empty(), "{} times not so: {rule}:\n  {}", breaches.len(), shown.join("\n  "));
}

fn lines_with(files: &[File], bad: impl Fn(&str) -> bool) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in files {
        for (at, line) in program(file).into_iter().filter(|(_, line)| bad(line)) {
            breaches.push(format!("{}:{at}: {}", file.path, line.trim()));
        }
    }
    breaches
}

#[test]
fn files_are_short_enough_to_read() {
    let files = files(".rs");
    assert!(files.len() > 30, "the walk finds the sources");
    let long = files.iter().filter(|file| file.text.lines().count() > FILE_LINES_MAX);
    let long: Vec<_> =
        long.map(|file| format!("{}: {} lines", file.path, file.text.lines().count())).collect();
    report("a file has at most 600 lines", &long);
}

#[test]
fn functions_are_short_enough_to_read() {
    let mut long = Vec::new();
    for file in files(".rs").iter().filter(|file| !in_test_directory(file)) {
        let lines: Vec<_> = file.text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_function = line.trim_start().split(['(', '<']).next().is_some_and(|head| {
                head.split(' ').rev().nth(1) == Some("fn") && !line.trim_start().starts_with("//")
            });
            // rustfmt puts the closing brace where the function begins.
            let closing = format!("{}}}", " ".repeat(indent));
            if is_function
                && !line.ends_with(';')
                && !line.ends_with('}')
                && let Some(len) = lines[start..].iter().position(|line| *line == closing)
                && len >= FUNCTION_LINES_MAX
            {
                long.push(format!("{}:{}: {} lines", file.path, start + 1, len + 1));
            }
        }
    }
    report("a function has at most 70 lines", &long);
}

#[test]
fn unsafe_stands_in_one_file() {
    // And in the program that is linked to prove that there is no panic, and never run.
    let allowed = ["testkit/src/alloc.rs", "testkit/no-panic/src/main.rs"];
    let word = |line: &str| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
            && !line.contains('"')
    };
    let mut files = files(".rs");
    files.retain(|file| !allowed.contains(&file.path.as_str()));
    report("`unsafe` is for testkit/src/alloc.rs", &lines_with(&files, word));
}

#[test]
fn lints_are_switched_off_with_a_reason_only() {
    let mut breaches = Vec::new();
    for file in files(".rs") {
        for (start, _) in file.text.match_indices("#[allow(").chain(file.text.match_indices("#[expect(")) {
            let attribute = file.text[start..].split(")]").next().unwrap_or_default();
            let at = file.text[..start].lines().count();
            let own_line = file.text[..start].lines().next_back().is_none_or(|line| line.trim().is_empty());
            if own_line && !attribute.contains("reason = \"") {
                breaches.push(format!("{}:{at}: {attribute}", file.path));
            }
        }
    }
    report("a lint is switched off with a reason only", &breaches);
}

#[test]
fn the_floors_below_the_drivers_have_no_system() {
    let bad = |line: &str| {
        ["std::", "tokio::", "socket2::", "extern crate alloc", "alloc::"].iter().any(|word| {
            line.match_indices(word).any(|(at, _)| {
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                    && !line.contains("cfg(")
            })
        })
    };
    let breaches = lines_with(&cores(), bad);
    report("wire-format and the cores of discovery and push know no std, tokio or alloc", &breaches);
    for name in ["wire-format", "discovery", "push"] {
        let text = fs::read_to_string(root().join(name).join("src/lib.rs")).unwrap();
        assert!(text.contains("no_std)]"), "{name}/src/lib.rs declares no_std");
    }
}

#[test]
fn nothing_below_the_drivers_can_be_told_to_panic() {
    let bad = |line: &str| {
        [
            ".unwrap()",
            ".expect(\"",
            "panic!(",
            "unreachable!(",
            "todo!(",
            "unimplemented!(",
            " assert!(",
            " assert_eq!(",
        ]
        .iter()
        .any(|word| line.contains(word))
            && !line.contains("const ")
    };
    let mut breaches = Vec::new();
    for file in below_drivers() {
        let lines = program(&file);
        for pair in lines.windows(2).filter(|pair| bad(pair[1].1)) {
            // The compiler checks what stands in a constant, so that cannot fail in a program.
            if !pair[0].1.contains("const ") {
                breaches.push(format!("{}:{}: {}", file.path, pair[1].0, pair[1].1.trim()));
            }
        }
    }
    report("no panic is reachable from the network or a disk", &breaches);
}

/// Our own packages a package may name in `[dependencies]`, and in `[dev-dependencies]` besides.
const EDGES: [(&str, &[&str], &[&str]); 6] = [
    ("wire-format", &[], &[]),
    ("discovery", &["wire-format"], &["testkit"]),
    ("push", &["wire-format"], &["testkit"]),
    (".", &["wire-format", "discovery", "push"], &["testkit"]),
    ("cli", &["tillwire", "wire-format", "testkit"], &[]),
    ("testkit", &["wire-format", "discovery", "push"], &["tillwire"]),
];

#[test]
fn imports_go_down_only() {
    let own = ["wire-format", "discovery", "push", "tillwire", "testkit"];
    for (package, allowed, allowed_in_tests) in EDGES {
        let text = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        let mut section = String::new();
        for line in text.lines() {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']).to_owned();
            }
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            let good = match section.as_str() {
                "dependencies" => allowed.contains(&name),
                "dev-dependencies" => allowed.contains(&name) || allowed_in_tests.contains(&name),
                _ => true,
            };
            assert!(good || !own.contains(&name), "{package} must not depend on {name} in [{section}]");
        }
    }
}

#[test]
fn bincode_is_named_in_one_file() {
    let mut files = files(".rs");
    files.retain(|file| file.path != "wire-format/src/payload/codec.rs" && !in_test_directory(file));
    let breaches = lines_with(&files, |line| line.contains("bincode::"));
    report("bincode can be replaced in one place", &breaches);
}

#[test]
fn documents_and_sources_are_clean() {
    // Written in pieces, so that this file does not break its own rule.
    let banned = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("HA", "CK"),
        concat!("black", "list"),
        concat!("white", "list"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("crates", "-index"),
    ];
    let mut breaches = Vec::new();
    for ending in [".rs", ".md", ".toml", ".sh", "run"] {
        for file in files(ending) {
            for (at, line) in file.text.lines().enumerate() {
                for word in banned.iter().filter(|word| line.contains(**word)) {
                    breaches.push(format!("{}:{}: {word}", file.path, at + 1));
                }
                if line.ends_with([' ', '\t'])
                    || line.contains('\r')
                    || line.contains('\t') && ending == ".rs"
                {
                    breaches.push(format!("{}:{}: white space", file.path, at + 1));
                }
            }
            if !file.text.is_empty() && !file.text.ends_with('\n') {
                breaches.push(format!("{}: the last line is not ended", file.path));
            }
        }
    }
    report("words and white space", &breaches);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut breaches = Vec::new();
    for file in files(".md") {
        let directory = root().join(&file.path).parent().unwrap().to_owned();
        for target in file.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if !path.is_empty()
                && !target.contains("://")
                && !target.contains(' ')
                && !directory.join(path).exists()
            {
                breaches.push(format!("{}: {target}", file.path));
            }
        }
    }
    report("a link in a document leads to a file", &breaches);
}
