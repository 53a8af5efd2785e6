//! Bellows: every decision of the leader, pure
