//! An object store: a directory, S3, or what Google and Azure call theirs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, RetryConfig};

/// Something the store could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The location is not one.
    #[error("store `{location}` cannot be used: {reason}")]
    Location {
        /// What was given.
        location: String,
        /// Why not.
        reason: String,
    },
    /// It did not answer, or refused.
    #[error("the store did not take or give `{path}`: {source}")]
    Unavailable {
        /// The object.
        path: String,
        /// What it said.
        source: object_store::Error,
    },
    /// There is no such object.
    #[error("the store has no `{path}`")]
    Missing {
        /// The object.
        path: String,
    },
    /// The object is there already.
    #[error("the store has `{path}` already")]
    Exists {
        /// The object.
        path: String,
    },
    /// An object does not hold what it should.
    #[error(
        "`{path}` in the store is damaged or of a newer version: {reason} (`evenkeel fsck` looks through the store)"
    )]
    Corrupt {
        /// The object.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// An object, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, relative to the folder that was listed.
    pub name: String,
    /// Its size, in bytes.
    pub bytes: u64,
    /// When it was written, in milliseconds since the Unix epoch, by the store's clock.
    pub written_ms: i64,
}

/// A handle to the store; clones share it.
#[derive(Clone, Debug)]
pub struct Objects {
    objects: Arc<dyn ObjectStore>,
    location: Arc<str>,
    /// Where a directory is.
    directory: Option<Arc<std::path::Path>>,
}

impl Objects {
    /// Opens a directory (made if absent) or a URL: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    /// Credentials, region and endpoint come from the standard `AWS_…`, `GOOGLE_…` and `AZURE_…` variables.
    ///
    /// # Errors
    /// When the location is malformed or the directory cannot be made.
    pub fn open(location: &str) -> Result<Self, StoreError> {
        let refuse = |reason: String| StoreError::Location { location: redacted(location), reason };
        let mut folder = None;
        let mut directory = |path: &str| {
            folder = Some(Arc::from(std::path::Path::new(path)));
            directory(path)
        };
        let objects: Arc<dyn ObjectStore> = match location.split_once("://") {
            Some((scheme @ ("s3" | "gs" | "az"), rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let bucket = in_cloud(scheme, bucket).map_err(|error| refuse(error.to_string()))?;
                let prefix = Path::parse(prefix).map_err(|error| refuse(error.to_string()))?;
                Arc::new(PrefixStore::new(bucket, prefix))
            }
            Some(("file", path)) => directory(path).map_err(refuse)?,
            Some((scheme, _)) => {
                return Err(refuse(format!(
                    "`{scheme}://` is not supported; use a directory, s3://bucket/prefix, gs://bucket/prefix or \
                     az://container/prefix"
                )));
            }
            None => directory(location).map_err(refuse)?,
        };
        Ok(Self { objects, location: redacted(location).into(), directory: folder })
    }

    /// Over a store that is there, called `location`.
    #[must_use]
    pub fn over(objects: Arc<dyn ObjectStore>, location: &str) -> Self {
        Self { objects, location: location.into(), directory: None }
    }

    /// Where it is, for people.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Creates an object that must not be there yet.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if it is, [`StoreError::Unavailable`] if the store does not take it.
    pub async fn create(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&Path::from(path), PutPayload::from(bytes), options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Err(StoreError::Exists { path: path.to_owned() })
            }
            Err(source) => Err(StoreError::Unavailable { path: path.to_owned(), source }),
        }
    }

    /// Creates an object unless it is there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store does not take it.
    pub async fn create_if_absent(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        match self.create(path, bytes).await {
            Err(StoreError::Exists { .. }) => Ok(()),
            other => other,
        }
    }

    /// The bytes of an object.
    ///
    /// # Errors
    /// [`StoreError::Missing`] or [`StoreError::Unavailable`].
    pub async fn read(&self, path: &str) -> Result<Bytes, StoreError> {
        let fail = |source| match source {
            object_store::Error::NotFound { .. } => StoreError::Missing { path: path.to_owned() },
            source => StoreError::Unavailable { path: path.to_owned(), source },
        };
        self.objects.get(&Path::from(path)).await.map_err(fail)?.bytes().await.map_err(fail)
    }

    /// The names of all objects below a folder, sorted, relative to it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.entries(folder).await?.into_iter().map(|entry| entry.name).collect())
    }

    /// All objects below a folder, sorted by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn entries(&self, folder: &str) -> Result<Vec<Entry>, StoreError> {
        let prefix = Path::from(folder);
        let objects: Vec<_> = self
            .objects
            .list(Some(&prefix))
            .try_collect()
            .await
            .map_err(|source| StoreError::Unavailable { path: folder.to_owned(), source })?;
        let mut entries: Vec<Entry> = objects
            .iter()
            .filter_map(|object| {
                let parts = object.location.prefix_match(&prefix)?;
                let name = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
                Some(Entry { name, bytes: object.size, written_ms: object.last_modified.timestamp_millis() })
            })
            .collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Files that writes into a directory left when they were interrupted, relative to it; other stores leave none.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn interrupted_writes(&self) -> std::io::Result<Vec<PathBuf>> {
        let Some(directory) = &self.directory else { return Ok(Vec::new()) };
        let (mut found, mut open) = (Vec::new(), vec![directory.to_path_buf()]);
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                let name = entry.file_name();
                // `object_store` writes `<name>#<number>` and then links it to its name.
                let staged = name.to_str().and_then(|name| name.rsplit_once('#'));
                if entry.file_type()?.is_dir() {
                    open.push(entry.path());
                } else if staged.is_some_and(|(_, number)| number.bytes().all(|b| b.is_ascii_digit())) {
                    found.extend(entry.path().strip_prefix(directory).map(std::path::Path::to_owned));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Deletes a file that [`Objects::interrupted_writes`] named.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn delete_interrupted(&self, file: &std::path::Path) -> std::io::Result<()> {
        self.directory.as_deref().map_or(Ok(()), |directory| std::fs::remove_file(directory.join(file)))
    }

    /// The names of the folders directly below a folder, sorted.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let prefix = Path::from(folder);
        let listing = self
            .objects
            .list_with_delimiter(Some(&prefix))
            .await
            .map_err(|source| StoreError::Unavailable { path: folder.to_owned(), source })?;
        let mut names: Vec<String> =
            listing.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Writes an object, over the one that may be there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store does not take it.
    pub async fn write(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        let written = self.objects.put(&Path::from(path), PutPayload::from(bytes)).await;
        written.map(|_| ()).map_err(|source| StoreError::Unavailable { path: path.to_owned(), source })
    }

    /// Deletes an object; one that is not there is no error.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        match self.objects.delete(&Path::from(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(StoreError::Unavailable { path: path.to_owned(), source }),
        }
    }
}

/// A bucket, by the first part of its URL.
fn in_cloud(scheme: &str, bucket: &str) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    // The driver retries and says so: the client underneath must not hide an outage for minutes.
    let retry =
        RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(10), ..RetryConfig::default() };
    Ok(match scheme {
        "gs" => Arc::new(
            GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retry).build()?,
        ),
        "az" => {
            Arc::new(MicrosoftAzureBuilder::from_env().with_container_name(bucket).with_retry(retry).build()?)
        }
        _ => Arc::new(AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry).build()?),
    })
}

fn directory(path: &str) -> Result<Arc<dyn ObjectStore>, String> {
    let path = PathBuf::from(path);
    std::fs::create_dir_all(&path).map_err(|error| format!("the directory cannot be made: {error}"))?;
    let files = LocalFileSystem::new_with_prefix(&path).map_err(|error| error.to_string())?;
    // What was acknowledged has to survive the machine, too. Folders go with what was in them, as on S3.
    Ok(Arc::new(files.with_fsync(true).with_automatic_cleanup(true)))
}

/// A location without the user and password a URL may hold.
fn redacted(location: &str) -> String {
    match location.split_once("://") {
        Some((scheme, rest)) => {
            let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}://{}", rest.split('?').next().unwrap_or(rest))
        }
        None => location.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_object_is_created_once_and_may_be_written_over_and_deleted() {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Objects::open(&dir.path().join("a/b").to_string_lossy()).expect("open");
        store.create("sweeps/x/spec.json", Bytes::from_static(b"1")).await.expect("create");
        let second = store.create("sweeps/x/spec.json", Bytes::from_static(b"2")).await;
        assert!(matches!(second, Err(StoreError::Exists { .. })));
        assert_eq!(store.read("sweeps/x/spec.json").await.expect("read"), "1");
        assert_eq!(store.list("sweeps/x").await.expect("list"), ["spec.json"]);
        assert_eq!(store.folders("sweeps").await.expect("folders"), ["x"]);
        assert!(matches!(store.read("nothing").await, Err(StoreError::Missing { .. })));
        for text in ["2", "3"] {
            store.write("checkpoints/t", Bytes::from_static(text.as_bytes())).await.expect("write");
            assert_eq!(store.read("checkpoints/t").await.expect("read"), text);
        }
        store.delete("checkpoints/t").await.expect("delete");
        store.delete("checkpoints/t").await.expect("delete what is not there");
        assert!(matches!(store.read("checkpoints/t").await, Err(StoreError::Missing { .. })));
    }

    #[test]
    fn a_location_that_is_none_is_refused_without_its_secrets() {
        let error = Objects::open("gopher://user:secret@host/x").expect_err("accepted").to_string();
        assert!(error.contains("gopher") && !error.contains("secret"), "{error}");
    }
}
