//! Datasets of Parquet files.

use super::input_file::{FileError, InputFile};
use super::rows::{Rows, or_stop};
use super::{Dataset, Meta, TaskEnv};
use crate::Runtime;
use parquet::errors::ParquetError as Reason;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::{ReaderIter, TreeBuilder};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// A row of a Parquet file: the values of its columns, to be had by the methods of the `parquet`
/// crate's [`RowAccessor`](parquet::record::RowAccessor).
pub use parquet::record::Row as ParquetRow;

/// Why a Parquet file is no dataset, or why a row of it could not be read.
#[derive(Debug, Error)]
pub enum ParquetError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not a whole Parquet file, or has something that cannot be read.
    #[error("{path} cannot be read as Parquet: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the `parquet` crate says.
        reason: String,
    },
}

impl Runtime {
    /// A dataset of the rows of a Parquet file, a partition for each of its row groups, in order.
    /// With the feature `parquet` of this crate.
    ///
    /// Here only the end of the file is read, which says where the row groups are. A task reads
    /// its row group a page of each column at a time and makes one row after the other as they are
    /// asked for. The file must stay as it is: a task that finds another size or time of
    /// modification, when it begins or at its last row, fails and hands nothing over.
    ///
    /// Compressed files are read if they are of snappy, gzip or LZ4. Others (zstd, brotli) are with
    /// that feature of the `parquet` crate, which a program can ask for among its own dependencies:
    /// `parquet = { version = "60", default-features = false, features = ["zstd"] }`.
    ///
    /// ```no_run
    /// # use phalanx::Runtime;
    /// use parquet::record::RowAccessor;
    ///
    /// # let runtime = Runtime::with_slots(2)?;
    /// let people = runtime.from_parquet("people.parquet")?;
    /// let ages = people.map_partitions(|rows| {
    ///     let ages: Result<Vec<i32>, _> = rows.map(|row| row.get_int(1)).collect();
    ///     Ok(ages?)
    /// });
    /// let oldest = ages.reduce(i32::max).wait()?;
    /// # Ok::<(), phalanx::BoxError>(())
    /// ```
    ///
    /// # Errors
    /// If the file cannot be read or its end is not that of a Parquet file. What is wrong inside of
    /// a row group is the error of the task that reads it.
    pub fn from_parquet(
        &self,
        path: impl AsRef<Path>,
    ) -> Result<Dataset<ParquetRow>, ParquetError> {
        let (input, file) = InputFile::new(path.as_ref())?;
        let reader =
            SerializedFileReader::new(file).map_err(|reason| unreadable(&input, reason))?;
        let input = Arc::new(input);
        let meta = Meta::narrow("from_parquet", reader.num_row_groups(), &[]);
        let compute = Arc::new(move |partition: usize, env: &TaskEnv| {
            let records = or_stop(Records::new(input.clone(), partition));
            Rows::new(records).until_killed(env)
        });
        Ok(Dataset::source(self, meta, compute))
    }
}

fn unreadable(input: &InputFile, reason: Reason) -> ParquetError {
    let (path, reason) = (input.path().to_owned(), reason.to_string());
    ParquetError::Unreadable { path, reason }
}

/// The rows of a row group.
struct Records {
    input: Arc<InputFile>,
    /// The one that is read, to look at it again.
    file: File,
    rows: ReaderIter,
    left: usize,
}

impl Records {
    fn new(input: Arc<InputFile>, row_group: usize) -> Result<Records, ParquetError> {
        let file = input.open()?;
        let shared = file.try_clone().map_err(|reason| input.unreadable(reason))?;
        let open = || {
            let reader = SerializedFileReader::new(shared)?;
            let schema = reader.metadata().file_metadata().schema_descr_ptr();
            let row_group = reader.get_row_group(row_group)?;
            let left = usize::try_from(row_group.metadata().num_rows()).unwrap_or(0);
            Ok((TreeBuilder::new().as_iter(schema, &*row_group)?, left))
        };
        let (rows, left) = open().map_err(|reason| unreadable(&input, reason))?;
        Ok(Records { input, file, rows, left })
    }

    fn read(&mut self) -> Result<Option<ParquetRow>, ParquetError> {
        let row = self.rows.next().transpose();
        let row = row.map_err(|reason| unreadable(&self.input, reason))?;
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.input.check(&self.file)?;
        }
        Ok(row)
    }
}

impl Iterator for Records {
    type Item = ParquetRow;

    fn next(&mut self) -> Option<ParquetRow> {
        let row = self.read();
        // Whatever is wrong with a row, that the file was changed is what has to be told.
        or_stop(row.map_err(|error| match self.input.check(&self.file) {
            Ok(()) => error,
            Err(changed) => changed.into(),
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}
