//! Bytes, broken in many ways.

use proptest::prelude::*;

/// A way to break bytes; places are parts of the whole in [0, 1).
#[derive(Clone, Debug)]
pub enum Harm {
    /// A bit of a byte.
    Flip(f64, u8),
    /// A part of what follows is left out.
    Cut(f64, f64),
    /// A part of what follows comes twice.
    Repeat(f64, f64),
    /// Bytes that were not there.
    Insert(f64, Vec<u8>),
    /// A text in the place of a byte.
    Splice(f64, &'static str),
}

const TELLING: [&str; 14] = [
    "0",
    "-1",
    "NaN",
    "inf",
    "1e400",
    "18446744073709551616",
    "\0",
    "\u{feff}",
    "[[[[[[[[",
    "{",
    "\"",
    "\n\n",
    "&a [*a]",
    "\u{1F600}",
];

impl Harm {
    /// Draws one.
    fn any() -> impl Strategy<Value = Self> {
        let place = || 0.0..1.0;
        prop_oneof![
            4 => (place(), 0..8u8).prop_map(|(at, bit)| Self::Flip(at, bit)),
            1 => (place(), place()).prop_map(|(from, part)| Self::Cut(from, part)),
            1 => (place(), place()).prop_map(|(from, part)| Self::Repeat(from, part)),
            2 => (place(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            2 => (place(), prop::sample::select(&TELLING[..])).prop_map(|(at, text)| Self::Splice(at, text)),
        ]
    }

    /// Does it.
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |part: f64, length: usize| (part * length as f64) as usize;
        let length = bytes.len();
        match self {
            Self::Flip(at, bit) => {
                if let Some(byte) = bytes.get_mut(place(*at, length)) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Cut(from, part) => {
                let from = place(*from, length);
                bytes.drain(from..from + place(*part, length - from));
            }
            Self::Repeat(from, part) => {
                let from = place(*from, length);
                let again = bytes[from..from + place(*part, length - from)].to_vec();
                bytes.splice(from..from, again);
            }
            Self::Insert(at, more) => {
                drop(bytes.splice(place(*at, length)..place(*at, length), more.clone()))
            }
            Self::Splice(at, text) => {
                let at = place(*at, length);
                bytes.splice(at..(at + 1).min(length), text.bytes());
            }
        }
    }
}

/// This input with one to three harms, or now and then bytes that have nothing to do with it.
pub fn broken(valid: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let harmed = prop::collection::vec(Harm::any(), 1..4).prop_map(move |harms| {
        let mut bytes = valid.clone();
        harms.iter().for_each(|harm| harm.apply(&mut bytes));
        bytes
    });
    prop_oneof![9 => harmed, 1 => prop::collection::vec(any::<u8>(), 0..400)]
}
