//! The token: `bellows1.<secret>.<sha256 of the authority's certificate, hex>`.

/// Why a token is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the join token {0}: copy the whole line that `bellows token` printed (bellows1.SECRET.FINGERPRINT)")]
pub struct TokenError(&'static str);

/// A whole token.
#[derive(PartialEq, Eq)]
pub(super) struct Token {
    pub(super) secret: String,
    pub(super) fingerprint: [u8; 32],
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token for {}", hex::encode(self.fingerprint)) // never the secret
    }
}

impl std::str::FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.trim().split('.');
        let (prefix, secret, fingerprint) = (parts.next(), parts.next(), parts.next());
        match (prefix, secret, fingerprint, parts.next()) {
            (Some("bellows1"), Some(secret), Some(fingerprint), None) if !secret.is_empty() => {
                let mut bytes = [0; 32];
                hex::decode_to_slice(fingerprint, &mut bytes)
                    .map_err(|_| TokenError("has no fingerprint of 64 hex digits"))?;
                Ok(Self { secret: secret.to_owned(), fingerprint: bytes })
            }
            (Some("bellows1"), ..) => Err(TokenError("has not three parts")),
            _ => Err(TokenError("does not begin with bellows1")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_a_form() {
        let good = format!("bellows1.abc.{}", "0f".repeat(32));
        let token: Token = good.parse().expect("a good token");
        assert_eq!((token.secret.as_str(), token.fingerprint), ("abc", [15; 32]));
        assert!(!format!("{token:?}").contains("abc"), "the secret is never printed");
        for bad in
            ["", "abc", "bellows2.abc.0f", "bellows1.abc", "bellows1..00", "bellows1.abc.zz", &format!("{good}.x")]
        {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }
}
