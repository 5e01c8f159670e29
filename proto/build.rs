//! Compiles the .proto files with protox, which needs no `protoc`.

use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 4] = [
    "evenkeel/v1/common.proto",
    "evenkeel/v1/worker.proto",
    "evenkeel/v1/membership.proto",
    "evenkeel/v1/sweep.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=evenkeel");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
