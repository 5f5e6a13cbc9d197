//! `headwater user`: who may come in, and what they may do. A running server takes a changed file by itself.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use clap::Subcommand;
use headwater_server::auth::FileError;
use headwater_server::auth::users::{self, UserError};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use crate::serve::{chain, print};
use crate::{cli, exit};

/// Longest password that is read, in bytes; longer ones are refused with a word.
const INPUT_BYTES_MAX: u64 = 4096;

#[derive(Subcommand)]
pub(crate) enum Action {
    /// Add a user, or give one a new password; the password is asked for, or is the first line of standard input
    Add {
        /// The password file; made if it is not there
        file: PathBuf,
        /// The user
        name: String,
        /// What the user may do, such as prn::/scope:shop/*,READ (levels: NONE, READ, READ_UPDATE); again for more. Without
        /// any, a user who is there keeps what they have
        #[arg(long = "grant", value_name = "RESOURCE,LEVEL")]
        grants: Vec<String>,
    },
    /// Take a user away
    Remove {
        /// The password file
        file: PathBuf,
        /// The user
        name: String,
    },
    /// Show all users and what they may do
    List {
        /// The password file
        file: PathBuf,
    },
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    User(#[from] UserError),
    #[error("password cannot be read")]
    Input(#[source] std::io::Error),
    #[error("the two passwords differ")]
    Differ,
    #[error("there is no user {0:?}")]
    NoUser(String),
}

impl Failure {
    fn code(&self) -> i32 {
        match self {
            Self::User(UserError::File(FileError::Unreadable { .. })) | Self::Input(_) | Self::NoUser(_) => {
                exit::NO_INPUT
            }
            Self::User(UserError::File(FileError::Unwritable { .. })) => exit::CANNOT_CREATE,
            Self::User(UserError::Entry(_)) | Self::Differ => exit::USAGE,
            // What is in the file is a setting: a server refuses it so, too.
            Self::User(UserError::File(_) | UserError::Line(_)) => exit::SETTINGS,
            Self::User(UserError::Chance(_)) => exit::CANNOT_CREATE,
        }
    }
}

/// Returns the code to end with.
pub(crate) fn run(action: &Action, is_json: bool) -> i32 {
    match carry_out(action) {
        Ok(said) => {
            let line = |(object, text)| if is_json { format!("{object}\n") } else { format!("{text}\n") };
            print(&said.into_iter().map(line).collect::<String>());
            0
        }
        Err(error) => cli::refuse(is_json, &chain(&error), error.code()),
    }
}

/// What there is to say: for programs, and for people.
fn carry_out(action: &Action) -> Result<Vec<(Value, String)>, Failure> {
    match action {
        Action::Add { file, name, grants } => {
            let password = password(name)?;
            let was_there = users::add(file, name, password.as_bytes(), grants)?;
            let done = if was_there { "changed" } else { "added" };
            Ok(vec![(json!({"user": name, "done": done}), format!("{done} {name}"))])
        }
        Action::Remove { file, name } => {
            if users::remove(file, name)? {
                Ok(vec![(json!({"user": name, "done": "removed"}), format!("removed {name}"))])
            } else {
                Err(Failure::NoUser(name.clone()))
            }
        }
        Action::List { file } => {
            let said = users::list(file)?.into_iter().map(|(name, grants)| {
                let text = format!("{name}\t{}", grants.join(";"));
                (json!({"user": name, "grants": grants}), text)
            });
            Ok(said.collect())
        }
    }
}

fn password(user: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return line().map_err(Failure::Input);
    }
    let first = unseen(&format!("Password for {user}: ")).map_err(Failure::Input)?;
    let again = unseen("Again: ").map_err(Failure::Input)?;
    if first == again { Ok(first) } else { Err(Failure::Differ) }
}

/// A line typed at a terminal that does not show it.
fn unseen(prompt: &str) -> std::io::Result<String> {
    let input = std::io::stdin();
    eprint!("{prompt}");
    std::io::stderr().flush()?;
    let before = tcgetattr(input.as_fd())?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(input.as_fd(), OptionalActions::Flush, &silent)?;
    let typed = line();
    tcsetattr(input.as_fd(), OptionalActions::Flush, &before)?;
    eprintln!();
    typed
}

fn line() -> std::io::Result<String> {
    let mut text = String::new();
    std::io::stdin().lock().take(INPUT_BYTES_MAX).read_line(&mut text)?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
