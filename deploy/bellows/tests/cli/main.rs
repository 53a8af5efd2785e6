//! The real executable: exit codes, what it says to people and to programs, against a controller made of memory or a real one.

mod bad;
mod bad_app;
mod bad_disk;
mod bad_image;
mod bad_start;
mod fake;
mod help;
#[path = "../../../../runtime/tests/image_support/mod.rs"]
mod image_support;
mod network;
mod run;
mod serve;
mod verbs;
