//! A web service that runs training jobs as gangs: phalanx embedded in actix-web.
//!
//! ```sh
//! cargo run --example embed_in_actix_web -- --listen 127.0.0.1:8080 --slots 4
//! curl -d '{"name": "fit", "tasks": 4}' -H 'content-type: application/json' \
//!     http://127.0.0.1:8080/jobs
//! curl http://127.0.0.1:8080/jobs/0
//! curl -X DELETE 'http://127.0.0.1:8080/jobs/0?reason=enough'
//! ```

mod api;
mod jobs;
mod training;

use actix_web::{App, HttpServer, rt, web};
use anyhow::Context;
use clap::Parser;
use jobs::Jobs;
use phalanx::Runtime;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

/// Runs training jobs that are posted to /jobs.
#[derive(Parser)]
struct Options {
    /// Where to take requests; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// How many tasks run at once [default: the machine's cores]
    #[arg(long)]
    slots: Option<u32>,
    /// How long to wait for tasks at the end, like 5s or 300ms.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    grace: Duration,
}

#[actix_web::main]
async fn main() -> ExitCode {
    match serve(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Until the process is told to end.
async fn serve(Options { listen, slots, grace }: Options) -> anyhow::Result<()> {
    let builder = Runtime::builder();
    let builder = slots.into_iter().fold(builder, |builder, slots| builder.slots(slots));
    let runtime = builder.start()?;
    let end = end_signal()?;

    let jobs = web::Data::new(Jobs::new(runtime.clone()));
    let server = HttpServer::new(move || App::new().app_data(jobs.clone()).configure(api::routes))
        // Requests only pass messages on: the cores are the tasks'.
        .workers(1)
        .disable_signals()
        .shutdown_timeout(1)
        .bind(listen)
        .with_context(|| format!("cannot listen on {listen}"))?;
    for address in server.addrs() {
        writeln!(io::stdout(), "listening on {address}")?;
    }
    io::stdout().flush()?;

    let server = server.run();
    let handle = server.handle();
    let mut serving = rt::spawn(server);
    tokio::select! {
        ended = &mut serving => ended??,
        () = end => handle.stop(true).await,
    }
    Ok(runtime.shutdown(grace).await?)
}

/// Listens from now on; resolves when the process is told to end.
#[cfg(unix)]
fn end_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Listens from now on; resolves when the process is told to end.
#[cfg(windows)]
fn end_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move { drop(interrupt.recv().await) })
}
