//! What the system says about processes.

use super::eventually;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::time::Duration;

/// The executors that this process has started and that have not ended, by name and process id.
pub fn executors_here() -> Vec<(String, u32)> {
    let own = std::process::id();
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let (state, parent) = state_of(pid)?;
        let name = variable_of(pid, "PHALANX_EXECUTOR_NAME")?;
        (parent == own && state != 'Z').then_some((name, pid))
    });
    let mut found: Vec<_> = all.collect();
    found.sort();
    found
}

/// The process of the executor of this name that this process has started.
pub fn pid_of(name: &str) -> u32 {
    let here = executors_here();
    let found = here.iter().find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("{name} is not among {here:?}")).1
}

/// Whether a process runs or could run again.
pub fn is_alive(pid: u32) -> bool {
    state_of(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// Waits until the processes are gone.
pub fn gone(pids: &[u32], limit: Duration) {
    eventually(limit, &format!("{pids:?} gone"), || {
        (!pids.iter().any(|pid| is_alive(*pid))).then_some(())
    });
}

pub fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Stops a process; it has stopped when this returns.
pub fn stop(pid: u32) {
    send(pid, Signal::STOP);
    eventually(Duration::from_secs(5), "stopped", || {
        (state_of(pid).unwrap().0 == 'T').then_some(())
    });
}

/// State and parent.
fn state_of(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may have any characters.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn variable_of(pid: u32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let start = format!("{name}=");
    let variables = environment.split(|byte| *byte == 0);
    let mut values = variables.filter_map(|variable| variable.strip_prefix(start.as_bytes()));
    values.next().map(|value| String::from_utf8_lossy(value).into_owned())
}
