//! What servers write about themselves, on stderr. Which of it: `$BELLOWS_LOG`, in the words of tracing's filters.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Everything of ours that people running a server should know; of others, what went wrong.
const USUAL: &str =
    "warn,bellows=info,bellows_controller=info,bellows_agent=info,bellows_member=info,bellows_runtime=info";

/// Begins. Verbs that serve call it once, first.
pub fn begin() {
    begin_with(USUAL);
}

/// Begins with what went wrong only: for a verb in whose terminal somebody reads something else.
pub fn begin_quietly() {
    begin_with("warn,raft_engine=error");
}

fn begin_with(usual: &str) {
    let filter = EnvFilter::try_from_env("BELLOWS_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Refused only when this process logs already: then there is nothing to do.
    let _ = subscriber.with_ansi(std::io::stderr().is_terminal()).try_init();
}
