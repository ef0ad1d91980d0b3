//! A file that tasks read parts of, which must be the one the parts were found in.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use thiserror::Error;

/// Why a dataset's file could not be read.
#[derive(Debug, Error)]
pub enum FileError {
    /// The system did not let it be read.
    #[error("{path} cannot be read: {reason}; is the path right, and may this process read it?")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// A directory, a pipe or a device, in which no task can find its part.
    #[error("{path} is not a regular file, and tasks read parts of it: copy it to one")]
    NotRegular {
        /// What it is called.
        path: PathBuf,
    },
    /// It is not what it was when the dataset was made, so that rows would be missing or wrong.
    #[error(
        "{path} was changed after the dataset was made of it: {reason}; make the dataset again \
         when nobody writes to the file any more"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// What is different.
        reason: String,
    },
}

/// A file as it was when a dataset was made of it.
pub(super) struct InputFile {
    path: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl InputFile {
    /// The file as it is now, and to be read.
    pub(super) fn new(path: &Path) -> Result<(InputFile, File), FileError> {
        let (file, metadata) = open(path).map_err(|reason| unreadable(path, reason))??;
        let (bytes, modified) = (metadata.len(), metadata.modified().ok());
        Ok((InputFile { path: path.to_owned(), bytes, modified }, file))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// To be read by a task, if it is the same file still.
    pub(super) fn open(&self) -> Result<File, FileError> {
        let (file, _) = open(&self.path).map_err(|reason| self.unreadable(reason))??;
        self.check(&file)?;
        Ok(file)
    }

    /// Whether it is what it was, so that all that was read of it until now is right.
    pub(super) fn check(&self, file: &File) -> Result<(), FileError> {
        let metadata = file.metadata().map_err(|reason| self.unreadable(reason))?;
        let (bytes, modified) = (metadata.len(), metadata.modified().ok());
        if bytes != self.bytes {
            return Err(self.changed(format!("it had {} bytes, and has {bytes}", self.bytes)));
        }
        if modified != self.modified {
            let [was, is] = [self.modified, modified].map(|time| {
                time.map_or("unknown".to_owned(), |it| humantime::format_rfc3339(it).to_string())
            });
            return Err(self.changed(format!("it was last modified at {was}, and now at {is}")));
        }
        Ok(())
    }

    pub(super) fn changed(&self, reason: String) -> FileError {
        FileError::Changed { path: self.path.clone(), reason }
    }

    pub(super) fn unreadable(&self, reason: io::Error) -> FileError {
        unreadable(&self.path, reason)
    }
}

fn unreadable(path: &Path, reason: io::Error) -> FileError {
    FileError::Unreadable { path: path.to_owned(), reason }
}

fn open(path: &Path) -> io::Result<Result<(File, Metadata), FileError>> {
    // Looked at first: a pipe that nobody writes to would not come back from being opened.
    if !fs::metadata(path)?.is_file() {
        return Ok(Err(FileError::NotRegular { path: path.to_owned() }));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    Ok(Ok((file, metadata)))
}
