//! The latest events, for `bellows events`. Bounded; they live in memory only, since each is derived or repeated by the audit.

use std::collections::VecDeque;

use bellows_proto::operator as wire;

/// At about 300 bytes an event this is 3 MiB, and a burst of 2,000 copies (5 events each) fits.
const KEPT: usize = 10_000;

/// Sequences ascend from 1 without gaps.
#[derive(Default)]
pub(super) struct EventRing {
    events: VecDeque<wire::Event>,
    last: u64,
}

impl EventRing {
    pub(super) fn push(&mut self, mut event: wire::Event) {
        self.last += 1;
        event.sequence = self.last;
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Those later than `after`, of one app or of all. A sequence that was never given out is of an earlier process: then all.
    pub(super) fn after(&self, after: u64, app: &str) -> Vec<wire::Event> {
        let after = if after > self.last { 0 } else { after };
        let first = self.events.front().map_or(0, |event| event.sequence);
        let skipped = usize::try_from((after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        let later = self.events.iter().skip(skipped);
        later.filter(|event| app.is_empty() || event.app == app).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_found_by_sequence() {
        let mut ring = EventRing::default();
        assert!(ring.after(0, "").is_empty());
        for number in 0..KEPT + 5 {
            let app = if number % 2 == 0 { "even" } else { "odd" };
            ring.push(wire::Event { app: app.to_owned(), ..Default::default() });
        }
        let all = ring.after(0, "");
        assert_eq!((all.len(), all[0].sequence), (KEPT, 6));
        let last = KEPT as u64 + 5;
        assert_eq!(ring.after(last - 1, "").len(), 1);
        assert_eq!(ring.after(last, "").len(), 0);
        assert_eq!(ring.after(last + 1, "").len(), KEPT, "a sequence of an earlier process");
        assert!(ring.after(0, "odd").iter().all(|event| event.app == "odd"));
    }
}
