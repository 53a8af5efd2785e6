//! Images that are none, are damaged, or mean harm: each is refused with its place and the way out, nothing is sent, nothing is left behind, and
//! a good image is taken afterwards.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::fake::Fake;
use crate::image_support::{Blobs, Layer, Stored, blob_in};
use crate::run::{Outcome, command, outcome};

/// A cluster that listens, and a folder in which images are put together.
struct Bench {
    fake: Fake,
    place: tempfile::TempDir,
    told: String,
}

impl Bench {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(place.path().join("tmp")).expect("a temporary folder");
        Self { fake: Fake::start(), place, told: String::new() }
    }

    fn load(&self, path: &Path, more: &[&str]) -> Outcome {
        let path = path.to_str().expect("a temporary path is UTF-8");
        let mut load = command(self.fake.home.path(), &[&["image", "load", path], more].concat());
        load.env("TMPDIR", self.place.path().join("tmp"));
        outcome(load)
    }

    /// Loads what `make` puts at the path. Nothing may be sent, nothing left.
    fn refused(&mut self, title: &str, make: impl FnOnce(&Path)) {
        let path = self.place.path().join("image");
        make(&path);
        let refused = self.load(&path, &["--name", "web:1"]);
        assert!(self.fake.heard().is_empty(), "{title}: {:?}", self.fake.heard());
        let left: Vec<_> = fs::read_dir(self.place.path().join("tmp")).expect("a temporary folder").collect();
        assert!(left.is_empty(), "{title}: {left:?}");
        let place = self.place.path().display().to_string();
        writeln!(self.told, "# {title}\n{}", refused.told(&[(&place, "")])).expect("a String takes everything");
        match path.symlink_metadata() {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&path).expect("a folder of ours"),
            Ok(_) => fs::remove_file(&path).expect("a file of ours"),
            Err(_) => {}
        }
    }

    /// An image with these layers.
    fn layers(&mut self, title: &str, layers: &[Vec<u8>], stored: Stored) {
        self.refused(title, |path| Blobs::new(layers, stored).write_layout(path, "1").expect("a temporary folder"));
    }

    /// An image of one layer.
    fn layer(&mut self, title: &str, layer: Layer) {
        self.layers(title, &[layer.finish()], Stored::Gzip);
    }

    /// A good image in which something is then changed.
    fn damaged(&mut self, title: &str, damage: impl FnOnce(&Path, &Blobs)) {
        self.refused(title, |path| {
            let blobs = good();
            blobs.write_layout(path, "1").expect("a temporary folder");
            damage(path, &blobs);
        });
    }

    /// The golden file, and the right thing done afterwards.
    fn finish(self) -> String {
        let path = self.place.path().join("image");
        good().write_layout(&path, "1").expect("a temporary folder");
        let loaded = self.load(&path, &["--name", "web:1"]);
        assert_eq!(loaded.code, 0, "{loaded:?}");
        assert_eq!(self.fake.memory.blobs.lock().expect("no panic while held").len(), 3);
        self.told
    }
}

fn good() -> Blobs {
    Blobs::new(&[Layer::default().folder("bin", 0o755).file("bin/app", b"#!/bin/sh\n").finish()], Stored::Gzip)
}

fn write(path: PathBuf, bytes: impl AsRef<[u8]>) {
    fs::write(path, bytes).expect("a temporary file");
}

#[test]
fn no_image_at_all() {
    let mut bench = Bench::new();
    bench.refused("nothing there", |_| {});
    bench.refused("an empty folder", |path| fs::create_dir(path).expect("a temporary folder"));
    bench.refused("an empty file", |path| write(path.to_owned(), ""));
    bench.refused("a text", |path| write(path.to_owned(), "not an image at all ".repeat(100)));
    bench.refused("a link to nowhere", |path| symlink("/nonexistent", path).expect("a temporary folder"));
    bench.refused("a tar archive of something else", |path| {
        write(path.to_owned(), Layer::default().file("notes.txt", b"hello").finish());
    });
    bench.damaged("no index", |path, _| fs::remove_file(path.join("index.json")).expect("it is there"));
    bench.damaged("an index that is no JSON", |path, _| write(path.join("index.json"), "[["));
    bench.damaged("a layout of a later version", |path, _| {
        write(path.join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#);
    });
    insta::assert_snapshot!("no_image_at_all", bench.finish());
}

#[test]
fn damaged_on_the_way() {
    let mut bench = Bench::new();
    bench.damaged("a truncated layer", |path, blobs| {
        write(blob_in(path, &blobs.layers[0]), &blobs.layers[0][..50]);
    });
    bench.damaged("a layer that is longer than it says", |path, blobs| {
        write(blob_in(path, &blobs.layers[0]), [&blobs.layers[0][..], b"more"].concat());
    });
    bench.damaged("a flipped bit", |path, blobs| {
        let mut layer = blobs.layers[0].clone();
        layer[40] ^= 1;
        write(blob_in(path, &blobs.layers[0]), layer);
    });
    bench.damaged("another manifest", |path, blobs| {
        let other = String::from_utf8(blobs.manifest.clone()).expect("JSON").replacen("layers", "lavers", 1);
        write(blob_in(path, &blobs.manifest), other);
    });
    bench.damaged("a layer is missing", |path, blobs| {
        fs::remove_file(blob_in(path, &blobs.layers[0])).expect("it is there");
    });
    bench.damaged("a layer that leads out of the layout", |path, blobs| {
        let blob = blob_in(path, &blobs.layers[0]);
        fs::remove_file(&blob).expect("it is there");
        symlink("/etc/passwd", blob).expect("a temporary folder");
    });
    bench.damaged("a digest that climbs", |path, blobs| {
        let index = fs::read_to_string(path.join("index.json")).expect("it is there");
        let hex = bellows_runtime::image::Digest::of(&blobs.manifest).hex();
        write(path.join("index.json"), index.replace(&hex, &format!("{:.>64}", "/../../x")));
    });
    bench.refused("a layer that is no archive", |path| {
        let blobs = Blobs::new(&[b"this is no archive".repeat(100)], Stored::Plain);
        blobs.write_layout(path, "1").expect("a temporary folder");
    });
    let archive = good();
    bench.refused("a truncated archive", |path| {
        let whole = archived(&archive);
        write(path.to_owned(), &whole[..whole.len() / 2]);
    });
    insta::assert_snapshot!("damaged_on_the_way", bench.finish());
}

/// The layout as one archive.
fn archived(blobs: &Blobs) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    blobs.write_layout(folder.path(), "1").expect("a temporary folder");
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all("", folder.path()).and_then(|()| archive.into_inner()).expect("memory takes everything")
}

#[test]
fn layers_that_mean_harm() {
    let mut bench = Bench::new();
    let layer = Layer::default;
    bench.layer("an absolute path", layer().file("/etc/passwd", b"x"));
    bench.layer("a path that climbs", layer().file("../canary", b"x"));
    bench.layer("a path that climbs later", layer().folder("a", 0o755).file("a/../../canary", b"x"));
    bench.layer("a link that climbs", layer().symlink("out", "../../etc"));
    bench.layer("a hard link that climbs", layer().hardlink("out", "../../etc/passwd"));
    bench.layer("a hard link to an absolute path", layer().hardlink("out", "/etc/passwd"));
    bench.layer("links in a circle", layer().symlink("a", "b").symlink("b", "a").file("a/x", b"x"));
    bench.layer("a path through a file", layer().file("a", b"x").file("a/b", b"x"));
    bench.layer("a newline in a name", layer().file("a\nb", b"x"));
    bench.layer("a device", layer().raw(b"disk", b'4', 0o666, b"", 0, b""));
    let cut = layer().raw(b"cut", b'0', 0o644, b"", 10_000, b"only this").unfinished();
    bench.layers("a size that lies", &[cut], Stored::Plain);
    insta::assert_snapshot!("layers_that_mean_harm", bench.finish());
}

/// The bounds are the usual ones: 127 layers, 200 times its size, 64 GiB. (2,000,000 inodes take this long to count that the store's own tests
/// do it with a lower bound: `runtime/tests/image_tricks.rs`.)
#[test]
fn bombs() {
    let mut bench = Bench::new();
    let layer = Layer::default;
    let one = layer().file("a", b"x").finish();
    bench.layers("too many layers", &vec![one; 128], Stored::Plain);
    bench.layers(
        "a file that says to have 90 GB",
        &[layer().pax(&[("size", b"90000000000")]).file("big", b"x").finish()],
        Stored::Plain,
    );
    bench.layers("a compression bomb", &[layer().file("zeros", &vec![0; 80 << 20]).finish()], Stored::Zstd);
    insta::assert_snapshot!("bombs", bench.finish());
}
