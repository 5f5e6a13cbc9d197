//! A real store behind a real socket, spoken to with the client's end of the protocol.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod appends;
mod auth;
mod client;
mod full;
mod limits;
mod plans;
mod segments;
mod server;
mod tables;
mod tls;
