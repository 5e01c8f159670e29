//! Feature files.
