//! A running controller: what `start` brings up in order, and `shutdown` takes down.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bellows_core::limits::Limits;
use bellows_core::step::Config as CoreConfig;
use bellows_core::units::Millis;
use bellows_member::{Config as MemberConfig, Member, MemberId};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::api::{self, CallHub, Services};
use crate::auth::{Authority, Credential};
use crate::blobs::Blobs;
use crate::clock::Clock;
use crate::config::{ControllerConfig, host_and_port};
use crate::dashboard;
use crate::driver::{self, DriverError, DriverParts, Metrics, Standing, Writer};
use crate::error::{CreateTokenError, StartError};
use crate::state::StateFolder;
use crate::storage::DiskLog;

/// The only member of its group, until three are there.
const MEMBER: MemberId = MemberId(1);

/// Open calls get this long to end by themselves at a shutdown; then their connections are cut.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);

/// A running controller. Dropped without [`Controller::shutdown`] it ends as by `kill -9`: what was acknowledged is on disk.
pub struct Controller {
    address: SocketAddr,
    dashboard: SocketAddr,
    credential: PathBuf,
    services: Services,
    stop: watch::Sender<bool>,
    driver: JoinHandle<Result<(), DriverError>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Controller {
    /// Opens the state folder, founds or rejoins the cluster, and listens. When it returns, calls are taken.
    ///
    /// # Errors
    /// When a folder or address cannot be used, or the log is damaged. Each error says how to mend it.
    pub async fn start(config: ControllerConfig) -> Result<Self, StartError> {
        // tonic builds its TLS configuration from the process's default; ring is the only provider that is built in.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = Clock::start();
        let folder = StateFolder::open(&config.state)?;
        let blobs = Blobs::open(&config.store)?;
        let authority = Arc::new(Authority::open(&folder.authority(), &config.cluster, clock.now())?);
        let ports = Ports::bind(&config).await?;
        let registry = Registry::new();
        let metrics = Arc::new(Metrics::register(&registry).map_err(StartError::Metrics)?);
        let (stop, stopped) = watch::channel(false);
        let credential = folder.credential();
        let (member, writer) = open_log(folder, &config)?;
        let parts = DriverParts {
            core: CoreConfig {
                cluster: config.cluster.clone(),
                seed: config.seed,
                limits: Limits { planted: config.planted, ..Limits::default() },
            },
            member,
            writer,
            clock,
            metrics: metrics.clone(),
            dashboard: format!("http://{}", ports.dashboard_address),
        };
        let (handle, driver) = driver::start(parts, stopped.clone());
        let allowed = Arc::new(config.allowed.clone());
        let services = Services { driver: handle, authority, blobs, clock, calls: CallHub::default(), allowed };
        let controller = Self {
            address: ports.address,
            dashboard: ports.dashboard_address,
            credential,
            services,
            stop,
            driver,
            tasks: Vec::new(),
        };
        controller.serve(&config, ports, dashboard::Shown { registry, metrics }, stopped).await
    }

    async fn serve(
        mut self,
        config: &ControllerConfig,
        ports: Ports,
        shown: dashboard::Shown,
        stopped: watch::Receiver<bool>,
    ) -> Result<Self, StartError> {
        self.write_credential(config)?;
        let server = self.services.authority.server(&config.advertise, self.services.clock.now())?;
        let tls = api::tls_config(&self.services.authority, &server.certificate_pem, &server.key_pem);
        let (router, health) = api::router(tls, &self.services)?;
        let standing = self.services.driver.standing();
        self.lead(standing.clone()).await?;
        let ended = until_stopped(stopped.clone());
        self.tasks.push(tokio::spawn(async move {
            if let Err(error) = router.serve_with_incoming_shutdown(ports.incoming, ended).await {
                tracing::error!(error = driver::chain(&error), "the gRPC server ended");
            }
        }));
        self.tasks.push(tokio::spawn(report_health(health, standing)));
        let page = dashboard::serve(ports.dashboard, self.services.driver.clone(), shown, until_stopped(stopped));
        self.tasks.push(tokio::spawn(page));
        tracing::info!(address = %self.address, dashboard = %self.dashboard, "the controller takes calls");
        Ok(self)
    }

    /// Waits until this member leads: the only voter elects itself as soon as its log is read back.
    async fn lead(&mut self, mut standing: watch::Receiver<Standing>) -> Result<(), StartError> {
        if standing.wait_for(|standing| standing.leading).await.is_ok() {
            return Ok(());
        }
        let why = match (&mut self.driver).await {
            Ok(Err(error)) => error.to_string(),
            Ok(Ok(())) => "it was told to stop".to_owned(),
            Err(panic) => format!("its driver panicked: {panic}"),
        };
        Err(StartError::Ended { why })
    }

    /// Written at each start: the address may have changed.
    fn write_credential(&self, config: &ControllerConfig) -> Result<(), StartError> {
        let authority = &self.services.authority;
        let identity = authority.operator("admin", self.services.clock.now())?;
        let credential = Credential {
            controller: format!("https://{}", host_and_port(&config.advertised_host(), self.address.port())),
            authority_pem: authority.certificate_pem().to_owned(),
            certificate_pem: identity.certificate_pem,
            key_pem: identity.key_pem,
            name: config.cluster.clone(),
        };
        credential.save(&self.credential).map_err(|source| not_writable(&self.credential, "--state", source))
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

    /// A token with which servers may join for this long (1 second to 365 days).
    ///
    /// # Errors
    /// When the length is out of bounds, or the cluster cannot commit at the moment.
    pub async fn create_token(&self, valid: Duration) -> Result<String, CreateTokenError> {
        let valid = Millis(u64::try_from(valid.as_millis()).unwrap_or(u64::MAX));
        let made = api::create_token(&self.services, "controller", valid).await;
        made.map(|(token, _)| token).map_err(|status| CreateTokenError { why: status.message().to_owned() })
    }

    /// Returns when the controller has ended by itself, and why: a disk that fails, a log that it cannot understand.
    pub async fn ended(&mut self) -> DriverError {
        match (&mut self.driver).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => std::future::pending().await, // only `shutdown` ends it well, and takes `self`
            Err(panic) => DriverError::Panicked { why: panic.to_string() },
        }
    }

    /// Ends everything in order and returns when it has ended and the state folder is free.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        self.services.calls.close();
        if !self.driver.is_finished()
            && let Err(panic) = self.driver.await
        {
            tracing::error!(%panic, "the driver panicked");
        }
        for mut task in self.tasks {
            if tokio::time::timeout(SHUTDOWN_PATIENCE, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

/// Both listeners, bound before anything is started.
struct Ports {
    incoming: tonic::transport::server::TcpIncoming,
    address: SocketAddr,
    dashboard: TcpListener,
    dashboard_address: SocketAddr,
}

impl Ports {
    async fn bind(config: &ControllerConfig) -> Result<Self, StartError> {
        let grpc = |source| StartError::Listen { address: config.listen, purpose: "gRPC", flag: "--listen", source };
        let page =
            |source| StartError::Listen { address: config.dashboard, purpose: "web page", flag: "--dashboard", source };
        let incoming = api::bind(config.listen)?;
        let dashboard = TcpListener::bind(config.dashboard).await.map_err(page)?;
        Ok(Self {
            address: incoming.local_addr().map_err(grpc)?,
            incoming,
            dashboard_address: dashboard.local_addr().map_err(page)?,
            dashboard,
        })
    }
}

/// The writer keeps the folder locked until the last batch is on disk.
fn open_log(folder: StateFolder, config: &ControllerConfig) -> Result<(Member, Writer), StartError> {
    let mut log = DiskLog::open(&folder.raft())?;
    let member = Member::new(MemberConfig::new(MEMBER, vec![MEMBER], config.seed), &mut log)
        .map_err(|error| StartError::Member { path: folder.raft(), source: error.into() })?;
    let writer = Writer::start(log, folder);
    Ok((member, writer.map_err(|source| StartError::Thread { purpose: "raft's log", source })?))
}

fn not_writable(path: &Path, flag: &'static str, source: std::io::Error) -> StartError {
    StartError::NotWritable { path: path.to_owned(), flag, source }
}

async fn until_stopped(mut stopped: watch::Receiver<bool>) {
    // An error means that the controller was dropped: the same thing.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// The standard health service says "serving" only while this member leads with a quorum.
async fn report_health(health: HealthReporter, mut standing: watch::Receiver<Standing>) {
    loop {
        let leading = standing.borrow_and_update().leading;
        let status = if leading { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", "bellows.operator.v1.Operator", "bellows.node.v1.Nodes"] {
            health.set_service_status(service, status).await;
        }
        if standing.changed().await.is_err() {
            return;
        }
    }
}
