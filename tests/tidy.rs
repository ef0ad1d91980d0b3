//! The rules of the house that a machine can check.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources_below(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            // `target`: what a build of an example that is a package of its own has made.
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

fn sources() -> Vec<(PathBuf, String)> {
    let folders = ["src", "protocol", "actors", "cli", "examples", "tests", "benches"];
    let found: Vec<_> = folders
        .iter()
        .flat_map(|folder| sources_below(folder))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    assert!(found.len() > 40, "the sources are where they were: {}", found.len());
    found
}

/// First line, name and length of every function, by the indentation that rustfmt gives it.
fn functions(text: &str) -> Vec<(usize, &str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = ["fn ", "pub fn ", "async fn ", "pub async fn ", "pub(crate) fn "]
            .iter()
            .chain(["pub(super) fn ", "pub(crate) async fn ", "const fn "].iter())
            .any(|keyword| code.starts_with(keyword));
        if is_function && !line.ends_with(';') {
            let end = format!("{}}}", &line[..line.len() - code.len()]);
            let length = lines[start..].iter().position(|line| *line == end).map_or(1, |at| at + 1);
            found.push((start + 1, *line, length));
        }
    }
    found
}

#[test]
fn files_functions_and_lines_are_small() {
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        let name = path.strip_prefix(root()).unwrap().display();
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            complaints.push(format!("{name} has {lines} lines: is it two ideas?"));
        }
        for (number, line) in text.lines().enumerate() {
            // Error texts are not torn apart.
            if line.chars().count() > COLUMNS_MAX && !line.contains("\"") {
                complaints.push(format!("{name}:{} is longer than {COLUMNS_MAX}", number + 1));
            }
        }
        for (number, line, length) in functions(&text) {
            if length > FUNCTION_LINES_MAX {
                complaints.push(format!("{name}:{number} has {length} lines: {}", line.trim()));
            }
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn the_protocol_is_pure() {
    let manifest = fs::read_to_string(root().join("protocol/Cargo.toml")).unwrap();
    let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
    let names: Vec<&str> =
        dependencies.lines().filter_map(|line| line.split(['.', ' ']).next()).collect();
    let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
    assert_eq!(names, ["bytes", "serde", "smallvec", "thiserror"], "no runtime, clock or I/O");
    let banned = [
        "Instant",
        "SystemTime",
        "std::thread",
        "std::fs",
        "std::net",
        "std::io",
        "std::env",
        "Mutex",
        "RwLock",
        "Atomic",
        "async ",
        "HashMap",
        "HashSet",
        "RandomState",
        "rand::",
        "println!",
    ];
    let sources = sources_below("protocol/src");
    assert!(sources.len() > 15);
    for path in sources {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            let found = banned.iter().find(|word| line.contains(**word));
            assert_eq!(found, None, "{}: {line}", path.display());
        }
    }
}

#[test]
fn no_arm_swallows_what_is_not_named() {
    for path in sources_below("protocol/src").into_iter().chain(sources_below("actors/src")) {
        let text = fs::read_to_string(&path).unwrap();
        if path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs") {
            continue;
        }
        for line in text.lines() {
            assert!(!line.trim_start().starts_with("_ =>"), "{}: {line}", path.display());
        }
    }
}

#[test]
fn nothing_is_left_unfinished() {
    // Put together, or this file would find itself.
    let words = [concat!("todo", "!("), concat!("unimpl", "emented!("), concat!("FIX", "ME")];
    for (path, text) in sources() {
        for word in words {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}
