//! What the crate promises, tested through its public interface alone.

mod support;
mod vectors;
