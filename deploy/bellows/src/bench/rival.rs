//! A controller in this process that ends copies by the rule of others: the newest first, at once. Nothing but this benchmark can ask for it.

use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bellows_controller::{Allowed, Controller, ControllerConfig, Planted};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::failure::Failure;

/// Agents join at once.
const TOKEN_LIFE: Duration = Duration::from_secs(600);

/// Ended when dropped.
#[derive(Debug)]
pub struct Rival {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), Failure>>>,
}

impl Rival {
    /// Starts it in a thread of its own; what it says is what `bellows controller --output json` would.
    pub fn start(state: &Path) -> Result<(Self, Value), Failure> {
        let config = config(state);
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::sync_channel(1);
        let life = move || crate::execution::server(live(config, tell, stopped));
        let thread = std::thread::Builder::new().name("rival".to_owned()).spawn(life);
        let thread =
            thread.map_err(|error| Failure::failed(format!("starting a controller to compare with: {error}")))?;
        let mut rival = Self { stop: Some(stop), thread: Some(thread) };
        match told.recv() {
            Ok(ready) => Ok((rival, ready)),
            Err(_) => rival.end().and(Err(Failure::failed("the controller to compare with ended at once"))),
        }
    }

    /// Ends it in order.
    pub fn end(&mut self) -> Result<(), Failure> {
        // It is told by this, and likewise by its being dropped.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let ended = self.thread.take().map(JoinHandle::join);
        ended.unwrap_or(Ok(Ok(()))).unwrap_or_else(|_| Err(Failure::failed("the controller to compare with broke")))
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        if let Err(failure) = self.end() {
            eprintln!("warning: {failure}");
        }
    }
}

fn config(state: &Path) -> ControllerConfig {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    ControllerConfig {
        state: state.join("controller"),
        listen: any,
        dashboard: any,
        store: state.join("images"),
        cluster: "rival".to_owned(),
        advertise: Vec::new(),
        allowed: Allowed::default(),
        seed: rand::random(),
        planted: Planted::StopNewest,
    }
}

async fn live(
    config: ControllerConfig,
    tell: mpsc::SyncSender<Value>,
    stop: oneshot::Receiver<()>,
) -> Result<(), Failure> {
    let controller = Controller::start(config).await.map_err(|error| Failure::from_error(&error))?;
    let token = controller.create_token(TOKEN_LIFE).await.map_err(|error| Failure::from_error(&error))?;
    let ready = json!({
        "controller": format!("https://{}", controller.address()),
        "credential": controller.credential_path().display().to_string(),
        "token": token,
    });
    if tell.send(ready).is_ok() {
        // Told to stop, or nobody is left to tell it.
        drop(stop.await);
    }
    controller.shutdown().await;
    Ok(())
}
