//! The one place that turns user values into bytes and back.
#![expect(clippy::disallowed_methods, reason = "elsewhere they are forbidden, see clippy.toml")]

use bincode::config::{Configuration, Limit};
use bincode::error::{DecodeError, EncodeError};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// No value is larger than this when read. Without a limit a few hostile bytes could ask for more
/// memory than there is. The limit of messages between tasks is configured and at most this.
pub(crate) const SIZE_MAX: usize = 1 << 30;

const CONFIG: Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    Limit<SIZE_MAX>,
> = bincode::config::standard().with_limit::<SIZE_MAX>();

/// A value that cannot be bytes, or bytes that are not the value that was expected.
#[derive(Debug, Error)]
pub(crate) enum CodecError {
    #[error("{0}")]
    Unfit(#[from] EncodeError),
    /// Could be written, but never be read again.
    #[error("it has {0} bytes, allowed are {SIZE_MAX}")]
    TooLarge(usize),
    #[error("{0}")]
    Malformed(#[from] DecodeError),
    /// bincode itself ignores what is left over.
    #[error("{0} bytes are left over")]
    LeftOver(usize),
}

pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, CodecError> {
    let bytes = bincode::serde::encode_to_vec(value, CONFIG)?;
    match bytes.len() {
        size if size > SIZE_MAX => Err(CodecError::TooLarge(size)),
        _ => Ok(Bytes::from(bytes)),
    }
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_borrowed(bytes)
}

/// [`decode`] of a type that borrows from the bytes.
pub(crate) fn decode_borrowed<'a, T: serde::Deserialize<'a>>(
    bytes: &'a [u8],
) -> Result<T, CodecError> {
    let (value, used) = bincode::serde::borrow_decode_from_slice(bytes, CONFIG)?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(CodecError::LeftOver(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_and_left_over_bytes_are_refused() {
        let bytes = encode(&("peer", 7_u32)).unwrap();
        assert_eq!(decode::<(String, u32)>(&bytes).unwrap(), ("peer".to_owned(), 7));
        let longer = [&bytes[..], b"x"].concat();
        let refused = decode::<(String, u32)>(&longer).unwrap_err();
        assert_eq!(refused.to_string(), "1 bytes are left over");
    }

    #[test]
    fn a_length_beyond_all_memory_is_refused_without_allocating_it() {
        let mut hostile = vec![253];
        hostile.extend((1_u64 << 40).to_le_bytes());
        assert!(decode::<Vec<u8>>(&hostile).is_err());
    }
}
