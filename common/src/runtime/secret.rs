//! Secrets in files, and the token a client shows.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// Fewest characters of a token.
pub const MIN_TOKEN: usize = 16;
/// Where a token is looked for when no file is named.
pub const TOKEN_VARIABLE: &str = "EVENKEEL_TOKEN";

/// Why a secret was not read. Never holds any of it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// Others can read the file.
    #[error(
        "{path} holds secrets, but its group or others can read it (mode {mode:03o}): `chmod 600 {path}` mends it",
        path = path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// What is there is no token.
    #[error("{origin} holds no token: {reason}")]
    NoToken {
        /// The file or the variable.
        origin: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Reads a file that only its owner may read. The group may read it, too, where root owns it: so Kubernetes mounts secrets.
///
/// # Errors
/// When it cannot be read, or when others can.
pub fn read_private(path: &Path) -> Result<String, SecretError> {
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    let file = std::fs::metadata(path).map_err(unreadable)?;
    if is_open(file.mode(), file.uid()) {
        return Err(SecretError::Open { path: path.to_owned(), mode: file.mode() & 0o777 });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn is_open(mode: u32, owner: u32) -> bool {
    mode & (if owner == 0 { 0o037 } else { 0o077 }) != 0
}

/// What changes when a file is written, replaced, or made readable for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStamp([i64; 4], u64);

impl FileStamp {
    /// Of a file, if it is there.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self([file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()], file.ino()))
    }
}

/// Checks that a text can be a token.
///
/// # Errors
/// What is wrong with it.
pub fn check_token(token: &str) -> Result<(), &'static str> {
    if token.len() < MIN_TOKEN {
        return Err("a token has at least 16 characters (`openssl rand -hex 32` prints a good one)");
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a token is made of visible ASCII characters, without spaces");
    }
    Ok(())
}

/// What a client shows with each call: a token, or nothing. Printing it does not show the token.
#[derive(Clone, Debug, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    /// The token of this file, or of `EVENKEEL_TOKEN`, or none.
    ///
    /// # Errors
    /// When the file cannot be read or is open to others, or what is there is no token.
    pub fn find(file: Option<&Path>) -> Result<Self, SecretError> {
        if let Some(path) = file {
            return Self::new(&read_private(path)?, &path.display().to_string());
        }
        match std::env::var_os(TOKEN_VARIABLE).filter(|token| !token.is_empty()) {
            Some(token) => Self::new(&token.to_string_lossy(), TOKEN_VARIABLE),
            None => Ok(Self::default()),
        }
    }

    fn new(text: &str, origin: &str) -> Result<Self, SecretError> {
        let wrong = |reason| SecretError::NoToken { origin: origin.to_owned(), reason };
        let token = text.trim();
        check_token(token).map_err(wrong)?;
        let mut value = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| wrong("it cannot be sent in a header"))?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef-secret";

    #[test]
    fn a_token_is_sent_but_never_printed() {
        let mut bearer = Bearer::new(&format!("{TOKEN}\n"), "here").expect("a token");
        assert!(!format!("{bearer:?}").contains("secret"), "{bearer:?}");
        let request = bearer.call(Request::new(())).expect("passed on");
        assert!(!format!("{request:?}").contains("secret"), "{request:?}");
        let sent = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        assert_eq!(sent, Some("Bearer 0123456789abcdef-secret"));
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_repeated() {
        for bad in ["short", "", "0123456789 abcdef-secret", "0123456789äabcdef-secret"] {
            let error = Bearer::new(bad, "here").expect_err("accepted").to_string();
            assert!(error.starts_with("here holds no token: a token"), "{error}");
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        for (mode, owner, open) in [
            (0o600, 1000, false),
            (0o400, 0, false),
            (0o640, 1000, true),
            (0o440, 0, false),
            (0o660, 0, true),
            (0o604, 0, true),
        ] {
            assert_eq!(is_open(0o100_000 | mode, owner), open, "{mode:o} of {owner}");
        }
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("token");
        std::fs::write(&path, TOKEN).expect("write");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("chmod");
        let error = Bearer::find(Some(&path)).expect_err("accepted").to_string();
        assert!(error.contains("(mode 644): `chmod 600 "), "{error}");
    }
}
