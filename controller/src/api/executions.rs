//! Programs that people execute in replicas, and files that they copy: their words to an agent's call and back.

use bellows_core::ids::ReplicaId;
use bellows_proto::node as agent;
use bellows_proto::operator as wire;
use bellows_proto::types::Input;
use bellows_proto::types::input::Part;
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};
use wire::exec_request::Body as Asked;
use wire::exec_response::Body as Answer;

use super::Services;
use super::calls::{Ask, Reply, Way};
use super::streams::Answers;
use crate::convert::{Malformed, replica_id_from_wire};
use crate::driver::Question;

/// Of one message of input.
pub(super) const MAX_INPUT_BYTES: usize = 32 << 10;

/// Serves one execution. It ends with the answers' reader.
pub(super) async fn execute(
    services: &Services,
    mut stream: Streaming<wire::ExecRequest>,
) -> Result<Answers<wire::ExecResponse>, Status> {
    let begin = match stream.message().await?.and_then(|first| first.body) {
        Some(Asked::Begin(begin)) => begin,
        _ => return Err(Malformed::new("body", "an execution begins with what to execute").into()),
    };
    let execution = begin.execution.ok_or_else(|| Malformed::new("begin.execution", "is missing"))?;
    let replica: ReplicaId = replica_id_from_wire("begin.replica", begin.replica)?;
    let node = services.driver.ask(|answer| Question::Owner { replica, answer }).await?;
    let ask = Ask::Exec(agent::ExecCall { replica: begin.replica, execution: Some(execution) });
    let call = services.calls.open(node, ask)?;
    let input = |request: wire::ExecRequest| match request.body {
        Some(Asked::Input(input)) => Some(input),
        _ => None,
    };
    tokio::spawn(forward(stream, input, call.way()));
    Ok(Box::pin(call.filter_map(|reply| match reply {
        Ok(reply) => answer(reply).map(|body| Ok(wire::ExecResponse { body: Some(body) })),
        Err(status) => Some(Err(status)),
    })))
}

/// Serves one copy, in or out. It ends with the answers' reader.
pub(super) async fn copy(
    services: &Services,
    mut stream: Streaming<wire::CopyRequest>,
) -> Result<Answers<wire::CopyResponse>, Status> {
    use wire::copy_request::Body;
    let begin = match stream.message().await?.and_then(|first| first.body) {
        Some(Body::Begin(begin)) => begin,
        _ => return Err(Malformed::new("body", "a copy begins with what to copy").into()),
    };
    let copy = begin.copy.ok_or_else(|| Malformed::new("begin.copy", "is missing"))?;
    let replica: ReplicaId = replica_id_from_wire("begin.replica", begin.replica)?;
    let node = services.driver.ask(|answer| Question::Owner { replica, answer }).await?;
    let call = services.calls.open(node, Ask::Copy(agent::CopyCall { replica: begin.replica, copy: Some(copy) }))?;
    let input = |request: wire::CopyRequest| match request.body {
        Some(Body::Input(input)) => Some(input),
        _ => None,
    };
    tokio::spawn(forward(stream, input, call.way()));
    Ok(Box::pin(call.filter_map(|reply| match reply {
        Ok(agent::CallReply { body: Some(Reply::Data(data)), .. }) => Some(Ok(wire::CopyResponse { data })),
        Ok(_) => None,
        Err(status) => Some(Err(status)),
    })))
}

/// Until the caller's stream or the call ends. Input that cannot be taken ends the call.
async fn forward<T>(mut stream: Streaming<T>, input: impl Fn(T) -> Option<Input>, way: Way) {
    while let Ok(Some(request)) = stream.message().await {
        match input(request) {
            Some(input) if fits(&input) => {
                if !way.input(input).await {
                    return;
                }
            }
            _ => return way.abandon(),
        }
    }
}

/// Is this input that an agent takes?
pub(super) fn fits(input: &Input) -> bool {
    match &input.part {
        Some(Part::Data(data)) => data.len() <= MAX_INPUT_BYTES,
        Some(Part::End(_) | Part::Window(_)) => true,
        None => false,
    }
}

fn answer(reply: agent::CallReply) -> Option<Answer> {
    Some(match reply.body? {
        Reply::Started(_) => Answer::Started(wire::ExecStarted {}),
        Reply::Data(data) => Answer::Output(data),
        Reply::Errors(data) => Answer::Errors(data),
        Reply::Exited(exited) => Answer::Exited(exited),
        Reply::NotExecuted(why) => Answer::NotExecuted(why),
        Reply::Done(_) | Reply::Failed(_) | Reply::Taken(_) | Reply::Stats(_) | Reply::Frozen(_) => return None,
    })
}
