//! What `/` shows: who answered and what it can be told.

use std::time::Duration;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of this replica: its host name inside.
    pub replica: String,
    /// The app it is a copy of.
    pub app: String,
    /// The server it runs on.
    pub node: String,
}

impl Identity {
    /// From what the agent puts into every replica's environment.
    pub fn of_this_process() -> Self {
        let of = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let unknown = || "unknown".to_owned();
        Self {
            replica: of("BELLOWS_REPLICA").or_else(|| of("HOSTNAME")).unwrap_or_else(unknown),
            app: of("BELLOWS_APP").unwrap_or_else(unknown),
            node: of("BELLOWS_NODE").unwrap_or_else(unknown),
        }
    }
}

/// What can be told: request and meaning.
const REQUESTS: [(&str, &str); 11] = [
    ("/burn?seconds=60&share=100&cores=1", "burn CPU in the background (share in percent)"),
    ("/burn?ms=200", "burn CPU, then answer"),
    ("/hold?mb=64", "hold memory; mb=0 lets it go"),
    ("/slow?ms=1000", "answer late"),
    ("/stream?chunks=10&ms=500", "answer in pieces"),
    ("/echo", "a WebSocket that says what it hears"),
    ("/busy?seconds=60", "hold the busy mark"),
    ("/hang", "never answer"),
    ("/exit?code=3", "end with this code"),
    ("/crash", "end by a signal"),
    ("/health", "say that all is well"),
];

/// For programs and terminals.
pub fn text(who: &Identity, up: Duration, held_bytes: usize) -> String {
    let mut page = format!("{}\n\nIt can be told:\n", summary(who, up, held_bytes));
    for (request, meaning) in REQUESTS {
        page.push_str(&format!("  {request:<36} {meaning}\n"));
    }
    page
}

/// For browsers.
pub fn html(who: &Identity, up: Duration, held_bytes: usize) -> String {
    let summary = escape(&summary(who, up, held_bytes));
    let rows: String = REQUESTS.iter().map(|(request, meaning)| row(request, meaning)).collect();
    format!(
        "<!doctype html><meta charset=utf-8><title>Bellows demo</title>\
         <style>body{{font:16px/1.5 system-ui;margin:3em auto;max-width:44em}}td{{padding-right:2em}}</style>\
         <h1>Bellows demo</h1><p>{summary}</p><p>It can be told:</p><table>{rows}</table>\n"
    )
}

fn row(request: &str, meaning: &str) -> String {
    let request = escape(request);
    format!("<tr><td><a href=\"{request}\">{request}</a></td><td>{}</td></tr>", escape(meaning))
}

fn summary(who: &Identity, up: Duration, held_bytes: usize) -> String {
    let Identity { replica, app, node } = who;
    let (seconds, mebibytes) = (up.as_secs(), held_bytes >> 20);
    format!("Replica {replica} of app {app} on {node}, up for {seconds} s, holding {mebibytes} MiB.")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
