//! Inputs of every kind, broken in many ways: read or refused, and nothing else. (`make fuzz` goes on for longer.)

use std::cell::Cell;

use evenkeel_tests::fuzz::Input;
use evenkeel_tests::harm::broken;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// Broken inputs of each kind.
const CASES: u32 = 4_000;

#[test]
fn whatever_comes_is_read_or_refused_with_a_reason() {
    for input in Input::ALL {
        let valid = input.valid().expect("valid");
        assert!(input.feed(&valid).expect("holds"), "a valid {input:?} is refused: {valid:?}");
        let accepted = Cell::new(0);
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let outcome = TestRunner::new(config).run(&broken(valid), |bytes| {
            let read = input.feed(&bytes).map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            accepted.set(accepted.get() + u32::from(read));
            Ok(())
        });
        if let Err(error) = outcome {
            panic!("{input:?}: {error}");
        }
        println!("{input:?}: {CASES} broken inputs, {} refused", CASES - accepted.get());
        assert!(accepted.get() < CASES, "no {input:?} is ever refused");
    }
}
