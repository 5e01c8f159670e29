//! Models from the Hugging Face hub, through its client, which keeps them in the user's cache.

use std::path::PathBuf;

use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

/// A model that the hub does not give.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Neither in the cache nor to be downloaded.
    #[error(
        "path: there is no folder {name}, and {file} of the hub's model {name} ({revision}) cannot be downloaded: {reason}\n  \
         without a way to the hub, copy config.json, model.safetensors and tokenizer.json into a folder and name that, or \
         fill the cache on a machine that has one (`hf download {name}`) and copy {cache} here; HF_ENDPOINT names a mirror, \
         HF_TOKEN opens private models"
    )]
    Unavailable {
        /// Its name.
        name: String,
        /// Branch, tag or commit.
        revision: String,
        /// The file that is missing.
        file: String,
        /// What went wrong.
        reason: String,
        /// Where downloads are kept.
        cache: String,
    },
}

/// Whether this can be the name of a model on the hub: `owner/name`, or an old one without owner.
pub(super) fn is_name(path: &str) -> bool {
    let allowed = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let mut parts = path.split('/');
    parts.clone().count() <= 2 && parts.all(allowed)
}

/// Paths of a model's files, from the cache or downloaded into it.
pub(super) fn fetch(name: &str, revision: Option<&str>, files: &[&str]) -> Result<Vec<PathBuf>, HubError> {
    let revision = revision.unwrap_or("main");
    let cache = Cache::from_env();
    let repo = Repo::with_revision(name.to_owned(), RepoType::Model, revision.to_owned());
    let cached: Vec<_> = files.iter().filter_map(|file| cache.repo(repo.clone()).get(file)).collect();
    if cached.len() == files.len() {
        return Ok(cached);
    }
    let failed = |file: &str, error: ApiError| HubError::Unavailable {
        name: name.to_owned(),
        revision: revision.to_owned(),
        file: file.to_owned(),
        reason: error.to_string(),
        cache: cache.path().display().to_string(),
    };
    let first = files.first().copied().unwrap_or_default();
    let token = std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty());
    let mut builder = ApiBuilder::from_env();
    if token.is_some() {
        builder = builder.with_token(token);
    }
    let api = builder.build().map_err(|error| failed(first, error))?;
    let model = api.repo(repo);
    files.iter().map(|file| model.get(file).map_err(|error| failed(file, error))).collect()
}
