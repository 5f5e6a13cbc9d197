//! Listeners, dispatch, HTTP, health and metrics: what stands between sockets and the store.
//!
//! ```text
//!   segment store clients ─► connection ─► engine        (wire protocol)
//!   controller clients ────► grpc ───────► controller ─► ports ─► engine
//!   probes, scrapers ──────► http
//!                              └── auth: who calls, and whether they may
//! ```
//!
//! Only this crate opens listening sockets. Start reading at [`Server::start`], then [`connection`].

pub mod auth;
mod backups;
pub mod connection;
mod deliveries;
mod grpc;
mod hosts;
mod http;
mod in_process;
mod listen;
pub mod loads;
pub mod metrics;
mod openapi;
mod outbound;
mod plans;
pub mod ports;
mod private;
mod problem;
mod readahead;
mod receiving;
mod replies;
mod requests;
mod rest;
mod secrets;
mod server;
mod session;
mod settling;
pub mod socket;
mod tls;

pub use auth::{AuthConfig, AuthError, BearerConfig, Guard};
pub use headwater_engine::check;
pub use headwater_engine::io;
pub use headwater_engine::io::{S3Location, S3Objects, SyncTimes, sync_times};
pub use headwater_engine::{BucketOptions, BucketRestore, OnFatal, StoreError};
pub use in_process::{InProcess, InProcessConfig, Place};
pub use secrets::read_secret_text;
pub use server::{ChunksConfig, Config, Server, StartError};
pub use tls::{PairError, TlsConfig};
