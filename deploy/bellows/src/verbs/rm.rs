//! `bellows rm`.

use std::time::Instant;

use bellows_proto::operator::RemoveAppRequest;
use clap::Args;

use crate::connection::{self, Connection};
use crate::failure::{Failure, Kind};
use crate::globals::Globals;
use crate::output::{self, views};
use crate::verbs::apply::changed;
use crate::waiting::{self, Wish};

const AFTER: &str = "\
Examples:
  bellows rm web --wait                  until its last copy has ended
  bellows rm web --expect 7              only if nobody changed it since generation 7

JSON: {id, app, tenant, generation, changed, image_digest, dry_run}, with --wait also wanted, ready, waited_ms";

/// Remove an app and end its copies
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// Which app
    app: String,

    #[command(flatten)]
    waiting: waiting::Flags,

    /// Refuse when the app is at another generation
    #[arg(long, value_name = "GENERATION")]
    expect: Option<u64>,
}

/// Removes it, and waits if asked.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let mut connection = Connection::open(globals)?;
    let began = Instant::now();
    let request = RemoveAppRequest {
        tenant: globals.tenant.clone(),
        app: arguments.app.clone(),
        idempotency_key: connection::idempotency_key(),
        expected_generation: arguments.expect,
    };
    let answer = connection.ask(async |client| client.remove_app(request.clone()).await).await?;
    let wish = Wish { tenant: &globals.tenant, app: &arguments.app, generation: answer.generation };
    let waited = match arguments.waiting.wait {
        true => {
            Some(gone(waiting::until_settled(&mut connection, &wish, &arguments.waiting, globals, began).await, began)?)
        }
        false => None,
    };
    let change = views::Changed { waited, ..changed(answer, &globals.tenant, &arguments.app) };
    if globals.json() { output::json(&change) } else { output::line(&sentence(&change)) }
}

/// An app that nobody knows any more has ended: that is what was waited for.
fn gone(waited: Result<views::Waited, Failure>, began: Instant) -> Result<views::Waited, Failure> {
    match waited {
        Err(failure) if failure.kind() == Kind::NotFound => {
            Ok(views::Waited { wanted: 0, ready: 0, waited_ms: began.elapsed().as_millis() as u64 })
        }
        other => other,
    }
}

fn sentence(change: &views::Changed) -> String {
    match change.waited {
        Some(waited) => {
            format!(
                "{} removed; its last copy ended after {}.{:03} s",
                change.app,
                waited.waited_ms / 1_000,
                waited.waited_ms % 1_000
            )
        }
        None => format!("{} removed; its copies end now", change.app),
    }
}
