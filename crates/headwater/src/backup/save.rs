//! Copying a server's image into a directory or a bucket.
#![allow(clippy::disallowed_methods, reason = "backups are plain files beside the store, written by no part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::Client;
use super::list::{FORMAT, List, Listed, hexadecimal, is_plain};
use super::place::{Bucket, Place, part_bytes, part_name};
use super::{BackupError, ServerArguments};

/// Asked for at a time.
const PIECE_BYTES: u64 = 4 << 20;
/// Written between two syncs, so that none of them outlasts the server's patience.
const UNSYNCED_BYTES: u64 = 64 << 20;
/// Files that are put into a bucket at a time.
const PARALLEL: usize = 4;
/// Memory for what is on its way into a bucket, in pieces: the largest object fits.
const ROOM_PIECES: u32 = 32;
/// The server is asked for something this often while a bucket takes its time; it forgets who is silent for a minute.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Copies everything; the list is not written yet.
pub(super) fn save(server: &ServerArguments, destination: &Place) -> Result<List, BackupError> {
    destination.make_empty()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(BackupError::io("start threads for", destination.shown()))?;
    runtime.block_on(async {
        let client = Client::new(server).await?;
        let begun = client.ask_json(Method::POST, "/v1/backups").await?;
        let text = |name: &str| begun.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        let (id, store) = (text("id").ok_or_else(|| client.odd("its answer has no id"))?, text("store"));
        let frame = begun.get("frame").and_then(serde_json::Value::as_u64);
        let (store, frame) = store.zip(frame).ok_or_else(|| client.odd("its answer lacks store or frame"))?;
        let copied = match destination {
            Place::Directory(path) => into_directory(&client, &id, path).await,
            // Its number makes the claim another one than anybody else's.
            Place::Bucket(bucket) => into_bucket(&client, &id, bucket, begun.to_string()).await,
        };
        // Also after a failure: the server need not wait for the lease to end.
        let ended = client.ask(Method::DELETE, &format!("/v1/backups/{id}"), None).await;
        let files = copied?;
        ended?;
        Ok(List { format: FORMAT, made_by: env!("CARGO_PKG_VERSION").into(), store, frame, files })
    })
}

/// The image's files behind one, with their lengths; empty at the end.
async fn page(client: &Client, id: &str, after: &str) -> Result<Vec<(String, u64)>, BackupError> {
    let page = client.ask_json(Method::GET, &format!("/v1/backups/{id}/files?after={after}")).await?;
    let page = page.get("files").and_then(|files| files.as_array()).cloned().unwrap_or_default();
    page.iter()
        .map(|file| {
            let name = file.get("name").and_then(|name| name.as_str()).filter(|name| is_plain(name));
            let length = file.get("length").and_then(serde_json::Value::as_u64);
            let (name, length) = name.zip(length).ok_or_else(|| client.odd("its list has an odd file"))?;
            Ok((name.to_owned(), length))
        })
        .collect()
}

/// One piece of a file, from `from` on.
async fn piece(client: &Client, path: &str, from: u64, end: u64) -> Result<Bytes, BackupError> {
    let piece = client.ask(Method::GET, path, Some((from, end.min(from + PIECE_BYTES) - 1))).await?;
    if piece.is_empty() || from + piece.len() as u64 > end {
        return Err(client.odd("its answer is not the piece that was asked for"));
    }
    Ok(piece)
}

fn path_of(id: &str, name: &str) -> String {
    format!("/v1/backups/{id}/files/{name}")
}

async fn into_directory(client: &Client, id: &str, to: &Path) -> Result<BTreeMap<String, Listed>, BackupError> {
    let mut files = BTreeMap::new();
    let mut directories = BTreeSet::from([to.to_owned()]);
    let mut after = String::new();
    loop {
        let page = page(client, id, &after).await?;
        if page.is_empty() {
            break;
        }
        for (name, length) in page {
            let path = to.join(&name);
            if let Some(directory) = path.parent().filter(|directory| !directories.contains(*directory)) {
                std::fs::create_dir(directory).map_err(BackupError::io("make", directory))?;
                directories.insert(directory.to_owned());
            }
            let sha256 = copy(client, &path_of(id, &name), length, &path).await?;
            files.insert(name.clone(), Listed { length, sha256, part_bytes: None });
            after = name;
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
        let piece = piece(client, from, done, length).await?;
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

async fn into_bucket(
    client: &Client,
    id: &str,
    bucket: &Bucket,
    about: String,
) -> Result<BTreeMap<String, Listed>, BackupError> {
    let claiming = bucket.clone();
    waited(client, id, move || claiming.begin(about)).await?;
    let mut files = BTreeMap::new();
    let mut under_way = JoinSet::new();
    let room = Arc::new(Semaphore::new(ROOM_PIECES as usize));
    let mut after = String::new();
    loop {
        let page = page(client, id, &after).await?;
        if page.is_empty() {
            break;
        }
        for (name, length) in page {
            after.clone_from(&name);
            if under_way.len() == PARALLEL
                && let Some(done) = under_way.join_next().await
            {
                let (name, listed) = done.expect("a copy does not panic")?;
                files.insert(name, listed);
            }
            let (client, id, bucket, room) = (client.clone(), id.to_owned(), bucket.clone(), room.clone());
            under_way.spawn(async move {
                let listed = put(&client, &id, &name, length, &bucket, &room).await?;
                Ok::<_, BackupError>((name, listed))
            });
        }
    }
    while let Some(done) = under_way.join_next().await {
        let (name, listed) = done.expect("a copy does not panic")?;
        files.insert(name, listed);
    }
    Ok(files)
}

/// Copies one file into the bucket, as one object or in parts.
async fn put(
    client: &Client,
    id: &str,
    name: &str,
    length: u64,
    bucket: &Bucket,
    room: &Semaphore,
) -> Result<Listed, BackupError> {
    let from = path_of(id, name);
    let part_bytes = part_bytes(length);
    let mut sum = Sha256::new();
    let mut begin = 0;
    let mut number = 0;
    loop {
        let end = part_bytes.map_or(length, |bytes| length.min(begin + bytes));
        let wanted = u32::try_from((end - begin).div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX).min(ROOM_PIECES);
        let taken = room.acquire_many(wanted).await.expect("the room is never closed");
        let mut pieces = Vec::new();
        while begin < end {
            let piece = piece(client, &from, begin, end).await?;
            sum.update(&piece);
            begin += piece.len() as u64;
            pieces.push(piece);
        }
        let object = part_bytes.map_or_else(|| name.to_owned(), |_| part_name(name, number));
        let bucket = bucket.clone();
        waited(client, id, move || bucket.put(&object, pieces.into())).await?;
        drop(taken);
        number += 1;
        if begin == length {
            return Ok(Listed { length, sha256: hexadecimal(&sum.finalize()), part_bytes });
        }
    }
}

/// Does what may take long, and lets the server know meanwhile that we are still here.
async fn waited(
    client: &Client,
    id: &str,
    work: impl FnOnce() -> Result<(), BackupError> + Send + 'static,
) -> Result<(), BackupError> {
    let mut work = tokio::task::spawn_blocking(work);
    loop {
        tokio::select! {
            done = &mut work => return done.expect("the work does not panic"),
            () = tokio::time::sleep(SIGN_OF_LIFE) => drop(page(client, id, "~").await?),
        }
    }
}
