//! Scopes, streams, epochs, transactions: what a stream is, on top of two ports.
