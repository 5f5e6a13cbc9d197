//! Loopback TCP: the way there and back of a few bytes, and one way of many.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{BenchError, Context};
use crate::latency::{Latencies, Quantiles};

const PING_BYTES: usize = 100;
const WRITE_BYTES: usize = 64 << 10;

/// Two ends of one connection.
pub(crate) fn pair() -> Result<(TcpStream, TcpStream), BenchError> {
    let listener = TcpListener::bind("127.0.0.1:0").on("listen on", "loopback")?;
    let address = listener.local_addr().on("listen on", "loopback")?;
    let ours = TcpStream::connect(address).on("connect to", address)?;
    let (theirs, _) = listener.accept().on("accept on", address)?;
    for socket in [&ours, &theirs] {
        socket.set_nodelay(true).on("configure", "a socket")?;
    }
    Ok((ours, theirs))
}

/// 100 bytes there and back between two blocking threads.
pub(crate) fn round_trip(patience: Duration) -> Result<Quantiles, BenchError> {
    let (mut ours, mut theirs) = pair()?;
    thread::scope(|scope| {
        let echo = scope.spawn(move || {
            let mut bytes = [0; PING_BYTES];
            while theirs.read_exact(&mut bytes).is_ok() && theirs.write_all(&bytes).is_ok() {}
        });
        let mut latencies = Latencies::new();
        let mut bytes = [7; PING_BYTES];
        let started = Instant::now();
        while started.elapsed() < patience {
            let begun = Instant::now();
            ours.write_all(&bytes).on("write to", "loopback")?;
            ours.read_exact(&mut bytes).on("read from", "loopback")?;
            latencies.record(begun.elapsed().as_nanos() as u64);
        }
        drop(ours);
        echo.join().expect("the echo does not panic");
        Ok(latencies.quantiles())
    })
}

/// One way, bytes per second as the receiver counts them.
pub(crate) fn throughput(patience: Duration) -> Result<f64, BenchError> {
    let (mut ours, mut theirs) = pair()?;
    thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let mut bytes = vec![0; 256 << 10];
            let mut received = 0;
            let started = Instant::now();
            while let Ok(count @ 1..) = theirs.read(&mut bytes) {
                received += count;
            }
            received as f64 / started.elapsed().as_secs_f64()
        });
        let bytes = vec![7; WRITE_BYTES];
        let started = Instant::now();
        while started.elapsed() < patience {
            ours.write_all(&bytes).on("write to", "loopback")?;
        }
        drop(ours);
        Ok(receiver.join().expect("the receiver does not panic"))
    })
}
