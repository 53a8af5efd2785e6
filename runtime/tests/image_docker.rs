//! `docker save` archives, written here as its versions wrote them: with links from layer to layer, with an OCI layout inside, with
//! several images; and as nobody should.

mod image_support;

use std::fs;

use bellows_runtime::image::{Digest, Error, Limits, Loaded, Wanted};
use image_support::{Blobs, Layer, Outcome, Place, Stored, descriptor};
use serde_json::{Value, json};

/// One image: its parts as Docker keeps them, layers plain.
fn image(content: &str) -> Blobs {
    let base = Layer::default().folder("etc", 0o755).file("etc/base", b"shared").finish();
    let own = Layer::default().file("etc/own", content.as_bytes()).finish();
    Blobs::new(&[base, own], Stored::Plain)
}

fn old_entry(image: &Blobs, tags: &[&str], layers: &[&str]) -> Value {
    json!({ "Config": format!("{}.json", Digest::of(&image.config).hex()), "RepoTags": tags, "Layers": layers })
}

/// As Docker before 25: a folder per layer, each with a link to the first that holds the same.
fn old(image: &Blobs, tags: &[&str]) -> Layer {
    let config = format!("{}.json", Digest::of(&image.config).hex());
    Layer::default()
        .folder("first/", 0o755)
        .file("first/VERSION", b"1.0")
        .file("first/layer.tar", &image.layers[0])
        .folder("second/", 0o755)
        .file("second/layer.tar", &image.layers[1])
        .symlink("third/layer.tar", "../first/layer.tar")
        .file(&config, &image.config)
        .file(
            "manifest.json",
            json!([old_entry(image, tags, &["third/layer.tar", "second/layer.tar"])]).to_string().as_bytes(),
        )
        .file("repositories", b"{}")
}

fn blob(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::of(bytes).hex())
}

/// As Docker since 25: an OCI layout, and beside it a `manifest.json` that points into it.
fn new(images: &[Named<'_>]) -> Layer {
    let mut archive = Layer::default().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let (mut index, mut list) = (Vec::new(), Vec::new());
    for (image, tags) in images {
        for bytes in image.all() {
            archive = archive.file(&blob(bytes), bytes);
        }
        let layers: Vec<String> = image.layers.iter().map(|layer| blob(layer)).collect();
        list.push(json!({ "Config": blob(&image.config), "RepoTags": tags, "Layers": layers }));
        for tag in *tags {
            let mut own = descriptor("application/vnd.oci.image.manifest.v1+json", &image.manifest);
            let bare = tag.rsplit_once(':').map_or(*tag, |(_, bare)| bare);
            own["annotations"] = json!({
                "io.containerd.image.name": format!("registry.example/library/{tag}"), "org.opencontainers.image.ref.name": bare,
            });
            index.push(own);
        }
    }
    archive
        .file("index.json", json!({ "schemaVersion": 2, "manifests": index }).to_string().as_bytes())
        .file("manifest.json", json!(list).to_string().as_bytes())
}

fn written(place: &Place, archive: Layer) -> Result<std::path::PathBuf, Box<dyn std::error::Error>> {
    let path = place.path("layout");
    fs::write(&path, archive.finish())?;
    Ok(path)
}

fn own_file(place: &Place, name: &str) -> Result<String, Box<dyn std::error::Error>> {
    let tree = place.store.unpack(&place.store.resolve(name)?)?;
    assert_eq!(fs::read_to_string(tree.root.join("etc/base"))?, "shared", "{name}");
    Ok(fs::read_to_string(tree.root.join("etc/own"))?)
}

#[test]
fn linked_layers_of_old_archives() -> Outcome {
    let place = Place::new()?;
    let path = written(&place, old(&image("one"), &["web:1", "web:latest"]))?;
    let loaded = place.store.load(&path, None, &Limits::default())?;
    assert_eq!((loaded.names, loaded.layers), (vec!["web:1".to_owned(), "web:latest".to_owned()], 2));
    assert_eq!(own_file(&place, "web:1")?, "one");
    assert_eq!(own_file(&place, "web")?, "one", "`:latest` may be left out");
    Ok(())
}

#[test]
fn new_archives_have_the_digests_of_their_layouts_and_the_names_people_gave() -> Outcome {
    let place = Place::new()?;
    let one = image("one");
    let path = written(&place, new(&[(&one, &["web:1", "web:2"])]))?;
    let loaded = place.store.load(&path, None, &Limits::default())?;
    assert_eq!((loaded.digest, loaded.names), (one.digest(), vec!["web:1".to_owned(), "web:2".to_owned()]));
    assert_eq!(own_file(&place, "web:2")?, "one");
    Ok(())
}

/// An image with its names.
type Named<'a> = (&'a Blobs, &'a [&'a str]);

fn several(make: fn(&[Named<'_>]) -> Layer) -> Outcome {
    let place = Place::new()?;
    let (one, two) = (image("one"), image("two"));
    let path = written(&place, make(&[(&one, &["web:1"]), (&two, &["shop/db:1"])]))?;
    let load = |wanted: Wanted<'_>| place.store.load_wanted(&path, &wanted, &Limits::default());
    let error = load(Wanted::default()).expect_err("which one?");
    assert!(
        matches!(&error, Error::SeveralImages { names, .. } if names.contains("web:1") && names.contains("shop/db:1")),
        "{error}"
    );
    let error = load(Wanted { pick: Some("cache:1"), ..Wanted::default() }).expect_err("not there");
    assert!(matches!(&error, Error::NoSuchImage { names, .. } if names.contains("shop/db:1")), "{error}");
    assert_eq!(place.names_in("blobs/sha256")?, [""; 0]);
    let names = |loaded: Vec<Loaded>| loaded.into_iter().flat_map(|image| image.names).collect::<Vec<_>>();
    assert_eq!(names(load(Wanted { pick: Some("db:1"), ..Wanted::default() })?), ["shop/db:1"]);
    assert_eq!(names(load(Wanted { pick: Some("db:1"), name: Some("mine:3"), ..Wanted::default() })?), ["mine:3"]);
    assert_eq!(own_file(&place, "mine:3")?, "two");
    assert_eq!(names(load(Wanted { all: true, ..Wanted::default() })?), ["web:1", "shop/db:1"]);
    assert_eq!((own_file(&place, "web:1")?, own_file(&place, "shop/db:1")?), ("one".to_owned(), "two".to_owned()));
    Ok(())
}

#[test]
fn several_images_are_chosen_from_or_loaded_together() -> Outcome {
    several(new)?;
    several(|images| {
        let entries: Vec<Value> = images
            .iter()
            .map(|(image, tags)| {
                let layers: Vec<String> =
                    image.layers.iter().map(|layer| format!("{}.tar", Digest::of(layer).hex())).collect();
                old_entry(image, tags, &layers.iter().map(String::as_str).collect::<Vec<_>>())
            })
            .collect();
        let mut archive = Layer::default().file("manifest.json", json!(entries).to_string().as_bytes());
        for (image, _) in images {
            archive = archive.file(&format!("{}.json", Digest::of(&image.config).hex()), &image.config);
            for layer in &image.layers {
                archive = archive.file(&format!("{}.tar", Digest::of(layer).hex()), layer);
            }
        }
        archive
    })
}

#[test]
fn one_name_for_two_images_is_refused_and_nothing_is_loaded() -> Outcome {
    let place = Place::new()?;
    let path = written(&place, new(&[(&image("one"), &["web:1"]), (&image("two"), &["db:22"])]))?;
    // Of the same length, or the archive would need a new header.
    let renamed = String::from_utf8(fs::read(&path)?)?.replace(r#"["db:22"]"#, r#"["web:1"]"#);
    fs::write(&path, renamed)?;
    let error = place.store.load_wanted(&path, &Wanted { all: true, ..Wanted::default() }, &Limits::default());
    assert!(matches!(&error, Err(Error::NotAnImage { why, .. }) if why.contains("web:1")), "{error:?}");
    assert_eq!(place.names_in("blobs/sha256")?, [""; 0]);
    place.assert_untouched("one name for two")
}

#[test]
fn compressed_layers_and_compressed_archives() -> Outcome {
    let place = Place::new()?;
    let mut one = image("one");
    one.layers = one.layers.iter().map(|layer| Stored::Gzip.encode(layer)).collect();
    fs::write(place.path("layout"), Stored::Zstd.encode(&old(&one, &["web:1"]).finish()))?;
    place.store.load(&place.path("layout"), None, &Limits::default())?;
    assert_eq!(own_file(&place, "web:1")?, "one");
    Ok(())
}

/// `archive` is refused, in the way that `expected` says, and leaves no trace.
fn refused(title: &str, archive: Vec<u8>, expected: fn(&Error) -> bool) -> Outcome {
    let place = Place::new()?;
    fs::write(place.path("layout"), archive)?;
    let error = place.store.load(&place.path("layout"), None, &Limits::default()).expect_err(title);
    assert!(expected(&error), "{title}: {error:?}");
    assert_eq!(place.names_in("blobs/sha256")?, [""; 0], "{title}");
    place.assert_untouched(title)
}

fn listing(entry: &Value) -> Layer {
    Layer::default().file("manifest.json", json!([entry]).to_string().as_bytes())
}

#[test]
fn what_is_not_as_it_says_is_refused() -> Outcome {
    let (one, other) = (image("one"), image("another"));
    let config = format!("{}.json", Digest::of(&one.config).hex());
    let layers = ["a/layer.tar", "b/layer.tar"];
    let entry = old_entry(&one, &["web:1"], &layers);
    let whole = |config_bytes: &[u8], first: &[u8]| {
        let archive = listing(&entry).file(&config, config_bytes).file(layers[0], first);
        archive.file(layers[1], &one.layers[1]).finish()
    };
    refused("another config", whole(&other.config, &one.layers[0]), |e| matches!(e, Error::WrongDigest { .. }))?;
    let mut flipped = one.layers[0].clone();
    flipped[600] ^= 1;
    refused("a flipped bit", whole(&one.config, &flipped), |e| {
        matches!(e, Error::WrongDiffId { .. } | Error::UnreadableLayer { .. })
    })?;
    refused("another layer", whole(&one.config, &other.layers[1]), |e| matches!(e, Error::WrongDiffId { .. }))?;
    let missing = listing(&entry).file(&config, &one.config).file(layers[0], &one.layers[0]).finish();
    refused(
        "a missing layer",
        missing,
        |e| matches!(e, Error::MissingMember { member, .. } if member == "b/layer.tar"),
    )?;
    let fewer = listing(&old_entry(&one, &["web:1"], &layers[..1])).file(&config, &one.config);
    refused("a layer too few", fewer.file(layers[0], &one.layers[0]).finish(), |e| {
        matches!(e, Error::Unusable { .. })
    })?;
    let loop_of_links = listing(&entry).file(&config, &one.config).symlink(layers[0], "../b/layer.tar");
    refused("links in a circle", loop_of_links.symlink(layers[1], "../a/layer.tar").finish(), |e| {
        matches!(e, Error::MissingMember { .. })
    })?;
    refused("no JSON", Layer::default().file("manifest.json", b"[{").finish(), |e| {
        matches!(e, Error::NotAnImage { .. })
    })?;
    refused("no image", Layer::default().file("manifest.json", b"[]").finish(), |e| {
        matches!(e, Error::NotAnImage { .. })
    })?;
    let blob_name = blob(&one.layers[1]);
    let lying = json!({ "Config": config, "RepoTags": ["web:1"], "Layers": [layers[0], blob_name] });
    let lying = listing(&lying).file(&config, &one.config).file(layers[0], &one.layers[0]);
    refused("a blob of another digest", lying.file(&blob_name, &other.layers[1]).finish(), |e| {
        matches!(e, Error::WrongDigest { .. })
    })
}

#[test]
fn nothing_outside_is_read_or_written() -> Outcome {
    for outside in ["/etc/passwd", "../canary", "a/../../canary", "canary"] {
        let entry = json!({ "Config": outside, "RepoTags": ["web:1"], "Layers": [] });
        refused(outside, listing(&entry).finish(), |e| matches!(e, Error::MissingMember { .. }))?;
        let linked = json!({ "Config": "config.json", "RepoTags": ["web:1"], "Layers": [] });
        refused(outside, listing(&linked).symlink("config.json", outside).finish(), |e| {
            matches!(e, Error::MissingMember { .. })
        })?;
    }
    let evil = Blobs::new(&[Layer::default().file("../canary", b"dead").finish()], Stored::Plain);
    let entry = old_entry(&evil, &["web:1"], &["a/layer.tar"]);
    let archive = listing(&entry).file(&format!("{}.json", Digest::of(&evil.config).hex()), &evil.config);
    refused("a layer that climbs", archive.file("a/layer.tar", &evil.layers[0]).finish(), |e| {
        matches!(e, Error::Refused(_))
    })?;
    let place = Place::new()?;
    let folder = place.path("layout");
    fs::create_dir(&folder)?;
    std::os::unix::fs::symlink("../canary", folder.join("config.json"))?;
    for config in ["config.json", "../canary", "/etc/passwd"] {
        let entry = json!([{ "Config": config, "RepoTags": ["web:1"], "Layers": [] }]);
        fs::write(folder.join("manifest.json"), entry.to_string())?;
        let error = place.store.load(&folder, None, &Limits::default()).expect_err("outside");
        assert!(matches!(&error, Error::NotAnImage { why, .. } if why.contains("leads out")), "{config}: {error:?}");
    }
    place.assert_untouched("an unpacked archive with links")
}

#[test]
fn cut_off_anywhere_it_is_refused() -> Outcome {
    let one = image("one");
    for (title, whole) in [("old", old(&one, &["web:1"]).finish()), ("new", new(&[(&one, &["web:1"])]).finish())] {
        // The last two blocks and the padding of the last member say nothing.
        let content = whole.len() - 1024 - 512;
        for length in (0..content).step_by(257) {
            let place = Place::in_memory()?;
            fs::write(place.path("layout"), &whole[..length])?;
            let result = place.store.load(&place.path("layout"), None, &Limits::default());
            // `repositories`, the last member of the old kind, is not looked at.
            if let Ok(loaded) = &result {
                assert!(title == "old" && length > content - 1024, "{title}: cut at {length} of {content}: {loaded:?}");
                continue;
            }
            assert_eq!(place.names_in("blobs/sha256")?, [""; 0], "{title} {length}");
            place.assert_untouched(title)?;
        }
    }
    Ok(())
}
