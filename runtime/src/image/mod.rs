//! The content store of images: load, verify, unpack, flatten, build, collect garbage.
