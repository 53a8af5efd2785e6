//! Health checks as they are made: from inside the container's network, or by a program in it, each in its time.
//!
//! When they are due and what they mean is the core's to say.

mod http;
mod program;

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use bellows_agent_core::{Probe, ReplicaId};
use bellows_proto::types::check::How;
use bellows_proto::types::{AppSpec, Check, TcpCheck};
use tokio::net::{TcpSocket, TcpStream};

use crate::containers::{Containers, container};
use crate::images::Images;
use crate::worker::chain;

/// What checks are made with.
pub(crate) struct Checks {
    pub(crate) node: String,
    pub(crate) containers: Arc<dyn Containers>,
    pub(crate) images: Arc<Images>,
}

/// What a check does, in words.
pub(crate) fn in_words(check: &Check) -> String {
    match &check.how {
        Some(How::Exec(exec)) => exec.command.join(" "),
        Some(How::Http(http)) => format!("GET {} on port {}", http.path, http.port),
        Some(How::Tcp(TcpCheck { port })) => format!("TCP port {port}"),
        None => "a check that this agent does not know".to_owned(),
    }
}

impl Checks {
    /// Makes one check of a spec; why it failed, in words.
    pub(crate) async fn check(
        &self,
        replica: ReplicaId,
        attempt: u32,
        probe: Probe,
        spec: &Arc<AppSpec>,
    ) -> Result<(), String> {
        let health = spec.health.clone().unwrap_or_default();
        let check = match probe {
            Probe::Startup => health.startup,
            Probe::Liveness => health.liveness,
            Probe::Readiness => health.readiness,
        };
        let Some(Check { how: Some(how), timeout_ms, .. }) = check else {
            return Err("its spec has no such check that this agent knows".to_owned());
        };
        let made = self.make(replica, attempt, how, spec);
        match tokio::time::timeout(Duration::from_millis(timeout_ms), made).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {timeout_ms} ms")),
        }
    }

    async fn make(&self, replica: ReplicaId, attempt: u32, how: How, spec: &Arc<AppSpec>) -> Result<(), String> {
        match how {
            How::Tcp(TcpCheck { port }) => self.connect(replica, attempt, port).await.map(drop),
            How::Http(check) => http::get(self.connect(replica, attempt, check.port).await?, &check).await,
            How::Exec(check) => self.execute(replica, attempt, check.command, spec).await,
        }
    }

    /// To the copy's own address, by a socket of its own network: what listens on its loopback only is not reached, by clients neither.
    async fn connect(&self, replica: ReplicaId, attempt: u32, port: u32) -> Result<TcpStream, String> {
        let id = container(replica, attempt);
        let port = u16::try_from(port).map_err(|_| format!("{port} is no port"))?;
        let made = self.containers.socket(&id).and_then(|socket| Ok((socket, self.containers.address(&id)?)));
        let (socket, address) = made.map_err(|error| chain(&error))?;
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
        socket.connect(SocketAddrV4::new(address, port).into()).await.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellows_proto::types::{ExecCheck, HttpCheck};

    #[test]
    fn checks_are_told_in_words() {
        let of = |how| in_words(&Check { how: Some(how), ..Check::default() });
        assert_eq!(of(How::Tcp(TcpCheck { port: 80 })), "TCP port 80");
        let http = HttpCheck { port: 80, path: "/live".to_owned(), headers: Vec::new() };
        assert_eq!(of(How::Http(http)), "GET /live on port 80");
        let exec = ExecCheck { command: vec!["test".to_owned(), "-f".to_owned(), "/ok".to_owned()] };
        assert_eq!(of(How::Exec(exec)), "test -f /ok");
    }
}
