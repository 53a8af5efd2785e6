//! Bellows: the laboratory, virtual time
