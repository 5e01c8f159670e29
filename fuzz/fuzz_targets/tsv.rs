#![no_main]

use evenkeel_tests::fuzz::Input;

libfuzzer_sys::fuzz_target!(
    init: evenkeel_fuzz::plant("tsv", Input::Tsv),
    |bytes: &[u8]| evenkeel_fuzz::feed(Input::Tsv, bytes)
);
