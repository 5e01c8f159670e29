//! What a Parquet file says of its dictionaries, held against what it holds.
//!
//! The reader reserves memory for as many values as a dictionary page claims, before it looks for them: 17 GB for a few
//! bytes (found by fuzzing). Whoever reads a file from outside asks here first.

use bytes::Bytes;
use parquet::column::page::Page;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{FileReader as _, SerializedFileReader};

/// Refuses a file with a dictionary that claims more values than its bytes can hold.
///
/// # Errors
/// When there is one, or the file cannot be read up to there.
pub(crate) fn check(file: &Bytes) -> Result<()> {
    let reader = SerializedFileReader::new(file.clone())?;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        for column in 0..group.num_columns() {
            let mut pages = group.get_column_page_reader(column)?;
            // A column has one dictionary at most, before its data.
            if pages.peek_next_page()?.is_none_or(|page| !page.is_dict) {
                continue;
            }
            if let Some(Page::DictionaryPage { buf, num_values, .. }) = pages.get_next_page()? {
                // Booleans have none; every other value takes a byte at least.
                if num_values as usize > buf.len() {
                    let held = buf.len();
                    return Err(ParquetError::General(format!(
                        "a dictionary of {held} bytes says that it holds {num_values} values"
                    )));
                }
            }
        }
    }
    Ok(())
}
