//! Identities: the same words and shapes as the leader's, held here so that an agent depends on nothing of the leader.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

number_id!(
    /// An app. Given out by the model at its first apply, never reused.
    AppId(u32), "a"
);
number_id!(
    /// One revision of an app's spec, counted from 1.
    RevisionNumber(u32), ""
);
number_id!(
    /// One connection of one agent to one leader. Unique within a fence.
    SessionId(u64), "s"
);
number_id!(
    /// The place of an order in its session, from 1.
    OrderSequence(u64), ""
);

/// (incarnation, term), compared in that order. A backup restored starts a new incarnation; an election a new term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// Which life of the cluster.
    pub incarnation: u64,
    /// Raft's term in that life.
    pub term: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.term)
    }
}

/// One running copy of an app. Never reused: the fence of the leader that made it, and a counter within that fence.
/// Ordered by age within one leader's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId {
    /// The fence under which it was first ordered.
    pub fence: Fence,
    /// Counts within that fence, from 1.
    pub counter: u64,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.fence.incarnation, self.fence.term, self.counter)
    }
}

/// A text is not a replica id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a replica id; one looks like 1-2-57 (see `bellows replicas`)")]
pub struct BadReplicaId(pub String);

impl FromStr for ReplicaId {
    type Err = BadReplicaId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadReplicaId(text.to_owned());
        let mut parts = text.split('-').map(|part| part.parse::<u64>().map_err(|_| bad()));
        let mut next = || parts.next().unwrap_or_else(|| Err(bad()));
        let (incarnation, term, counter) = (next()?, next()?, next()?);
        match parts.next() {
            None => Ok(Self { fence: Fence { incarnation, term }, counter }),
            Some(_) => Err(bad()),
        }
    }
}

/// The order that was obeyed last for a replica. Session ids are unique within a fence only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obeyed {
    /// Of the leader that gave it.
    pub fence: Fence,
    /// In which session.
    pub session: SessionId,
    /// Its place there.
    pub sequence: OrderSequence,
}

/// SHA-256 of a spec's canonical encoding: two revisions with one digest run the same thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpecDigest(pub [u8; 32]);

impl fmt::Display for SpecDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
