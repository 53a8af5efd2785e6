//! Finding the credential file.

use std::path::{Path, PathBuf};

use bellows_controller::{Credential, CredentialError};

use crate::failure::{Failure, Kind, chain};
use crate::globals::Globals;

/// What `bellows dev` writes.
const DEV: &str = "/var/lib/bellows/dev/credential.json";

/// The credential that a person named, else the first that is there.
pub fn find(globals: &Globals) -> Result<(Credential, PathBuf), Failure> {
    if let Some(path) = &globals.credential {
        return load(path).map(|credential| (credential, path.clone()));
    }
    let places = places();
    for path in &places {
        match Credential::load(path) {
            Ok(credential) => return Ok((credential, path.clone())),
            Err(CredentialError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(bad(path, &error)),
        }
    }
    Err(none(&places))
}

fn places() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let configuration =
        std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or(home.map(|home| home.join(".config")));
    configuration.map(|folder| folder.join("bellows/credential.json")).into_iter().chain([PathBuf::from(DEV)]).collect()
}

fn load(path: &Path) -> Result<Credential, Failure> {
    Credential::load(path).map_err(|error| bad(path, &error))
}

fn bad(path: &Path, error: &CredentialError) -> Failure {
    let (kind, hint) = match error {
        CredentialError::Read { source, .. } => match source.kind() {
            std::io::ErrorKind::NotFound => {
                (Kind::NotFound, "check the path; a controller prints where its credential is when it starts")
            }
            std::io::ErrorKind::PermissionDenied => {
                (Kind::Failed, "run as its owner, or have a copy made that belongs to you")
            }
            _ => (Kind::Failed, "check the path and the disk"),
        },
        CredentialError::Parse { .. } => (Kind::Usage, "take the file that the controller wrote, unchanged"),
    };
    Failure::new(kind, format!("no use of the credential {}: {}", path.display(), chain(error))).mend(hint)
}

fn none(places: &[PathBuf]) -> Failure {
    let tried: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
    Failure::new(Kind::NotFound, format!("no credential: looked for {}", tried.join(" and ")))
        .mend("`bellows dev` makes a cluster and a credential")
        .mend("for an existing cluster, name its file with --credential or $BELLOWS_CREDENTIAL; the controller prints where it is")
}

/// The file is a credential, but its address or keys are not.
pub fn unusable(path: &Path, error: &tonic::transport::Error) -> Failure {
    Failure::usage(format!("the credential {} cannot be used: {}", path.display(), chain(error)))
        .mend("take the file that the controller wrote, unchanged")
}
