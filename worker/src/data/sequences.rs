//! Sequences of tokens from a small probabilistic grammar: texts for a transformer with nothing downloaded.
//!
//! The grammar has word classes, phrases and topics. A word class is a set of tokens with Zipf's frequencies. A phrase is
//! two to four word classes in a fixed order. A topic is a distribution over phrases: p(phrase | topic) ∝ exp(s·g) with g
//! standard normal and s the strength. A sequence has one topic and is phrases one after the other.
//!
//! So there is something to learn without labels (which classes follow each other, which phrases go together), and topics,
//! which decide the label, are part of that.

use evenkeel_common::seed::{Key, Purpose, Stream};
use evenkeel_common::trial::{GrammarConfig, SyntheticConfig};

use super::text::{TextDataset, TokenExample, Tokens};
use super::turn;

/// Padding.
pub const PAD: u32 = 0;
/// The first token of every sequence.
const BEGIN: u32 = 1;
/// The last one.
const END: u32 = 2;
/// Stands for a token to be guessed.
pub const MASK: u32 = 3;
/// Tokens that are no part of the grammar; its own come after.
pub const SPECIAL: u32 = 4;

/// Phrases of a grammar.
const PHRASES: usize = 24;

/// A grammar: a function of its configuration and the sweep's seed, not of the task.
pub struct Grammar {
    config: GrammarConfig,
    /// Tokens of each word class with the sum of the frequencies up to each.
    classes: Vec<Vec<(u32, f64)>>,
    /// Word classes of each phrase.
    phrases: Vec<Vec<usize>>,
    /// Sums of the probabilities of phrases, for each topic.
    topics: Vec<Vec<f64>>,
}

impl Grammar {
    /// Draws a grammar.
    #[must_use]
    pub fn new(config: &GrammarConfig, sweep_seed: u64) -> Self {
        let key = grammar_key(config, sweep_seed);
        let mut stream = key.stream(Purpose::Structure, 0, 0);
        let mut tokens: Vec<u32> = (SPECIAL..SPECIAL + config.vocabulary).collect();
        stream.shuffle(&mut tokens);
        let count = (config.vocabulary as usize / 8).clamp(2, 16);
        let classes: Vec<Vec<(u32, f64)>> = (0..count)
            .map(|class| {
                let mut sum = 0.0;
                let own = tokens.iter().skip(class).step_by(count).enumerate();
                own.map(|(rank, token)| {
                    sum += 1.0 / (rank as f64 + 1.0);
                    (*token, sum)
                })
                .collect()
            })
            .collect();
        let phrases = (0..PHRASES)
            .map(|_| {
                let length = 2 + stream.below(3);
                (0..length).map(|_| stream.below(count as u64) as usize).collect()
            })
            .collect();
        let topics = (0..config.topics)
            .map(|_| {
                let mut sum = 0.0;
                (0..PHRASES)
                    .map(|_| {
                        sum += libm::exp(config.topic_strength * stream.normal());
                        sum
                    })
                    .collect()
            })
            .collect();
        Self { config: config.clone(), classes, phrases, topics }
    }

    /// Rows of an encoder's word table.
    #[must_use]
    pub fn vocabulary(&self) -> u32 {
        SPECIAL + self.config.vocabulary
    }

    /// Tokens of the longest sequence.
    #[must_use]
    pub fn longest(&self) -> u32 {
        self.config.longest() + 2
    }

    /// A sequence of a topic: half to one and a half times the mean length, cut there, between its two marks.
    fn sequence(&self, topic: usize, stream: &mut Stream) -> Tokens {
        let mean = self.config.length;
        let length = (mean - mean / 2 + stream.below(2 * u64::from(mean / 2) + 1) as u32) as usize;
        let mut ids = vec![BEGIN];
        while ids.len() < length + 1 {
            let phrase = self.topics.get(topic).map_or(0, |sums| pick(sums, |sum| *sum, stream));
            for class in self.phrases.get(phrase).into_iter().flatten() {
                let Some(tokens) = self.classes.get(*class) else { continue };
                let at = pick(tokens, |(_, sum)| *sum, stream);
                ids.extend(tokens.get(at).map(|(token, _)| *token));
            }
        }
        ids.truncate(length + 1);
        ids.push(END);
        Tokens { types: vec![0; ids.len()], ids }
    }

    /// Unlabelled sequences, topics taking turns.
    #[must_use]
    pub fn corpus(&self, count: u32, sweep_seed: u64) -> TextDataset {
        let mut stream = grammar_key(&self.config, sweep_seed).stream(Purpose::Corpus, 0, 0);
        let example = |i: u32| {
            let topic = (i % self.config.topics.max(1)) as usize;
            TokenExample { inputs: vec![self.sequence(topic, &mut stream)], label: 0, group: None }
        };
        let train = (0..count).map(example).collect();
        TextDataset { classes: 1, train, validation: Vec::new(), test: Vec::new(), truncated: 0 }
    }

    /// A task: each class is a random set of topics (as many as of any other class, or one more), classes take turns, and
    /// `flip_y` of the labels are drawn at random. The validation set has a ninth of the training set's size, as a cut of
    /// 90 to 10 leaves it.
    #[must_use]
    pub fn task(&self, config: &SyntheticConfig, flip_y: f64, key: &Key) -> TextDataset {
        let mut topics: Vec<usize> = (0..self.topics.len()).collect();
        key.stream(Purpose::Structure, 0, 0).shuffle(&mut topics);
        let classes = config.classes as usize;
        let set = |purpose: Purpose, rows: u32| {
            let mut stream = key.stream(purpose, 0, 0);
            let example = |i: usize| {
                let class = turn(i, config.classes);
                let own: Vec<usize> = topics.iter().skip(class as usize).step_by(classes).copied().collect();
                let topic = own.get(stream.below(own.len() as u64) as usize).copied().unwrap_or(0);
                let inputs = vec![self.sequence(topic, &mut stream)];
                let flipped = stream.uniform() < flip_y;
                let other = stream.below(u64::from(config.classes)) as u32;
                TokenExample { inputs, label: if flipped { other } else { class }, group: None }
            };
            (0..rows as usize).map(example).collect()
        };
        TextDataset {
            classes,
            train: set(Purpose::TrainSamples, config.samples),
            validation: set(Purpose::ValidationSamples, config.samples.div_ceil(9)),
            test: set(Purpose::TestSamples, config.test_samples),
            truncated: 0,
        }
    }
}

/// What the draws of a grammar depend on.
#[must_use]
pub fn grammar_key(config: &GrammarConfig, sweep_seed: u64) -> Key {
    Key::of_dataset(sweep_seed, &format!("grammar {}", serde_json::to_string(config).unwrap_or_default()))
}

/// A place drawn with the probabilities whose sums are given.
fn pick<T>(sums: &[T], sum: impl Fn(&T) -> f64, stream: &mut Stream) -> usize {
    let all = sums.last().map_or(0.0, &sum);
    let drawn = all * stream.uniform();
    sums.partition_point(|entry| sum(entry) <= drawn).min(sums.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use evenkeel_common::trial::GeneratorConfig;

    use super::*;

    fn config(strength: f64) -> (GrammarConfig, SyntheticConfig) {
        let grammar = GrammarConfig { vocabulary: 40, length: 12, topics: 4, topic_strength: strength };
        let generator = GeneratorConfig::TokenSequences { grammar: grammar.clone(), flip_y: 0.0 };
        let task = SyntheticConfig {
            generator,
            samples: 300,
            features: 0,
            classes: 2,
            test_samples: 300,
            instance: 0,
        };
        (grammar, task)
    }

    #[test]
    fn sequences_have_marks_at_their_ends_and_the_lengths_that_were_asked_for() {
        let (grammar, task) = config(1.0);
        let data = Grammar::new(&grammar, 1).task(&task, 0.0, &Key::of_dataset(1, "task"));
        assert_eq!((data.train.len(), data.validation.len(), data.test.len()), (300, 34, 300));
        let mut lengths = 0;
        for example in data.train.iter().chain(&data.test) {
            let ids = &example.inputs[0].ids;
            assert!((8..=20).contains(&ids.len()), "{}", ids.len());
            assert_eq!((ids[0], ids[ids.len() - 1]), (BEGIN, END));
            assert!(ids[1..ids.len() - 1].iter().all(|id| (SPECIAL..SPECIAL + 40).contains(id)));
            lengths += ids.len() - 2;
        }
        let mean = lengths as f64 / 600.0;
        assert!((11.3..12.7).contains(&mean), "{mean}");
    }

    /// Accuracy of naive Bayes over tokens: what is there to be learnt.
    fn naive_bayes(strength: f64) -> f64 {
        let (grammar, task) = config(strength);
        let data = Grammar::new(&grammar, 1).task(&task, 0.0, &Key::of_dataset(1, "task"));
        let mut counts: [BTreeMap<u32, f64>; 2] = Default::default();
        for example in &data.train {
            for id in &example.inputs[0].ids {
                *counts[example.label as usize].entry(*id).or_insert(1.0) += 1.0;
            }
        }
        let total: Vec<f64> = counts.iter().map(|c| c.values().sum()).collect();
        let score = |ids: &[u32], class: usize| -> f64 {
            ids.iter().map(|id| (counts[class].get(id).copied().unwrap_or(1.0) / total[class]).ln()).sum()
        };
        let right = data.test.iter().filter(|example| {
            let ids = &example.inputs[0].ids;
            u32::from(score(ids, 1) > score(ids, 0)) == example.label
        });
        right.count() as f64 / data.test.len() as f64
    }

    #[test]
    fn topics_tell_classes_apart_as_far_as_their_strength_goes() {
        let (none, strong) = (naive_bayes(0.0), naive_bayes(2.0));
        assert!((0.4..0.6).contains(&none), "{none}");
        assert!(strong > 0.7, "{strong}");
    }

    #[test]
    fn the_grammar_is_the_same_for_every_task_and_the_corpus_is_not_the_training_set() {
        let (grammar, task) = config(1.0);
        let one = Grammar::new(&grammar, 1);
        assert_eq!(one.phrases, Grammar::new(&grammar, 1).phrases);
        assert_ne!(one.phrases, Grammar::new(&grammar, 2).phrases);
        let corpus = one.corpus(300, 1);
        let data = one.task(&task, 0.0, &Key::of_dataset(1, "task"));
        let same = corpus.train.iter().filter(|a| data.train.iter().any(|b| a.inputs == b.inputs)).count();
        assert!(same < 3, "{same}");
    }
}
