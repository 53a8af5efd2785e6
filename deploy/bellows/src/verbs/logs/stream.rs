//! One replica's log as a stream that mends itself: every chunk says its place, and when the connection breaks the next one is asked for
//! what comes after the last place.

use std::time::{Duration, Instant};

use bellows_proto::operator::{LogChunk, LogsRequest};
use tonic::{Code, Status, Streaming};

use crate::connection::{self, Connection};
use crate::failure::{Failure, Kind};

/// Pause between tries while no controller answers; each try is itself patient for some seconds.
const PAUSE: Duration = Duration::from_millis(200);

/// A controller that has just begun knows a replica when its node has reported: within seconds, and a busy machine may take longer.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(60);

/// Its text, chunk by chunk.
pub struct LogStream {
    connection: Connection,
    request: LogsRequest,
    stream: Streaming<LogChunk>,
    /// What was given so far can be gone on from.
    resumable: bool,
}

impl LogStream {
    /// Asks. What is wrong with the request is told here.
    pub async fn open(mut connection: Connection, request: LogsRequest) -> Result<Self, Failure> {
        let stream = connection.ask(async |client| client.logs(request).await).await?;
        Ok(Self { connection, request, stream, resumable: true })
    }

    /// The next bytes; none at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            match self.stream.message().await {
                Ok(Some(chunk)) => return Ok(Some(self.take(chunk))),
                Ok(None) => return Ok(None),
                Err(status) if self.resumable && passing(&status) => self.resume(&status).await?,
                Err(status) => return Err(connection::failure(&status)),
            }
        }
    }

    fn take(&mut self, chunk: LogChunk) -> Vec<u8> {
        let LogChunk { data, position, notice } = chunk;
        if !notice.is_empty() {
            eprintln!("warning: {notice}");
        }
        if !data.is_empty() {
            self.resumable = position.is_some();
        }
        self.request.from = position.or(self.request.from);
        data
    }

    /// Asks anew from the last place. While it follows, for as long as no controller answers.
    async fn resume(&mut self, broken: &Status) -> Result<(), Failure> {
        let began = Instant::now();
        let mut told = false;
        loop {
            let request = self.request;
            let failure = match self.connection.ask(async |client| client.logs(request).await).await {
                Ok(stream) => {
                    self.stream = stream;
                    return Ok(());
                }
                Err(failure) => failure,
            };
            let patient = match failure.kind() {
                Kind::Unreachable => request.follow,
                Kind::NotFound => request.follow && began.elapsed() < UNKNOWN_PATIENCE,
                _ => false,
            };
            if !patient {
                return Err(failure);
            }
            if !told {
                eprintln!("warning: the log broke off ({}); waiting for a controller", broken.message());
                told = true;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Is it the connection that failed, not the request?
fn passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted | Code::DeadlineExceeded
    )
}
