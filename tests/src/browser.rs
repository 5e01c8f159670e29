//! A headless Chromium, driven over its DevTools protocol through a pipe.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// A browser with one page. It is killed by its own pid when the test lets go of it.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    orders: ChildStdin,
    inbox: mpsc::Receiver<Value>,
    session: Option<String>,
    next: u64,
    complaints: Vec<String>,
    loads: u64,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts `CHROMIUM`. None, with a reason printed, where there is none.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let Some(chromium) = std::env::var_os("CHROMIUM").filter(|path| !path.is_empty()) else {
            eprintln!("skipped: no CHROMIUM is set (scripts/chromium.sh finds or installs one)");
            return Ok(None);
        };
        let profile = tempfile::tempdir()?;
        // It reads orders from its file 3 and answers on its file 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>&2"])
            .arg(chromium)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--remote-debugging-pipe",
            ])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--hide-scrollbars", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let orders = child.stdin.take().context("no way in")?;
        let mut answers = BufReader::new(child.stdout.take().context("no way out")?);
        let (sender, inbox) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while answers.read_until(0, &mut bytes).is_ok_and(|read| read > 0) {
                bytes.pop();
                let Ok(message) = serde_json::from_slice(&bytes) else { return };
                if sender.send(message).is_err() {
                    return;
                }
                bytes.clear();
            }
        });
        let mut browser = Self {
            child,
            orders,
            inbox,
            session: None,
            next: 0,
            complaints: Vec::new(),
            loads: 0,
            _profile: profile,
        };
        let target = browser.order("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.order("Target.attachToTarget", attach)?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.order(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(Some(browser))
    }

    /// Sends an order and waits for its answer.
    ///
    /// # Errors
    /// When the browser refuses it or does not answer.
    pub fn order(&mut self, method: &str, parameters: Value) -> anyhow::Result<Value> {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.orders.write_all(format!("{message}\0").as_bytes())?;
        let end = Instant::now() + LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message = self.inbox.recv_timeout(left).with_context(|| format!("no answer to {method}"))?;
            if message["id"] == id {
                if !message["error"].is_null() {
                    bail!("{method}: {}", message["error"]);
                }
                return Ok(message["result"].clone());
            }
            self.note(&message);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Page.loadEventFired" => self.loads += 1,
            "Runtime.exceptionThrown" => self.complaints.push(parameters.to_string()),
            "Runtime.consoleAPICalled" if parameters["type"] == "error" => {
                self.complaints.push(parameters["args"].to_string());
            }
            "Log.entryAdded" if parameters["entry"]["level"] == "error" => {
                self.complaints.push(parameters["entry"].to_string());
            }
            _ => {}
        }
    }

    /// Opens an address and waits until it is loaded.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn open(&mut self, address: &str) -> anyhow::Result<()> {
        self.and_load(|browser| {
            let answer = browser.order("Page.navigate", json!({ "url": address }))?;
            anyhow::ensure!(answer["errorText"].is_null(), "{address}: {answer}");
            Ok(())
        })
    }

    /// Clicks on what a selector finds and waits for the page that it leads to.
    ///
    /// # Errors
    /// When there is nothing or no page comes.
    pub fn follow(&mut self, selector: &str) -> anyhow::Result<()> {
        self.and_load(|browser| browser.click(selector))
    }

    fn and_load(&mut self, go: impl FnOnce(&mut Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let before = self.loads;
        go(self)?;
        let end = Instant::now() + LIMIT;
        while self.loads == before {
            anyhow::ensure!(Instant::now() < end, "no page was loaded");
            if let Ok(event) = self.inbox.recv_timeout(Duration::from_millis(100)) {
                self.note(&event);
            }
        }
        Ok(())
    }

    /// Clicks on what a selector finds.
    ///
    /// # Errors
    /// When there is nothing.
    pub fn click(&mut self, selector: &str) -> anyhow::Result<()> {
        let found = self.eval(&format!(
            "(() => {{ const it = document.querySelector({selector:?}); if (it) it.click(); return !!it; }})()"
        ))?;
        anyhow::ensure!(found == true, "there is no {selector}");
        Ok(())
    }

    /// The value of an expression in the page.
    ///
    /// # Errors
    /// When it throws.
    pub fn eval(&mut self, expression: &str) -> anyhow::Result<Value> {
        let question = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.order("Runtime.evaluate", question)?;
        anyhow::ensure!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        Ok(answer["result"]["value"].clone())
    }

    /// The text that is seen of the page.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn text(&mut self) -> anyhow::Result<String> {
        Ok(self.eval("document.body.innerText")?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// When it is not within a minute.
    pub fn until(&mut self, expression: &str) -> anyhow::Result<()> {
        let end = Instant::now() + LIMIT;
        while self.eval(expression).ok() != Some(true.into()) {
            if Instant::now() > end {
                bail!("waited in vain for {expression} on\n{}", self.text()?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Gives the page a size.
    ///
    /// # Errors
    /// When the browser does not take it.
    pub fn resize(&mut self, width: u32, height: u32) -> anyhow::Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.order("Emulation.setDeviceMetricsOverride", size).map(|_| ())
    }

    /// Whether the page is to be dark.
    ///
    /// # Errors
    /// When the browser does not take it.
    pub fn dark(&mut self, dark: bool) -> anyhow::Result<()> {
        let value = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.order("Emulation.setEmulatedMedia", features).map(|_| ())
    }

    /// Whether pages may run scripts; from the next one on.
    ///
    /// # Errors
    /// When the browser does not take it.
    pub fn scripts(&mut self, allowed: bool) -> anyhow::Result<()> {
        self.order("Emulation.setScriptExecutionDisabled", json!({ "value": !allowed })).map(|_| ())
    }

    /// What it complained about since it was asked last: exceptions, errors on the console, refused by a policy.
    pub fn complaints(&mut self) -> Vec<String> {
        // An order and its answer: what was said before has arrived then.
        let _ = self.eval("0");
        std::mem::take(&mut self.complaints)
    }

    /// A picture of the whole page, as PNG.
    ///
    /// # Errors
    /// When it cannot be taken or written.
    pub fn picture(&mut self, file: &Path, whole: bool) -> anyhow::Result<()> {
        let question = json!({ "format": "png", "captureBeyondViewport": whole });
        let answer = self.order("Page.captureScreenshot", question)?;
        Ok(std::fs::write(file, base64(answer["data"].as_str().unwrap_or_default())?)?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.order("Browser.close", json!({}));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bytes of a text in base 64.
fn base64(text: &str) -> anyhow::Result<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len() / 4 * 3), 0u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let digit = DIGITS.iter().position(|digit| *digit == letter).context("not base 64")?;
        bits = (bits << 6) | u32::try_from(digit)?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base_64_is_read() {
        assert_eq!(base64("aGVsbG8sIHdvcmxk").expect("text"), b"hello, world");
        assert_eq!(base64("aGVsbG8=").expect("text"), b"hello");
        assert!(base64("a?").is_err());
    }
}
