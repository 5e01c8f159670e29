//! What is wrong with a spec: file, line, field, what was found, what is allowed, and the near miss.

use std::fmt;

/// A problem at a place in a document.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Problem {
    path: Option<String>,
    line: Option<u64>,
    message: String,
    allowed: Option<String>,
    hint: Option<String>,
    type_mismatch: bool,
}

impl Problem {
    pub(crate) fn at(path: &str, line: u64, message: impl Into<String>) -> Self {
        Self { path: Some(path.to_owned()), line: Some(line), message: message.into(), ..Self::default() }
    }

    /// A problem found after parsing, at a dotted path; the line is looked up later.
    pub(crate) fn field(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: Some(path.into()), message: message.into(), ..Self::default() }
    }

    pub(crate) fn or_at(mut self, path: &str, line: u64) -> Self {
        if self.path.is_none() {
            self.path = Some(path.to_owned());
        }
        self.line.get_or_insert(line);
        self
    }

    pub(crate) fn with_line(mut self, line_of: impl FnOnce(&str) -> u64) -> Self {
        if self.line.is_none() {
            self.line = Some(line_of(self.path.as_deref().unwrap_or_default()));
        }
        self
    }

    pub(crate) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    pub(crate) fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// Whether nobody has said yet where it is.
    pub(crate) fn is_unlocated(&self) -> bool {
        self.path.is_none()
    }

    pub(crate) fn is_type_mismatch(&self) -> bool {
        self.type_mismatch && self.path.is_none()
    }
}

impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = self.path.as_deref().filter(|path| !path.is_empty()) {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(allowed) = &self.allowed {
            write!(f, "; allowed: {allowed}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  did you mean `{hint}`?")?;
        }
        Ok(())
    }
}

impl serde::de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), ..Self::default() }
    }
    fn invalid_type(unexpected: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self {
            message: format!("found {unexpected}, expected {expected}"),
            type_mismatch: true,
            ..Self::default()
        }
    }
    fn invalid_value(unexpected: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }
    fn missing_field(field: &'static str) -> Self {
        Self { message: format!("field `{field}` is missing"), ..Self::default() }
    }
}

/// A spec that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    pub(crate) file: String,
    pub(crate) problem: Box<Problem>,
}

impl SpecError {
    /// A spec file that cannot be read; `reason` is what the system said.
    #[must_use]
    pub fn unreadable(file: &str, reason: &str) -> Self {
        Self {
            file: file.to_owned(),
            problem: Box::new(Problem::field("", format!("cannot be read: {reason}"))),
        }
    }

    /// The line of the problem, from 1.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        self.problem.line
    }
}

impl std::error::Error for SpecError {}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problem.line {
            Some(line) if line > 0 => write!(f, "{}:{line}: {}", self.file, self.problem),
            _ => write!(f, "{}: {}", self.file, self.problem),
        }
    }
}

/// The allowed name nearest to what was written, if it is near enough to be a slip.
pub(crate) fn nearest(found: &str, allowed: &[&str]) -> Option<String> {
    allowed
        .iter()
        .map(|name| (strsim::jaro_winkler(found, name), *name))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}
