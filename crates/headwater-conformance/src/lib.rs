//! Starts the real release binary and drives it with the genuine published clients.
//!
//! ```text
//!   suite ──► Server (headwater serve, a child process)
//!     │            ▲ ports
//!     ├──► Driver (genuine Rust crate · genuine Python wheel, child processes, JSON lines)
//!     ├──► Maven (genuine Java client under JUnit, a child process, a file of JSON lines)
//!     └──► checkers (pure functions over what was written, acknowledged and read)
//! ```
//!
//! Invariants:
//! * nothing here links the server: whatever passes here passed over sockets ([`server`])
//! * the drivers write down, the checkers judge; a checker never trusts a driver's verdict ([`ledger`], [`flights`])
//! * every wait has a limit, and every child ends with its owner ([`driver::Driver`], [`server::Server`])
//!
//! Not here: the clients' own programs (`genuine-rust/`, `python/`, `java/`), which know nothing of this server.
//! Start reading at [`suites`].

#![allow(
    clippy::disallowed_methods,
    reason = "drives child processes over real files, clocks and sockets; nothing here runs in the simulator"
)]

pub mod chance;
pub mod compatibility;
pub mod courier;
pub mod driver;
pub mod flights;
pub mod ledger;
pub mod liar;
pub mod prepare;
pub mod raw;
pub mod s3;
pub mod server;
pub mod suites;
