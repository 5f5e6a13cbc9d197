//! `headwater bench null`: a server that acknowledges at once and keeps nothing.
//!
//! What a client reaches against it is the client's own limit on this machine; what it reaches against a real server, as a
//! share of that, is the server's doing. It serves what clients need to create streams and segments and to append:
//! everything else is refused as unsupported. **It stores nothing and says so to nobody: never point real writers at it.**

mod controller;
mod segments;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};

use crate::error::{BenchError, Context};

/// `bench null`.
#[derive(Clone, Debug, clap::Args)]
pub struct NullArgs {
    /// Where clients find the controller (gRPC); port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090")]
    pub(crate) controller: SocketAddr,
    /// Where clients append; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:12345")]
    pub(crate) segment_store: SocketAddr,
}

/// Serves until the process is ended.
pub(crate) fn run(args: &NullArgs) -> Result<(), BenchError> {
    let listen = |address: SocketAddr| {
        let listener = TcpListener::bind(address).on("listen on", address)?;
        let address = listener.local_addr().on("listen on", address)?;
        Ok::<_, BenchError>((listener, address))
    };
    let (segments, segment_store) = listen(args.segment_store)?;
    let (calls, controller) = listen(args.controller)?;
    std::thread::spawn(move || segments::serve(&segments));
    let mut out = std::io::stdout().lock();
    // Whoever started us may wait for this line; a person may have closed the terminal.
    let _ = writeln!(out, "ready controller={controller} segment-store={segment_store} stores=nothing");
    let _ = out.flush();
    drop(out);
    controller::serve(calls, segment_store)
}
