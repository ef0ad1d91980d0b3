//! One checkpoint as a file: header, value, checksum; written whole or not at all.

use super::{CheckpointError, Key};
use crate::codec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// First bytes of every checkpoint: what it is and the version of its layout.
const MAGIC: &[u8; 8] = b"PHXCKPT1";
const CHECKSUM_LEN: usize = 4;
const SUFFIX: &str = ".ckpt";
const CLAIM_SUFFIX: &str = ".run";

pub(super) struct CheckpointFile {
    pub(super) stage: String,
    pub(super) key: Key,
    pub(super) value: Bytes,
}

/// What stands between the magic and the checksum.
#[derive(Serialize, Deserialize)]
struct Contents<'a> {
    stage: &'a str,
    run: u64,
    attempt: u32,
    step: u64,
    value: &'a [u8],
}

/// The checkpoints in a directory by their names, whole or not; none if there is no directory.
pub(super) fn list(directory: &Path) -> Result<BTreeMap<Key, PathBuf>, CheckpointError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(io_error(directory)(source)),
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(io_error(directory))?.path();
        if let Some(key) = path.file_name().and_then(|name| key_of(name.to_str()?)) {
            found.insert(key, path);
        }
    }
    Ok(found)
}

/// Where a checkpoint is kept. Names of newer ones sort behind.
pub(super) fn path_of(directory: &Path, key: Key) -> PathBuf {
    let Key { run, attempt, step } = key;
    directory.join(format!("{run:06}-{attempt:04}-{step:012}{SUFFIX}"))
}

/// A run number that no other submission has or had, in this process or another: one more than any
/// before, claimed by an empty file of that name.
pub(super) fn claim_run(directory: &Path) -> Result<u64, CheckpointError> {
    fs::create_dir_all(directory).map_err(io_error(directory))?;
    let mut run = 1;
    for entry in fs::read_dir(directory).map_err(io_error(directory))? {
        let name = entry.map_err(io_error(directory))?.file_name();
        let claimed = name.to_str().and_then(|name| name.strip_suffix(CLAIM_SUFFIX)?.parse().ok());
        run = run.max(claimed.map_or(1, |claimed: u64| claimed + 1));
    }
    loop {
        let path = directory.join(format!("{run:06}{CLAIM_SUFFIX}"));
        match File::create_new(&path) {
            Ok(_) => return Ok(run),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => run += 1,
            Err(source) => return Err(io_error(&path)(source)),
        }
    }
}

/// Temporary file, fsync, rename, fsync of the directory: after a crash there is the whole file or
/// none of that name.
pub(super) fn write(directory: &Path, file: &CheckpointFile) -> Result<(), CheckpointError> {
    fs::create_dir_all(directory).map_err(io_error(directory))?;
    let Key { run, attempt, step } = file.key;
    let path = path_of(directory, file.key);
    let temporary = path.with_extension("tmp");
    let contents = Contents { stage: &file.stage, run, attempt, step, value: &file.value };
    let contents = codec::encode(&contents)
        .map_err(|error| CheckpointError::Encode { step, reason: error.to_string() })?;
    let mut bytes = [&MAGIC[..], &contents].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    let save = || {
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(directory)?.sync_all()
    };
    save().map_err(io_error(&path))
}

/// The value in a file, if it is a whole checkpoint of this stage and key.
pub(super) fn read(path: &Path, stage: &str, key: Key) -> Result<Bytes, CheckpointError> {
    let refused = |reason: String| CheckpointError::Refused { path: path.to_owned(), reason };
    let bytes = fs::read(path).map_err(io_error(path))?;
    if !bytes.starts_with(MAGIC) {
        return Err(refused("it is not a checkpoint of this version".to_owned()));
    }
    let end = bytes.len().saturating_sub(CHECKSUM_LEN).max(MAGIC.len());
    let (body, checksum) = bytes.split_at(end);
    if checksum != crc32fast::hash(body).to_le_bytes() {
        return Err(refused("it is torn: its checksum does not match its contents".to_owned()));
    }
    let contents: Contents<'_> = codec::decode_borrowed(&body[MAGIC.len()..])
        .map_err(|error| refused(format!("its contents make no sense: {error}")))?;
    if contents.stage != stage {
        return Err(refused(format!("it belongs to stage '{}', not '{stage}'", contents.stage)));
    }
    if (Key { run: contents.run, attempt: contents.attempt, step: contents.step }) != key {
        return Err(refused("its name does not match its contents: it was renamed".to_owned()));
    }
    Ok(Bytes::copy_from_slice(contents.value))
}

fn key_of(name: &str) -> Option<Key> {
    let mut parts = name.strip_suffix(SUFFIX)?.split('-');
    let key = Key {
        run: parts.next()?.parse().ok()?,
        attempt: parts.next()?.parse().ok()?,
        step: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(key)
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> CheckpointError + '_ {
    move |source| CheckpointError::Io { path: path.to_owned(), source }
}
