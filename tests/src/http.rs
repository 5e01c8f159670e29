//! HTTP as plain as it gets: one question, one answer.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// Asks `GET path` of `address` (host:port). Gives the status line, and the headers with the body.
///
/// # Errors
/// When nobody answers.
pub fn get(address: &str, path: &str, token: Option<&str>) -> anyhow::Result<(String, String)> {
    let authorization = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> =
        authorization.iter().map(|value| ("Authorization", value.as_str())).collect();
    send(address, "GET", path, &headers, "")
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

/// Asks anything. Gives the status line, and the headers with the body.
///
/// # Errors
/// When nobody answers.
pub fn send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<(String, String)> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    // HTTP/1.0: an answer in one piece.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (status, rest) = answer.split_once("\r\n").ok_or_else(|| anyhow::anyhow!("no status: {answer:?}"))?;
    Ok((status.to_owned(), rest.to_owned()))
}

/// A proxy that serves `address` below the path `prefix`, as long as the program runs. Gives its own address.
///
/// # Errors
/// When there is no port for it.
pub fn proxy(address: &str, prefix: &'static str) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (own, address) = (listener.local_addr()?.to_string(), address.to_owned());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let address = address.clone();
            std::thread::spawn(move || pass_on(stream, &address, prefix));
        }
    });
    Ok(own)
}

fn pass_on(mut client: TcpStream, address: &str, prefix: &str) -> anyhow::Result<()> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16_384]);
    // One request a connection: its head, and as much behind it as it says.
    let (head, body) = loop {
        let read = client.read(&mut buffer)?;
        anyhow::ensure!(read > 0, "half a request");
        bytes.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            line.to_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
        });
        if body.len() >= length.unwrap_or(0) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default().replacen(&format!(" {prefix}"), " ", 1);
    if first == head.lines().next().unwrap_or_default() {
        client.write_all(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(());
    }
    let kept: String = lines
        .filter(|line| !line.to_lowercase().starts_with("connection:"))
        .map(|line| format!("{line}\r\n"))
        .collect();
    let mut server = TcpStream::connect(address)?;
    server.write_all(format!("{first}\r\n{kept}Connection: close\r\n\r\n{body}").as_bytes())?;
    std::io::copy(&mut server, &mut client)?;
    Ok(())
}
