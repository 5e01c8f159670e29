//! `evenkeel fsck` and `evenkeel gc`: commands for those who keep a store.

use std::path::Path;

use serde_json::json;

use super::args::{FsckArgs, GcArgs};
use super::exit::{Exit, Failure};
use crate::store::{Findings, Retention, Store, check, collect_garbage};

/// Opens a store that has to be there: a directory is not made.
fn open(location: &str) -> Result<Store, Failure> {
    if !location.contains("://") && !Path::new(location).is_dir() {
        return Err(Failure::usage(format!("there is no store at {location}: name one with --store")));
    }
    Ok(Store::open(location)?)
}

pub async fn fsck(args: FsckArgs) -> Result<Exit, Failure> {
    let store = open(&args.store.store)?;
    let found = check(&store, &args.ids, args.repair).await?;
    if args.store.json {
        let problems = found.problems.iter().map(|problem| {
            json!({ "path": problem.path, "what": problem.what, "remedy": problem.remedy, "done": problem.done })
        });
        let Findings { sweeps, segments, trials, files, bytes, .. } = &found;
        let problems: Vec<_> = problems.collect();
        println!(
            "{:#}",
            json!({ "sweeps": sweeps, "segments": segments, "trials": trials, "files": files, "bytes": bytes,
                "problems": problems })
        );
    } else {
        for problem in &found.problems {
            println!("{}\n  {}", problem.path, problem.what);
            match &problem.done {
                Some(done) => println!("  done: {done}"),
                None => println!("  remedy: {}", problem.remedy),
            }
        }
        let Findings { sweeps, segments, trials, files, .. } = &found;
        println!(
            "{}: {sweeps} sweeps, {segments} segments, {trials} trials, {files} files, {:.1} MB read: {}",
            store.location(),
            found.bytes as f64 / 1e6,
            match found.problems.len() {
                0 => "everything is as it was written".to_owned(),
                1 => "1 problem".to_owned(),
                count => format!("{count} problems"),
            }
        );
    }
    Ok(if found.problems.is_empty() { Exit::Fine } else { Exit::SomeFailed })
}

pub async fn gc(args: GcArgs) -> Result<Exit, Failure> {
    let store = open(&args.store.store)?;
    let retention =
        Retention { older_than: args.older_than, keep_last: args.keep_last, dry_run: args.dry_run };
    let gone = collect_garbage(&store, retention).await?;
    if args.store.json {
        let sweeps: Vec<_> = gone.sweeps.iter().map(ToString::to_string).collect();
        println!(
            "{:#}",
            json!({ "dry_run": args.dry_run, "sweeps": sweeps, "objects": gone.objects, "bytes": gone.bytes })
        );
        return Ok(Exit::Fine);
    }
    let verb = if args.dry_run { "would delete" } else { "deleted" };
    for sweep in &gone.sweeps {
        println!("{verb} {sweep}");
    }
    let (sweeps, megabytes) = (gone.sweeps.len(), gone.bytes as f64 / 1e6);
    println!("{}: {verb} {sweeps} sweeps, {} objects, {megabytes:.1} MB", store.location(), gone.objects);
    Ok(Exit::Fine)
}
