//! Bellows: the live controller
