//! `headwater serve`: a process around the server.
//!
//! Guarantees:
//! * files are readable by their owner only
//! * a panic anywhere, also in a task that nobody waits for, ends the process with [`exit::BUG`]
//! * when the store cannot go on, one line says why and the process ends with its code; nothing is answered after that
//! * SIGHUP has files that may have changed looked at, and ends nothing
//! * the first SIGTERM or SIGINT stops in order, within [`STOP_PATIENCE`]; the second ends the process at once, which loses
//!   nothing that was acknowledged

use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use headwater_server::{ChunksConfig, Config, Server};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::exit;
use crate::settings::{LogFormat, Settings};
use crate::storage;

/// How long an orderly stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// At least this many threads, so that one slow task does not hold up the rest.
const WORKERS_MIN: usize = 2;

/// Runs the server; returns the code to end with.
pub(crate) fn serve(settings: &Settings, recover_from_chunks: bool) -> i32 {
    start_log(settings);
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "bug, stopping");
        std::process::exit(exit::BUG);
    }));
    rustix::process::umask(Mode::from_raw_mode(0o077));
    raise_file_limit();
    let workers = std::thread::available_parallelism().map_or(WORKERS_MIN, |count| count.get().max(WORKERS_MIN));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(run(settings, recover_from_chunks)),
        Err(error) => {
            tracing::error!(error = chain(&error), "could not start threads");
            exit::CANNOT_CREATE
        }
    }
}

async fn run(settings: &Settings, recover_from_chunks: bool) -> i32 {
    let (mut signals, mut hangup) = match Signals::new().and_then(|both| Ok((both, signal(SignalKind::hangup())?))) {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(error = chain(&error), "could not listen for signals");
            return exit::CANNOT_CREATE;
        }
    };
    let config = Config {
        data_dir: settings.data_dir.clone(),
        controller: settings.controller,
        segment_store: settings.segment_store,
        http: settings.http,
        advertise: settings.advertise.clone(),
        http_hosts: settings.http_hosts.clone(),
        memory_bytes: settings.memory_bytes,
        retention_every: settings.retention_every,
        scrub: settings.scrub,
        insecure: settings.insecure,
        auth: settings.auth.clone(),
        tls: settings.tls.clone(),
        chunks: settings.chunks.clone().map(|location| ChunksConfig {
            location,
            settings: storage::settings(),
            recover: recover_from_chunks,
        }),
        on_fatal: Arc::new(|error| {
            tracing::error!(error = chain(&error), "the store cannot go on, stopping");
            std::process::exit(exit::of_store(&error));
        }),
    };
    let server = tokio::select! {
        started = Server::start(config) => match started {
            Ok(server) => server,
            Err(error) => {
                tracing::error!(error = chain(&error), "could not start");
                return exit::of_start(&error);
            }
        },
        // Nothing is served yet, so there is nothing to end in order; recovery repeats at the next start.
        number = signals.next() => std::process::exit(128 + number),
    };
    greet(settings, &server);

    let number = loop {
        tokio::select! {
            number = signals.next() => break number,
            _ = hangup.recv() => server.reload(),
        }
    };
    tracing::info!(signal = number, "stopping");
    tokio::select! {
        () = server.stop() => {
            tracing::info!("stopped");
            0
        }
        number = signals.next() => {
            tracing::warn!(signal = number, "stopping at once");
            std::process::exit(128 + number);
        }
        () = tokio::time::sleep(STOP_PATIENCE) => {
            // What was acknowledged is on the disk; only the disk itself can be this slow.
            tracing::error!("did not stop in time, ending");
            std::process::exit(exit::DISK);
        }
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Number of the next one that ends us.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }
}

/// Tells people where we are, and then whoever started us.
fn greet(settings: &Settings, server: &Server) {
    let (controller, segment_store, http) = (server.controller(), server.segment_store(), server.http());
    let data = std::fs::canonicalize(&settings.data_dir).unwrap_or_else(|_| settings.data_dir.clone());
    let (data, pid) = (data.display(), std::process::id());
    tracing::info!(%controller, %segment_store, %http, advertised = server.advertised(), %data, "ready");
    if settings.log_format == LogFormat::Text {
        let (host, port) = (server.advertised(), controller.port());
        let (tls, https) = if settings.tls.is_some() { ("tls", "https") } else { ("tcp", "http") };
        let trust = match server.authority() {
            Some(authority) => format!("\n  trust          {}", authority.display()),
            None => String::new(),
        };
        let first = if settings.tls.is_none() && settings.auth.is_none() {
            format!(
                "A first event from Python:
  pip install pravega
  python3 -c \"import pravega_client as p; m = p.StreamManager('tcp://{host}:{port}'); m.create_scope('demo'); m.create_stream('demo', 'hello', 1)\"
  python3 -c \"import pravega_client as p; m = p.StreamManager('tcp://{host}:{port}'); w = m.create_writer('demo', 'hello'); w.write_event('hello, world'); w.flush()\""
            )
        } else {
            "What clients need for TLS and authentication: docs/operations.md".to_owned()
        };
        eprint!(
            "Headwater {version}
  controller     {tls}://{host}:{port}
  segment store  {segment_store}
  http           {https}://{http}
  data           {data}{trust}

{first}

",
            version = env!("CARGO_PKG_VERSION"),
        );
    }
    print(&format!("ready controller={controller} segment-store={segment_store} http={http} data={data} pid={pid}\n"));
}

/// Writes to standard output; if nobody reads it, nobody needs it.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

fn start_log(settings: &Settings) {
    let filter: Targets = settings.log.parse().expect("the directives were checked");
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let log = match settings.log_format {
        LogFormat::Text => {
            use std::io::IsTerminal as _;
            log.with_ansi(std::io::stderr().is_terminal() && !is_set(std::env::var_os("NO_COLOR"))).boxed()
        }
        LogFormat::Json => log.json().boxed(),
    };
    tracing_subscriber::registry().with(log.with_filter(filter)).init();
}

/// Whether a variable says yes, as <https://no-color.org> has it: by being there, with whatever is in it but nothing.
fn is_set(variable: Option<std::ffi::OsString>) -> bool {
    variable.is_some_and(|value| !value.is_empty())
}

/// As many files as the system lets us have: each connection takes one.
fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "could not raise the limit of open files");
    }
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[test]
fn a_variable_with_nothing_in_it_says_nothing() {
    assert!(is_set(Some("1".into())) && is_set(Some("0".into())));
    assert!(!is_set(Some("".into())) && !is_set(None));
}
