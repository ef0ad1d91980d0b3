//! What a process of a program is: the driver, or an executor of it.

use crate::{BoxError, Config, ExecutorResources, Registry, TlsFiles, Token};
use phalanx_actors::remote::wire::ExecutorHello;
use phalanx_actors::remote::{ExecutorEnd, ExecutorProcess};
use std::collections::BTreeMap;
use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing::info;

/// What a process is, where it finds the driver and what it knows; see [`main`].
const VARIABLES: [&str; 12] = [
    ROLE,
    DRIVER,
    TOKEN,
    TOKEN_FILE,
    EXECUTOR_NAME,
    EXECUTOR_ADDRESS,
    EXECUTOR_RESOURCES,
    DIES_WITH_PARENT,
    TLS_CA,
    TLS_CERTIFICATE,
    TLS_KEY,
    TLS_SERVER_NAME,
];
pub(crate) const ROLE: &str = "PHALANX_ROLE";
pub(crate) const DRIVER: &str = "PHALANX_DRIVER";
pub(crate) const TOKEN: &str = "PHALANX_TOKEN";
pub(crate) const TOKEN_FILE: &str = "PHALANX_TOKEN_FILE";
pub(crate) const EXECUTOR_NAME: &str = "PHALANX_EXECUTOR_NAME";
pub(crate) const EXECUTOR_ADDRESS: &str = "PHALANX_EXECUTOR_ADDRESS";
pub(crate) const EXECUTOR_RESOURCES: &str = "PHALANX_EXECUTOR_RESOURCES";
pub(crate) const DIES_WITH_PARENT: &str = "PHALANX_EXECUTOR_DIES_WITH_PARENT";
pub(crate) const TLS_CA: &str = "PHALANX_TLS_CA";
pub(crate) const TLS_CERTIFICATE: &str = "PHALANX_TLS_CERTIFICATE";
pub(crate) const TLS_KEY: &str = "PHALANX_TLS_KEY";
pub(crate) const TLS_SERVER_NAME: &str = "PHALANX_TLS_SERVER_NAME";

/// First argument of a process that is an executor.
const EXECUTOR_ARGUMENT: &str = "phalanx-executor";

pub(crate) const EXECUTOR: &str = "executor";

/// Where Slurm says from which host a task was launched.
const SLURM_LAUNCHER: &str = "SLURM_LAUNCH_NODE_IPADDR";

/// How many cpus Slurm gives a task.
const SLURM_CPUS: &str = "SLURM_CPUS_ON_NODE";

/// Whether a variable of this name says what a process is, rather than what it is set to.
pub(crate) fn is_variable(name: &str) -> bool {
    VARIABLES.contains(&name)
}

/// What the environment of this process says, or its flags, of which the latter count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables(BTreeMap<String, String>);

/// The `main` of a program whose driver and executors are the same binary: runs `driver`, or an
/// executor if the process was started as one.
///
/// ```no_run
/// use phalanx::{BarrierTaskContext, Cluster, ExecutorResources, Registry, Runtime, Stage};
///
/// async fn greet(ctx: BarrierTaskContext, name: String) -> phalanx::TaskResult<String> {
///     ctx.barrier().await?;
///     Ok(format!("{name} on {}", ctx.task_infos()[ctx.rank()].executor))
/// }
///
/// fn main() -> std::process::ExitCode {
///     phalanx::main(Registry::new("greeter", "1.0").register("greet", greet), driver)
/// }
///
/// fn driver(registry: Registry) -> Result<(), phalanx::BoxError> {
///     let cluster = Cluster::processes(2, ExecutorResources::new(1));
///     let runtime = Runtime::builder().registry(registry).cluster(cluster).start()?;
///     let names = ["Ada".to_owned(), "Alan".to_owned()];
///     println!("{:?}", Stage::named("greet", names).run::<String>(&runtime).wait()?);
///     Ok(())
/// }
/// ```
///
/// A process is an executor if `PHALANX_ROLE` is `executor` or its first argument is
/// `phalanx-executor`, which flags follow: `--driver` is `PHALANX_DRIVER`, `--token-file` is
/// `PHALANX_TOKEN_FILE`, `--slots` is `PHALANX_SLOTS`, and so on.
///
/// - `PHALANX_DRIVER`: `host:port` of the driver; inside a Slurm step `:port` is that of the host
///   that launched it.
/// - `PHALANX_TOKEN` or `PHALANX_TOKEN_FILE`: the shared token, or the file that has it.
/// - `PHALANX_TLS_CA`, `PHALANX_TLS_CERTIFICATE`, `PHALANX_TLS_KEY`: PEM files of the CA and of
///   this side's certificate and key.
/// - `PHALANX_TLS_SERVER_NAME`: the name in the driver's certificate, if it is not the host that
///   is dialled.
/// - `PHALANX_EXECUTOR_NAME`: who this executor is; one that comes back keeps it. Default: host
///   name and process id.
/// - `PHALANX_EXECUTOR_ADDRESS`: where its tasks can be found. Default: where it dials from.
/// - `PHALANX_EXECUTOR_RESOURCES`: named resources, like `gpu=0,1;disk=a`.
/// - `PHALANX_SLOTS` and all others of [`Config`]: its slots, threads and limits.
///
/// A driver's error is printed with what caused it. An executor ends with 0 when its driver says
/// goodbye, with 143 after SIGTERM, else with 1, and says why on stderr. To see its log, install a
/// `tracing` subscriber before this.
pub fn main<E: Into<BoxError>>(
    registry: Registry,
    driver: impl FnOnce(Registry) -> Result<(), E>,
) -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let is_named = arguments.next().as_deref() == Some(EXECUTOR_ARGUMENT);
    let variables = Variables::of_process();
    if !is_named && !variables.is_executor() {
        return match driver(registry) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {}", with_sources(&*error.into()));
                ExitCode::FAILURE
            }
        };
    }
    let run = || -> Result<ExecutorEnd, String> {
        let mut variables = variables;
        if is_named {
            variables.add_flags(arguments)?;
        }
        let process = variables.executor(&registry)?;
        Ok(process.run(move |launch| registry.resolve(launch)))
    };
    match run() {
        Ok(end @ ExecutorEnd::Goodbye(_)) => {
            info!("{end}");
            ExitCode::SUCCESS
        }
        Ok(end) => {
            eprintln!("phalanx executor: {end}");
            ExitCode::from(if matches!(end, ExecutorEnd::Signalled(_)) { 143 } else { 1 })
        }
        Err(error) => {
            eprintln!("phalanx executor: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Sources that an error's own text has already are left out.
fn with_sources(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

impl Variables {
    pub(crate) fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        Variables(variables.collect())
    }

    pub(crate) fn is_executor(&self) -> bool {
        self.get(ROLE) == Some(EXECUTOR)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// `--token-file x` is `PHALANX_TOKEN_FILE=x`.
    fn add_flags(&mut self, mut flags: impl Iterator<Item = String>) -> Result<(), String> {
        while let Some(flag) = flags.next() {
            let Some(name) = flag.strip_prefix("--") else {
                return Err(format!("'{flag}' is no flag; flags are like --driver host:port"));
            };
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, flags.next()),
            };
            let value = value.ok_or_else(|| format!("--{name} needs a value"))?;
            let name = name.replace('-', "_").to_uppercase();
            self.0.insert(format!("PHALANX_{name}"), value);
        }
        Ok(())
    }

    /// The token, if there is one.
    pub(crate) fn token(&self) -> Result<Option<Token>, String> {
        match (self.get(TOKEN), self.get(TOKEN_FILE)) {
            (Some(text), _) => Token::new(text).map(Some),
            (None, Some(path)) => Token::read(path.as_ref()).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The certificates, if there are any.
    pub(crate) fn tls(&self) -> Result<Option<TlsFiles>, String> {
        let path = |name| self.get(name).map(PathBuf::from);
        match (path(TLS_CA), path(TLS_CERTIFICATE), path(TLS_KEY)) {
            (None, None, None) => Ok(None),
            (Some(ca), Some(certificate), Some(key)) => Ok(Some(TlsFiles { ca, certificate, key })),
            _ => Err(format!("TLS needs all of {TLS_CA}, {TLS_CERTIFICATE} and {TLS_KEY}")),
        }
    }

    /// What this process is as an executor.
    fn executor(&self, registry: &Registry) -> Result<ExecutorProcess, String> {
        if let Some(name) = registry.twice() {
            return Err(format!("the registry has two codes named '{name}'"));
        }
        let mut config = Config::default();
        if let Some(cpus) = self.get(SLURM_CPUS).and_then(|cpus| cpus.parse().ok()) {
            config.slots = cpus;
        }
        config.apply_variables(self.0.clone()).map_err(|error| error.to_string())?;
        config.validate().map_err(|error| error.to_string())?;
        if self.get(DIES_WITH_PARENT).is_some() {
            die_with_parent();
        }
        let server_name = self.get(TLS_SERVER_NAME).map(str::to_owned);
        let tls = self.tls()?.map(|files| files.client(server_name)).transpose();
        let mut resources = ExecutorResources::new(config.slots);
        for resource in self.get(EXECUTOR_RESOURCES).iter().flat_map(|text| text.split(';')) {
            let Some((name, addresses)) = resource.split_once('=') else {
                return Err(format!(
                    "{EXECUTOR_RESOURCES}: '{resource}' is no resource; write gpu=0,1;disk=a"
                ));
            };
            resources = resources.with(name.trim(), addresses.split(',').map(str::trim));
        }
        // Containers of one host may all have the same name and process id.
        let digits = RandomState::new().hash_one(0_u8) & 0xFFFF;
        let default_name = || format!("{}-{}-{digits:04x}", host_name(), std::process::id());
        Ok(ExecutorProcess {
            driver: self.driver()?,
            token: self.token()?,
            tls: tls.map_err(|error| error.to_string())?,
            hello: ExecutorHello {
                program: registry.program(),
                name: self.get(EXECUTOR_NAME).map_or_else(default_name, str::to_owned),
                lives: 0,
                resources,
                address: self.get(EXECUTOR_ADDRESS).map(str::to_owned),
            },
            worker_threads: config.worker_threads,
            max_queued: config.link_max_queued,
            reconnect_timeout: config.link_reconnect_timeout,
            grace: config.kill_grace,
        })
    }

    fn driver(&self) -> Result<String, String> {
        let missing = format!("{DRIVER} is missing: give the driver's host:port");
        let driver = self.get(DRIVER).ok_or(missing)?;
        let allowed = format!("{DRIVER} = \"{driver}\" is not allowed; allowed is host:port");
        let (host, port) = driver.rsplit_once(':').ok_or_else(|| allowed.clone())?;
        port.parse::<u16>().map_err(|_| allowed.clone())?;
        match (host, self.get(SLURM_LAUNCHER)) {
            ("", Some(launcher)) => Ok(format!("{launcher}:{port}")),
            ("", None) => Err(allowed),
            _ => Ok(driver.to_owned()),
        }
    }
}

fn host_name() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// A parent that is killed cannot say goodbye, and one that hangs does not notice.
fn die_with_parent() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        // If the system refuses, the end of the connection is what ends this process.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
    }
}
