//! `bellows events`.

use std::time::Duration;

use bellows_proto::operator::EventsRequest;
use clap::Args;
use tonic::Code;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output;
use crate::output::views::{self, Event};

const AFTER: &str = "\
Examples:
  bellows events                         what is still remembered
  bellows events -f --app web            and what happens from now on, until Ctrl-C
  bellows events -f -o json | jq -c 'select(.kind == \"replica_ended\")'

JSON: one event per line: {sequence, at_unix_ms, kind, app, replica, node, reason: {code, text}}";

/// What happened, and why
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,

    /// Only of this app
    #[arg(long)]
    app: Option<String>,

    /// Only those after this sequence number
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    after: u64,
}

/// Prints them as they come; goes on where it was when the controller restarts.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let mut connection = Connection::open(globals)?;
    let mut request =
        EventsRequest { follow: arguments.follow, after: arguments.after, app: arguments.app.unwrap_or_default() };
    loop {
        let mut stream = connection.ask(async |client| client.events(request.clone()).await).await?;
        loop {
            match stream.message().await {
                Ok(Some(event)) => {
                    request.after = event.sequence;
                    print(event.into(), globals)?;
                }
                Ok(None) if !request.follow => return Ok(()),
                Ok(None) => break,
                Err(status) if request.follow && matches!(status.code(), Code::Unavailable | Code::Unknown) => break,
                Err(status) => return Err(connection.explain(&status, Duration::ZERO)),
            }
        }
    }
}

fn print(event: Event, globals: &Globals) -> Result<(), Failure> {
    if globals.json() {
        return output::json_line(&event);
    }
    let subject: Vec<String> = [&event.app, &event.replica, &event.node].into_iter().flatten().cloned().collect();
    let text = format!(
        "{} {:<20} {}  {}",
        time(event.at_unix_ms),
        event.kind,
        subject.join(" "),
        views::sentence(&event.reason)
    );
    output::line(&text.replace(|c: char| c.is_control(), " "))
}

/// The person's own time of day, with the date.
fn time(unix_ms: u64) -> String {
    let stamp = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    match stamp {
        Some(stamp) => stamp.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        None => format!("{unix_ms}"),
    }
}
