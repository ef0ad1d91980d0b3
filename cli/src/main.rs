//! `phalanx`: asks a driver what it does, and cancels stages.

mod show;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use phalanx::actors::remote::{Client, TlsFiles, Token};
use phalanx::protocol::StageId;
use std::path::PathBuf;
use std::process::ExitCode;

/// Asks a phalanx driver what it does, and cancels stages.
#[derive(Parser)]
#[command(name = "phalanx", version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows executors, stages, and who waits for whom.
    Status {
        #[command(flatten)]
        driver: Driver,
        /// Prints all of it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ends a stage: its tasks are killed, and it fails with the reason given.
    Cancel {
        #[command(flatten)]
        driver: Driver,
        /// The stage's id, as `phalanx status` shows it.
        stage: u64,
        /// Why; whoever waits for the stage is told.
        #[arg(long, default_value = "cancelled by `phalanx cancel`")]
        reason: String,
    },
}

/// Where the driver is, and what it wants to be proved.
#[derive(Args)]
struct Driver {
    /// Where it listens.
    #[arg(long, value_name = "HOST:PORT", env = "PHALANX_DRIVER")]
    driver: String,
    /// The file with the shared token. The variable PHALANX_TOKEN may have the token itself.
    #[arg(long, value_name = "FILE", env = "PHALANX_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Certificate of the CA, in PEM; with it the link is TLS.
    #[arg(long, value_name = "FILE", env = "PHALANX_TLS_CA", requires_all = ["certificate", "key"])]
    ca: Option<PathBuf>,
    /// This side's certificate.
    #[arg(long, value_name = "FILE", env = "PHALANX_TLS_CERTIFICATE", requires = "ca")]
    certificate: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", env = "PHALANX_TLS_KEY", requires = "ca")]
    key: Option<PathBuf>,
    /// The name in the driver's certificate, if it is not the host dialled.
    #[arg(long, value_name = "NAME", env = "PHALANX_TLS_SERVER_NAME")]
    server_name: Option<String>,
}

impl Driver {
    async fn connect(self) -> anyhow::Result<Client> {
        let text = std::env::var("PHALANX_TOKEN").ok().filter(|text| !text.is_empty());
        let token = match (text, &self.token_file) {
            (Some(text), _) => Some(Token::new(&text)),
            (None, Some(file)) => Some(Token::read(file)),
            (None, None) => None,
        };
        let token = token.transpose().map_err(anyhow::Error::msg)?;
        let tls = match (self.ca, self.certificate, self.key) {
            (Some(ca), Some(certificate), Some(key)) => {
                Some(TlsFiles { ca, certificate, key }.client(self.server_name)?)
            }
            _ => None,
        };
        Client::connect(&self.driver, token.as_ref(), tls.as_ref())
            .await
            .with_context(|| format!("the driver at {}", self.driver))
    }
}

fn main() -> ExitCode {
    match run(Options::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("phalanx: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Status { driver, json } => {
            let status = driver.connect().await?.status().await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&status)?);
            } else {
                print!("{}", show::text(&status));
            }
        }
        Command::Cancel { driver, stage, reason } => {
            let did_run = driver.connect().await?.cancel(StageId(stage), reason).await?;
            if !did_run {
                bail!("there is no stage {stage} that has not ended; `phalanx status` shows all");
            }
            println!("stage {stage} is being cancelled");
        }
    }
    Ok(())
}
