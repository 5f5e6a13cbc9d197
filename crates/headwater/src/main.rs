//! The `headwater` binary: reads settings, runs the server, ends with a code that says why.
//!
//! Standard output carries one line, when the server is ready, for whoever started it; everything for people goes to
//! standard error.

mod backup;
mod check;
mod cli;
mod credentials;
mod demo;
mod doctor;
mod examples;
mod exit;
mod load;
mod memory;
mod serve;
mod settings;
mod storage;
mod user;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::settings::{Flags, Outside, Settings, SettingsError};

/// Frames of many sizes come and go on all threads; what they leave free has to go back to the system, since the limit on
/// memory is one on what the process has.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A stream store in one binary, for Pravega's clients.
#[derive(Parser)]
#[command(name = "headwater", version)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Run the server until SIGTERM or SIGINT; a second signal ends it at once
    Serve {
        #[command(flatten)]
        flags: Flags,
        /// If the data directory is empty, take over the store that --chunks has, as of its last copies there
        #[arg(long)]
        recover_from_chunks: bool,
    },
    /// Stream flights through a store that is made for it, split the stream meanwhile, and read them back
    Demo(demo::Arguments),
    /// Verify a data directory that no server uses, or a backup: reads every byte, changes nothing without --repair
    Check(check::Arguments),
    /// Measure this machine, or a server on it
    Bench {
        #[command(subcommand)]
        what: Measure,
    },
    /// Copy the store of a running server into a directory or a bucket, as of one instant
    Backup(backup::BackupArguments),
    /// Make a data directory from a backup, verified before and after
    Restore(backup::RestoreArguments),
    /// Look at this machine: whether it can keep what the server promises
    Doctor(doctor::Arguments),
    /// Look after a password file
    User {
        #[command(subcommand)]
        action: user::Action,
        /// Print JSON, one object per line; an error is one on standard error
        #[arg(long, global = true)]
        json: bool,
    },
    #[command(flatten)]
    Store(cli::Action),
    /// Say what an exit code, or the word in an error, means and what to do
    Explain {
        /// Such as 69 or unavailable
        code: String,
        /// Print JSON, one object per line; an error is one on standard error
        #[arg(long)]
        json: bool,
    },
    /// Print a script that completes commands in a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a directory
    Man {
        /// The directory, which has to be there
        directory: std::path::PathBuf,
    },
    /// Look at settings
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
}

#[derive(Subcommand)]
enum Measure {
    #[command(flatten)]
    Outside(headwater_bench::Bench),
    Load(load::Arguments),
}

#[derive(Subcommand)]
enum ConfigAction {
    /// Print the settings that `serve` would use, as a settings file
    Show {
        /// Say where each came from
        #[arg(long)]
        origin: bool,
        /// Print JSON, one object per line and setting; an error is one on standard error
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: Flags,
    },
}

fn main() {
    let code = match parse() {
        Ok(command) => run(command.action),
        Err(error) => {
            // Also how help and version are asked for, which are no errors. A closed terminal is nobody's problem.
            let _ = error.print();
            if !error.use_stderr() {
                0
            } else if std::env::args_os().nth(1).is_some_and(|first| first == "serve") {
                // Flags of `serve` are settings: whoever looks after it does not start it again with the same.
                exit::SETTINGS
            } else {
                exit::USAGE
            }
        }
    };
    std::process::exit(code);
}

fn parse() -> Result<Command, clap::Error> {
    let mut whole = whole();
    let mut found = whole.try_get_matches_from_mut(std::env::args_os())?;
    Command::from_arg_matches_mut(&mut found).map_err(|error| error.format(&mut whole))
}

/// The command with all that its help and its manual pages say.
fn whole() -> clap::Command {
    examples::with_examples(Command::command())
}

fn run(action: Action) -> i32 {
    match action {
        Action::Serve { flags, recover_from_chunks } => match gather(&flags) {
            Ok(settings) if recover_from_chunks && settings.chunks.is_none() => {
                eprintln!("headwater: --recover-from-chunks needs --chunks");
                exit::SETTINGS
            }
            Ok(settings) => serve::serve(&settings, recover_from_chunks),
            Err(error) => refuse(&error),
        },
        Action::Backup(arguments) => backup::backup(&arguments),
        Action::Restore(arguments) => backup::restore(&arguments),
        Action::Demo(arguments) => demo::run(&arguments),
        Action::Check(arguments) => check::run(&arguments),
        Action::User { action, json } => user::run(&action, json),
        Action::Bench { what: Measure::Load(arguments) } => load::run(&arguments),
        Action::Bench { what: Measure::Outside(what) } => match what.run() {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("headwater: {}", serve::chain(&error));
                exit::of_bench(&error)
            }
        },
        Action::Store(action) => cli::run(&action),
        Action::Explain { code, json } => cli::explain(&code, json),
        Action::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut whole(), "headwater", &mut script);
            serve::print(&String::from_utf8_lossy(&script));
            0
        }
        Action::Man { directory } => match clap_mangen::generate_to(whole(), &directory) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("headwater: manual pages cannot be written to {}: {error}", directory.display());
                exit::CANNOT_CREATE
            }
        },
        Action::Doctor(arguments) => match gather(&arguments.flags) {
            Ok(settings) => doctor::run(&arguments, &settings),
            Err(error) => refuse(&error),
        },
        Action::Config { action: ConfigAction::Show { origin, json, flags } } => match gather(&flags) {
            Ok(settings) => {
                serve::print(&if json { settings.objects() } else { settings.show(origin) });
                0
            }
            Err(error) => cli::refuse(json, &error.to_string(), exit::SETTINGS),
        },
    }
}

fn gather(flags: &Flags) -> Result<Settings, SettingsError> {
    Settings::gather(flags, &Outside::of_process()?)
}

fn refuse(error: &SettingsError) -> i32 {
    eprintln!("headwater: {error}");
    exit::SETTINGS
}

#[test]
fn the_command_line_is_sound() {
    Command::command().debug_assert();
}

#[test]
fn help_begins_with_what_this_is() {
    let help = Command::command().render_help().to_string();
    assert!(help.starts_with("A stream store in one binary, for Pravega's clients\n"), "{help}");
}
