//! How many to start, take back and retire. Arithmetic on counts alone, so that it can be read and tested by itself.

use super::score::Why;
use crate::observe::replica::Tally;
use crate::units::Permille;

/// What the decision rests on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// The count that the app shall have.
    pub wanted: u32,
    /// What there is.
    pub tally: Tally,
    /// So many may run on nodes that this leader has not heard yet.
    pub assumed: u32,
    /// Parked as surplus: can be had back at once.
    pub unparkable: u32,
    /// Crashed or refused, to be replaced later.
    pub backing_off: u32,
    /// Copies above the wanted count while others are replaced.
    pub surge: Permille,
}

/// What follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Take back out of retirement.
    pub unpark: u32,
    /// Start in place of what was lost from sight. The brake may bound it.
    pub repair: u32,
    /// Start because more is wanted, or to take over from others.
    pub growth: u32,
    /// Why the latter.
    pub why: Why,
    /// Retire, of what is wanted.
    pub retire_fresh: u32,
    /// Retire, of what shall be replaced.
    pub retire_stale: u32,
}

impl Need {
    /// New copies come before old ones go: a stale copy is retired only when enough ready or stale ones remain.
    pub fn work_out(figures: &Figures) -> Self {
        let Figures { wanted, tally, assumed, unparkable, backing_off, .. } = *figures;
        let counted = tally.fresh + tally.held;
        let missing = wanted.saturating_sub(counted);
        // With stale copies about, the total may pass the wanted count only by the surge.
        let most = if tally.stale > 0 { wanted + surge(figures) } else { wanted };
        let room = most.saturating_sub(counted + tally.stale);
        let unpark = missing.min(unparkable).min(room);
        // Each copy that may run on a node not heard yet delays one start.
        let hidden = assumed.min(wanted).saturating_sub(counted + tally.stale + tally.retiring + tally.ending);
        let start = (missing - unpark).min(room - unpark).saturating_sub(hidden).saturating_sub(backing_off);
        let repair = start.min(tally.lost);
        Self {
            unpark,
            repair,
            growth: start - repair,
            why: if tally.stale > 0 { Why::TakeOver } else { Why::Wanted },
            retire_fresh: tally.fresh.saturating_sub(wanted),
            retire_stale: (tally.fresh_ready + tally.stale).saturating_sub(wanted).min(tally.stale),
        }
    }
}

fn surge(figures: &Figures) -> u32 {
    let share = u64::from(figures.wanted) * u64::from(figures.surge.0) / 1_000;
    u32::try_from(share).unwrap_or(u32::MAX).max(1)
}
