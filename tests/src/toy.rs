//! A model folder and texts, small enough for tests: a random BERT of two layers, and sentences of sixty words.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Writes `model/` (the random BERT of the worker's golden files, with a tokenizer) and `texts.csv` into a folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write(dir: &Path) -> anyhow::Result<()> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../worker/tests/golden/models");
    let model = dir.join("model");
    fs::create_dir_all(&model)?;
    fs::copy(golden.join("bert.json"), model.join("config.json"))?;
    fs::copy(golden.join("bert.safetensors"), model.join("model.safetensors"))?;
    fs::write(model.join("tokenizer.json"), tokenizer())?;
    fs::write(dir.join("texts.csv"), texts(240))?;
    Ok(())
}

fn words() -> Vec<String> {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    special.into_iter().chain((5..60).map(|id| format!("w{id}"))).collect()
}

/// `tokenizer.json` for it: sixty words, each a token.
#[must_use]
pub fn tokenizer() -> String {
    let words = words();
    let vocabulary: Vec<String> =
        words.iter().zip(0..).map(|(word, id): (_, u32)| format!("{word:?}: {id}")).collect();
    let special: Vec<String> = words
        .iter()
        .zip(0..5)
        .map(|(word, id): (_, u32)| {
            format!(
                r#"{{"id": {id}, "content": {word:?}, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}}"#
            )
        })
        .collect();
    format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [{}], "normalizer": null,
        "pre_tokenizer": {{"type": "Whitespace"}},
        "post_processor": {{"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}}, "decoder": null,
        "model": {{"type": "WordLevel", "vocab": {{{}}}, "unk_token": "[UNK]"}}}}"#,
        special.join(", "),
        vocabulary.join(", ")
    )
}

/// Sentences whose class a single word tells.
fn texts(rows: usize) -> String {
    let mut csv = "text,label\n".to_owned();
    for i in 0..rows {
        let class = i % 2;
        let told = 5 + 10 * class + i % 7;
        let _ = write!(csv, "w{} w{told} w{}", 30 + i % 13, 45 + i % 11);
        // Every fortieth is longer than the sixteen tokens that the model takes.
        let _ = if i % 40 == 0 {
            writeln!(csv, "{},{}", " w50".repeat(20), ["bad", "good"][class])
        } else {
            writeln!(csv, ",{}", ["bad", "good"][class])
        };
    }
    csv
}
