use super::*;

mod official;
mod own;
mod real;

/// Reads rows of a task from a file of its official name.
fn task(task: Task, bytes: &[u8]) -> Result<Examples, String> {
    read_task(task, task.train_file(), bytes, false).map_err(|error| error.to_string())
}

/// The texts of a row of one segment.
fn texts(example: &Example) -> (&str, Option<&str>) {
    let [segment] = example.segments.as_slice() else { panic!("{example:?}") };
    (&segment.first, segment.second.as_deref())
}

fn labels(examples: &Examples) -> Vec<u32> {
    examples.rows.iter().map(|row| row.label).collect()
}
