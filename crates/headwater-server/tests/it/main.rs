//! A real store behind a real socket, spoken to with the client's end of the protocol.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod appends;
mod auth;
mod binary;
mod client;
mod documented;
mod floods;
mod full;
mod hostile;
mod hosts;
mod limits;
mod misbehaving;
mod plans;
mod read_only;
mod rest;
mod rest_auth;
mod rest_changed;
mod secrets;
mod segments;
mod server;
mod signer;
mod tables;
mod tls;
mod views;
mod walk;
