//! `headwater txn`.

use clap::Subcommand;
use headwater_client::{Client, ScopedStream, TransactionId, TransactionState};
use serde_json::json;

use super::output::Output;
use super::{Failure, stream_name};

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Action {
    /// The transactions of a stream that were completed last, newest first
    List {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
    },
    /// What has become of a transaction
    State {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        /// 32 hexadecimal digits, with hyphens or without
        #[arg(value_parser = transaction)]
        id: TransactionId,
    },
    /// Commit a transaction that somebody has left open
    Commit {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        /// 32 hexadecimal digits, with hyphens or without
        #[arg(value_parser = transaction)]
        id: TransactionId,
    },
    /// Abort a transaction
    Abort {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        /// 32 hexadecimal digits, with hyphens or without
        #[arg(value_parser = transaction)]
        id: TransactionId,
    },
}

/// Reads an id as Java or Rust clients print it.
fn transaction(text: &str) -> Result<TransactionId, String> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let is_id = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = is_id.then(|| u128::from_str_radix(&digits, 16).ok()).flatten();
    id.map(TransactionId).ok_or_else(|| format!("{text:?} is no transaction's id: 32 hexadecimal digits"))
}

pub(super) async fn run(action: Action, client: &Client, out: &mut Output) -> Result<(), Failure> {
    let mut say = |id: TransactionId, state: TransactionState| {
        out.say(&json!({"transaction": id.to_string(), "state": state.to_string()}), format!("{id} {state}"))
    };
    match action {
        Action::List { stream } => {
            for (id, committed) in client.completed_transactions(&stream).await? {
                say(id, if committed { TransactionState::Committed } else { TransactionState::Aborted })?;
            }
        }
        Action::State { stream, id } => say(id, client.transaction_state(&stream, id).await?)?,
        Action::Commit { stream, id } => {
            let open = client.transaction_writer(&stream, Default::default()).resume(id).await?;
            open.commit(None).await?.committed().await?;
            say(id, TransactionState::Committed)?;
        }
        Action::Abort { stream, id } => {
            client.transaction_writer(&stream, Default::default()).resume(id).await?.abort().await?;
            say(id, TransactionState::Aborting)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_any_client_prints_them() {
        let expected = Ok(TransactionId(0x0000_0003_0000_0000_0000_0000_0000_0005));
        assert_eq!(transaction("00000003000000000000000000000005"), expected);
        assert_eq!(transaction("00000003-0000-0000-0000-000000000005"), expected);
        for text in ["", "5", "+0000003000000000000000000000005", "g0000003000000000000000000000005"] {
            assert!(transaction(text).is_err(), "{text}");
        }
    }
}
