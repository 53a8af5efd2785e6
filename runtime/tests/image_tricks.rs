//! Layers that mean harm: each is refused by a rule that names layer and entry, both when loaded and when blobs came one by one, and leaves nothing.

mod image_support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use bellows_runtime::image::{Error, Limits, Rule};
use image_support::{Blobs, Layer, Outcome, Place, Stored};

/// Small bounds, so that the cases stay small.
fn limits() -> Limits {
    Limits {
        unpacked_bytes: 8 << 20,
        ratio: 20,
        ratio_free_bytes: 1 << 20,
        inodes: 50,
        layers: 5,
        header_bytes: 64 << 10,
        ..Limits::default()
    }
}

/// Loads and unpacks the layers; both must fail at `entry` by a rule that `expected` accepts.
fn check(title: &str, layers: Vec<Vec<u8>>, stored: Stored, entry: &str, expected: fn(&Rule) -> bool) -> Outcome {
    let place = Place::with(limits())?;
    let blobs = Blobs::new(&layers, stored);
    blobs.write_layout(&place.path("layout"), "tricky")?;
    let loaded = place.store.load(&place.path("layout"), Some("tricky"), &limits());
    let error = loaded.expect_err(title);
    assert_refused(title, &error, entry, expected);
    assert_eq!(place.names_in("blobs/sha256")?, [""; 0], "{title}: blobs of a refused image");
    place.assert_untouched(title)?;

    let digest = blobs.put(&place.store)?;
    let error = place.store.unpack(&digest).expect_err(title);
    assert_refused(title, &error, entry, expected);
    place.assert_untouched(title)
}

fn assert_refused(title: &str, error: &Error, entry: &str, expected: fn(&Rule) -> bool) {
    let Error::Refused(refusal) = error else { panic!("{title}: {error:?}") };
    assert!(expected(&refusal.rule), "{title}: {refusal}");
    assert!(refusal.entry.contains(entry), "{title}: {refusal}");
    assert!(refusal.to_string().contains("; "), "{title} does not say how to mend it: {refusal}");
}

fn one(layer: Layer) -> Vec<Vec<u8>> {
    vec![layer.finish()]
}

#[test]
fn names() -> Outcome {
    let layer = Layer::default;
    check("absolute", one(layer().file("/etc/passwd", b"x")), Stored::Gzip, "/etc/passwd", |rule| {
        *rule == Rule::AbsolutePath
    })?;
    check("parent", one(layer().file("../canary", b"x")), Stored::Gzip, "../canary", |rule| {
        *rule == Rule::ParentInPath
    })?;
    check("parent within", one(layer().file("a/../../canary", b"x")), Stored::Zstd, "canary", |rule| {
        *rule == Rule::ParentInPath
    })?;
    check("newline", one(layer().file("a\nb", b"x")), Stored::Plain, "a\\nb", |rule| *rule == Rule::ControlCharacter)?;
    let pax = layer().pax(&[("path", b"a\0b")]).file("a", b"x");
    check("NUL in a PAX path", one(pax), Stored::Plain, "a\\x00b", |rule| *rule == Rule::ControlCharacter)?;
    let pax = layer().pax(&[("path", b"../canary")]).file("harmless", b"x");
    check("parent in a PAX path", one(pax), Stored::Plain, "../canary", |rule| *rule == Rule::ParentInPath)?;
    let long = layer().long_name(b"/absolute").file("harmless", b"x");
    check("absolute long name", one(long), Stored::Plain, "/absolute", |rule| *rule == Rule::AbsolutePath)?;
    let long = layer().long_name(&[b'a'; 300]).file("harmless", b"x");
    check("long name", one(long), Stored::Plain, "aaa", |rule| matches!(rule, Rule::NameTooLong { found: 300, .. }))?;
    let long = layer().long_name(&b"ab/".repeat(2_000)).file("harmless", b"x");
    check("long path", one(long), Stored::Plain, "ab/", |rule| matches!(rule, Rule::PathTooLong { .. }))?;
    let deep = layer().long_name(&b"d/".repeat(300)).folder("harmless", 0o755);
    check("deep", one(deep), Stored::Plain, "d/", |rule| matches!(rule, Rule::TooDeep { .. }))?;
    check("reserved", one(layer().file(".wh.a/b", b"x")), Stored::Plain, ".wh.a/b", |rule| {
        *rule == Rule::ReservedName
    })?;
    check("whiteout of a parent", one(layer().file("a/.wh...", b"")), Stored::Plain, ".wh...", |rule| {
        *rule == Rule::BadWhiteout
    })?;
    check("whiteout of nothing", one(layer().file(".wh.", b"")), Stored::Plain, ".wh.", |rule| {
        *rule == Rule::BadWhiteout
    })?;
    check("the root as a link", one(layer().symlink("./", "/etc")), Stored::Plain, "./", |rule| {
        *rule == Rule::RootNotAFolder
    })
}

#[test]
fn links() -> Outcome {
    let layer = Layer::default;
    let climbs = |rule: &Rule| matches!(rule, Rule::EscapingLink { .. });
    check("climbing link", one(layer().symlink("a/b", "../../canary")), Stored::Gzip, "a/b", climbs)?;
    check("climbing absolute link", one(layer().symlink("a", "/../canary")), Stored::Gzip, "a", climbs)?;
    let nothing = |rule: &Rule| matches!(rule, Rule::HardLinkToNothing { .. });
    check("hard link to nothing", one(layer().hardlink("a", "b")), Stored::Gzip, "a", nothing)?;
    let named = |rule: &Rule| matches!(rule, Rule::HardLinkName { .. });
    check("hard link out", one(layer().hardlink("a", "../canary")), Stored::Gzip, "a", named)?;
    check("absolute hard link", one(layer().hardlink("a", "/etc/passwd")), Stored::Gzip, "a", named)?;
    let through = layer().symlink("out", "/etc").hardlink("a", "out/passwd");
    check("hard link through a link", one(through), Stored::Gzip, "a", nothing)?;
    let folder = layer().folder("d", 0o755).hardlink("a", "d");
    check("hard link to a folder", one(folder), Stored::Gzip, "a", |rule| {
        matches!(rule, Rule::HardLinkToFolder { .. })
    })?;
    let replaced = layer().file("d/f", b"x").hardlink("d", "d/f");
    check("hard link over its target", one(replaced), Stored::Gzip, "d", nothing)?;
    let looped = layer().symlink("a", "b").symlink("b", "a").file("a/x", b"x");
    check("loop", one(looped), Stored::Gzip, "a/x", |rule| *rule == Rule::LinkLoop)?;
    let file = layer().file("a", b"x").file("a/b", b"x");
    check("through a file", one(file), Stored::Gzip, "a/b", |rule| matches!(rule, Rule::ParentNotAFolder { .. }))?;
    check("empty target", one(layer().symlink("a", "")), Stored::Gzip, "a", |rule| *rule == Rule::BadLinkTarget)
}

#[test]
fn kinds() -> Outcome {
    let device = |rule: &Rule| matches!(rule, Rule::Device { .. });
    check("disk", one(Layer::default().raw(b"sda", b'4', 0o666, b"", 0, b"")), Stored::Gzip, "sda", device)?;
    check(
        "overlay whiteout",
        one(Layer::default().raw(b"etc/passwd", b'3', 0, b"", 0, b"")),
        Stored::Gzip,
        "etc/passwd",
        device,
    )?;
    let unknown = |rule: &Rule| matches!(rule, Rule::UnknownKind { .. });
    check(
        "volume label",
        one(Layer::default().raw(b"label", b'V', 0o644, b"", 0, b"")),
        Stored::Gzip,
        "label",
        unknown,
    )?;
    let sparse = Layer::default().pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")]).file("s", b"x");
    check("PAX sparse", one(sparse), Stored::Gzip, "s", |rule| *rule == Rule::PaxSparse)?;
    let owner = Layer::default().pax(&[("uid", b"4294967295")]).file("f", b"x");
    check("nobody's", one(owner), Stored::Gzip, "f", |rule| matches!(rule, Rule::BadHeader { .. }))
}

#[test]
fn sizes() -> Outcome {
    let layer = Layer::default;
    let too_many_bytes = |rule: &Rule| matches!(rule, Rule::TooManyBytes { .. });
    check("sparse lie", one(layer().sparse("s", 7 << 30)), Stored::Plain, "s", too_many_bytes)?;
    check("sparse bomb", one(layer().sparse("s", 4 << 20)), Stored::Plain, "s", |rule| {
        matches!(rule, Rule::Bomb { .. })
    })?;
    let announced = layer().pax(&[("size", b"9000000000")]).file("p", b"x");
    check("PAX size lie", one(announced), Stored::Plain, "p", too_many_bytes)?;
    let cut = layer().raw(b"cut", b'0', 0o644, b"", 10_000, b"only this").unfinished();
    check("size lie", vec![cut], Stored::Plain, "cut", |rule| matches!(rule, Rule::SizeLie { expected: 10_000, .. }))?;
    let zeros = vec![0; 4 << 20];
    check("gzip bomb", one(layer().file("zeros", &zeros)), Stored::Gzip, "zeros", |rule| {
        matches!(rule, Rule::Bomb { .. })
    })?;
    check("zstd bomb", one(layer().file("zeros", &zeros)), Stored::Zstd, "zeros", |rule| {
        matches!(rule, Rule::Bomb { .. })
    })?;
    let mut tail = layer().file("a", b"x").finish();
    tail.extend(&zeros);
    check("bomb after the end", vec![tail], Stored::Gzip, "after a", |rule| matches!(rule, Rule::Bomb { .. }))?;
    let many = |number: u8| layer().file("big", &vec![number; 3 << 20]).finish();
    check("many layers", vec![many(1), many(2), many(3)], Stored::Plain, "big", too_many_bytes)?;
    let inodes = (0..60).fold(layer(), |layer, number| layer.file(&format!("f{number}"), b""));
    check("inodes", one(inodes), Stored::Gzip, "f", |rule| matches!(rule, Rule::TooManyInodes { .. }))?;
    let implied = layer().long_name(&b"d/".repeat(60)).folder("harmless", 0o755);
    check("implied inodes", one(implied), Stored::Gzip, "d/", |rule| matches!(rule, Rule::TooManyInodes { .. }))?;
    let again = (0..60).fold(layer(), |layer, _| layer.file("same", b""));
    check("the same again", one(again), Stored::Gzip, "same", |rule| matches!(rule, Rule::TooManyInodes { .. }))?;
    let header = layer().long_name(&vec![b'a'; 100_000]).file("harmless", b"x");
    check("header", one(header), Stored::Plain, "after", |rule| matches!(rule, Rule::HeaderTooLarge { .. }))?;
    let attributes = layer().pax(&[("SCHILY.xattr.user.a", &vec![b'x'; 40_000]), ("SCHILY.xattr.user.b", &[b'x'; 10])]);
    let attributes = attributes.file("f", b"");
    let limits = Limits { xattr_bytes: 30_000, ..limits() };
    let place = Place::with(limits)?;
    let digest = Blobs::new(&one(attributes), Stored::Gzip).put(&place.store)?;
    let error = place.store.unpack(&digest).expect_err("attributes");
    assert_refused("attributes", &error, "f", |rule| matches!(rule, Rule::TooManyAttributes { .. }));
    Ok(())
}

#[test]
fn a_last_file_without_padding() -> Outcome {
    let place = Place::new()?;
    let layer = |bytes: usize| {
        let mut archive = Layer::default().file("f", b"four").unfinished();
        archive.truncate(512 + bytes);
        archive
    };
    let digest = Blobs::new(&[layer(4)], Stored::Gzip).put(&place.store)?;
    assert_eq!(fs::read_to_string(place.store.unpack(&digest)?.root.join("f"))?, "four");
    let short = |rule: &Rule| matches!(rule, Rule::SizeLie { expected: 4, actual: 3 });
    check("one byte short", vec![layer(3)], Stored::Gzip, "f", short)
}

#[test]
fn work() -> Outcome {
    let place = Place::with(Limits { tree_steps: 1_000, ..Limits::default() })?;
    let refused = |title: &str, layers: &[Vec<u8>]| -> Outcome {
        let digest = Blobs::new(layers, Stored::Gzip).put(&place.store)?;
        let error = place.store.unpack(&digest).expect_err(title);
        assert_refused(title, &error, "f", |rule| *rule == Rule::TooMuchWork { limit: 1_000 });
        Ok(())
    };
    // Each file costs 7 links of 20 steps.
    let chain = (1..8).fold(Layer::default().folder("d", 0o755), |layer, link| {
        let before = if link == 1 { "d".to_owned() } else { format!("l{}", link - 1) };
        layer.symlink(&format!("l{link}"), &format!("{}{before}", "d/../".repeat(10)))
    });
    let files = (0..20).fold(chain, |layer, number| layer.file(&format!("l7/f{number}"), b""));
    refused("links to links", &one(files))?;
    // Opaque marks over and over: 100 files looked at by each of 100 marks, if done naively.
    let lower = (0..100).fold(Layer::default(), |layer, number| layer.file(&format!("d/old{number}"), b""));
    let upper = (0..100).fold(Layer::default(), |layer, number| layer.file(&format!("d/new{number}"), b""));
    let upper = (0..100).fold(upper, |layer, _| layer.file("d/.wh..wh..opq", b""));
    let digest = Blobs::new(&[lower.finish(), upper.finish()], Stored::Gzip).put(&place.store)?;
    let image = place.store.unpack(&digest)?;
    assert_eq!(fs::read_dir(image.root.join("d"))?.count(), 100);
    Ok(())
}

#[test]
fn depth_by_links() -> Outcome {
    // Each link leads 100 folders down from where it stands, so three of them make a real path of 300.
    let down = "d/".repeat(30);
    let limits = Limits { path_depth: 64, ..Limits::default() };
    let layer = Layer::default().file(&format!("{down}f"), b"").symlink("l", down.trim_end_matches('/'));
    let layer = layer
        .file(&format!("l/{down}f"), b"")
        .symlink("m", &format!("l/{}", down.trim_end_matches('/')))
        .file(&format!("m/{down}f"), b"");
    let place = Place::with(limits)?;
    let digest = Blobs::new(&one(layer), Stored::Gzip).put(&place.store)?;
    let error = place.store.unpack(&digest).expect_err("too deep");
    assert_refused("depth by links", &error, "m/", |rule| matches!(rule, Rule::TooDeep { found: 65, .. }));
    Ok(())
}

#[test]
fn links_lead_inside_only() -> Outcome {
    let place = Place::new()?;
    let outside = place.folder.path().to_str().ok_or("a text path")?.to_owned();
    let lower = Layer::default()
        .folder("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .symlink("out", &outside)
        .symlink("etc", "/usr");
    let upper = Layer::default()
        .file("lib/a.so", b"library")
        .file("out/canary", b"dead")
        .file("etc/passwd", b"inside")
        .file("out/canary", b"dead again");
    let digest = Blobs::new(&[lower.finish(), upper.finish()], Stored::Gzip).put(&place.store)?;
    let image = place.store.unpack(&digest)?;
    assert_eq!(fs::read_to_string(image.root.join("usr/lib/a.so"))?, "library");
    assert_eq!(fs::read_to_string(image.root.join("usr/passwd"))?, "inside");
    assert_eq!(fs::read_to_string(place.path("canary"))?, "alive");
    let inside = image.root.join(outside.trim_start_matches('/')).join("canary");
    assert_eq!(fs::read_to_string(inside)?, "dead again");
    Ok(())
}

#[test]
fn what_is_kept() -> Outcome {
    let place = Place::new()?;
    let layer = Layer::default()
        .folder("./", 0o751)
        .raw(b"su", b'0', 0o4755, b"", 3, b"#!x")
        .folder("closed", 0o500)
        .file("closed/f", b"x")
        .hardlink("same", "su")
        .hardlink("same", "same")
        .symlink("link", "nowhere")
        .hardlink("link2", "link")
        .raw(b"pipe", b'6', 0o620, b"", 0, b"")
        .raw(b"dev/null", b'3', 0o666, b"", 0, b"")
        .pax(&[
            ("mtime", b"1234.5"),
            ("SCHILY.xattr.user.note", b"hello"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.x", b"y"),
        ])
        .file("timed", b"");
    let digest = Blobs::new(&one(layer), Stored::Zstd).put(&place.store)?;
    let image = place.store.unpack(&digest)?;
    let look = |name: &str| fs::symlink_metadata(image.root.join(name));
    assert_eq!(look(".")?.mode() & 0o7777, 0o751);
    assert_eq!(look("su")?.mode() & 0o7777, 0o4755);
    assert_eq!(look("closed")?.mode() & 0o7777, 0o500);
    assert_eq!(look("same")?.ino(), look("su")?.ino());
    assert_eq!(look("link2")?.ino(), look("link")?.ino());
    assert!(look("pipe")?.file_type().is_fifo());
    assert_eq!(look("pipe")?.mode() & 0o7777, 0o620);
    assert_eq!((look("timed")?.mtime(), look("timed")?.mtime_nsec()), (1234, 500_000_000));
    assert_eq!(look("su")?.mtime(), 1_000_000_000);
    assert_eq!(look("closed")?.mtime(), 1_000_000_000);
    assert!(look("dev/null").is_err());
    let attributes: Vec<&str> =
        image.skipped.iter().map(|skipped| &skipped.why[..]).filter(|why| why.contains("attributes")).collect();
    if attributes.is_empty() {
        let mut names = vec![0; 1024];
        let length = rustix::fs::listxattr(image.root.join("timed"), &mut names[..])?;
        let own: Vec<&[u8]> = names[..length]
            .split(|b| *b == 0)
            .filter(|name| name.starts_with(b"user.") || name.starts_with(b"trusted."))
            .collect();
        assert_eq!(own, [b"user.note"], "marks of overlayfs are left out");
    }
    fs::set_permissions(image.root.join("closed"), fs::Permissions::from_mode(0o700))?; // so that the test can clean up
    assert_eq!(image.skipped[0].entry, "dev/null");
    Ok(())
}
