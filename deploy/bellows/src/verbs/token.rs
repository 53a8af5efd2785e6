//! `bellows token`.

use bellows_proto::operator::CreateTokenRequest;
use clap::Args;
use serde_json::json;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output;
use crate::units;

const AFTER: &str = "\
Examples:
  bellows token                          prints the token alone on stdout, how to use it on stderr
  bellows agent --controller HOST:PORT --token \"$(bellows token --valid 10m)\"

Whoever has the token can add servers until it expires: treat it as a password.

JSON: {token, expires_unix_ms, controller}";

/// Make a token with which servers may join
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// For how long
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = units::duration_ms)]
    valid: u64,
}

/// Makes one and prints it.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    if arguments.valid == 0 {
        return Err(Failure::usage("--valid 0s: a token must be valid for some time, for example 10m"));
    }
    let mut connection = Connection::open(globals)?;
    let request = CreateTokenRequest { valid_ms: arguments.valid };
    let answer = connection.ask(async |client| client.create_token(request).await).await?;
    let controller = connection.address().trim_start_matches("https://").to_owned();
    if globals.json() {
        return output::json(
            &json!({ "token": answer.token, "expires_unix_ms": answer.expires_unix_ms, "controller": controller }),
        );
    }
    eprintln!("On the server that shall join, within {}:", units::show_ms(arguments.valid));
    eprintln!("  bellows agent --controller {controller} --token TOKEN");
    output::line(&answer.token)
}
