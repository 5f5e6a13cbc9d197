//! Messages and stubs of the controller service, generated from `proto/controller.proto` when the crate is built.
//!
//! What the fields mean stands in that file. Maps are ordered here, so that equal messages have equal bytes.

/// The controller service of Pravega: package `io.pravega.controller.stream.api.grpc.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::unwrap_used)]
pub mod controller {
    tonic::include_proto!("io.pravega.controller.stream.api.grpc.v1");
}
