//! The barriers of others, where they are installed: `benches/limits/peers/run --install`.

use super::PING_PONG;
use crate::Bench;
use crate::measure::{Fallible, Spread};
use crate::row::{Bar, Row};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Name, what `peers/run` calls it, and how many times slower it shall be at least.
const PEERS: [(&str, &str, Option<f64>); 3] =
    [("gloo", "gloo", Some(1.0)), ("spark", "spark-rpc", Some(4.0)), ("openmpi", "openmpi", None)];

/// Next to ours of the same run.
pub fn measure(bench: &mut Bench) -> Fallible<()> {
    for (peer, name, times) in PEERS {
        for n in [2, 4] {
            let what = format!("remote/peers/{peer}");
            let ours = bench.rows.iter().find(|row| {
                (row.what.as_str(), row.n) == ("remote/barrier", n)
                    && row.reference.is_some_and(|(name, _)| name == PING_PONG)
            });
            let Some(ours) = ours.map(|row| row.ours).filter(|_| bench.wants(&what, n, 0)) else {
                continue;
            };
            for line in run(peer, n)?.lines() {
                let said: Value = serde_json::from_str(line)?;
                if let Some(why) = said["skipped"].as_str() {
                    println!("{what} {n}: skipped: {why}");
                    continue;
                }
                let number = |key: &str| said[key].as_f64().ok_or("no number");
                let theirs = Spread { p50: number("median_us")?, p99: number("p99_us")? };
                let variant = match said["peer"].as_str() {
                    Some("openmpi-busy") => "Open MPI over TCP, busy",
                    Some("openmpi-yield") => "Open MPI over TCP, yielding",
                    Some("gloo") => "gloo",
                    Some(known) if known == name => "Spark's coordinator, asked directly",
                    Some(_) | None => continue,
                };
                let bar = times.map(|times| Bar::Ratio(1.0 / times));
                bench.add(Row::new(&what, n, ours).against(variant, theirs).bar(bar));
            }
        }
    }
    Ok(())
}

fn run(peer: &str, n: usize) -> Fallible<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/limits/peers/run");
    let output = Command::new(script).args([peer, &n.to_string()]).output()?;
    Ok(String::from_utf8(output.stdout)?)
}
