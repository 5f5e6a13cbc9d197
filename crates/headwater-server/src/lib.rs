//! Listeners, dispatch, HTTP, health and metrics.

pub mod connection;
pub mod metrics;
mod outbound;
pub mod ports;
mod readahead;
mod replies;
mod requests;
mod session;
