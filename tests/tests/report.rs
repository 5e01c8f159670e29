//! The report in a browser, its pictures, and two sweeps compared, through the real programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use evenkeel_tests::process::{printed, run};
use evenkeel_tests::results::Rows;
use serde_json::Value;

const SPEC: &str = "
apiVersion: evenkeel/v1
name: reported
datasets:
  - synthetic: {generator: separable, samples: [30, 60], features: 8, margin: [0.5, 2.0], instances: 2}
  - synthetic: {name: noisy, generator: classification, samples: 60, features: 8, class_sep: 0.4, flip_y: 0.2, instances: 4}
strategies:
  - {name: head, setting: head, steps: 200, learning_rate: 0.1, checkpoints: [20, 60]}
  - {name: mhloss, setting: head, steps: 200, learning_rate: 0.1, mhloss: {heads: 5}, checkpoints: [20, 60]}
  - {name: long, setting: head, steps: 400, learning_rate: 0.1}
seeds: 6
stability: {leave_one_out: 4}
";

fn sweep(dir: &Path, name: &str, spec: &str) -> PathBuf {
    let (file, out) = (dir.join(format!("{name}.yaml")), dir.join(name));
    fs::write(&file, spec).expect("write spec");
    let output = run(["run", &file.to_string_lossy(), "--out", &out.to_string_lossy()]).expect("run");
    assert!(output.status.success(), "{}", printed(&output));
    out
}

#[test]
fn theory_stands_beside_measurement_and_pictures_have_their_data() {
    let dir = tempfile::tempdir().expect("tempdir");
    let out = sweep(dir.path(), "one", SPEC);
    let theory = Rows::read(&out.join("theory.parquet")).expect("theory");
    assert_eq!(theory.rows.len(), 36, "a row a group");
    for (dataset, reason) in theory.column("dataset").iter().zip(theory.column("no_bound")) {
        let separable = *dataset != "noisy";
        assert_eq!(separable, reason == "null", "{dataset}: {reason}");
        assert!(separable || reason.contains("not linearly separable"), "{reason}");
    }
    let bounds = theory.column("bound").into_iter().zip(theory.column("support_bound"));
    for (bound, support) in bounds.filter(|(bound, _)| *bound != "null") {
        let (bound, support): (f64, f64) = (bound.parse().expect("bound"), support.parse().expect("bound"));
        assert!(support > 0.0 && support <= bound, "{support} {bound}");
    }
    // With several heads the constant is that of the same strategy with one.
    let of_mhloss = theory.column("strategy").into_iter().zip(theory.column("rate_constant_from"));
    let found: Vec<&str> =
        of_mhloss.filter(|(name, from)| *name == "mhloss" && *from != "null").map(|(_, from)| from).collect();
    assert_eq!(found, ["head"; 8]);

    let figures = out.join("figures");
    for slug in [
        "scores",
        "variance-ratios",
        "spread",
        "ranks-spread",
        "seeds",
        "bound",
        "support-bound",
        "loo-samples",
    ] {
        let svg = fs::read_to_string(figures.join(format!("{slug}.svg")))
            .unwrap_or_else(|error| panic!("{slug}: {error}"));
        assert!(svg.starts_with("<svg") && svg.contains("<style>") && svg.ends_with("</svg>\n"), "{slug}");
        assert!(!svg.contains("NaN"), "{slug} has a coordinate that is no number");
        let csv = fs::read_to_string(figures.join(format!("{slug}.csv"))).expect("data");
        assert!(csv.lines().count() > 1, "{slug} has no data");
    }
    let summary: Value =
        serde_json::from_str(&fs::read_to_string(out.join("summary.json")).expect("summary")).expect("json");
    assert_eq!(summary["strategies"][0]["bounded_groups"], 8);
    assert_eq!(summary["ranks"][0]["by"], "score_sd");
}

#[test]
fn two_sweeps_are_compared() {
    let dir = tempfile::tempdir().expect("tempdir");
    let one = sweep(dir.path(), "one", SPEC);
    let other = sweep(dir.path(), "other", &SPEC.replace("learning_rate: 0.1", "learning_rate: 0.5"));
    let compare = |b: &Path, more: &[&str]| -> Output {
        let mut arguments = vec!["compare", one.to_str().expect("path"), b.to_str().expect("path")];
        arguments.extend(more);
        run(arguments).expect("compare")
    };
    let same = compare(&one, &[]);
    assert!(same.status.success(), "{}", printed(&same));
    let text = printed(&same);
    assert!(text.contains("216 trials are in both sweeps, and all are identical to the last bit."), "{text}");
    let changed = compare(&other, &["--json"]);
    let found: Value = serde_json::from_slice(&changed.stdout).expect("json");
    let found = &found["comparison"];
    assert_eq!((&found["same_trials"], &found["strategies"][0]["pairs"]), (&0.into(), &72.into()), "{found}");
    assert_eq!(found["spec_only"][1][0], "learning_rate: 0.5");
    let nothing = compare(&dir.path().join("not there"), &[]);
    assert_eq!(nothing.status.code(), Some(2), "{}", printed(&nothing));
    assert!(
        printed(&nothing).contains("neither an output directory nor the id of a sweep"),
        "{}",
        printed(&nothing)
    );
}

/// What a headless browser makes of a page at a width: its document after loading, and what it printed.
fn browse(chromium: &str, profile: &Path, page: &Path, width: u32, more: &[&str]) -> (String, String) {
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
        ])
        .args(["--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--window-size={width},900"))
        .args(more)
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .output()
        .expect("chromium runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_report_fits_every_screen_and_asks_nobody_for_anything() {
    let Some(chromium) = std::env::var("CHROMIUM").ok().filter(|path| !path.is_empty()) else {
        eprintln!("skipped: no CHROMIUM is set (scripts/chromium.sh finds or installs one)");
        return;
    };
    let dir = tempfile::tempdir().expect("tempdir");
    let out = sweep(dir.path(), "one", SPEC);
    let html = fs::read_to_string(out.join("report.html")).expect("report");
    // A copy that measures itself: how much wider than the window the page is, and which elements stick out of it.
    let probe = "<script>addEventListener('load', () => { const root = document.documentElement;\
        document.body.dataset.wider = root.scrollWidth - root.clientWidth;\
        document.body.dataset.loads = performance.getEntriesByType('resource').length; })</script>";
    let page = dir.path().join("probe.html");
    fs::write(&page, html.replace("</body>", &format!("{probe}</body>"))).expect("write");
    for width in [500, 800, 1400] {
        let (document, log) = browse(&chromium, &dir.path().join("profile"), &page, width, &[]);
        assert!(document.contains("data-wider=\"0\""), "the page is wider than a window of {width}: {log}");
        assert!(document.contains("data-loads=\"0\""), "the page loads something");
        assert!(!log.contains("CONSOLE"), "{log}");
        let picture = dir.path().join(format!("{width}.png"));
        let shot = format!("--screenshot={}", picture.display());
        browse(&chromium, &dir.path().join("profile"), &out.join("report.html"), width, &[&shot]);
        let bytes = fs::read(&picture).expect("screenshot");
        // The width of a PNG is the first number of its first chunk.
        let found = bytes.get(16..20).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        assert_eq!(found, Some(width), "the screenshot is not as wide as the window");
    }
}
