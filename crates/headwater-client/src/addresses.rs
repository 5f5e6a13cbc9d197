//! Which of a name's addresses is connected to: the first that answers.
//!
//! A name may have addresses that lead nowhere, as those of a family that the network between drops, and a connection to one of
//! these fails after minutes or never. So they are tried side by side, each a moment after the one before.
//!
//! Guarantees:
//! * an address that answers is connected to, whatever the others do, within [`NEXT_AFTER`] for each before it, and its own time
//! * attempts that lost are dropped with the call, or when another has won
//!
//! Not here: names, limits of time. Source: RFC 8305, sections 4 and 5, with its recommended delay.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

/// An attempt that is neither through nor refused by then gets company.
const NEXT_AFTER: Duration = Duration::from_millis(250);

/// Connects to one of several addresses, which come in the order of the resolver.
///
/// # Errors
/// That of the address that failed first, once all have failed. `InvalidInput`: there are none.
///
/// # Cancel safety
/// All attempts end.
pub(crate) async fn connect_any<T, F>(
    addresses: impl IntoIterator<Item = SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut left = interleaved(addresses);
    let (mut under_way, mut failures, mut failure) = (FuturesUnordered::new(), 0_usize, None);
    loop {
        if let Some(address) = left.pop_front() {
            let attempt = connect(address);
            under_way.push(async move { (address, attempt.await) });
        }
        let next = async {
            if left.is_empty() {
                pending().await
            } else {
                tokio::time::sleep(NEXT_AFTER).await;
            }
        };
        tokio::select! {
            biased; // a connection that is there is taken before another is begun
            ended = under_way.next() => match ended {
                Some((_, Ok(connection))) => return Ok(connection),
                Some((address, Err(error))) => {
                    failures += 1;
                    failure.get_or_insert((address, error));
                }
                None => return Err(told(failure, failures)),
            },
            () = next => {}
        }
    }
}

/// What there is to say when all have failed.
fn told(failure: Option<(SocketAddr, io::Error)>, failures: usize) -> io::Error {
    match (failure, failures) {
        (None, _) => io::Error::new(io::ErrorKind::InvalidInput, "the name has no address"),
        (Some((_, error)), 1) => error,
        (Some((address, error)), all) => {
            io::Error::new(error.kind(), format!("none of {all} addresses answers; {address}: {error}"))
        }
    }
}

/// The families in turn, beginning with the one that the resolver prefers.
fn interleaved(addresses: impl IntoIterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let mut addresses = addresses.into_iter().peekable();
    let preferred = addresses.peek().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) = addresses.partition(|it| it.is_ipv6() == preferred);
    let mut order = VecDeque::with_capacity(first.len() + second.len());
    while !(first.is_empty() && second.is_empty()) {
        order.extend(first.pop_front());
        order.extend(second.pop_front());
    }
    order
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{Instant, sleep};

    use super::*;

    /// What an address does, after so many milliseconds.
    #[derive(Clone, Copy)]
    enum Does {
        Answer(u64),
        Refuse(u64),
        Nothing,
    }
    use Does::{Answer, Nothing, Refuse};

    /// Tries addresses that do these things, each named by a letter: small ones are of IPv4. Tells when which attempt was begun, in
    /// milliseconds, and what came of it when.
    async fn race(addresses: &[(char, Does)]) -> String {
        let begun = RefCell::new(String::new());
        let (alive, start) = (Cell::new(0), Instant::now());
        let all = addresses.iter().map(|(name, _)| {
            let port = u16::try_from(u32::from(*name)).unwrap();
            if name.is_ascii_lowercase() {
                ([127, 0, 0, 1], port).into()
            } else {
                ([0, 0, 0, 0, 0, 0, 0, 1_u16], port).into()
            }
        });
        let connect = |address: SocketAddr| {
            let name = char::from(u8::try_from(address.port()).unwrap());
            let does = addresses.iter().find(|(it, _)| *it == name).unwrap().1;
            begun.borrow_mut().push_str(&format!("{name} at {}, ", start.elapsed().as_millis()));
            let alive = &alive;
            async move {
                alive.set(alive.get() + 1);
                let _ended = scopeguard(|| alive.set(alive.get() - 1));
                match does {
                    Nothing => pending().await,
                    Answer(after) => sleep(Duration::from_millis(after)).await,
                    Refuse(after) => {
                        sleep(Duration::from_millis(after)).await;
                        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("{name} says no")));
                    }
                }
                Ok(name)
            }
        };
        let outcome = tokio::time::timeout(Duration::from_secs(5), connect_any(all, connect)).await;
        let outcome = match outcome {
            Ok(Ok(name)) => format!("{name} won"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "nobody won".to_owned(),
        };
        assert_eq!(alive.get(), 0, "attempts that lost have ended");
        format!("{}{outcome} at {}", begun.borrow(), start.elapsed().as_millis())
    }

    /// Does something when it goes out of scope.
    fn scopeguard<F: FnMut()>(then: F) -> impl Drop {
        struct Guard<F: FnMut()>(F);
        impl<F: FnMut()> Drop for Guard<F> {
            fn drop(&mut self) {
                (self.0)();
            }
        }
        Guard(then)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_answers_wins_whatever_the_others_do() {
        for (addresses, expected) in [
            (&[('a', Answer(10)), ('b', Answer(0))][..], "a at 0, a won at 10"),
            // Families in turn, and nothing is waited for after a refusal.
            (
                &[('A', Nothing), ('B', Answer(0)), ('c', Refuse(20)), ('d', Answer(0))],
                "A at 0, c at 250, B at 270, B won at 270",
            ),
            (&[('a', Refuse(0)), ('B', Refuse(0)), ('c', Answer(5))], "a at 0, B at 0, c at 0, c won at 5"),
            // One that was begun earlier and is slow may still be the first.
            (&[('A', Answer(300)), ('b', Answer(100))], "A at 0, b at 250, A won at 300"),
            (&[('A', Answer(900)), ('b', Answer(100))], "A at 0, b at 250, b won at 350"),
            (&[('a', Nothing), ('b', Nothing), ('c', Answer(1))], "a at 0, b at 250, c at 500, c won at 501"),
        ] {
            assert_eq!(race(addresses).await, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_answers_the_first_failure_is_told_when_all_have_failed() {
        for (addresses, expected) in [
            (&[('a', Refuse(7))][..], "a at 0, a says no at 7"),
            (
                &[('A', Refuse(400)), ('b', Refuse(0))],
                "A at 0, b at 250, none of 2 addresses answers; 127.0.0.1:98: b says no at 400",
            ),
            (&[('a', Nothing), ('b', Refuse(0))], "a at 0, b at 250, nobody won at 5000"),
            (&[], "the name has no address at 0"),
        ] {
            assert_eq!(race(addresses).await, expected);
        }
    }

    /// A listener that takes no more connections: what is sent to it is dropped. It lasts as long as what is returned.
    #[cfg(target_os = "linux")]
    fn silent() -> (SocketAddr, impl Sized) {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queue = Vec::new();
        while let Ok(connection) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)) {
            queue.push(connection);
            assert!(queue.len() < 100, "the queue is never full");
        }
        (address, (listener, queue))
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn sockets_that_are_silent_or_refused_hold_up_nobody() {
        let (silent, _kept) = silent();
        let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let answering = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let expected = answering.local_addr().unwrap();
        for before in [&[silent, refusing][..], &[refusing, silent]] {
            let all = before.iter().copied().chain([expected]);
            let connection = tokio::time::timeout(Duration::from_secs(20), connect_any(all, TcpStream::connect)).await;
            assert_eq!(connection.unwrap().unwrap().peer_addr().unwrap(), expected);
        }
        let refused = connect_any([refusing], TcpStream::connect).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
