//! Who may do what: tokens with roles, kept in a file of the coordinator's.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use evenkeel_common::runtime::secret::{FileStamp, SecretError, check_token, read_private};
use tonic::Status;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To see sweeps, results and workers.
    Read,
    /// To submit and change sweeps, too.
    Submit,
    /// Everything.
    Admin,
    /// To register a worker, and nothing else.
    Worker,
}

impl Role {
    const ALL: [Self; 4] = [Self::Read, Self::Submit, Self::Admin, Self::Worker];

    /// As it is written in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Admin => "admin",
            Self::Worker => "worker",
        }
    }

    /// Whether who has this role may do what needs the other.
    fn includes(self, needed: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Submit => matches!(needed, Self::Submit | Self::Read),
            Self::Read | Self::Worker => self == needed,
        }
    }
}

/// Why a file of tokens is not used. Names lines, never what is on them.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It cannot be read, or others can read it.
    #[error("--tokens: {0}")]
    File(#[from] SecretError),
    /// A line is not one.
    #[error("--tokens: {path} line {line}: {reason}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody could do anything.
    #[error(
        "--tokens: {path} holds no token; a line is `ROLE TOKEN`, with the roles read, submit, admin and worker",
        path = path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No token came.
    #[error(
        "this coordinator asks for a token: name a file that holds yours with --token-file, or set EVENKEEL_TOKEN"
    )]
    Missing,
    /// The token is none of the coordinator's.
    #[error(
        "the coordinator does not know this token: check --token-file or EVENKEEL_TOKEN, and whether the token is in the \
         file that the coordinator has as --tokens"
    )]
    Unknown,
    /// The token is one of a role that does not suffice.
    #[error("this token has the role {}, and the role {} is needed: ask for a token that has it", has.name(), needed.name())]
    TooSmall {
        /// What it has.
        has: Role,
        /// What it takes.
        needed: Role,
    },
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Missing | Denied::Unknown => Self::unauthenticated(denied.to_string()),
            Denied::TooSmall { .. } => Self::permission_denied(denied.to_string()),
        }
    }
}

/// Decides what callers may do; clones share the tokens. Printing it does not show them.
#[derive(Clone, Debug, Default)]
pub struct Access(Option<Arc<Tokens>>);

#[derive(Debug)]
struct Tokens {
    path: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    stamp: Option<FileStamp>,
    known: Vec<Known>,
}

/// The hash of a token and what it allows; comparing hashes takes the same time wherever they differ.
struct Known(blake3::Hash, Role);

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Known").field(&self.1).finish()
    }
}

impl Access {
    /// Everybody may do everything.
    #[must_use]
    pub fn open() -> Self {
        Self::default()
    }

    /// Who shows a token of this file may do what its role allows. The file is read again when it changes.
    ///
    /// # Errors
    /// When it cannot be read, others can read it, or a line is wrong.
    pub fn from_file(path: &Path) -> Result<Self, AccessError> {
        // The stamp first: a change while it is read is then seen afterwards.
        let read = Read { stamp: FileStamp::of(path), known: parse(path, &read_private(path)?)? };
        Ok(Self(Some(Arc::new(Tokens { path: path.to_owned(), read: Mutex::new(read) }))))
    }

    /// Whether tokens are asked for.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Checks the header `authorization` of a call against the role it needs.
    ///
    /// # Errors
    /// When there is no token in it, an unknown one, or one that allows less.
    pub fn check(&self, authorization: Option<&[u8]>, needed: Role) -> Result<(), Denied> {
        let Some(tokens) = &self.0 else { return Ok(()) };
        let token = authorization.and_then(bearer).ok_or(Denied::Missing)?;
        match tokens.role(token) {
            None => Err(Denied::Unknown),
            Some(has) if has.includes(needed) => Ok(()),
            Some(has) => Err(Denied::TooSmall { has, needed }),
        }
    }

    /// The same for a gRPC call.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` or `PERMISSION_DENIED`.
    pub fn check_call<T>(&self, request: &tonic::Request<T>, needed: Role) -> Result<(), Status> {
        let shown = request.metadata().get("authorization").map(|value| value.as_bytes());
        Ok(self.check(shown, needed)?)
    }
}

impl Tokens {
    fn role(&self, token: &[u8]) -> Option<Role> {
        let hash = blake3::hash(token);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = FileStamp::of(&self.path);
        if stamp != read.stamp {
            read.stamp = stamp;
            match read_private(&self.path)
                .map_err(AccessError::from)
                .and_then(|text| parse(&self.path, &text))
            {
                Ok(known) => {
                    tracing::info!(tokens = known.len(), "tokens read again");
                    read.known = known;
                }
                Err(error) => tracing::error!(%error, "the tokens from before stay in force"),
            }
        }
        read.known.iter().fold(None, |found, known| if known.0 == hash { Some(known.1) } else { found })
    }
}

/// The token of a header `Bearer TOKEN`.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn parse(path: &Path, text: &str) -> Result<Vec<Known>, AccessError> {
    let mut known: Vec<Known> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |reason: &str| AccessError::Line {
            path: path.to_owned(),
            line: number + 1,
            reason: reason.to_owned(),
        };
        let mut words = line.split_whitespace();
        let Some(word) = words.next().filter(|word| !word.starts_with('#')) else { continue };
        // Not repeated in the message: with the two exchanged, the first word is the secret.
        let role = Role::ALL
            .into_iter()
            .find(|role| role.name() == word)
            .ok_or_else(|| wrong("expected `ROLE TOKEN`, with the roles read, submit, admin and worker"))?;
        let token = words.next().ok_or_else(|| wrong("there is no token after the role"))?;
        check_token(token).map_err(wrong)?;
        if words.next().is_some_and(|word| !word.starts_with('#')) {
            return Err(wrong("there is more than a role and a token; a remark begins with #"));
        }
        let hash = blake3::hash(token.as_bytes());
        if known.iter().any(|earlier| earlier.0 == hash) {
            return Err(wrong("this token is in the file twice; give each role one of its own"));
        }
        known.push(Known(hash, role));
    }
    if known.is_empty() {
        return Err(AccessError::Empty { path: path.to_owned() });
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const FILE: &str = "# who is who\nread reader-0123456789\nsubmit submitter-0123456789  # Ann\n\nadmin root-0123456789abc\nworker machine-0123456789\n";

    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).expect("write");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("tokens");
        write(&path, text);
        (dir, path)
    }

    fn ask(access: &Access, token: &str, needed: Role) -> Result<(), Denied> {
        access.check(Some(format!("Bearer {token}").as_bytes()), needed)
    }

    #[test]
    fn each_role_includes_those_below_it_and_a_worker_may_only_register() {
        let (_dir, path) = file(FILE);
        let access = Access::from_file(&path).expect("tokens");
        let allowed = |token: &str| Role::ALL.map(|needed| ask(&access, token, needed).is_ok());
        assert_eq!(allowed("reader-0123456789"), [true, false, false, false]);
        assert_eq!(allowed("submitter-0123456789"), [true, true, false, false]);
        assert_eq!(allowed("root-0123456789abc"), [true; 4]);
        assert_eq!(allowed("machine-0123456789"), [false, false, false, true]);
    }

    #[test]
    fn calls_without_a_known_token_are_refused_with_what_to_do() {
        let (_dir, path) = file(FILE);
        let access = Access::from_file(&path).expect("tokens");
        for header in [None, Some(&b"Bearer"[..]), Some(b"Basic reader-0123456789")] {
            assert_eq!(access.check(header, Role::Read), Err(Denied::Missing));
        }
        assert_eq!(ask(&access, "reader-012345678", Role::Read), Err(Denied::Unknown));
        let status = Status::from(ask(&access, "reader-0123456789", Role::Admin).expect_err("allowed"));
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
        assert!(status.message().contains("role admin is needed"), "{}", status.message());
        assert_eq!(access.check(Some(b"bearer reader-0123456789"), Role::Read), Ok(()));
        assert_eq!(Access::open().check(None, Role::Admin), Ok(()));
    }

    #[test]
    fn printing_never_shows_a_token() {
        let (_dir, path) = file(FILE);
        let access = Access::from_file(&path).expect("tokens");
        let (printed, hash) = (format!("{access:?}"), blake3::hash(b"reader-0123456789").to_hex());
        assert!(!printed.contains("0123456789") && !printed.contains(&hash[..16]), "{printed}");
    }

    #[test]
    fn a_wrong_line_is_named_but_not_repeated() {
        for (text, line, says) in [
            ("read reader-0123456789\nreader-9876543210 read", 2, "expected `ROLE TOKEN`"),
            ("owner secret-0123456789", 1, "expected `ROLE TOKEN`"),
            ("read", 1, "no token after the role"),
            ("read secret-012345", 1, ""),
            ("read secret", 1, "at least 16"),
            ("read secret-0123456789 more", 1, "more than a role"),
            ("read secret-0123456789\nadmin secret-0123456789", 2, "twice"),
        ] {
            let (_dir, path) = file(text);
            match Access::from_file(&path) {
                Ok(_) => assert!(says.is_empty(), "{text:?} was accepted"),
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.contains(&format!("line {line}: ")) && error.contains(says), "{error}");
                    assert!(!error.contains("secret") && !error.contains("9876543210"), "{error}");
                }
            }
        }
        let (_dir, path) = file("# nothing\n");
        assert!(matches!(Access::from_file(&path), Err(AccessError::Empty { .. })));
    }

    #[test]
    fn a_file_that_changes_is_read_again_and_a_broken_one_changes_nothing() {
        let (_dir, path) = file(FILE);
        let access = Access::from_file(&path).expect("tokens");
        let replace = |text: &str| {
            let new = path.with_extension("new");
            write(&new, text);
            std::fs::rename(&new, &path).expect("rename");
        };
        replace("read another-0123456789\n");
        assert_eq!(ask(&access, "another-0123456789", Role::Read), Ok(()));
        assert_eq!(ask(&access, "reader-0123456789", Role::Read), Err(Denied::Unknown));
        replace("nonsense\n");
        assert_eq!(ask(&access, "another-0123456789", Role::Read), Ok(()));
        std::fs::remove_file(&path).expect("remove");
        assert_eq!(ask(&access, "another-0123456789", Role::Read), Ok(()));
    }
}
