//! Our own client against our own server, in one process.

mod agreeing;
mod bytes;
mod commands;
mod embedded;
mod reading;
mod restarts;
mod store;
mod streams;
mod transactions;
mod writing;

use store::Store;
