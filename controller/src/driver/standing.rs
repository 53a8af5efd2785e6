//! What this member is to its group, for health checks and for whoever waits for a leader.

/// As of the driver's last turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// It leads, has applied everything before its term, and hears a quorum: it may decide.
    pub(crate) leading: bool,
}
