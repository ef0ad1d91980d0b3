//! Datasets of files. Those of Parquet files: `cargo test --features parquet --test dataset_files`.

use phalanx::{CsvError, Dataset, FileError, JobError, Runtime, TaskResult};
use serde::Deserialize;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// A file in a directory that is removed with it.
struct TempFile(TempDir, PathBuf);

impl TempFile {
    fn new(content: impl AsRef<[u8]>) -> TempFile {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.csv");
        fs::write(&path, content).unwrap();
        TempFile(directory, path)
    }

    fn rewrite(&self, content: impl AsRef<[u8]>) {
        fs::write(&self.1, content).unwrap();
        // Another time of modification, however coarse the file system's clock is.
        let file = File::options().write(true).open(&self.1).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(60)).unwrap();
    }
}

impl AsRef<Path> for TempFile {
    fn as_ref(&self) -> &Path {
        &self.1
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Named {
    number: u64,
    name: String,
}

/// Records with all that makes finding them hard: line ends and quotes inside, of all lengths.
fn odd_rows(count: u64) -> Vec<Named> {
    let name = |number: u64| match number % 7 {
        0 => String::new(),
        1 => format!("line\n\r\n{number}\n"),
        2 => "\"quoted\", and a comma".to_owned(),
        3 => "x".repeat(number as usize % 500),
        4 => "\u{feff}mark".to_owned(),
        5 => "Zoë 🦀".to_owned(),
        _ => format!("plain {number}"),
    };
    (0..count).map(|number| Named { number, name: name(number) }).collect()
}

/// The numbers second, so that a mark of a file's begin is what some records begin with.
fn written(rows: &[Named], line_end: &str) -> String {
    let mut text = format!("name,number{line_end}");
    for Named { number, name } in rows {
        let quoted = match name.contains(['"', '\n', ',']) {
            true => format!("\"{}\"", name.replace('"', "\"\"")),
            false => name.clone(),
        };
        write!(text, "{quoted},{number}{line_end}").unwrap();
    }
    text
}

fn parts<T: Send + 'static>(dataset: &Dataset<T>) -> Result<Vec<Vec<T>>, JobError> {
    dataset.collect_partitions(0..dataset.num_partitions()).wait()
}

#[test]
fn csv_partitions_are_equal_and_in_order_whatever_is_in_the_rows() -> TaskResult<()> {
    let runtime = Runtime::with_slots(4)?;
    for (count, partitions) in [(1_u64, 1), (10, 3), (1_000, 7), (3, 8), (40_000, 13)] {
        let rows = odd_rows(count);
        for line_end in ["\n", "\r\n", "\n\n\n"] {
            let file = TempFile::new(written(&rows, line_end));
            let found = parts(&runtime.from_csv::<Named>(&file, partitions)?)?;
            let sizes: Vec<usize> = found.iter().map(Vec::len).collect();
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(most - least <= 1, "{count} rows in {partitions}: {sizes:?}");
            assert!(found.concat() == rows, "{count} rows in {partitions}, {line_end:?}");
        }
    }
    Ok(())
}

#[test]
fn csv_rows_go_wherever_others_go() -> TaskResult<()> {
    let runtime = Runtime::with_slots(3)?;
    // A mark of its begin, as spreadsheets write it; no line end at the end.
    let file = TempFile::new("\u{feff}city,people\nOslo,700\nRoma,2800\nOslo,9\nParis,2100");
    let cities = runtime.from_csv::<(String, u64)>(&file, 3)?;
    assert_eq!(cities.first().wait()?, Some(("Oslo".to_owned(), 700)));
    let mut sums = cities.reduce_by_key(|one, other| one + other).collect().wait()?;
    sums.sort();
    let expected = [("Oslo", 709), ("Paris", 2_100), ("Roma", 2_800)];
    assert_eq!(sums, expected.map(|(city, people)| (city.to_owned(), people)));
    let gang = cities.barrier().map_partitions(|ctx, rows| {
        let mine = rows.count();
        Ok([ctx.all_gather(&mine)?])
    });
    assert_eq!(gang.collect().wait()?, [[1, 1, 2]; 3]);
    let explained = "stage 0: result, plain, 3 tasks: from_csv\n";
    assert_eq!(cities.explain(), explained);
    assert_eq!(cities.zip(&cities).coalesce(1).count().wait()?, 4);
    Ok(())
}

#[test]
fn a_csv_file_without_rows_is_one_with_its_header_alone() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    for text in ["name,number", "name,number\n", "name,number\r\n\r\n"] {
        let empty = runtime.from_csv::<Named>(TempFile::new(text), 2);
        // The file is gone when the job runs: no task can know that it had no rows.
        let error = empty?.collect().wait().unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
        let file = TempFile::new(text);
        assert_eq!(runtime.from_csv::<Named>(&file, 2)?.collect().wait()?, []);
    }
    for text in ["", "\n\n", "\u{feff}"] {
        let error = runtime.from_csv::<Named>(TempFile::new(text), 2).unwrap_err();
        assert!(matches!(error, CsvError::NoHeader { .. }), "{error}");
        assert!(error.to_string().ends_with("must be the names of its columns"), "{error}");
    }
    Ok(())
}

#[test]
fn what_is_no_csv_file_is_told_when_the_dataset_is_made() -> TaskResult<()> {
    let runtime = Runtime::with_slots(1)?;
    let file = TempFile::new("name,number\na,1\n\nb,2,3\n");
    let refused = |path: &Path, partitions| {
        let error = runtime.from_csv::<Named>(path, partitions).unwrap_err();
        (error.to_string(), error)
    };
    let (text, error) = refused(file.as_ref(), 0);
    assert!(matches!(error, CsvError::NoPartitions { .. }), "{text}");
    assert!(text.contains("rows.csv") && text.ends_with("ask for 1 or more"), "{text}");
    let (text, error) = refused(&file.1.with_file_name("nowhere.csv"), 1);
    assert!(matches!(error, CsvError::File(FileError::Unreadable { .. })), "{text}");
    assert!(text.contains("nowhere.csv cannot be read: No such file"), "{text}");
    let (text, error) = refused(file.0.path(), 1);
    assert!(matches!(error, CsvError::File(FileError::NotRegular { .. })), "{text}");
    let (text, error) = refused(file.as_ref(), 1);
    assert!(matches!(error, CsvError::BadRow { line: 4, .. }), "{text}");
    assert!(text.ends_with("rows.csv, line 4: it has 3 fields, and the header 2"), "{text}");
    Ok(())
}

/// The error of the task that meets it.
fn error_of<T: Send + 'static>(dataset: &Dataset<T>) -> (String, CsvError) {
    let error = dataset.settings(|stage| stage.max_attempts(1)).count().wait().unwrap_err();
    let source = error.into_source().expect("a task's own error");
    let error = *source.downcast::<CsvError>().expect("a CsvError");
    (error.to_string(), error)
}

#[test]
fn a_bad_row_is_named_by_file_line_and_column() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    for line_end in ["\n", "\r\n"] {
        let rows = ["name,number", "a,1", "\"b", "b\",2", "", "c,3", "", "d,four", "e,5"];
        let file = TempFile::new(rows.join(line_end));
        for partitions in [1, 2, 5] {
            let (text, _) = error_of(&runtime.from_csv::<Named>(&file, partitions)?);
            let ends = "rows.csv, line 8, column 'number' (\"four\"): invalid digit found in \
                        string; expected is a dataset_files::Named";
            assert!(text.ends_with(ends), "{text}");
        }
    }
    let file = TempFile::new("name,size\na,1\n");
    let (text, _) = error_of(&runtime.from_csv::<Named>(&file, 1)?);
    assert!(text.contains("line 2: missing field `number`; expected is a"), "{text}");
    let file = TempFile::new(b"name,number\na,1\n\xff\xfe,2\n");
    let (text, _) = error_of(&runtime.from_csv::<Named>(&file, 1)?);
    assert!(text.contains("line 3, column 1: invalid utf-8"), "{text}");
    Ok(())
}

#[test]
fn a_csv_file_that_changes_is_never_read_wrongly() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    let text = written(&odd_rows(1_000), "\n");
    let file = TempFile::new(&text);
    let rows = runtime.from_csv::<Named>(&file, 4)?;
    assert_eq!(rows.count().wait()?, 1_000);
    let changed = |dataset: &Dataset<Named>| {
        let (text, error) = error_of(dataset);
        assert!(matches!(error, CsvError::File(FileError::Changed { .. })), "{text}");
        assert!(text.contains("rows.csv was changed after the dataset was made"), "{text}");
        text
    };
    file.rewrite(text.to_uppercase());
    assert!(changed(&rows).contains("it was last modified at"));
    file.rewrite(&text[..text.len() / 2]);
    assert!(changed(&rows).contains(&format!("it had {} bytes, and has", text.len())));
    fs::remove_file(&file)?;
    let (text, error) = error_of(&rows);
    assert!(matches!(error, CsvError::File(FileError::Unreadable { .. })), "{text}");
    Ok(())
}

/// Under a task that reads it: what it has read may be wrong by then, and what follows is gone.
#[test]
fn a_csv_file_that_changes_while_it_is_read_fails_the_task() -> TaskResult<()> {
    let runtime = Runtime::with_slots(1)?;
    let original = written(&odd_rows(5_000), "\n");
    for truncates in [true, false] {
        let file = TempFile::new(&original);
        let (path, text) = (file.1.clone(), original.clone());
        let rows = runtime.from_csv::<Named>(&file, 1)?.map(move |row| {
            if row.number == 10 {
                let now = TempFile(tempfile::tempdir().unwrap(), path.clone());
                now.rewrite(&text[..if truncates { text.len() / 2 } else { text.len() }]);
            }
            row
        });
        let (text, error) = error_of(&rows);
        assert!(matches!(error, CsvError::File(FileError::Changed { .. })), "{text}");
    }
    Ok(())
}

#[cfg(feature = "parquet")]
mod parquet_files {
    use super::{TempFile, parts};
    use parquet::basic::Compression;
    use parquet::column::writer::ColumnWriter;
    use parquet::data_type::ByteArray;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::record::RowAccessor;
    use parquet::schema::parser::parse_message_type;
    use phalanx::{FileError, ParquetError, ParquetRow, Runtime, TaskResult};
    use std::fs;
    use std::sync::Arc;

    const GROUPS: i64 = 5;
    const ROWS: i64 = 3_000;

    /// Row groups of numbers that go on from one to the next, each with its text.
    fn written(compression: Compression) -> TaskResult<Vec<u8>> {
        let schema = "message rows { REQUIRED INT64 number; OPTIONAL BYTE_ARRAY text (UTF8); }";
        let schema = Arc::new(parse_message_type(schema)?);
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
        for group in 0..GROUPS {
            let numbers: Vec<i64> = (group * ROWS..(group + 1) * ROWS).collect();
            let there: Vec<i16> = numbers.iter().map(|it| (it % 3 > 0).into()).collect();
            let texts = numbers.iter().filter(|it| *it % 3 > 0);
            let texts: Vec<ByteArray> =
                texts.map(|it| it.to_string().into_bytes().into()).collect();
            let mut columns = file.next_row_group()?;
            while let Some(mut column) = columns.next_column()? {
                match column.untyped() {
                    ColumnWriter::Int64ColumnWriter(it) => it.write_batch(&numbers, None, None)?,
                    ColumnWriter::ByteArrayColumnWriter(it) => {
                        it.write_batch(&texts, Some(&there), None)?
                    }
                    _ => unreachable!("there is no such column"),
                };
                column.close()?;
            }
            columns.close()?;
        }
        Ok(file.into_inner()?)
    }

    fn number(row: ParquetRow) -> (i64, Option<String>) {
        (row.get_long(0).unwrap(), row.get_string(1).ok().cloned())
    }

    #[test]
    fn row_groups_are_partitions() -> TaskResult<()> {
        let runtime = Runtime::with_slots(2)?;
        let none = Compression::UNCOMPRESSED;
        for compression in [none, Compression::SNAPPY, Compression::LZ4_RAW] {
            let file = TempFile::new(written(compression)?);
            let rows = runtime.from_parquet(&file)?;
            let found = parts(&rows.map(number))?;
            for (group, rows) in (0..GROUPS).zip(&found) {
                let numbers = group * ROWS..(group + 1) * ROWS;
                let expected = numbers.map(|it| (it, (it % 3 > 0).then(|| it.to_string())));
                assert!(rows.iter().cloned().eq(expected), "row group {group}, {compression:?}");
            }
            assert_eq!(rows.num_partitions(), 5);
            // They go through a shuffle and a gang, as others do.
            let gang = rows.repartition(2).barrier().map_partitions(|ctx, rows| {
                ctx.barrier()?;
                Ok([rows.map(number).map(|(number, _)| number).sum::<i64>()])
            });
            let all = GROUPS * ROWS;
            assert_eq!(gang.collect().wait()?.iter().sum::<i64>(), all * (all - 1) / 2);
        }
        Ok(())
    }

    #[test]
    fn what_is_no_whole_parquet_file_is_told() -> TaskResult<()> {
        let runtime = Runtime::with_slots(1)?;
        let bytes = written(Compression::SNAPPY)?;
        for content in [&bytes[..bytes.len() - 9], &bytes[..100], b"name,number\na,1\n", b""] {
            let error = runtime.from_parquet(TempFile::new(content)).unwrap_err();
            assert!(matches!(error, ParquetError::Unreadable { .. }), "{error}");
            assert!(error.to_string().contains("rows.csv cannot be read as Parquet: "), "{error}");
        }
        let error = runtime.from_parquet("nowhere.parquet").unwrap_err();
        assert!(matches!(error, ParquetError::File(FileError::Unreadable { .. })), "{error}");
        assert!(error.to_string().contains("nowhere.parquet cannot be read: No such"), "{error}");
        Ok(())
    }

    #[test]
    fn what_is_wrong_later_is_the_error_of_the_task() -> TaskResult<()> {
        let runtime = Runtime::with_slots(1)?;
        let whole = written(Compression::SNAPPY)?;
        let error_of = |bytes: &[u8], change: &dyn Fn(&TempFile)| -> TaskResult<String> {
            let file = TempFile::new(bytes);
            let rows = runtime.from_parquet(&file)?.settings(|stage| stage.max_attempts(1));
            change(&file);
            Ok(rows.map(number).count().wait().unwrap_err().to_string())
        };
        let mut holed = whole.clone();
        holed[4..whole.len() / 2].fill(0xff);
        let error = error_of(&holed, &|_| {})?;
        assert!(error.contains("rows.csv cannot be read as Parquet: "), "{error}");
        let error = error_of(&whole, &|file| file.rewrite(&whole))?;
        assert!(error.contains("it was last modified at"), "{error}");
        let error = error_of(&whole, &|file| file.rewrite(&whole[..whole.len() / 2]))?;
        assert!(error.contains("was changed after the dataset was made of it: it had"), "{error}");
        let error = error_of(&whole, &|file| fs::remove_file(file).unwrap())?;
        assert!(error.contains("rows.csv cannot be read: No such file"), "{error}");
        Ok(())
    }
}
