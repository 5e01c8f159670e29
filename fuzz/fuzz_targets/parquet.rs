#![no_main]

use evenkeel_tests::fuzz::Input;

libfuzzer_sys::fuzz_target!(
    init: evenkeel_fuzz::plant("parquet", Input::Parquet),
    |bytes: &[u8]| evenkeel_fuzz::feed(Input::Parquet, bytes)
);
