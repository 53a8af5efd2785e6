//! The real executable: exit codes, what it says to people and to programs, against a controller made of memory.

mod bad;
mod fake;
mod help;
mod network;
mod run;
mod verbs;
