//! What all threads know.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bellows_agent_core::traffic::{Entrance, Entrances};
use bellows_agent_core::{AppId, ReplicaId};
use socket2::{Domain, Socket, Type};
use tokio::sync::watch;

use super::app::App;
use super::balance::Balance;
use super::changes::Changes;
use super::link::Trust;
use super::time::Time;
use super::tls::Tls;
use super::{IngressConfig, IngressError, Patience};

/// Can it be listened on, by whoever does not share?
pub(crate) fn free(at: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    socket.set_reuse_address(true)?; // what is left of connections is nobody who listens
    socket.bind(&at.into())
}

/// What all threads know.
pub(crate) struct Shared {
    pub(crate) address: IpAddr,
    pub(crate) patience: Patience,
    /// Who other ingresses are told that this is; nobody where there are no others.
    pub(crate) trust: Option<Trust>,
    /// For connections over TLS; absent without certificates.
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) entrances: watch::Sender<Arc<Entrances>>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) balance: Balance,
    pub(crate) time: Time,
    apps: Mutex<BTreeMap<AppId, Arc<App>>>,
    /// Copies of this node that may get requests, with their apps.
    here: RwLock<BTreeMap<ReplicaId, (AppId, bool)>>,
    /// Ports that cannot be listened on; told of once.
    refused: Mutex<BTreeSet<u16>>,
    /// Addresses of which is known that no other process listens there.
    alone: Mutex<BTreeSet<SocketAddr>>,
}

impl Shared {
    pub(crate) fn new(config: &IngressConfig) -> Result<Arc<Self>, IngressError> {
        let trust = config.link.as_ref().map(Trust::new).transpose()?;
        let tls = config.tls.as_ref().map(Tls::new).transpose()?;
        Ok(Arc::new(Self {
            address: config.address,
            patience: config.patience,
            trust,
            tls: tls.map(Arc::new),
            entrances: watch::channel(Arc::default()).0,
            changes: Arc::default(),
            balance: Balance::new(config.threads.max(1)),
            time: Time::start(),
            apps: Mutex::default(),
            here: RwLock::default(),
            refused: Mutex::default(),
            alone: Mutex::default(),
        }))
    }

    /// The app's traffic, from its first mention on.
    pub(crate) fn app(&self, app: AppId) -> Arc<App> {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        apps.entry(app).or_insert_with(|| App::new(app, self.changes.clone(), self.time)).clone()
    }

    /// Every app that was mentioned.
    pub(crate) fn apps(&self) -> Vec<Arc<App>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Takes in where requests come in.
    pub(crate) fn update_entrances(&self, whole: bool, changed: Vec<Entrance>, gone: &[AppId]) {
        let mut before = BTreeSet::new();
        self.entrances.send_modify(|entrances| {
            before = entrances.apps().map(|entrance| entrance.app).collect();
            Arc::make_mut(entrances).update(whole, changed, gone);
        });
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let now = self.entrances.borrow().clone();
        for app in before.into_iter().filter(|app| now.app(*app).is_none()) {
            let removed = self.apps.lock().unwrap_or_else(PoisonError::into_inner).remove(&app);
            if let Some(app) = removed {
                app.remove();
            }
        }
    }

    /// A copy of this node; `None` when it has ended.
    pub(crate) fn note_here(&self, replica: ReplicaId, app: Option<(AppId, bool)>) -> Option<(AppId, bool)> {
        let mut here = self.here.write().unwrap_or_else(PoisonError::into_inner);
        match app {
            Some(app) => here.insert(replica, app),
            None => here.remove(&replica),
        }
    }

    /// Whose copy it is, if it is here.
    pub(crate) fn app_of(&self, replica: ReplicaId) -> Option<AppId> {
        self.here.read().unwrap_or_else(PoisonError::into_inner).get(&replica).map(|(app, _)| *app)
    }

    /// Is it here, ready and not parked? Then connections to it may be kept.
    pub(crate) fn in_rotation(&self, replica: ReplicaId) -> bool {
        let here = self.here.read().unwrap_or_else(PoisonError::into_inner);
        here.get(&replica).is_some_and(|(_, in_rotation)| *in_rotation)
    }

    /// Threads share ports among them, which would share them with another process too, in silence: the first one makes sure that there is none.
    pub(crate) fn alone(&self, at: SocketAddr) -> io::Result<()> {
        let mut alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        if !alone.contains(&at) {
            free(at)?;
            alone.insert(at);
        }
        Ok(())
    }

    pub(crate) fn refused(&self, port: u16) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).contains(&port)
    }

    pub(crate) fn cannot_listen(&self, port: u16, error: &std::io::Error) {
        if self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            tracing::error!(port, %error, "cannot listen on a port that an app's route names: free it, or name another one");
        }
    }
}
