//! Who may do what. One authority per cluster, made by its first member; a role stands in each certificate's common name:
//! `operator:<name>`, `node:<id>`, `member:<id>`. Every call but `Join` needs one of the right role.

mod authority;
mod credential;
mod role;
mod token;

pub(crate) use authority::Authority;
pub use authority::AuthorityError;
pub use credential::{Credential, CredentialError};
pub(crate) use role::{Caller, caller, require_any, require_operator};
pub(crate) use token::{JoinToken, hash_of};
