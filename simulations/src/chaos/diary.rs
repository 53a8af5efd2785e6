//! The event log: its hash always, its lines when asked for.

/// What happened, where, to whom.
#[derive(Clone, Debug)]
pub(crate) struct Diary {
    hash: u64,
    lines: Option<Vec<String>>,
    entries: u64,
}

impl Diary {
    pub(crate) fn new(keep: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: keep.then(Vec::new), entries: 0 }
    }

    /// One entry; `place` and `detail` mean what `what` says.
    pub(crate) fn note(&mut self, now: u64, what: &'static str, place: u64, detail: u64) {
        self.entries += 1;
        for byte in what.bytes() {
            self.mix(u64::from(byte));
        }
        self.mix(now);
        self.mix(place);
        self.mix(detail);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>4}.{:03} {what} {place} {detail}", now / 1_000, now % 1_000));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }

    /// FNV-1a over whole words, with a rotation so that high bits reach low ones.
    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
}
