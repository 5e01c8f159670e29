#![no_main]

use evenkeel_tests::fuzz::Input;

libfuzzer_sys::fuzz_target!(
    init: evenkeel_fuzz::plant("csv", Input::Csv),
    |bytes: &[u8]| evenkeel_fuzz::feed(Input::Csv, bytes)
);
