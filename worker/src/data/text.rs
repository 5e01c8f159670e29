//! Splits of texts, and their tokens.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use evenkeel_common::grid::text_split;
use evenkeel_common::seed::{Key, Purpose};
use evenkeel_common::text::{Example, Segment, TextData};
use evenkeel_common::trial::TextConfig;
use tokenizers::{EncodeInput, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

use super::DataError;
use super::features::shares;

/// The tokens of one input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Numbers of the tokens in the encoder's vocabulary.
    pub ids: Vec<u32>,
    /// 0 for the first text, 1 for the second.
    pub types: Vec<u8>,
}

/// One example: an input, or one for each of two choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenExample {
    /// Its inputs.
    pub inputs: Vec<Tokens>,
    /// Its class.
    pub label: u32,
    /// Examples with the same number belong together (the answers to a question).
    pub group: Option<u32>,
}

impl TokenExample {
    /// Tokens of its longest input.
    #[must_use]
    pub fn length(&self) -> usize {
        self.inputs.iter().map(|input| input.ids.len()).max().unwrap_or(0)
    }
}

/// Texts, split and turned into tokens.
#[derive(Clone, Debug)]
pub struct TextDataset {
    /// Classes C.
    pub classes: usize,
    /// To train on.
    pub train: Vec<TokenExample>,
    /// To choose checkpoints by.
    pub validation: Vec<TokenExample>,
    /// To score.
    pub test: Vec<TokenExample>,
    /// Inputs that were cut, over all sets.
    pub truncated: u32,
}

/// Which rows of the files go where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Of the training file.
    pub train: Vec<usize>,
    /// Of the training file.
    pub validation: Vec<usize>,
    /// Of the test file, or of the training file when there is none.
    pub test: Vec<usize>,
}

/// Splits the rows of a dataset of texts.
///
/// The rows of each class of the training file are put in a random order that depends on the dataset's key and the class.
/// Where the test set is no file of its own the first of them become the test set, then the next the validation set (how
/// many, [`text_split`] says); of what is left `samples` are taken, each class with its share, and of the validation set a
/// part in the same proportion. Rows keep the order they have in the file. With `test_samples` the test set is a random part; rows of one group stay together.
///
/// # Errors
/// When the data are not those the configuration was made for.
pub fn split(data: &TextData, config: &TextConfig, key: &Key) -> Result<Rows, DataError> {
    let fail = |what: String| DataError::Invalid(format!("{}: {what}", config.path));
    let classes = data.labels.len();
    if classes != config.classes as usize {
        return Err(fail(format!("found {classes} classes where {} were planned", config.classes)));
    }
    let mut by_class: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for (row, example) in data.train.rows.iter().enumerate() {
        let class = by_class.get_mut(example.label as usize);
        class.ok_or_else(|| fail(format!("row {row} has class {}", example.label)))?.push(row);
    }
    let counts: Vec<u32> = by_class.iter().map(|rows| rows.len() as u32).collect();
    let held_out = text_split(&counts, config.test_fraction, config.validation_fraction);
    let (mut test, mut validation) = (Vec::new(), Vec::new());
    for (class, rows) in by_class.iter_mut().enumerate() {
        key.stream(Purpose::Split, 0, class as u64).shuffle(rows);
        let mut take = |count: &[u32], into: &mut Vec<usize>| {
            let count = count.get(class).copied().unwrap_or(0) as usize;
            into.extend(rows.drain(..count.min(rows.len())));
        };
        take(&held_out.test, &mut test);
        take(&held_out.validation, &mut validation);
    }
    if let Some(samples) = config.samples {
        // A small training set has a validation set in proportion.
        let share = config.validation_fraction / (1.0 - config.validation_fraction);
        let wanted = libm::ceil(f64::from(samples) * share) as usize;
        let mut held: Vec<Vec<usize>> = vec![Vec::new(); classes];
        for row in validation {
            if let Some(class) = data.train.rows.get(row).and_then(|e| held.get_mut(e.label as usize)) {
                class.push(row);
            }
        }
        let counts: Vec<usize> = held.iter().map(Vec::len).collect();
        let taken = shares(&counts, wanted);
        validation = held.iter().zip(taken).flat_map(|(rows, n)| rows.iter().take(n).copied()).collect();
    }
    let left: Vec<usize> = by_class.iter().map(Vec::len).collect();
    let wanted = config.samples.map_or(left.iter().sum(), |samples| samples as usize);
    let taken = shares(&left, wanted);
    let mut train: Vec<usize> =
        by_class.iter().zip(taken).flat_map(|(rows, taken)| rows.iter().take(taken).copied()).collect();
    if train.len() != config.train_rows as usize || train.is_empty() {
        return Err(fail(format!(
            "the splits leave {} training rows where {} were planned",
            train.len(),
            config.train_rows
        )));
    }
    let tested = match &data.test {
        Some(examples) => {
            test = (0..examples.rows.len()).collect();
            &examples.rows
        }
        None => &data.train.rows,
    };
    if let Some(most) = config.test_samples {
        test = part(&test, tested, most as usize, key);
    }
    train.sort_unstable();
    validation.sort_unstable();
    test.sort_unstable();
    Ok(Rows { train, validation, test })
}

/// A random part of some rows: at most `most`, but whole groups, and at least one of them.
fn part(rows: &[usize], examples: &[Example], most: usize, key: &Key) -> Vec<usize> {
    let mut groups: BTreeMap<(bool, usize), Vec<usize>> = BTreeMap::new();
    for row in rows {
        let group = examples.get(*row).and_then(|example| example.group);
        groups.entry(group.map_or((false, *row), |group| (true, group as usize))).or_default().push(*row);
    }
    let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
    key.stream(Purpose::TestSamples, 0, 0).shuffle(&mut groups);
    let mut taken: Vec<usize> = Vec::new();
    for group in groups {
        if taken.is_empty() || taken.len() + group.len() <= most {
            taken.extend(group);
        }
    }
    taken
}

/// Takes a panic of the tokenizer for an error: it trusts what its file says of itself.
fn contained<T>(ask: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, tokenizers::Error> {
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|_| Err("it contradicts itself".into()))
}

/// Turns texts into tokens, as an encoder was pre-trained on them.
pub struct Tokenization {
    tokenizer: Tokenizer,
    /// Where it is from, for people.
    file: String,
    /// The token that stands for one to be guessed.
    pub mask: Option<u32>,
    /// Tokens that are no part of a text: separators, padding and the like.
    pub special: Vec<u32>,
}

impl Tokenization {
    /// From `tokenizer.json`, whose own settings for padding and truncation are set aside.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(path: &str, json: &[u8]) -> Result<Self, DataError> {
        let file = format!("{path}/tokenizer.json");
        let mut tokenizer = contained(|| Tokenizer::from_bytes(json))
            .map_err(|error| DataError::Invalid(format!("{file}: not a tokenizer: {error}")))?;
        tokenizer.with_padding(None);
        let mask = ["[MASK]", "<mask>"].iter().find_map(|token| tokenizer.token_to_id(token));
        let mut special: Vec<u32> = tokenizer
            .get_added_tokens_decoder()
            .iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| *id)
            .collect();
        special.sort_unstable();
        Ok(Self { tokenizer, file, mask, special })
    }

    /// Splits texts and turns them into tokens, at most `longest` an input: of two texts the longer is cut first.
    ///
    /// # Errors
    /// When the data do not fit the configuration, or a text cannot be turned into tokens.
    pub fn prepare(
        &mut self,
        data: &TextData,
        config: &TextConfig,
        longest: usize,
        key: &Key,
    ) -> Result<TextDataset, DataError> {
        let file = self.file.clone();
        let fail = |error: &dyn std::fmt::Display| DataError::Invalid(format!("{file}: {error}"));
        let rows = split(data, config, key)?;
        self.tokenizer
            .with_truncation(Some(TruncationParams {
                direction: TruncationDirection::Right,
                max_length: longest,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
            }))
            .map_err(|error| fail(&error))?;
        let mut truncated = 0;
        let mut set = |rows: &[usize], examples: &[Example]| {
            let chosen = rows.iter().filter_map(|row| examples.get(*row));
            chosen
                .map(|example| {
                    let inputs = example.segments.iter().map(|segment| self.tokens(segment, &mut truncated));
                    let inputs = inputs.collect::<Result<Vec<_>, _>>().map_err(|error| fail(&error))?;
                    Ok(TokenExample { inputs, label: example.label, group: example.group })
                })
                .collect::<Result<Vec<_>, DataError>>()
        };
        let train = set(&rows.train, &data.train.rows)?;
        let validation = set(&rows.validation, &data.train.rows)?;
        let test = set(&rows.test, data.test.as_ref().map_or(&data.train.rows, |test| &test.rows))?;
        Ok(TextDataset { classes: data.labels.len(), train, validation, test, truncated })
    }

    fn tokens(&self, segment: &Segment, truncated: &mut u32) -> Result<Tokens, tokenizers::Error> {
        let input = match &segment.second {
            Some(second) => EncodeInput::Dual(segment.first.as_str().into(), second.as_str().into()),
            None => EncodeInput::Single(segment.first.as_str().into()),
        };
        let encoding = contained(|| self.tokenizer.encode(input, true))?;
        *truncated += u32::from(!encoding.get_overflowing().is_empty());
        Ok(Tokens {
            ids: encoding.get_ids().to_vec(),
            types: encoding.get_type_ids().iter().map(|kind| *kind as u8).collect(),
        })
    }
}
