//! What this program does when another of its kind starts it, and how it is started.

use crate::measure::Fallible;
use crate::{cold_start, costs, memory, remote};
use std::env;
use std::process::{Command, Stdio};

/// Does what the words say.
pub fn run(words: &[String]) -> Fallible<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["cold-start", side] => cold_start::child(side),
        ["echo"] => remote::echo(),
        ["memory", what] => memory::child(what),
        ["costs", what, rounds] => costs::child(what, rounds.parse()?),
        _ => Err(format!("there is no --child {words:?}").into()),
    }
}

/// Starts this program with these words and returns what it prints.
pub fn start(words: &[&str]) -> Fallible<String> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("--child").args(words).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("--child {words:?}: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
