//! Which apps' demand has changed: told at once when a request begins to wait, else a little later, together.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bellows_agent_core::AppId;
use tokio::sync::Notify;

/// Changes that nobody waits for are told so often at most.
const PACE: Duration = Duration::from_millis(50);

/// Apps whose demand changed since somebody asked.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    apps: Mutex<BTreeSet<AppId>>,
    some: Notify,
    urgent: Notify,
    /// For whoever keeps the time of those that wait.
    pub(crate) queued: Notify,
}

impl Changes {
    pub(crate) fn tell(&self, app: AppId, urgent: bool) {
        let first = {
            let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
            let first = apps.is_empty();
            apps.insert(app);
            first
        };
        if urgent {
            self.urgent.notify_one();
            self.queued.notify_one();
        }
        if urgent || first {
            self.some.notify_one();
        }
    }

    /// The next ones. Not dropped half-way: what it took is the caller's.
    pub(crate) async fn next(&self) -> Vec<AppId> {
        loop {
            self.some.notified().await;
            // Out of time is as good as urgent.
            drop(tokio::time::timeout(PACE, self.urgent.notified()).await);
            let apps = std::mem::take(&mut *self.apps.lock().unwrap_or_else(PoisonError::into_inner));
            if !apps.is_empty() {
                return apps.into_iter().collect();
            }
        }
    }
}
