//! Bellows: one raft member, synchronous
