//! Join tokens: `bellows1.<32 hex digits of secret>.<sha256 of the authority's certificate, hex>`. The cluster keeps only the
//! secret's hash; the fingerprint lets the joining server recognise the cluster before it trusts it.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// 128 bits: nobody guesses them in the hour that a token lives.
const SECRET_BYTES: usize = 16;

/// A whole token, as people copy it.
pub(crate) struct JoinToken {
    secret: String,
    fingerprint: String,
}

impl JoinToken {
    /// A new secret for the cluster with this authority.
    pub(crate) fn create(fingerprint: &str) -> Self {
        let secret: [u8; SECRET_BYTES] = rand::random();
        Self { secret: hex::encode(secret), fingerprint: fingerprint.to_owned() }
    }

    /// What the cluster keeps.
    pub(crate) fn hash(&self) -> String {
        hash_of(&self.secret)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bellows1.{}.{}", self.secret, self.fingerprint)
    }
}

/// SHA-256 of a secret's text, hex. The secret has full entropy, so a fast hash is enough, and looking it up by its hash
/// leaks nothing by its timing.
pub(crate) fn hash_of(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}
