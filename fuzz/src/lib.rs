//! What the targets share.

use std::fs;
use std::path::Path;

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
    if let Err(error) = input.feed(bytes) {
        panic!("{error:#}");
    }
}
