//! A running controller: what `start` brings up in order, and `shutdown` takes down.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api;
use crate::auth::{Authority, Credential};
use crate::blobs::Blobs;
use crate::clock::Clock;
use crate::config::ControllerConfig;
use crate::error::{CreateTokenError, StartError};
use crate::state::StateFolder;

/// A running controller. Dropped without [`Controller::shutdown`] it ends as by `kill -9`: what was acknowledged is on disk.
pub struct Controller {
    address: SocketAddr,
    dashboard: SocketAddr,
    credential: PathBuf,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Controller {
    /// Opens the state folder, founds or rejoins the cluster, and listens. When it returns, calls are taken.
    pub async fn start(config: ControllerConfig) -> Result<Self, StartError> {
        let clock = Clock::start();
        let folder = StateFolder::open(&config.state)?;
        let _blobs = Blobs::open(&config.store)
            .map_err(|source| StartError::FolderNotWritable { path: config.store.clone(), source })?;
        let authority = open_authority(&folder, &config, clock)?;
        let incoming = api::bind(config.listen)?;
        let address = incoming.local_addr().map_err(|source| StartError::Listen {
            address: config.listen,
            purpose: "gRPC",
            flag: "--listen",
            source,
        })?;
        let credential = write_credential(&folder, &authority, &config, address, clock)?;
        let server = authority
            .server(&config.advertise, clock.now())
            .map_err(|source| StartError::Authority { path: folder.authority(), source })?;
        let router = api::router(api::tls_config(&authority, &server.certificate_pem, &server.key_pem))?;
        let (stop, stopped) = watch::channel(false);
        let serve = tokio::spawn(async move {
            let _folder = folder;
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, ended(stopped)).await {
                tracing::error!(error = &error as &dyn std::error::Error, "the gRPC server ended");
            }
        });
        Ok(Self { address, dashboard: config.dashboard, credential, stop, tasks: vec![serve] })
    }

    /// Where gRPC is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the web page is served.
    pub fn dashboard_address(&self) -> SocketAddr {
        self.dashboard
    }

    /// The administrator's credential, readable by this user only.
    pub fn credential_path(&self) -> &Path {
        &self.credential
    }

    /// A token with which servers may join for this long.
    pub async fn create_token(&self, valid: Duration) -> Result<String, CreateTokenError> {
        Err(CreateTokenError::NotKept { why: format!("no leader within {valid:?}") })
    }

    /// Ends everything in order and returns when it has ended.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the controller panicked");
            }
        }
    }
}

async fn ended(mut stopped: watch::Receiver<bool>) {
    // An error means that the controller was dropped: the same thing.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn open_authority(folder: &StateFolder, config: &ControllerConfig, clock: Clock) -> Result<Authority, StartError> {
    Authority::open(&folder.authority(), &config.cluster, clock.now())
        .map_err(|source| StartError::Authority { path: folder.authority(), source })
}

/// Written at each start: the address may have changed.
fn write_credential(
    folder: &StateFolder,
    authority: &Authority,
    config: &ControllerConfig,
    address: SocketAddr,
    clock: Clock,
) -> Result<PathBuf, StartError> {
    let identity = authority
        .operator("admin", clock.now())
        .map_err(|source| StartError::Authority { path: folder.authority(), source })?;
    let credential = Credential {
        controller: format!("https://{}", crate::config::host_and_port(&config.advertised_host(), address.port())),
        authority_pem: authority.certificate_pem().to_owned(),
        certificate_pem: identity.certificate_pem,
        key_pem: identity.key_pem,
        name: config.cluster.clone(),
    };
    let path = folder.credential();
    credential.save(&path).map_err(|source| StartError::FolderNotWritable { path: path.clone(), source })?;
    Ok(path)
}
