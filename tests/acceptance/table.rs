//! The table in README.md names every test, and no other.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

/// Every `fn` after a `#[test]` or its like, in all files of this folder.
fn tests() -> BTreeSet<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/acceptance");
    let (mut folders, mut names) = (vec![here], BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                names.extend(text.lines().filter_map(test_name).map(str::to_owned));
            }
        }
    }
    names
}

/// The name in `fn a1_global_sync() {`.
fn test_name(line: &str) -> Option<&str> {
    let rest = line.trim_start();
    let rest = rest.strip_prefix("async ").unwrap_or(rest).strip_prefix("fn ")?;
    let name = rest.split_once("()")?.0;
    row(name).map(|_| name)
}

/// `A12` of `a12_a_kill_interrupts_a_sleep`.
fn row(name: &str) -> Option<(char, u32)> {
    let (row, _) = name.split_once('_')?;
    let mut letters = row.chars();
    let part = letters.next().filter(char::is_ascii_lowercase)?;
    Some((part.to_ascii_uppercase(), letters.as_str().parse().ok()?))
}

fn named_in_table() -> BTreeSet<String> {
    let table = include_str!("README.md");
    let quoted = table.lines().filter(|line| line.starts_with('|')).flat_map(|line| {
        let cell = line.split('|').nth(2).unwrap_or_default();
        cell.split('`').skip(1).step_by(2)
    });
    quoted.filter(|name| row(name).is_some()).map(str::to_owned).collect()
}

#[test]
fn the_table_names_every_test_and_no_other() {
    let (tests, named) = (tests(), named_in_table());
    let missing: Vec<_> = tests.difference(&named).collect();
    let gone: Vec<_> = named.difference(&tests).collect();
    assert!(missing.is_empty(), "not in tests/acceptance/README.md: {missing:?}");
    assert!(gone.is_empty(), "in tests/acceptance/README.md, but not there: {gone:?}");
    let rows: BTreeSet<_> = tests.iter().filter_map(|name| row(name)).collect();
    // Past the test harness, which keeps what is printed.
    let told =
        writeln!(std::io::stderr(), "acceptance: {} rows, {} tests", rows.len(), tests.len());
    drop(told);
    let of = |part: char, numbers: &[u32]| {
        numbers.iter().filter(|number| !rows.contains(&(part, **number))).count()
    };
    assert_eq!(of('A', &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]), 0);
    assert_eq!(of('B', &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]), 0);
    assert_eq!(of('C', &[1, 2, 3, 4, 7, 8, 9]), 0);
    assert_eq!(of('E', &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]), 0);
    assert_eq!(of('F', &[1, 2, 3]), 0);
    assert_eq!(of('G', &[1, 2, 3, 4, 5]), 0);
    assert_eq!(of('I', &[1, 2, 3, 4, 5]), 0);
    assert_eq!(of('J', &[1, 2, 3, 4, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22]), 0);
    assert_eq!(of('K', &[1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 15, 18]), 0);
    assert_eq!(of('L', &[1, 5, 6, 8, 9, 10]), 0);
    assert_eq!(of('R', &[1, 2, 3, 4, 5]), 0);
}
