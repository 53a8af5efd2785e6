//! `bellows logs`.

mod stream;

use std::time::{SystemTime, UNIX_EPOCH};

use bellows_core::ids::ReplicaId;
use bellows_proto::operator::{ListReplicasRequest, LogsRequest};
use bellows_proto::types;
use clap::Args;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

pub use self::stream::LogStream;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::{self, views};
use crate::units;

const AFTER: &str = "\
Examples:
  bellows logs 1-2-57                    one replica, also one that ended and is still remembered
  bellows logs web --tail 20             every copy of an app, each line after its replica's id
  bellows logs web --since 10m           what they wrote in the last ten minutes
  bellows logs web -f                    and what they write from now on, until Ctrl-C
  bellows logs 1-2-57 --previous         the attempt before the latest: why it crashed

With -f it goes on across rotations, with the next attempt after a crash, and after a restart of the controller or an agent, no line \
lost and none twice; a reader too slow for what its app writes is told on stderr how many bytes were rotated away.

The output is what the app wrote, as it wrote it, also with --output json.";

/// Chunks that wait to be printed; a terminal that stands still makes the senders wait.
const WAITING_CHUNKS: usize = 64;

/// What a replica, or every copy of an app, wrote
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// A replica's id or an app's name
    #[arg(value_name = "REPLICA|APP")]
    subject: String,

    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,

    /// Begin with so many last lines of each
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,

    /// Leave out what was written longer ago
    #[arg(long, value_name = "DURATION", value_parser = units::duration_ms)]
    since: Option<u64>,

    /// The attempt before the latest
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,
}

/// Prints it.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let mut connection = Connection::open(globals)?;
    let replicas = replicas(&mut connection, &arguments, globals).await?;
    let mut streams = Vec::new();
    for replica in replicas {
        let request = request(replica, &arguments);
        streams.push((replica, LogStream::open(connection.clone(), request).await?));
    }
    match <[_; 1]>::try_from(streams) {
        Ok([(_, stream)]) => alone(stream).await,
        Err(streams) => together(streams).await,
    }
}

fn request(replica: types::ReplicaId, arguments: &Arguments) -> LogsRequest {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = u64::try_from(now).unwrap_or(u64::MAX);
    LogsRequest {
        replica: Some(replica),
        follow: arguments.follow,
        tail_lines: arguments.tail,
        from: None,
        since_unix_ms: arguments.since.map_or(0, |since| now.saturating_sub(since)),
        previous: arguments.previous,
    }
}

/// The replica with this id, or the living copies of the app with this name.
async fn replicas(
    connection: &mut Connection,
    arguments: &Arguments,
    globals: &Globals,
) -> Result<Vec<types::ReplicaId>, Failure> {
    if let Ok(id) = arguments.subject.parse::<ReplicaId>() {
        return Ok(vec![views::wire_replica_id(id)]);
    }
    let app = arguments.subject.clone();
    let request = ListReplicasRequest { tenant: globals.tenant.clone(), app: app.clone(), ended: false };
    let answer = connection.ask(async |client| client.list_replicas(request.clone()).await).await?;
    let ids: Vec<_> = answer.replicas.into_iter().filter_map(|replica| replica.id).collect();
    if ids.is_empty() {
        return Err(Failure::not_found(format!("app \"{app}\" has no copies whose logs could be read"))
            .mend(format!("`bellows replicas {app} --ended` lists those that ended; `bellows logs ID` reads one")));
    }
    Ok(ids)
}

/// One replica: byte for byte.
async fn alone(mut stream: LogStream) -> Result<(), Failure> {
    while let Some(data) = stream.next().await? {
        output::bytes(&data)?;
    }
    Ok(())
}

/// Several: whole lines, each after its replica's id.
async fn together(streams: Vec<(types::ReplicaId, LogStream)>) -> Result<(), Failure> {
    let (sender, mut lines) = mpsc::channel::<Result<Vec<u8>, Failure>>(WAITING_CHUNKS);
    // Asking anew is not something to send to another thread, and this process has one anyway.
    let tasks = LocalSet::new();
    for (id, stream) in streams {
        tasks.spawn_local(prefixed(views::replica_id(&id), stream, sender.clone()));
    }
    drop(sender);
    let print = async {
        while let Some(lines) = lines.recv().await {
            output::bytes(&lines?)?;
        }
        Ok(())
    };
    tasks.run_until(print).await
}

async fn prefixed(id: String, mut stream: LogStream, sender: mpsc::Sender<Result<Vec<u8>, Failure>>) {
    let mut rest = Vec::new();
    loop {
        let lines = match stream.next().await {
            Ok(Some(data)) => {
                rest.extend_from_slice(&data);
                Ok(whole_lines(&id, &mut rest))
            }
            Ok(None) if rest.is_empty() => return,
            Ok(None) => {
                rest.push(b'\n');
                Ok(whole_lines(&id, &mut rest))
            }
            Err(failure) => Err(failure),
        };
        let last = lines.is_err();
        // A closed channel means that printing has ended; so has this.
        if sender.send(lines).await.is_err() || last {
            return;
        }
    }
}

/// Takes the whole lines out of `rest`, each with its prefix.
fn whole_lines(id: &str, rest: &mut Vec<u8>) -> Vec<u8> {
    let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let whole: Vec<u8> = rest.drain(..end).collect();
    let lines = whole.split_inclusive(|byte| *byte == b'\n');
    lines.flat_map(|line| [id.as_bytes(), b" | ", line].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::whole_lines;

    #[test]
    fn lines_are_whole_and_prefixed() {
        let mut rest = b"a\nb\nhalf".to_vec();
        assert_eq!(whole_lines("1-1-1", &mut rest), b"1-1-1 | a\n1-1-1 | b\n");
        assert_eq!(rest, b"half");
        assert_eq!(whole_lines("1-1-1", &mut rest), b"");
        rest.extend_from_slice(b" more\n");
        assert_eq!(whole_lines("1-1-1", &mut rest), b"1-1-1 | half more\n");
    }
}
