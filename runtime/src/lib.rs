//! Containers on Linux: synchronous, the only `unsafe` of the project, and it knows nothing of clusters.

pub mod image;
