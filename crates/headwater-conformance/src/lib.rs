//! Drives the real binary with the genuine published clients.
