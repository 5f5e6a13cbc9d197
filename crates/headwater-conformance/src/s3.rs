//! An S3 server of somebody else's as a child process, and a proxy before it that misbehaves.
//!
//! The proxy knows as much HTTP as it needs: one request per connection, bodies by their length or until the end.

use crate::chance::Chance;
use crate::prepare::Places;
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The S3 server's start: an interpreter that loads many modules.
const UP_WITHIN: Duration = Duration::from_secs(30);
/// No peer of the proxy may hold a thread of it for longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// No request or reply of these suites is larger.
const BODY_BYTES_MAX: usize = 256 << 20;

/// Who asks: objects are not for nobody. The server checks no signatures.
const SOMEBODY: &str = "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
                        SignedHeaders=host, Signature=0";

/// A running S3 server (PyPI `moto`), everything in its memory.
#[derive(Debug)]
pub struct S3Server {
    process: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl S3Server {
    /// Starts it with a bucket.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(places: &Places, scratch: &Path, bucket: &str) -> Result<Self> {
        let address = {
            let held = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
            held.local_addr().context("find a free port")?
        };
        let log = std::fs::File::create(scratch.join("s3.log")).context("make the log of the S3 server")?;
        let process = Command::new(places.python())
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .spawn()
            .context("start the S3 server")?;
        let mut server = Self { process, address };
        let started = Instant::now();
        let create =
            format!("PUT /{bucket} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        loop {
            if let Ok(reply) = ask(address, create.as_bytes()) {
                ensure!(reply.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&reply));
                return Ok(server);
            }
            if let Some(status) = server.process.try_wait().context("look after the S3 server")? {
                bail!("the S3 server ended with {status}; see {}", scratch.join("s3.log").display());
            }
            ensure!(started.elapsed() < UP_WITHIN, "the S3 server is not up after {UP_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl S3Server {
    /// Names of the objects of a bucket that begin so.
    ///
    /// # Errors
    /// When it does not answer as it should, or there are more than one answer lists.
    pub fn names(&self, bucket: &str, prefix: &str) -> Result<Vec<String>> {
        let reply = self.request("GET", &format!("/{bucket}?list-type=2&prefix={prefix}"), &[])?;
        let page = String::from_utf8_lossy(&reply).into_owned();
        ensure!(page.contains("<IsTruncated>false</IsTruncated>"), "not a whole list: {page}");
        let keys = page.split("<Key>").skip(1).filter_map(|part| part.split_once("</Key>"));
        Ok(keys.map(|(key, _)| key.to_owned()).collect())
    }

    /// Flips one bit in the middle of an object, as rot does.
    ///
    /// # Errors
    /// When it does not answer as it should.
    pub fn flip(&self, bucket: &str, name: &str) -> Result<()> {
        let mut bytes = self.request("GET", &format!("/{bucket}/{name}"), &[])?;
        let middle = bytes.len() / 2;
        *bytes.get_mut(middle).context("an object has bytes")? ^= 1;
        self.request("PUT", &format!("/{bucket}/{name}"), &bytes).map(drop)
    }

    /// The body of an answer of success.
    fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        let (address, length) = (self.address, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n{SOMEBODY}\r\n\r\n"
        );
        let reply = ask(address, &[head.as_bytes(), body].concat())?;
        let end = reply.windows(4).position(|four| four == b"\r\n\r\n").context("an answer has a head")? + 4;
        let head = String::from_utf8_lossy(&reply[..end]).into_owned();
        ensure!(head.starts_with("HTTP/1.1 200"), "{method} {path} answered {head}");
        Ok(reply[end..].to_vec())
    }
}

fn ask(address: SocketAddr, request: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE)).context("set a time limit")?;
    stream.write_all(request).context("send")?;
    let mut reply = Vec::new();
    stream.take(BODY_BYTES_MAX as u64).read_to_end(&mut reply).context("receive")?;
    Ok(reply)
}

/// What the proxy does to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers 500, and the server never hears of it.
    InternalError,
    /// Answers 503, and the server never hears of it.
    SlowDown,
    /// Lets the server do it, and drops the connection instead of answering.
    LostReply,
    /// Answers in pieces, with pauses between.
    SlowBody,
    /// Drops the connection in the middle of the answer.
    CutBody,
    /// Drops the connection in the middle of the request.
    CutRequest,
}

const FAULTS: [Fault; 6] =
    [Fault::InternalError, Fault::SlowDown, Fault::LostReply, Fault::SlowBody, Fault::CutBody, Fault::CutRequest];

/// A proxy before an S3 server. Ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    /// Of 100 requests so many meet a fault.
    fault_percent: AtomicU32,
    is_down: AtomicBool,
    /// Requests to be served until it is down.
    rest: AtomicU64,
    has_ended: AtomicBool,
    chance: Mutex<Chance>,
    faults: [AtomicU64; FAULTS.len()],
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.has_ended.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Proxy {
    /// Starts it, without faults.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(upstream: SocketAddr, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen for the proxy")?;
        let address = listener.local_addr().context("listen for the proxy")?;
        let state = Arc::new(State {
            upstream,
            fault_percent: AtomicU32::new(0),
            is_down: AtomicBool::new(false),
            rest: AtomicU64::new(u64::MAX),
            has_ended: AtomicBool::new(false),
            chance: Mutex::new(Chance::new(seed)),
            faults: Default::default(),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.has_ended.load(Ordering::Relaxed) {
                    return;
                }
                let state = shared.clone();
                // A peer that goes away is what this proxy is for.
                std::thread::spawn(move || drop(state.serve(stream)));
            }
        });
        Ok(Self { address, state })
    }

    /// From now on so many of 100 requests meet a fault.
    pub fn set_faults(&self, percent: u32) {
        self.state.fault_percent.store(percent, Ordering::Relaxed);
    }

    /// From now on no connection is served, or all are again.
    pub fn set_down(&self, is_down: bool) {
        self.state.is_down.store(is_down, Ordering::Relaxed);
    }

    /// So many requests more are served, and then none until [`set_down`](Self::set_down) says so.
    pub fn down_after(&self, requests: u64) {
        self.state.rest.store(requests, Ordering::Relaxed);
    }

    /// Whether no connection is served.
    pub fn is_down(&self) -> bool {
        self.state.is_down.load(Ordering::Relaxed)
    }

    /// How many requests met each kind of fault.
    pub fn faults(&self) -> Vec<(Fault, u64)> {
        FAULTS
            .into_iter()
            .zip(&self.state.faults)
            .map(|(fault, count)| (fault, count.load(Ordering::Relaxed)))
            .collect()
    }
}

impl State {
    fn draw(&self) -> Option<Fault> {
        let mut chance = self.chance.lock().expect("drawing does not panic");
        let percent = u64::from(self.fault_percent.load(Ordering::Relaxed));
        if chance.below(100) >= percent {
            return None;
        }
        let which = chance.below(FAULTS.len() as u64) as usize;
        self.faults[which].fetch_add(1, Ordering::Relaxed);
        Some(FAULTS[which])
    }

    fn serve(&self, mut client: TcpStream) -> Result<()> {
        if self.is_down.load(Ordering::Relaxed) {
            return Ok(());
        }
        let counted = self.rest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |rest| rest.checked_sub(1));
        if counted.is_err() {
            self.rest.store(u64::MAX, Ordering::Relaxed);
            self.is_down.store(true, Ordering::Relaxed);
            return Ok(());
        }
        client.set_read_timeout(Some(PATIENCE)).context("set a time limit")?;
        let fault = self.draw();
        let mut head = Vec::new();
        let mut byte = [0; 4096];
        let body_at = loop {
            if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let count = client.read(&mut byte).context("receive")?;
            ensure!(count > 0 && head.len() < 64 << 10, "no request");
            head.extend_from_slice(&byte[..count]);
        };
        let text = String::from_utf8_lossy(&head[..body_at]).into_owned();
        let length =
            header(&text, "content-length").map_or(Ok(0), str::parse::<usize>).context("length of the body")?;
        ensure!(length <= BODY_BYTES_MAX, "a body of {length} bytes");
        let mut body = head[body_at..].to_vec();
        let wanted = if fault == Some(Fault::CutRequest) { length / 2 } else { length };
        let had = body.len();
        body.resize(wanted.max(had), 0);
        client.read_exact(&mut body[had..]).context("receive")?;
        let refusal = match fault {
            Some(Fault::CutRequest) => return Ok(()),
            Some(Fault::InternalError) => Some("500 Internal Server Error"),
            Some(Fault::SlowDown) => Some("503 Slow Down"),
            _ => None,
        };
        if let Some(status) = refusal {
            let reply = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return client.write_all(reply.as_bytes()).context("answer");
        }
        let kept = text.split_inclusive("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        let mut request = kept.collect::<String>().into_bytes();
        request.truncate(request.len() - 2);
        request.extend_from_slice(b"Connection: close\r\n\r\n");
        request.extend_from_slice(&body);
        let reply = ask(self.upstream, &request)?;
        match fault {
            Some(Fault::LostReply) => return Ok(()),
            Some(Fault::CutBody) => client.write_all(&reply[..reply.len() / 2]).context("answer")?,
            Some(Fault::SlowBody) => {
                for part in reply.chunks(reply.len().div_ceil(8).max(1)) {
                    client.write_all(part).context("answer")?;
                    std::thread::sleep(Duration::from_millis(40));
                }
            }
            _ => client.write_all(&reply).context("answer")?,
        }
        let _ = client.shutdown(Shutdown::Both);
        Ok(())
    }
}

/// Value of a header, if it is there.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_whatever_their_case() {
        let head = "PUT /x HTTP/1.1\r\nHost: a:1\r\ncontent-LENGTH: 12\r\n\r\n";
        assert_eq!(header(head, "content-length"), Some("12"));
        assert_eq!(header(head, "connection"), None);
    }

    #[test]
    fn a_proxy_passes_on_what_it_does_not_break_and_can_be_down() {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(upstream.local_addr().unwrap(), 1).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = upstream.accept().unwrap();
            let mut request = [0; 4096];
            let count = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let reply = ask(proxy.address, b"PUT /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").unwrap();
        assert!(reply.ends_with(b"\r\n\r\nhi"));
        let seen = server.join().unwrap();
        assert!(seen.contains("Connection: close\r\n\r\nabc"), "{seen}");
        proxy.set_faults(100);
        proxy.set_down(true);
        assert_eq!(ask(proxy.address, b"GET / HTTP/1.1\r\n\r\n").unwrap_or_default(), b"");
        assert!(proxy.faults().iter().all(|(_, count)| *count == 0), "nothing was drawn while it was down");
    }
}
