//! Compiles the `.proto` files in Rust, so that nobody who builds this needs `protoc`.

use std::error::Error;

const CONTROLLER: &str = "proto/controller.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={CONTROLLER}");
    let descriptors = protox::compile([CONTROLLER], ["proto"])?;
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
