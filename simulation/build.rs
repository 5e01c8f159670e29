//! Compiles the part of etcd's protocol that the simulated etcd speaks, and tells the linker where the worker's libtorch is.

use std::env;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rerun-if-env-changed=LIBTORCH_LIB");
    let descriptors = protox::compile(["v3electionpb.proto", "etcdserverpb.proto"], ["proto"])?;
    tonic_prost_build::configure().build_client(false).compile_fds(descriptors)?;

    // The worker is linked whole, although no engine of its runs here. See its build script.
    if let Some(libtorch) = env::var_os("LIBTORCH_LIB").or_else(|| env::var_os("LIBTORCH"))
        && let Ok(lib) = PathBuf::from(libtorch).join("lib").canonicalize()
    {
        println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
    Ok(())
}
