//! `headwater table`: key-value tables, which Java's clients share.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Subcommand;
use headwater_client::{
    Client, Condition, Entry, ErrorKind, KeyValueRange, KeyValueTable, KeyValueTableConfig, Name, Put, ScopedTable,
    TableKey, Version,
};
use serde_json::{Map, Value, json};

use super::event::Format;
use super::output::Output;
use super::{Failure, missing, scope_name, usage};

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Action {
    /// Make a table, whose keys all have the same length
    Create {
        /// SCOPE/TABLE
        #[arg(value_parser = table_name)]
        table: ScopedTable,
        /// Length of the primary part of each key, in bytes
        #[arg(long, value_name = "N")]
        key_bytes: u32,
        /// Length of the secondary part, in bytes; 0 for none
        #[arg(long, value_name = "N", default_value_t = 0)]
        secondary_key_bytes: u32,
        /// Parts that can lie on servers of their own
        #[arg(long, value_name = "N", default_value_t = 1)]
        partitions: u32,
    },
    /// Names of the tables of a scope
    List {
        /// The scope
        #[arg(value_parser = scope_name)]
        scope: Name,
    },
    /// How a table was made, and how many keys it has
    Describe {
        /// SCOPE/TABLE
        #[arg(value_parser = table_name)]
        table: ScopedTable,
    },
    /// Print the value of a key
    Get {
        /// SCOPE/TABLE
        #[arg(value_parser = table_name)]
        table: ScopedTable,
        #[command(flatten)]
        key: Key,
        /// How to show the value
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Put a value under a key
    Put {
        /// SCOPE/TABLE
        #[arg(value_parser = table_name)]
        table: ScopedTable,
        #[command(flatten)]
        key: Key,
        /// The value
        value: String,
        /// Only if the table does not have the key
        #[arg(long, conflicts_with = "if_version")]
        if_absent: bool,
        /// Only if the key has this version
        #[arg(long, value_name = "VERSION", value_parser = version)]
        if_version: Option<Version>,
    },
    /// Remove a key, if it is there
    Remove {
        /// SCOPE/TABLE
        #[arg(value_parser = table_name)]
        table: ScopedTable,
        #[command(flatten)]
        key: Key,
        /// Only if the key has this version
        #[arg(long, value_name = "VERSION", value_parser = version)]
        if_version: Option<Version>,
    },
    /// Print keys and values by ascending key, with a tab between them
    Entries {
        /// SCOPE/TABLE
        #[arg(value_parser = table_name)]
        table: ScopedTable,
        /// Only those whose key begins with this, or comes behind it
        #[arg(long, value_name = "KEY", default_value = "")]
        from: String,
        /// Only those whose key begins with this, or comes before it
        #[arg(long, value_name = "KEY", default_value = "")]
        to: String,
        /// Bounds are hexadecimal digits
        #[arg(long)]
        hex: bool,
        /// No more than so many
        #[arg(long, value_name = "N")]
        max: Option<u64>,
        /// How to show keys and values
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Delete a table
    Delete {
        /// SCOPE/TABLE
        #[arg(value_parser = table_name)]
        table: ScopedTable,
    },
}

/// A key, in words.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Key {
    /// The key, of as many bytes as the table's keys have
    key: String,
    /// Its secondary part, where the table's keys have one
    #[arg(long, value_name = "KEY", default_value = "")]
    secondary: String,
    /// Keys are hexadecimal digits
    #[arg(long)]
    hex: bool,
}

impl Key {
    fn read(&self) -> Result<TableKey, Failure> {
        Ok(TableKey::new(bytes_of(&self.key, self.hex)?, bytes_of(&self.secondary, self.hex)?))
    }
}

fn bytes_of(text: &str, is_hex: bool) -> Result<Bytes, Failure> {
    if !is_hex {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    let bad = || usage(format!("{text:?} is no even number of hexadecimal digits"));
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or_else(bad);
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Ok(digit(high)? << 4 | digit(low)?),
        _ => Err(bad()),
    });
    pairs.collect()
}

fn table_name(text: &str) -> Result<ScopedTable, String> {
    ScopedTable::parse(text).map_err(|error| error.to_string())
}

fn version(text: &str) -> Result<Version, String> {
    let version = text.parse().ok().and_then(Version::from_number);
    version.ok_or_else(|| format!("{text:?} is no version, such as `table get --json` shows"))
}

pub(super) async fn run(action: Action, client: &Client, out: &mut Output) -> Result<(), Failure> {
    match action {
        Action::Create { table, key_bytes, secondary_key_bytes, partitions } => {
            let config = KeyValueTableConfig { secondary_key_bytes, ..KeyValueTableConfig::new(partitions, key_bytes) };
            let created = client.create_key_value_table(&table, &config).await?;
            let text = if created { "created" } else { "was there already:" };
            Ok(out.say(&named(&table, "created", json!(created)), format!("{text} {table}"))?)
        }
        Action::List { scope } => {
            for name in client.key_value_tables(&scope).await? {
                out.put(&json!({"scope": scope.as_str(), "table": name.as_str()}), format!("{scope}/{name}"))?;
            }
            Ok(out.flush()?)
        }
        Action::Describe { table } => {
            let opened = client.key_value_table(&table).await?;
            let (config, keys) = (*opened.config(), opened.count().await?);
            let object = json!({
                "scope": table.scope.as_str(),
                "table": table.table.as_str(),
                "partitions": config.partitions,
                "key_bytes": config.primary_key_bytes,
                "secondary_key_bytes": config.secondary_key_bytes,
                "keys": keys,
            });
            let lengths = format!("{} + {} bytes", config.primary_key_bytes, config.secondary_key_bytes);
            let text = format!("partitions {}\nkeys       {keys} of {lengths}", config.partitions);
            Ok(out.say(&object, text)?)
        }
        Action::Get { table, key, format } => {
            let found = client.key_value_table(&table).await?.get(&key.read()?).await?;
            let Some((value, version)) = found else { return Err(missing("key", format!("{} of {table}", key.key))) };
            if out.is_json() {
                let mut object = Map::new();
                add(&mut object, "value", &value);
                object.insert("version".to_owned(), json!(version.number()));
                return Ok(out.say(&object, "")?);
            }
            out.put_bytes(&format.shown(&value))?;
            Ok(out.flush()?)
        }
        Action::Put { table, key, value, if_absent, if_version } => {
            let condition = match (if_absent, if_version) {
                (true, _) => Condition::Absent,
                (false, Some(version)) => Condition::At(version),
                (false, None) => Condition::None,
            };
            let put = Put::new(key.read()?, value).only_if(condition);
            let versions = client.key_value_table(&table).await?.update(vec![put]).await?;
            let version = versions.first().map(|version| version.number());
            Ok(out.say(&named(&table, "version", json!(version)), format!("put {} into {table}", key.key))?)
        }
        Action::Remove { table, key, if_version } => {
            if remove(&client.key_value_table(&table).await?, &key.read()?, if_version).await? {
                Ok(out.say(&named(&table, "removed", json!(key.key)), format!("removed {} from {table}", key.key))?)
            } else {
                Ok(out.say(&named(&table, "removed", Value::Null), format!("{} is not in {table}", key.key))?)
            }
        }
        Action::Entries { table, from, to, hex, max, format } => {
            let range = KeyValueRange::primary_between(bytes_of(&from, hex)?, bytes_of(&to, hex)?);
            let mut entries = client.key_value_table(&table).await?.entries(&range)?;
            let mut left = max.unwrap_or(u64::MAX);
            while left > 0
                && let Some(entry) = entries.next().await?
            {
                put_entry(out, &entry, format)?;
                left -= 1;
            }
            Ok(out.flush()?)
        }
        Action::Delete { table } => {
            if !client.delete_key_value_table(&table).await? {
                return Err(missing("table", &table));
            }
            Ok(out.say(&named(&table, "deleted", json!(true)), format!("deleted {table}"))?)
        }
    }
}

/// Whether the key was there. A server does not say that of a removal without a condition, so this one always has one.
async fn remove(table: &KeyValueTable, key: &TableKey, version: Option<Version>) -> Result<bool, Failure> {
    loop {
        let at = match version {
            Some(version) => version,
            None => match table.get(key).await? {
                Some((_, found)) => found,
                None => return Ok(false),
            },
        };
        match table.remove_all(vec![(key.clone(), Condition::At(at))]).await {
            Ok(()) => return Ok(true),
            // Somebody changed it meanwhile, and nobody said which version it has to have.
            Err(error) if error.kind() == ErrorKind::Conflict && version.is_none() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn named(table: &ScopedTable, what: &str, value: Value) -> Value {
    json!({"scope": table.scope.as_str(), "table": table.table.as_str(), what: value})
}

/// Under a name if it is text, otherwise under the name with `_base64`.
fn add(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), json!(text)),
        Err(_) => object.insert(format!("{name}_base64"), json!(STANDARD.encode(bytes))),
    };
}

fn put_entry(out: &mut Output, entry: &Entry<TableKey>, format: Format) -> std::io::Result<()> {
    let Entry { key, value, version } = entry;
    let has_secondary = !key.secondary.is_empty();
    if out.is_json() {
        let mut object = Map::new();
        add(&mut object, "key", &key.primary);
        if has_secondary {
            add(&mut object, "secondary", &key.secondary);
        }
        add(&mut object, "value", value);
        object.insert("version".to_owned(), json!(version.number()));
        return out.put(&object, "");
    }
    let mut columns = vec![format.shown(&key.primary)];
    if has_secondary {
        columns.push(format.shown(&key.secondary));
    }
    columns.push(format.shown(value));
    out.put_bytes(&columns.join(&b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_text_or_digits() {
        assert_eq!(bytes_of("0aFf", true).unwrap(), Bytes::from_static(&[0x0a, 0xff]));
        assert_eq!(bytes_of("0aFf", false).unwrap(), Bytes::from_static(b"0aFf"));
        for text in ["0", "0g", "+1", "é"] {
            assert!(bytes_of(text, true).is_err(), "{text}");
        }
    }
}
