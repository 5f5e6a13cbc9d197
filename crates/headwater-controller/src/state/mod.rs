//! Decisions: plain values in, plain values out. No task, no table, no clock in here; time and ids are arguments.

pub(crate) mod autoscale;
pub(crate) mod cbor;
pub(crate) mod clock;
pub(crate) mod cuts;
pub(crate) mod epochs;
pub(crate) mod groups;
pub(crate) mod head;
pub(crate) mod keys;
pub(crate) mod readers;
pub(crate) mod retention;
pub(crate) mod scale;
pub(crate) mod table_readers;
pub(crate) mod tables;
pub(crate) mod transactions;
pub(crate) mod watermarks;
