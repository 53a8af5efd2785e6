//! Who may do what. One authority per cluster, made by its first member; a role stands in each certificate's common name:
//! `operator:<name>`, `node:<id>`, `member:<id>`. Every call but `Join` needs one of the right role.

mod authority;
mod credential;
mod role;
mod token;

pub use authority::AuthorityError;
pub(crate) use authority::{Authority, SERVER_NAME};
pub use credential::{Credential, CredentialError};
pub(crate) use role::{Caller, caller, require_any, require_operator};
pub(crate) use token::{JoinToken, hash_of};
