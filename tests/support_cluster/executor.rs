//! Processes that a test starts by hand.

use super::processes::send;
use super::{BEGIN, DRIVER, HANGS, eventually, this_program};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// A process whose output is read. Killed when dropped.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    read: Vec<String>,
}

impl Process {
    /// An executor of this name for the driver at this address.
    pub fn executor(name: &str, driver: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = this_program(&[BEGIN]);
        command
            .env("PHALANX_ROLE", "executor")
            .env("PHALANX_DRIVER", driver)
            .env("PHALANX_EXECUTOR_NAME", name)
            .env("PHALANX_SLOTS", "1")
            .env("PHALANX_WORKER_THREADS", "1")
            .envs(variables.iter().copied());
        Process::start(&mut command)
    }

    /// A driver of this file's [`begin`](super::begin).
    pub fn driver(name: &str) -> Self {
        // What its executors say is heard as well.
        Process::start(this_program(&[BEGIN]).env(DRIVER, name).env("RUST_TEST_NOCAPTURE", "1"))
    }

    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        pass_on(child.stdout.take().unwrap(), sender.clone());
        pass_on(child.stderr.take().unwrap(), sender);
        Process { child, lines, read: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn send(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Waits for a line that begins with this; returns its rest.
    pub fn line(&mut self, start: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(HANGS / 4);
            let line = line.unwrap_or_else(|_| panic!("no '{start}' in {:#?}", self.read));
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim().to_owned();
            }
            self.read.push(line);
        }
    }

    /// Waits until it has ended; returns how, and the rest of what it said.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let status =
            eventually(HANGS / 4, "the end of a process", || self.child.try_wait().unwrap());
        let mut said = std::mem::take(&mut self.read);
        said.extend(self.lines.iter());
        (status, said.join("\n"))
    }
}

fn pass_on(output: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Nobody need read them.
            let _ = lines.send(line);
        }
    });
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
