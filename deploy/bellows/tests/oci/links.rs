//! A folder that a container shares with somebody who exchanges one of its folders for a link, out of the root, while the container's mounts are made
//! (CVE-2021-30465).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, RenameFlags, renameat_with, unlinkat};
use serde_json::json;

use super::place;

/// Enough for the link to be met, and the folder as well: which one it was is told by where the mount's own folder was made.
const ROUNDS: usize = 60;

#[test]
fn a_mount_lands_inside_whatever_is_exchanged_meanwhile() {
    let Some(place) = place::place() else { return };
    let shared = place.dir.path().join("shared");
    let outside = place.dir.path().join("outside");
    for folder in [&shared.join("target"), &outside] {
        fs::create_dir_all(folder).expect("a folder");
    }
    symlink(&outside, shared.join("link")).expect("a link");
    let mut config = place.config("grep -c ^inner /proc/mounts");
    config["root"]["readonly"] = json!(false);
    let mounts = config["mounts"].as_array_mut().expect("a list");
    mounts.push(json!({"destination": "/vol", "type": "bind", "source": shared, "options": ["rbind", "rw"]}));
    mounts.push(json!({"destination": "/vol/target/inner", "type": "tmpfs", "source": "inner", "options": []}));
    // Where the link leads for whoever has the container's root.
    let followed = place.rootfs().join(outside.strip_prefix("/").expect("absolute"));
    fs::create_dir_all(&followed).expect("a folder");
    // By whatever name it has at the moment.
    let folder = fs::File::open(shared.join("target")).expect("a folder");
    let stop = AtomicBool::new(false);
    let (mut through_link, mut through_folder) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| exchange(&shared, &stop));
        for _ in 0..ROUNDS {
            let said = place.run(&config);
            // Resolved anew when something on the way was moved meanwhile, or refused with what was found there.
            assert!(said.out.trim() == "1" || said.err.contains("/vol/target/inner"), "{said:?}");
            through_link += usize::from(fs::remove_dir(followed.join("inner")).is_ok());
            through_folder += usize::from(unlinkat(&folder, "inner", AtFlags::REMOVEDIR).is_ok());
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{ROUNDS} times: through the link {through_link}, through the folder {through_folder}");
    assert_eq!(names(&outside), Vec::<std::ffi::OsString>::new(), "made outside");
    assert!(through_link > 0 && through_folder > 0, "met both: {through_link}, {through_folder}");
    // The control: by its path, as a runtime that trusts it would, the same folder is made outside.
    if fs::symlink_metadata(shared.join("target")).expect("one of both").is_dir() {
        swap(&shared).expect("exchanged");
    }
    fs::create_dir(shared.join("target/inner")).expect("by its path");
    assert_eq!(names(&outside), ["inner"]);
    place.check_nothing_left();
}

fn swap(shared: &Path) -> rustix::io::Result<()> {
    renameat_with(CWD, shared.join("target"), CWD, shared.join("link"), RenameFlags::EXCHANGE)
}

fn exchange(shared: &Path, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        swap(shared).expect("exchanged");
    }
}

fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect()
}
