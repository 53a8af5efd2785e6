//! Being told to end: as any verb that serves, and by a terminal that closes.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;
use crate::signals::Ends;

/// Installed before anything is started, so that no moment is left in which a signal would end the process with everything running.
pub struct Signals {
    ends: Ends,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over.
    pub fn install() -> Result<Self, Failure> {
        let ends = Ends::catch()?;
        let hangup = signal(SignalKind::hangup());
        let hangup =
            hangup.map_err(|error| Failure::failed(format!("cannot listen for a closed terminal: {error}")))?;
        Ok(Self { ends, hangup })
    }

    /// The next wish to end.
    pub async fn next(&mut self) {
        tokio::select! {
            () = self.ends.told() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
