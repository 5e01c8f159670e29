//! HTTP as plain as it gets: one question, one answer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// Asks `GET path` of `address` (host:port). Gives the status line, and the headers with the body.
///
/// # Errors
/// When nobody answers.
pub fn get(address: &str, path: &str, token: Option<&str>) -> anyhow::Result<(String, String)> {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    // HTTP/1.0: an answer in one piece.
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{authorization}\r\n");
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (status, rest) = answer.split_once("\r\n").ok_or_else(|| anyhow::anyhow!("no status: {answer:?}"))?;
    Ok((status.to_owned(), rest.to_owned()))
}

/// The body of an answer with status 200.
///
/// # Errors
/// When there is another.
pub fn body(address: &str, path: &str) -> anyhow::Result<String> {
    let (status, rest) = get(address, path, None)?;
    anyhow::ensure!(status.contains(" 200 "), "{path}: {status}: {rest}");
    Ok(rest.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
