//! One thing, done once: whoever starts this looks at whether it goes through.

use crate::bytes::read;
use crate::context::{read_all, soon, Arguments, Context};
use anyhow::{anyhow, bail, ensure, Context as _, Result};
use serde_json::json;
use std::time::{Duration, SystemTime};

const EVENT: &[u8] = b"once";

pub async fn run(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let what: String = arguments.required("--what")?;
    let (stream, _) = context.create_stream("once", 1).await?;
    match what.as_str() {
        "write" => {
            let mut writer = context.factory.create_event_writer(stream);
            let answer = writer.write_event(EVENT.to_vec()).await;
            soon("an answer to a write", answer).await??.map_err(|e| anyhow!("write: {e}"))
        }
        "read" => {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
            let group = format!("group-{}", since.as_nanos());
            let group = context.factory.create_reader_group(group, stream).await;
            let mut reader = group.create_reader("reader".into()).await;
            let seen = read_all(&mut reader, 1, Duration::from_secs(1)).await?;
            ensure!(seen.iter().all(|event| event.payload == EVENT), "{seen:?}");
            context.print(json!({ "events": seen.len() }));
            soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("reader offline: {e}"))
        }
        "table" => {
            let (key, value) = ("key".to_owned(), "value".to_owned());
            let table = context.factory.create_table(context.scope.clone(), "once".into()).await;
            soon("put", table.insert(&key, &value, -1)).await?.map_err(|e| anyhow!("put: {e}"))?;
            let found: Option<(String, _)> = soon("get", table.get(&key)).await?.map_err(|e| anyhow!("get: {e}"))?;
            ensure!(found.is_some_and(|(found, _)| found == value), "the value came back changed");
            Ok(())
        }
        "bytes" => {
            let mut reader = soon("byte reader", context.factory.create_byte_reader(stream)).await?;
            let tail = reader.current_tail().await.context("tail")?;
            // A header of eight bytes and the event.
            let bytes = read(&mut reader, 8 + EVENT.len()).await?;
            ensure!(tail >= bytes.len() as u64 && bytes.ends_with(EVENT), "{bytes:?} of {tail} bytes");
            Ok(())
        }
        other => bail!("once {other}?"),
    }
}
