//! Waiting without sleeping: every look at the cluster follows an event of it.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cli::Cli;

/// `bellows events -f`, from the beginning.
#[derive(Debug)]
pub struct Events {
    child: Child,
    lines: Receiver<Value>,
    /// Everything told so far.
    pub told: Vec<Value>,
}

impl Events {
    pub fn follow(cli: &Cli) -> Self {
        let mut child = cli.command(&["events", "-f"]).spawn().expect("the executable was built");
        let out = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (tell, lines) = sync_channel(1024);
        std::thread::spawn(move || {
            let events = out.lines().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok());
            // Ends when the test has what it wanted.
            events.map_while(|event| tell.send(event).ok()).for_each(drop);
        });
        Self { child, lines, told: Vec::new() }
    }

    /// Asks again after every event until the answer is yes. Some changes (activity, use) make no event, so it also asks once a second.
    pub fn until<T>(&mut self, what: &str, within: Duration, mut ask: impl FnMut(&[Value]) -> Option<T>) -> T {
        let end = Instant::now() + within;
        loop {
            if let Some(answer) = ask(&self.told) {
                return answer;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not within {within:?}: {what}; the last events: {:#?}", last(&self.told));
            match self.lines.recv_timeout(left.min(Duration::from_secs(1))) {
                Ok(event) => self.told.push(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the events ended while waiting: {what}; {:#?}", last(&self.told))
                }
            }
            self.told.extend(self.lines.try_iter());
        }
    }
}

fn last(events: &[Value]) -> &[Value] {
    &events[events.len().saturating_sub(12)..]
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
