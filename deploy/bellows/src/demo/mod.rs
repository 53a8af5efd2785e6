//! The demo app: a small HTTP server that does what it is told: burn CPU, hold memory, hang, crash.
//!
//! It lives in the executable so that `bellows dev --demo` needs nothing else. One thread serves; burning has threads of its own.
//! Reading order: [`run`], `routes` (what it can be told), `load` (what it does to the machine), `page`.
//!
//! Deliberately absent: state that outlives the process, anything that another replica knows.

mod load;
mod page;
mod routes;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// The demo app (hidden); it listens on $PORT, 8080 when unset
#[derive(Args, Debug)]
pub struct Arguments {
    /// SIGTERM ends it at once, as it ends programs that do not care
    #[arg(long)]
    abrupt: bool,
}

/// Where it listens unless `$PORT` says otherwise.
const DEFAULT_PORT: u16 = 8080;

/// How long requests under way may go on after SIGTERM. Less than the 10 s that an app's stop grace is by default.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why the demo app did not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `$PORT` is not a port.
    #[error("$PORT is {0:?}, which is no port: use a number from 1 to 65535 or leave it unset for {DEFAULT_PORT}")]
    Port(String),
    /// The event loop or the signal handlers could not be made.
    #[error("preparing the demo app's server")]
    Prepare(#[source] io::Error),
    /// The port cannot be had.
    #[error("listening on {address} (is another program there? set $PORT)")]
    Listen {
        /// What was tried.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The server stopped by itself.
    #[error("serving")]
    Serve(#[source] io::Error),
}

/// Serves until SIGTERM or SIGINT. Called before any thread or async runtime exists.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    serve_until_told(arguments.abrupt).map_err(|error| Failure::from_error(&error))
}

fn serve_until_told(abrupt: bool) -> Result<(), Error> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port(std::env::var("PORT").ok())?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Prepare)?;
    runtime.block_on(async {
        let asked_to_end: Pin<Box<dyn Future<Output = ()> + Send>> = match abrupt {
            true => Box::pin(std::future::pending()),
            false => Box::pin(asked_to_end().map_err(Error::Prepare)?),
        };
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        println!("demo app listens on {address}");
        serve(listener, asked_to_end).await
    })
}

fn port(variable: Option<String>) -> Result<u16, Error> {
    match variable {
        None => Ok(DEFAULT_PORT),
        Some(text) => text.parse().ok().filter(|port| *port != 0).ok_or(Error::Port(text)),
    }
}

fn asked_to_end() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Serves until `end` comes true, then lets requests under way finish within [`FAREWELL`].
async fn serve(listener: TcpListener, end: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
    let (tell, mut told) = tokio::sync::watch::channel(false);
    let ending = async move {
        end.await;
        tell.send_replace(true);
    };
    let late = async move {
        // A closed channel means that the server went first: then nobody waits for this branch.
        let _ = told.wait_for(|ended| *ended).await;
        tokio::time::sleep(FAREWELL).await;
    };
    let server = axum::serve(listener, routes::router()).with_graceful_shutdown(ending);
    tokio::select! {
        served = server => served.map_err(Error::Serve),
        () = late => Ok(()),
    }
}
