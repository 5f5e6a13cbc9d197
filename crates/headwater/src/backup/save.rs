//! Copying a server's image into a directory.
#![allow(clippy::disallowed_methods, reason = "backups are plain files beside the store, written by no part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use hyper::Method;
use sha2::{Digest as _, Sha256};

use super::client::Client;
use super::list::{FORMAT, List, Listed, hexadecimal, is_plain};
use super::{BackupError, ServerArguments, empty};

/// Asked for at a time.
const PIECE_BYTES: u64 = 4 << 20;
/// Written between two syncs, so that none of them outlasts the server's patience.
const UNSYNCED_BYTES: u64 = 64 << 20;

/// Copies everything; the list is not written yet.
pub(super) fn save(server: &ServerArguments, destination: &Path) -> Result<List, BackupError> {
    empty(destination)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BackupError::io("start threads for", destination))?;
    runtime.block_on(async {
        let client = Client::new(server).await?;
        let begun = client.ask_json(Method::POST, "/v1/backups").await?;
        let text = |name: &str| begun.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        let (id, store) = (text("id").ok_or_else(|| client.odd("its answer has no id"))?, text("store"));
        let frame = begun.get("frame").and_then(serde_json::Value::as_u64);
        let (store, frame) = store.zip(frame).ok_or_else(|| client.odd("its answer lacks store or frame"))?;
        let copied = copy_all(&client, &id, destination).await;
        // Also after a failure: the server need not wait for the lease to end.
        let ended = client.ask(Method::DELETE, &format!("/v1/backups/{id}"), None).await;
        let files = copied?;
        ended?;
        Ok(List { format: FORMAT, made_by: env!("CARGO_PKG_VERSION").into(), store, frame, files })
    })
}

async fn copy_all(client: &Client, id: &str, destination: &Path) -> Result<BTreeMap<String, Listed>, BackupError> {
    let mut files = BTreeMap::new();
    let mut directories = BTreeSet::from([destination.to_owned()]);
    let mut after = String::new();
    loop {
        let page = client.ask_json(Method::GET, &format!("/v1/backups/{id}/files?after={after}")).await?;
        let page = page.get("files").and_then(|files| files.as_array()).cloned().unwrap_or_default();
        if page.is_empty() {
            break;
        }
        for file in page {
            let name = file.get("name").and_then(|name| name.as_str()).filter(|name| is_plain(name));
            let length = file.get("length").and_then(serde_json::Value::as_u64);
            let (name, length) = name.zip(length).ok_or_else(|| client.odd("its list has an odd file"))?;
            let path = destination.join(name);
            if let Some(directory) = path.parent().filter(|directory| !directories.contains(*directory)) {
                std::fs::create_dir(directory).map_err(BackupError::io("make", directory))?;
                directories.insert(directory.to_owned());
            }
            let sha256 = copy(client, &format!("/v1/backups/{id}/files/{name}"), length, &path).await?;
            files.insert(name.to_owned(), Listed { length, sha256 });
            name.clone_into(&mut after);
        }
    }
    for directory in directories.iter().rev() {
        File::open(directory).and_then(|file| file.sync_all()).map_err(BackupError::io("sync", directory))?;
    }
    Ok(files)
}

/// Copies one file, durably; returns its checksum.
async fn copy(client: &Client, from: &str, length: u64, path: &Path) -> Result<String, BackupError> {
    let mut file = File::create_new(path).map_err(BackupError::io("create", path))?;
    let (mut sum, mut done, mut synced) = (Sha256::new(), 0, 0);
    while done < length {
        let piece = client.ask(Method::GET, from, Some((done, length.min(done + PIECE_BYTES) - 1))).await?;
        if piece.is_empty() || done + piece.len() as u64 > length {
            return Err(client.odd("its answer is not the piece that was asked for"));
        }
        sum.update(&piece);
        file.write_all(&piece).map_err(BackupError::io("write", path))?;
        done += piece.len() as u64;
        if done - synced >= UNSYNCED_BYTES {
            file.sync_data().map_err(BackupError::io("sync", path))?;
            synced = done;
        }
    }
    file.sync_all().map_err(BackupError::io("sync", path))?;
    Ok(hexadecimal(&sum.finalize()))
}
