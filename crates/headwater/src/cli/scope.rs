//! `headwater scope`.

use clap::Subcommand;
use headwater_client::{Client, Name};
use serde_json::json;

use super::output::Output;
use super::{Failure, missing, scope_name};

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Action {
    /// Make a scope; one that is there stays as it is
    Create {
        /// Its name: letters, digits, dots and hyphens
        #[arg(value_parser = scope_name)]
        scope: Name,
    },
    /// Names of all scopes
    List,
    /// Delete a scope
    Delete {
        /// Its name
        #[arg(value_parser = scope_name)]
        scope: Name,
        /// With everything in it: streams, reader groups, tables
        #[arg(long)]
        recursive: bool,
    },
}

pub(super) async fn run(action: Action, client: &Client, out: &mut Output) -> Result<(), Failure> {
    match action {
        Action::Create { scope } => {
            let created = client.create_scope(&scope).await?;
            let text = if created { "created" } else { "was there already:" };
            out.say(&json!({"scope": scope.as_str(), "created": created}), format!("{text} {scope}"))?;
        }
        Action::List => {
            for scope in client.scopes().await? {
                out.put(&json!({"scope": scope.as_str()}), &scope)?;
            }
            out.flush()?;
        }
        Action::Delete { scope, recursive } => {
            let deleted = if recursive {
                client.delete_scope_recursively(&scope).await?
            } else {
                client.delete_scope(&scope).await?
            };
            if !deleted {
                return Err(missing("scope", &scope));
            }
            out.say(&json!({"scope": scope.as_str(), "deleted": true}), format!("deleted {scope}"))?;
        }
    }
    Ok(())
}
