//! Bellows: every decision of an agent, pure
