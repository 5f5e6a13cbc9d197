//! A connection's bytes, as the system has them, under TLS or inside the process, and its two halves.
//!
//! Guarantees:
//! * a half that waits for bytes keeps no buffer for them: an idle connection costs what its socket and session cost
//! * both halves of a TLS connection share its session, those of a pipe the pipe; neither holds it while it waits

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// How long, and how much at once, is read after the last word.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4096;

/// Bytes that are not the system's own: a TLS session over a socket, or a pipe inside the process.
pub trait Layered: AsyncBufRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static {}

impl<T: AsyncBufRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static> Layered for T {}

/// A connection after its handshake, if it has one.
#[derive(Debug)]
pub enum Socket {
    /// As it is.
    Plain(TcpStream),
    /// With something in between.
    Layered(Box<dyn Layered>),
}

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Self {
        Self::Plain(socket)
    }
}

impl Socket {
    /// Waits until the peer has said something, or is gone.
    pub(crate) async fn readable(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.readable().await,
            Self::Layered(stream) => std::future::poll_fn(|cx| fill(stream, cx)).await,
        }
    }

    /// One half for each direction.
    pub(crate) fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Plain(socket) => {
                let (read, write) = socket.into_split();
                (ReadHalf::Plain(read), WriteHalf::Plain(write))
            }
            Self::Layered(stream) => {
                let shared = Arc::new(Mutex::new(stream));
                (ReadHalf::Layered(shared.clone()), WriteHalf::Layered(shared))
            }
        }
    }
}

/// Waits for bytes, which stay in the session or pipe.
fn fill(stream: &mut Box<dyn Layered>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    Pin::new(stream).poll_fill_buf(cx).map_ok(|_| ())
}

type Shared = Arc<Mutex<Box<dyn Layered>>>;

fn locked(shared: &Shared) -> MutexGuard<'_, Box<dyn Layered>> {
    shared.lock().expect("a panic ends the process")
}

/// What the peer sends.
#[derive(Debug)]
pub(crate) enum ReadHalf {
    Plain(OwnedReadHalf),
    Layered(Shared),
}

impl ReadHalf {
    /// Waits until [`try_read_buf`](Self::try_read_buf) may find something.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(half) => half.readable().await,
            Self::Layered(shared) => std::future::poll_fn(|cx| fill(&mut locked(shared), cx)).await,
        }
    }

    /// Appends what is there, up to the buffer's capacity and `bytes_max`, neither of which is 0; 0 once the peer has
    /// ended.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there.
    pub(crate) fn try_read_buf(&self, buffer: &mut BytesMut, bytes_max: usize) -> io::Result<usize> {
        match self {
            Self::Plain(half) => half.try_read_buf(&mut buffer.limit(bytes_max)),
            Self::Layered(shared) => {
                let mut stream = locked(shared);
                // Whoever waits does so in `readable`, which leaves its own waker.
                let mut cx = Context::from_waker(Waker::noop());
                let found = match Pin::new(&mut **stream).poll_fill_buf(&mut cx) {
                    Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
                    Poll::Ready(found) => found?,
                };
                let bytes = found.len().min(buffer.capacity() - buffer.len()).min(bytes_max);
                buffer.put_slice(&found[..bytes]);
                Pin::new(&mut **stream).consume(bytes);
                Ok(bytes)
            }
        }
    }

    /// Reads and forgets until the peer closes too, for 1 s at most. A socket that is closed with unread bytes resets the
    /// connection, and the peer's system may then drop the last word that it had not read yet. Source: RFC 9112, 9.6.
    pub(crate) async fn linger(&self) {
        let mut scrap = BytesMut::with_capacity(LINGER_BYTES);
        let forget = async {
            while self.readable().await.is_ok() {
                match self.try_read_buf(&mut scrap, LINGER_BYTES) {
                    Ok(0) => break,
                    Ok(_) => scrap.clear(),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, forget).await;
    }
}

/// What the peer gets.
#[derive(Debug)]
pub(crate) enum WriteHalf {
    Plain(OwnedWriteHalf),
    Layered(Shared),
}

/// Hands a call to whichever it is.
macro_rules! either {
    ($self:ident, $plain:ident | $layered:ident => $call:expr, $other:expr) => {
        match $self.get_mut() {
            Self::Plain($plain) => $call,
            Self::Layered($layered) => $other,
        }
    };
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, half | shared => Pin::new(half).poll_write(cx, bytes),
            Pin::new(&mut **locked(shared)).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, half | shared => Pin::new(half).poll_write_vectored(cx, bytes),
            Pin::new(&mut **locked(shared)).poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, half | shared => Pin::new(half).poll_flush(cx), Pin::new(&mut **locked(shared)).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, half | shared => Pin::new(half).poll_shutdown(cx),
            Pin::new(&mut **locked(shared)).poll_shutdown(cx))
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, socket | stream => Pin::new(socket).poll_read(cx, buf), Pin::new(&mut **stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, socket | stream => Pin::new(socket).poll_write(cx, bytes),
            Pin::new(&mut **stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, socket | stream => Pin::new(socket).poll_write_vectored(cx, bytes),
            Pin::new(&mut **stream).poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, socket | stream => Pin::new(socket).poll_flush(cx), Pin::new(&mut **stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, socket | stream => Pin::new(socket).poll_shutdown(cx), Pin::new(&mut **stream).poll_shutdown(cx))
    }
}
