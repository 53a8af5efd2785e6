//! Bellows: containers on Linux, synchronous, knows nothing of clusters
