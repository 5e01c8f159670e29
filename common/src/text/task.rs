//! The tasks of GLUE and SuperGLUE: names, classes, files and official scores.

use super::Metric;

/// A task of GLUE or SuperGLUE whose official files can be read.
///
/// Left out are STS-B (a regression), ReCoRD (a choice among the entities of a passage), the two diagnostic
/// sets, and SuperGLUE's RTE, which holds the rows of GLUE's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// CoLA: is a sentence acceptable English? (Warstadt et al. 2019)
    Cola,
    /// SST-2: the sentiment of a phrase from a film review. (Socher et al. 2013)
    Sst2,
    /// MRPC: do two sentences say the same? (Dolan and Brockett 2005)
    Mrpc,
    /// QQP: do two questions on Quora ask the same?
    Qqp,
    /// MNLI: does a premise entail a hypothesis? Tested on the genres of the training set. (Williams et al.
    /// 2018)
    Mnli,
    /// MNLI tested on other genres than those of the training set.
    MnliMismatched,
    /// QNLI: does a sentence answer a question? (Rajpurkar et al. 2016, recast by GLUE)
    Qnli,
    /// RTE: does a text entail a sentence? (Dagan et al. 2006 and later rounds)
    Rte,
    /// WNLI: a Winograd schema recast as entailment. (Levesque et al. 2012)
    Wnli,
    /// BoolQ: a yes/no question on a passage. (Clark et al. 2019)
    Boolq,
    /// CB: does the speaker of a text commit to an embedded clause? (De Marneffe et al. 2019)
    Cb,
    /// COPA: which of two sentences is the cause or the effect of a premise? (Roemmele et al. 2011)
    Copa,
    /// WiC: has a word the same meaning in two sentences? (Pilehvar and Camacho-Collados 2019)
    Wic,
    /// WSC: does a pronoun refer to a noun phrase? (Levesque et al. 2012)
    Wsc,
    /// MultiRC: is an answer to a question on a paragraph right? (Khashabi et al. 2018)
    Multirc,
}

impl Task {
    /// All tasks, GLUE before SuperGLUE.
    pub const ALL: [Self; 15] = [
        Self::Cola,
        Self::Sst2,
        Self::Mrpc,
        Self::Qqp,
        Self::Mnli,
        Self::MnliMismatched,
        Self::Qnli,
        Self::Rte,
        Self::Wnli,
        Self::Boolq,
        Self::Cb,
        Self::Copa,
        Self::Wic,
        Self::Wsc,
        Self::Multirc,
    ];

    /// The name in specs and results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cola => "glue/cola",
            Self::Sst2 => "glue/sst2",
            Self::Mrpc => "glue/mrpc",
            Self::Qqp => "glue/qqp",
            Self::Mnli => "glue/mnli",
            Self::MnliMismatched => "glue/mnli_mismatched",
            Self::Qnli => "glue/qnli",
            Self::Rte => "glue/rte",
            Self::Wnli => "glue/wnli",
            Self::Boolq => "superglue/boolq",
            Self::Cb => "superglue/cb",
            Self::Copa => "superglue/copa",
            Self::Wic => "superglue/wic",
            Self::Wsc => "superglue/wsc",
            Self::Multirc => "superglue/multirc",
        }
    }

    /// The task of a name, whatever its case; `glue/sst-2` is also known.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("glue/sst-2") {
            return Some(Self::Sst2);
        }
        Self::ALL.into_iter().find(|task| task.name().eq_ignore_ascii_case(name))
    }

    /// The classes as the official files spell them (JSON's booleans as `false` and `true`).
    ///
    /// Their order, and so the number of each class, is that of the datasets `glue` and `super_glue` of
    /// Hugging Face (the `ClassLabel` names on their cards), so that numbers can be compared with models
    /// trained on those. It is not the same for all kinds of entailment: class 0 is entailment in MNLI, QNLI,
    /// RTE and CB, class 1 in WNLI.
    #[must_use]
    pub const fn labels(self) -> &'static [&'static str] {
        match self {
            // 1 is acceptable, positive, a paraphrase, a duplicate, entailment, the second choice, a right
            // answer.
            Self::Cola | Self::Sst2 | Self::Mrpc | Self::Qqp | Self::Wnli | Self::Copa | Self::Multirc => {
                &["0", "1"]
            }
            Self::Mnli | Self::MnliMismatched => &["entailment", "neutral", "contradiction"],
            Self::Qnli | Self::Rte => &["entailment", "not_entailment"],
            Self::Boolq | Self::Wic | Self::Wsc => &["false", "true"],
            Self::Cb => &["entailment", "contradiction", "neutral"],
        }
    }

    /// The official score: Table 1 of Wang et al. 2019 (GLUE, arXiv:1804.07461) and Table 1 of Wang et al.
    /// 2019 (SuperGLUE, arXiv:1905.00537). Where those give two measures, their mean, as on the leaderboards.
    #[must_use]
    pub const fn metric(self) -> Metric {
        match self {
            Self::Cola => Metric::Matthews,
            Self::Mrpc | Self::Qqp => Metric::F1Accuracy,
            Self::Cb => Metric::AccuracyMacroF1,
            Self::Multirc => Metric::F1aExactMatch,
            Self::Sst2
            | Self::Mnli
            | Self::MnliMismatched
            | Self::Qnli
            | Self::Rte
            | Self::Wnli
            | Self::Boolq
            | Self::Copa
            | Self::Wic
            | Self::Wsc => Metric::Accuracy,
        }
    }

    /// Whether the official files are JSON lines (SuperGLUE) and not tab-separated (GLUE).
    #[must_use]
    pub const fn is_json(self) -> bool {
        matches!(self, Self::Boolq | Self::Cb | Self::Copa | Self::Wic | Self::Wsc | Self::Multirc)
    }

    /// Names the file of training rows may have in the task's folder, the preferred one first.
    #[must_use]
    pub const fn train_files(self) -> &'static [&'static str] {
        match self {
            // The 32 rows of FewGLUE (Schick and Schütze 2021), for folders that have no more.
            Self::Boolq => &["train.jsonl", "train_fewglue32.jsonl"],
            Self::Cb | Self::Copa | Self::Wic | Self::Wsc | Self::Multirc => &["train.jsonl"],
            _ => &["train.tsv"],
        }
    }

    /// Names the file of test rows may have in the task's folder, the preferred one first.
    ///
    /// It is the official development set: the classes of the official test sets are not public.
    #[must_use]
    pub const fn test_files(self) -> &'static [&'static str] {
        match self {
            Self::Mnli => &["dev_matched.tsv"],
            Self::MnliMismatched => &["dev_mismatched.tsv"],
            _ if self.is_json() => &["val.jsonl", "dev.jsonl"],
            _ => &["dev.tsv"],
        }
    }

    /// The name of the training file in the official layout.
    #[must_use]
    pub const fn train_file(self) -> &'static str {
        if self.is_json() { "train.jsonl" } else { "train.tsv" }
    }

    /// The name of the test file (the development set) in the official layout.
    #[must_use]
    pub const fn test_file(self) -> &'static str {
        match self {
            Self::Mnli => "dev_matched.tsv",
            Self::MnliMismatched => "dev_mismatched.tsv",
            _ if self.is_json() => "val.jsonl",
            _ => "dev.tsv",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_tasks_whatever_their_case() {
        for task in Task::ALL {
            assert_eq!(Task::from_name(task.name()), Some(task));
            assert_eq!(Task::from_name(&task.name().to_uppercase()), Some(task));
        }
        assert_eq!(Task::from_name("GLUE/SST-2"), Some(Task::Sst2));
        assert_eq!(Task::from_name("glue/stsb"), None);
        assert_eq!(Task::from_name("rte"), None);
    }

    #[test]
    fn the_official_file_names_are_the_preferred_ones() {
        for task in Task::ALL {
            assert_eq!(task.train_files().first(), Some(&task.train_file()));
            assert_eq!(task.test_files().first(), Some(&task.test_file()));
        }
    }

    #[test]
    fn a_score_of_class_1_is_asked_for_tasks_of_two_classes_only() {
        for task in Task::ALL {
            assert!(task.labels().len() == 2 || !task.metric().needs_two_classes());
            assert_eq!(task.metric().needs_groups(), task == Task::Multirc);
        }
    }
}
