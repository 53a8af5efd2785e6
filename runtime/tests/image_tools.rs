//! Images made by other people's tools. A tool that is not installed is named, and its test does nothing.

mod image_support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bellows_runtime::image::{Error, Limits};
use image_support::{Outcome, Place};

fn installed(tools: &[&str]) -> bool {
    let missing: Vec<_> = tools
        .iter()
        .filter(|tool| {
            let found = |folder: &str| Path::new(folder).join(tool).exists();
            !["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"].into_iter().any(found)
        })
        .collect();
    if !missing.is_empty() {
        println!("skipped: {missing:?} not installed (Debian: apt install umoci busybox-static skopeo)");
    }
    missing.is_empty()
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Outcome {
    let output = Command::new(program).args(arguments).current_dir(folder).stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// An image of busybox in the layout `folder/layout`, tag `1`: two layers, of which the second removes a file and replaces a folder.
fn busybox(folder: &Path) -> Outcome {
    run("umoci", &["init", "--layout", "layout"], folder)?;
    run("umoci", &["new", "--image", "layout:1"], folder)?;
    let unpacked = |name: &str| folder.join(name).join("rootfs");
    let rootless: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["--rootless"] };
    let unpack = |name| run("umoci", &[&["unpack"], rootless, &["--image", "layout:1", name]].concat(), folder);
    unpack("first")?;
    fs::create_dir_all(unpacked("first").join("bin"))?;
    fs::copy("/usr/bin/busybox", unpacked("first").join("bin/busybox"))
        .or_else(|_| fs::copy("/bin/busybox", unpacked("first").join("bin/busybox")))?;
    std::os::unix::fs::symlink("busybox", unpacked("first").join("bin/sh"))?;
    fs::create_dir_all(unpacked("first").join("etc/old"))?;
    fs::write(unpacked("first").join("etc/passwd"), "app:x:1000:1001::/home:/bin/sh\n")?;
    fs::write(unpacked("first").join("etc/old/file"), "old")?;
    fs::write(unpacked("first").join("gone"), "gone")?;
    run("umoci", &["repack", "--image", "layout:1", "first"], folder)?;
    unpack("second")?;
    fs::remove_file(unpacked("second").join("gone"))?;
    fs::remove_dir_all(unpacked("second").join("etc/old"))?;
    fs::write(unpacked("second").join("etc/old"), "a file now")?;
    fs::hard_link(unpacked("second").join("bin/busybox"), unpacked("second").join("bin/twin"))?;
    run("umoci", &["repack", "--image", "layout:1", "second"], folder)?;
    let config = [
        "config",
        "--image",
        "layout:1",
        "--config.user",
        "app",
        "--config.entrypoint",
        "/bin/sh",
        "--config.cmd",
        "-c",
        "--config.cmd",
        "echo hello",
    ];
    run("umoci", &config, folder)?;
    for name in ["first", "second"] {
        fs::remove_dir_all(folder.join(name))?;
    }
    Ok(())
}

fn check_busybox(place: &Place, source: &str, name: &str) -> Outcome {
    let loaded = place.store.load(&place.path(source), Some(name), &Limits::default())?;
    assert_eq!((loaded.names, loaded.layers), (vec![name.to_owned()], 2), "{source}");
    let image = place.store.unpack(&place.store.resolve(name)?)?;
    assert!(!image.root.join("gone").exists(), "{source}");
    assert_eq!(fs::read_to_string(image.root.join("etc/old"))?, "a file now", "{source}");
    assert_eq!(fs::read_link(image.root.join("bin/sh"))?, Path::new("busybox"), "{source}");
    assert_eq!((image.config.user.uid, image.config.user.gid), (1000, 1001), "{source}");
    assert_eq!(image.config.entrypoint, ["/bin/sh"], "{source}");
    if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("chroot");
        let output = command.arg(&image.root).args(&image.config.entrypoint).args(&image.config.cmd).output()?;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n", "{source}");
    }
    Ok(())
}

#[test]
fn umoci_layout_as_folder_and_archives() -> Outcome {
    if !installed(&["umoci", "busybox", "tar", "gzip"]) {
        return Ok(());
    }
    let place = Place::new()?;
    busybox(place.folder.path())?;
    check_busybox(&place, "layout", "box:folder")?;
    run("tar", &["-C", "layout", "-cf", "layout.tar", "."], place.folder.path())?;
    check_busybox(&place, "layout.tar", "box:tar")?;
    run("gzip", &["-k", "layout.tar"], place.folder.path())?;
    check_busybox(&place, "layout.tar.gz", "box:gz")?;
    let names = place.store.list()?;
    assert!(names.iter().all(|image| image.digest == names[0].digest), "one image, three ways");
    let unnamed = place.store.load(&place.path("layout"), None, &Limits::default())?;
    assert_eq!(unnamed.names, ["layout:1"]);
    Ok(())
}

#[test]
fn docker_archive_by_skopeo() -> Outcome {
    if !installed(&["umoci", "busybox", "skopeo"]) {
        return Ok(());
    }
    let place = Place::new()?;
    busybox(place.folder.path())?;
    run(
        "skopeo",
        &["--insecure-policy", "copy", "oci:layout:1", "docker-archive:saved.tar:box:1"],
        place.folder.path(),
    )?;
    check_busybox(&place, "saved.tar", "box:docker")?;
    let unnamed = place.store.load(&place.path("saved.tar"), None, &Limits::default())?;
    assert!(matches!(&unnamed.names[..], [name] if name.ends_with("box:1")), "{unnamed:?}");
    run("skopeo", &["--insecure-policy", "copy", "oci:layout:1", "oci-archive:archive.tar:1"], place.folder.path())?;
    check_busybox(&place, "archive.tar", "box:archive")
}

#[test]
fn a_cut_off_archive() -> Outcome {
    if !installed(&["umoci", "busybox", "tar"]) {
        return Ok(());
    }
    let place = Place::new()?;
    busybox(place.folder.path())?;
    run("tar", &["-C", "layout", "-cf", "layout.tar", "."], place.folder.path())?;
    let whole = fs::read(place.path("layout.tar"))?;
    for permille in [1, 100, 500, 900] {
        fs::write(place.path("layout.tar"), &whole[..whole.len() * permille / 1000])?;
        let error = place.store.load(&place.path("layout.tar"), Some("cut"), &Limits::default()).expect_err("cut off");
        assert!(
            matches!(error, Error::NotAnImage { .. } | Error::MissingMember { .. } | Error::WrongSize { .. }),
            "{permille}: {error:?}"
        );
        assert_eq!(place.store.list()?, []);
        assert_eq!(place.names_in("blobs/sha256")?, [""; 0]);
    }
    Ok(())
}

/// A file as far as two unpackers must agree on it.
fn describe(path: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let metadata = fs::symlink_metadata(path)?;
    let content = match metadata.file_type() {
        kind if kind.is_symlink() => format!("-> {}", fs::read_link(path)?.display()),
        kind if kind.is_file() => bellows_runtime::image::Digest::of(&fs::read(path)?).to_string(),
        _ => String::new(),
    };
    let (mode, uid, gid, mtime) = (metadata.mode(), metadata.uid(), metadata.gid(), metadata.mtime());
    let links = if metadata.is_dir() { 1 } else { metadata.nlink() };
    Ok(format!("{mode:o} {uid}:{gid} {mtime} links {links} {content}"))
}

fn compare(ours: &Path, theirs: &Path, count: &mut usize) -> Outcome {
    let names = |folder: &Path| -> Result<Vec<_>, Box<dyn std::error::Error>> {
        let mut names =
            fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<Vec<_>, _>>()?;
        names.sort();
        Ok(names)
    };
    assert_eq!(names(ours)?, names(theirs)?, "{}", ours.display());
    for name in names(ours)? {
        let (ours, theirs) = (ours.join(&name), theirs.join(&name));
        assert_eq!(describe(&ours)?, describe(&theirs)?, "{}", ours.display());
        *count += 1;
        if fs::symlink_metadata(&ours)?.is_dir() {
            compare(&ours, &theirs, count)?;
        }
    }
    Ok(())
}

#[test]
fn the_same_tree_as_umoci() -> Outcome {
    if !installed(&["umoci"]) || !nix::unistd::geteuid().is_root() {
        println!("skipped: needs umoci and root (for owners)");
        return Ok(());
    }
    let place = Place::new()?;
    let folder = place.folder.path();
    run("umoci", &["init", "--layout", "layout"], folder)?;
    run("umoci", &["new", "--image", "layout:1"], folder)?;
    // Two folders that every Debian has, full of links, owners and modes; then whiteouts over them.
    run("umoci", &["insert", "--image", "layout:1", "/etc", "/etc"], folder)?;
    run("umoci", &["insert", "--image", "layout:1", "/usr/share/zoneinfo", "/zones"], folder)?;
    run("umoci", &["insert", "--image", "layout:1", "--whiteout", "/etc/alternatives"], folder)?;
    run("umoci", &["insert", "--image", "layout:1", "--opaque", "/etc/apt", "/etc/default"], folder)?;
    run("umoci", &["unpack", "--image", "layout:1", "bundle"], folder)?;
    place.store.load(&place.path("layout"), Some("host:1"), &Limits::default())?;
    let image = place.store.unpack(&place.store.resolve("host:1")?)?;
    let mut count = 0;
    compare(&image.root, &place.path("bundle/rootfs"), &mut count)?;
    assert!(count > 300, "only {count} files compared");
    Ok(())
}
