//! A node's session. The agent speaks first:
//!
//! ```text
//! agent: Open -> us: Greeting (or Refusal, end) -> agent: Hello -> us: orders; agent: reports -> ... -> either side ends
//! ```
//!
//! The stream of answers is returned at once and greeted later, so that neither side waits for the other's headers.

use std::time::Duration;

use bellows_core::ids::{NodeId, SessionId};
use bellows_core::input::AgentIdentity;
use bellows_proto::node as wire;
use tokio::sync::oneshot;
use tonic::{Status, Streaming};
use wire::from_agent::Body;

use super::join::check_protocol;
use super::streams::Answers;
use crate::convert::{
    Malformed, Told, check_text, fence_from_wire, hello_from_wire, report_from_wire, subscription_from_wire,
    traffic_report_from_wire,
};
use crate::driver::{AgentMessage, Closed, Handle, Outbox, outbox};

/// From the stream's beginning to `Open`: the agent has nothing to prepare for it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A machine's, a boot's or an agent's id.
const MAX_IDENTITY_BYTES: usize = 128;

/// Serves one stream of one node.
pub(super) fn serve(driver: Handle, node: NodeId, stream: Streaming<wire::FromAgent>) -> Answers<wire::ToAgent> {
    let (outbox, answers, closed) = outbox();
    tokio::spawn(async move {
        if let Err(status) = speak(&driver, node, stream, outbox, closed).await {
            tracing::debug!(%node, status = status.message(), "an agent's stream ended");
        }
    });
    Box::pin(answers)
}

async fn speak(
    driver: &Handle,
    node: NodeId,
    mut stream: Streaming<wire::FromAgent>,
    outbox: Outbox,
    closed: Closed,
) -> Result<(), Status> {
    let open = match opened(&mut stream).await {
        Ok(open) => open,
        Err(status) => {
            outbox.close(wire::Refusal { text: status.message().to_owned(), ..Default::default() });
            return Err(status);
        }
    };
    let fence = fence_from_wire("open.fence", open.fence).unwrap_or_default(); // a new agent has obeyed none
    let (session, given) = oneshot::channel();
    let agent = AgentIdentity { machine: open.machine, boot: open.boot, instance: open.instance };
    let connecting = AgentMessage::Connecting { node, agent, fence, outbox, session };
    driver.agent(connecting).await?;
    let session = given.await.map_err(|_| Status::unavailable("the controller is stopping"))?;
    let ended = tokio::select! {
        ended = listen(driver, node, session, &mut stream) => ended,
        () = closed.closed() => Ok(()), // refused: what it still says is of no use
    };
    driver.agent(AgentMessage::Disconnected { node, session }).await?;
    ended
}

async fn opened(stream: &mut Streaming<wire::FromAgent>) -> Result<wire::Open, Status> {
    let first = tokio::time::timeout(OPEN_TIMEOUT, stream.message()).await;
    let first =
        first.map_err(|_| Status::deadline_exceeded("the agent said nothing for 10 s; a session begins with Open"))?;
    let Some(Body::Open(open)) = first?.and_then(|first| first.body) else {
        return Err(Malformed::new("body", "a session begins with Open").into());
    };
    check_protocol(open.protocol)?;
    for (field, word) in [("machine", &open.machine), ("boot", &open.boot), ("instance", &open.instance)] {
        check_text(&format!("open.{field}"), word, MAX_IDENTITY_BYTES)?;
    }
    Ok(open)
}

async fn listen(
    driver: &Handle,
    node: NodeId,
    session: SessionId,
    stream: &mut Streaming<wire::FromAgent>,
) -> Result<(), Status> {
    while let Some(message) = stream.message().await? {
        match taken(node, session, message) {
            Ok(message) => driver.agent(message).await?,
            Err(malformed) => {
                let why = malformed.to_string();
                driver.agent(AgentMessage::Unfit { node, session, why }).await?;
                return Err(malformed.into());
            }
        }
    }
    Ok(())
}

fn taken(node: NodeId, session: SessionId, message: wire::FromAgent) -> Result<AgentMessage, Malformed> {
    match message.body {
        Some(Body::Hello(hello)) => {
            same_session("hello.session", session, hello.session)?;
            let told = hello_from_wire(hello).map_err(|malformed| malformed.within("hello"))?;
            let Told { facts, inventory, remembered } = told;
            Ok(AgentMessage::Hello { node, session, facts, inventory, remembered })
        }
        Some(Body::Alive(alive)) => Ok(AgentMessage::Alive { node, session, newcomer: SessionId(alive.nonce) }),
        Some(Body::Report(report)) => {
            same_session("report.session", session, report.session)?;
            let report = report_from_wire(report).map_err(|malformed| malformed.within("report"))?;
            Ok(AgentMessage::Report { node, session, report })
        }
        Some(Body::Open(_)) => Err(Malformed::new("body", "Open was said already")),
        Some(Body::Subscribe(told)) => {
            same_session("subscribe.session", session, told.session)?;
            let (apps, dropped) = subscription_from_wire(told).map_err(|malformed| malformed.within("subscribe"))?;
            Ok(AgentMessage::Subscribe { node, session, apps, dropped })
        }
        Some(Body::Traffic(told)) => {
            same_session("traffic.session", session, told.session)?;
            let report = traffic_report_from_wire(told).map_err(|malformed| malformed.within("traffic"))?;
            Ok(AgentMessage::Traffic { node, session, report })
        }
        None => Err(Malformed::new("body", "is missing, or is something that this version does not know")),
    }
}

fn same_session(field: &str, own: SessionId, said: u64) -> Result<(), Malformed> {
    match said == own.0 {
        true => Ok(()),
        false => Err(Malformed::new(field, format!("is {said} on a stream that was greeted as session {}", own.0))),
    }
}
