//! Ctrl-C and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Both ways of being told to end.
pub struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    /// From now on these signals do not end the process by themselves.
    pub fn catch() -> Result<Self, Failure> {
        let catch = |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")));
        Ok(Self { interrupt: catch(SignalKind::interrupt())?, terminate: catch(SignalKind::terminate())? })
    }

    /// Returns when either came.
    pub async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Does `work` to its end, unless told a second time: then gives up at once.
    pub async fn patiently(&mut self, work: impl Future<Output = ()>) -> Result<(), Failure> {
        tokio::select! {
            () = work => Ok(()),
            () = self.told() => Err(Failure::failed("told twice to end: gave up ending in order")),
        }
    }
}
