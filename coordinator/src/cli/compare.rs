//! `evenkeel compare`.

use std::path::{Path, PathBuf};

use evenkeel_common::id::SweepId;
use evenkeel_proto::v1;
use serde_json::json;

use super::args::{ClientArgs, CompareArgs};
use super::client::fetch;
use super::exit::{Exit, Failure};
use crate::compare::{LoadError, Side, compare as compared, render};

/// What is fetched of a sweep to compare it.
const FILES: [&str; 3] = ["results.parquet", "summary.json", "spec.yaml"];

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::usage(error)
    }
}

/// Compares two sweeps.
pub async fn compare(args: CompareArgs) -> Result<Exit, Failure> {
    let (a, b) = (side(&args.a, &args.client).await?, side(&args.b, &args.client).await?);
    let of = compared(&a, &b);
    if args.client.json {
        let about = |side: &Side| json!({ "name": side.name, "sweep_id": side.sweep, "version": side.version, "trials": side.trials.len() });
        println!("{:#}", json!({ "a": about(&a), "b": about(&b), "comparison": of }));
    } else {
        let width = (!console_is_terminal()).then_some(u16::MAX);
        print!("{}", render(&a, &b, &of, width));
    }
    Ok(Exit::Fine)
}

fn console_is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdout())
}

/// A directory as it is, or a sweep of the coordinator's, fetched into a directory that goes away.
async fn side(name: &str, args: &ClientArgs) -> Result<Side, Failure> {
    if Path::new(name).is_dir() {
        return Ok(Side::read(Path::new(name), name)?);
    }
    let id = SweepId::parse(name).map_err(|_| {
        Failure::usage(format!(
            "{name}: neither an output directory nor the id of a sweep (`evenkeel list` has the ids)"
        ))
    })?;
    let scratch = Scratch::create(&id)?;
    let request = v1::ExportSweepRequest {
        sweep_id: id.to_string(),
        format: "parquet".to_owned(),
        files: FILES.map(str::to_owned).to_vec(),
    };
    fetch(args, request, |file| Ok(scratch.0.join(file))).await.map_err(|failure| {
        failure.in_context(format!(
            "there is no directory {name} here, so it was asked for as a sweep of a coordinator"
        ))
    })?;
    Ok(Side::read(&scratch.0, name)?)
}

/// A directory that is removed when it is no longer needed.
struct Scratch(PathBuf);

impl Scratch {
    fn create(id: &SweepId) -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("evenkeel-compare-{}-{id}", std::process::id()));
        std::fs::create_dir_all(&dir)
            .map_err(|error| Failure::usage(format!("cannot make {}: {error}", dir.display())))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
