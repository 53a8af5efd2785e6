//! What outlives the process: the sum of orders, and what became of them. The shell writes it down and gives it back at the next start.

use serde::{Deserialize, Serialize};

use crate::ids::{AppId, Fence, Obeyed, ReplicaId, RevisionNumber, SpecDigest};
use crate::input::RunSpec;
use crate::report::{Ended, Exit, Reason};
use crate::units::Millis;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// No lower fence may be obeyed from here on.
    Fence(Fence),
    /// The boot of the server in which everything after this line happened.
    Boot(String),
    /// What a digest stands for.
    Spec {
        /// Its name.
        digest: SpecDigest,
        /// What deciding needs of it.
        run: RunSpec,
    },
    /// A start order was taken in.
    Ordered {
        /// Who.
        replica: ReplicaId,
        /// Whose copy.
        app: AppId,
        /// Which revision.
        revision: RevisionNumber,
        /// Names the spec.
        digest: SpecDigest,
        /// Why here.
        reason: Reason,
        /// The order.
        obeyed: Obeyed,
    },
    /// In or out of rotation.
    Parked {
        /// Who.
        replica: ReplicaId,
        /// Out of it?
        parked: bool,
        /// The order.
        obeyed: Obeyed,
    },
    /// It shall end.
    Stop {
        /// Who.
        replica: ReplicaId,
        /// From SIGTERM to SIGKILL.
        grace: Millis,
        /// Why.
        reason: Reason,
        /// The order; the one obeyed before when no order did it (cut off).
        obeyed: Obeyed,
    },
    /// An attempt is about to be launched.
    Attempt {
        /// Who.
        replica: ReplicaId,
        /// Which.
        attempt: u32,
        /// Crashes in a row before it.
        crashes: u32,
        /// How the last one before it ended whose end was seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_exit: Option<Exit>,
    },
    /// It ended for good; kept until the leader acknowledges.
    Ended {
        /// Who.
        replica: ReplicaId,
        /// The last attempt.
        attempt: u32,
        /// How and why.
        ended: Ended,
    },
    /// The leader acknowledged the end: nothing of it is left but the memory, which serves to explain it.
    Forgotten {
        /// Who.
        replica: ReplicaId,
    },
}

impl Record {
    /// Must it be on disk before the step's other effects? What people and leaders decided must; what can be observed again need only be written.
    pub fn durable(&self) -> bool {
        match self {
            Self::Fence(_)
            | Self::Boot(_)
            | Self::Spec { .. }
            | Self::Ordered { .. }
            | Self::Parked { .. }
            | Self::Stop { .. } => true,
            Self::Attempt { .. } | Self::Ended { .. } | Self::Forgotten { .. } => false,
        }
    }
}
