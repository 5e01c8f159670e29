//! JSON lines: SuperGLUE's files, and fields of objects in general.

use serde_json::{Map, Value};

use super::rows::{Fault, Gathered, class, lines};
use super::spans::{mark_characters, mark_spans};
use super::{Example, Segment, Task, TextError};
use crate::table::error::clip;

pub(super) fn read(
    task: Task,
    path: &str,
    bytes: &[u8],
    skip_malformed: bool,
) -> Result<(Vec<Example>, u32), TextError> {
    let mut gathered = Gathered::new(path, skip_malformed, task.labels());
    let mut questions = 0;
    for (place, line) in lines(bytes) {
        let read = line.and_then(parse).and_then(|row| examples(task, &Object::of(&row), questions));
        if let Ok(examples) = &read {
            questions = examples.last().and_then(|last| last.group).map_or(questions, |group| group + 1);
        }
        gathered.add(place, read)?;
    }
    gathered.finish()
}

/// The object of a line.
pub(super) fn parse(line: &str) -> Result<Map<String, Value>, Fault> {
    match serde_json::from_str(line) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(Fault::new(kind(&other), "a JSON object")),
        Err(error) => {
            // serde_json counts lines within what it is given, which is always one.
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            Err(Fault::new(format!("no JSON ({what}, at column {})", error.column()), "a JSON object"))
        }
    }
}

/// The examples of a row; `group` is the number of the next question.
fn examples(task: Task, row: &Object<'_>, group: u32) -> Result<Vec<Example>, Fault> {
    if task == Task::Multirc {
        return multirc(row, group);
    }
    let segments = match task {
        Task::Copa => copa(row)?,
        Task::Wic => vec![wic(row)?],
        Task::Wsc => vec![wsc(row)?],
        Task::Boolq => vec![pair(row.text("passage")?, row.text("question")?)],
        _ => vec![pair(row.text("premise")?, row.text("hypothesis")?)],
    };
    Ok(vec![Example { segments, label: class(&row.label("label")?, task.labels())?, group: None }])
}

fn pair(first: impl Into<String>, second: impl Into<String>) -> Segment {
    Segment { first: first.into(), second: Some(second.into()) }
}

/// One segment for each choice: the premise with a question that says what is sought, and the choice.
fn copa(row: &Object<'_>) -> Result<Vec<Segment>, Fault> {
    let question = match row.text("question")? {
        "cause" => "What was the cause of this?",
        "effect" => "What happened as a result?",
        other => {
            let found = format!("\"{}\" in \"question\"", clip(other));
            return Err(Fault::new(found, "\"cause\" or \"effect\""));
        }
    };
    let first = format!("{} {question}", row.text("premise")?);
    Ok(vec![pair(first.clone(), row.text("choice1")?), pair(first, row.text("choice2")?)])
}

/// The word in question is marked in both sentences.
fn wic(row: &Object<'_>) -> Result<Segment, Fault> {
    let marked = |sentence: &str, start: &str, end: &str| {
        mark_characters(row.text(sentence)?, row.whole(start)?, row.whole(end)?)
    };
    Ok(pair(marked("sentence1", "start1", "end1")?, marked("sentence2", "start2", "end2")?))
}

/// The noun phrase and the pronoun are marked.
fn wsc(row: &Object<'_>) -> Result<Segment, Fault> {
    let target = row.object("target")?;
    let noun = (target.text("span1_text")?, target.whole("span1_index")?);
    let pronoun = (target.text("span2_text")?, target.whole("span2_index")?);
    Ok(Segment { first: mark_spans(row.text("text")?, noun, pronoun)?, second: None })
}

/// One example for each answer to each question on the paragraph; the answers to one question share a group.
fn multirc(row: &Object<'_>, mut group: u32) -> Result<Vec<Example>, Fault> {
    let passage = row.object("passage")?;
    let paragraph = passage.text("text")?;
    let mut examples = Vec::new();
    for question in passage.objects("questions")? {
        let before = examples.len();
        for answer in question.objects("answers")? {
            let second = format!("{} {}", question.text("question")?, answer.text("text")?);
            let label = class(&answer.label("label")?, Task::Multirc.labels())?;
            examples.push(Example { segments: vec![pair(paragraph, second)], label, group: Some(group) });
        }
        if examples.len() > before {
            group = group.saturating_add(1);
        }
    }
    Ok(examples)
}

/// A JSON object, with what is wrong with its fields.
pub(super) struct Object<'a>(&'a Map<String, Value>);

impl<'a> Object<'a> {
    pub const fn of(fields: &'a Map<String, Value>) -> Self {
        Self(fields)
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<&'a str, Fault> {
        self.get(key, "text", Value::as_str)
    }

    /// A class: text, a whole number, or `true` or `false`.
    pub fn label(&self, key: &str) -> Result<String, Fault> {
        self.get(key, "text, a number or a boolean", |value| match value {
            Value::String(text) => Some(text.trim().to_owned()),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        })
    }

    /// A whole number that is not negative.
    fn whole(&self, key: &str) -> Result<usize, Fault> {
        let whole = |value: &Value| value.as_u64().and_then(|whole| usize::try_from(whole).ok());
        self.get(key, "a whole number from 0", whole)
    }

    fn object(&self, key: &str) -> Result<Self, Fault> {
        self.get(key, "an object", Value::as_object).map(Self)
    }

    fn objects(&self, key: &str) -> Result<Vec<Self>, Fault> {
        self.get(key, "a list of objects", |value| value.as_array()?.iter().map(Self::from_value).collect())
    }

    fn from_value(value: &'a Value) -> Option<Self> {
        value.as_object().map(Self)
    }

    fn get<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, Fault> {
        let Some(value) = self.0.get(key) else {
            let keys: Vec<String> = self.0.keys().take(20).map(|key| format!("\"{}\"", clip(key))).collect();
            let keys = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
            return Err(Fault::new(format!("no field \"{key}\" (fields: {keys})"), expected));
        };
        read(value).ok_or_else(|| Fault::new(format!("{} in \"{key}\"", kind(value)), expected))
    }
}

/// What a value is, for errors.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => clip(&value.to_string()),
        Value::String(text) => format!("\"{}\"", clip(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
