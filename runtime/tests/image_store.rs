//! The store: what is refused, what survives, what several users at once see.

mod image_support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bellows_runtime::image::build::{BuildConfig, Content, FileSpec, executable_with_libraries};
use bellows_runtime::image::{BlobKind, Digest, Error, Limits, Store};
use image_support::{Blobs, Layer, Outcome, Place, Stored, blob_in, descriptor};

fn small() -> Blobs {
    Blobs::new(&[Layer::default().file("bin/app", b"#!/bin/sh\n").finish()], Stored::Gzip)
}

#[test]
fn versions() -> Outcome {
    let place = Place::new()?;
    Store::open(place.store.folder())?;
    fs::write(place.store.folder().join("version"), "7\n")?;
    let error = Store::open(place.store.folder()).expect_err("a newer version");
    assert!(matches!(error, Error::NewerStore { found: 7, known: 1, .. }), "{error}");
    let error = Store::open(place.folder.path()).expect_err("somebody else's folder");
    assert!(matches!(error, Error::NotAStore { .. }), "{error}");
    Ok(())
}

#[test]
fn blobs_one_by_one() -> Outcome {
    let place = Place::new()?;
    let (store, blobs) = (&place.store, small());
    let digest = blobs.digest();
    let kinds = |wanted: &[BlobKind]| -> Outcome {
        let missing: Vec<BlobKind> = store.missing_blobs(&digest)?.iter().map(|blob| blob.kind).collect();
        assert_eq!(missing, wanted);
        Ok(())
    };
    kinds(&[BlobKind::Manifest])?;
    assert!(matches!(store.register("web", &digest), Err(Error::MissingBlob { .. })));
    store.put_blob(&digest, &mut &blobs.manifest[..])?;
    kinds(&[BlobKind::Config, BlobKind::Layer])?;
    store.put_blob(&Digest::of(&blobs.layers[0]), &mut &blobs.layers[0][..])?;
    kinds(&[BlobKind::Config])?;
    assert!(matches!(store.register("web", &digest), Err(Error::MissingBlob { .. })));
    store.put_blob(&Digest::of(&blobs.config), &mut &blobs.config[..])?;
    kinds(&[])?;
    store.register("web:latest", &digest)?;
    let order: Vec<BlobKind> = store.manifest_blobs(&digest)?.iter().map(|blob| blob.kind).collect();
    assert_eq!(order, [BlobKind::Manifest, BlobKind::Config, BlobKind::Layer]);
    let mut content = Vec::new();
    store.open_blob(&Digest::of(&blobs.config))?.read_to_end(&mut content)?;
    assert_eq!(content, blobs.config);
    for reference in ["web", "web:latest", &digest.to_string(), &digest.hex()[..6], &digest.to_string()[..20]] {
        assert_eq!(store.resolve(reference)?, digest, "{reference}");
    }
    assert!(matches!(store.resolve("wab"), Err(Error::UnknownImage { .. })));
    Ok(())
}

#[test]
fn a_blob_with_another_digest() -> Outcome {
    let place = Place::new()?;
    let digest = Digest::of(b"right");
    let error = place.store.put_blob(&digest, &mut &b"wrong"[..]).expect_err("wrong content");
    assert!(matches!(error, Error::WrongDigest { expected, .. } if expected == digest), "{error}");
    assert!(!place.store.has_blob(&digest)?);
    place.assert_untouched("wrong blob")
}

#[test]
fn names() -> Outcome {
    let place = Place::new()?;
    let digest = small().put(&place.store)?;
    for name in ["", "-a", "a b", "a\nb", "../x", "sha256:00", &"a".repeat(256)] {
        assert!(matches!(place.store.register(name, &digest), Err(Error::BadName { .. })), "{name}");
    }
    place.store.register("shop/web:1", &digest)?;
    place.store.register("other", &digest)?;
    assert_eq!(place.store.list()?.iter().map(|image| &image.name[..]).collect::<Vec<_>>(), ["other", "shop/web:1"]);
    assert_eq!(place.store.remove("other")?, digest);
    assert!(matches!(place.store.remove("other"), Err(Error::UnknownImage { .. })));
    assert_eq!(place.store.list()?.len(), 1);
    Ok(())
}

/// Writes a sound layout, lets `damage` have its way with it, and expects an error that `expected` accepts and no trace.
fn check_damage(title: &str, damage: fn(&Path, &Blobs) -> Outcome, expected: fn(&Error) -> bool) -> Outcome {
    let place = Place::new()?;
    let (layout, blobs) = (place.path("layout"), small());
    blobs.write_layout(&layout, "damaged")?;
    damage(&layout, &blobs)?;
    let error = place.store.load(&layout, Some("damaged"), &Limits::default()).expect_err(title);
    assert!(expected(&error), "{title}: {error:?}");
    assert_eq!(place.names_in("blobs/sha256")?, [""; 0], "{title}");
    place.assert_untouched(title)
}

fn rewrite(layout: &Path, name: &str, from: &str, to: &str) -> Outcome {
    let text = fs::read_to_string(layout.join(name))?;
    assert!(text.contains(from), "{name} has no {from}: {text}");
    Ok(fs::write(layout.join(name), text.replace(from, to))?)
}

#[test]
fn damaged_layouts() -> Outcome {
    check_damage(
        "truncated layer",
        |layout, blobs| Ok(fs::write(blob_in(layout, &blobs.layers[0]), &blobs.layers[0][..50])?),
        |error| matches!(error, Error::WrongSize { actual: 50, .. }),
    )?;
    check_damage(
        "longer layer",
        |layout, blobs| Ok(fs::write(blob_in(layout, &blobs.layers[0]), [&blobs.layers[0][..], b"x"].concat())?),
        |error| matches!(error, Error::WrongSize { .. } | Error::TooLarge { .. }),
    )?;
    check_damage(
        "flipped bit",
        |layout, blobs| {
            let mut layer = blobs.layers[0].clone();
            layer[40] ^= 1;
            Ok(fs::write(blob_in(layout, &blobs.layers[0]), layer)?)
        },
        |error| matches!(error, Error::WrongDigest { .. }),
    )?;
    check_damage(
        "exchanged manifest",
        |layout, blobs| {
            let exchanged = String::from_utf8(blobs.manifest.clone())?.replacen("layers", "lavers", 1);
            Ok(fs::write(blob_in(layout, &blobs.manifest), exchanged)?)
        },
        |error| matches!(error, Error::WrongDigest { .. }),
    )?;
    check_damage(
        "no layer",
        |layout, blobs| Ok(fs::remove_file(blob_in(layout, &blobs.layers[0]))?),
        |error| matches!(error, Error::MissingMember { .. }),
    )?;
    check_damage(
        "a layer that leads out",
        |layout, blobs| {
            let blob = blob_in(layout, &blobs.layers[0]);
            fs::remove_file(&blob)?;
            Ok(symlink("/etc/passwd", blob)?)
        },
        |error| matches!(error, Error::NotAnImage { .. }),
    )?;
    check_damage(
        "no index",
        |layout, _| Ok(fs::remove_file(layout.join("index.json"))?),
        |error| matches!(error, Error::NotAnImage { .. }),
    )?;
    check_damage(
        "no layout",
        |layout, _| Ok(fs::remove_file(layout.join("oci-layout"))?),
        |error| matches!(error, Error::NotAnImage { .. }),
    )?;
    check_damage(
        "newer layout",
        |layout, _| rewrite(layout, "oci-layout", "1.0.0", "2.0.0"),
        |error| matches!(error, Error::NotAnImage { .. }),
    )?;
    check_damage(
        "no JSON",
        |layout, _| rewrite(layout, "index.json", "{", "["),
        |error| matches!(error, Error::Metadata { what: "index", .. }),
    )?;
    check_damage(
        "other digest",
        |layout, _| rewrite(layout, "index.json", "sha256:", "sha512:"),
        |error| matches!(error, Error::Metadata { .. } | Error::NotADigest(_)),
    )?;
    check_damage(
        "escaping digest",
        |layout, blobs| {
            rewrite(layout, "index.json", &Digest::of(&blobs.manifest).hex(), &format!("{:.>64}", "/../../x"))
        },
        |error| matches!(error, Error::Metadata { .. } | Error::NotADigest(_)),
    )?;
    check_damage(
        "empty folder",
        |layout, _| {
            fs::remove_dir_all(layout)?;
            Ok(fs::create_dir(layout)?)
        },
        |error| matches!(error, Error::NotAnImage { .. }),
    )?;
    check_damage(
        "a text",
        |layout, _| {
            fs::remove_dir_all(layout)?;
            Ok(fs::write(layout, "not an image at all ".repeat(100))?)
        },
        |error| matches!(error, Error::NotAnImage { .. }),
    )?;
    check_damage(
        "an empty file",
        |layout, _| {
            fs::remove_dir_all(layout)?;
            Ok(fs::write(layout, "")?)
        },
        |error| matches!(error, Error::NotAnImage { .. }),
    )?;
    check_damage("nothing", |layout, _| Ok(fs::remove_dir_all(layout)?), |error| matches!(error, Error::Io { .. }))
}

/// An image whose manifest and config are consistent with their digests and still cannot be used.
fn check_metadata(title: &str, change: fn(&mut Blobs) -> Outcome, expected: fn(&Error) -> bool) -> Outcome {
    let place = Place::new()?;
    let mut blobs = small();
    change(&mut blobs)?;
    blobs.write_layout(&place.path("layout"), "odd")?;
    let error = place.store.load(&place.path("layout"), None, &Limits::default()).expect_err(title);
    assert!(expected(&error), "{title}: {error:?}");
    place.assert_untouched(title)
}

/// Changes a text of the manifest.
fn in_manifest(blobs: &mut Blobs, from: &str, to: &str) -> Outcome {
    let text = String::from_utf8(blobs.manifest.clone())?;
    assert!(text.contains(from), "{text}");
    blobs.manifest = text.replace(from, to).into_bytes();
    Ok(())
}

/// Changes a text of the config, and the manifest so that it names the changed one.
fn in_config(blobs: &mut Blobs, from: &str, to: &str) -> Outcome {
    let old = descriptor("application/vnd.oci.image.config.v1+json", &blobs.config).to_string();
    let text = String::from_utf8(blobs.config.clone())?;
    assert!(text.contains(from), "{text}");
    blobs.config = text.replace(from, to).into_bytes();
    let new = descriptor("application/vnd.oci.image.config.v1+json", &blobs.config).to_string();
    in_manifest(blobs, &old, &new)
}

#[test]
fn odd_metadata() -> Outcome {
    let unusable = |error: &Error| matches!(error, Error::Unusable { .. });
    check_metadata("schema 1", |blobs| in_manifest(blobs, r#""schemaVersion":2"#, r#""schemaVersion":1"#), unusable)?;
    check_metadata("unknown layer", |blobs| in_manifest(blobs, "tar+gzip", "tar+lzma"), unusable)?;
    check_metadata("artifact", |blobs| in_manifest(blobs, "image.config.v1", "image.cake.v1"), unusable)?;
    check_metadata(
        "mislabelled",
        |blobs| in_manifest(blobs, "tar+gzip", "tar+zstd"),
        |error| matches!(error, Error::UnreadableLayer { .. }),
    )?;
    check_metadata(
        "negative size",
        |blobs| in_manifest(blobs, r#""size":"#, r#""size":-"#),
        |error| matches!(error, Error::Metadata { .. }),
    )?;
    check_metadata("another machine", |blobs| in_config(blobs, image_support::architecture(), "s390x"), unusable)?;
    check_metadata("another system", |blobs| in_config(blobs, "linux", "windows"), unusable)?;
    check_metadata(
        "another content",
        |blobs| {
            let layer = Digest::of(&Layer::default().file("bin/app", b"#!/bin/sh\n").finish()).hex();
            in_config(blobs, &layer, &"0".repeat(64))
        },
        |error| matches!(error, Error::WrongDiffId { .. }),
    )?;
    check_metadata(
        "too few contents",
        |blobs| {
            let layer = Digest::of(&Layer::default().file("bin/app", b"#!/bin/sh\n").finish());
            in_config(blobs, &format!("\"{layer}\""), "")
        },
        unusable,
    )?;
    let unknown_user = |error: &Error| matches!(error, Error::UnknownUser { .. });
    check_metadata("unknown user", |blobs| in_config(blobs, r#""Cmd""#, r#""User":"web","Cmd""#), unknown_user)?;
    check_metadata("stop signal", |blobs| in_config(blobs, r#""Cmd""#, r#""StopSignal":"SIGNONE","Cmd""#), unusable)
}

#[test]
fn too_many_layers() -> Outcome {
    let place = Place::new()?;
    let layers: Vec<Vec<u8>> =
        (0..128).map(|number| Layer::default().file(&format!("f{number}"), b"").finish()).collect();
    let error = Blobs::new(&layers, Stored::Gzip).put(&place.store).map(|digest| place.store.unpack(&digest));
    assert!(matches!(error, Ok(Err(Error::Unusable { .. }))));
    Ok(())
}

#[test]
fn platforms() -> Outcome {
    let place = Place::new()?;
    let (layout, blobs) = (place.path("layout"), small());
    blobs.write_layout(&layout, "x")?;
    let mut ours = descriptor("application/vnd.oci.image.manifest.v1+json", &blobs.manifest);
    ours["platform"] = serde_json::json!({ "os": "linux", "architecture": image_support::architecture() });
    let mut other = descriptor("application/vnd.oci.image.manifest.v1+json", b"absent");
    other["platform"] = serde_json::json!({ "os": "linux", "architecture": "s390x" });
    let write = |manifests: serde_json::Value, top: &str| -> Outcome {
        let inner = serde_json::json!({ "schemaVersion": 2, "manifests": manifests }).to_string().into_bytes();
        fs::write(blob_in(&layout, &inner), &inner)?;
        let entry = descriptor("application/vnd.oci.image.index.v1+json", &inner);
        Ok(fs::write(
            layout.join("index.json"),
            serde_json::json!({ "schemaVersion": 2, "manifests": [entry], "annotations": { "top": top } }).to_string(),
        )?)
    };
    write(serde_json::json!([other, ours]), "both")?;
    assert_eq!(place.store.load(&layout, None, &Limits::default())?.digest, blobs.digest());
    write(serde_json::json!([other]), "other only")?;
    let error = place.store.load(&layout, None, &Limits::default()).expect_err("no platform");
    assert!(matches!(&error, Error::NoPlatform { offered, .. } if offered == "linux/s390x"), "{error}");
    Ok(())
}

#[test]
fn several_images() -> Outcome {
    let place = Place::new()?;
    let layout = place.path("layout");
    let (one, two) = (small(), Blobs::new(&[Layer::default().file("two", b"").finish()], Stored::Plain));
    one.write_layout(&layout, "1")?;
    two.write_layout(&layout, "2")?;
    let tagged = |blobs: &Blobs, tag: &str| {
        let mut image = descriptor("application/vnd.oci.image.manifest.v1+json", &blobs.manifest);
        image["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": tag });
        image
    };
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [tagged(&one, "1"), tagged(&two, "2")] });
    fs::write(layout.join("index.json"), index.to_string())?;
    let error = place.store.load(&layout, None, &Limits::default()).expect_err("which one?");
    assert!(matches!(&error, Error::SeveralImages { names, .. } if names == "1, 2"), "{error}");
    assert_eq!(place.store.load(&layout, Some("shop:2"), &Limits::default())?.digest, two.digest());
    assert_eq!(place.store.resolve("shop:2")?, two.digest());
    Ok(())
}

#[test]
fn many_unpack_at_once() -> Outcome {
    let place = Place::new()?;
    let layer =
        (0..300).fold(Layer::default(), |layer, number| layer.file(&format!("d{}/f{number}", number % 7), &[7; 3000]));
    let digest = Blobs::new(&[layer.finish()], Stored::Gzip).put(&place.store)?;
    let images = std::thread::scope(|scope| {
        let unpack = || Store::open(place.store.folder()).and_then(|store| store.unpack(&digest));
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(unpack)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Result<Vec<_>, _>>()
    })?;
    assert!(images.iter().all(|image| *image == images[0]));
    assert_eq!(place.names_in("trees")?, [digest.hex()]);
    assert_eq!(place.names_in("tmp")?, [""; 0]);
    assert_eq!(fs::read(images[0].root.join("d3/f3"))?, [7; 3000]);
    Ok(())
}

const CHILD_STORE: &str = "BELLOWS_TEST_CHILD_STORE";

/// Not a test by itself: what `a_killed_unpack_leaves_nothing` runs in a process of its own, to kill it.
#[test]
fn child_that_unpacks() -> Outcome {
    let Ok(folder) = std::env::var(CHILD_STORE) else { return Ok(()) };
    let store = Store::open(folder)?;
    let digest: Digest = std::env::var("BELLOWS_TEST_CHILD_DIGEST")?.parse()?;
    println!("ready");
    store.unpack(&digest)?;
    Err("nobody killed it".into())
}

#[test]
fn a_killed_unpack_leaves_nothing() -> Outcome {
    let place = Place::new()?;
    let blobs =
        Blobs::new(&[Layer::default().file("a", &[1; 2 << 20]).file("b", &[2; 2 << 20]).finish()], Stored::Plain);
    let digest = blobs.put(&place.store)?;
    let layer = place.store.folder().join("blobs/sha256").join(Digest::of(&blobs.layers[0]).hex());
    // The layer becomes a pipe, so that the test decides how far the unpacking gets.
    fs::remove_file(&layer)?;
    nix::unistd::mkfifo(&layer, nix::sys::stat::Mode::S_IRWXU)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "child_that_unpacks", "--nocapture"])
        .env(CHILD_STORE, place.store.folder())
        .env("BELLOWS_TEST_CHILD_DIGEST", digest.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let ready = BufReader::new(child.stdout.take().ok_or("piped")?)
        .lines()
        .find(|line| line.as_ref().is_ok_and(|line| line.contains("ready")));
    assert!(ready.is_some());
    // A pipe holds 64 KiB: when 3 MiB are written, more than 2 MiB have been unpacked.
    fs::OpenOptions::new().write(true).open(&layer)?.write_all(&blobs.layers[0][..3 << 20])?;
    let while_it_works = place.store.collect_garbage(&BTreeSet::from([digest]))?;
    assert_eq!(while_it_works.leftovers, 0, "the living keep their folders");
    assert_eq!(place.names_in("tmp")?.len(), 1);
    child.kill()?;
    child.wait()?;
    assert!(!place.store.is_unpacked(&digest)?);
    assert_eq!(place.names_in("trees")?, [""; 0]);
    assert_eq!(place.names_in("tmp")?.len(), 1, "the dead process left its folder");
    fs::remove_file(&layer)?;
    fs::write(&layer, &blobs.layers[0])?;
    let image = place.store.unpack(&digest)?;
    assert_eq!(fs::read(image.root.join("b"))?.len(), 2 << 20);
    let collected = place.store.collect_garbage(&BTreeSet::from([digest]))?;
    assert_eq!((collected.leftovers, collected.trees, collected.blobs), (1, 0, 0));
    assert_eq!(place.names_in("tmp")?, [""; 0]);
    Ok(())
}

#[test]
fn garbage() -> Outcome {
    let place = Place::new()?;
    let store = &place.store;
    let (kept, named, dropped) = (
        small(),
        Blobs::new(&[Layer::default().file("n", b"").finish()], Stored::Gzip),
        Blobs::new(&[Layer::default().file("d", b"").finish()], Stored::Gzip),
    );
    for blobs in [&kept, &named, &dropped] {
        let digest = blobs.put(store)?;
        store.unpack(&digest)?;
    }
    store.register("named", &named.digest())?;
    let keep = BTreeSet::from([kept.digest()]);
    let fresh = store.collect_garbage(&keep)?;
    assert_eq!((fresh.blobs, fresh.trees), (0, 1), "fresh blobs are spared, trees can be made again");
    let collected = store.collect_garbage_sparing(&keep, Duration::ZERO)?;
    assert_eq!((collected.blobs, collected.trees), (3, 0));
    for blobs in [&kept, &named] {
        assert!(store.missing_blobs(&blobs.digest())?.is_empty());
        assert!(store.is_unpacked(&blobs.digest())?);
    }
    assert!(!store.has_blob(&dropped.digest())?);
    Ok(())
}

#[test]
fn config_and_user() -> Outcome {
    let place = Place::new()?;
    let layer =
        Layer::default().file("etc/passwd", b"web:x:33:34::/srv:/bin/sh\n").file("etc/group", b"logs:x:4:web\n");
    let run = serde_json::json!({
        "User": "web", "Entrypoint": ["/app"], "Cmd": ["-v"], "Env": ["A=1", "A=2"], "WorkingDir": "srv",
        "StopSignal": "SIGQUIT", "ExposedPorts": { "80/tcp": {} }, "Labels": { "a": "b" },
    });
    let digest = Blobs::with_config(&[layer.finish()], Stored::Gzip, run).put(&place.store)?;
    let config = place.store.unpack(&digest)?.config;
    assert_eq!(
        (config.user.uid, config.user.gid, &config.user.groups[..], &config.user.home[..]),
        (33, 34, &[4][..], "/srv")
    );
    assert_eq!(
        (config.entrypoint, config.cmd, config.env),
        (vec!["/app".to_owned()], vec!["-v".to_owned()], vec!["A=2".to_owned()])
    );
    assert_eq!((&config.working_dir[..], config.stop_signal, config.exposed_ports[0].number), ("/srv", Some(3), 80));
    assert_eq!(place.store.unpack(&digest)?.config.labels["a"], "b");
    Ok(())
}

#[test]
fn passwd_as_a_trap() -> Outcome {
    let run = || serde_json::json!({ "User": "web" });
    for (title, layer) in [
        ("a FIFO", Layer::default().raw(b"etc/passwd", b'6', 0o644, b"", 0, b"")),
        ("a link to the host's", Layer::default().symlink("etc/passwd", "/etc/hostname")),
        ("a folder", Layer::default().folder("etc/passwd", 0o755)),
        ("a loop", Layer::default().symlink("etc/passwd", "passwd")),
    ] {
        let place = Place::new()?;
        let digest = Blobs::with_config(&[layer.finish()], Stored::Gzip, run()).put(&place.store)?;
        let error = place.store.unpack(&digest).expect_err(title);
        assert!(matches!(error, Error::UnknownUser { .. }), "{title}: {error:?}");
        place.assert_untouched(title)?;
    }
    Ok(())
}

#[test]
fn build_is_deterministic() -> Outcome {
    let program = std::env::current_exe()?;
    let mut files = executable_with_libraries(&program)?;
    assert!(files.len() > 1, "the test program is linked dynamically: {files:?}");
    files[0].path = "/app".into();
    files.push(FileSpec { path: "/etc/motd".into(), mode: 0o600, content: Content::Bytes(b"hello".to_vec()) });
    files.push(FileSpec { path: "/tmp".into(), mode: 0o1777, content: Content::Folder });
    files.push(FileSpec { path: "/bin/app".into(), mode: 0, content: Content::Link("/app".into()) });
    let config = BuildConfig {
        entrypoint: vec!["/app".to_owned()],
        user: "1000:1000".to_owned(),
        exposed_ports: (8000..8020).map(|port| format!("{port}/tcp")).collect(),
        labels: (0..20).map(|number| (format!("label{number}"), "x".to_owned())).collect(),
        ..BuildConfig::default()
    };
    let (one, two) = (Place::new()?, Place::new()?);
    let digest = one.store.build("app", &files, &config)?;
    files.reverse();
    assert_eq!(two.store.build("app", &files, &config)?, digest);
    let image = one.store.unpack(&digest)?;
    assert_eq!(fs::read(image.root.join("app"))?, fs::read(&program)?);
    assert_eq!((image.config.user.uid, image.config.exposed_ports.len()), (1000, 20));
    let outside = FileSpec { path: "/../x".into(), mode: 0, content: Content::Folder };
    assert!(matches!(one.store.build("bad", &[outside], &config), Err(Error::CannotPack { .. })));
    if nix::unistd::geteuid().is_root() {
        let status =
            Command::new("chroot").arg(&image.root).args(["/bin/app", "--list"]).stdout(Stdio::null()).status()?;
        assert!(status.success(), "the packed program runs with the packed libraries alone");
    }
    Ok(())
}

/// A file system of 4 MiB, gone with the test.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: std::path::PathBuf) -> Result<Self, Box<dyn std::error::Error>> {
        fs::create_dir(&path)?;
        let none: Option<&str> = None;
        nix::mount::mount(none, &path, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=4m"))?;
        Ok(Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).expect("what was mounted can be unmounted");
    }
}

#[test]
fn a_full_disk() -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can mount a small disk");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let disk = SmallDisk::mount(folder.path().join("disk"))?;
    let store = Store::open(disk.0.join("store"))?;
    let blobs = Blobs::new(&[Layer::default().file("big", &[1; 6 << 20]).finish()], Stored::Gzip);
    blobs.write_layout(&folder.path().join("layout"), "big")?;
    store.load(&folder.path().join("layout"), Some("big"), &Limits::default())?;
    let plain = Blobs::new(&[Layer::default().file("big", &[1; 6 << 20]).finish()], Stored::Plain);
    plain.write_layout(&folder.path().join("plain"), "big")?;
    let loading =
        store.load(&folder.path().join("plain"), Some("plain"), &Limits::default()).expect_err("no room to load");
    let unpacking = store.unpack(&blobs.digest()).expect_err("no room to unpack");
    for error in [loading, unpacking] {
        assert!(error.to_string().contains("make room on that disk"), "{error}");
        assert!(matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull));
    }
    assert!(!store.is_unpacked(&blobs.digest())?);
    assert_eq!(store.list()?.len(), 1);
    assert_eq!(fs::read_dir(store.folder().join("tmp"))?.count(), 0, "room is given back");
    Ok(())
}

#[test]
fn verified_like_loaded() -> Outcome {
    let place = Place::new()?;
    let blobs = small();
    blobs.write_layout(&place.path("layout"), "1")?;
    let loaded = place.store.load(&place.path("layout"), Some("web"), &Limits::default())?;
    let verified = place.store.verify(&blobs.digest())?;
    assert_eq!((verified.layers, verified.bytes, verified.inodes), (loaded.layers, loaded.bytes, loaded.inodes));
    assert_eq!(verified.bytes, blobs.all().map(|blob| blob.len() as u64).sum::<u64>());
    assert_eq!(verified.unpacked_bytes, 10);
    let bad = Blobs::new(&[Layer::default().file("../x", b"").finish()], Stored::Gzip).put(&place.store)?;
    assert!(matches!(place.store.verify(&bad), Err(Error::Refused(_))));
    Ok(())
}
