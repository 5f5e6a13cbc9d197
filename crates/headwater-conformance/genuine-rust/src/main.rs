//! Drives the published Rust client of Pravega, unmodified, against a running server.
//!
//! One subcommand per feature. Each prints one JSON object per line: a line per check that held, then
//! `{"done": ...}`. The first check that does not hold ends the process with status 1 and one line on standard
//! error that says what was expected and what came. Nothing here knows Headwater: the same program must pass against
//! any Pravega server.

mod admin;
mod bench;
mod bytes;
mod context;
mod events;
mod group;
mod index;
mod jumbo;
mod ledger;
mod load;
mod once;
mod retention;
mod synchronizer;
mod table;
mod txn;

use anyhow::{bail, Result};
use context::{Arguments, Context};
use pravega_client::client_factory::ClientFactory;
use pravega_client_config::ClientConfigBuilder;
use pravega_client_retry::retry_policy::RetryWithBackoff;
use pravega_client_shared::PravegaNodeUri;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "\
usage: genuine COMMAND --controller HOST:PORT --scope SCOPE [OPTION...]

  setup          --stream S [--segments N]          create the scope and a stream, both may exist
  streams        [--count N]                        create, update, tags, seal, delete; list N streams over pages
  writer                                            events with and without keys, their sizes, the end of a stream
  scaling                                           write and read while the stream splits and merges
  elastic                                           write and read until the stream splits by itself
  refused        --because TEXT                     nothing may be done; each refusal has TEXT in it
  once           --what write|read|table|bytes      one thing, which is to go through or not
  retention                                         the server truncates streams that are written and read
  truncate                                          truncate a stream at a cut, read what is left
  policies       --stream S                         print the configuration of a stream
  segments       --stream S                         print the current segments and their ranges
  scale          --stream S --to N                  scale to N equal ranges by hand, check epochs and successors
  table          [--entries N]                      tables with conditions, iterators and deltas
  synchronizer   [--rounds N]                       two table synchronizers converge
  index          [--records N]                      index streams: append, search, read, truncate
  jumbo          [--mib N]                          one large event between small ones
  txn            [--outlive N]                      commit, abort, several open, events around a scale
  txn-ends                                          transactions that end with their stream, and with their lease
  txn-aborted    --stream S --id N                  a transaction that ended by itself is aborted
  byte           [--mib N]                          byte streams: write, seek, truncate, tail, seal
  reader-group   [--events N] [--outlive N]         hand-over, a reader that dies, stream cuts
                                                    --outlive: the last part begins N seconds after the process
  fill           --stream S --mib N [--event N]     write N MiB of events as fast as the client can
  bench          --stream S [--size N] [--seconds N] [--warmup N] [--in-flight N]
                                                    events per second to one segment
  load           --stream S [--size N] [--seconds N] [--warmup N] [--in-flight N] [--rate N]
                                                    what `headwater bench clients` compares
  ledger-write   --stream S --ledger FILE [--writers N] [--keys N] [--run N] [--in-flight N] [--seconds N]
                 [--transactions true]
                                                    until standard input closes; FILE gets each acknowledged event
  ledger-read    --stream S --out FILE --expect N [--readers N] [--quiet-seconds N]
                                                    read everything through a reader group; FILE gets every payload
";

fn main() -> ExitCode {
    let mut arguments = pico_args::Arguments::from_env();
    let command = match arguments.subcommand() {
        Ok(Some(command)) => command,
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&command, Arguments::new(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("genuine {command}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, mut arguments: Arguments) -> Result<()> {
    let controller: String = arguments.required("--controller")?;
    let scope: String = arguments.required("--scope")?;
    let mut config = ClientConfigBuilder::default();
    config
        .controller_uri(PravegaNodeUri::from(controller.as_str()))
        // The variables that the client itself reads its credentials from.
        .is_auth_enabled(std::env::var_os("pravega_client_auth_method").is_some());
    if ["refused", "once", "txn-ends"].contains(&command) {
        // By itself the client asks ten times for a minute in all before it believes that it is not known, or too late.
        config.retry_policy(RetryWithBackoff::default_setting().max_delay(Duration::from_millis(10)));
    }
    if command == "txn-ends" {
        config.transaction_timeout_time(txn::SHORTEST_LEASE.as_millis() as u64);
    }
    let config = config.build().map_err(|reason| anyhow::anyhow!("client configuration: {reason}"))?;
    // It owns the runtime, and is never dropped: a reader that is dropped signs off in a task, which may need another
    // connection, and the client panics when it wants one of a runtime that is ending.
    let factory = std::mem::ManuallyDrop::new(ClientFactory::new(config));
    let context = Context::new(factory.to_async(), scope);
    factory.runtime().block_on(async {
        match command {
            "setup" => admin::setup(&context, &mut arguments).await,
            "streams" => admin::streams(&context, &mut arguments).await,
            "writer" => events::writer(&context, &mut arguments).await,
            "scaling" => events::scaling(&context, &mut arguments).await,
            "elastic" => events::elastic(&context, &mut arguments).await,
            "refused" => events::refused(&context, &mut arguments).await,
            "once" => once::run(&context, &mut arguments).await,
            "retention" => retention::run(&context, &mut arguments).await,
            "truncate" => admin::truncate(&context, &mut arguments).await,
            "policies" => admin::policies(&context, &mut arguments).await,
            "segments" => admin::segments(&context, &mut arguments).await,
            "scale" => admin::scale(&context, &mut arguments).await,
            "table" => table::run(&context, &mut arguments).await,
            "synchronizer" => synchronizer::run(&context, &mut arguments).await,
            "index" => index::run(&context, &mut arguments).await,
            "jumbo" => jumbo::run(&context, &mut arguments).await,
            "txn" => txn::run(&context, &mut arguments).await,
            "txn-ends" => txn::ends(&context, &mut arguments).await,
            "txn-aborted" => txn::aborted(&context, &mut arguments).await,
            "byte" => bytes::run(&context, &mut arguments).await,
            "reader-group" => group::run(&context, &mut arguments).await,
            "bench" => bench::run(&context, &mut arguments).await,
            "load" => load::run(&context, &mut arguments).await,
            "fill" => ledger::fill(&context, &mut arguments).await,
            "ledger-write" => ledger::write(&context, &mut arguments).await,
            "ledger-read" => ledger::read(&context, &mut arguments).await,
            other => bail!("unknown command {other}\n{USAGE}"),
        }
    })?;
    arguments.finish()?;
    context.done(command);
    Ok(())
}
