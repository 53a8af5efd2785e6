//! What `dev` says when all is up: one JSON line for programs, a page of text for people.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use crate::failure::Failure;
use crate::globals::Globals;
use crate::output;

/// Everything that somebody who wants to use the cluster needs to know.
#[derive(Debug, Serialize)]
pub struct Ready {
    /// Always true; a program may wait for a line that says so.
    pub ready: bool,
    /// Of this process.
    pub pid: u32,
    /// The folder with everything that is kept.
    pub state: PathBuf,
    /// What verbs need.
    pub credential: PathBuf,
    /// Where verbs are answered.
    pub controller: SocketAddr,
    /// The web page.
    pub dashboard: String,
    /// Names.
    pub nodes: Vec<String>,
    /// `http://address:port` of a replica of the demo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demo: Option<String>,
    /// To try, with what each does.
    pub commands: Vec<Command>,
}

/// Something to type.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct Command {
    /// As typed.
    pub command: String,
    /// What it does.
    pub does: String,
}

/// What to try: on the demo when it is there.
pub fn commands(demo: Option<&str>) -> Vec<Command> {
    let command = |command: &str, does: &str| Command { command: command.to_owned(), does: does.to_owned() };
    match demo {
        Some(address) => vec![
            command(
                &format!("curl '{address}/burn?seconds=60'"),
                "burn CPU for a minute: the app grows from 1 copy to 5, and shrinks afterwards",
            ),
            command("bellows explain demo", "why there are as many copies as there are, and what comes next"),
            command("bellows events -f", "watch every decision with its reason"),
        ],
        None => vec![
            command("bellows nodes", "the servers and how loaded they are"),
            command("bellows image load ./image.tar --name web", "an OCI image, as a folder or an archive"),
            command("bellows apply -f web.yaml --wait", "declare an app (`bellows apply --help` shows a file)"),
        ],
    }
}

/// Prints it.
pub fn print(ready: &Ready, globals: &Globals, export: bool) -> Result<(), Failure> {
    if globals.json() { output::json_line(ready) } else { text(ready, export).lines().try_for_each(output::line) }
}

fn text(ready: &Ready, export: bool) -> String {
    let mut text = format!(
        "Bellows is up: {} nodes on this machine. Ctrl-C stops everything.\n\n  page    {}\n  state   {}\n",
        ready.nodes.len(),
        ready.dashboard,
        ready.state.display(),
    );
    if let Some(demo) = &ready.demo {
        text.push_str(&format!("  demo    {demo}\n"));
    }
    text.push_str("\nTry, in another terminal (as root):\n\n");
    if export {
        text.push_str(&format!("  export BELLOWS_CREDENTIAL={}\n\n", ready.credential.display()));
    }
    for Command { command, does } in &ready.commands {
        text.push_str(&format!("  {command}\n      {does}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(demo: Option<&str>) -> Ready {
        Ready {
            ready: true,
            pid: 7,
            state: "/state".into(),
            credential: "/state/credential.json".into(),
            controller: SocketAddr::from(([127, 0, 0, 1], 7400)),
            dashboard: "http://127.0.0.1:7480/".to_owned(),
            nodes: vec!["node-1".to_owned()],
            demo: demo.map(str::to_owned),
            commands: commands(demo),
        }
    }

    #[test]
    fn people_are_told_folder_page_and_commands() {
        let said = text(&ready(Some("http://10.97.16.1:8080")), true);
        for part in [
            "/state",
            "http://127.0.0.1:7480/",
            "curl 'http://10.97.16.1:8080/burn?seconds=60'",
            "export BELLOWS_CREDENTIAL=",
        ] {
            assert!(said.contains(part), "{part} is missing: {said}");
        }
        assert!(!text(&ready(None), false).contains("export"));
    }

    #[test]
    fn three_commands_either_way() {
        assert_eq!((commands(None).len(), commands(Some("http://a")).len()), (3, 3));
    }
}
