#![no_main]

use evenkeel_tests::fuzz::Input;

libfuzzer_sys::fuzz_target!(
    init: evenkeel_fuzz::plant("json_lines", Input::JsonLines),
    |bytes: &[u8]| evenkeel_fuzz::feed(Input::JsonLines, bytes)
);
