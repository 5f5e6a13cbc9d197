//! The yardstick: what the machine can do, what a server does on it, and whether what it acknowledged is there.
//!
//! ```text
//!   probe ── limits of this machine, floor program ──┐
//!                                                    ├──► ratios
//!   write · tail · … ── load on a running server ────┘
//!                          │
//!                          └── read back, checked ──► figures, or none
//! ```
//!
//! Invariants:
//! * no figure is printed of a run whose events are not all there, in order, once ([`check`]); of other clients' events,
//!   whose bytes are theirs, as many bytes must be there as they make ([`verify`])
//! * latency of an open loop counts from when an event was due ([`pace`])
//! * clients are blocking threads that allocate nothing per event: they share the machine with the server
//!
//! Not here: the server. Everything goes over sockets, so any server that speaks the protocol can be measured.
//! Start reading at [`Bench::run`].

#![allow(
    clippy::disallowed_methods,
    reason = "measures real files, clocks and sockets; nothing here runs in the simulator"
)]

mod all;
mod audit;
mod catchup;
mod check;
mod clients;
mod command;
mod connection;
mod conns;
mod controller;
mod durable;
mod error;
mod event;
mod fanout;
mod genuine;
mod growth;
mod kv;
mod latency;
mod machine;
mod mixed;
mod null;
mod own;
mod pace;
pub mod probe;
mod recover;
mod rounds;
mod scale;
mod segments;
mod steps;
mod table;
mod tail;
mod target;
mod txn;
mod verify;
mod write;

pub use all::{AllArgs, AllReport, Goal, Verdict};
pub use audit::{Audit, Durable};
pub use catchup::{CatchupArgs, CatchupReport, ColdBy};
pub use check::Violation;
pub use clients::{ClientsArgs, ClientsReport, Figures};
pub use command::Bench;
pub use connection::Framing;
pub use conns::{ConnsArgs, ConnsReport};
pub use durable::Way;
pub use error::BenchError;
pub use event::HEADER_BYTES as EVENT_HEADER_BYTES;
pub use fanout::{FanoutArgs, FanoutFigures, FanoutReport};
pub use genuine::{GenuineArgs, GenuineReport};
pub use growth::{Axis, GrowthArgs, GrowthReport};
pub use kv::{KvArgs, KvReport, OperationFigures};
pub use latency::{Latencies, Quantiles, median};
pub use machine::Machine;
pub use mixed::{MixedArgs, MixedReport, ReadingReport, WriterFigures};
pub use null::NullArgs;
pub use recover::{RecoverArgs, RecoverReport};
pub use rounds::Spread;
pub use scale::{ScaleArgs, ScaleFigures, ScaleReport};
pub use segments::{SegmentsArgs, SegmentsReport};
pub use tail::{TailArgs, TailReport};
pub use txn::{TxnArgs, TxnFigures, TxnReport};
pub use write::{WriteArgs, WriteReport};
