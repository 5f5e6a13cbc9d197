//! Our own client against our own server, in one process.

mod restarts;
mod store;
mod streams;
mod transactions;
mod writing;

use store::Store;
