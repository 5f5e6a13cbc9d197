//! Pravega wire protocol: codec and the connection machines of both ends, without I/O.
