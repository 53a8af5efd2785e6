//! What `--wait` waits for.

use serde::Serialize;

use super::View;
use crate::ids::{AppId, Generation};
use crate::observe::world::World;

/// Is an app as it was declared?
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Settled {
    /// All wanted copies of the current revision are ready, and no other is alive.
    Yes,
    /// Not yet, and why.
    NotYet(String),
    /// A later change took the place of the one that was waited for.
    Superseded(Generation),
}

impl View<'_> {
    /// Is this generation of the app settled? A removed app is when none of its copies lives.
    pub fn settled(&self, app: AppId, generation: Generation) -> Settled {
        let not_yet = |why: String| Settled::NotYet(why);
        let Some(seen) = self.app_seen(app) else {
            let complete = self.world().is_some_and(World::all_accounted_for);
            if complete && !self.model().apps.contains_key(&app) {
                // Removed before this leader's time, and no node has a copy of it.
                return Settled::Yes;
            }
            return not_yet("this controller does not lead, or has not heard of the app yet".to_owned());
        };
        let tally = seen.tally;
        let Some(known) = self.model().apps.get(&app) else {
            let left = tally.alive() + tally.lost + tally.held;
            return if left == 0 { Settled::Yes } else { not_yet(format!("{left} copies are still there")) };
        };
        if known.generation > generation {
            return Settled::Superseded(known.generation);
        }
        if known.generation < generation {
            return not_yet(format!("the app is still at generation {}", known.generation));
        }
        let wanted = self.scene().map_or(known.wanted, |scene| scene.wanted(app));
        if tally.fresh_ready < wanted {
            let unplaced = seen.unplaced.as_ref().map(|unplaced| format!("; {}", unplaced.text)).unwrap_or_default();
            return not_yet(format!("{} of {wanted} copies are ready{unplaced}", tally.fresh_ready));
        }
        let surplus = tally.alive().saturating_sub(wanted);
        if surplus > 0 {
            return not_yet(format!("{wanted} copies are ready, {surplus} more are still to end"));
        }
        Settled::Yes
    }
}
