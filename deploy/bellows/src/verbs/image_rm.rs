//! `bellows image rm`.

use bellows_proto::operator::RemoveImageRequest;
use clap::Args;
use serde_json::json;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output;

const AFTER: &str = "\
Example:
  bellows image rm web:1.1

JSON: {image, state: \"removed\"}";

/// Forget an image's name; refused while an app runs it
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// Which
    image: String,
}

/// Says so.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let mut connection = Connection::open(globals)?;
    let request = RemoveImageRequest { name: arguments.image.clone() };
    connection.ask(async |client| client.remove_image(request.clone()).await).await?;
    match globals.json() {
        true => output::json(&json!({ "image": arguments.image, "state": "removed" })),
        false => output::line(&format!("{} is forgotten; its bytes go with the next cleaning", arguments.image)),
    }
}
