//! Tells the linker where libtorch is, so that the worker and its tests run from any directory with no
//! environment variable set.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rerun-if-env-changed=LIBTORCH_LIB");

    // The same two variables, in the same order, as the build script of torch-sys.
    let Some(libtorch) = env::var_os("LIBTORCH_LIB").or_else(|| env::var_os("LIBTORCH")) else {
        println!(
            "cargo::error=LIBTORCH is not set: `.cargo/config.toml` does that for builds inside the repository"
        );
        return;
    };
    // Canonical, because `.deps/libtorch` may be a link, and a link may later point to another libtorch.
    let lib = match PathBuf::from(&libtorch).join("lib").canonicalize() {
        Ok(lib) => lib,
        Err(error) => {
            println!(
                "cargo::error=no libtorch in {}: {error}. `make setup` puts one there.",
                libtorch.display()
            );
            return;
        }
    };
    println!("cargo::rerun-if-changed={}", lib.join("libtorch.so").display());

    // `rustc-link-arg` and not its `-bins` and `-tests` forms: those leave out the unit tests of a library.
    let arg = |value: &str| println!("cargo::rustc-link-arg={value}");

    // Some distributions make `--as-needed` the default of their compiler, and the linker then drops what registers
    // itself only when it is loaded: the CUDA half of libtorch.
    arg("-Wl,--no-as-needed");
    arg("-ltorch_cpu");
    if lib.join("libtorch_cuda.so").exists() {
        arg("-ltorch_cuda");
    }
    arg("-Wl,--as-needed");

    // DT_RPATH and not DT_RUNPATH: it also holds for what libtorch itself loads, and comes before LD_LIBRARY_PATH, so
    // that another libtorch in there (a Python environment's, say) cannot get between the worker and its own.
    arg("-Wl,--disable-new-dtags");
    // First the libtorch this was built with, then where an installed or copied worker finds one.
    arg(&format!("-Wl,-rpath,{}", lib.display()));
    for place in ["$ORIGIN/../../.deps/libtorch/lib", "$ORIGIN/../lib", "$ORIGIN"] {
        arg(&format!("-Wl,-rpath,{place}"));
    }
}
