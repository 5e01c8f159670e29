//! What the targets share.

use std::fs;
use std::path::Path;
use std::sync::Once;

use evenkeel_tests::fuzz::Input;

/// Puts an input that is as it should be where libFuzzer begins from.
pub fn plant(name: &str, input: Input) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let planted = fs::create_dir_all(&folder)
        .and_then(|()| fs::write(folder.join("valid"), input.valid().expect("a valid input")));
    planted.expect("a seed");
}

/// Reads bytes as this kind of input.
pub fn feed(input: Input, bytes: &[u8]) {
    // libFuzzer's hook ends the process at every panic. Those of libraries that our readers contain are no finding; one that
    // gets out of here ends the process all the same.
    static CONTAINED: Once = Once::new();
    CONTAINED.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    if let Err(error) = input.feed(bytes) {
        eprintln!("{error:#}");
        std::process::abort();
    }
}
