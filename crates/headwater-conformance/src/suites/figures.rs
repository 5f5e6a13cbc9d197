//! Figures for the closing note: measured on the release binary, printed with how they came about.

use crate::driver::{Client, Driver, number};
use crate::prepare::Places;
use crate::server::{Addresses, Launch};
use anyhow::Result;
use std::time::Duration;

/// Prints them.
///
/// # Errors
/// When the server or a client fails.
pub fn run(places: &Places, mib: u32) -> Result<()> {
    let scratch = places.scratch("figures")?;
    let mut starts = Vec::new();
    let mut memory = 0;
    for i in 0..7 {
        let mut launch = Launch::new(places.server(), &scratch);
        launch.data = scratch.join(format!("empty-{i}"));
        let server = launch.start()?;
        starts.push(server.ready_after);
        std::thread::sleep(Duration::from_secs(1));
        memory = memory.max(server.resident_bytes()?);
        server.stop()?;
    }
    starts.sort();
    println!(
        "start to ready on an empty directory: median {} ms, worst {} ms of {} (goal ≤ 150 ms)",
        starts[starts.len() / 2].as_millis(),
        starts[starts.len() - 1].as_millis(),
        starts.len()
    );
    println!("idle resident memory, a second after ready: {:.1} MiB (goal ≤ 32 MiB)", mebibytes(memory));

    let mut launch = Launch::new(places.server(), &scratch);
    launch.data = scratch.join("filled");
    launch.addresses = Addresses::free()?;
    let server = launch.start()?;
    let mib_text = mib.to_string();
    let arguments = ["--scope", "figures", "--stream", "filled", "--mib", &mib_text];
    let command = Client::Rust.command(places, &server.ready.controller, "fill", &arguments);
    let printed = Driver::run(command, Duration::from_secs(600))?;
    let seconds = number(&printed, "seconds")?;
    println!("{mib} MiB in events of 64 KiB by the Rust crate: {:.0} MiB/s", f64::from(mib) / seconds);
    println!("resident memory after that: {:.1} MiB", mebibytes(server.resident_bytes()?));
    // At once: as much as possible is still in the journal only.
    server.kill()?;
    let server = launch.start()?;
    println!("kill -9 to ready with {mib} MiB just written: {} ms (goal ≤ 2000 ms)", server.ready_after.as_millis());
    println!("resident memory after that recovery: {:.1} MiB", mebibytes(server.resident_bytes()?));
    server.stop()?;
    let _ = std::fs::remove_dir_all(&scratch);
    Ok(())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
