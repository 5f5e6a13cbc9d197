//! Listeners, dispatch, HTTP, health and metrics.

mod connection;
pub mod metrics;
mod outbound;
mod ports;
mod replies;
mod requests;
mod session;
