//! Bellows: the only language between processes
