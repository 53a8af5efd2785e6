//! `--wait`: until an app has settled at a generation.

use std::time::{Duration, Instant};

use bellows_proto::operator::{AwaitProgress, AwaitRequest};
use indicatif::{ProgressBar, ProgressStyle};
use tonic::Code;

use crate::connection::Connection;
use crate::failure::{Failure, Kind};
use crate::globals::Globals;
use crate::output::views::{self, Waited};
use crate::{output, units};

/// How to wait.
#[derive(clap::Args, Debug, Clone)]
pub struct Flags {
    /// Wait until every wanted copy is ready and no surplus is alive
    #[arg(long)]
    pub wait: bool,

    /// How long to wait at most; what was asked stands all the same
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = units::duration_ms, requires = "wait")]
    pub timeout: u64,
}

/// What is waited for.
pub struct Wish<'w> {
    pub tenant: &'w str,
    pub app: &'w str,
    pub generation: u64,
}

/// Waits until the app has settled; `began` is when the wish was sent.
pub async fn until_settled(
    connection: &mut Connection,
    wish: &Wish<'_>,
    flags: &Flags,
    globals: &Globals,
    began: Instant,
) -> Result<Waited, Failure> {
    let bar = output::progress_bar(globals.json());
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} ready, {elapsed_precise} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(wish.app.to_owned());
    let mut last = None;
    let watched = watch(connection, wish, &bar, &mut last);
    let left = Duration::from_millis(flags.timeout).saturating_sub(began.elapsed());
    let outcome = tokio::time::timeout(left, watched).await;
    bar.finish_and_clear();
    match outcome {
        Ok(settled) => settled.map(|progress| waited(&progress, began)),
        Err(_) => Err(too_late(wish, flags, last.as_ref())),
    }
}

fn waited(progress: &AwaitProgress, began: Instant) -> Waited {
    Waited { wanted: progress.wanted, ready: progress.ready, waited_ms: began.elapsed().as_millis() as u64 }
}

/// Reads progress; a stream that breaks is asked for again, because the controller may have restarted.
async fn watch(
    connection: &mut Connection,
    wish: &Wish<'_>,
    bar: &ProgressBar,
    last: &mut Option<AwaitProgress>,
) -> Result<AwaitProgress, Failure> {
    let request =
        AwaitRequest { tenant: wish.tenant.to_owned(), app: wish.app.to_owned(), generation: wish.generation };
    loop {
        let mut stream = connection.ask(async |client| client.r#await(request.clone()).await).await?;
        loop {
            match stream.message().await {
                Ok(Some(progress)) if progress.settled => return Ok(progress),
                Ok(Some(progress)) => {
                    show(bar, &progress);
                    *last = Some(progress);
                }
                Ok(None) => break,
                Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown) => break,
                Err(status) => return Err(connection.explain(&status, Duration::ZERO)),
            }
        }
    }
}

fn show(bar: &ProgressBar, progress: &AwaitProgress) {
    bar.set_length(u64::from(progress.wanted));
    bar.set_position(u64::from(progress.ready));
    bar.set_message(unsettled(progress));
}

/// The controller's own words; they count ready and surplus copies.
fn unsettled(progress: &AwaitProgress) -> String {
    views::sentence(&views::reason(progress.reason.clone()))
}

fn too_late(wish: &Wish<'_>, flags: &Flags, last: Option<&AwaitProgress>) -> Failure {
    let app = wish.app;
    let seen = match last.map(|progress| (progress, unsettled(progress))) {
        None => "nothing was heard of its copies".to_owned(),
        Some((progress, why)) if why.is_empty() => {
            format!(
                "{} of {} copies are ready, {} too many are alive",
                progress.ready, progress.wanted, progress.surplus
            )
        }
        Some((_, why)) => why,
    };
    Failure::new(
        Kind::TimedOut,
        format!("app \"{app}\" has not settled within {}: {seen}", units::show_ms(flags.timeout)),
    )
    .mend(format!(
        "what you asked for stands; `bellows explain {app}` says what is in the way, `--timeout` waits longer"
    ))
}

/// `; 50 of 50 ready after 1.204 s`.
pub fn ready_sentence(waited: &Waited) -> String {
    let Waited { wanted, ready, waited_ms } = waited;
    format!("; {ready} of {wanted} ready after {}.{:03} s", waited_ms / 1_000, waited_ms % 1_000)
}
