//! Marks around words that a task asks about.
//!
//! `*word*` and `#word#`, as T5 marks the noun phrase and the pronoun of WSC (function `wsc` of
//! `t5/data/preprocessors.py` in google-research/text-to-text-transfer-transformer), but without blanks
//! between mark and word.

use std::cmp::Reverse;

use super::rows::Fault;
use crate::table::error::clip;

/// How many words beside its index a phrase of WSC is looked for: one index of the official development set
/// is off by one.
const NEAR: usize = 2;

/// Marks the characters from `start` to `end` with `*`. Offsets count code points, as Python's do.
pub(super) fn mark_characters(sentence: &str, start: usize, end: usize) -> Result<String, Fault> {
    let offset = |nth: usize| sentence.char_indices().map(|(at, _)| at).chain([sentence.len()]).nth(nth);
    let bytes = offset(start).zip(offset(end));
    match bytes.and_then(|(from, to)| sentence.get(from..to).map(|word| (from, to, word))) {
        Some((from, to, word)) if !word.trim().is_empty() => {
            Ok(insert(sentence, &[Span { from, to, mark: '*' }]))
        }
        _ => Err(Fault::new(
            format!("a word at the characters from {start} to {end}"),
            format!("a part of the sentence, which has {} characters", sentence.chars().count()),
        )),
    }
}

/// Marks a noun phrase with `*` and a pronoun with `#`, each given with the number of its first word, where
/// blanks part words. The phrase may differ from the text in case and in blanks, and the text may go on with
/// punctuation.
pub(super) fn mark_spans(text: &str, noun: (&str, usize), pronoun: (&str, usize)) -> Result<String, Fault> {
    let words = words(text);
    let span = |(phrase, index): (&str, usize), mark| {
        let phrase_words: Vec<&str> = phrase.split_whitespace().collect();
        // The index first, then its neighbours, the nearer ones before.
        let near = (1..=NEAR).flat_map(|by| [index.checked_sub(by), index.checked_add(by)]).flatten();
        let found = [index].into_iter().chain(near).find_map(|at| phrase_at(&words, at, &phrase_words));
        found.map(|(from, to)| Span { from, to, mark }).ok_or_else(|| {
            let there = words.get(index).map_or("past the end".to_owned(), |(_, word)| format!("\"{word}\""));
            Fault::new(
                format!("the phrase \"{}\" at word {index}, which is {}", clip(phrase), clip(&there)),
                "a phrase of the text and the number of its first word",
            )
        })
    };
    Ok(insert(text, &[span(noun, '*')?, span(pronoun, '#')?]))
}

/// The words between blanks, each with its first byte.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut at = 0;
    for piece in text.split(char::is_whitespace) {
        if !piece.is_empty() {
            words.push((at, piece));
        }
        let next = at + piece.len();
        at = next + text.get(next..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    }
    words
}

/// First and last byte (exclusive) of a phrase whose first word is the given one; none if other words stand
/// there.
fn phrase_at(words: &[(usize, &str)], at: usize, phrase: &[&str]) -> Option<(usize, usize)> {
    let (last, others) = phrase.split_last()?;
    let there = words.get(at..at.checked_add(phrase.len())?)?;
    let alike = others.iter().zip(there).all(|(word, (_, there))| prefix(there, word) == Some(there.len()));
    let (start, there_last) = there.last()?;
    let length = prefix(there_last, last)?;
    let goes_on = there_last.get(length..)?.starts_with(char::is_alphanumeric);
    let (from, _) = there.first()?;
    (alike && !goes_on).then_some((*from, start + length))
}

/// Bytes of the text that a word covers, whatever the case of either; none if the text does not begin with
/// it.
fn prefix(text: &str, word: &str) -> Option<usize> {
    let mut rest = text.chars();
    for letter in word.chars() {
        let there = rest.next()?;
        if !there.to_lowercase().eq(letter.to_lowercase()) {
            return None;
        }
    }
    Some(text.len() - rest.as_str().len())
}

/// A part of a text, in bytes.
struct Span {
    from: usize,
    to: usize,
    mark: char,
}

/// The text with each span between two of its marks; of spans that share an end, the longer one is outside,
/// of equal ones the first.
fn insert(text: &str, spans: &[Span]) -> String {
    // Closing marks stand before opening ones at the same place.
    let closing = spans
        .iter()
        .enumerate()
        .map(|(nth, span)| (span.to, false, Reverse(span.from), spans.len() - nth, span.mark));
    let opening =
        spans.iter().enumerate().map(|(nth, span)| (span.from, true, Reverse(span.to), nth, span.mark));
    let mut marks: Vec<_> = closing.chain(opening).collect();
    marks.sort_unstable();
    let mut marked = String::with_capacity(text.len() + 2 * spans.len());
    let mut done = 0;
    for (at, _, _, _, mark) in marks {
        marked.push_str(text.get(done..at).unwrap_or_default());
        marked.push(mark);
        done = at;
    }
    marked.push_str(text.get(done..).unwrap_or_default());
    marked
}
