//! What the crate promises, tested through its public interface alone.

mod appends;
mod corpus;
mod fuzz;
mod hostile;
mod mutations;
mod queue;
mod samples;
mod short_forms;
mod support;
mod vectors;
