//! Bellows: the live agent
