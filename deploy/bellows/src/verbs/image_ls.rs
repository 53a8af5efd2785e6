//! `bellows image ls`.

use bellows_proto::operator::ListImagesRequest;
use clap::Args;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::views::Image;
use crate::output::{self, Table};
use crate::units;

const AFTER: &str = "\
Example:
  bellows image ls -o json | jq -r '.[] | .image + \" \" + .digest'

JSON: a list of {image, digest, size_bytes, at_unix_ms}";

/// Digits of a digest that tell images apart for people.
const SHORT_DIGEST: usize = "sha256:".len() + 12;

/// List images
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {}

/// Lists them.
pub async fn run(_arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let mut connection = Connection::open(globals)?;
    let answer = connection.ask(async |client| client.list_images(ListImagesRequest {}).await).await?;
    let images: Vec<Image> = answer.images.into_iter().map(Image::from).collect();
    if globals.json() {
        return output::json(&images);
    }
    let mut table = Table::new(&["IMAGE", "DIGEST", ">SIZE"]);
    for image in images {
        let digest = image.digest.get(..SHORT_DIGEST).unwrap_or(&image.digest).to_owned();
        table.row(vec![image.image, digest, units::show_bytes(image.size_bytes)]);
    }
    table.print("There are no images yet; `bellows image load PATH` brings one.")
}
