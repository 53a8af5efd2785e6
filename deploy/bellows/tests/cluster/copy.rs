//! `bellows cp`, in and out: files and folders whole or not at all, within the copy's room, and never where a link of the app's leads on this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use super::support::cli::{Cli, text};
use super::support::machine;
use super::*;

fn cp(cli: &Cli, from: &str, to: &str) -> Output {
    cli.run(&["cp", from, to])
}

fn copied(cli: &Cli, from: &str, to: &str) {
    let output = cp(cli, from, to);
    assert!(output.status.success(), "{from} -> {to}: {}", text(&output.stderr));
}

fn refused(cli: &Cli, from: &str, to: &str, why: &str) {
    let output = cp(cli, from, to);
    assert!(!output.status.success() && text(&output.stderr).contains(why), "{from} -> {to}: {}", text(&output.stderr));
}

fn inside(cli: &Cli, script: &str) -> String {
    let output = cli.run(&["exec", "app", "--", "sh", "-c", script]);
    assert!(output.status.success(), "{script}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

#[test]
fn files_and_folders_go_in_and_come_back() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    let cli = &bench.dev.cli;
    cli.apply(&sleeper("app", 1), &["--wait"]);
    let id = field(&cli.replicas("app")[0], "id");
    let here = tempfile::tempdir().expect("a folder");
    let (site, back) = (here.path().join("site"), here.path().join("back"));
    fs::create_dir_all(site.join("deep/er")).expect("made");
    let noise: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(site.join("noise"), &noise).expect("written");
    fs::write(site.join("deep/er/run"), "#!/bin/sh\necho ran\n").expect("written");
    fs::set_permissions(site.join("deep/er/run"), fs::Permissions::from_mode(0o755)).expect("its own");
    std::os::unix::fs::symlink("noise", site.join("link")).expect("made");
    copied(cli, path(&site), "app:/srv");
    assert_eq!(
        inside(cli, "/srv/deep/er/run; busybox wc -c < /srv/noise; busybox readlink /srv/link"),
        "ran\n300000\nnoise\n"
    );
    // Into what is there, under its own name; then out again, under another.
    copied(cli, path(&site), &format!("{id}:/srv/"));
    assert_eq!(
        inside(cli, "busybox ls /srv/site; busybox ls -a / | busybox grep -c bellows-cp || true"),
        "deep\nlink\nnoise\n0\n"
    );
    copied(cli, "app:/srv/site", path(&back));
    assert_eq!(fs::read(back.join("noise")).expect("it is there"), noise);
    assert_eq!(fs::metadata(back.join("deep/er/run")).expect("it is there").permissions().mode() & 0o777, 0o755);
    copied(cli, &format!("{id}:/srv/noise"), path(here.path()));
    assert_eq!(fs::read(here.path().join("noise")).expect("it is there"), noise);
    bench.end();
}

#[test]
fn what_cannot_be_is_told_and_leaves_everything_as_it_was() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    let cli = &bench.dev.cli;
    cli.apply(&sleeper("app", 1), &["--wait"]);
    let here = tempfile::tempdir().expect("a folder");
    let (small, large) = (here.path().join("small"), here.path().join("large"));
    fs::write(&small, "small").expect("written");
    fs::write(&large, vec![7; 4 << 20]).expect("written");
    refused(cli, "app:/none", path(here.path()), "there is no /none");
    refused(cli, path(&small), "app:/none/x", "there is no /none");
    refused(cli, path(&small), "app:/www/index.html/", "is no folder");
    refused(cli, path(&here.path().join("none")), "app:/", "there is no");
    refused(cli, path(&small), path(&large), "neither side");
    refused(cli, path(&small), "nobody:/", "nobody");
    refused(cli, "app:/www", path(&small), "is no folder here already");
    // The writable layer has room for 1 MiB: the old file stays, and nothing of the new one.
    inside(cli, "echo old > /large");
    refused(cli, path(&large), "app:/large", "writable layer is full");
    assert_eq!(inside(cli, "cat /large; busybox ls -a / | busybox grep -c bellows-cp || true"), "old\n0\n");
    copied(cli, path(&small), "app:/small");
    assert_eq!(inside(cli, "cat /small"), "small");
    bench.end();
}

/// The app puts links where the copy goes: to a folder of this machine, and to a secret on it.
#[test]
fn no_link_of_the_apps_leads_to_this_machine() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    let cli = &bench.dev.cli;
    cli.apply(&sleeper("app", 1), &["--wait"]);
    let here = tempfile::tempdir().expect("a folder");
    let (secret, target, taken) = (here.path().join("secret"), here.path().join("target"), here.path().join("taken"));
    fs::write(&secret, "of this machine").expect("written");
    fs::create_dir_all(&target).expect("made");
    fs::create_dir_all(&taken).expect("made");
    inside(
        cli,
        &format!(
            "busybox ln -s {0} /folder; busybox ln -s /../../../..{0} /dots; busybox ln -s /proc/1/root{0} /proc-link; busybox ln -s {1} /leak",
            path(&target),
            path(&secret),
        ),
    );
    for link in ["folder", "dots", "proc-link"] {
        refused(cli, path(&secret), &format!("app:/{link}/"), "there is no");
    }
    assert_eq!(fs::read_dir(&target).expect("listed").count(), 0);
    copied(cli, "app:/leak", path(&taken));
    assert_eq!(fs::read_link(taken.join("leak")).expect("a link stays one"), secret);
    // A file in the place of the link, and not behind it.
    copied(cli, path(&secret), "app:/leak");
    assert_eq!(inside(cli, "busybox test ! -h /leak && cat /leak"), "of this machine");
    bench.end();
}
