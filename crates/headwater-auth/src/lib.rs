//! Who may do what: passwords, tokens, and the one table of what each operation needs. Text in, decision out.
//!
//! ```text
//!   authorization header ─► passwords │ bearer ─► grants ─┐
//!                                                         ├─► operations (the table) ─► yes │ no
//!   delegation token ──────► delegation ─► claims ────────┘
//! ```
//!
//! Guarantees:
//! * what is not granted is denied; an operation that is not in the table cannot be asked for
//! * the algorithm of a token follows from the key, never from the token
//! * secrets are compared in constant time, and no error and no `Debug` shows one
//!
//! Not here: sockets, files, clocks and fetching of keys (`headwater-server`). `now` is an argument: seconds since 1970.

pub mod bearer;
pub mod cache;
pub mod delegation;
pub mod grants;
mod jws;
pub mod keys;
pub mod operations;
pub mod passwords;
pub mod places;

pub use grants::{Grants, Level, Resource};
pub use operations::{Access, Denied, HttpRoute, Rpc, Target, WireCommand};
