//! Loopback TCP: the way there and back of a few bytes, and one way of many.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{BenchError, Context};
use crate::latency::{Latencies, Quantiles};

const PING_BYTES: usize = 100;
const WRITE_BYTES: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];

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

/// One way, bytes per second as the receiver counts them: the best of several sizes of write, since which is best differs
/// between kernels.
pub(crate) fn throughput(patience: Duration) -> Result<f64, BenchError> {
    let rates = WRITE_BYTES.map(|bytes| throughput_of(bytes, patience / 2));
    rates.into_iter().try_fold(0.0, |best: f64, rate| Ok(best.max(rate?)))
}

fn throughput_of(write_bytes: usize, patience: Duration) -> Result<f64, BenchError> {
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
        let bytes = vec![7; write_bytes];
        let started = Instant::now();
        let mut written = Ok(());
        while started.elapsed() < patience && written.is_ok() {
            written = ours.write_all(&bytes).on("write to", "loopback");
        }
        drop(ours);
        let rate = receiver.join().expect("the receiver does not panic");
        written.map(|()| rate)
    })
}
