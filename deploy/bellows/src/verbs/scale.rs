//! `bellows scale`.

use std::time::Instant;

use bellows_proto::operator::ScaleRequest;
use clap::Args;

use crate::appfile::ranges::COPIES;
use crate::connection::{self, Connection};
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::{self, views};
use crate::verbs::apply::changed;
use crate::waiting::{self, Wish};

const AFTER: &str = "\
Examples:
  bellows scale web 50 --wait            until 50 copies are ready; prints the time taken
  bellows scale web 0                    end all copies, keep the app
  bellows scale web 50 --wait -o json | jq .waited_ms

Apps with a policy are scaled by their load: change the policy's bounds with `bellows apply`.

JSON: {id, app, tenant, generation, changed, image_digest, dry_run}, with --wait also wanted, ready, waited_ms";

/// Say how many copies of an app you want
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// Which app
    app: String,

    /// How many copies
    #[arg(value_parser = copies, allow_negative_numbers = true)]
    copies: u32,

    #[command(flatten)]
    waiting: waiting::Flags,

    /// Refuse when the app is at another generation
    #[arg(long, value_name = "GENERATION")]
    expect: Option<u64>,
}

fn copies(text: &str) -> Result<u32, String> {
    let possible = |count: &u32| (COPIES.least..=COPIES.most).contains(&u64::from(*count));
    text.parse().ok().filter(possible).ok_or_else(|| {
        format!("expected a whole number from {} to {}, for example {}", COPIES.least, COPIES.most, COPIES.example)
    })
}

/// Declares the count, and waits if asked.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let mut connection = Connection::open(globals)?;
    let began = Instant::now();
    let request = ScaleRequest {
        tenant: globals.tenant.clone(),
        app: arguments.app.clone(),
        replicas: arguments.copies,
        idempotency_key: connection::idempotency_key(),
        expected_generation: arguments.expect,
    };
    let answer = connection.ask(async |client| client.scale(request.clone()).await).await?;
    let wish = Wish { tenant: &globals.tenant, app: &arguments.app, generation: answer.generation };
    let waited = match arguments.waiting.wait {
        true => Some(waiting::until_settled(&mut connection, &wish, &arguments.waiting, globals, began).await?),
        false => None,
    };
    let change = views::Changed { waited, ..changed(answer, &globals.tenant, &arguments.app) };
    if globals.json() { output::json(&change) } else { output::line(&sentence(&change, arguments.copies)) }
}

fn sentence(change: &views::Changed, copies: u32) -> String {
    let what = if change.changed { "scaled to" } else { "is already at" };
    let noun = if copies == 1 { "copy" } else { "copies" };
    let ready = change.waited.map(|waited| waiting::ready_sentence(&waited)).unwrap_or_default();
    format!("{} {what} {copies} {noun}, generation {}{ready}", change.app, change.generation)
}
