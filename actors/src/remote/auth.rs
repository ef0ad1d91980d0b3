//! The shared token: each side proves that it has it, and neither tells it.

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A secret that driver and executors share. Printed as dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

/// Random; used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nonce([u8; 32]);

/// That its sender has the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof([u8; 32]);

/// Who proves something: a proof of one side is none of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prover {
    Driver,
    Dialer,
}

/// A token shorter than this could be guessed.
const TOKEN_BYTES_MIN: usize = 16;

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// The token with this text, without white space around it.
    ///
    /// # Errors
    /// If it has less than 16 bytes.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let size = text.len();
        if size < TOKEN_BYTES_MIN {
            return Err(format!(
                "the token has {size} bytes, at least {TOKEN_BYTES_MIN} are needed: make one with \
                 `openssl rand -hex 32`"
            ));
        }
        Ok(Token(text.into()))
    }

    /// The token in a file.
    ///
    /// # Errors
    /// If it cannot be read, or is too short.
    pub fn read(path: &Path) -> Result<Self, String> {
        let in_file = |error| format!("token file {}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| in_file(error.to_string()))?;
        Token::new(&text).map_err(in_file)
    }

    /// A new one, of 64 hexadecimal digits.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn random() -> io::Result<Self> {
        let text: String = random()?.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Token(text.into()))
    }

    /// Its text, to be handed to an executor.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// That who has the token says this. `nonce`: made by who is to be convinced.
    pub(crate) fn prove(&self, prover: Prover, nonce: Nonce, said: &[u8]) -> Proof {
        let mut proof = [0; 32];
        let tag = hmac::sign(&self.key(), &statement(prover, nonce, said));
        proof.copy_from_slice(tag.as_ref());
        Proof(proof)
    }

    /// Whether `prover` has the token and says this; in constant time.
    pub(crate) fn is_proved(
        &self,
        proof: Proof,
        prover: Prover,
        nonce: Nonce,
        said: &[u8],
    ) -> bool {
        hmac::verify(&self.key(), &statement(prover, nonce, said), &proof.0).is_ok()
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes())
    }
}

impl Nonce {
    pub(crate) fn random() -> io::Result<Self> {
        random().map(Nonce)
    }
}

fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    let failed = |_| io::Error::other("the system has no random numbers");
    SystemRandom::new().fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn statement(prover: Prover, nonce: Nonce, said: &[u8]) -> Vec<u8> {
    let label: &[u8] = match prover {
        Prover::Driver => b"phalanx driver",
        Prover::Dialer => b"phalanx dialer",
    };
    [label, &nonce.0, said].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_for_one_prover_one_nonce_and_what_was_said() {
        let (token, other) = (Token::random().unwrap(), Token::random().unwrap());
        let (a, b) = (Nonce::random().unwrap(), Nonce::random().unwrap());
        let proof = token.prove(Prover::Dialer, a, b"client");
        assert!(token.is_proved(proof, Prover::Dialer, a, b"client"));
        assert!(!token.is_proved(proof, Prover::Driver, a, b"client"));
        assert!(!token.is_proved(proof, Prover::Dialer, b, b"client"));
        assert!(!token.is_proved(proof, Prover::Dialer, a, b"executor"));
        assert!(!other.is_proved(proof, Prover::Dialer, a, b"client"));
    }

    #[test]
    fn a_token_is_long_enough_and_never_printed() {
        let error = Token::new(" short\n").unwrap_err();
        assert!(error.starts_with("the token has 5 bytes, at least 16 are needed"), "{error}");
        let token = Token::new("0123456789abcdef\n").unwrap();
        assert_eq!(token.reveal(), "0123456789abcdef");
        assert_eq!(format!("{token:?}"), "Token(..)");
        assert_eq!(Token::random().unwrap().reveal().len(), 64);
    }
}
