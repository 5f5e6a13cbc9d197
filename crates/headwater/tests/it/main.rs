//! Our own client against our own server, in one process.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "starts processes and waits; nothing here runs in the simulator")]
#![allow(clippy::let_underscore_future, reason = "an Ack that nobody waits for changes nothing; a flush follows")]

mod acknowledging;
mod agreeing;
mod beating;
mod blocking;
mod bytes;
mod commands;
mod doubt;
mod embedded;
mod groups;
mod indexing;
mod members;
mod numbered;
mod oidc;
mod reading;
mod restarts;
mod schema;
mod sharing;
mod store;
mod streams;
mod tables;
mod telling;
mod transactions;
mod typed;
mod windows;
mod writing;

use store::Store;
