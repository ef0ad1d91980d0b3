//! Datasets of CSV files.

use super::input_file::{FileError, InputFile};
use super::rows::{Rows, or_stop};
use super::{Dataset, Meta, TaskEnv};
use crate::Runtime;
use csv::{ByteRecord, Error, ErrorKind, Position, Reader, ReaderBuilder, StringRecord};
use serde::de::DeserializeOwned;
use std::any::type_name;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error as ThisError;

/// Why a CSV file is no dataset, or why a row of it could not be read.
#[derive(Debug, ThisError)]
pub enum CsvError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There was no partition for its rows.
    #[error("{path}: its rows cannot be in 0 partitions, ask for 1 or more")]
    NoPartitions {
        /// The file.
        path: PathBuf,
    },
    /// It has no first record.
    #[error("{path} is empty: its first record must be the names of its columns")]
    NoHeader {
        /// The file.
        path: PathBuf,
    },
    /// A record is no row.
    #[error("{path}, line {line}{column}: {reason}")]
    BadRow {
        /// The file.
        path: PathBuf,
        /// Where the record begins, the first line being 1.
        line: u64,
        /// Empty, or `, column 'age' ("x")`.
        column: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
}

impl Runtime {
    /// A dataset of the records of a CSV file, in so many partitions of as equal sizes as possible,
    /// in order. The first record is the header; each of the others is read as a `T` by serde,
    /// whose fields have the names in the header (or a tuple, by the order of the columns).
    ///
    /// The file is read through once, here, to find where the partitions begin; of its rows nothing
    /// is kept. A task goes to its first record and reads one after the other as they are asked
    /// for, so a partition of any size takes little memory. The file must stay as it is: a task
    /// that finds another size or time of modification, when it begins or at its last row, fails
    /// and hands nothing over.
    ///
    /// Fields are separated by commas, and may be quoted, with line ends in them; all records have
    /// as many as the header. A file of a header alone is a dataset without rows.
    ///
    /// Blocks the thread while the file is read: in async code, call it on a thread for that
    /// (`tokio::task::spawn_blocking`).
    ///
    /// ```
    /// # use phalanx::Runtime;
    /// #[derive(serde::Deserialize)]
    /// struct Person {
    ///     name: String,
    ///     age: u32,
    /// }
    ///
    /// # let runtime = Runtime::with_slots(2)?;
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("people.csv");
    /// std::fs::write(&path, "name,age\nAda,36\n\"Hopper,\nGrace\",85\nAlan,41\n")?;
    /// let people = runtime.from_csv::<Person>(&path, 2)?;
    /// let old = people.filter(|person| person.age > 40).map(|person| person.name);
    /// assert_eq!(old.collect().wait()?, ["Hopper,\nGrace", "Alan"]);
    /// # Ok::<(), phalanx::BoxError>(())
    /// ```
    ///
    /// # Errors
    /// If the file cannot be read, is empty, has a record of another length than the header, or if
    /// 0 partitions are asked for. A row that is no `T` is the error of the task that reads it; it
    /// says the file, the line and the column, and is the [`source`](std::error::Error::source) of
    /// the [`JobError`](crate::JobError).
    pub fn from_csv<T: DeserializeOwned + 'static>(
        &self,
        path: impl AsRef<Path>,
        partitions: usize,
    ) -> Result<Dataset<T>, CsvError> {
        let path = path.as_ref();
        if partitions == 0 {
            return Err(CsvError::NoPartitions { path: path.to_owned() });
        }
        let csv = Arc::new(CsvFile::scan(path)?);
        let meta = Meta::narrow("from_csv", partitions, &[]);
        let compute = Arc::new(move |partition: usize, env: &TaskEnv| {
            let begin = |partition| {
                (u128::from(csv.records) * partition as u128 / partitions as u128) as u64
            };
            let (first, end) = (begin(partition), begin(partition + 1));
            let records = or_stop(Records::new(csv.clone(), first, end - first));
            Rows::new(records).until_killed(env)
        });
        Ok(Dataset::source(self, meta, compute))
    }
}

/// Places kept of a file: with more, every other one is left out again.
const PLACES_MAX: usize = 16 << 10;

/// A file, and where some of its records begin.
struct CsvFile {
    input: InputFile,
    /// Without the header.
    records: u64,
    /// In order, the first record's first if there is one.
    places: Vec<Position>,
}

impl CsvFile {
    fn scan(path: &Path) -> Result<CsvFile, CsvError> {
        let (input, file) = InputFile::new(path)?;
        let mut csv = CsvFile { input, records: 0, places: Vec::new() };
        let mut reader = reader_of(file);
        if reader.headers().map_err(|error| csv.error(error))?.is_empty() {
            return Err(CsvError::NoHeader { path: path.to_owned() });
        }
        let (mut record, mut step) = (ByteRecord::new(), 1);
        while reader.read_byte_record(&mut record).map_err(|error| csv.error(error))? {
            let last = csv.places.last().map(number_of);
            let is_due = last.is_none_or(|last| csv.records - last >= step);
            // The reader takes these bytes for the mark of a file's begin where it starts to read.
            let is_safe = last.is_none() || !record[0].starts_with(b"\xef\xbb\xbf");
            if let Some(position) = record.position().filter(|_| is_due && is_safe) {
                csv.places.push(position.clone());
            }
            if csv.places.len() > PLACES_MAX {
                csv.places = csv.places.iter().step_by(2).cloned().collect();
                step *= 2;
            }
            csv.records += 1;
        }
        csv.input.check(reader.get_ref())?;
        Ok(csv)
    }

    /// Of a record that could not be read from the file.
    fn error(&self, error: Error) -> CsvError {
        let line = error.position().map_or(1, |position| self.line(position));
        let (column, reason) = match error.into_kind() {
            ErrorKind::Io(reason) => return self.input.unreadable(reason).into(),
            ErrorKind::UnequalLengths { expected_len, len, .. } => {
                (String::new(), format!("it has {len} fields, and the header {expected_len}"))
            }
            ErrorKind::Utf8 { err, .. } => (column(err.field() as u64, None), err.to_string()),
            ErrorKind::Deserialize { err, .. } => (String::new(), err.to_string()),
            other => (String::new(), format!("{other:?}")),
        };
        CsvError::BadRow { path: self.input.path().to_owned(), line, column, reason }
    }

    /// Of a record that is no row of this type.
    fn not_a(
        &self,
        row: &str,
        error: &Error,
        header: &StringRecord,
        record: &StringRecord,
    ) -> CsvError {
        let line = error.position().map_or(1, |position| self.line(position));
        let (column, reason) = match error.kind() {
            ErrorKind::Deserialize { err, .. } => {
                let column = err.field().map(|field| {
                    let at = usize::try_from(field).unwrap_or(usize::MAX);
                    column(field, header.get(at).zip(record.get(at)))
                });
                (column.unwrap_or_default(), err.kind().to_string())
            }
            _ => (String::new(), error.to_string()),
        };
        let columns: Vec<&str> = header.iter().collect();
        let columns = match column.is_empty() {
            true => format!(", the columns are {columns:?}"),
            false => String::new(),
        };
        let reason = format!("{reason}; expected is a {row}{columns}");
        CsvError::BadRow { path: self.input.path().to_owned(), line, column, reason }
    }

    /// The line of a record: its place is that after the record before, with the rest of that one's
    /// line end, and empty lines.
    fn line(&self, place: &Position) -> u64 {
        let mut ends = 0;
        let skip = |file: File| {
            let mut file = BufReader::new(file);
            file.seek(SeekFrom::Start(place.byte()))?;
            loop {
                let bytes = file.fill_buf()?;
                let skipped = bytes.iter().take_while(|it| matches!(it, b'\r' | b'\n')).count();
                ends += bytes[..skipped].iter().filter(|it| **it == b'\n').count() as u64;
                if skipped < bytes.len() || skipped == 0 {
                    return io::Result::Ok(());
                }
                file.consume(skipped);
            }
        };
        // Without the file it is the line that is known.
        let _ = File::open(self.input.path()).and_then(skip);
        place.line() + ends
    }
}

fn column(field: u64, of: Option<(&str, &str)>) -> String {
    match of {
        Some((name, value)) => format!(", column '{name}' ({value:?})"),
        None => format!(", column {}", field + 1),
    }
}

/// Which record it is, without the header.
fn number_of(place: &Position) -> u64 {
    place.record().saturating_sub(1)
}

fn reader_of(file: File) -> Reader<File> {
    ReaderBuilder::new().buffer_capacity(64 << 10).from_reader(file)
}

/// The rows of some records that follow each other.
struct Records<T> {
    csv: Arc<CsvFile>,
    reader: Reader<File>,
    header: StringRecord,
    record: StringRecord,
    /// Of others before them, from the place that is known.
    skip: u64,
    left: u64,
    rows: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Records<T> {
    fn new(csv: Arc<CsvFile>, first: u64, count: u64) -> Result<Self, CsvError> {
        let mut reader = reader_of(csv.input.open()?);
        let header = reader.headers().map_err(|error| csv.error(error))?.clone();
        let known = csv.places.partition_point(|place| number_of(place) <= first);
        let mut skip = 0;
        if let Some(place) = csv.places[..known].last() {
            reader.seek(place.clone()).map_err(|error| csv.error(error))?;
            skip = first - number_of(place);
        }
        let record = StringRecord::new();
        Ok(Records { csv, reader, header, record, skip, left: count, rows: PhantomData })
    }

    fn read(&mut self) -> Result<Option<T>, CsvError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let Records { csv, reader, header, record, skip, .. } = self;
        loop {
            if !reader.read_record(record).map_err(|error| csv.error(error))? {
                let ends = "it ends before the last record".to_owned();
                return Err(csv.input.changed(ends).into());
            }
            if *skip == 0 {
                break;
            }
            *skip -= 1;
        }
        let row = record
            .deserialize(Some(header))
            .map_err(|error| csv.not_a(type_name::<T>(), &error, header, record))?;
        if self.left == 0 {
            csv.input.check(reader.get_ref())?;
        }
        Ok(Some(row))
    }
}

impl<T: DeserializeOwned> Iterator for Records<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let row = self.read();
        // Whatever is wrong with a record, that the file was changed is what has to be told.
        or_stop(row.map_err(|error| match self.csv.input.check(self.reader.get_ref()) {
            Ok(()) => error,
            Err(changed) => changed.into(),
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.left).ok();
        (left.unwrap_or(usize::MAX), left)
    }
}
