//! A real store behind a real socket, spoken to with the client's end of the protocol.

mod appends;
mod client;
mod limits;
mod segments;
mod tables;
